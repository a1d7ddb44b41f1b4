//! NATS through websockets: the text protocol of [`crate::nats`] inside binary messages, on both sides.
//!
//! Invariant: when a connection is handed on the server has answered the `PING` behind its subscriptions.

use std::os::fd::OwnedFd;

use super::{Plan, name};
use crate::{
    flow::wire::{Downstream, Upstream},
    nats::{self, Line},
    ws::{
        Opened, Socket,
        framed::{FramedDown, FramedUp},
    },
};

/// Producers have chance of their own, beside that of readers.
const PRODUCERS: usize = 1 << 32;

/// A connection that publishes.
pub fn produce(plan: &Plan, number: usize) -> Result<(OwnedFd, Box<dyn Upstream>), String> {
    let (fd, socket, early) = greeted(plan, PRODUCERS + number, "")?.into_parts()?;
    if !early.is_empty() {
        return Err(format!("the NATS server says \"{}\" unasked", early.escape_ascii()));
    }
    let inner = nats::core::Up::new(&name(number), plan.stamps.size());
    Ok((fd, Box::new(FramedUp::new(inner, socket))))
}

/// A connection that has subscribed.
pub fn subscribed(plan: &Plan, number: usize, topic: usize) -> Result<Opened, String> {
    greeted(plan, number, &format!("SUB {} 1\r\n", name(topic)))
}

/// What a reader speaks on it.
pub fn down(socket: Socket) -> Box<dyn Downstream> {
    Box::new(FramedDown::new(nats::core::Down::default(), socket))
}

fn greeted(plan: &Plan, number: usize, subscribe: &str) -> Result<Opened, String> {
    let mut opened = plan.open("/", number)?;
    answered(&mut opened, |line| matches!(line, Line::Other))?;
    opened.send(format!("{}{subscribe}PING\r\n", nats::CONNECT).as_bytes())?;
    answered(&mut opened, |line| *line == Line::Pong)?;
    Ok(opened)
}

/// Waits for such a line.
fn answered(opened: &mut Opened, is_it: impl Fn(&Line<'_>) -> bool) -> Result<(), String> {
    let mut held = Vec::new();
    opened.read_until(|message| {
        held.extend_from_slice(message);
        let Some((line, used)) = nats::line(&held).map_err(|(_, why)| why)? else { return Ok(false) };
        match is_it(&line) && used == held.len() {
            true => Ok(true),
            false => Err(format!("the NATS server says \"{}\"", held.escape_ascii())),
        }
    })
}

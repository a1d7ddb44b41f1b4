//! `millpond micro stream TOPIC`: what is published on a topic, as it comes, one message a line.
//!
//! Invariant: a line is printed before the next message is read; the exit code is 0 only if as many came as were asked
//! for. Runs in: a process of its own.

use std::io::Write as _;
use std::time::Duration;

use rustix::event::PollFlags;

use super::client::socket::Socket;
use crate::codec::text::{base64, percent_encode};
use crate::net::websocket::{CloseCode, Decoder, Event, Opcode, Role, Step, frame, handshake};
use crate::runtime::entropy;

/// The daemon pings every 54 seconds; this long without a word it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The longest message: a body of the longest length that can be published, in base64, with its header.
const MESSAGE_MAX: usize = 8 << 20;

/// What to subscribe to.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Its parameters, in the order of the query, without those that are not given.
    pub params: [(&'static str, Option<&'a str>); 3],
    /// How many messages, if not all.
    pub count: Option<u64>,
}

/// Prints until it is interrupted, or as many messages have come as were asked for. `fields` end with CRLF each.
pub fn run(mut socket: Socket, authority: &str, fields: &str, wanted: &Wanted<'_>) -> Result<(), String> {
    let told = |trouble: super::client::socket::Trouble| trouble.to_string();
    let mut target = format!("/broker?topic={}", percent_encode(wanted.topic.as_bytes()));
    for (name, value) in wanted.params {
        if let Some(value) = value {
            target.push_str(&format!("&{name}={}", percent_encode(value.as_bytes())));
        }
    }
    let chance = entropy::secret().map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let (key, mask) = (base64(&chance[..16]), [chance[16], chance[17], chance[18], chance[19]]);
    socket.send(handshake::request(authority, &target, &key, fields).as_bytes()).map_err(told)?;
    let answer = socket.answer().map_err(told)?;
    if answer.status != 101 {
        let body = socket.whole(&answer).map_err(told)?;
        let said = String::from_utf8_lossy(&body);
        return Err(format!("{} {}: {}", answer.status, answer.reason, said.trim()));
    }
    let mut decoder = Decoder::new(Role::Client, MESSAGE_MAX);
    let mut left = wanted.count;
    loop {
        let bytes = socket.take_read();
        let mut used = 0;
        loop {
            if left == Some(0) {
                return leave(&mut socket, mask);
            }
            let (taken, step) = decoder.step(&bytes[used..]);
            used += taken;
            match step {
                Step::NeedMore => break,
                Step::Done(Event::Message { payload, .. }) => {
                    print(&payload)?;
                    left = left.map(|left| left - 1);
                }
                Step::Done(Event::Ping(payload)) => {
                    let mut pong = Vec::new();
                    frame::write(&mut pong, Opcode::Pong, &payload, Some(mask));
                    socket.send(&pong).map_err(told)?;
                }
                Step::Done(Event::Pong(_)) => {}
                Step::Done(Event::Close(code)) => {
                    let code =
                        code.map_or("without a code".to_owned(), |code| format!("with {}", code.number()));
                    return Err(format!("the daemon closed {code}"));
                }
                Step::Fail(failure) => {
                    return Err(format!("the daemon sent what is no websocket: {failure}"));
                }
            }
        }
        if socket.fill().map_err(told)?.is_none() {
            socket.wait(PollFlags::IN, SILENCE_MAX).map_err(told)?;
        }
    }
}

fn print(message: &[u8]) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(message).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    printed.map_err(|error| format!("stdout: {error}"))
}

fn leave(socket: &mut Socket, mask: [u8; 4]) -> Result<(), String> {
    let mut close = Vec::new();
    frame::write_close(&mut close, Some(CloseCode::NORMAL), "", Some(mask));
    socket.send(&close).map_err(|trouble| trouble.to_string())
}

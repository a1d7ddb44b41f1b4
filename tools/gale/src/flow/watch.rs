//! Asks again and again how much of a stream is durable.
//!
//! Invariant: one question at a time, and none when nothing waits for its answer.

use std::os::fd::OwnedFd;

use rustix::net::{SendFlags, send};

use super::wire::Wrong;
use crate::{held::Held, http::answer, tally::Kind};

/// Who asks.
pub struct Watcher {
    /// The producer whose stream it is, in its lane.
    pub producer: usize,
    /// Its connection.
    pub socket: OwnedFd,
    /// The question, an HTTP request for a head.
    pub question: Vec<u8>,
    /// Nanoseconds between two questions.
    pub interval: u64,
    /// When it may ask again.
    pub asks_at: u64,
    /// Whether it waits for an answer.
    pub is_waiting: bool,
    held: Held,
}

/// The field of the answer that matters.
const DURABLE: &str = "Stream-Durable-Offset";

impl Watcher {
    /// One that has not asked.
    pub fn new(producer: usize, socket: OwnedFd, question: Vec<u8>, interval: u64) -> Self {
        Self { producer, socket, question, interval, asks_at: 0, is_waiting: false, held: Held::default() }
    }

    /// Asks.
    pub fn ask(&mut self, now: u64) -> Result<(), Wrong> {
        self.is_waiting = true;
        self.asks_at = now + self.interval;
        match send(&self.socket, &self.question, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == self.question.len() => Ok(()),
            Ok(_) => Err((Kind::Closed, "the kernel took half a question".into())),
            Err(why) => Err((Kind::Closed, format!("{why} while asking what is durable"))),
        }
    }

    /// The durable length, if the answer is there.
    pub fn hear(&mut self, input: &[u8]) -> Result<Option<u64>, Wrong> {
        if input.is_empty() {
            return Err((Kind::Closed, "the server no longer says what is durable".into()));
        }
        let durable = self.held.take(input, |input| match answer::head(input, true) {
            answer::Step::More => (0, Ok(None)),
            answer::Step::Malformed(why) => (input.len(), Err((Kind::Malformed, why))),
            answer::Step::Head(head) if head.status != 200 => (
                head.len,
                Err((Kind::Status(head.status), format!("asked what is durable: {}", head.reason))),
            ),
            answer::Step::Head(head) => {
                let told = answer::field(&input[..head.len], DURABLE).and_then(|told| told.parse().ok());
                (head.len, told.map(Some).ok_or((Kind::Malformed, format!("an answer without {DURABLE}"))))
            }
        })?;
        self.is_waiting &= durable.is_none();
        Ok(durable)
    }
}

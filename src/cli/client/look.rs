//! Asks a server by `HEAD` how far a stream is, on a connection of its own that is kept for the next
//! question.
//!
//! Invariant: at most one question is under way, and its answer belongs to it.
//!
//! Runs in: the command-line clients; both blocking (between connections) and polled (beside one).

use std::time::{Duration, Instant};

use super::console;
use super::place::Place;
use super::socket::{ANSWER_WITHIN, Refusal, Socket, Trouble};
use super::state::Extent;

/// The asker.
pub struct Look {
    place: Place,
    socket: Option<Socket>,
    asked: Option<Instant>,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// The stream is there.
    Stream(Extent),
    /// There is no such stream.
    Missing,
    /// The answer names no offsets: this server cannot resume.
    Speechless,
    /// Anything else.
    Refused(Refusal),
}

impl Look {
    /// Nobody is connected to before the first question.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, socket: None, asked: None }
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self) -> Result<Looked, Trouble> {
        // An answer that was under way is older than the question, so its connection goes.
        if self.asked.is_some() {
            self.forget();
        }
        let kept = self.socket.is_some();
        match self.ask_once() {
            // A kept connection may have been closed while idle, which says nothing about the server.
            Err(Trouble::Closed | Trouble::Failed(_)) if kept => self.ask_once(),
            answer => answer,
        }
    }

    /// Asks without waiting for the answer; [`Look::answered`] gives it.
    pub fn begin(&mut self) -> Result<(), Trouble> {
        let sent = self.write();
        if sent.is_err() {
            self.forget();
        }
        sent
    }

    /// The socket to wait on, and for how long an answer may still take, while a question is under way.
    #[must_use]
    pub fn under_way(&self) -> Option<(&Socket, Duration)> {
        Some((self.socket.as_ref()?, ANSWER_WITHIN.saturating_sub(self.asked?.elapsed())))
    }

    /// Reads what has come; the answer once it is whole.
    pub fn answered(&mut self) -> Result<Option<Looked>, Trouble> {
        let read = self.read();
        if read.is_err() {
            self.forget();
        }
        read
    }

    /// Drops the connection and with it any question under way.
    pub fn forget(&mut self) {
        (self.socket, self.asked) = (None, None);
    }

    fn ask_once(&mut self) -> Result<Looked, Trouble> {
        self.begin()?;
        let answer = self.socket.as_mut().map_or(Err(Trouble::Closed), Socket::answer);
        match answer {
            Ok(answer) => Ok(self.judge(&answer)),
            Err(trouble) => {
                self.forget();
                Err(trouble)
            }
        }
    }

    fn write(&mut self) -> Result<(), Trouble> {
        let request = self.place.request("HEAD", "", "");
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(Socket::connect(&self.place.peer)?),
        };
        socket.send(&request)?;
        self.asked = Some(console::now());
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Looked>, Trouble> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        while socket.fill()?.is_some() {
            if let Some(answer) = socket.take_answer()? {
                return Ok(Some(self.judge(&answer)));
            }
        }
        match self.asked {
            Some(asked) if asked.elapsed() >= ANSWER_WITHIN => Err(Trouble::Silent),
            _ => Ok(None),
        }
    }

    fn judge(&mut self, answer: &super::answer::Answer) -> Looked {
        self.asked = None;
        let closes =
            answer.fields().text("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        // Bytes after the head of an answer to HEAD belong to nothing.
        if closes || self.socket.as_ref().is_some_and(Socket::has_read) {
            self.forget();
        }
        match answer.status {
            200..=299 => Extent::of(answer.fields()).map_or(Looked::Speechless, Looked::Stream),
            404 => Looked::Missing,
            // Original loom servers know no HEAD.
            405 | 501 => Looked::Speechless,
            _ => Looked::Refused(Refusal::of_head(answer)),
        }
    }
}

//! What a server says about a stream, read from the headers of an answer.
//!
//! Runs in: the command-line clients. Pure.

use super::answer::Fields;

/// Where a stream ends, how much of that is durable, and which history it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// `Stream-Next-Offset`: the stream's end, where the next byte goes.
    pub next: u64,
    /// `Stream-Durable-Offset`: bytes below survive any crash.
    pub durable: u64,
    /// `Stream-Epoch`: rises whenever the history before `next` may have changed.
    pub epoch: u64,
    /// `X-Stream-State`.
    pub state: State,
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A producer is attached.
    Open,
    /// The producer said that this is all.
    Complete,
    /// The producer vanished; it may come back.
    Interrupted,
}

impl State {
    /// The state that these fields name, if they name one.
    #[must_use]
    pub fn of(fields: &Fields) -> Option<Self> {
        match fields.text("x-stream-state")? {
            "open" => Some(Self::Open),
            "complete" => Some(Self::Complete),
            "interrupted" => Some(Self::Interrupted),
            _ => None,
        }
    }
}

impl Extent {
    /// Reads the four headers; `None` when one is missing, as from servers that cannot resume.
    ///
    /// `Stream-Durable-Offset` alone may be absent: then nothing is known to be durable.
    #[must_use]
    pub fn of(fields: &Fields) -> Option<Self> {
        Some(Self {
            next: fields.number("stream-next-offset")?,
            durable: fields.number("stream-durable-offset").unwrap_or(0),
            epoch: fields.number("stream-epoch")?,
            state: State::of(fields)?,
        })
    }
}

//! WebSocket by hand (RFC 6455): messages over a connection that began as an HTTP exchange.
//!
//! | file | holds |
//! |---|---|
//! | [`handshake`] | how a request becomes a websocket |
//! | [`frame`], [`mask`], [`utf8`] | the head of a frame; its mask; text that comes in pieces |
//! | [`decoder`] | frames to messages, without I/O |
//! | [`session`] | a connection: reading, a bounded queue of what is to be sent, pings, the close |
//!
//! Invariant: what breaks the protocol ends the connection with the code that says why, and no message of it
//! is seen by anyone. No extension and no subprotocol is negotiated, so every reserved bit is an error.
//! Lives on: the connection's shard.

pub mod decoder;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod session;
pub mod utf8;

pub use decoder::{Decoder, Event, Step};
pub use frame::{FrameHead, Opcode, Role};
pub use session::{Outbox, Session};

use std::fmt;

/// Why a connection ends (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// All is said.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// This end goes away.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// Text that is not UTF-8.
    pub const INVALID_TEXT: CloseCode = CloseCode(1007);
    /// A message that is longer than is taken.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// This end could not do its part.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// Later, perhaps: this end has too much to do, or the peer is too slow for what it asked for.
    pub const TRY_AGAIN: CloseCode = CloseCode(1013);

    /// A code that may stand in a close frame.
    pub fn on_the_wire(code: u16) -> Option<CloseCode> {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(CloseCode(code))
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What a peer did that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code for the close frame.
    pub code: CloseCode,
    /// What was wrong, for the peer; at most 123 bytes.
    pub reason: &'static str,
}

impl Failure {
    pub(super) const fn protocol(reason: &'static str) -> Failure {
        Failure { code: CloseCode::PROTOCOL_ERROR, reason }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.0, self.reason)
    }
}

impl std::error::Error for Failure {}

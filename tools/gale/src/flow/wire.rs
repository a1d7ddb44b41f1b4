//! What the engine for flows needs to know about a protocol, on the way up and on the way down, and the protocol
//! that is none: bytes on a socket.
//!
//! Invariant: no wire does I/O; bytes go in, and bytes to send come out.

use crate::tally::Kind;

/// What is wrong, and in which way.
pub type Wrong = (Kind, String);

/// How records go to a server.
pub trait Upstream: Send {
    /// Comes before `len` bytes of records.
    fn begin(&mut self, _out: &mut Vec<u8>, _len: usize) {}

    /// Comes before each record.
    fn before_record(&mut self, _out: &mut Vec<u8>) {}

    /// Comes after each record.
    fn after_record(&mut self, _out: &mut Vec<u8>) {}

    /// Comes after the records.
    fn end(&mut self, _out: &mut Vec<u8>) {}

    /// No record will follow.
    fn finish(&mut self, out: &mut Vec<u8>) -> Finish;

    /// What the server says. How many bytes are done with, and whether it has acknowledged everything.
    fn hear(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Wrong>;

    /// The server has ended the connection; an error unless that is its way of acknowledging.
    fn ended(&mut self) -> Result<(), Wrong> {
        Err((Kind::Closed, "the connection ended before everything was acknowledged".into()))
    }
}

/// How a producer tells that it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// It has said so.
    Said,
    /// It ends its half of the connection.
    Shutdown,
    /// It need not: all that it sent is acknowledged already.
    Settled,
}

/// How records come from a server.
pub trait Downstream: Send {
    /// Gives the content of what came to `deliver`, in pieces that need not be records. How many bytes are done with,
    /// and whether that was the end of the stream.
    fn hear(
        &mut self,
        input: &[u8],
        deliver: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Wrong>;

    /// Whether the stream goes on for ever, so that it is left when the window closes.
    fn is_endless(&self) -> bool {
        false
    }

    /// Whether the stream says that it ends; else it ends with the last record that its producer made.
    fn tells_its_end(&self) -> bool;

    /// The server has ended the connection; an error unless that is the end of the stream.
    fn ended(&mut self) -> Result<(), Wrong> {
        Err((Kind::Closed, "the connection ended before the stream did".into()))
    }
}

/// Bytes on a socket. The end of the connection acknowledges those that went up; those that
/// come down have no end.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Upstream for Raw {
    fn finish(&mut self, _out: &mut Vec<u8>) -> Finish {
        Finish::Shutdown
    }

    fn hear(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<(usize, bool), Wrong> {
        Err((Kind::Surplus, format!("{} bytes from a sink", input.len())))
    }

    fn ended(&mut self) -> Result<(), Wrong> {
        Ok(())
    }
}

impl Downstream for Raw {
    fn hear(
        &mut self,
        input: &[u8],
        deliver: &mut dyn FnMut(&[u8]),
        _out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Wrong> {
        deliver(input);
        Ok((input.len(), false))
    }

    fn is_endless(&self) -> bool {
        true
    }

    fn tells_its_end(&self) -> bool {
        true
    }
}

//! What can go wrong with a call, by culprit. Lives on: the call's shard.

use crate::net::http::Reason;
use crate::net::http::request::BadRequest;
use std::fmt;
use std::io;

/// Why a call has no answer, or no whole one.
#[derive(Debug)]
pub enum ClientError {
    /// The host name has no address; the resolver's words.
    Resolve(io::Error),
    /// No address took the connection; the error of the last one tried.
    Connect(io::Error),
    /// The connection, or leave to make one, did not come in time.
    ConnectTimeout,
    /// Too many calls wait for a connection to this endpoint.
    Busy,
    /// The peer ended the connection before the answer's head.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// The answer's head did not come in time.
    HeadTimeout,
    /// The peer neither took nor brought a byte of a body in time.
    Stalled,
    /// What the peer answered is not HTTP as we accept it.
    NotHttp(Reason),
    /// The answer's body ended before its framing said so.
    Truncated,
    /// What was to be sent is no request.
    Request(BadRequest),
}

impl ClientError {
    /// Whether no connection came about, so that nobody can have done anything.
    pub fn is_before_sending(&self) -> bool {
        matches!(
            self,
            ClientError::Resolve(_)
                | ClientError::Connect(_)
                | ClientError::ConnectTimeout
                | ClientError::Busy
                | ClientError::Request(_)
        )
    }

    /// Whether the connection ended before anything of an answer came: the peer may have done what it was asked.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, ClientError::Closed | ClientError::Broken(_))
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, ClientError::ConnectTimeout | ClientError::HeadTimeout | ClientError::Stalled)
    }
}

impl From<BadRequest> for ClientError {
    fn from(bad: BadRequest) -> Self {
        ClientError::Request(bad)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Resolve(error) => write!(f, "its name cannot be resolved: {error}"),
            ClientError::Connect(error) => write!(f, "it cannot be connected to: {error}"),
            ClientError::ConnectTimeout => f.write_str("no connection came about in time"),
            ClientError::Busy => f.write_str("too many requests wait for a connection to it"),
            ClientError::Closed => f.write_str("it closed the connection without an answer"),
            ClientError::Broken(error) => write!(f, "the connection broke: {error}"),
            ClientError::HeadTimeout => f.write_str("it did not answer in time"),
            ClientError::Stalled => f.write_str("it stopped in the middle of a body"),
            ClientError::NotHttp(reason) => write!(f, "its answer is not HTTP: {reason}"),
            ClientError::Truncated => f.write_str("its answer ended before its length"),
            ClientError::Request(bad) => write!(f, "the request cannot be sent: {bad}"),
        }
    }
}

impl std::error::Error for ClientError {}

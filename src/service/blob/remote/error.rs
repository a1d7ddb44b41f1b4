//! What goes wrong between us and the store elsewhere, and what a client is told.
//!
//! Invariant: no message tells keys, and none tells more of the other side than its status and code.
//! Pure; runs anywhere.

use crate::net::http::Status;
use crate::net::http::client::ClientError;
use std::fmt;

/// Why an operation on a store elsewhere was not done, or may not have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoteError {
    /// It has not answered since the start.
    NotReady(&'static str),
    /// It asks for fewer requests, or too many of ours wait for a connection.
    Busy,
    /// No connection, or one that broke.
    Unreachable(Box<str>),
    /// It did not answer in time.
    Timeout,
    /// It answered with an error that is none of the client's.
    Refused(u16, Box<str>),
    /// What it answered is nothing that it should.
    Malformed(&'static str),
    /// It is not done through this driver.
    NotOffered(&'static str),
    /// It says 404, and not of what.
    Absent,
    /// It does not take what was sent, with its status and code.
    Rejected(Box<str>),
}

impl RemoteError {
    /// The status that tells it.
    pub fn status(&self) -> Status {
        match self {
            RemoteError::NotReady(_) | RemoteError::Busy => Status::SERVICE_UNAVAILABLE,
            RemoteError::Unreachable(_)
            | RemoteError::Refused(..)
            | RemoteError::Absent
            | RemoteError::Malformed(_) => Status::BAD_GATEWAY,
            RemoteError::Timeout => Status::GATEWAY_TIMEOUT,
            RemoteError::NotOffered(_) => Status::NOT_IMPLEMENTED,
            RemoteError::Rejected(_) => Status::BAD_REQUEST,
        }
    }

    /// The code that tells it, where there are codes.
    pub fn code(&self) -> &'static str {
        match self {
            RemoteError::NotReady(_) => "ServiceUnavailable",
            RemoteError::Busy => "SlowDown",
            RemoteError::Unreachable(_)
            | RemoteError::Refused(..)
            | RemoteError::Absent
            | RemoteError::Malformed(_) => "BadGateway",
            RemoteError::Timeout => "GatewayTimeout",
            RemoteError::NotOffered(_) => "NotImplemented",
            RemoteError::Rejected(_) => "InvalidRequest",
        }
    }
}

impl From<ClientError> for RemoteError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Busy => RemoteError::Busy,
            ClientError::NotHttp(_) => RemoteError::Malformed("it is not HTTP"),
            // Header fields that cannot be sent: the store would not take them either.
            ClientError::Request(bad) => RemoteError::Rejected(bad.to_string().into()),
            error if error.is_timeout() => RemoteError::Timeout,
            error => RemoteError::Unreachable(error.to_string().into()),
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteError::NotReady(why) => write!(f, "the remote store is not ready: {why}"),
            RemoteError::Busy => f.write_str("the remote store has too much to do"),
            RemoteError::Unreachable(why) => write!(f, "the remote store cannot be reached: {why}"),
            RemoteError::Timeout => f.write_str("the remote store did not answer in time"),
            RemoteError::Refused(status, code) => write!(f, "the remote store answered {status} {code}"),
            RemoteError::Absent => f.write_str("the remote store answered 404"),
            RemoteError::Malformed(what) => write!(f, "the remote store's answer cannot be read: {what}"),
            RemoteError::NotOffered(what) => write!(f, "{what}: not through the driver s3"),
            RemoteError::Rejected(why) => write!(f, "the remote store does not take it: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_culprit_has_its_status() {
        let of = |error: ClientError| RemoteError::from(error).status().code();
        assert_eq!(of(ClientError::Closed), 502);
        assert_eq!(of(ClientError::Connect(std::io::ErrorKind::ConnectionRefused.into())), 502);
        assert_eq!((of(ClientError::HeadTimeout), of(ClientError::ConnectTimeout)), (504, 504));
        assert_eq!(of(ClientError::Busy), 503);
        assert_eq!(RemoteError::NotOffered("x").status().code(), 501);
        assert_eq!(RemoteError::Refused(403, "AccessDenied".into()).status().code(), 502);
    }
}

//! Writes request heads.
//!
//! Invariant: what leaves here is one well-formed head with one Host and one way of framing, whatever text users
//! put into it: names, values and targets are checked, and fields that frame cannot be added by hand.
//! Lives on: the call's shard.

use super::framing::BodyLength;
use super::response::push_decimal;
use super::{is_token, is_value_byte};
use std::fmt;

/// A request head, being written.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    body: BodyLength,
    is_head: bool,
    is_repeatable: bool,
    expects_continue: bool,
}

/// Text that would make another request of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// The method is no token.
    Method,
    /// The target is empty or holds a byte outside visible ASCII.
    Target,
    /// A field name is no token, or one that this client writes itself.
    FieldName,
    /// A field value holds a control character.
    FieldValue,
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRequest::Method => "the method is no token",
            BadRequest::Target => "the target is empty or holds a byte outside visible ASCII",
            BadRequest::FieldName => "a field name is no token, or frames the request",
            BadRequest::FieldValue => "a field value holds a control character",
        })
    }
}

impl std::error::Error for BadRequest {}

impl Request {
    /// A request without a body. `host` is what the Host field says.
    pub fn new(method: &str, target: &str, host: &str) -> Result<Request, BadRequest> {
        if !is_token(method.as_bytes()) {
            return Err(BadRequest::Method);
        }
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadRequest::Target);
        }
        let mut bytes = Vec::with_capacity(256);
        for part in [method, " ", target, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        let request = Request {
            bytes,
            body: BodyLength::None,
            is_head: method == "HEAD",
            is_repeatable: ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"].contains(&method),
            expects_continue: false,
        };
        request.line("Host", host.as_bytes())
    }

    /// Adds a field. Fields that frame the message are this client's own.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Result<Request, BadRequest> {
        let is_own = OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name));
        if is_own || !is_token(name.as_bytes()) {
            return Err(BadRequest::FieldName);
        }
        self.line(name, value.as_ref())
    }

    /// Asks for another protocol on this connection.
    pub fn upgrade(self, protocol: &[u8]) -> Result<Request, BadRequest> {
        self.line("Connection", b"Upgrade")?.line("Upgrade", protocol)
    }

    /// Says how long the body is; none is also what a GET says.
    pub fn body(mut self, body: BodyLength) -> Request {
        self.body = body;
        self
    }

    /// Offers the body first and sends it when the peer wants it. So a connection that its peer has given up is
    /// noticed before a byte of the body is lost; it costs a round trip.
    pub fn expect_continue(mut self) -> Request {
        self.expects_continue = true;
        self
    }

    /// Whether it may be sent again although the peer may have done it: true for the methods that RFC 9110 calls
    /// idempotent.
    pub fn repeatable(mut self, is_repeatable: bool) -> Request {
        self.is_repeatable = is_repeatable;
        self
    }

    pub(super) fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether it may be sent again.
    pub fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// How long its body is.
    pub fn length(&self) -> BodyLength {
        self.body
    }

    pub(super) fn waits_for_continue(&self) -> bool {
        self.expects_continue && !matches!(self.body, BodyLength::None | BodyLength::Exact(0))
    }

    /// Appends the whole head to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        match self.body {
            BodyLength::None => {}
            BodyLength::Exact(len) => {
                out.extend_from_slice(b"Content-Length: ");
                push_decimal(out, len);
                out.extend_from_slice(b"\r\n");
            }
            BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
        if self.waits_for_continue() {
            out.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn line(mut self, name: &str, value: &[u8]) -> Result<Request, BadRequest> {
        if !value.iter().copied().all(is_value_byte) {
            return Err(BadRequest::FieldValue);
        }
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
        Ok(self)
    }
}

/// Written by [`Request::write`], or never.
const OWN_FIELDS: [&str; 5] = ["Host", "Content-Length", "Transfer-Encoding", "Expect", "Connection"];

#[cfg(test)]
mod tests {
    use super::*;

    fn written(request: Request) -> String {
        let mut out = Vec::new();
        request.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn whole_heads() {
        let get = Request::new("GET", "/a?b", "h:1").unwrap().header("X-A", "b").unwrap();
        assert_eq!(written(get), "GET /a?b HTTP/1.1\r\nHost: h:1\r\nX-A: b\r\n\r\n");
        let put = Request::new("PUT", "/", "h").unwrap().body(BodyLength::Exact(12)).expect_continue();
        assert_eq!(
            written(put),
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n"
        );
        let none = Request::new("PUT", "/", "h").unwrap().body(BodyLength::Exact(0)).expect_continue();
        assert!(!written(none).contains("Expect"), "nothing is offered");
        let live = Request::new("POST", "/", "h").unwrap().body(BodyLength::Chunked);
        assert!(!live.is_repeatable() && written(live).contains("Transfer-Encoding: chunked\r\n"));
    }

    #[test]
    fn text_cannot_become_another_request() {
        assert_eq!(Request::new("GET /", "/", "h").err(), Some(BadRequest::Method));
        for target in ["", "/a b", "/a\r\nX: y", "/ü"] {
            assert_eq!(Request::new("GET", target, "h").err(), Some(BadRequest::Target));
        }
        assert_eq!(Request::new("GET", "/", "h\r\nX: y").err(), Some(BadRequest::FieldValue));
        let get = || Request::new("GET", "/", "h").unwrap();
        for name in ["content-length", "Transfer-encoding", "HOST", "a b", ""] {
            assert_eq!(get().header(name, "1").err(), Some(BadRequest::FieldName), "{name}");
        }
        assert_eq!(get().header("X", "a\nb").err(), Some(BadRequest::FieldValue));
    }
}

//! Writes response heads into a reusable buffer.
//!
//! Invariant: what leaves here is one well-formed head: no CR, LF or NUL in a value, exactly one way of
//! framing, none where the status forbids a body. Our own slips are assertions; text from users is checked.
//! Lives on: the connection's shard.

use std::fmt;
use std::ops::Range;

use super::{Status, is_token, is_value_byte};
use crate::codec::time::HttpDate;

/// A head being written; each call adds a field, [`ResponseHead::finish`] ends it.
#[must_use = "a head without finish() is not a head"]
pub struct ResponseHead<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    status: Status,
    is_framed: bool,
    closes: bool,
}

/// A value that cannot be sent as a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue;

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field value holds a control character; only tab, visible ASCII and bytes from 0x80 can be sent")
    }
}

impl std::error::Error for BadValue {}

impl<'b> ResponseHead<'b> {
    /// Appends the status line and Date to `out`.
    pub fn start(out: &'b mut Vec<u8>, status: Status, date: &HttpDate) -> ResponseHead<'b> {
        let head = ResponseHead::open(out, status);
        if status.is_informational() { head } else { head.header("Date", date.as_bytes()) }
    }

    /// `HTTP/1.1 100 Continue`, whole.
    pub fn write_continue(out: &mut Vec<u8>) {
        ResponseHead::open(out, Status::CONTINUE).finish();
    }

    /// Adds a field that our own code wrote.
    ///
    /// # Panics
    /// If the name is no token or the value holds a control character.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> ResponseHead<'b> {
        let value = value.as_ref();
        assert!(is_value(value), "the value of {name} holds a control character");
        self.put(name, value)
    }

    /// Adds a field whose value came from a user. On an error the head is taken back from the buffer,
    /// so that another answer can be started.
    pub fn checked_header(self, name: &str, value: impl AsRef<[u8]>) -> Result<ResponseHead<'b>, BadValue> {
        if is_value(value.as_ref()) {
            return Ok(self.put(name, value.as_ref()));
        }
        self.out.truncate(self.start);
        Err(BadValue)
    }

    /// Adds a field with a number.
    pub fn header_u64(mut self, name: &str, value: u64) -> ResponseHead<'b> {
        self.begin_line(name);
        push_decimal(self.out, value);
        self.end_line()
    }

    /// The body has exactly `len` bytes (or would have, in an answer to HEAD).
    pub fn content_length(self, len: u64) -> ResponseHead<'b> {
        assert!(self.status.has_body() || self.status == Status::NOT_MODIFIED, "{} has no body", self.status);
        self.framed().header_u64("Content-Length", len)
    }

    /// The body comes in chunks.
    pub fn chunked(self) -> ResponseHead<'b> {
        assert!(self.status.has_body(), "{} has no body", self.status);
        self.framed().put("Transfer-Encoding", b"chunked")
    }

    /// The connection closes behind this answer; without a length or chunks, the close also ends the body.
    pub fn close(mut self) -> ResponseHead<'b> {
        self.closes = true;
        self.put("Connection", b"close")
    }

    /// The answer to a HEAD whose length nobody knows.
    pub fn bodiless(self) -> ResponseHead<'b> {
        self.framed()
    }

    /// `Content-Range: bytes first-last/len` of the part `start..end`, for 206; an unknown length shows as `*`.
    pub fn content_range(self, part: Range<u64>, len: Option<u64>) -> ResponseHead<'b> {
        assert!(
            part.start < part.end && len.is_none_or(|len| part.end <= len),
            "{part:?} of {len:?} is no range"
        );
        self.out.extend_from_slice(b"Content-Range: bytes ");
        push_decimal(self.out, part.start);
        self.out.push(b'-');
        push_decimal(self.out, part.end - 1);
        self.out.push(b'/');
        match len {
            Some(len) => push_decimal(self.out, len),
            None => self.out.push(b'*'),
        }
        self.end_line()
    }

    /// `Content-Range: bytes */len`, for 416.
    pub fn content_range_unsatisfied(self, len: u64) -> ResponseHead<'b> {
        self.out.extend_from_slice(b"Content-Range: bytes */");
        push_decimal(self.out, len);
        self.end_line()
    }

    /// Ends the head.
    ///
    /// # Panics
    /// If nothing said where the body ends although the status has one.
    pub fn finish(self) {
        assert!(
            self.is_framed || self.closes || !self.status.has_body(),
            "nothing says where the body of this {} ends: content_length, chunked, close or bodiless",
            self.status
        );
        self.out.extend_from_slice(b"\r\n");
    }

    fn open(out: &'b mut Vec<u8>, status: Status) -> ResponseHead<'b> {
        let start = out.len();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&status.digits());
        out.push(b' ');
        out.extend_from_slice(status.phrase().as_bytes());
        ResponseHead { out, start, status, is_framed: false, closes: false }.end_line()
    }

    fn framed(mut self) -> ResponseHead<'b> {
        assert!(!self.is_framed, "one body, one length");
        self.is_framed = true;
        self
    }

    fn put(mut self, name: &str, value: &[u8]) -> ResponseHead<'b> {
        self.begin_line(name);
        self.out.extend_from_slice(value);
        self.end_line()
    }

    fn begin_line(&mut self, name: &str) {
        assert!(is_token(name.as_bytes()), "{name:?} is no field name");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
    }

    fn end_line(self) -> ResponseHead<'b> {
        self.out.extend_from_slice(b"\r\n");
        self
    }
}

fn is_value(value: &[u8]) -> bool {
    value.iter().copied().all(is_value_byte)
}

/// Appends `number` in decimal.
pub fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; DECIMAL_MAX];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Digits of the largest `u64`.
const DECIMAL_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(ResponseHead<'_>), status: Status) -> String {
        let mut out = Vec::new();
        write(ResponseHead::start(&mut out, status, &HttpDate::at(784_111_777)));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_whole_head() {
        let text = written(
            |head| {
                head.header("Content-Type", "text/plain")
                    .header_u64("X-N", 0)
                    .content_length(u64::MAX)
                    .finish()
            },
            Status::OK,
        );
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nX-N: 0\r\n\
             Content-Length: 18446744073709551615\r\n\r\n"
        );
    }

    #[test]
    fn chunks_and_close() {
        let text = written(|head| head.chunked().close().finish(), Status::CREATED);
        assert!(text.ends_with("GMT\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn close_alone_frames_and_some_statuses_need_nothing() {
        assert!(written(|head| head.close().finish(), Status::OK).contains("Connection: close\r\n"));
        assert!(written(|head| head.finish(), Status::NO_CONTENT).starts_with("HTTP/1.1 204 No Content\r\n"));
        assert!(!written(|head| head.finish(), Status::SWITCHING_PROTOCOLS).contains("Date"));
        assert!(written(|head| head.content_length(5).finish(), Status::NOT_MODIFIED).contains(": 5\r\n"));
    }

    #[test]
    fn ranges() {
        let part =
            written(|head| head.content_range(2..5, Some(5)).bodiless().finish(), Status::PARTIAL_CONTENT);
        assert!(part.contains("\r\nContent-Range: bytes 2-4/5\r\n"));
        let open = written(|head| head.content_range(0..1, None).chunked().finish(), Status::PARTIAL_CONTENT);
        assert!(open.contains("\r\nContent-Range: bytes 0-0/*\r\n"));
        let none = written(
            |head| head.content_range_unsatisfied(7).content_length(0).finish(),
            Status::RANGE_NOT_SATISFIABLE,
        );
        assert!(none.contains("\r\nContent-Range: bytes */7\r\n"));
    }

    #[test]
    fn the_interim_answer() {
        let mut out = Vec::new();
        ResponseHead::write_continue(&mut out);
        assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn a_users_value_cannot_split_the_head() {
        for value in ["a\r\nSet-Cookie: b", "a\nb", "\0", "\x7f"] {
            let mut out = b"before".to_vec();
            let head = ResponseHead::start(&mut out, Status::OK, &HttpDate::at(0));
            assert_eq!(head.checked_header("X-User", value).err(), Some(BadValue));
            assert_eq!(out, b"before");
        }
        let text =
            written(|head| head.checked_header("X-User", "\u{e9}\t ~").unwrap().close().finish(), Status::OK);
        assert!(text.contains("\r\nX-User: \u{e9}\t ~\r\n"));
    }

    #[test]
    #[should_panic(expected = "holds a control character")]
    fn our_own_values_are_asserted() {
        written(|head| head.header("X", "a\rb").close().finish(), Status::OK);
    }

    #[test]
    #[should_panic(expected = "is no field name")]
    fn names_are_asserted() {
        written(|head| head.header("X Y", "a").close().finish(), Status::OK);
    }

    #[test]
    #[should_panic(expected = "nothing says where the body")]
    fn an_unframed_body_is_our_fault() {
        written(|head| head.finish(), Status::OK);
    }

    #[test]
    #[should_panic(expected = "one body, one length")]
    fn two_framings_are_our_fault() {
        written(|head| head.content_length(1).chunked().finish(), Status::OK);
    }

    #[test]
    #[should_panic(expected = "204 No Content has no body")]
    fn a_length_for_no_content_is_our_fault() {
        written(|head| head.content_length(0).finish(), Status::NO_CONTENT);
    }
}

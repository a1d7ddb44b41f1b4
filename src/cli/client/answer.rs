//! The head of an answer: status, headers, and how its body ends.
//!
//! Invariant: a head whose framing is contradictory is refused, so that no body is cut or stretched.
//!
//! Runs in: the command-line clients. Pure.

use std::fmt;

use super::body::Body;

/// Longer heads are refused.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;

/// Status line and headers of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Words after the status, often empty.
    pub reason: String,
    fields: Fields,
}

/// Header or trailer fields, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Vec<u8>)>);

/// Why an answer cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbled {
    /// The head is not HTTP/1.
    Head,
    /// The head is longer than [`HEAD_BYTES_MAX`].
    HeadTooLong,
    /// Several lengths, a length beside a transfer coding, or a coding other than chunked.
    Framing,
    /// A chunk's size line is not a hexadecimal number that fits.
    ChunkSize,
    /// A chunk does not end in CRLF.
    ChunkEnd,
    /// The trailers are malformed or too long.
    Trailers,
}

impl Answer {
    /// Reads a head from the front of `input`: the answer and its length, or `None` when more is needed.
    ///
    /// Interim answers (1xx) are skipped and counted in the length; 101 is none of them.
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, Garbled> {
        let mut skipped = 0;
        loop {
            let mut space = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut head = httparse::Response::new(&mut space);
            let len = match head.parse(&input[skipped..]) {
                Ok(httparse::Status::Complete(len)) => len,
                Ok(httparse::Status::Partial) if input.len() - skipped < HEAD_BYTES_MAX => return Ok(None),
                Ok(httparse::Status::Partial) => return Err(Garbled::HeadTooLong),
                Err(_) => return Err(Garbled::Head),
            };
            skipped += len;
            let status = head.code.ok_or(Garbled::Head)?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let reason = head.reason.unwrap_or_default().to_owned();
            return Ok(Some((Self { status, reason, fields: Fields::of(head.headers) }, skipped)));
        }
    }

    /// The header fields.
    #[must_use]
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// How the body that follows this head ends; `to_head` when it answers a HEAD request.
    pub fn body(&self, to_head: bool) -> Result<Body, Garbled> {
        if to_head || matches!(self.status, 204 | 304) {
            return Ok(Body::empty());
        }
        let codings = self.fields.all("transfer-encoding").collect::<Vec<_>>();
        let lengths = self.fields.all("content-length").collect::<Vec<_>>();
        match (codings.as_slice(), lengths.as_slice()) {
            ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::chunked()),
            ([], [length]) => decimal(length).map(Body::of_len).ok_or(Garbled::Framing),
            ([], []) => Ok(Body::until_close()),
            _ => Err(Garbled::Framing),
        }
    }
}

impl Fields {
    pub(super) fn of(parsed: &[httparse::Header<'_>]) -> Self {
        Self(parsed.iter().map(|h| (h.name.to_owned(), h.value.to_owned())).collect())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// The first field of this name, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok()).map(str::trim)
    }

    /// The first field of this name, if it is a plain decimal number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.all(name).next().and_then(decimal)
    }
}

fn decimal(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "the answer is not HTTP/1",
            Self::HeadTooLong => "the answer's head is longer than 64 KiB",
            Self::Framing => "the answer's length is contradictory or its transfer coding unknown",
            Self::ChunkSize => "a chunk of the answer has no valid size",
            Self::ChunkEnd => "a chunk of the answer does not end where its size says",
            Self::Trailers => "the answer's trailers are malformed",
        })
    }
}

impl std::error::Error for Garbled {}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: Chunked\r\nStream-Next-Offset: 7 \r\n\r\nrest";

    #[test]
    fn every_prefix_of_a_head_wants_more_and_the_whole_gives_it() {
        let whole = CREATED.len() - 4;
        for cut in 0..whole {
            assert_eq!(Answer::parse(&CREATED[..cut]), Ok(None), "at {cut}");
        }
        let (answer, used) = Answer::parse(CREATED).expect("valid").expect("whole");
        assert_eq!((answer.status, answer.reason.as_str(), used), (201, "Created", whole));
        assert_eq!(answer.fields().number("stream-next-offset"), Some(7));
        assert_eq!(answer.fields().text("STREAM-NEXT-OFFSET"), Some("7"));
        assert_eq!(answer.fields().text("stream-epoch"), None);
        assert_eq!(answer.body(false), Ok(Body::chunked()));
        assert_eq!(answer.body(true), Ok(Body::empty()));
    }

    #[test]
    fn framing_is_taken_only_when_it_is_unambiguous() {
        for (lines, body) in [
            ("", Ok(Body::until_close())),
            ("Content-Length: 5\r\n", Ok(Body::of_len(5))),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Garbled::Framing)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(Garbled::Framing)),
            ("Content-Length: +5\r\n", Err(Garbled::Framing)),
            ("Content-Length: 99999999999999999999\r\n", Err(Garbled::Framing)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Garbled::Framing)),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            let (answer, _) = Answer::parse(text.as_bytes()).expect("valid").expect("whole");
            assert_eq!(answer.body(false), body, "{lines}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused_and_a_head_has_a_bound() {
        assert_eq!(Answer::parse(b"SSH-2.0-x\r\n"), Err(Garbled::Head));
        let mut long = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        long.resize(HEAD_BYTES_MAX - 1, b'a');
        assert_eq!(Answer::parse(&long), Ok(None));
        long.push(b'a');
        assert_eq!(Answer::parse(&long), Err(Garbled::HeadTooLong));
    }
}

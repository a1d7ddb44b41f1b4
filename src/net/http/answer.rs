//! The head of an answer that we asked for, read as strictly as a request's: spans over one copy.
//!
//! Invariant: what is accepted ends where its sender says it does, or with the connection; an answer that two
//! readers could frame differently is refused. No I/O. Lives on: the call's shard.

use super::fields::{Fields, Span};
use super::framing::{self, BodyLength};
use super::head::{FIELDS_CEILING, HeadLimits, has_lone_line_end};
use super::{Reason, Status, Step, Version};
use std::mem::MaybeUninit;

/// An answer's head. All accessors speak of the last one for which [`AnswerHead::parse`] returned [`Step::Done`].
#[derive(Debug)]
pub struct AnswerHead {
    fields: Fields,
    phrase: Span,
    status: Status,
    version: Version,
    body: Option<BodyLength>,
    keep_alive: bool,
}

impl Default for AnswerHead {
    fn default() -> Self {
        AnswerHead {
            fields: Fields::default(),
            phrase: Span::EMPTY,
            status: Status::OK,
            version: Version::Http11,
            body: Some(BodyLength::None),
            keep_alive: false,
        }
    }
}

impl AnswerHead {
    /// Looks for a whole head at the start of `input`; `Done` tells how many bytes it took. `to_head` when the
    /// request was a HEAD: its answer has no body, whatever the fields say.
    pub fn parse(&mut self, input: &[u8], limits: &HeadLimits, to_head: bool) -> Step<usize> {
        let window = &input[..input.len().min(limits.bytes_max)];
        let fields_max = limits.fields_max.min(FIELDS_CEILING);
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_CEILING];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut answer,
            window,
            &mut fields[..fields_max],
        );
        match parsed {
            _ if window.starts_with(b"\r") || window.starts_with(b"\n") => Reason::StatusLine.into(),
            Ok(httparse::Status::Partial) if has_lone_line_end(window) => Reason::LineEnd.into(),
            Ok(httparse::Status::Partial) if window.len() == limits.bytes_max => {
                Reason::HeadTooLarge(limits.bytes_max).into()
            }
            Ok(httparse::Status::Partial) => Step::NeedMore,
            Ok(httparse::Status::Complete(len)) => match self.accept(&window[..len], &answer, to_head) {
                Ok(()) => Step::Done(len),
                Err(reason) => reason.into(),
            },
            Err(error) => explain(error, window, fields_max).into(),
        }
    }

    fn accept(
        &mut self,
        head: &[u8],
        answer: &httparse::Response<'_, '_>,
        to_head: bool,
    ) -> Result<(), Reason> {
        if has_lone_line_end(head) {
            return Err(Reason::LineEnd);
        }
        let (Some(code), Some(minor)) = (answer.code, answer.version) else {
            unreachable!("a complete answer has both");
        };
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        let status = Status::from_code(code).ok_or(Reason::StatusLine)?;
        let fields = answer.headers.iter().map(|field| (field.name, field.value));
        let framing = framing::decide_answer(version, status, to_head, fields)?;
        self.fields.store(head, answer.headers);
        self.phrase = Span::of(answer.reason.unwrap_or_default().as_bytes(), head);
        self.status = status;
        self.version = version;
        self.body = framing.body;
        self.keep_alive = framing.keep_alive;
        Ok(())
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// What stands behind the status's digits; means nothing to a program.
    pub fn phrase(&self) -> &[u8] {
        self.fields.slice(self.phrase)
    }

    /// The version of the answer.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The first field called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers(name).next()
    }

    /// All fields called `name`, in any case, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.named(name)
    }

    /// All fields as they came; values are without the space around them.
    pub fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.all()
    }

    /// How the body is delimited; `None` by the connection's end.
    pub fn body(&self) -> Option<BodyLength> {
        self.body
    }

    /// What `Content-Length` says, which in an answer to HEAD is about a body that does not come.
    pub fn content_length(&self) -> Option<u64> {
        framing::decimal(self.header("content-length")?)
    }

    /// Whether the peer takes another request on this connection behind this answer.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }
}

fn explain(error: httparse::Error, head: &[u8], fields_max: usize) -> Reason {
    match error {
        httparse::Error::HeaderName => Reason::FieldName,
        httparse::Error::HeaderValue => Reason::FieldValue,
        httparse::Error::TooManyHeaders => Reason::TooManyFields(fields_max),
        httparse::Error::NewLine if has_lone_line_end(head) => Reason::LineEnd,
        httparse::Error::NewLine
        | httparse::Error::Token
        | httparse::Error::Status
        | httparse::Error::Version => Reason::StatusLine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(input: &[u8], to_head: bool) -> (Step<usize>, AnswerHead) {
        let mut head = AnswerHead::default();
        (head.parse(input, &HeadLimits::default(), to_head), head)
    }

    fn accepted(text: &str) -> AnswerHead {
        let (step, head) = parse(text.as_bytes(), false);
        assert_eq!(step, Step::Done(text.len()), "{text}");
        head
    }

    fn refused(text: &str) -> Reason {
        match parse(text.as_bytes(), false).0 {
            Step::Refuse(refusal) => refusal.reason,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_head_at_every_split() {
        let text = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\nX-A: b\r\nx-a:  c \r\n\r\n";
        for split in 0..text.len() {
            assert_eq!(parse(&text[..split], false).0, Step::NeedMore, "{split}");
        }
        let (step, head) = parse(&[text, &b"abc"[..]].concat(), false);
        assert_eq!(step, Step::Done(text.len()));
        assert_eq!(
            (head.status(), head.phrase(), head.version()),
            (Status::PARTIAL_CONTENT, &b"Partial Content"[..], Version::Http11)
        );
        assert_eq!(head.headers("X-A").collect::<Vec<_>>(), [&b"b"[..], b"c"]);
        assert_eq!((head.body(), head.keep_alive()), (Some(BodyLength::Exact(3)), true));
    }

    #[test]
    fn where_a_body_ends() {
        let body = |rest: &str| {
            let head = accepted(&format!("HTTP/1.1 {rest}\r\n\r\n"));
            (head.body(), head.keep_alive())
        };
        assert_eq!(body("200 OK\r\nTransfer-Encoding: chunked"), (Some(BodyLength::Chunked), true));
        assert_eq!(body("200 OK"), (None, false));
        assert_eq!(body("204 No Content"), (Some(BodyLength::None), true));
        assert_eq!(body("304 Not Modified\r\nContent-Length: 5"), (Some(BodyLength::None), true));
        assert_eq!(
            body("200 OK\r\nContent-Length: 0\r\nConnection: close"),
            (Some(BodyLength::Exact(0)), false)
        );
        let old = accepted("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n");
        assert!(!old.keep_alive());
        let (_, to_head) = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true);
        assert_eq!((to_head.body(), to_head.content_length()), (Some(BodyLength::None), Some(9)));
    }

    #[test]
    fn what_two_readers_could_frame_differently_is_refused() {
        for (text, reason) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Reason::LengthRepeated),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", Reason::LengthInvalid),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Reason::LengthAndCoding,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Reason::CodingNotAlone),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::CodingInHttp10),
            ("HTTP/1.1 200 OK\nX: y\r\n\r\n", Reason::LineEnd),
            ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", Reason::FieldName),
            ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", Reason::FieldValue),
            ("HTTP/1.1 099 Low\r\n\r\n", Reason::StatusLine),
            ("HTTP/1.1 600 High\r\n\r\n", Reason::StatusLine),
            ("HTTP/2.0 200 OK\r\n\r\n", Reason::StatusLine),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", Reason::StatusLine),
            ("SSH-2.0-OpenSSH\r\n", Reason::StatusLine),
        ] {
            assert_eq!(refused(text), reason, "{text:?}");
        }
        let limits = HeadLimits { bytes_max: 40, fields_max: 1 };
        let step = |text: &str| AnswerHead::default().parse(text.as_bytes(), &limits, false);
        assert_eq!(step(&format!("HTTP/1.1 200 {}", "x".repeat(60))), Reason::HeadTooLarge(40).into());
        assert_eq!(step("HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n"), Reason::TooManyFields(1).into());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let with_line = [&b"HTTP/1.1 200 OK\r\n"[..], &input, b"\r\n\r\n"].concat();
            for text in [&input, &with_line] {
                if let (Step::Done(len), head) = parse(text, false) {
                    prop_assert!(len <= text.len());
                    prop_assert!(head.all().all(|(name, _)| !name.is_empty()));
                }
            }
        }
    }
}

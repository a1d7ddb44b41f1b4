//! The head of an answer: bytes in, a value out.
//!
//! Invariant: a head whose length of body could be understood in two ways is refused.

/// Heads beyond this are refused.
pub const HEAD_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 128;

/// What a head says about its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Its words.
    pub reason: String,
    /// How the body ends.
    pub framing: Framing,
    /// The length that the head tells, whether or not such a body follows.
    pub length: Option<u64>,
    /// Whether another answer may come on this connection.
    pub keeps_alive: bool,
    /// Bytes of the head.
    pub len: usize,
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// After so many bytes; 0 where there is none.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// What the bytes so far are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The beginning of a head.
    More,
    /// A head.
    Head(Head),
    /// None.
    Malformed(String),
}

/// Reads a head. `to_head` says that the request was a HEAD, whose answer has no body.
pub fn head(input: &[u8], to_head: bool) -> Step {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(input) {
        Ok(httparse::Status::Complete(len)) => match meaning(&response, to_head, len) {
            Ok(head) => Step::Head(head),
            Err(why) => Step::Malformed(why),
        },
        Ok(httparse::Status::Partial) if input.len() < HEAD_MAX => Step::More,
        Ok(httparse::Status::Partial) => Step::Malformed(format!("a head of more than {HEAD_MAX} bytes")),
        Err(why) => {
            let start = &input[..input.len().min(40)];
            Step::Malformed(format!("{why} in a head that begins with \"{}\"", start.escape_ascii()))
        }
    }
}

/// The value of a field in a head that was read before.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = head.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn meaning(response: &httparse::Response<'_, '_>, to_head: bool, len: usize) -> Result<Head, String> {
    let status = response.code.unwrap_or_default();
    let mut keeps_alive = response.version == Some(1);
    let (mut length, mut chunked) = (None, false);
    for field in response.headers.iter() {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("content-length") {
            let told = decimal(value).ok_or_else(|| format!("Content-Length: {}", value.escape_ascii()))?;
            if length.is_some_and(|length| length != told) {
                return Err("two different lengths".into());
            }
            length = Some(told);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(format!("Transfer-Encoding: {}", value.escape_ascii()));
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("connection") {
            let has = |word: &[u8]| {
                value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word))
            };
            keeps_alive = !has(b"close") && (keeps_alive || has(b"keep-alive"));
        }
    }
    if chunked && length.is_some() {
        return Err("both a length and chunks".into());
    }
    let has_no_body = to_head || (100..200).contains(&status) || matches!(status, 204 | 304);
    let framing = match (has_no_body, chunked, length) {
        (true, ..) => Framing::Length(0),
        (_, true, _) => Framing::Chunked,
        (_, _, Some(length)) => Framing::Length(length),
        _ => Framing::Close,
    };
    let keeps_alive = keeps_alive && framing != Framing::Close;
    Ok(Head { status, reason: response.reason.unwrap_or_default().into(), framing, length, keeps_alive, len })
}

fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(text: &str, to_head: bool) -> (u16, Framing, bool) {
        match head(text.as_bytes(), to_head) {
            Step::Head(head) => (head.status, head.framing, head.keeps_alive),
            other => panic!("{text:?} is {other:?}"),
        }
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        for (text, to_head, expected) in [
            (ok("content-length: 12\r\n"), false, (200, Framing::Length(12), true)),
            (ok("Content-Length: 12\r\n"), true, (200, Framing::Length(0), true)),
            (ok("Transfer-Encoding: Chunked\r\n"), false, (200, Framing::Chunked, true)),
            (ok(""), false, (200, Framing::Close, false)),
            (ok("Content-Length: 1\r\nConnection: x, Close\r\n"), false, (200, Framing::Length(1), false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n".into(), false, (200, Framing::Length(1), false)),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n".into(),
                false,
                (200, Framing::Length(1), true),
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n".into(), false, (204, Framing::Length(0), true)),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".into(),
                false,
                (304, Framing::Length(0), true),
            ),
            ("HTTP/1.1 100 Continue\r\n\r\n".into(), false, (100, Framing::Length(0), true)),
        ] {
            assert_eq!(framing(&text, to_head), expected, "{text:?}");
        }
    }

    #[test]
    fn a_head_is_whole_at_its_last_byte_and_not_before() {
        let text = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 3\r\n\r\nabc";
        for len in 0..text.len() - 3 {
            assert_eq!(head(&text[..len], false), Step::More, "{len} bytes");
        }
        let Step::Head(head) = head(text, false) else { panic!("a whole head") };
        assert_eq!((head.len, head.length, head.reason.as_str()), (text.len() - 3, Some(3), "OK"));
        assert_eq!((field(text, "DATE"), field(text, "x")), (Some("now"), None));
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: \r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert!(matches!(head(text.as_bytes(), false), Step::Malformed(_)), "{fields:?}");
        }
        for text in ["HTTP/2 200 OK\r\n\r\n", "nonsense\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n"] {
            assert!(matches!(head(text.as_bytes(), false), Step::Malformed(_)), "{text:?}");
        }
        assert!(matches!(head(&[b'a'; 10], false), Step::Malformed(_)));
    }
}

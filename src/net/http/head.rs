//! Reads a request head into spans over one reusable copy of its bytes.
//!
//! Invariant: a head that came out of here is valid throughout: method, target, version, every field and the
//! framing; nothing behind it checks syntax again. The checks always run over the whole head; what is
//! remembered between two calls only spares a look at a line that has not ended yet.
//! Lives on: the connection's shard.

use std::mem::MaybeUninit;

use super::fields::{Fields, Span};
use super::framing::{self, BodyLength};
use super::{Reason, Step, target};

/// Bounds of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the request line to the empty line, both included.
    pub bytes_max: usize,
    /// Fields; at most [`FIELDS_CEILING`] whatever is written here.
    pub fields_max: usize,
}

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits { bytes_max: 64 * 1024, fields_max: 128 }
    }
}

/// A method. Names are case-sensitive: `get` is [`Method::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the methods of RFC 9110")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
    Connect,
    /// Any other token; the right answer is 501 (RFC 9110 section 9.1).
    Other,
}

/// The versions that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// A request head, reused from one request to the next: no allocation once its buffers have grown.
///
/// All accessors speak of the last head for which [`RequestHead::parse`] returned [`Step::Done`].
#[derive(Debug)]
pub struct RequestHead {
    /// For an absolute URI without a path, the reduced target stands behind the head.
    fields: Fields,
    method: Method,
    method_text: Span,
    target: Span,
    path: Span,
    host: Span,
    version: Version,
    body: BodyLength,
    keep_alive: bool,
    expects_continue: bool,
    may_upgrade: bool,
    /// Length of the input that was not enough at the last look; 0 between two heads.
    seen: usize,
}

impl Default for RequestHead {
    fn default() -> RequestHead {
        RequestHead::new()
    }
}

impl RequestHead {
    /// An empty head; allocates nothing until the first request.
    pub fn new() -> RequestHead {
        RequestHead {
            fields: Fields::default(),
            method: Method::Other,
            method_text: Span::EMPTY,
            target: Span::EMPTY,
            path: Span::EMPTY,
            host: Span::EMPTY,
            version: Version::Http11,
            body: BodyLength::None,
            keep_alive: false,
            expects_continue: false,
            may_upgrade: false,
            seen: 0,
        }
    }

    /// Looks for a whole head at the start of `input`; `Done` tells how many bytes it took.
    ///
    /// After `NeedMore`, call again with the same bytes and more behind them. Use [`RequestHead::clear`]
    /// before another connection's bytes.
    pub fn parse(&mut self, input: &[u8], limits: &HeadLimits) -> Step<usize> {
        // Only this window is ever judged, so a head that is too large gets the same answer however it arrives.
        let window = &input[..input.len().min(limits.bytes_max)];
        let is_full = window.len() == limits.bytes_max;
        if !is_full && self.is_midline(window) {
            self.seen = window.len();
            return Step::NeedMore;
        }
        let step = self.judge(window, limits);
        self.seen = if step == Step::NeedMore { window.len() } else { 0 };
        match step {
            Step::NeedMore if is_full => too_large(window, limits).into(),
            step => step,
        }
    }

    /// Forgets everything, and gives memory back that an ordinary head does not need.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = RequestHead { fields, ..RequestHead::new() };
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was written.
    pub fn method_text(&self) -> &str {
        self.fields.text(self.method_text)
    }

    /// Path and query, also of an absolute URI; `*` with OPTIONS only.
    pub fn target(&self) -> &str {
        self.fields.text(self.target)
    }

    /// The raw path before the `?`.
    pub fn path(&self) -> &str {
        self.fields.text(self.path)
    }

    /// The raw query behind the `?`.
    pub fn query(&self) -> Option<&str> {
        target::split_query(self.target()).1
    }

    /// The version of the request.
    pub fn version(&self) -> Version {
        self.version
    }

    /// `host[:port]`; an absolute URI's authority replaces the field. Empty for HTTP/1.0 without Host.
    pub fn host(&self) -> &str {
        self.fields.text(self.host)
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

    /// How the body is delimited.
    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether the peer wants to send another request on this connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the peer waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The protocols that the peer would switch to, if Connection lists `upgrade` too.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if self.may_upgrade { self.header("upgrade") } else { None }
    }

    /// Nothing new to judge: no line has ended since the last look. Each line is judged once, so a peer that
    /// sends byte by byte costs one scan of each byte, not one of the whole head per byte.
    fn is_midline(&self, window: &[u8]) -> bool {
        let fresh = window.get(self.seen..).unwrap_or(window);
        window.is_empty() || (self.seen > 0 && memchr::memchr(b'\n', fresh).is_none())
    }

    fn judge(&mut self, window: &[u8], limits: &HeadLimits) -> Step<usize> {
        let skipped = match skip_empty_lines(window) {
            Step::Done(skipped) => skipped,
            other => return other,
        };
        let head = &window[skipped..];
        let fields_max = limits.fields_max.min(FIELDS_CEILING);
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_CEILING];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, &mut fields[..fields_max]);
        match parsed {
            Ok(httparse::Status::Partial) if has_lone_line_end(head) => Reason::LineEnd.into(),
            Ok(httparse::Status::Partial) => Step::NeedMore,
            Ok(httparse::Status::Complete(len)) => match self.accept(&head[..len], &request) {
                Ok(()) => Step::Done(skipped + len),
                Err(reason) => reason.into(),
            },
            Err(httparse::Error::Version) => judge_version(head),
            Err(error) => explain(error, head, fields_max).into(),
        }
    }

    fn accept(&mut self, head: &[u8], request: &httparse::Request<'_, '_>) -> Result<(), Reason> {
        // The parser below takes a lone LF for a line end.
        if has_lone_line_end(head) {
            return Err(Reason::LineEnd);
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            unreachable!("a complete request has all three");
        };
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        let form = target::classify(Method::from_text(method), target)?;
        let fields = request.headers.iter().map(|field| (field.name, field.value));
        let framing = framing::decide(version, fields)?;

        self.fields.store(head, request.headers);
        self.method = Method::from_text(method);
        self.method_text = Span::of(method.as_bytes(), head);
        self.version = version;
        self.host = Span::of(form.authority.map_or(framing.host, str::as_bytes), head);
        self.store_target(form.path_and_query, head);
        self.body = framing.body;
        self.keep_alive = framing.keep_alive;
        self.expects_continue = framing.expects_continue;
        self.may_upgrade = framing.may_upgrade;
        Ok(())
    }

    /// `http://a?b` means the path `/`, which is nowhere in the bytes: it is written behind them.
    fn store_target(&mut self, path_and_query: &str, head: &[u8]) {
        self.target = Span::of(path_and_query.as_bytes(), head);
        if !path_and_query.starts_with(['/', '*']) {
            let start = self.fields.bytes.len();
            self.fields.bytes.push(b'/');
            self.fields.bytes.extend_from_slice(path_and_query.as_bytes());
            self.target = Span::new(start, self.fields.bytes.len());
        }
        let path_len = target::split_query(self.target()).0.len();
        self.path = Span { start: self.target.start, len: path_len as u32 };
    }
}

impl Method {
    fn from_text(text: &str) -> Method {
        match text {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            "PATCH" => Method::Patch,
            "TRACE" => Method::Trace,
            "CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }
}

/// Steps over empty lines before the request line: some clients end a body with one too many.
fn skip_empty_lines(window: &[u8]) -> Step<usize> {
    let mut skipped = 0;
    while window[skipped..].starts_with(b"\r\n") {
        skipped += 2;
    }
    if skipped > 2 * LEADING_EMPTY_LINES_MAX {
        return Reason::LeadingEmptyLines.into();
    }
    match window[skipped..] {
        [] | [b'\r'] => Step::NeedMore,
        [b'\r' | b'\n', ..] => Reason::LineEnd.into(),
        _ => Step::Done(skipped),
    }
}

/// CR without LF behind it, or LF without CR before it. A CR at the very end is still open.
pub(super) fn has_lone_line_end(head: &[u8]) -> bool {
    memchr::memchr2_iter(b'\r', b'\n', head).any(|at| match head[at] {
        b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => at == 0 || head[at - 1] != b'\r',
    })
}

/// Tells a version that we do not speak from text that is no version, as soon as one can.
fn judge_version<T>(head: &[u8]) -> Step<T> {
    let line_end = memchr::memchr2(b'\r', b'\n', head);
    let line = &head[..line_end.unwrap_or(head.len())];
    let version = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    let fits = |(byte, pattern): (&u8, &u8)| byte == pattern || (*pattern == b'#' && byte.is_ascii_digit());
    let is_prefix = version.len() <= VERSION_PATTERN.len() && version.iter().zip(VERSION_PATTERN).all(fits);
    match (is_prefix, line_end) {
        (true, _) if version.len() == VERSION_PATTERN.len() => Reason::Version.into(),
        (true, None) => Step::NeedMore,
        _ => Reason::RequestLine.into(),
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
        | httparse::Error::Version => Reason::RequestLine,
    }
}

/// A full window without an end: the target's fault if not even the request line ended.
fn too_large(window: &[u8], limits: &HeadLimits) -> Reason {
    let line = skip_empty_lines(window);
    let start = if let Step::Done(skipped) = line { skipped } else { 0 };
    match memchr::memchr2(b' ', b'\n', &window[start..]) {
        None => Reason::RequestLine,
        Some(_) if memchr::memchr(b'\n', &window[start..]).is_none() => {
            Reason::TargetTooLong(limits.bytes_max)
        }
        Some(_) => Reason::HeadTooLarge(limits.bytes_max),
    }
}

/// What the field table on the stack can hold.
pub const FIELDS_CEILING: usize = 256;
const LEADING_EMPTY_LINES_MAX: usize = 4;
/// `#` stands for a digit.
const VERSION_PATTERN: &[u8; 8] = b"HTTP/#.#";

#[cfg(test)]
mod tests {
    use super::super::fields::IDLE_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;

    fn parse(input: &[u8]) -> (Step<usize>, RequestHead) {
        let mut head = RequestHead::new();
        (head.parse(input, &HeadLimits::default()), head)
    }

    fn accepted(input: &[u8]) -> RequestHead {
        let (step, head) = parse(input);
        assert_eq!(step, Step::Done(input.len()), "{}", input.escape_ascii());
        head
    }

    fn refused(input: &[u8]) -> Reason {
        match parse(input).0 {
            Step::Refuse(refusal) => refusal.reason,
            step => panic!("{step:?} for {}", input.escape_ascii()),
        }
    }

    fn with_line(line: &str) -> Vec<u8> {
        format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
    }

    fn with_field(field: &[u8]) -> Vec<u8> {
        [b"GET / HTTP/1.1\r\nHost: a\r\n", field, b"\r\n\r\n"].concat()
    }

    const VALID: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\n\r\nOPTIONS * HTTP/1.1\r\nhoSt:\ta\r\nempty:\r\nblank: \t \r\n\r\n",
        b"POST http://b:80?x=y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"P!#$%&'*+-.^_`|~9 /a%zz/?q#f HTTP/1.1\r\nX_y.z: \xff\t ~ \r\nHost: [::1]:80\r\nContent-Length: 7\r\n\r\n",
    ];

    #[test]
    fn accessors() {
        let head = accepted(
            b"PUT /a/b?c=d?e HTTP/1.1\r\nHost: a.example:8080\r\nX-One:  1 \r\nx-one: 2\r\nContent-Length: 3\r\n\
              Expect: 100-continue\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert_eq!(
            (head.method(), head.method_text(), head.version()),
            (Method::Put, "PUT", Version::Http11)
        );
        assert_eq!((head.target(), head.path(), head.query()), ("/a/b?c=d?e", "/a/b", Some("c=d?e")));
        assert_eq!((head.host(), head.body()), ("a.example:8080", BodyLength::Exact(3)));
        assert_eq!(head.header("X-ONE"), Some(&b"1"[..]));
        assert_eq!(head.headers("x-one").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(head.header("x-on"), None);
        assert_eq!(head.all().count(), 7);
        assert!(!head.keep_alive() && head.expects_continue());
        assert_eq!(head.upgrade(), Some(&b"websocket"[..]));
    }

    #[test]
    fn an_absolute_uri_replaces_host_and_is_reduced() {
        let head = accepted(b"GET http://b.example/x?y HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.host(), head.target(), head.path()), ("b.example", "/x?y", "/x"));
        let head = accepted(b"GET HTTPS://b:1?y HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.host(), head.target(), head.query()), ("b:1", "/?y", Some("y")));
        assert_eq!(accepted(b"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n").path(), "/");
        assert_eq!(refused(b"GET http://b/ HTTP/1.1\r\n\r\n"), Reason::HostMissing);
    }

    #[test]
    fn valid_heads_at_every_split() {
        for input in VALID {
            let expected = format!("{:?}", accepted(input));
            for split in 0..input.len() {
                let mut head = RequestHead::new();
                let limits = HeadLimits::default();
                assert_eq!(head.parse(&input[..split], &limits), Step::NeedMore, "split {split}");
                assert_eq!(head.parse(input, &limits), Step::Done(input.len()));
                assert_eq!(format!("{head:?}"), expected);
            }
        }
    }

    #[test]
    fn valid_heads_byte_by_byte_and_in_a_pipeline() {
        let mut head = RequestHead::new();
        for input in VALID {
            for len in 0..input.len() {
                assert_eq!(head.parse(&input[..len], &HeadLimits::default()), Step::NeedMore);
            }
            let with_next = [input, VALID[0]].concat();
            assert_eq!(head.parse(&with_next, &HeadLimits::default()), Step::Done(input.len()));
        }
    }

    #[test]
    fn request_lines_that_are_refused() {
        for line in [
            "GET",
            "GET /",
            "GET / ",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET / HTTP/1.1 x",
            "GET / HTTP/1",
            "GET / HTTP/01.1",
            "GET / HTTP/ 1.1",
            "GET / http/1.1",
            "GET / ICE/1.0",
            "GET /a b HTTP/1.1",
            "G\u{1}T / HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET HTTP/1.1",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(refused(&with_line(line)), Reason::RequestLine, "{line:?}");
        }
    }

    #[test]
    fn versions_that_are_refused() {
        for version in ["0.9", "1.2", "2.0", "9.9"] {
            assert_eq!(refused(&with_line(&format!("GET / HTTP/{version}"))), Reason::Version);
        }
        assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Reason::Version);
        assert_eq!(parse(b"GET / HTTP/2").0, Step::NeedMore);
        assert_eq!(refused(b"GET / HTTP/2.0"), Reason::Version);
        assert_eq!(refused(b"GET / HTTX"), Reason::RequestLine);
    }

    #[test]
    fn targets_that_are_refused() {
        assert_eq!(refused(&with_line("GET * HTTP/1.1")), Reason::TargetForm);
        assert_eq!(refused(&with_line("GET a HTTP/1.1")), Reason::TargetForm);
        assert_eq!(refused(&with_line("GET /\u{e9} HTTP/1.1")), Reason::TargetByte);
        assert_eq!(refused(&with_line("GET http://u@a/ HTTP/1.1")), Reason::TargetAuthority);
        assert_eq!(refused(&with_line("CONNECT a:443 HTTP/1.1")), Reason::Connect);
    }

    #[test]
    fn methods_are_case_sensitive_tokens() {
        assert_eq!(accepted(&with_line("get / HTTP/1.1")).method(), Method::Other);
        assert_eq!(accepted(&with_line("PROPFIND / HTTP/1.1")).method_text(), "PROPFIND");
    }

    #[test]
    fn lines_end_with_crlf() {
        for input in [
            &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
            b"GET / HTTP/1.1\rHost: a\r\n\r\n",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(refused(input), Reason::LineEnd, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn fields_that_are_refused() {
        for field in
            [&b"X : a"[..], b" X: a", b"\tX: a", b": a", b"X", b"X[]: a", b"X\0: a", b"X\xe9: a", b"X\r: a"]
        {
            assert_eq!(refused(&with_field(field)), Reason::FieldName, "{}", field.escape_ascii());
        }
        assert_eq!(refused(&with_field(b"X: a\r\n b")), Reason::FieldName);
        for field in [&b"X: \0"[..], b"X: a\x07b", b"X: \x7f", b"X: a\rb", b"X:\rY: b"] {
            assert_eq!(refused(&with_field(field)), Reason::FieldValue, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn refusals_do_not_wait_for_the_end() {
        assert_eq!(refused(b"GET / HTTP/1.1\r\nX : a\r\n"), Reason::FieldName);
        assert_eq!(refused(b"GET / HTTP/1.1\r\nX: a\nY"), Reason::LineEnd);
        assert_eq!(refused(b"   \r\n"), Reason::RequestLine);
        assert_eq!(refused(b"GET /\r\n"), Reason::RequestLine);
    }

    #[test]
    fn a_few_empty_lines_may_come_first() {
        let mut input = b"\r\n".repeat(LEADING_EMPTY_LINES_MAX);
        assert_eq!(parse(&input).0, Step::NeedMore);
        input.extend_from_slice(VALID[0]);
        accepted(&input);
        assert_eq!(refused(&b"\r\n".repeat(LEADING_EMPTY_LINES_MAX + 1)), Reason::LeadingEmptyLines);
    }

    #[test]
    fn size_limits() {
        let limits = HeadLimits { bytes_max: 64, fields_max: 3 };
        let step = |input: &str| RequestHead::new().parse(input.as_bytes(), &limits);
        let sized = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - 32));
        assert_eq!(step(&sized(64)), Step::Done(64));
        assert_eq!(step(&sized(65)), Reason::HeadTooLarge(64).into());
        assert_eq!(step(&format!("GET /{}", "a".repeat(60))), Reason::TargetTooLong(64).into());
        assert_eq!(step(&"A".repeat(64)), Reason::RequestLine.into());
        assert_eq!(step("GET / HTTP/1.1\r\nHost:a\r\na:b\r\nc:d\r\n\r\n"), Step::Done(36));
        assert_eq!(
            step("GET / HTTP/1.1\r\nHost:a\r\na:b\r\nc:d\r\ne:f\r\n"),
            Reason::TooManyFields(3).into()
        );
    }

    #[test]
    fn a_large_head_is_refused_alike_however_it_arrives() {
        let limits = HeadLimits { bytes_max: 64, fields_max: 128 };
        let input = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100));
        for split in 0..input.len() {
            let mut head = RequestHead::new();
            let first = head.parse(&input.as_bytes()[..split], &limits);
            let step = if first == Step::NeedMore { head.parse(input.as_bytes(), &limits) } else { first };
            assert_eq!(step, Reason::HeadTooLarge(64).into(), "split {split}");
        }
    }

    #[test]
    fn clear_forgets_and_gives_back() {
        let mut head = RequestHead::new();
        let large = with_field(format!("X: {}", "x".repeat(30_000)).as_bytes());
        assert_eq!(head.parse(&large, &HeadLimits::default()), Step::Done(large.len()));
        assert_eq!(head.parse(b"GET / HTTP/1.1\r\n", &HeadLimits::default()), Step::NeedMore);
        head.clear();
        assert!(head.fields.bytes.capacity() <= 2 * IDLE_BYTES_MAX);
        assert_eq!((head.host(), head.all().count(), head.seen), ("", 0, 0));
    }

    #[test]
    fn nothing_is_allocated_once_the_buffers_have_grown() {
        let mut head = accepted(VALID[4]);
        let before = (
            head.fields.bytes.as_ptr(),
            head.fields.bytes.capacity(),
            head.fields.fields.as_ptr(),
            head.fields.fields.capacity(),
        );
        for input in VALID {
            assert_eq!(head.parse(input, &HeadLimits::default()), Step::Done(input.len()));
        }
        let after = (
            head.fields.bytes.as_ptr(),
            head.fields.bytes.capacity(),
            head.fields.fields.as_ptr(),
            head.fields.fields.capacity(),
        );
        assert_eq!(before, after);
    }

    /// Bytes that come close to a head more often than chance would.
    fn near_heads() -> impl Strategy<Value = Vec<u8>> {
        let fragments: &[&[u8]] = &[
            b"GET ",
            b"/",
            b" HTTP/1.1",
            b"\r\n",
            b"Host: a",
            b"\n",
            b"\r",
            b" ",
            b":",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"\r\n\r\n",
            b"X",
            b"\0",
            b"http://",
            b"*",
            b"\xff",
        ];
        let fragment = prop_oneof![
            4 => proptest::sample::select(fragments).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(fragment, 0..14).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn near_heads_are_judged_alike_at_every_split(input in near_heads(), split in 0_usize..80) {
            let (whole, expected) = parse(&input);
            let limits = HeadLimits::default();
            let mut head = RequestHead::new();
            let first = head.parse(&input[..split.min(input.len())], &limits);
            let step = if first == Step::NeedMore { head.parse(&input, &limits) } else { first };
            match (step, whole) {
                // An unfinished line may wait for its end before it is refused.
                (Step::NeedMore, Step::Refuse(_)) => {
                    let ended = head.parse(&[&input[..], b"\n"].concat(), &limits);
                    prop_assert!(matches!(ended, Step::Refuse(_)));
                }
                (Step::Refuse(_), Step::Refuse(_)) => {}
                (Step::Done(_), _) => {
                    prop_assert_eq!(step, whole);
                    prop_assert_eq!(format!("{head:?}"), format!("{expected:?}"));
                }
                _ => prop_assert_eq!(step, whole),
            }
        }

        #[test]
        fn what_is_accepted_has_clean_lines(input in near_heads()) {
            if let (Step::Done(len), head) = parse(&input) {
                prop_assert!(input[..len].ends_with(b"\r\n\r\n") && !has_lone_line_end(&input[..len]));
                prop_assert!(head.target().starts_with('/') || head.target() == "*");
                prop_assert!(head.version() == Version::Http10 || !head.host().is_empty());
            }
        }

        #[test]
        fn a_generated_request_equals_its_model(
            method in "[A-Z]{1,8}",
            path in "/[a-z0-9/%._~-]{0,20}",
            query in proptest::option::of("[a-z0-9=&%+?/]{0,20}"),
            host in "[a-z][a-z0-9.-]{0,12}(:[0-9]{1,4})?",
            fields in proptest::collection::vec(("x-[a-zA-Z0-9-]{0,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..20),
            length in proptest::option::of(any::<u64>()),
        ) {
            prop_assume!(method != "CONNECT");
            let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
            let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
            for (name, value) in &fields {
                text += &format!("{name}: {value}\r\n");
            }
            if let Some(length) = length {
                text += &format!("Content-Length: {length}\r\n");
            }
            text += "\r\n";

            let head = accepted(text.as_bytes());
            prop_assert_eq!((head.method_text(), head.target(), head.path()), (&*method, &*target, &*path));
            prop_assert_eq!((head.query(), head.host()), (query.as_deref(), &*host));
            prop_assert_eq!(head.body(), length.map_or(BodyLength::None, BodyLength::Exact));
            let own = |(name, _): &(&str, &[u8])| name.starts_with("x-");
            let seen: Vec<_> = head.all().filter(own).map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            let model: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
            prop_assert_eq!(seen, model);
        }
    }
}

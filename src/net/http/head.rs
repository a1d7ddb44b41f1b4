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
mod tests;

//! HTTP/1.1 by hand: strict framing (RFC 9112), spans over one buffer, no allocation per request.
//!
//! Invariant: a message whose framing two readers could understand differently is refused, never repaired.
//! The parsers have no I/O: bytes go in, a value comes out, and "not enough yet" is an ordinary answer. Only
//! [`exchange`] and [`server`] touch a socket.
//! Lives on: the connection's shard.

pub mod answer;
mod body;
pub mod chunked;
pub mod client;
pub mod condition;
pub mod exchange;
mod fields;
pub mod framing;
pub mod head;
mod pace;
pub mod range;
pub mod request;
pub mod response;
pub mod server;
pub mod status;
pub mod target;

use std::fmt;

pub use answer::AnswerHead;
pub use chunked::{ChunkLimits, ChunkedDecoder, Piece};
pub use framing::BodyLength;
pub use head::{HeadLimits, Method, RequestHead, Version};
pub use response::ResponseHead;
pub use status::Status;

/// What a parser made of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// All fine, not enough: call again with the same bytes and more behind them.
    NeedMore,
    /// The value is complete.
    Done(T),
    /// No further byte can make this acceptable: answer and close.
    Refuse(Refusal),
}

impl<T> Step<T> {
    /// Applies `change` to a complete value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::NeedMore => Step::NeedMore,
            Step::Done(value) => Step::Done(change(value)),
            Step::Refuse(refusal) => Step::Refuse(refusal),
        }
    }
}

impl<T> From<Reason> for Step<T> {
    fn from(reason: Reason) -> Step<T> {
        Step::Refuse(reason.into())
    }
}

/// The answer to a peer whose bytes are not HTTP as we accept it; the connection closes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: Status,
    /// What was wrong; its text is meant for the peer.
    pub reason: Reason,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { status: reason.status(), reason }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// Everything a peer can get wrong below the meaning of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// More empty lines before the request line than a sloppy client sends.
    LeadingEmptyLines,
    /// Not `METHOD SP target SP HTTP/1.1`.
    RequestLine,
    /// An answer that does not begin with `HTTP/1.1 SP three digits SP`.
    StatusLine,
    /// The request line alone fills the head.
    TargetTooLong(usize),
    /// A byte in the target that a URI cannot hold.
    TargetByte,
    /// A `#` in the path.
    TargetFragment,
    /// Neither a path, nor an http(s) URI, nor `OPTIONS *`.
    TargetForm,
    /// An absolute URI whose authority is not `host[:port]`.
    TargetAuthority,
    /// CONNECT.
    Connect,
    /// A method that no dialect knows.
    MethodUnknown,
    /// A version other than 1.0 and 1.1.
    Version,
    /// CR or LF alone.
    LineEnd,
    /// A field name that is not a token followed by a colon; also a folded line.
    FieldName,
    /// A control character in a field value.
    FieldValue,
    /// The head did not arrive in time.
    HeadTimeout,
    /// More bytes than a head may have.
    HeadTooLarge(usize),
    /// More fields than a head may have.
    TooManyFields(usize),
    /// HTTP/1.1 without Host.
    HostMissing,
    /// Host more than once.
    HostRepeated,
    /// A Host that is not `host[:port]`.
    HostInvalid,
    /// A Content-Length that is not one decimal number.
    LengthInvalid,
    /// Content-Length more than once.
    LengthRepeated,
    /// Content-Length beside Transfer-Encoding.
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0.
    CodingInHttp10,
    /// A Transfer-Encoding that is not a list of tokens.
    CodingMalformed,
    /// `chunked` with something beside it, or twice.
    CodingNotAlone,
    /// A transfer coding that we do not have.
    CodingUnknown,
    /// An Expect other than `100-continue`.
    Expectation,
    /// A chunk size that is not 1 to 16 hex digits.
    ChunkSize,
    /// A chunk extension that is not `;name[=value]`.
    ChunkExtension,
    /// More chunk extensions than payload warrants.
    ChunkExtensionsTooLarge(usize),
    /// A chunk whose payload is not followed by CRLF.
    ChunkEnd,
    /// A trailer field that does not parse.
    TrailerMalformed,
    /// A trailer field that would have to be known before the body.
    TrailerForbidden,
    /// More trailer bytes than we read.
    TrailersTooLarge(usize),
}

impl Reason {
    /// The status that says it best.
    pub const fn status(self) -> Status {
        match self {
            Reason::LeadingEmptyLines
            | Reason::RequestLine
            | Reason::TargetByte
            | Reason::TargetFragment
            | Reason::TargetForm
            | Reason::TargetAuthority
            | Reason::LineEnd
            | Reason::FieldName
            | Reason::FieldValue
            | Reason::HostMissing
            | Reason::HostRepeated
            | Reason::HostInvalid
            | Reason::LengthInvalid
            | Reason::LengthRepeated
            | Reason::LengthAndCoding
            | Reason::CodingInHttp10
            | Reason::CodingMalformed
            | Reason::CodingNotAlone
            | Reason::ChunkSize
            | Reason::ChunkExtension
            | Reason::ChunkExtensionsTooLarge(_)
            | Reason::ChunkEnd
            | Reason::TrailerMalformed
            | Reason::TrailerForbidden => Status::BAD_REQUEST,
            Reason::HeadTimeout => Status::REQUEST_TIMEOUT,
            Reason::TargetTooLong(_) => Status::URI_TOO_LONG,
            Reason::Expectation => Status::EXPECTATION_FAILED,
            Reason::HeadTooLarge(_) | Reason::TooManyFields(_) | Reason::TrailersTooLarge(_) => {
                Status::HEADERS_TOO_LARGE
            }
            Reason::Connect | Reason::MethodUnknown | Reason::CodingUnknown => Status::NOT_IMPLEMENTED,
            Reason::Version => Status::VERSION_NOT_SUPPORTED,
            Reason::StatusLine => Status::BAD_GATEWAY,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Reason::LeadingEmptyLines => "too many empty lines before the request line; none are needed",
            Reason::RequestLine => {
                "the request line is not METHOD SP target SP HTTP/1.1 with single spaces and a token as method"
            }
            Reason::StatusLine => {
                "the status line is not HTTP/1.1 or HTTP/1.0, SP, three digits from 100 on and SP"
            }
            Reason::TargetTooLong(max) => {
                return write!(f, "the request line does not fit into the {max} bytes that a head may have");
            }
            Reason::TargetByte => "the target holds a byte outside visible ASCII; percent-encode it",
            Reason::TargetFragment => "the path holds a '#'; drop the fragment or write %23",
            Reason::TargetForm => {
                "the target is neither a path beginning with '/', nor an http or https URI, nor '*' with OPTIONS"
            }
            Reason::TargetAuthority => {
                "the authority in the target is not host[:port] without user information"
            }
            Reason::Connect => "CONNECT is not offered here; any other method is passed on",
            Reason::MethodUnknown => {
                "the method is unknown; methods are case-sensitive: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"
            }
            Reason::Version => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            Reason::LineEnd => "CR or LF alone; lines end with CRLF",
            Reason::FieldName => {
                "a field name is not a token directly followed by ':'; no spaces before it or after it, no folded lines"
            }
            Reason::FieldValue => {
                "a field value holds a control character; only tab, visible ASCII and bytes from 0x80"
            }
            Reason::HeadTimeout => "the head was not complete in time; send it at once",
            Reason::HeadTooLarge(max) => return write!(f, "the head is larger than {max} bytes"),
            Reason::TooManyFields(max) => return write!(f, "the head has more than {max} fields"),
            Reason::HostMissing => "HTTP/1.1 needs exactly one Host field; there is none",
            Reason::HostRepeated => "HTTP/1.1 needs exactly one Host field; there are several",
            Reason::HostInvalid => "Host is not host[:port]",
            Reason::LengthInvalid => "Content-Length is not one decimal number below 2^64",
            Reason::LengthRepeated => "Content-Length is there more than once; send it once",
            Reason::LengthAndCoding => {
                "Content-Length and Transfer-Encoding exclude each other; send one of them"
            }
            Reason::CodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding; send Content-Length",
            Reason::CodingMalformed => "Transfer-Encoding is not a coding; only 'chunked' is accepted",
            Reason::CodingNotAlone => "Transfer-Encoding is not exactly one 'chunked'",
            Reason::CodingUnknown => "the transfer coding is unknown; only 'chunked' is accepted",
            Reason::Expectation => "the expectation is unknown; only '100-continue' is accepted",
            Reason::ChunkSize => "a chunk size is not 1 to 16 hex digits followed by CRLF or ';'",
            Reason::ChunkExtension => "a chunk extension is not ';name', ';name=token' or ';name=\"text\"'",
            Reason::ChunkExtensionsTooLarge(max) => {
                return write!(f, "chunk extensions outweigh the payload by more than {max} bytes");
            }
            Reason::ChunkEnd => "the payload of a chunk is not followed by CRLF; is its size right?",
            Reason::TrailerMalformed => "a trailer field is not 'name: value' followed by CRLF",
            Reason::TrailerForbidden => {
                "a trailer field frames, routes or authenticates; send it in the head"
            }
            Reason::TrailersTooLarge(max) => return write!(f, "the trailers are larger than {max} bytes"),
        };
        f.write_str(text)
    }
}

/// A byte that a token may hold (RFC 9110 section 5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// A byte that a field value may hold: tab, space, visible ASCII and obs-text (RFC 9110 section 5.5).
pub(crate) const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xff)
}

/// At least one token byte and nothing else.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// The elements of a comma-separated list without the space around them; empty elements are left out.
pub(crate) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Without the spaces and tabs around it.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

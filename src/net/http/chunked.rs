//! The chunked coding (RFC 9112 section 7.1): finds payload where it lies, and frames payload on the way out.
//!
//! Invariant: no payload byte is ever copied or held back, and no framing byte is ever taken for payload.
//! The decoder keeps the state of a half-seen line itself, so nobody has to buffer framing.
//! Lives on: the connection's shard.

use super::{Reason, Refusal, Step, is_token_byte, is_value_byte};
use crate::codec::text::{HEX_LOWER, hex_value};

/// Bounds of what surrounds the payload; the payload itself is the caller's to bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// By how many bytes extensions may outweigh the payload that came before.
    pub extension_bytes_max: usize,
    /// Bytes of all trailers together.
    pub trailer_bytes_max: usize,
}

impl Default for ChunkLimits {
    fn default() -> ChunkLimits {
        ChunkLimits { extension_bytes_max: 4 * 1024, trailer_bytes_max: 8 * 1024 }
    }
}

/// What the start of the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `skip` bytes of framing, then `len` bytes of payload. `len` is 0 when the input ended amid framing.
    /// Both are consumed: the next step begins behind them.
    Payload {
        /// Bytes of framing.
        skip: usize,
        /// Bytes of payload behind them; a chunk may continue in the next input.
        len: usize,
    },
    /// The body ends after `skip` bytes; what follows is the next request.
    End {
        /// Bytes of framing up to the end.
        skip: usize,
    },
}

/// Decodes one chunked body. Trailers are read, checked, bounded and dropped.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    limits: ChunkLimits,
    /// Extension bytes not yet paid for by payload.
    extension_bytes: u64,
    trailer_bytes: usize,
    trailer_name: TrailerName,
}

impl ChunkedDecoder {
    /// A decoder before the first chunk.
    pub fn new(limits: ChunkLimits) -> ChunkedDecoder {
        ChunkedDecoder {
            state: State::Size { digits: 0, size: 0 },
            limits,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_name: TrailerName::default(),
        }
    }

    /// Consumes framing from the start of `input` and tells what payload follows.
    ///
    /// `NeedMore` only for empty input; everything else makes progress. After `End` it stays at the end,
    /// after a refusal it keeps refusing.
    pub fn step(&mut self, input: &[u8]) -> Step<Piece> {
        let mut skip = 0;
        loop {
            match self.state {
                State::End => return Step::Done(Piece::End { skip }),
                State::Refused(reason) => return Step::Refuse(Refusal::from(reason)),
                State::Payload { left } if skip < input.len() => {
                    let len = self.take_payload(left, input.len() - skip);
                    return Step::Done(Piece::Payload { skip, len });
                }
                _ => {}
            }
            let Some(&byte) = input.get(skip) else { return starved(skip) };
            self.state = self.after(byte).unwrap_or_else(State::Refused);
            skip += 1;
        }
    }

    /// Whether the last chunk and its trailers have been seen.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::End)
    }

    fn take_payload(&mut self, left: u64, available: usize) -> usize {
        let len = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left - len as u64;
        self.extension_bytes = self.extension_bytes.saturating_sub(len as u64);
        self.state = if left == 0 { State::PayloadCr } else { State::Payload { left } };
        len
    }

    /// The grammar, one byte at a time.
    fn after(&mut self, byte: u8) -> Result<State, Reason> {
        match (self.state, byte) {
            (State::Size { digits, size }, _) => self.after_size(digits, size, byte),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf { size }, b'\n') => Ok(State::Payload { left: size }),
            (State::SizeLf { .. }, _) => Err(Reason::ChunkSize),
            (State::Extension { size, part }, _) => self.after_extension(size, part, byte),
            (State::PayloadCr, b'\r') => Ok(State::PayloadLf),
            (State::PayloadLf, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            (State::PayloadCr | State::PayloadLf, _) => Err(Reason::ChunkEnd),
            (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf, _) => {
                self.after_trailer(byte)
            }
            (State::EndLf, b'\n') => Ok(State::End),
            (State::EndLf, _) => Err(Reason::TrailerMalformed),
            (State::Payload { .. } | State::End | State::Refused(_), _) => {
                unreachable!("handled before a byte is taken")
            }
        }
    }

    fn after_size(&mut self, digits: u8, size: u64, byte: u8) -> Result<State, Reason> {
        match (hex_value(byte), byte) {
            (Some(digit), _) if digits < SIZE_DIGITS_MAX => {
                Ok(State::Size { digits: digits + 1, size: (size << 4) | u64::from(digit) })
            }
            (None, b'\r') if digits > 0 => Ok(State::SizeLf { size }),
            (None, b';') if digits > 0 => Ok(State::Extension { size, part: Extension::Start }),
            _ => Err(Reason::ChunkSize),
        }
    }

    fn after_extension(&mut self, size: u64, part: Extension, byte: u8) -> Result<State, Reason> {
        self.extension_bytes += 1;
        if self.extension_bytes > self.limits.extension_bytes_max as u64 {
            return Err(Reason::ChunkExtensionsTooLarge(self.limits.extension_bytes_max));
        }
        if byte == b'\r' && part.may_end() {
            return Ok(State::SizeLf { size });
        }
        let part = part.after(byte).ok_or(Reason::ChunkExtension)?;
        Ok(State::Extension { size, part })
    }

    fn after_trailer(&mut self, byte: u8) -> Result<State, Reason> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > self.limits.trailer_bytes_max {
            return Err(Reason::TrailersTooLarge(self.limits.trailer_bytes_max));
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.trailer_name = TrailerName::default();
                self.trailer_name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if self.trailer_name.is_forbidden() => Err(Reason::TrailerForbidden),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token_byte(byte) => {
                self.trailer_name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_value_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            _ => Err(Reason::TrailerMalformed),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size { digits: u8, size: u64 },
    Extension { size: u64, part: Extension },
    SizeLf { size: u64 },
    Payload { left: u64 },
    PayloadCr,
    PayloadLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
    Refused(Reason),
}

/// Where we are in `;name=token` or `;name="text"`.
#[derive(Clone, Copy, Debug)]
enum Extension {
    Start,
    Name,
    ValueStart,
    Token,
    Quoted,
    Escaped,
    QuotedEnd,
}

impl Extension {
    fn may_end(self) -> bool {
        matches!(self, Extension::Name | Extension::Token | Extension::QuotedEnd)
    }

    fn after(self, byte: u8) -> Option<Extension> {
        match (self, byte) {
            (Extension::Start | Extension::Name, _) if is_token_byte(byte) => Some(Extension::Name),
            (Extension::Name, b'=') => Some(Extension::ValueStart),
            (Extension::ValueStart | Extension::Token, _) if is_token_byte(byte) => Some(Extension::Token),
            (Extension::ValueStart, b'"') => Some(Extension::Quoted),
            (Extension::Quoted, b'"') => Some(Extension::QuotedEnd),
            (Extension::Quoted, b'\\') => Some(Extension::Escaped),
            (Extension::Quoted | Extension::Escaped, _) if is_value_byte(byte) => Some(Extension::Quoted),
            (_, b';') if self.may_end() => Some(Extension::Start),
            _ => None,
        }
    }
}

/// The name of the trailer at hand, in lower case, as far as it can still be a forbidden one.
#[derive(Clone, Debug, Default)]
struct TrailerName {
    text: [u8; TRAILER_NAME_MAX],
    len: usize,
}

impl TrailerName {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.len) {
            *place = byte.to_ascii_lowercase();
        }
        self.len = self.len.saturating_add(1);
    }

    fn is_forbidden(&self) -> bool {
        self.text
            .get(..self.len)
            .is_some_and(|name| FORBIDDEN_TRAILERS.iter().any(|known| known.as_bytes() == name))
    }
}

/// The head of a chunk, `len` in hex and CRLF, written into `out`.
///
/// # Panics
/// If `len` is 0: that would end the body.
pub fn chunk_head(len: usize, out: &mut [u8; 18]) -> &[u8] {
    assert!(len > 0, "an empty chunk ends the body; send LAST_CHUNK for that");
    let mut start = out.len() - CHUNK_END.len();
    out[start..].copy_from_slice(CHUNK_END);
    let mut rest = len;
    while rest > 0 {
        start -= 1;
        out[start] = HEX_LOWER[rest & 15];
        rest >>= 4;
    }
    &out[start..]
}

/// Follows the payload of every chunk; also ends the trailers.
pub const CHUNK_END: &[u8; 2] = b"\r\n";
/// The last chunk; trailers and [`CHUNK_END`] follow.
pub const LAST_CHUNK: &[u8; 3] = b"0\r\n";
/// The last chunk with no trailers behind it.
pub const BODY_END: &[u8; 5] = b"0\r\n\r\n";

fn starved(skip: usize) -> Step<Piece> {
    if skip == 0 { Step::NeedMore } else { Step::Done(Piece::Payload { skip, len: 0 }) }
}

/// 16 digits are 64 bits: more could only be leading zeros or an overflow.
const SIZE_DIGITS_MAX: u8 = 16;
const TRAILER_NAME_MAX: usize = 24;

/// Fields that would change framing, routing, authentication or the meaning of the body after the fact
/// (RFC 9110 section 6.5.1).
const FORBIDDEN_TRAILERS: [&str; 29] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
];

const _: () = {
    let mut at = 0;
    while at < FORBIDDEN_TRAILERS.len() {
        assert!(FORBIDDEN_TRAILERS[at].len() <= TRAILER_NAME_MAX);
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `parts` one by one: payload and how much of all input was consumed once the end was there.
    fn decode(parts: &[&[u8]], limits: ChunkLimits) -> Result<(Vec<u8>, Option<usize>), Reason> {
        let mut decoder = ChunkedDecoder::new(limits);
        let mut payload = Vec::new();
        let mut consumed = 0;
        for part in parts {
            let mut rest = *part;
            loop {
                match decoder.step(rest) {
                    Step::NeedMore => break,
                    Step::Refuse(refusal) => return Err(refusal.reason),
                    Step::Done(Piece::End { skip }) => return Ok((payload, Some(consumed + skip))),
                    Step::Done(Piece::Payload { skip, len }) => {
                        assert!(skip + len > 0, "every step makes progress");
                        payload.extend_from_slice(&rest[skip..skip + len]);
                        consumed += skip + len;
                        rest = &rest[skip + len..];
                    }
                }
            }
        }
        Ok((payload, None))
    }

    fn whole(input: &[u8]) -> Result<(Vec<u8>, Option<usize>), Reason> {
        decode(&[input], ChunkLimits::default())
    }

    fn encode(chunks: &[Vec<u8>], trailers: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(chunk_head(chunk.len(), &mut [0; 18]));
            out.extend_from_slice(chunk);
            out.extend_from_slice(CHUNK_END);
        }
        out.extend_from_slice(LAST_CHUNK);
        out.extend_from_slice(trailers);
        out.extend_from_slice(CHUNK_END);
        out
    }

    const VALID: &[&[u8]] = &[
        b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"00a\r\n\r\n0\r\n\r\n\r\nx\r\n0000\r\n\r\n",
        b"5;a\r\nhello\r\n0;b=c;d=\"e \\\" ;\xe9\"\r\n\r\n",
        b"B\r\nhello world\r\n0\r\nX-A: b\r\nY:\r\n\r\n",
        b"1\r\nx\r\n0\r\nx-a-name-longer-than-any-forbidden-one: content-length\r\n\r\n",
    ];

    #[test]
    fn valid_bodies_at_every_split() {
        for input in VALID {
            let expected = whole(input).unwrap();
            assert_eq!(expected.1, Some(input.len()));
            for split in 0..=input.len() {
                let parts = [&input[..split], &input[split..]];
                assert_eq!(decode(&parts, ChunkLimits::default()), Ok(expected.clone()), "split {split}");
            }
            let bytes: Vec<_> = input.chunks(1).collect();
            assert_eq!(decode(&bytes, ChunkLimits::default()), Ok(expected));
        }
    }

    #[test]
    fn payload_is_passed_on_before_the_chunk_is_whole() {
        let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
        assert_eq!(decoder.step(b""), Step::NeedMore);
        assert_eq!(decoder.step(b"a\r\nhel"), Step::Done(Piece::Payload { skip: 3, len: 3 }));
        assert_eq!(decoder.step(b"lo worl\r"), Step::Done(Piece::Payload { skip: 0, len: 7 }));
        assert_eq!(decoder.step(b"\r"), Step::Done(Piece::Payload { skip: 1, len: 0 }));
        assert_eq!(decoder.step(b"\n0\r\n\r\nGET"), Step::Done(Piece::End { skip: 6 }));
        assert!(decoder.is_done());
        assert_eq!(decoder.step(b"GET"), Step::Done(Piece::End { skip: 0 }));
    }

    #[test]
    fn sizes_that_are_refused() {
        for size in [
            "",
            " 5",
            "5 ",
            "+5",
            "-5",
            "0x5",
            "1_0",
            "g",
            "5\n",
            "5\r\r",
            "\r\n",
            "5\t",
            "00000000000000005",
            "FFFFFFFFFFFFFFFF0",
        ] {
            let input = format!("{size}\r\nhello\r\n0\r\n\r\n");
            assert_eq!(whole(input.as_bytes()), Err(Reason::ChunkSize), "{size:?}");
        }
    }

    #[test]
    fn the_largest_size_is_taken() {
        let (payload, end) = whole(b"FFFFFFFFFFFFFFFF\r\nhello").unwrap();
        assert_eq!((&payload[..], end), (&b"hello"[..], None));
    }

    #[test]
    fn a_chunk_ends_with_crlf() {
        for input in [&b"5\r\nhello0\r\n"[..], b"5\r\nhello!\r\n", b"5\r\nhello\n0\r\n", b"5\r\nhello\rx"] {
            assert_eq!(whole(input), Err(Reason::ChunkEnd));
        }
    }

    #[test]
    fn extensions_that_are_refused() {
        for extension in [
            ";",
            ";;",
            "; a",
            ";a =b",
            ";a=",
            ";a=b c",
            ";a[",
            ";a=\"b",
            ";a=\"b\"c",
            ";a\n",
            ";\0",
            ";a=\"\x7f\"",
        ] {
            let input = format!("5{extension}\r\nhello\r\n0\r\n\r\n");
            assert_eq!(whole(input.as_bytes()), Err(Reason::ChunkExtension), "{extension:?}");
        }
        assert_eq!(whole(b"5;a\rb"), Err(Reason::ChunkSize));
    }

    #[test]
    fn extensions_are_paid_for_by_payload() {
        let limits = ChunkLimits { extension_bytes_max: 8, ..ChunkLimits::default() };
        let cheap = b"5;a\r\nhello\r\n".repeat(100);
        assert!(decode(&[&cheap], limits).is_ok());
        let costly = b"1;abcdef\r\nx\r\n".repeat(2);
        assert_eq!(decode(&[&costly], limits), Err(Reason::ChunkExtensionsTooLarge(8)));
    }

    #[test]
    fn trailers_that_are_refused() {
        for (trailer, reason) in [
            ("Content-Length: 5", Reason::TrailerForbidden),
            ("transfer-encoding:chunked", Reason::TrailerForbidden),
            ("HOST: a", Reason::TrailerForbidden),
            ("Proxy-Authorization: a", Reason::TrailerForbidden),
            ("a b: c", Reason::TrailerMalformed),
            ("a : c", Reason::TrailerMalformed),
            (": c", Reason::TrailerMalformed),
            ("a", Reason::TrailerMalformed),
            ("a: b\r\n c", Reason::TrailerMalformed),
            ("a: \0", Reason::TrailerMalformed),
            ("a: b\n", Reason::TrailerMalformed),
            ("a: b\rc", Reason::TrailerMalformed),
            (" a: b", Reason::TrailerMalformed),
            ("\rx", Reason::TrailerMalformed),
        ] {
            let input = format!("0\r\n{trailer}\r\n\r\n");
            assert_eq!(whole(input.as_bytes()), Err(reason), "{trailer:?}");
        }
    }

    #[test]
    fn trailers_are_bounded() {
        let limits = ChunkLimits { trailer_bytes_max: 16, ..ChunkLimits::default() };
        assert!(decode(&[b"0\r\na: 0123456789\r\n\r\n"], limits).is_ok());
        assert_eq!(decode(&[b"0\r\na: 0123456789abcdef\r\n\r\n"], limits), Err(Reason::TrailersTooLarge(16)));
    }

    #[test]
    fn a_refusal_stays() {
        let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
        let refused = decoder.step(b"x");
        assert_eq!(refused, Reason::ChunkSize.into());
        assert_eq!(decoder.step(b"0\r\n\r\n"), refused);
    }

    #[test]
    fn heads_are_hex() {
        assert_eq!(chunk_head(1, &mut [0; 18]), b"1\r\n");
        assert_eq!(chunk_head(0xfedc_ba98, &mut [0; 18]), b"fedcba98\r\n");
        assert_eq!(chunk_head(usize::MAX, &mut [0; 18]), b"ffffffffffffffff\r\n");
    }

    #[test]
    #[should_panic(expected = "an empty chunk ends the body")]
    fn an_empty_chunk_is_our_own_fault() {
        chunk_head(0, &mut [0; 18]);
    }

    proptest! {
        #[test]
        fn round_trip(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..8),
            step in 1_usize..50,
        ) {
            let mut input = encode(&chunks, b"X-State: whole\r\n");
            let end = input.len();
            input.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let parts: Vec<_> = input.chunks(step).collect();
            prop_assert_eq!(decode(&parts, ChunkLimits::default()), Ok((chunks.concat(), Some(end))));
        }

        #[test]
        fn random_bytes_are_judged_alike_at_every_split(
            input in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"0123;=\"\r\n"[..])], 0..60),
            split in 0_usize..60,
        ) {
            let split = split.min(input.len());
            prop_assert_eq!(decode(&[&input[..split], &input[split..]], ChunkLimits::default()), whole(&input));
        }
    }
}

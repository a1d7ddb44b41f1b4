//! The aws-chunked coding: chunks within a body, signed or not, and fields behind them.
//!
//! ```text
//! 10000;chunk-signature=<64 hex>\r\n  <65536 bytes>\r\n
//! 0;chunk-signature=<64 hex>\r\n
//! x-amz-checksum-crc32c:sOO8/Q==\r\n
//! x-amz-trailer-signature:<64 hex>\r\n
//! \r\n
//! ```
//!
//! Some senders end a trailer by a bare line feed, and write an empty line before its signature: both are read.
//! Payload is handed on before the signature of its chunk is known: whoever takes it must not act on it before
//! [`AwsChunks::finish`].
//!
//! Invariant: what is handed on has the announced length, and everything in it is signed if a chain is given. No
//! payload byte is copied, no framing byte taken for payload. Pure; runs on the connection's shard.

use super::super::sign::{Chain, Denied};
use crate::codec::text::hex_value;
use sha2::{Digest, Sha256};

/// The longest line before a chunk.
const LINE_MAX: usize = 1024;
/// All trailers together.
const TRAILERS_MAX: usize = 8 * 1024;

/// Decodes one body.
pub struct AwsChunks {
    state: State,
    chain: Option<Chain>,
    /// Over the data of the chunk, where that is signed.
    hash: Sha256,
    signature: Vec<u8>,
    with_trailers: bool,
    line: Vec<u8>,
    left: u64,
    trailers: Vec<(String, Vec<u8>)>,
    canonical: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Size,
    Payload {
        left: u64,
    },
    PayloadCr,
    PayloadLf,
    Trailer,
    /// The trailer's signature was right.
    Sealed,
    End,
}

/// What the start of the input is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Bytes of framing.
    pub skip: usize,
    /// Bytes of payload behind them.
    pub len: usize,
}

/// Why a body is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bad {
    /// The framing is broken.
    Malformed(&'static str),
    /// More or fewer bytes than announced.
    Length,
    /// A signature is missing or wrong.
    Signature(Denied),
}

impl AwsChunks {
    /// A decoder of a body with `len` bytes of payload, whose chunks must fit into `chain` if there is one.
    pub fn new(len: u64, with_trailers: bool, chain: Option<Chain>) -> Self {
        AwsChunks {
            state: State::Size,
            chain,
            hash: Sha256::new(),
            signature: Vec::new(),
            with_trailers,
            line: Vec::new(),
            left: len,
            trailers: Vec::new(),
            canonical: Vec::new(),
            trailer_bytes: 0,
        }
    }

    /// Decodes all of `input`, giving the payload in it to `take`.
    pub fn feed(&mut self, input: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Bad> {
        let mut at = 0;
        while at < input.len() {
            let Piece { skip, len } = self.step(&input[at..])?;
            if len > 0 {
                take(&input[at + skip..][..len]);
            }
            at += skip + len;
        }
        Ok(())
    }

    /// Consumes framing from the start of `input`, which is not empty, and tells what payload follows.
    pub fn step(&mut self, input: &[u8]) -> Result<Piece, Bad> {
        let mut skip = 0;
        while let Some(&byte) = input.get(skip) {
            if let State::Payload { left } = self.state {
                let len =
                    usize::try_from(left).map_or(input.len() - skip, |left| left.min(input.len() - skip));
                if self.chain.is_some() {
                    self.hash.update(&input[skip..][..len]);
                }
                let left = left - len as u64;
                self.state = if left == 0 { State::PayloadCr } else { State::Payload { left } };
                return Ok(Piece { skip, len });
            }
            self.take_framing(byte)?;
            skip += 1;
        }
        Ok(Piece { skip, len: 0 })
    }

    /// After the last byte: the trailers, by name in lower case. Only now is the payload what its sender signed.
    pub fn finish(self) -> Result<Vec<(String, Vec<u8>)>, Bad> {
        match self.state {
            State::End if self.left == 0 => Ok(self.trailers),
            State::End => Err(Bad::Length),
            _ => Err(Bad::Malformed("the body ended before its last chunk")),
        }
    }

    fn take_framing(&mut self, byte: u8) -> Result<(), Bad> {
        match (self.state, byte) {
            (State::Size | State::Trailer | State::Sealed, b'\n') => {
                let line = std::mem::take(&mut self.line);
                let text = line.strip_suffix(b"\r").unwrap_or(&line);
                self.state = match self.state {
                    State::Size => self.take_size(text)?,
                    State::Trailer => self.take_trailer(text)?,
                    _ if text.is_empty() => State::End,
                    _ => return Err(Bad::Malformed("something follows the signature of the trailers")),
                };
                self.line = line;
                self.line.clear();
                Ok(())
            }
            (State::Size | State::Trailer | State::Sealed, _) => {
                let is_size = self.state == State::Size;
                self.trailer_bytes += usize::from(!is_size);
                if (is_size && self.line.len() == LINE_MAX) || self.trailer_bytes > TRAILERS_MAX {
                    return Err(Bad::Malformed("a line between the chunks is too long"));
                }
                self.line.push(byte);
                Ok(())
            }
            (State::PayloadCr, b'\r') => {
                self.state = State::PayloadLf;
                Ok(())
            }
            (State::PayloadLf, b'\n') => {
                self.end_chunk()?;
                self.state = State::Size;
                Ok(())
            }
            (State::PayloadCr | State::PayloadLf, _) => {
                Err(Bad::Malformed("the payload of a chunk is not followed by CRLF"))
            }
            (State::End, _) => Err(Bad::Malformed("the body goes on behind its last chunk")),
            (State::Payload { .. }, _) => unreachable!("payload is taken by the piece"),
        }
    }

    /// `size[;chunk-signature=…]`
    fn take_size(&mut self, line: &[u8]) -> Result<State, Bad> {
        let mut parts = line.split(|byte| *byte == b';');
        let size = hex_size(parts.next().unwrap_or_default())
            .ok_or(Bad::Malformed("the size of a chunk is not a hexadecimal number"))?;
        self.signature.clear();
        for part in parts {
            if let Some(signature) = part.trim_ascii().strip_prefix(b"chunk-signature=") {
                self.signature.extend_from_slice(signature);
            }
        }
        self.left = self.left.checked_sub(size).ok_or(Bad::Length)?;
        if size > 0 {
            return Ok(State::Payload { left: size });
        }
        self.end_chunk()?;
        Ok(State::Trailer)
    }

    fn end_chunk(&mut self) -> Result<(), Bad> {
        let Some(chain) = &mut self.chain else { return Ok(()) };
        let digest = self.hash.finalize_reset().into();
        chain.chunk(&digest, &self.signature).map_err(Bad::Signature)
    }

    fn take_trailer(&mut self, line: &[u8]) -> Result<State, Bad> {
        if line.is_empty() {
            return match (&self.chain, self.with_trailers) {
                // Not the end: the signature is still to come.
                (Some(_), true) if self.trailer_bytes < TRAILERS_MAX => {
                    self.trailer_bytes += 1;
                    Ok(State::Trailer)
                }
                _ => Ok(State::End),
            };
        }
        if !self.with_trailers {
            return Err(Bad::Malformed("there are trailers, and the payload mode has none"));
        }
        let colon = memchr::memchr(b':', line).ok_or(Bad::Malformed("a trailer is not name:value"))?;
        let name = std::str::from_utf8(&line[..colon]).unwrap_or_default().trim().to_ascii_lowercase();
        let value = line[colon + 1..].trim_ascii();
        if name.is_empty() {
            return Err(Bad::Malformed("a trailer has no name"));
        }
        if name == "x-amz-trailer-signature" {
            if let Some(chain) = &mut self.chain {
                let digest = Sha256::digest(&self.canonical).into();
                chain.trailers(&digest, value).map_err(Bad::Signature)?;
            }
            return Ok(State::Sealed);
        }
        self.canonical.extend_from_slice(name.as_bytes());
        self.canonical.push(b':');
        self.canonical.extend_from_slice(value);
        self.canonical.push(b'\n');
        self.trailers.push((name, value.to_vec()));
        Ok(State::Trailer)
    }
}

/// 1 to 16 digits.
fn hex_size(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |size, digit| Some(size << 4 | u64::from(hex_value(*digit)?)))
}

#[cfg(test)]
mod tests {
    use super::super::super::sign::Keys;
    use super::*;
    use crate::config::Secret;
    use proptest::prelude::*;

    fn chain() -> Chain {
        let keys = Keys::new("us-east-1", [("id".into(), Secret::new("secret"))]);
        let key = keys.signing_key(keys.find(b"id").unwrap(), *b"20260102");
        Chain::new(key, "20260102T030405Z", "20260102/us-east-1/s3/aws4_request", "0".repeat(64))
    }

    fn plain(chunks: &[&[u8]], trailers: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        out
    }

    /// `ends` is how a trailer's line ends, and whether an empty line stands before its signature.
    fn signed(chunks: &[&[u8]], trailer: Option<&str>, ends: &str) -> Vec<u8> {
        let mut chain = chain();
        let mut out = Vec::new();
        for chunk in chunks.iter().chain([&&b""[..]]) {
            let signature = chain.sign_chunk(chunk);
            out.extend_from_slice(format!("{:x};chunk-signature={signature}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(if chunk.is_empty() { b"" } else { b"\r\n" });
        }
        if let Some(trailer) = trailer {
            let signature = chain.sign_trailers(format!("{trailer}\n").as_bytes());
            out.extend_from_slice(
                format!("{trailer}{ends}x-amz-trailer-signature:{signature}\r\n").as_bytes(),
            );
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    type Decoded = Result<(Vec<u8>, Vec<(String, Vec<u8>)>), Bad>;

    fn decode(mut decoder: AwsChunks, pieces: &[&[u8]]) -> Decoded {
        let mut payload = Vec::new();
        for piece in pieces {
            decoder.feed(piece, |bytes| payload.extend_from_slice(bytes))?;
        }
        Ok((payload, decoder.finish()?))
    }

    /// The same answer wherever the input is cut in two.
    fn decode_everywhere(make: impl Fn() -> AwsChunks, wire: &[u8]) -> Decoded {
        let whole = decode(make(), &[wire]);
        for at in 0..=wire.len() {
            assert_eq!(decode(make(), &[&wire[..at], &wire[at..]]), whole, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(make(), &bytes), whole, "byte by byte");
        whole
    }

    #[test]
    fn unsigned_chunks_with_a_trailer() {
        let wire = plain(&[b"hello ", b"world"], "X-Amz-Checksum-CRC32: DUoRhQ==\r\n");
        let decoded = decode_everywhere(|| AwsChunks::new(11, true, None), &wire);
        let trailers = vec![("x-amz-checksum-crc32".to_owned(), b"DUoRhQ==".to_vec())];
        assert_eq!(decoded, Ok((b"hello world".to_vec(), trailers)));
    }

    #[test]
    fn signed_chunks() {
        let wire = signed(&[&[b'a'; 70], b"b"], None, "");
        let payload = [&[b'a'; 70][..], b"b"].concat();
        let decoded = decode_everywhere(|| AwsChunks::new(71, false, Some(chain())), &wire);
        assert_eq!(decoded, Ok((payload.clone(), vec![])));
        // Without keys the same framing is read and no signature looked at.
        assert_eq!(decode(AwsChunks::new(71, false, None), &[&wire]), Ok((payload, vec![])));
    }

    #[test]
    fn signed_trailers_in_both_spellings() {
        for ends in ["\r\n", "\n", "\n\r\n", "\r\n\r\n"] {
            let wire = signed(&[b"abc"], Some("x-amz-checksum-sha1:qZk="), ends);
            let decoded = decode_everywhere(|| AwsChunks::new(3, true, Some(chain())), &wire);
            let trailers = vec![("x-amz-checksum-sha1".to_owned(), b"qZk=".to_vec())];
            assert_eq!(decoded, Ok((b"abc".to_vec(), trailers)), "{ends:?}");
        }
    }

    #[test]
    fn an_empty_body() {
        assert_eq!(decode(AwsChunks::new(0, true, None), &[b"0\r\n\r\n"]), Ok((vec![], vec![])));
        let wire = signed(&[], None, "");
        assert_eq!(decode(AwsChunks::new(0, false, Some(chain())), &[&wire]), Ok((vec![], vec![])));
    }

    #[test]
    fn lengths_must_be_those_announced() {
        let wire = plain(&[b"hello"], "");
        for len in [0, 4, 6, u64::MAX] {
            assert_eq!(decode(AwsChunks::new(len, true, None), &[&wire]), Err(Bad::Length), "{len}");
        }
        let huge = b"ffffffffffffffff\r\n".as_slice();
        assert_eq!(decode(AwsChunks::new(5, true, None), &[huge]), Err(Bad::Length));
    }

    #[test]
    fn broken_framing_is_refused() {
        let trailers = |text: &str| format!("0\r\n{text}").into_bytes();
        for (wire, with_trailers) in [
            (b"".to_vec(), true),
            (b"\r\n".to_vec(), true),
            (b"5\r\nhelloX\r\n0\r\n\r\n".to_vec(), true),
            (b"5\r\nhello\rX0\r\n\r\n".to_vec(), true),
            (b"5\r\nhello\r\n".to_vec(), true),
            (b"-5\r\nhello\r\n0\r\n\r\n".to_vec(), true),
            (b"00000000000000005\r\nhello\r\n0\r\n\r\n".to_vec(), true),
            (plain(&[b"hello"], "a:b\r\n"), false),
            ([plain(&[b"hello"], ""), b"x".to_vec()].concat(), true),
            (trailers("novalue\r\n\r\n"), true),
            (trailers(":x\r\n\r\n"), true),
            (trailers(&format!("a:{}\r\n\r\n", "x".repeat(9000))), true),
            (vec![b'1'; 5000], true),
        ] {
            let decoded = decode(AwsChunks::new(5, with_trailers, None), &[&wire]);
            assert!(matches!(decoded, Err(Bad::Malformed(_))), "{}: {decoded:?}", wire.escape_ascii());
        }
    }

    #[test]
    fn what_is_not_signed_is_refused() {
        let make = || AwsChunks::new(5, true, Some(chain()));
        let refused = |wire: &[u8]| decode(make(), &[wire]).expect_err("refused");
        let wire = signed(&[b"hello"], Some("a:b"), "\r\n");
        assert!(decode(make(), &[&wire]).is_ok());
        assert!(matches!(refused(&plain(&[b"hello"], "")), Bad::Signature(_)));
        let text = String::from_utf8(wire).unwrap();
        for (from, to) in [("hello", "hellO"), ("a:b", "a:c"), ("chunk-signature", "chunk-signatur")] {
            assert!(matches!(refused(text.replacen(from, to, 1).as_bytes()), Bad::Signature(_)), "{to}");
        }
        // The signature of the trailers left out: however it ends, it is no end.
        let cut = &text[..text.find("x-amz-trailer").unwrap()];
        for end in ["", "\r\n", "\r\n\r\n\r\n"] {
            assert!(decode(make(), &[format!("{cut}{end}").as_bytes()]).is_err(), "{end:?}");
        }
        assert!(decode(make(), &[format!("{text}a:c\r\n").as_bytes()]).is_err());
    }

    proptest! {
        #[test]
        fn chunks_come_back(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            is_signed: bool,
        ) {
            let parts: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk[..]).collect();
            let wire = if is_signed { signed(&parts, None, "") } else { plain(&parts, "") };
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            at.extend([0, wire.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &wire[ends[0]..ends[1]]).collect();
            let whole = chunks.concat();
            let decoder = AwsChunks::new(whole.len() as u64, false, is_signed.then(chain));
            prop_assert_eq!(decode(decoder, &pieces), Ok((whole, vec![])));
        }

        /// Whatever comes in, as much comes out as was announced, or it is refused.
        #[test]
        fn no_input_gives_more_than_announced(wire in "[0-9a-f;:x\r\n]{0,60}", len in 0u64..20) {
            let mut decoder = AwsChunks::new(len, true, None);
            let mut payload = 0;
            let fed = decoder.feed(wire.as_bytes(), |bytes| payload += bytes.len() as u64);
            prop_assert!(payload <= len);
            if fed.is_ok() && decoder.finish().is_ok() {
                prop_assert_eq!(payload, len);
            }
        }
    }
}

//! The body of an answer, freed from its framing as it arrives.
//!
//! Bytes go in, ranges of payload come out; the payload itself is never copied. Invariant: `ended`
//! turns true only at the last byte that the framing promised, trailers included.
//!
//! Runs in: the command-line clients. Pure.

use std::ops::Range;

use super::answer::{Fields, Garbled};

const TRAILER_BYTES_MAX: usize = 16 * 1024;
const EXTENSION_BYTES_MAX: u16 = 1024;
const TRAILERS_MAX: usize = 32;

/// A body on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    state: State,
    trailers: Fields,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// A body with a declared length has this much left.
    Plain(u64),
    /// Only the end of the connection ends it, which is no proof of anything.
    UntilClose,
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
        skipped: u16,
    },
    SizeLf {
        value: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    /// The lines after the last chunk, up to and including the empty one.
    Trailers(Vec<u8>),
    Ended,
}

/// What one look at the input gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of input that are done with, never 0 unless the input was empty or the body has ended.
    pub used: usize,
    /// Payload, inside `input[..used]`; often empty.
    pub payload: Range<usize>,
}

impl Body {
    /// A body that is over before it began.
    #[must_use]
    pub fn empty() -> Self {
        Self::in_state(State::Ended)
    }

    /// A body of exactly this many bytes.
    #[must_use]
    pub fn of_len(len: u64) -> Self {
        Self::in_state(if len == 0 { State::Ended } else { State::Plain(len) })
    }

    /// A body in chunks (RFC 9112, section 7.1).
    #[must_use]
    pub fn chunked() -> Self {
        Self::in_state(State::Size { value: 0, digits: 0 })
    }

    /// A body that goes on until the peer closes.
    #[must_use]
    pub fn until_close() -> Self {
        Self::in_state(State::UntilClose)
    }

    fn in_state(state: State) -> Self {
        Self { state, trailers: Fields::default() }
    }

    /// Whether the framing has said that this was all.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether only the end of the connection ends this body.
    #[must_use]
    pub fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Fields after the last chunk; empty until the body has ended.
    #[must_use]
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// Takes framing and at most one run of payload from the front of `input`.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Garbled> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match &mut self.state {
                State::Ended => break,
                State::UntilClose => return Ok(Step { used: input.len(), payload: used..input.len() }),
                State::Plain(left) => {
                    let taken = shorter(*left, rest.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Ended;
                    }
                    return Ok(Step { used: used + taken, payload: used..used + taken });
                }
                State::Data(left) => {
                    let taken = shorter(*left, rest.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step { used: used + taken, payload: used..used + taken });
                }
                State::Trailers(_) => used += self.trailer_bytes(rest)?,
                _ => {
                    self.framing_byte(rest[0])?;
                    used += 1;
                }
            }
        }
        Ok(Step { used, payload: used..used })
    }

    fn framing_byte(&mut self, byte: u8) -> Result<(), Garbled> {
        self.state = match (&self.state, byte) {
            (&State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                State::Size { value: value << 4 | digit, digits: digits + 1 }
            }
            (&State::Size { value, digits: 1.. } | &State::Extension { value, .. }, b'\r') => {
                State::SizeLf { value }
            }
            (&State::Size { value, digits: 1.. }, b';' | b' ' | b'\t') => {
                State::Extension { value, skipped: 0 }
            }
            (&State::Extension { value, skipped }, _) if byte != b'\n' && skipped < EXTENSION_BYTES_MAX => {
                State::Extension { value, skipped: skipped + 1 }
            }
            (&State::SizeLf { value: 0 }, b'\n') => State::Trailers(Vec::new()),
            (&State::SizeLf { value }, b'\n') => State::Data(value),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(Garbled::ChunkEnd),
            _ => return Err(Garbled::ChunkSize),
        };
        Ok(())
    }

    /// Takes up to and including the next line feed; ends the body at the empty line.
    fn trailer_bytes(&mut self, input: &[u8]) -> Result<usize, Garbled> {
        let State::Trailers(lines) = &mut self.state else { return Ok(0) };
        let line = memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1);
        lines.extend_from_slice(&input[..line]);
        if lines.len() > TRAILER_BYTES_MAX {
            return Err(Garbled::Trailers);
        }
        if lines == b"\r\n" || lines.ends_with(b"\r\n\r\n") {
            let mut space = [httparse::EMPTY_HEADER; TRAILERS_MAX];
            match httparse::parse_headers(lines, &mut space) {
                Ok(httparse::Status::Complete((_, fields))) => self.trailers = Fields::of(fields),
                _ => return Err(Garbled::Trailers),
            }
            self.state = State::Ended;
        }
        Ok(line)
    }
}

fn shorter(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `pieces` one after another, as they would come from a socket.
    fn drink<'a>(
        body: &mut Body,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(Vec<u8>, Vec<u8>), Garbled> {
        let (mut payload, mut rest) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut at = 0;
            while at < piece.len() && !body.ended() {
                let step = body.step(&piece[at..])?;
                assert!(step.used > 0 && step.payload.end <= step.used);
                payload.extend_from_slice(&piece[at..][step.payload]);
                at += step.used;
            }
            rest.extend_from_slice(&piece[at..]);
        }
        Ok((payload, rest))
    }

    /// Its second chunk says 11 and is 12 bytes long; the good case mends that.
    const CHUNKED: &[u8] =
        b"5\r\nhello\r\n00B;name=\"v\"\r\n, wide world\r\n0 \r\nX-Stream-State: complete\r\nStream-Next-Offset: 16\r\n\r\nnext";

    #[test]
    fn every_split_in_two_gives_the_same_payload_and_trailers() {
        let wire = String::from_utf8_lossy(CHUNKED).replace("00B;", "00C;").into_bytes();
        for cut in 0..=wire.len() {
            let mut body = Body::chunked();
            let (payload, rest) = drink(&mut body, [&wire[..cut], &wire[cut..]].into_iter()).expect("valid");
            assert_eq!(payload, b"hello, wide world", "cut at {cut}");
            assert_eq!(rest, b"next");
            assert!(body.ended());
            assert_eq!(body.trailers().text("x-stream-state"), Some("complete"));
            assert_eq!(body.trailers().number("stream-next-offset"), Some(16));
            let mut short = Body::chunked();
            let end = wire.len() - 4;
            drink(&mut short, std::iter::once(&wire[..cut.min(end - 1)])).expect("a prefix is not wrong");
            assert!(!short.ended(), "ended at {cut}");
        }
    }

    #[test]
    fn damage_is_named() {
        for (wire, why) in [
            (&b"x\r\n"[..], Garbled::ChunkSize),
            (b"\r\n", Garbled::ChunkSize),
            (b"5\n", Garbled::ChunkSize),
            (b"5;a\nb", Garbled::ChunkSize),
            (b"10000000000000000\r\n", Garbled::ChunkSize),
            (b"1\r\nab", Garbled::ChunkEnd),
            (b"1\r\na\rb", Garbled::ChunkEnd),
            (b"0\r\nno colon\r\n\r\n", Garbled::Trailers),
            (CHUNKED, Garbled::ChunkEnd),
        ] {
            assert_eq!(drink(&mut Body::chunked(), std::iter::once(wire)), Err(why), "{wire:?}");
        }
        let mut endless = b"0\r\n".to_vec();
        endless.resize(TRAILER_BYTES_MAX + 4, b'a');
        assert_eq!(drink(&mut Body::chunked(), std::iter::once(&endless[..])), Err(Garbled::Trailers));
    }

    #[test]
    fn a_length_is_exact_and_an_open_body_never_ends() {
        let mut body = Body::of_len(3);
        assert_eq!(drink(&mut body, std::iter::once(&b"abcd"[..])), Ok((b"abc".to_vec(), b"d".to_vec())));
        assert!(body.ended());
        assert!(Body::of_len(0).ended() && Body::empty().ended());
        let mut open = Body::until_close();
        assert_eq!(drink(&mut open, std::iter::once(&b"abc"[..])), Ok((b"abc".to_vec(), Vec::new())));
        assert!(!open.ended());
    }

    proptest! {
        #[test]
        fn any_chunks_in_any_pieces_come_out_whole(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            pieces in prop::collection::vec(1usize..9, 1..6),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut sizes = pieces.iter().cycle();
            let mut rest = wire.as_slice();
            let split = std::iter::from_fn(|| {
                let (piece, after) = rest.split_at((*sizes.next()?).min(rest.len()));
                rest = after;
                (!piece.is_empty()).then_some(piece)
            });
            let mut body = Body::chunked();
            prop_assert_eq!(drink(&mut body, split), Ok((chunks.concat(), Vec::new())));
            prop_assert!(body.ended());
        }

        #[test]
        fn no_input_makes_it_panic(wire in prop::collection::vec(prop::sample::select(&b"0aF;\r\n: x"[..]), 0..60)) {
            let _ = drink(&mut Body::chunked(), std::iter::once(&wire[..]));
        }
    }
}

//! A chunked body gives the same payload, end and refusal however its bytes are cut.
//!
//! Invariant: the first byte chooses the size of the pieces; the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::net::http::{ChunkLimits, ChunkedDecoder, Piece, Refusal, Step};

const LIMITS: ChunkLimits = ChunkLimits { extension_bytes_max: 32, trailer_bytes_max: 64 };

fuzz_target!(|data: &[u8]| {
    let Some((&step, input)) = data.split_first() else { return };
    let whole = decode(std::iter::once(input));
    let pieces = decode(input.chunks(usize::from(step).max(1)));
    assert_eq!(whole, pieces);
});

/// The payload, and where the body ended: `None` if it is still open.
fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Option<usize>), Refusal> {
    let mut decoder = ChunkedDecoder::new(LIMITS);
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for mut rest in parts {
        loop {
            match decoder.step(rest) {
                Step::NeedMore => {
                    assert!(rest.is_empty(), "whatever is there is consumed");
                    break;
                }
                Step::Refuse(refusal) => return Err(refusal),
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

//! What chunk framing costs, apart from the payload, which is never touched.
//!
//! Expected: some ten framing bytes per chunk through a state machine; the size of a chunk does not matter.
//! Not measured: moving the payload.

mod meter;

use meter::measure;
use millpond::net::http::chunked::{CHUNK_END, chunk_head};
use millpond::net::http::{ChunkLimits, ChunkedDecoder, Piece, Step};

fn main() {
    decode("decode a chunk of 16 B", 16);
    decode("decode a chunk of 64 KiB", 64 * 1024);
    encode();
}

/// One chunk per operation, of a body that never ends.
fn decode(name: &str, len: usize) {
    let mut chunk = chunk_head(len, &mut [0; 18]).to_vec();
    chunk.resize(chunk.len() + len, b'x');
    chunk.extend_from_slice(CHUNK_END);
    let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
    measure(name, || assert_eq!(payload(&mut decoder, &chunk), len));
}

fn payload(decoder: &mut ChunkedDecoder, mut input: &[u8]) -> usize {
    let mut total = 0;
    while let Step::Done(Piece::Payload { skip, len }) = decoder.step(input) {
        total += len;
        input = &input[skip + len..];
    }
    total
}

fn encode() {
    let mut len: usize = 0;
    measure("write the head of a chunk", || {
        len = len % 65_536 + 1;
        assert!(chunk_head(len, &mut [0; 18]).len() >= 3);
    });
}

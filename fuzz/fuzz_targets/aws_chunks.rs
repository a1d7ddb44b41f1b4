//! A body in aws-chunked coding, cut anywhere: the same payload whatever the cut, never more than was announced.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::dialect::s3::payload::chunks::AwsChunks;

fuzz_target!(|input: (u16, u8, bool, &[u8])| {
    let (cut, len, with_trailers, wire) = input;
    let decode = |pieces: &[&[u8]]| {
        let mut payload = Vec::new();
        let mut decoder = AwsChunks::new(len.into(), with_trailers, None);
        for piece in pieces {
            decoder.feed(piece, |bytes| payload.extend_from_slice(bytes))?;
        }
        assert!(payload.len() <= usize::from(len));
        decoder.finish().map(|trailers| (payload, trailers))
    };
    let whole = decode(&[wire]);
    let cut = usize::from(cut) % (wire.len() + 1);
    assert_eq!(decode(&[&wire[..cut], &wire[cut..]]), whole);
    if let Ok((payload, _)) = whole {
        assert_eq!(payload.len(), usize::from(len));
    }
});

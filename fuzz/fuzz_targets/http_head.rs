//! A request head is judged alike whole and in two parts, and what is accepted keeps its promises.
//!
//! Invariant: the first byte chooses the split; the rest is the head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::net::http::{BodyLength, HeadLimits, RequestHead, Step, Version};

const LIMITS: HeadLimits = HeadLimits { bytes_max: 512, fields_max: 8 };

fuzz_target!(|data: &[u8]| {
    let Some((&split, input)) = data.split_first() else { return };
    let mut whole = RequestHead::new();
    let expected = whole.parse(input, &LIMITS);

    let mut halves = RequestHead::new();
    let first = halves.parse(&input[..usize::from(split).min(input.len())], &LIMITS);
    let step = if first == Step::NeedMore { halves.parse(input, &LIMITS) } else { first };
    match (step, expected) {
        (Step::Done(len), _) | (_, Step::Done(len)) => {
            assert_eq!(step, expected);
            assert_eq!(format!("{whole:?}"), format!("{halves:?}"));
            accepted(&whole, &input[..len]);
        }
        // An unfinished line may wait for its end before it is refused.
        (Step::Refuse(_), Step::Refuse(_)) | (Step::NeedMore, _) => {}
        (Step::Refuse(refusal), Step::NeedMore) => panic!("a part is refused, the whole is not: {refusal}"),
    }
});

fn accepted(head: &RequestHead, bytes: &[u8]) {
    assert!(bytes.len() <= LIMITS.bytes_max && bytes.ends_with(b"\r\n\r\n"));
    assert_eq!(
        bytes.split(|byte| *byte == b'\n').count() - 1,
        bytes.windows(2).filter(|w| w == b"\r\n").count()
    );
    assert!(head.target().starts_with('/') || head.target() == "*");
    assert!(head.target().starts_with(head.path()));
    assert!(head.version() == Version::Http10 || head.headers("host").count() == 1);
    assert!(head.all().count() <= LIMITS.fields_max);
    let (lengths, codings) =
        (head.headers("content-length").count(), head.headers("transfer-encoding").count());
    match head.body() {
        BodyLength::None => assert_eq!((lengths, codings), (0, 0)),
        BodyLength::Exact(_) => assert_eq!((lengths, codings), (1, 0)),
        BodyLength::Chunked => assert_eq!((lengths, codings), (0, 1)),
    }
}

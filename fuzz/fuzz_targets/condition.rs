//! Conditions of a request: whatever stands in the fields, what is there fails or passes as the fields say.
//!
//! Invariant: the first byte chooses what is there; the rest is the value of all four fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::net::http::condition::{Conditions, Standing, Tags, Verdict, range_applies};
use millpond::net::http::{HeadLimits, RequestHead, Step};

const NAMES: [&str; 5] = ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"];

fuzz_target!(|data: &[u8]| {
    let Some((there, value)) = data.split_first() else { return };
    let mut text = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for name in NAMES {
        text.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    let mut head = RequestHead::new();
    // A value that is not one, or several lines of them.
    if head.parse(&text, &HeadLimits::default()) != Step::Done(text.len()) || head.all().count() != 6 {
        return;
    }
    let conditions = Conditions::of(&head);
    let standing = Standing { etag: "5d41402abc4b2a76b9719d911017c592", modified_ms: 784_111_777_000 };
    let _ = range_applies(&head, standing);
    let there = (there % 2 == 1).then_some(standing);
    let verdict = conditions.judge(there, true, 1_800_000_000);
    let named = |tags: &Option<Tags>| {
        there.is_some_and(|there| tags.as_ref().is_some_and(|tags| tags.include(there.etag)))
    };
    // Both tag fields are there, so no date counts.
    let expected = match (named(&conditions.matches), named(&conditions.matches_none)) {
        (false, _) => Verdict::Failed,
        (true, true) => Verdict::NotModified,
        (true, false) => Verdict::Proceed,
    };
    assert_eq!(verdict, expected);
});

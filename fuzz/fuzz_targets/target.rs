//! Any target is judged, and what is accepted comes apart without loss.
//!
//! Invariant: the input is the target of an OPTIONS request, the method that may have every form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::codec::text::percent_encode;
use millpond::net::http::target::{Param, percent_decode_segment, query_pairs, segments};
use millpond::net::http::{HeadLimits, RequestHead, Step};

fuzz_target!(|data: &[u8]| {
    let input = [b"OPTIONS ", data, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let mut head = RequestHead::new();
    if !matches!(head.parse(&input, &HeadLimits::default()), Step::Done(_)) {
        return;
    }
    assert!(head.target().bytes().all(|byte| byte.is_ascii_graphic()) && !head.path().contains('#'));
    path(head.path());
    if let Some(query) = head.query() {
        assert_eq!(format!("{}?{query}", head.path()), head.target());
        pairs(query);
    }
});

fn path(path: &str) {
    let parts: Vec<&str> = segments(path).collect();
    assert_eq!(parts.join("/"), path.strip_prefix('/').unwrap_or(path));
    for decoded in parts.into_iter().filter_map(|part| percent_decode_segment(part).ok()) {
        let again = percent_encode(&decoded).to_string();
        assert_eq!(percent_decode_segment(&again).expect("we encoded it"), decoded);
    }
}

fn pairs(query: &str) {
    for (key, _) in query_pairs(query) {
        let Ok(key) = std::str::from_utf8(&key) else { continue };
        assert!(Param::find(Some(query), key).is_present());
    }
}

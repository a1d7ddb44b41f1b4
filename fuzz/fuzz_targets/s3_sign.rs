//! No bytes that somebody made up are a signature: whatever the head says, nothing is granted.
//!
//! Invariant: the data is what stands behind the method, so that targets and fields are both made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::config::Secret;
use millpond::dialect::s3::sign::{Keys, judge};
use millpond::net::http::{HeadLimits, RequestHead, Step};

fuzz_target!(|data: &[u8]| {
    let text = [&b"GET /b/k"[..], data, b"\r\n\r\n"].concat();
    let mut head = RequestHead::new();
    let Step::Done(_) = head.parse(&text, &HeadLimits::default()) else { return };
    let keys = Keys::new("us-east-1", [("AKIDEXAMPLE".into(), Secret::new("not to be guessed"))]);
    // 2026-01-01T00:00:00Z, which the seeds are of.
    assert!(judge(&keys, &head, None, 1_767_225_600).is_err());
    assert!(judge(&Keys::new("us-east-1", []), &head, None, 1_767_225_600).is_ok());
});

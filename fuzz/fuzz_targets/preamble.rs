//! The first bytes of a framed connection: whatever comes, and however it is cut, the verdict is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::net::frame::{MAGIC, PREAMBLE, Preamble};

fuzz_target!(|bytes: &[u8]| {
    let whole = Preamble::parse(bytes);
    match whole {
        Preamble::Kind(kind) => assert!(bytes.starts_with(MAGIC) && bytes[MAGIC.len()] == kind),
        Preamble::Unfinished => assert!(bytes.len() < PREAMBLE && MAGIC.starts_with(bytes)),
        Preamble::Foreign => assert!(!bytes.starts_with(MAGIC)),
    }
    // A verdict that was reached stands, whatever comes behind it.
    for end in 0..bytes.len() {
        match Preamble::parse(&bytes[..end]) {
            Preamble::Unfinished => {}
            verdict => assert_eq!(verdict, whole, "after {end} bytes"),
        }
    }
});

//! Every range that is handed out is not empty and lies below the length.
//!
//! Invariant: the first eight bytes are the length; the rest is the field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::net::http::range::{Selection, parse_range};

fuzz_target!(|data: &[u8]| {
    let Some((len, value)) = data.split_first_chunk() else { return };
    let len = u64::from_le_bytes(*len);
    let Some(header) = parse_range(value) else { return };
    assert!(!header.specs().is_empty());
    let ranges = match header.resolve(len) {
        Selection::Whole | Selection::Unsatisfiable => return,
        Selection::Satisfiable(range) => vec![range],
        Selection::Several(ranges) => ranges.as_slice().to_vec(),
    };
    let total: u128 = ranges.iter().map(|range| u128::from(range.end - range.start)).sum();
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len));
    assert!(total <= u128::from(len));
});

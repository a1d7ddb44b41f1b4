//! A journal segment of any bytes is scanned to its end, without a panic, and never beyond its promises.
//!
//! Invariant: sequences rise by one except over what is told as damage, places rise too, and the tail comes last,
//! once. The first bytes choose what is expected of the segment; the rest is its content, of which every record
//! gets the checksums that it claims to have, so that damage to everything else is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::storage::journal::record::{HEADER_LEN, finish, measure};
use millpond::storage::journal::scan::{Expect, Found, scan, survey};

const GENERATION: u32 = 77;

fuzz_target!(|data: &[u8]| {
    let Some((&[first_seq, synced_seq, next_seq, mend], content)) = data.split_first_chunk() else { return };
    let mut content = content.to_vec();
    if mend & 1 != 0 {
        mend_checksums(&mut content);
    }
    survey(&content, GENERATION);
    let expect = Expect {
        generation: GENERATION,
        first_seq: u64::from(first_seq),
        boot: 1,
        synced_seq: u64::from(synced_seq),
        next_seq: (next_seq > 0).then_some(u64::from(next_seq)),
    };
    let (mut expected, mut place, mut ended) = (expect.first_seq, 0, false);
    for found in scan(&content, expect) {
        assert!(!ended, "nothing follows the tail");
        match found {
            Found::Record { at, header, .. } => {
                assert!(header.seq == expected && at >= place);
                place = at + header.record_len();
                expected += 1;
            }
            Found::Damaged { at, from_seq, to_seq, .. } => {
                assert!(from_seq == expected && to_seq >= from_seq && at >= place);
                expected = to_seq;
            }
            Found::Tail { next_seq, .. } => {
                assert_eq!(next_seq, expected);
                ended = true;
            }
        }
    }
    assert!(ended, "a scan ends with the tail");
});

/// Gives every record-like stretch the checksums it needs to be believed.
fn mend_checksums(content: &mut [u8]) {
    let mut at = 0;
    while content.len() - at >= HEADER_LEN {
        let (len, _) = measure(&content[at..]);
        if content.len() - at < len {
            return;
        }
        finish(&mut content[at..], GENERATION);
        at += len;
    }
}

//! Documents of requests: what is read of one keeps its bounds, and what it names was in it.
//!
//! Invariant: the first byte says which of the three documents it is; the rest is the document.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::dialect::s3::fault::Code;
use millpond::dialect::s3::xml_in::{self, KEYS_MAX, PARTS_MAX};

fuzz_target!(|data: &[u8]| {
    let Some((kind, document)) = data.split_first() else { return };
    let refused = match kind % 3 {
        0 => match xml_in::delete(document) {
            Ok(found) => {
                assert!((1..=KEYS_MAX).contains(&found.objects.len()));
                assert!(found.objects.iter().all(|doomed| doomed.key.len() <= document.len()));
                None
            }
            Err(fault) => Some(fault),
        },
        1 => match xml_in::complete(document) {
            Ok(found) => {
                assert!((1..=PARTS_MAX).contains(&found.len()));
                assert!(found.iter().all(|part| part.etag.len() <= document.len()));
                None
            }
            Err(fault) => Some(fault),
        },
        _ => xml_in::location(document).err(),
    };
    if let Some(fault) = refused {
        assert_eq!(fault.code, Code::MalformedXML);
    }
});

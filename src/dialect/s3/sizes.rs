//! The sizes of the parts that an object was composed of, so that it can be read part by part.
//!
//! Kept in the field `~parts`: runs of equal sizes, each as count and size in LEB128. Most uploads have parts of one
//! size and a last one, which is a few bytes. Sizes that take more than [`BYTES_MAX`] are not kept.
//! Invariant: decoding what was encoded gives it back. Pure; runs anywhere.

use crate::service::blob::Properties;
use std::ops::Range;

/// The field.
pub const FIELD: &str = "~parts";
/// The most that is kept.
const BYTES_MAX: usize = 48 * 1024;
/// The most parts that are believed.
const PARTS_MAX: u64 = 10_000;

/// Keeps the sizes.
pub fn keep(sizes: &[u64], properties: &mut Properties) {
    let mut bytes = Vec::new();
    for run in sizes.chunk_by(|one, other| one == other) {
        push(&mut bytes, run.len() as u64);
        push(&mut bytes, run[0]);
    }
    if bytes.len() <= BYTES_MAX {
        properties.fields.push((FIELD.into(), bytes.into()));
    }
}

/// The sizes in order; none for an object that was not composed.
pub fn of(properties: &Properties) -> Option<Vec<u64>> {
    let mut rest = properties.field(FIELD)?;
    let mut sizes: Vec<u64> = Vec::new();
    while !rest.is_empty() {
        let (count, size) = (pop(&mut rest)?, pop(&mut rest)?);
        if sizes.len() as u64 + count > PARTS_MAX {
            return None;
        }
        sizes.extend((0..count).map(|_| size));
    }
    Some(sizes)
}

/// Where part `number` lies, counted from 1.
pub fn range(sizes: &[u64], number: usize) -> Option<Range<u64>> {
    let size = *sizes.get(number.checked_sub(1)?)?;
    let from: u64 = sizes[..number - 1].iter().sum();
    Some(from..from + size)
}

fn push(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn pop(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn many_equal_parts_take_little() {
        let mut sizes = vec![5 << 20; 9_999];
        sizes.push(17);
        let mut properties = Properties::default();
        keep(&sizes, &mut properties);
        assert!(properties.field(FIELD).unwrap().len() < 10);
        assert_eq!(of(&properties), Some(sizes.clone()));
        assert_eq!(range(&sizes, 1), Some(0..5 << 20));
        assert_eq!(range(&sizes, 10_000), Some((5 << 20) * 9_999..(5 << 20) * 9_999 + 17));
        assert_eq!((range(&sizes, 0), range(&sizes, 10_001)), (None, None));
        assert_eq!(of(&Properties::default()), None);
    }

    proptest! {
        #[test]
        fn sizes_come_back(sizes in proptest::collection::vec(0u64..1 << 43, 0..50)) {
            let mut properties = Properties::default();
            keep(&sizes, &mut properties);
            prop_assert_eq!(of(&properties), Some(sizes));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let properties = Properties { fields: vec![(FIELD.into(), bytes.into())], ..Default::default() };
            let _ = of(&properties);
        }
    }
}

//! The Range field (RFC 9110 section 14): parsed without a length, resolved once the length is known.
//!
//! Invariant: every range handed out is not empty and lies below the length that it was resolved against.
//! A field that we cannot read is ignored, never refused: the answer is then the whole thing.
//! Lives on: the connection's shard.

use std::ops::Range;

use super::trim;

/// A byte range as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `N-`: from an offset to the end, wherever that is.
    From(u64),
    /// `N-M`: both offsets included; `first` is not behind `last`.
    Between {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte; may lie behind the end.
        last: u64,
    },
    /// `-N`: so many bytes before the end.
    Last(u64),
}

/// A readable Range field: one spec to [`RANGES_MAX`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeHeader(Few<RangeSpec>);

/// What to send of a thing whose length is known.
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one answer; a box would allocate")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything, with 200: the field is to be ignored.
    Whole,
    /// One part, with 206.
    Satisfiable(Range<u64>),
    /// Several parts in the order asked for, with 206 and multipart/byteranges.
    Several(Ranges),
    /// Nothing: 416 with `bytes */length`.
    Unsatisfiable,
}

/// The ranges of an answer with several.
pub type Ranges = Few<Range<u64>>;

/// Reads `bytes=…`; `None` (ignore the field) for another unit, bad syntax or more than [`RANGES_MAX`].
pub fn parse_range(value: &[u8]) -> Option<RangeHeader> {
    let (unit, set) = value.split_at_checked(UNIT.len())?;
    if !unit.eq_ignore_ascii_case(UNIT) {
        return None;
    }
    let mut specs = Few::new(RangeSpec::From(0));
    for element in super::list_elements(set) {
        specs.push(parse_spec(element)?)?;
    }
    (!specs.as_slice().is_empty()).then_some(RangeHeader(specs))
}

impl RangeHeader {
    /// What the field selects of a thing of `len` bytes.
    pub fn resolve(&self, len: u64) -> Selection {
        let mut ranges = Ranges::new(0..0);
        for range in self.specs().iter().filter_map(|spec| spec.resolve(len)) {
            ranges.push(range).expect("as many ranges as specs at most");
        }
        match ranges.as_slice() {
            [] if len == 0 && self.specs().iter().any(is_suffix) => Selection::Whole,
            [] => Selection::Unsatisfiable,
            [one] => Selection::Satisfiable(one.clone()),
            // Overlaps that add up to more than the thing itself are an amplifier, not a request.
            several if total(several) > u128::from(len) => Selection::Whole,
            _ => Selection::Several(ranges),
        }
    }

    /// The specs in order; at least one.
    pub fn specs(&self) -> &[RangeSpec] {
        self.0.as_slice()
    }
}

impl RangeSpec {
    /// The bytes below `len` that this selects; `None` if there are none.
    pub fn resolve(self, len: u64) -> Option<Range<u64>> {
        let (start, end) = match self {
            RangeSpec::From(start) => (start, len),
            RangeSpec::Between { first, last } => (first, last.saturating_add(1).min(len)),
            RangeSpec::Last(count) => (len.saturating_sub(count), len),
        };
        (start < end).then_some(start..end)
    }
}

/// Up to [`RANGES_MAX`] values without an allocation.
#[derive(Clone, Debug)]
pub struct Few<T> {
    values: [T; RANGES_MAX],
    count: usize,
}

impl<T: Clone> Few<T> {
    fn new(filler: T) -> Few<T> {
        Few { values: std::array::from_fn(|_| filler.clone()), count: 0 }
    }

    #[must_use]
    fn push(&mut self, value: T) -> Option<()> {
        *self.values.get_mut(self.count)? = value;
        self.count += 1;
        Some(())
    }

    /// The values in order.
    pub fn as_slice(&self) -> &[T] {
        &self.values[..self.count]
    }
}

impl<T: Clone + PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Few<T>) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<T: Clone + Eq> Eq for Few<T> {}

/// Wider than a length: two ranges of almost 2^64 bytes must not add up to less.
fn total(ranges: &[Range<u64>]) -> u128 {
    ranges.iter().map(|range| u128::from(range.end - range.start)).sum()
}

/// RFC 9110 calls the last bytes of an empty thing satisfiable, yet no Content-Range can say so.
fn is_suffix(spec: &RangeSpec) -> bool {
    matches!(spec, RangeSpec::Last(1..))
}

fn parse_spec(element: &[u8]) -> Option<RangeSpec> {
    let dash = memchr::memchr(b'-', element)?;
    let (first, last) = (trim(&element[..dash]), &element[dash + 1..]);
    match (first, last) {
        ([], last) => Some(RangeSpec::Last(number(last)?)),
        (first, []) => Some(RangeSpec::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(RangeSpec::Between { first, last })
        }
    }
}

/// Digits; what exceeds 64 bits lies behind every end, and so does the largest number.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let append = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, append))
}

/// More ranges than that in one request are ignored (RFC 9110 section 14.2 suggests so).
pub const RANGES_MAX: usize = 16;
const UNIT: &[u8] = b"bytes=";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select(value: &str, len: u64) -> Option<Selection> {
        parse_range(value.as_bytes()).map(|header| header.resolve(len))
    }

    fn one(start: u64, end: u64) -> Option<Selection> {
        Some(Selection::Satisfiable(start..end))
    }

    #[test]
    fn single_ranges() {
        assert_eq!(select("bytes=0-", 10), one(0, 10));
        assert_eq!(select("bytes=9-", 10), one(9, 10));
        assert_eq!(select("BYTES=2-3", 10), one(2, 4));
        assert_eq!(select("bytes=2-99", 10), one(2, 10));
        assert_eq!(select("bytes=-3", 10), one(7, 10));
        assert_eq!(select("bytes=-99", 10), one(0, 10));
        assert_eq!(select("bytes=, 2-3 ,", 10), one(2, 4));
    }

    #[test]
    fn unsatisfiable_ranges() {
        for value in
            ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-", "bytes=10-,-0"]
        {
            assert_eq!(select(value, 10), Some(Selection::Unsatisfiable), "{value}");
        }
        assert_eq!(select("bytes=0-", 0), Some(Selection::Unsatisfiable));
        assert_eq!(select("bytes=-5", 0), Some(Selection::Whole));
    }

    #[test]
    fn numbers_beyond_64_bits_do_not_wrap() {
        assert_eq!(select("bytes=1-99999999999999999999999", 10), one(1, 10));
        assert_eq!(select("bytes=-99999999999999999999999", 10), one(0, 10));
        assert_eq!(select("bytes=0-18446744073709551615", u64::MAX), one(0, u64::MAX));
        assert_eq!(select("bytes=18446744073709551615-", u64::MAX), Some(Selection::Unsatisfiable));
    }

    #[test]
    fn malformed_fields_are_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=--5",
            "bytes=-",
            "bytes= =1-2",
            "lines=0-1",
            "bytes =0-1",
            "bytes=0-1;",
            "bytes=+1-2",
            "bytes=0-1,x",
            "bytes=1 2-3",
            "bytes=0-0x5",
        ] {
            assert_eq!(select(value, 10), None, "{value}");
        }
    }

    #[test]
    fn several_ranges() {
        let Some(Selection::Several(ranges)) = select("bytes=0-1, 20-, 4-5 ,-2", 10) else { panic!() };
        let shown: Vec<_> = ranges.as_slice().iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(shown, [(0, 2), (4, 6), (8, 10)]);
        assert_eq!(select("bytes=0-1,20-", 10), one(0, 2));
    }

    #[test]
    fn amplification_is_ignored() {
        assert_eq!(select("bytes=0-,0-", 10), Some(Selection::Whole));
        assert_eq!(select("bytes=0-,0-", u64::MAX), Some(Selection::Whole));
        assert!(select(&format!("bytes={}", "0-0,".repeat(RANGES_MAX)), 100).is_some());
        assert_eq!(select(&format!("bytes={}", "0-0,".repeat(RANGES_MAX + 1)), 100), None);
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_length(value in "bytes=([0-9]{0,21}-[0-9]{0,21},?){1,5}", len in any::<u64>()) {
            let ranges: Vec<Range<u64>> = match select(&value, len) {
                Some(Selection::Satisfiable(range)) => vec![range],
                Some(Selection::Several(ranges)) => ranges.as_slice().to_vec(),
                _ => vec![],
            };
            for range in ranges {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }

        #[test]
        fn agrees_with_a_byte_by_byte_model(first in 0_u64..20, extra in 0_u64..20, len in 0_u64..20) {
            let last = first + extra;
            let model: Vec<u64> = (0..len).filter(|at| (first..=last).contains(at)).collect();
            let range = RangeSpec::Between { first, last }.resolve(len);
            prop_assert_eq!(range.map_or(vec![], |range| (range.start..range.end).collect()), model);
        }

        #[test]
        fn any_field_is_judged(value in any::<Vec<u8>>(), len in any::<u64>()) {
            let _ = parse_range(&value).map(|header| header.resolve(len));
        }
    }
}

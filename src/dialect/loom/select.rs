//! Which bytes a reader gets, and how: the decision behind every GET.
//!
//! | asked for | ended, or `?notail` | still growing |
//! |---|---|---|
//! | nothing | 200, all there is | 200, from the first byte, to the end wherever that will be |
//! | `?offset=N`, up to the end | 200, from N | 200, from N, as it grows |
//! | `Range: bytes=N-` | 206 | 200, from N, as it grows: a 206 has to say where it ends |
//! | `Range: bytes=N-M`, `bytes=-N` | 206 | 206 of what is there, `bytes N-M/*` |
//! | beyond the end | 416 | 416 |
//! | before the first byte that is there | 410 | 410 |
//!
//! Offsets stay what they are when the beginning of a stream goes. Who asks for the last bytes gets what is there of
//! them, as where there never were so many. Several ranges are answered with the whole, as RFC 9110 allows. Pure; runs on the connection's shard.

use crate::net::http::range::{RangeHeader, RangeSpec};

/// What a reader asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// From this offset on.
    pub offset: Option<u64>,
    /// These ranges; never together with an offset.
    pub range: Option<RangeHeader>,
    /// Only what is there.
    pub notail: bool,
}

/// What it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// 200 without a length: from here on, as it grows.
    Follow {
        /// The first byte's offset.
        from: u64,
    },
    /// 200 with a length.
    Rest {
        /// The first byte's offset.
        from: u64,
        /// The offset behind the last byte.
        to: u64,
    },
    /// 206.
    Part {
        /// The first byte's offset.
        from: u64,
        /// The offset behind the last byte.
        to: u64,
        /// The length of the whole, if it has one.
        total: Option<u64>,
    },
    /// 416.
    Beyond,
    /// 410.
    Before,
}

/// Decides for a stream that has the bytes from `first` to `end` and may be open.
pub fn plan(wish: &Wish, first: u64, end: u64, open: bool) -> Plan {
    let grows = open && !wish.notail;
    let from = |from: u64| match grows {
        _ if from > end => Plan::Beyond,
        _ if from < first => Plan::Before,
        true => Plan::Follow { from },
        false => Plan::Rest { from, to: end },
    };
    if let Some(offset) = wish.offset {
        return from(offset);
    }
    let [spec] = wish.range.as_ref().map_or(&[][..], RangeHeader::specs) else { return from(first) };
    if let (true, &RangeSpec::From(offset)) = (grows, spec) {
        return from(offset);
    }
    let are_last = matches!(spec, RangeSpec::Last(1..));
    match spec.resolve(end) {
        // The last bytes of nothing are nothing: all of it.
        _ if are_last && first == end => from(first),
        Some(part) if part.start < first && !are_last => Plan::Before,
        Some(part) => Plan::Part { from: part.start.max(first), to: part.end, total: (!open).then_some(end) },
        None => Plan::Beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::range::parse_range;
    use proptest::prelude::*;

    fn ranged(range: &str, notail: bool) -> Wish {
        Wish { offset: None, range: parse_range(range.as_bytes()), notail }
    }

    #[test]
    fn the_table_holds() {
        let at = |offset: u64, notail| Wish { offset: Some(offset), range: None, notail };
        let whole = |notail| Wish { offset: None, range: None, notail };
        let part = |from, to, total| Plan::Part { from, to, total };
        for (wish, open, planned) in [
            (whole(false), false, Plan::Rest { from: 0, to: 10 }),
            (whole(true), false, Plan::Rest { from: 0, to: 10 }),
            (whole(false), true, Plan::Follow { from: 0 }),
            (whole(true), true, Plan::Rest { from: 0, to: 10 }),
            (at(10, false), false, Plan::Rest { from: 10, to: 10 }),
            (at(10, false), true, Plan::Follow { from: 10 }),
            (at(11, false), true, Plan::Beyond),
            (at(11, false), false, Plan::Beyond),
            (ranged("bytes=4-", false), false, part(4, 10, Some(10))),
            (ranged("bytes=4-", false), true, Plan::Follow { from: 4 }),
            (ranged("bytes=4-", true), true, part(4, 10, None)),
            (ranged("bytes=10-", false), true, Plan::Follow { from: 10 }),
            (ranged("bytes=10-", false), false, Plan::Beyond),
            (ranged("bytes=11-", false), true, Plan::Beyond),
            (ranged("bytes=4-5", false), true, part(4, 6, None)),
            (ranged("bytes=4-50", false), true, part(4, 10, None)),
            (ranged("bytes=10-50", false), true, Plan::Beyond),
            (ranged("bytes=-3", false), true, part(7, 10, None)),
            (ranged("bytes=-3", false), false, part(7, 10, Some(10))),
            (ranged("bytes=-0", false), false, Plan::Beyond),
            (ranged("bytes=0-1,3-4", false), false, Plan::Rest { from: 0, to: 10 }),
            (ranged("lines=0-1", false), false, Plan::Rest { from: 0, to: 10 }),
        ] {
            assert_eq!(plan(&wish, 0, 10, open), planned, "{wish:?} open={open}");
        }
        assert_eq!(plan(&ranged("bytes=-3", false), 0, 0, true), Plan::Follow { from: 0 });
    }

    /// Catches a place that is gone and given all the same, or the other way round.
    #[test]
    fn the_table_holds_where_the_beginning_is_gone() {
        let at = |offset: u64, notail| Wish { offset: Some(offset), range: None, notail };
        let whole = |notail| Wish { offset: None, range: None, notail };
        let part = |from, to, total| Plan::Part { from, to, total };
        for (wish, open, planned) in [
            (whole(false), false, Plan::Rest { from: 4, to: 10 }),
            (whole(true), true, Plan::Rest { from: 4, to: 10 }),
            (whole(false), true, Plan::Follow { from: 4 }),
            (at(0, false), false, Plan::Before),
            (at(3, true), true, Plan::Before),
            (at(3, false), true, Plan::Before),
            (at(4, false), true, Plan::Follow { from: 4 }),
            (at(4, false), false, Plan::Rest { from: 4, to: 10 }),
            (at(11, false), false, Plan::Beyond),
            (ranged("bytes=3-", false), false, Plan::Before),
            (ranged("bytes=3-", false), true, Plan::Before),
            (ranged("bytes=0-1", false), false, Plan::Before),
            (ranged("bytes=3-5", false), true, Plan::Before),
            (ranged("bytes=4-5", false), true, part(4, 6, None)),
            (ranged("bytes=-6", false), false, part(4, 10, Some(10))),
            (ranged("bytes=-9", false), false, part(4, 10, Some(10))),
            (ranged("bytes=-99", true), true, part(4, 10, None)),
            (ranged("bytes=-0", false), false, Plan::Beyond),
            (ranged("bytes=0-1,3-4", false), false, Plan::Rest { from: 4, to: 10 }),
        ] {
            assert_eq!(plan(&wish, 4, 10, open), planned, "{wish:?} open={open}");
        }
    }

    proptest! {
        /// No plan reaches beyond the end or before the first byte, and only a growing stream is followed.
        #[test]
        fn plans_stay_within(
            (first, end) in (0..20u64).prop_flat_map(|end| (0..=end, Just(end))),
            open: bool,
            notail: bool,
            offset in proptest::option::of(0..30u64),
            range in proptest::option::of((0..30u64, proptest::option::of(0..30u64))),
        ) {
            let range = match range {
                Some((first, Some(last))) => parse_range(format!("bytes={first}-{last}").as_bytes()),
                Some((first, None)) => parse_range(format!("bytes={first}-").as_bytes()),
                None => None,
            };
            let wish = Wish { range: range.filter(|_| offset.is_none()), offset, notail };
            match plan(&wish, first, end, open) {
                Plan::Follow { from } => prop_assert!(open && !notail && (first..=end).contains(&from)),
                Plan::Rest { from, to } => prop_assert!(first <= from && from <= to && to == end),
                Plan::Part { from, to, total } => {
                    prop_assert!(first <= from && from < to && to <= end);
                    prop_assert_eq!(total, (!open).then_some(end));
                }
                Plan::Before => {
                    prop_assert!(first > 0 && (wish.offset.is_some() || wish.range.is_some()));
                }
                Plan::Beyond => prop_assert!(wish.offset.is_some() || wish.range.is_some()),
            }
        }
    }
}

//! Which bytes a reader gets, and how: the decision behind every GET.
//!
//! | asked for | ended, or `?notail` | still growing |
//! |---|---|---|
//! | nothing | 200, all there is | 200, from 0, to the end wherever that will be |
//! | `?offset=N`, up to the end | 200, from N | 200, from N, as it grows |
//! | `Range: bytes=N-` | 206 | 200, from N, as it grows: a 206 has to say where it ends |
//! | `Range: bytes=N-M`, `bytes=-N` | 206 | 206 of what is there, `bytes N-M/*` |
//! | beyond the end | 416 | 416 |
//!
//! Several ranges are answered with the whole, as RFC 9110 allows. Pure; runs on the connection's shard.

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
}

/// Decides for a stream of `end` bytes that may be open.
pub fn plan(wish: &Wish, end: u64, open: bool) -> Plan {
    let grows = open && !wish.notail;
    let from = |from: u64| match grows {
        _ if from > end => Plan::Beyond,
        true => Plan::Follow { from },
        false => Plan::Rest { from, to: end },
    };
    if let Some(offset) = wish.offset {
        return from(offset);
    }
    let [spec] = wish.range.as_ref().map_or(&[][..], RangeHeader::specs) else { return from(0) };
    if let (true, &RangeSpec::From(offset)) = (grows, spec) {
        return from(offset);
    }
    match spec.resolve(end) {
        Some(part) => Plan::Part { from: part.start, to: part.end, total: (!open).then_some(end) },
        // The last bytes of nothing are nothing: all of it.
        None if end == 0 && matches!(spec, RangeSpec::Last(1..)) => from(0),
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
            assert_eq!(plan(&wish, 10, open), planned, "{wish:?} open={open}");
        }
        assert_eq!(plan(&ranged("bytes=-3", false), 0, true), Plan::Follow { from: 0 });
    }

    proptest! {
        /// No plan reaches beyond the end, and only a growing stream is followed.
        #[test]
        fn plans_stay_within(
            end in 0..20u64,
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
            match plan(&wish, end, open) {
                Plan::Follow { from } => prop_assert!(open && !notail && from <= end),
                Plan::Rest { from, to } => prop_assert!(from <= to && to == end),
                Plan::Part { from, to, total } => {
                    prop_assert!(from < to && to <= end);
                    prop_assert_eq!(total, (!open).then_some(end));
                }
                Plan::Beyond => prop_assert!(wish.offset.is_some() || wish.range.is_some()),
            }
        }
    }
}

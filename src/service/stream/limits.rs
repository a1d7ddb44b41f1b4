//! What the operator allows, and what is said to a producer who wants more.
//!
//! A limit is looked at before anything is made for a producer, and again with each piece that it brings; what fits is
//! kept. The length of a stream and the number of streams are kept to exactly. What all streams of a keeper have together
//! may exceed its limit, because producers on other shards look at the same count at the same time, and because small
//! pieces of one receive are counted when they are written together: by less than one receive, 256 KiB, for each
//! producer that is at it.
//!
//! Invariant: no stream is longer than its limit, and no piece is taken once a limit is reached.
//! Lives on: every shard with its own copy of the limits, which a new configuration replaces; the counts are shared.

use super::{Id, Keeper, Streams};
use crate::observe::metrics::Bound;
use crate::service::owner::space;
use crate::storage::StoreError;
use std::fmt;

/// What bounds the streams of one keeper. Nothing is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// The longest stream, in bytes.
    pub stream_bytes: Option<u64>,
    /// The most streams, on all shards together.
    pub streams: Option<u64>,
    /// The most bytes that all streams on all shards may have together.
    pub bytes: Option<u64>,
}

/// A limit that was reached, with its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// [`Limits::stream_bytes`].
    StreamBytes(u64),
    /// [`Limits::streams`].
    Streams(u64),
    /// [`Limits::bytes`].
    Quota(u64),
}

/// Why a producer's stream takes no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProduceError {
    /// It would exceed a limit. What fits is kept.
    Limit(Limit),
    /// The store refused.
    Store(StoreError),
}

impl Limits {
    /// Refuses more bytes when all streams together have `total`, and a body that does not fit even if nothing else is
    /// there.
    pub(super) fn admit_more(&self, total: u64, announced: Option<u64>) -> Result<(), Limit> {
        match self.bytes {
            Some(max) if total >= max || announced.is_some_and(|len| len > max) => Err(Limit::Quota(max)),
            _ => Ok(()),
        }
    }

    /// Refuses a body that cannot fit behind the first `offset` bytes of a stream: one that is announced as too
    /// long, or one of unknown length where nothing fits any more.
    pub(super) fn admit_body(&self, offset: u64, announced: Option<u64>) -> Result<(), Limit> {
        let Some(max) = self.stream_bytes else { return Ok(()) };
        let fits = match announced {
            Some(0) => true,
            Some(len) => offset.saturating_add(len) <= max,
            None => offset < max,
        };
        if fits { Ok(()) } else { Err(Limit::StreamBytes(max)) }
    }

    /// How many of `len` bytes fit into a stream that has `position` while all together have `total`, and what stands
    /// against the rest.
    pub(super) fn fitting(&self, position: u64, total: u64, len: usize) -> (usize, Option<Limit>) {
        let mut fits = (len, None);
        for (max, there, limit) in [
            (self.stream_bytes, position, Limit::StreamBytes as fn(u64) -> Limit),
            (self.bytes, total, Limit::Quota),
        ] {
            let Some(max) = max else { continue };
            let room = usize::try_from(max.saturating_sub(there)).unwrap_or(usize::MAX);
            if room < fits.0 {
                fits = (room, Some(limit(max)));
            }
        }
        fits
    }
}

impl Streams {
    /// What bounds the stream `id`.
    pub(super) fn limits_of(&self, id: &Id) -> Limits {
        self.limits.get().of(Keeper::of(id))
    }

    /// The bytes of all streams of `keeper` on all shards.
    pub(super) fn total_bytes(&self, keeper: Keeper) -> u64 {
        self.store.tally().bytes(space::STREAMS, keeper as u8)
    }

    /// Counts a producer that was refused or cut for want of room.
    pub(super) fn count_refused(&self, error: &ProduceError) {
        let bound = match error {
            ProduceError::Limit(Limit::StreamBytes(_)) => Bound::StreamBytes,
            ProduceError::Limit(Limit::Streams(_)) => Bound::Streams,
            ProduceError::Limit(Limit::Quota(_)) => Bound::Quota,
            ProduceError::Store(StoreError::NoSpace) => Bound::Disk,
            ProduceError::Store(_) => return,
        };
        self.metrics.producers_refused.of(bound).inc();
    }
}

impl From<StoreError> for ProduceError {
    fn from(error: StoreError) -> Self {
        ProduceError::Store(error)
    }
}

impl From<Limit> for ProduceError {
    fn from(limit: Limit) -> Self {
        ProduceError::Limit(limit)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::StreamBytes(max) => write!(f, "a stream has at most {max} bytes here"),
            Limit::Quota(max) => write!(f, "all streams together have at most {max} bytes here"),
            Limit::Streams(max) => write!(f, "there are {max} streams, which is the most that are kept here"),
        }
    }
}

impl fmt::Display for ProduceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProduceError::Limit(limit) => limit.fmt(f),
            ProduceError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Limit {}

impl std::error::Error for ProduceError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches `<` for `<=`, an overflow of a huge announcement, and an end that is refused because it comes at the
    /// limit.
    #[test]
    fn a_body_is_admitted_up_to_the_limit_and_not_a_byte_beyond() {
        let none = Limits::default();
        assert_eq!(none.admit_body(u64::MAX, Some(u64::MAX)), Ok(()));
        assert_eq!(none.fitting(u64::MAX, u64::MAX, usize::MAX), (usize::MAX, None));
        let limits = Limits { stream_bytes: Some(10), ..none };
        let refused = Limit::StreamBytes(10);
        for (offset, announced, admitted) in [
            (0, Some(10), true),
            (0, Some(11), false),
            (4, Some(6), true),
            (4, Some(7), false),
            (4, Some(u64::MAX), false),
            (9, None, true),
            (10, None, false),
            (10, Some(0), true),
            (12, Some(0), true),
        ] {
            let judged = limits.admit_body(offset, announced);
            assert_eq!(judged, if admitted { Ok(()) } else { Err(refused) }, "{offset} {announced:?}");
        }
        for (position, len, fits) in [(4, 6, 6), (4, 7, 6), (12, 1, 0), (12, 0, 0)] {
            let over = (len > fits).then_some(refused);
            assert_eq!(limits.fitting(position, u64::MAX, len), (fits, over), "{position} {len}");
        }
    }

    /// Catches a quota that is looked at from the wrong side, and the wrong one of two limits.
    #[test]
    fn a_quota_admits_until_it_is_reached_and_takes_what_is_left() {
        let none = Limits::default();
        let limits = Limits { bytes: Some(100), ..none };
        let refused = Limit::Quota(100);
        for (total, announced, admitted) in [
            (0, None, true),
            (99, None, true),
            (99, Some(100), true),
            (0, Some(101), false),
            (100, Some(0), false),
            (u64::MAX, None, false),
        ] {
            let judged = limits.admit_more(total, announced);
            assert_eq!(judged, if admitted { Ok(()) } else { Err(refused) }, "{total} {announced:?}");
            assert_eq!(none.admit_more(total, announced), Ok(()));
        }
        assert_eq!(limits.fitting(u64::MAX, 90, 10), (10, None));
        assert_eq!(limits.fitting(u64::MAX, 90, 11), (10, Some(refused)));
        assert_eq!(limits.fitting(0, 101, 1), (0, Some(refused)));
        let both = Limits { stream_bytes: Some(10), ..limits };
        assert_eq!(both.fitting(5, 90, 20), (5, Some(Limit::StreamBytes(10))));
        assert_eq!(both.fitting(5, 98, 20), (2, Some(refused)));
    }
}

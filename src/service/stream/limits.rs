//! What the operator allows, and what is said to a producer who wants more.
//!
//! Invariant: a limit is looked at before anything is made for a producer, and again before each receive; what was
//! received up to a limit is kept.
//! Lives on: every shard with its own copy, which a new configuration replaces.

use super::Streams;
use crate::observe::metrics::Bound;
use crate::storage::StoreError;
use std::fmt;

/// What bounds streams. Nothing is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// The longest stream, in bytes.
    pub stream_bytes: Option<u64>,
    /// The most streams, of all shards together.
    pub streams: Option<u64>,
}

/// A limit that was reached, with its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// [`Limits::stream_bytes`].
    StreamBytes(u64),
    /// [`Limits::streams`].
    Streams(u64),
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

    /// How many of `len` bytes fit into a stream that has `position`.
    pub(super) fn fitting(&self, position: u64, len: usize) -> Result<usize, (usize, Limit)> {
        let Some(max) = self.stream_bytes else { return Ok(len) };
        let room = usize::try_from(max.saturating_sub(position)).unwrap_or(usize::MAX);
        if len <= room { Ok(len) } else { Err((room, Limit::StreamBytes(max))) }
    }
}

impl Streams {
    /// Counts a producer that was refused or cut for want of room.
    pub(super) fn count_refused(&self, error: &ProduceError) {
        let bound = match error {
            ProduceError::Limit(Limit::StreamBytes(_)) => Bound::StreamBytes,
            ProduceError::Limit(Limit::Streams(_)) => Bound::Streams,
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
        assert_eq!(none.fitting(u64::MAX, usize::MAX), Ok(usize::MAX));
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
        assert_eq!(limits.fitting(4, 6), Ok(6));
        assert_eq!(limits.fitting(4, 7), Err((6, refused)));
        assert_eq!(limits.fitting(12, 1), Err((0, refused)));
        assert_eq!(limits.fitting(12, 0), Ok(0));
    }
}

//! Latency histogram with fixed, log-linear buckets.
//!
//! Unit: durations go in and come out; inside, a *quantum* is 250 ns. Up to 1 µs there is one bucket per
//! quantum, from there to 2^26 µs (67 s) four per power of two, and one for everything beyond.
//!
//! Invariant: a bucket holds what is above its lower bound and at most its upper bound, so the cumulative
//! counts answer "how many took at most this long" exactly at every bound, as the text exposition wants it.
//! Lives on: recorded on one shard, snapshot taken and merged by any thread.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::counter::Counter;

const QUANTUM_NANOS: u64 = 250;
/// log2 of the number of buckets per power of two.
const SUB_BITS: u32 = 2;
const SUBS: usize = 1 << SUB_BITS;
/// The bounded range ends at 2^26 µs, which is 2^28 quanta.
const RANGE_BITS: u32 = 28;
const BOUNDED: usize = SUBS + SUBS * (RANGE_BITS - SUB_BITS) as usize;
const BUCKETS: usize = BOUNDED + 1;

const _: () = assert!(QUANTUM_NANOS << SUB_BITS == 1_000, "the linear part must end at 1 µs");
const _: () = assert!(bucket_of(upper_bound_nanos(BOUNDED - 1)) == BOUNDED - 1);
const _: () = assert!(bucket_of(upper_bound_nanos(BOUNDED - 1) + 1) == BOUNDED);

/// How long things took, counted by one shard.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_nanos: Counter,
    max_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_nanos: Counter::default(),
            max_nanos: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one duration. For the owning shard alone.
    #[inline]
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)].inc();
        self.sum_nanos.add(nanos);
        if nanos > self.max_nanos.load(Relaxed) {
            self.max_nanos.store(nanos, Relaxed);
        }
    }

    /// A copy to read from. While the shard goes on recording, buckets, sum and maximum may be a few records
    /// apart; each of them alone is exact.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            buckets: std::array::from_fn(|at| self.buckets[at].value()),
            sum_nanos: self.sum_nanos.value(),
            max_nanos: self.max_nanos.load(Relaxed),
        }
    }
}

/// The state of one histogram, or of several merged, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
    max_nanos: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum_nanos: 0, max_nanos: 0 }
    }
}

impl Snapshot {
    /// Adds what another shard counted.
    pub fn merge(&mut self, other: &Snapshot) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// Number of durations recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All durations added up.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// The longest duration recorded, exactly; zero when there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// An upper estimate of the duration that the share `q` of all records did not exceed (nearest rank), or
    /// `None` when nothing was recorded.
    ///
    /// The exact value is never above the estimate. It is at most a fifth below it, or 250 ns where that is
    /// more; beyond 67 s the estimate is the maximum.
    ///
    /// # Panics
    /// When `q` is not within 0 to 1.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        assert!((0.0..=1.0).contains(&q), "a quantile lies within 0 to 1, not at {q}");
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count);
        let mut below = 0;
        let at = self.buckets.iter().position(|in_bucket| {
            below += in_bucket;
            below >= rank
        });
        let at = at.expect("the ranks end at the count, which is the sum of the buckets");
        let bound = if at < BOUNDED { upper_bound_nanos(at) } else { u64::MAX };
        Some(Duration::from_nanos(bound.min(self.max_nanos)))
    }

    /// Bounds at the powers of two from 1 µs to 67 s, each with the number of records that took at most so
    /// long; records beyond the last bound are only in [`count`](Self::count).
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut below = 0;
        self.buckets[..BOUNDED].chunks_exact(SUBS).enumerate().map(move |(octave, subs)| {
            below += subs.iter().sum::<u64>();
            (Duration::from_nanos(upper_bound_nanos(octave * SUBS + SUBS - 1)), below)
        })
    }
}

const fn bucket_of(nanos: u64) -> usize {
    // One less before dividing: an upper bound belongs to the bucket it closes.
    let quanta = nanos.saturating_sub(1) / QUANTUM_NANOS;
    if quanta < SUBS as u64 {
        return quanta as usize;
    }
    let bits = quanta.ilog2();
    if bits >= RANGE_BITS {
        return BOUNDED;
    }
    let sub = (quanta >> (bits - SUB_BITS)) as usize & (SUBS - 1);
    SUBS * (bits - SUB_BITS + 1) as usize + sub
}

const fn upper_bound_nanos(bucket: usize) -> u64 {
    assert!(bucket < BOUNDED);
    let (octave, sub) = (bucket / SUBS, (bucket % SUBS) as u64);
    if octave == 0 {
        return (sub + 1) * QUANTUM_NANOS;
    }
    ((SUBS as u64 + sub + 1) << (octave - 1)) * QUANTUM_NANOS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Durations spread over all magnitudes, with the exact bounds among them.
    fn nanos() -> impl Strategy<Value = u64> {
        prop_oneof![
            8 => (0u32..40, any::<u64>()).prop_map(|(bits, noise)| noise & ((1 << bits) - 1)),
            1 => (0..BOUNDED).prop_map(upper_bound_nanos),
            1 => (0..BOUNDED).prop_map(|at| upper_bound_nanos(at) + 1),
        ]
    }

    fn recorded(nanos: &[u64]) -> Snapshot {
        let histogram = Histogram::default();
        nanos.iter().for_each(|&n| histogram.record(Duration::from_nanos(n)));
        histogram.snapshot()
    }

    #[test]
    fn every_bucket_ends_where_the_next_one_starts() {
        for at in 0..BOUNDED {
            let bound = upper_bound_nanos(at);
            assert_eq!(bucket_of(bound), at, "upper bound {bound} ns");
            assert_eq!(bucket_of(bound + 1), at + 1, "just above {bound} ns");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BOUNDED);
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Snapshot::default().quantile(0.5), None);
        assert_eq!(Snapshot::default().max(), Duration::ZERO);
    }

    #[test]
    fn the_cumulative_bounds_run_from_one_microsecond_to_67_seconds() {
        let bounds: Vec<_> = Snapshot::default().cumulative().map(|(bound, _)| bound).collect();
        assert_eq!(bounds.first(), Some(&Duration::from_micros(1)));
        assert_eq!(bounds.last(), Some(&Duration::from_micros(1 << 26)));
        assert!(bounds.windows(2).all(|pair| pair[1] == pair[0] * 2));
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_too_low_and_at_most_a_fifth_too_high(
            mut values in prop::collection::vec(nanos(), 1..200),
            q in prop_oneof![Just(0.0), Just(0.5), Just(0.99), Just(1.0), 0.0..=1.0f64],
        ) {
            let estimate = recorded(&values).quantile(q).expect("not empty").as_nanos() as u64;
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            prop_assert!(exact <= estimate, "exact {} above estimate {}", exact, estimate);
            prop_assert!(estimate <= values[values.len() - 1]);
            if bucket_of(exact) < BOUNDED {
                let slack = (estimate / 5).max(QUANTUM_NANOS);
                prop_assert!(estimate - exact <= slack, "exact {} far below estimate {}", exact, estimate);
            }
        }

        #[test]
        fn merging_two_shards_equals_recording_on_one(
            one in prop::collection::vec(nanos(), 0..100),
            other in prop::collection::vec(nanos(), 0..100),
        ) {
            let mut merged = recorded(&one);
            merged.merge(&recorded(&other));
            let together: Vec<u64> = one.into_iter().chain(other).collect();
            prop_assert_eq!(merged.sum(), Duration::from_nanos(together.iter().sum()));
            prop_assert_eq!(merged.count(), together.len() as u64);
            prop_assert_eq!(merged, recorded(&together));
        }

        #[test]
        fn cumulative_counts_are_exact_at_their_bounds(values in prop::collection::vec(nanos(), 0..100)) {
            for (bound, count) in recorded(&values).cumulative() {
                let exact = values.iter().filter(|&&n| u128::from(n) <= bound.as_nanos()).count();
                prop_assert_eq!(count, exact as u64, "at {:?}", bound);
            }
        }
    }
}

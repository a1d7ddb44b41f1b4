//! Numbers that one shard writes and anyone reads.
//!
//! Invariant: only the shard that owns the number writes it. That is why an update is a relaxed load and a
//! relaxed store instead of a locked read-modify-write: two writers would lose counts (never tear them).
//! Lives on: written on its shard, read from any thread.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. For the owning shard alone.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. For the owning shard alone.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now; never smaller than one seen before by the same reader.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds one. For the owning shard alone.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away. For the owning shard alone.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Adds `n`, which may be negative. For the owning shard alone.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value. For the owning shard alone.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Keeps the larger of the value so far and `value`. For the owning shard alone.
    #[inline]
    pub fn raise_to(&self, value: i64) {
        if value > self.0.load(Relaxed) {
            self.0.store(value, Relaxed);
        }
    }

    /// The value now.
    #[inline]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_on_another_thread_never_sees_a_counter_fall() {
        const ROUNDS: u64 = 100_000;
        let counter = Counter::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..ROUNDS).for_each(|_| counter.inc()));
            let mut seen = 0;
            while seen < ROUNDS {
                let now = counter.value();
                assert!(now >= seen, "fell from {seen} to {now}");
                seen = now;
                std::thread::yield_now();
            }
        });
        assert_eq!(counter.value(), ROUNDS);
    }

    #[test]
    fn a_gauge_follows_both_ways_and_keeps_its_highest_mark() {
        let gauge = Gauge::default();
        gauge.inc();
        gauge.add(5);
        gauge.dec();
        assert_eq!(gauge.value(), 5);
        gauge.raise_to(3);
        assert_eq!(gauge.value(), 5);
        gauge.raise_to(9);
        assert_eq!(gauge.value(), 9);
        gauge.set(-2);
        assert_eq!(gauge.value(), -2);
    }
}

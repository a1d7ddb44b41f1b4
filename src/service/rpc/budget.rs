//! How many retries there may be.
//!
//! Invariant: beside ten a second, and what it holds when it is full, there is one retry for five calls at most.
//! Pure but for the moment that comes in; lives on every shard.

use crate::runtime::Moment;

/// How many retries there may be: one for every five calls, and ten a second beside them.
///
/// Without it, retries of a service that fails everywhere double its load when it can least take it.
#[derive(Debug)]
pub struct Budget {
    /// In millionths of a retry: fifths of one would not add up as binary fractions.
    millionths: u64,
    filled: Moment,
}

impl Budget {
    const ONE: u64 = 1_000_000;
    const PER_CALL: u64 = Self::ONE / 5;
    /// Ten a second.
    const PER_MICROSECOND: u64 = 10;
    const MAX: u64 = 100 * Self::ONE;

    /// A full one.
    pub fn new(now: Moment) -> Self {
        Budget { millionths: Self::MAX, filled: now }
    }

    /// A call was made.
    pub fn called(&mut self) {
        self.millionths = (self.millionths + Self::PER_CALL).min(Self::MAX);
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Moment) -> bool {
        let waited = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let gained = waited.saturating_mul(Self::PER_MICROSECOND);
        (self.millionths, self.filled) = (self.millionths.saturating_add(gained).min(Self::MAX), now);
        let has = self.millionths >= Self::ONE;
        if has {
            self.millionths -= Self::ONE;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retries_are_a_part_of_calls() {
        let now = Moment::default();
        let mut budget = Budget::new(now);
        assert_eq!((0..200).filter(|_| budget.take(now)).count(), 100, "what it holds when it is full");
        (0..10).for_each(|_| budget.called());
        assert_eq!((0..10).filter(|_| budget.take(now)).count(), 2);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), 10);
    }
}

//! When what is due: a fixed rate, without drift and without coordinated omission.
//!
//! Invariant: what is due at a time does not depend on what was answered before it. A server that stalls finds
//! everything that fell due meanwhile, each with the time at which it was due.

use crate::clock::SECOND;

/// The times of one thread's share of a rate: every `lanes`-th of them, beginning with number `lane`.
#[derive(Clone, Debug)]
pub struct Schedule {
    next: u64,
    /// The step between two of ours: whole nanoseconds, and the rest in parts of `rate`.
    step: u64,
    step_rest: u64,
    rest: u64,
    rate: u64,
}

impl Schedule {
    /// `rate` a second over all lanes together, from `start` on.
    pub fn new(start: u64, rate: u64, lane: u64, lanes: u64) -> Self {
        let (ahead, step) = (u128::from(lane * SECOND), u128::from(lanes * SECOND));
        let rate_wide = u128::from(rate);
        Self {
            next: start + (ahead / rate_wide) as u64,
            rest: (ahead % rate_wide) as u64,
            step: (step / rate_wide) as u64,
            step_rest: (step % rate_wide) as u64,
            rate,
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The time at which the next one was due, if that is not after `now`. It is taken off the schedule.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        (self.next <= now).then(|| {
            let due = self.next;
            self.next += self.step;
            self.rest += self.step_rest;
            if self.rest >= self.rate {
                self.rest -= self.rate;
                self.next += 1;
            }
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut schedule: Schedule, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| schedule.take(now)).collect()
    }

    #[test]
    fn a_rate_that_divides_no_second_does_not_drift() {
        for rate in [1, 3, 7, 999, 48_611] {
            let due = all(Schedule::new(5, rate, 0, 1), 5 + 10 * SECOND);
            assert_eq!(due.len() as u64, 10 * rate + 1, "{rate}");
            for (number, due) in due.iter().enumerate() {
                assert_eq!(*due, 5 + (number as u64 * SECOND) / rate);
            }
        }
    }

    #[test]
    fn lanes_share_one_schedule() {
        let mut shared: Vec<u64> =
            (0..3).flat_map(|lane| all(Schedule::new(0, 1_001, lane, 3), SECOND)).collect();
        shared.sort_unstable();
        assert_eq!(shared, all(Schedule::new(0, 1_001, 0, 1), SECOND));
    }

    #[test]
    fn what_fell_due_in_a_stall_keeps_its_time() {
        let mut schedule = Schedule::new(0, 1_000, 0, 1);
        assert_eq!(schedule.take(0), Some(0));
        assert_eq!(schedule.take(999_999), None);
        let late: Vec<u64> = std::iter::from_fn(|| schedule.take(5_000_000)).collect();
        assert_eq!(late, [1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
        assert_eq!(schedule.next(), 6_000_000);
    }
}

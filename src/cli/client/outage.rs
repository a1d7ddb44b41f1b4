//! How long to wait before the next attempt to reach a server that is away.
//!
//! Waits double from 50 ms to 2 s, each shortened by up to a half at random so that many clients of
//! one restarted server do not come back in step; after five minutes without success it is over.
//!
//! Runs in: the command-line clients. Pure: the time that has passed and the dice come from outside.

use std::time::Duration;

const WAIT_FIRST: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a server may stay away.
pub const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// One time of trouble, from the first failure to the next success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    waits: u32,
}

impl Outage {
    /// The next wait, or `None` when patience is at its end.
    pub fn wait(&mut self, since_start: Duration, dice: u32) -> Option<Duration> {
        let left = PATIENCE.checked_sub(since_start).filter(|left| !left.is_zero())?;
        let full = WAIT_FIRST.saturating_mul(1 << self.waits.min(16)).min(WAIT_MAX);
        self.waits += 1;
        let spared = full.mul_f64(0.5 * f64::from(dice) / f64::from(u32::MAX));
        Some((full - spared).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_most_and_dice_only_shorten_them() {
        let (mut long, mut short) = (Outage::default(), Outage::default());
        for millis in [50, 100, 200, 400, 800, 1600, 2000, 2000, 2000] {
            let full = Duration::from_millis(millis);
            assert_eq!(long.wait(Duration::ZERO, 0), Some(full));
            assert_eq!(short.wait(Duration::ZERO, u32::MAX), Some(full / 2));
        }
    }

    #[test]
    fn patience_ends_exactly_and_the_last_wait_does_not_pass_it() {
        let mut outage = Outage::default();
        for _ in 0..10 {
            outage.wait(Duration::ZERO, 0);
        }
        let nearly = PATIENCE - Duration::from_millis(3);
        assert_eq!(outage.wait(nearly, 0), Some(Duration::from_millis(3)));
        assert_eq!(outage.wait(PATIENCE, 0), None);
        assert_eq!(outage.wait(PATIENCE * 2, 0), None);
    }

    #[test]
    fn a_day_of_waits_does_not_overflow() {
        let mut outage = Outage::default();
        for _ in 0..100_000 {
            assert!(outage.wait(Duration::ZERO, 7).is_some_and(|wait| wait <= WAIT_MAX));
        }
    }
}

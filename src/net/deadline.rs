//! A deadline that moves with every request and costs nothing while it does.
//!
//! Moving it stores a number. The one timer behind it stays armed for an earlier moment; when it fires too early
//! it is armed again for the rest. Timers are armed on a coarse grid, so those of a thousand connections that came
//! one after the other fire together: what is late is late by a sixteenth of the wait at most.
//! Lives on: its connection's task.

use crate::runtime::timer::{Sleep, sleep_until};
use crate::runtime::{Moment, shard};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// When a connection has waited too long.
pub struct Deadline {
    at: Moment,
    armed: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// A deadline at `at`.
    pub fn new(at: Moment) -> Self {
        Deadline { at, armed: None }
    }

    /// Moves it.
    pub fn set(&mut self, at: Moment) {
        // A timer armed for later than the new moment's place on the grid would fire too late. One armed for much earlier
        // would wake the shard for nothing: a connection whose first request has come would pay for the deadline of its
        // head.
        let now = shard::recent();
        let fits = |armed: Moment| armed <= on_the_grid(at) && armed.since(now) >= at.since(now) / 2;
        if self.armed.as_ref().is_some_and(|sleep| !fits(sleep.deadline())) {
            self.armed = None;
        }
        self.at = at;
    }

    /// Ready once the deadline has passed.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let at = self.at;
            let sleep = self.armed.get_or_insert_with(|| Box::pin(sleep_until(on_the_grid(at))));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let fired = sleep.deadline();
            self.armed = None;
            if fired >= at {
                return Poll::Ready(());
            }
        }
    }
}

/// The next moment, from `at` on, of a grid as coarse as `at` is far away.
fn on_the_grid(at: Moment) -> Moment {
    let wait = at.since(shard::recent()).as_nanos() as u64;
    let step = (wait / 32).next_power_of_two();
    Moment::from_nanos(at.as_nanos().next_multiple_of(step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;
    use crate::runtime::entropy::Entropy;
    use crate::runtime::file::os::OsDisk;
    use crate::runtime::shard::{self, Parts, Shard, ShardId};
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    /// A shard whose time the test moves.
    fn with_shard(test: impl FnOnce(&Shard, &Cell<u64>)) {
        let nanos = Rc::new(Cell::new(0));
        let shard = Shard::new(Parts {
            id: ShardId(0),
            count: 1,
            clock: Clock::Simulated { nanos: nanos.clone() },
            entropy: Entropy::from_seed(1),
            disk: Arc::new(OsDisk),
            unpark: Box::new(|| {}),
        });
        shard::enter(Some(shard.clone()));
        test(&shard, &nanos);
        shard::enter(None);
    }

    fn passed(deadline: &mut Deadline) -> bool {
        deadline.poll_passed(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    #[test]
    fn a_moved_deadline_holds_and_an_earlier_one_is_kept() {
        with_shard(|_, nanos| {
            let mut deadline = Deadline::new(at(10));
            assert!(!passed(&mut deadline));
            deadline.set(at(30));
            nanos.set(20_000_000);
            assert!(!passed(&mut deadline), "moved later: the first timer's moment must not count");
            deadline.set(at(25));
            nanos.set(25_000_000);
            assert!(passed(&mut deadline), "moved earlier: the later timer must not hold it up");
        });
    }

    #[test]
    fn moving_costs_no_timer() {
        with_shard(|shard, _| {
            let mut deadline = Deadline::new(at(1000));
            assert!(!passed(&mut deadline));
            for later in 1001..1900 {
                deadline.set(at(later));
                assert!(!passed(&mut deadline));
            }
            assert_eq!(shard.timers().entries(), 1, "no timer is armed anew while the first one does");
            let next = shard.timers().next().expect("a timer");
            assert!(
                next >= at(1000) && next < at(1100),
                "one timer, the first, waits for all of them: {next:?}"
            );
            deadline.set(at(75_000));
            assert!(!passed(&mut deadline));
            let next = shard.timers().next().expect("a timer");
            assert!(next >= at(75_000), "moved far away, it wakes nobody on the way: {next:?}");
        });
    }

    #[test]
    fn deadlines_close_together_share_a_timer_and_none_is_early_or_very_late() {
        with_shard(|_, _| {
            let grid: std::collections::BTreeSet<_> =
                (10_000..10_200).map(|millis| on_the_grid(at(millis))).collect();
            assert!(grid.len() <= 2, "{grid:?}");
            for millis in [1, 7, 100, 999, 10_000, 75_000, 3_600_000] {
                let (deadline, fires) = (at(millis), on_the_grid(at(millis)));
                assert!(fires >= deadline && fires.since(deadline) <= Duration::from_millis(millis) / 16);
            }
        });
    }
}

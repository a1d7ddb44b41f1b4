//! A deadline that moves with every request and costs nothing while it does.
//!
//! Moving it stores a number. The one timer behind it stays armed for an earlier moment; when it fires too early
//! it is armed again for the rest. Lives on: its connection's task.

use crate::runtime::Moment;
use crate::runtime::timer::{Sleep, sleep_until};
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
        // A timer armed for later than the new moment would fire late.
        if self.armed.as_ref().is_some_and(|sleep| sleep.deadline() > at) {
            self.armed = None;
        }
        self.at = at;
    }

    /// Ready once the deadline has passed.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let at = self.at;
            let sleep = self.armed.get_or_insert_with(|| Box::pin(sleep_until(at)));
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
            let mut deadline = Deadline::new(at(10));
            assert!(!passed(&mut deadline));
            for later in 11..1000 {
                deadline.set(at(later));
                assert!(!passed(&mut deadline));
            }
            assert_eq!(shard.timers().next(), Some(at(10)), "one timer, the first, waits for all of them");
        });
    }
}

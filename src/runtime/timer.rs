//! Timers of one shard.
//!
//! A timer costs one heap entry while it waits and nothing afterwards: a dropped timer leaves a stale key
//! that is skipped when its moment comes. Deadlines that move with every request (idle, header) keep one
//! timer and look at the moved deadline when it fires, so a busy connection never touches the heap.
//!
//! Invariant: [`Timers::next`] is never later than the earliest live deadline.

use super::clock::Moment;
use super::shard;
use slab::Slab;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The timers of one shard.
#[derive(Default)]
pub struct Timers {
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    due: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    live: Slab<(u64, Waker)>,
    made: u64,
}

impl Timers {
    /// The earliest deadline, or `None` without timers. May name one whose sleeper is gone.
    pub fn next(&self) -> Option<Moment> {
        let mut inner = self.inner.borrow_mut();
        while let Some(&Reverse((moment, made, key))) = inner.due.peek() {
            if inner.live.get(key).is_some_and(|(id, _)| *id == made) {
                return Some(moment);
            }
            inner.due.pop();
        }
        None
    }

    /// How many entries wait for their moment, stale ones included.
    pub fn entries(&self) -> usize {
        self.inner.borrow().due.len()
    }

    /// Wakes every sleeper whose moment has come; returns how many.
    pub fn fire(&self, now: Moment) -> usize {
        let mut woken = 0;
        let mut inner = self.inner.borrow_mut();
        while let Some(&Reverse((moment, made, key))) = inner.due.peek() {
            if moment > now {
                break;
            }
            inner.due.pop();
            if inner.live.get(key).is_some_and(|(id, _)| *id == made) {
                let (_, waker) = inner.live.remove(key);
                waker.wake();
                woken += 1;
            }
        }
        woken
    }

    fn add(&self, at: Moment, waker: Waker) -> (u64, usize) {
        let mut inner = self.inner.borrow_mut();
        inner.made += 1;
        let made = inner.made;
        let key = inner.live.insert((made, waker));
        inner.due.push(Reverse((at, made, key)));
        (made, key)
    }

    /// Gives a waiting timer another waker; false when it has fired.
    fn refresh(&self, made: u64, key: usize, waker: &Waker) -> bool {
        let mut inner = self.inner.borrow_mut();
        match inner.live.get_mut(key) {
            Some((id, kept)) if *id == made => {
                kept.clone_from(waker);
                true
            }
            _ => false,
        }
    }

    fn cancel(&self, made: u64, key: usize) {
        let mut inner = self.inner.borrow_mut();
        if inner.live.get(key).is_some_and(|(id, _)| *id == made) {
            inner.live.remove(key);
        }
    }
}

/// Resolves at `deadline`, or at once when it has passed.
pub fn sleep_until(deadline: Moment) -> Sleep {
    Sleep { deadline, armed: None }
}

/// Resolves after `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(shard::now() + duration)
}

/// The future of [`sleep`]; cancels itself when dropped.
pub struct Sleep {
    deadline: Moment,
    armed: Option<(u64, usize)>,
}

impl Sleep {
    /// When it resolves.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shard = shard::current();
        // The driver has looked at the clock since it fired us.
        if shard.recent() >= self.deadline {
            return Poll::Ready(());
        }
        let kept = self.armed.is_some_and(|(made, key)| shard.timers().refresh(made, key, cx.waker()));
        if !kept {
            self.armed = Some(shard.timers().add(self.deadline, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some((made, key)), Some(shard)) = (self.armed, shard::try_current()) {
            shard.timers().cancel(made, key);
        }
    }
}

/// Runs `work` until `deadline`; `None` when time ran out first. The work is dropped then.
pub async fn until<T>(deadline: Moment, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut sleep = std::pin::pin!(sleep_until(deadline));
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}

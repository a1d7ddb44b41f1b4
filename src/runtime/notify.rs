//! Wait lists and single answers within one shard.
//!
//! Invariant: a waiter that was registered before [`Notify::notify_all`] is woken by it; dropping a waiter
//! leaves nothing behind. These types are `Rc`-like: they never leave their shard.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A list of tasks that wait for something to change. Waking is edge-triggered: look at the condition,
/// wait, look again.
#[derive(Default)]
pub struct Notify {
    round: Cell<u64>,
    waiting: RefCell<Slab<Waker>>,
}

impl Notify {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes everyone who waits now.
    pub fn notify_all(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        // Wakers only push onto a run queue, so the borrow cannot be entered again.
        for waker in self.waiting.borrow_mut().drain() {
            waker.wake();
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Resolves at the first [`Notify::notify_all`] after this call (not after the first poll).
    pub fn wait(&self) -> Waiting<'_> {
        Waiting { list: self, round: self.round.get(), key: None }
    }
}

/// The future of [`Notify::wait`].
pub struct Waiting<'a> {
    list: &'a Notify,
    round: u64,
    key: Option<usize>,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.list.round.get() != self.round {
            // The list was drained: our key, if we had one, is gone.
            self.key = None;
            return Poll::Ready(());
        }
        let mut waiting = self.list.waiting.borrow_mut();
        match self.key {
            Some(key) => waiting[key].clone_from(cx.waker()),
            None => {
                let key = waiting.insert(cx.waker().clone());
                drop(waiting);
                self.key = Some(key);
            }
        }
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key
            && self.list.round.get() == self.round
        {
            self.list.waiting.borrow_mut().remove(key);
        }
    }
}

/// Makes a place for one answer and its two ends.
pub fn answer<T>() -> (Answerer<T>, Answer<T>) {
    let slot = Rc::new(Slot { value: Cell::new(None), waker: Cell::new(None), gone: Cell::new(false) });
    (Answerer(slot.clone()), Answer(slot))
}

struct Slot<T> {
    value: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
    gone: Cell<bool>,
}

/// The end that gives the answer. Dropping it unanswered resolves the other end with `None`.
pub struct Answerer<T>(Rc<Slot<T>>);

/// The end that waits for the answer: a future of `Some(answer)`, or `None` when nobody will answer.
pub struct Answer<T>(Rc<Slot<T>>);

impl<T> Answerer<T> {
    /// Gives the answer. A dropped waiter drops it.
    pub fn give(self, value: T) {
        self.0.value.set(Some(value));
    }
}

impl<T> Drop for Answerer<T> {
    fn drop(&mut self) {
        self.0.gone.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.0.value.take() {
            return Poll::Ready(Some(value));
        }
        if self.0.gone.get() {
            return Poll::Ready(None);
        }
        self.0.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

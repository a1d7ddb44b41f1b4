//! Work that may block, sent away from the shard.
//!
//! [`run`] queues a closure; the shard's driver hands it to a thread of the blocking pool (or, in a
//! simulation, runs it at a moment it chooses) and the result comes back as an ordinary future. A panic in the
//! closure comes back as an error, never as a lost thread.
//!
//! Bound: at most one job per waiting task; a dropped waiter drops only the result.

use super::notify::{Answerer, answer};
use super::shard;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a job leaves behind: its result, or nothing after a panic.
pub type Outcome = Option<Box<dyn Any + Send>>;

/// A closure to run elsewhere, and what to do on the shard with its outcome.
pub struct Job {
    work: Box<dyn FnOnce() -> Outcome + Send>,
    deliver: Box<dyn FnOnce(Outcome)>,
}

/// The part of a [`Job`] that may leave the shard.
pub struct Work(Box<dyn FnOnce() -> Outcome + Send>);

/// The part of a [`Job`] that stays.
pub struct Delivery(Box<dyn FnOnce(Outcome)>);

impl Job {
    /// Takes the job apart.
    pub fn split(self) -> (Work, Delivery) {
        (Work(self.work), Delivery(self.deliver))
    }
}

impl Work {
    /// Runs the closure; never unwinds.
    pub fn run(self) -> Outcome {
        (self.0)()
    }
}

impl Delivery {
    /// Wakes the waiter with the outcome. To be called on the shard that queued the job.
    pub fn deliver(self, outcome: Outcome) {
        (self.0)(outcome);
    }
}

/// The jobs that a shard's tasks have queued and its driver has not taken yet.
#[derive(Default)]
pub struct Jobs {
    queued: RefCell<VecDeque<Job>>,
    in_flight: Cell<usize>,
}

impl Jobs {
    /// For drivers: the next job.
    pub fn take(&self) -> Option<Job> {
        self.queued.borrow_mut().pop_front()
    }

    /// Whether a job waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.queued.borrow().is_empty()
    }

    /// How many jobs were queued and not delivered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }
}

/// Runs `work` off the shard and resolves with its result. A panic in it is an error of kind `Other`.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (answerer, answer) = answer();
    let shard = shard::current();
    shard.jobs().in_flight.set(shard.jobs().in_flight.get() + 1);
    shard.jobs().queued.borrow_mut().push_back(Job {
        work: Box::new(|| {
            let value = catch_unwind(AssertUnwindSafe(work)).ok()?;
            Some(Box::new(value) as Box<dyn Any + Send>)
        }),
        deliver: Box::new(|outcome| deliver(answerer, outcome)),
    });
    drop(shard);
    answer.await.flatten().ok_or_else(|| io::Error::other("a job of the blocking pool panicked"))
}

fn deliver<T: 'static>(answerer: Answerer<Option<T>>, outcome: Outcome) {
    shard::with_current(|shard| shard.jobs().in_flight.set(shard.jobs().in_flight.get() - 1));
    answerer.give(outcome.map(|value| *value.downcast().expect("a job answers with its own type")));
}

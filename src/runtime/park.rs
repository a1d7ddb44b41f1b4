//! How a shard goes to sleep, and how another thread wakes it.
//!
//! Both sides write first and look afterwards, with a sequentially consistent fence in between: the sleeper
//! stores `sleeping` and looks for work once more, the sender pushes its message and looks at `sleeping`.
//! At least one of the two sees the other, so no wake-up is lost; when both do, one wakes in vain, which is
//! harmless.
//!
//! Invariant: a message pushed before [`Unpark::nudge`] is either seen by the sleeper's second look or its
//! `wake` is called. Lives on: shared by all threads. `tests/model.rs` checks it.

use super::sync::{AtomicBool, Ordering, TOTAL, fence};

/// The sleeping flag of one shard, and how to end its sleep.
///
/// The sleeper's side, in this order and on its own thread alone:
///
/// ```text
/// unpark.prepare_sleep();
/// if there is nothing to do, looking at every source of work once more { sleep }
/// unpark.awake();
/// ```
pub struct Unpark {
    sleeping: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Unpark {
    /// A shard that is awake, and whose next or running sleep `wake` ends. `wake` must be remembered when it
    /// comes before the sleep, as an eventfd or `Thread::unpark` does.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Unpark { sleeping: AtomicBool::new(false), wake: Box::new(wake) }
    }

    /// For the sleeper: announces the sleep. Every source of work must be looked at again after this call.
    pub fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // The store before, every second look after. Release and acquire alone would let the looks pass it.
        fence(TOTAL);
    }

    /// For the sleeper: back from sleep, or decided against it.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// For senders, after their message can be seen: wakes the shard if it sleeps. Many senders make one wake.
    pub fn nudge(&self) {
        fence(TOTAL);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            (self.wake)();
        }
    }
}

//! How a shard goes to sleep, and how another thread wakes it.
//!
//! Both sides write first and look afterwards, with a sequentially consistent fence in between: the sleeper
//! stores `sleeping` and looks for work once more, the sender pushes its message and looks at `sleeping`.
//! At least one of the two sees the other, so no wake-up is lost; when both do, one wakes in vain, which is
//! harmless. A sleep has one of two depths, which end by different means.
//!
//! Invariant: a message pushed before [`Unpark::nudge`] is either seen by the sleeper's second look or its
//! `wake` is called. Lives on: shared by all threads. `tests/model.rs` checks it.

use super::sync::{AtomicU8, Ordering, TOTAL, fence};

const AWAKE: u8 = 0;
const NAPPING: u8 = 1;
const SLEEPING: u8 = 2;

/// The sleeping flag of one shard, and how to end its sleep.
///
/// The sleeper's side, in this order and on its own thread alone:
///
/// ```text
/// unpark.prepare_sleep(); // or prepare_nap()
/// if there is nothing to do, looking at every source of work once more { sleep }
/// unpark.awake();
/// ```
pub struct Unpark {
    sleeping: AtomicU8,
    wake: Box<dyn Fn() + Send + Sync>,
    rouse: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Unpark {
    /// A shard that is awake, and whose next or running sleep `wake` ends. `wake` must be remembered when it
    /// comes before the sleep, as an eventfd or `Thread::unpark` does.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Unpark { sleeping: AtomicU8::new(AWAKE), wake: Box::new(wake), rouse: None }
    }

    /// The same, for a shard whose naps `rouse` ends.
    pub fn rousing(self, rouse: impl Fn() + Send + Sync + 'static) -> Self {
        Unpark { rouse: Some(Box::new(rouse)), ..self }
    }

    /// For the sleeper: announces the sleep. Every source of work must be looked at again after this call.
    pub fn prepare_sleep(&self) {
        self.prepare(SLEEPING);
    }

    /// The same for a nap.
    pub fn prepare_nap(&self) {
        self.prepare(NAPPING);
    }

    fn prepare(&self, depth: u8) {
        self.sleeping.store(depth, Ordering::Relaxed);
        // The store before, every second look after. Release and acquire alone would let the looks pass it.
        fence(TOTAL);
    }

    /// For the sleeper: back from sleep, or decided against it.
    pub fn awake(&self) {
        self.sleeping.store(AWAKE, Ordering::Relaxed);
    }

    /// For senders, after their message can be seen: wakes the shard if it sleeps. Many senders make one wake.
    pub fn nudge(&self) {
        fence(TOTAL);
        if self.sleeping.load(Ordering::Relaxed) == AWAKE {
            return;
        }
        match (self.sleeping.swap(AWAKE, Ordering::Relaxed), &self.rouse) {
            (AWAKE, _) => {}
            (NAPPING, Some(rouse)) => rouse(),
            _ => (self.wake)(),
        }
    }
}

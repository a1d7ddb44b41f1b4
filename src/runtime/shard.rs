//! A shard's context: what code on it may ask of the world.
//!
//! One [`Shard`] exists per core (or per virtual shard of a simulation) and is entered by its driver before
//! anything runs; code finds it through [`current`]. Invariant: exactly one shard is entered on a thread at
//! a time, and everything `Rc` made under it stays under it.

use super::blocking::Jobs;
use super::clock::{Clock, Moment, WallTime};
use super::entropy::Entropy;
use super::executor::Executor;
use super::file::Disk;
use super::timer::Timers;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// Which shard: a number from zero, below [`Shard::count`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The number as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Called at one point of every turn; returns whether it did something.
pub type Hook = Box<dyn FnMut() -> bool>;

/// The context of one shard.
pub struct Shard {
    id: ShardId,
    count: usize,
    executor: Executor,
    timers: Timers,
    clock: Clock,
    recent: Cell<Moment>,
    entropy: Entropy,
    disk: Arc<dyn Disk>,
    jobs: Jobs,
    turn_starts: RefCell<Vec<Hook>>,
    turn_ends: RefCell<Vec<Hook>>,
}

/// What a driver needs to make a shard.
pub struct Parts {
    /// Which one.
    pub id: ShardId,
    /// Of how many.
    pub count: usize,
    /// Its clock.
    pub clock: Clock,
    /// Its generator.
    pub entropy: Entropy,
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Wakes its thread from another one.
    pub unpark: Box<dyn Fn() + Send + Sync>,
}

impl Shard {
    /// A shard that runs nothing yet.
    pub fn new(parts: Parts) -> Rc<Self> {
        assert!(parts.id.index() < parts.count);
        Rc::new(Shard {
            id: parts.id,
            count: parts.count,
            executor: Executor::new(parts.unpark),
            timers: Timers::default(),
            recent: Cell::new(parts.clock.now()),
            clock: parts.clock,
            entropy: parts.entropy,
            disk: parts.disk,
            jobs: Jobs::default(),
            turn_starts: RefCell::default(),
            turn_ends: RefCell::default(),
        })
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All shards' ids.
    pub fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.count).map(|index| ShardId(index as u16))
    }

    /// Monotonic time.
    pub fn now(&self) -> Moment {
        let now = self.clock.now();
        self.recent.set(now);
        now
    }

    /// Monotonic time when somebody on this shard last looked at the clock; the driver does before each poll of a task.
    /// For what need not be exact and happens with every request: a look at the clock costs more than it is worth there.
    pub fn recent(&self) -> Moment {
        match self.clock {
            Clock::Machine { .. } => self.recent.get(),
            Clock::Simulated { .. } => self.now(),
        }
    }

    /// Wall time.
    pub fn wall(&self) -> WallTime {
        self.clock.wall()
    }

    /// Chance.
    pub fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    /// Files.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Tasks.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Timers.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Jobs for the blocking pool; the driver takes them.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Calls `hook` at the start of every turn, before tasks run: for what arrives from other shards.
    pub fn at_turn_start(&self, hook: Hook) {
        self.turn_starts.borrow_mut().push(hook);
    }

    /// Calls `hook` at the end of every turn, after tasks ran: for what is gathered over a turn. Hooks run in
    /// the order in which they were given.
    pub fn at_turn_end(&self, hook: Hook) {
        self.turn_ends.borrow_mut().push(hook);
    }

    /// For drivers: runs the hooks of a turn's start.
    pub fn start_turn(&self) -> bool {
        run(&self.turn_starts)
    }

    /// For drivers: runs the hooks of a turn's end.
    pub fn end_turn(&self) -> bool {
        run(&self.turn_ends)
    }

    /// For drivers: forgets tasks and hooks at the end of the shard.
    pub fn clear(&self) {
        self.executor.clear();
        self.turn_starts.borrow_mut().clear();
        self.turn_ends.borrow_mut().clear();
    }
}

fn run(hooks: &RefCell<Vec<Hook>>) -> bool {
    let mut did = false;
    // A hook may add hooks: they are called from the next turn on.
    let mut taken = hooks.take();
    for hook in &mut taken {
        did |= hook();
    }
    let mut added = hooks.replace(Vec::new());
    taken.append(&mut added);
    hooks.replace(taken);
    did
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// The shard that runs on this thread. Panics outside a shard.
pub fn current() -> Rc<Shard> {
    try_current().expect("this code runs on a shard")
}

/// The shard that runs on this thread, if any.
pub fn try_current() -> Option<Rc<Shard>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Calls `look` with the current shard, if any, without touching its count.
pub fn with_current(look: impl FnOnce(&Shard)) {
    let _ = CURRENT.try_with(|current| {
        if let Some(shard) = current.borrow().as_deref() {
            look(shard);
        }
    });
}

/// For drivers: makes `shard` the current one and returns the one before.
pub fn enter(shard: Option<Rc<Shard>>) -> Option<Rc<Shard>> {
    CURRENT.replace(shard)
}

/// Monotonic time on the current shard.
pub fn now() -> Moment {
    current().now()
}

/// See [`Shard::recent`].
pub fn recent() -> Moment {
    current().recent()
}

/// Starts a task on the current shard. It belongs to the shard: nobody's drop ends it.
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + 'static) {
    current().executor().spawn(name, future);
}

/// Lets every other ready task and all input and output have a turn.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await
}

//! Virtual shards on one thread, and a seed that decides what happens next.
//!
//! Everything that could happen now stands in one list: a task's poll, a shard's hooks, a blocking job's run or
//! its delivery, a sync's completion, a timer that is due. Each step picks one. Only when nothing is left does
//! the clock jump to the next timer; otherwise it creeps, so that timers and input race.
//!
//! Invariant: the same seed over the same disk and the same code makes the same history (see
//! [`World::trace`]). Lives on: one thread, in tests.

use super::{Reproduce, SimDisk};
use crate::runtime::blocking::{Delivery, Job, Outcome};
use crate::runtime::clock::{Clock, Moment};
use crate::runtime::entropy::Entropy;
use crate::runtime::park::Unpark;
use crate::runtime::shard::{self, Parts, Shard, ShardId};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Steps after which waiting for something is given up.
const STEPS_MAX: u64 = 5_000_000;

/// Some shards, their clock and their disk.
pub struct World {
    shards: Vec<Rc<Shard>>,
    nanos: Rc<Cell<u64>>,
    chance: Entropy,
    disk: SimDisk,
    jobs: RefCell<Vec<Pending>>,
    trace: Cell<u64>,
    events: Cell<u64>,
    _reproduce: Reproduce,
}

/// A job of the blocking pool and the shard that wants it.
enum Pending {
    Queued(usize, Job),
    Ran(usize, Delivery, Outcome),
}

/// What may happen next.
#[derive(Clone, Copy)]
enum Step {
    Poll(usize),
    StartTurn(usize),
    EndTurn(usize),
    Fire(usize),
    Job(usize),
    Sync,
}

impl World {
    /// `shards` shards that run nothing yet, on `disk`.
    pub fn new(seed: u64, shards: usize, disk: SimDisk) -> Self {
        let nanos = Rc::new(Cell::new(0));
        let chance = Entropy::from_seed(seed);
        let shard = |id| {
            Shard::new(Parts {
                id: ShardId(id as u16),
                count: shards,
                clock: Clock::Simulated { nanos: nanos.clone() },
                entropy: Entropy::from_seed(chance.next()),
                disk: Arc::new(disk.clone()),
                unpark: Box::new(|| ()),
            })
        };
        World {
            shards: (0..shards).map(shard).collect(),
            nanos,
            chance,
            disk,
            jobs: RefCell::default(),
            trace: Cell::new(seed),
            events: Cell::new(0),
            _reproduce: Reproduce::new(seed),
        }
    }

    /// Runs `code` on a shard, to spawn tasks or to look at its state.
    pub fn enter<T>(&self, shard: usize, code: impl FnOnce(&Rc<Shard>) -> T) -> T {
        let _left = Entered(shard::enter(Some(self.shards[shard].clone())));
        code(&self.shards[shard])
    }

    /// One unpark per shard, for [`super::super::mailbox::Mailbox::open`]. Nobody sleeps here.
    pub fn unparks(&self) -> Vec<Arc<Unpark>> {
        self.shards.iter().map(|_| Arc::new(Unpark::new(|| ()))).collect()
    }

    /// The disk.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The generator that decides; a test may draw from it too.
    pub fn chance(&self) -> &Entropy {
        &self.chance
    }

    /// The time on all shards.
    pub fn now(&self) -> Moment {
        Moment::from_nanos(self.nanos.get())
    }

    /// A number that stands for all that happened so far.
    pub fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// How many things have happened so far.
    pub fn events(&self) -> u64 {
        self.events.get()
    }

    /// How many tasks ended by a panic.
    pub fn panics(&self) -> u64 {
        self.shards.iter().map(|shard| shard.executor().panic_count()).sum()
    }

    /// Lets one thing happen, the jump of the clock included. False when nothing ever can again, or the disk
    /// has stopped.
    pub fn step(&self) -> bool {
        self.step_before(Moment::from_nanos(u64::MAX))
    }

    /// Steps until `reached`, `steps_max` steps at most, or nothing more can happen; returns whether it was.
    pub fn run_until(&self, mut reached: impl FnMut() -> bool, steps_max: u64) -> bool {
        (0..steps_max).any(|_| reached() || !self.step()) && reached()
    }

    /// Steps until nothing can happen without time passing.
    pub fn run_until_idle(&self) {
        self.run_for(Duration::ZERO);
    }

    /// Steps for at least `duration`, and on until nothing is left that could happen without more time.
    pub fn run_for(&self, duration: Duration) {
        let end = self.now() + duration;
        for _ in 0..STEPS_MAX {
            if !self.step_before(end) {
                // Nothing happens before the end any more: the time itself passes.
                self.nanos.set(self.nanos.get().max(end.as_nanos()));
                return;
            }
        }
        panic!("the world did not come to rest in {STEPS_MAX} steps");
    }

    /// Runs `future` as a task of `shard` and steps until it is done. Panics when it panics, when nothing is
    /// left that could complete it, or when the disk stops before.
    pub fn block_on<T: 'static>(&self, shard: usize, future: impl Future<Output = T> + 'static) -> T {
        self.try_block_on(shard, future).expect("the disk stopped: only `try_block_on` expects that")
    }

    /// Like [`World::block_on`], but `None` when the disk stopped first (see [`SimDisk::stop_at`]).
    pub fn try_block_on<T: 'static>(
        &self,
        shard: usize,
        future: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let slot = Rc::new(Cell::new(None));
        let filled = slot.clone();
        self.enter(shard, |shard| {
            shard.executor().spawn("block_on", async move { filled.set(Some(future.await)) });
        });
        for _ in 0..STEPS_MAX {
            if let Some(value) = slot.take() {
                return Some(value);
            }
            assert!(Rc::strong_count(&slot) > 1, "the task that was waited for has panicked");
            if !self.step() {
                // The last step may have been the one that filled it and stopped the disk.
                let value = slot.take();
                let over = value.is_some() || self.disk.is_stopped();
                assert!(over, "nothing is left that could complete the task that was waited for");
                return value;
            }
        }
        panic!("the task that was waited for did not complete in {STEPS_MAX} steps");
    }

    /// Lets one thing happen that needs no time after `end`.
    fn step_before(&self, end: Moment) -> bool {
        if self.disk.is_stopped() {
            return false;
        }
        self.take_jobs();
        let steps = self.possible();
        if steps.is_empty() {
            return self.turn_all() || self.jump(end);
        }
        self.creep();
        let mut steps = steps;
        // Any moment may be a turn's start or end.
        for index in 0..self.shards.len() {
            steps.extend([Step::StartTurn(index), Step::EndTurn(index)]);
        }
        let step = steps[self.chance.below(steps.len() as u64) as usize];
        self.make(step);
        true
    }

    /// What can happen now, apart from turns.
    fn possible(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            if shard.executor().has_ready() {
                steps.push(Step::Poll(index));
            }
            if shard.timers().next().is_some_and(|deadline| deadline <= self.now()) {
                steps.push(Step::Fire(index));
            }
        }
        steps.extend((0..self.jobs.borrow().len()).map(Step::Job));
        if self.disk.pending_syncs() > 0 {
            steps.push(Step::Sync);
        }
        steps
    }

    fn make(&self, step: Step) {
        match step {
            Step::Poll(index) => {
                let ready = self.shards[index].executor().ready_count() as u64;
                let position = self.chance.below(ready.max(1));
                self.note([1, index as u64, position]);
                self.enter(index, |shard| shard.executor().run_one(position as usize));
            }
            Step::StartTurn(index) => {
                let did = self.enter(index, |shard| shard.start_turn());
                self.note([2, index as u64, u64::from(did)]);
            }
            Step::EndTurn(index) => {
                let did = self.enter(index, |shard| shard.end_turn());
                self.note([3, index as u64, u64::from(did)]);
            }
            Step::Fire(index) => {
                let woken = self.enter(index, |shard| shard.timers().fire(self.now()));
                self.note([4, index as u64, woken as u64]);
            }
            Step::Job(index) => self.advance_job(index),
            Step::Sync => {
                self.note([6, self.disk.pending_syncs() as u64, 0]);
                self.disk.complete_one_sync();
            }
        }
    }

    /// Runs a job on no shard at all, as the blocking pool does, or delivers what an earlier step ran.
    fn advance_job(&self, index: usize) {
        let job = self.jobs.borrow_mut().swap_remove(index);
        match job {
            Pending::Queued(shard, job) => {
                self.note([5, shard as u64, 0]);
                let (work, delivery) = job.split();
                let outcome = {
                    let _left = Entered(shard::enter(None));
                    work.run()
                };
                self.jobs.borrow_mut().push(Pending::Ran(shard, delivery, outcome));
            }
            Pending::Ran(shard, delivery, outcome) => {
                self.note([5, shard as u64, 1]);
                self.enter(shard, |_| delivery.deliver(outcome));
            }
        }
    }

    fn take_jobs(&self) {
        for (index, shard) in self.shards.iter().enumerate() {
            while let Some(job) = shard.jobs().take() {
                self.jobs.borrow_mut().push(Pending::Queued(index, job));
            }
        }
    }

    /// A whole turn's hooks on every shard; true when one of them did something.
    fn turn_all(&self) -> bool {
        let turns = (0..self.shards.len()).map(|index| {
            self.enter(index, |shard| {
                let began = shard.start_turn();
                shard.end_turn() | began
            })
        });
        let did = turns.fold(false, |any, did| any | did);
        self.note([7, u64::from(did), 0]);
        did
    }

    /// Moves the clock to the next timer, if there is one up to `end`.
    fn jump(&self, end: Moment) -> bool {
        let next = self.shards.iter().filter_map(|shard| shard.timers().next()).min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.nanos.set(self.nanos.get().max(next.as_nanos()));
        self.note([8, 0, next.as_nanos()]);
        true
    }

    /// Every step takes a while, a few take long.
    fn creep(&self) {
        let long = if self.chance.one_in(64) { self.chance.below(2_000_000) } else { 0 };
        self.nanos.set(self.nanos.get() + self.chance.below(2_000) + long);
    }

    fn note(&self, words: [u64; 3]) {
        self.events.set(self.events.get() + 1);
        let mut trace = self.trace.get();
        for word in words.into_iter().chain([self.nanos.get()]) {
            trace = (trace ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        self.trace.set(trace);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for job in self.jobs.take() {
            let (Pending::Queued(shard, _) | Pending::Ran(shard, ..)) = &job;
            self.enter(*shard, |_| drop(job));
        }
        for index in 0..self.shards.len() {
            self.enter(index, |shard| shard.clear());
        }
    }
}

/// Brings back the shard that was entered before, also when code panics.
struct Entered(Option<Rc<Shard>>);

impl Drop for Entered {
    fn drop(&mut self) {
        shard::enter(self.0.take());
    }
}

#[cfg(test)]
mod tests;

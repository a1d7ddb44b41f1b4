//! Runs shards on glommio: one pinned executor per core, one long-lived task in each, our executor inside.
//!
//! glommio gives placement, its timer for the heartbeat, the blocking pool and the join; everything else runs
//! in [`drive`]: messages, tasks, hooks, ring, timers, and sleep when nothing is left. A sleep begins as a nap in the
//! ring, and is glommio's when nothing ended that or a job is under way, whose end only glommio hears of. Five habits
//! of glommio 0.9 shape it:
//! * its executor may park although a task is runnable, when its preempt timer fires at a bad moment: a
//!   heartbeat bounds that stall while anything is in flight, and parks when nothing is;
//! * polling one of its pending operations too often overflows a 16-bit count: the only such operation is the
//!   eventfd read, awaited by the driver alone and polled once per wake;
//! * a panic in one of its tasks kills the thread: ours are polled under `catch_unwind`, and jobs of the
//!   blocking pool never unwind;
//! * yielding must be forced, and costs some microseconds: the driver does it once per millisecond;
//! * its sleep takes seven system calls: the nap takes one, and most sleeps of a shard at work end within it.

use super::clock::{Clock, Moment};
use super::entropy::Entropy;
use super::file::Disk;
use super::park::Unpark;
use super::preflight::{self, Refused};
use super::ring::Ring;
use super::shard::{self, Parts, Shard, ShardId};
use glommio::io::BufferedFile;
use glommio::{CpuSet, LocalExecutorPoolBuilder, PoolPlacement, PoolThreadHandles};
use rustix::event::{EventfdFlags, eventfd};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long a shard that just slept briefly keeps looking before it sleeps again.
const SPIN: Duration = Duration::from_micros(50);
/// A sleep shorter than this makes the next one worth spinning for.
const SHORT_SLEEP: Duration = Duration::from_micros(100);
/// How long the tasks of one turn run, and how much they may have the ring do, before messages are looked at again:
/// what bounds the way of a message to a busy shard and from it. Each poll is looked at once it is over.
const TASKS_MAX: Duration = Duration::from_micros(50);
const WORK_MAX: usize = 32;
/// Longest sleep without glommio. One that lasts longer costs what glommio's does; one more call does not show there.
const NAP_MAX: Duration = Duration::from_millis(10);
/// How often glommio gets the thread back on a busy shard.
pub const YIELD_EVERY: Duration = Duration::from_millis(1);
/// Longest stall that the heartbeat leaves when glommio parks at the wrong moment.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// How much slower the heart beats on a shard that had no turn since the last beat. A beat costs glommio eight
/// system calls; at full pace idle connections alone would cost a shard up to 20 ms of CPU in ten seconds.
/// What can stall then is the first wake-up after a rest, for this much longer.
const RESTING_BEATS: u32 = 10;
/// What glommio registers per ring; it carries no traffic.
const GLOMMIO_IO_MEMORY: usize = 64 * 1024;
/// Turns that a closing shard gives its cancelled operations to come back.
const CLOSING_TURNS_MAX: usize = 1000;

/// The work of a shard: when it resolves, the shard ends.
pub type Main = Pin<Box<dyn Future<Output = ()>>>;

/// Shards that run.
pub struct Running {
    threads: PoolThreadHandles<()>,
    unparks: Vec<Arc<Unpark>>,
    beats: Arc<AtomicU64>,
    yields: Arc<AtomicU64>,
}

/// How glommio is set up under the shards.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Longest stall when glommio parks at the wrong moment while something is in flight.
    pub heartbeat: Duration,
    /// glommio's preempt timer, or its default of 100 ms. Shorter ones make it park at wrong moments often.
    pub preempt: Option<Duration>,
    /// Longest sleep without glommio; zero leaves every sleep to it.
    pub nap: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { heartbeat: HEARTBEAT, preempt: None, nap: NAP_MAX }
    }
}

/// Starts `count` shards (0: one per allowed processor), each running what `main` returns when called on it.
pub fn start<F>(count: usize, disk: Arc<dyn Disk>, main: F) -> Result<Running, StartError>
where
    F: Fn(ShardId, Vec<Arc<Unpark>>) -> Main + Clone + Send + 'static,
{
    start_tuned(Tuning::default(), count, disk, main)
}

/// [`start`] with other timers than the proven ones.
pub fn start_tuned<F>(
    tuning: Tuning,
    count: usize,
    disk: Arc<dyn Disk>,
    main: F,
) -> Result<Running, StartError>
where
    F: Fn(ShardId, Vec<Arc<Unpark>>) -> Main + Clone + Send + 'static,
{
    let cpus = preflight::allowed_cpus().map_err(StartError::Refused)?;
    let count = if count == 0 { cpus.len() } else { count };
    let mut eventfds = Vec::new();
    let mut unparks = Vec::new();
    for _ in 0..count {
        // Blocking on purpose: a non-blocking eventfd would answer glommio's read with EAGAIN at once.
        let fd =
            || eventfd(0, EventfdFlags::CLOEXEC).map(Arc::new).map_err(|error| StartError::Io(error.into()));
        let (completed, wake) = (fd()?, fd()?);
        eventfds.push((completed.clone(), wake.clone()));
        let write = |fd: Arc<OwnedFd>| {
            move || {
                let _ = rustix::io::write(&*fd, &1u64.to_ne_bytes());
            }
        };
        unparks.push(Arc::new(Unpark::new(write(completed)).rousing(write(wake))));
    }
    let (clock_origin, next_id, shared) = (StartClock::now(), Arc::new(AtomicU16::new(0)), unparks.clone());
    let mut pool =
        LocalExecutorPoolBuilder::new(placement(&cpus, count)?).name("shard").io_memory(GLOMMIO_IO_MEMORY);
    if let Some(preempt) = tuning.preempt {
        pool = pool.preempt_timer(preempt);
    }
    let (beats, yields) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let heart = HeartParts { every: tuning.heartbeat, beats: beats.clone(), yields: yields.clone() };
    let (report, reports) = sync_channel(count);
    let all_stand = Arc::new(OnceLock::new());
    let may_run = all_stand.clone();
    let threads = pool
        .on_all_shards(move || async move {
            let id = ShardId(next_id.fetch_add(1, Ordering::Relaxed));
            let unpark = shared[id.index()].clone();
            let waker = unpark.clone();
            let parts = Parts {
                id,
                count,
                clock: clock_origin.clock(),
                entropy: Entropy::from_system(),
                disk,
                unpark: Box::new(move || waker.nudge()),
            };
            let (completed, wake) = eventfds[id.index()].clone();
            let (ring, outcome) = match Ring::install(completed, wake) {
                Ok(ring) => (Some(ring), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody listens any more: then nothing is started either.
            let _ = report.send(outcome);
            drop(report);
            // Blocks: nothing runs here yet, and nothing may while another shard could still be without a ring.
            match ring {
                Some(ring) if *may_run.wait() => {
                    run_shard(parts, ring, unpark, heart, tuning.nap, move || main(id, shared)).await;
                }
                _ => Ring::uninstall(),
            }
        })
        .map_err(|error| StartError::Io(io::Error::other(error.to_string())))?;
    // Ends once every thread has reported or is gone: one whose executor glommio could not set up says nothing.
    let outcomes: Vec<io::Result<()>> = reports.iter().collect();
    let stand = outcomes.len() == count && outcomes.iter().all(Result::is_ok);
    let _ = all_stand.set(stand);
    if stand {
        return Ok(Running { threads, unparks, beats, yields });
    }
    let of_executors = threads.join_all().into_iter().filter_map(Result::err).map(io::Error::from);
    let error = outcomes.into_iter().filter_map(Result::err).chain(of_executors).next();
    let error = error.unwrap_or_else(|| io::Error::other("a thread ended without a word"));
    Err(StartError::Refused(Refused::no_ring(error)))
}

/// Why the shards did not start.
#[derive(Debug)]
pub enum StartError {
    /// The host lacks something.
    Refused(Refused),
    /// A descriptor or a thread could not be had.
    Io(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Refused(refused) => refused.fmt(f),
            StartError::Io(error) => write!(f, "the shards cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Running {
    /// How to wake each shard after changing something that its turn hooks look at.
    pub fn unparks(&self) -> &[Arc<Unpark>] {
        &self.unparks
    }

    /// Heartbeats of all shards since they started.
    pub fn heartbeats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// How often busy shards gave the thread to glommio since they started. May be looked at from their tasks.
    pub fn yields(&self) -> Arc<AtomicU64> {
        self.yields.clone()
    }

    /// Waits until every shard has ended; false when one of them died.
    pub fn join(self) -> bool {
        self.threads.join_all().into_iter().all(|joined| joined.is_ok())
    }
}

/// Writes `line` and a line end to descriptor `fd`, which the caller of this process passed on for it, and closes
/// it: the reader sees exactly one line.
pub fn write_ready_line(fd: i32, line: &str) -> io::Result<()> {
    // Standard streams stay open; everything else was handed over by whoever named its number.
    if fd <= 2 {
        let shared = rustix::io::dup(borrowed_standard(fd)?)?;
        return write_line(shared, line);
    }
    // SAFETY: the number names a descriptor that the parent opened for this purpose alone (`--ready-fd`); nothing
    // else in this process refers to it. A number that is not open fails in fcntl before it is owned.
    let handed_over = unsafe {
        if libc::fcntl(fd, libc::F_GETFD) < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    write_line(handed_over, line)
}

fn borrowed_standard(fd: i32) -> io::Result<std::os::fd::BorrowedFd<'static>> {
    match fd {
        1 => Ok(rustix::stdio::stdout()),
        2 => Ok(rustix::stdio::stderr()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "standard input cannot take the ready line")),
    }
}

fn write_line(fd: OwnedFd, line: &str) -> io::Result<()> {
    io::Write::write_all(&mut std::fs::File::from(fd), format!("{line}\n").as_bytes())
}

/// One origin for all shards' clocks, so that their moments can be compared.
#[derive(Clone)]
struct StartClock(std::time::Instant);

impl StartClock {
    fn now() -> Self {
        match Clock::machine() {
            Clock::Machine { started } => StartClock(started),
            Clock::Simulated { .. } => unreachable!("the machine's clock is not simulated"),
        }
    }

    fn clock(&self) -> Clock {
        Clock::Machine { started: self.0 }
    }
}

/// One processor per shard, round robin over the allowed ones.
fn placement(cpus: &[usize], count: usize) -> Result<PoolPlacement, StartError> {
    let refuse = |why: String| StartError::Refused(Refused::Cpus(why));
    let online = CpuSet::online().map_err(|error| refuse(error.to_string()))?;
    let sets = (0..count).map(|index| {
        let cpu = cpus[index % cpus.len()];
        online.clone().filter(|location| location.cpu == cpu)
    });
    let sets: Vec<CpuSet> = sets.collect();
    if sets.iter().any(CpuSet::is_empty) {
        return Err(refuse("the affinity mask names a processor that is offline".into()));
    }
    Ok(PoolPlacement::Custom(sets))
}

async fn run_shard(
    parts: Parts,
    ring: Rc<Ring>,
    park: Arc<Unpark>,
    heart: HeartParts,
    nap: Duration,
    main: impl FnOnce() -> Main,
) {
    let shard = Shard::new(parts);
    shard::enter(Some(shard.clone()));
    let finished = Rc::new(Cell::new(false));
    let main = main();
    shard.executor().spawn("main", {
        let finished = SetOnDrop(finished.clone());
        async move {
            let _finished = finished;
            main.await;
        }
    });
    let heart = Rc::new(Heart {
        parts: heart,
        turns: Cell::new(0),
        parked: Cell::new(false),
        waker: RefCell::new(None),
    });
    let beating = glommio::spawn_local(beat(heart.clone(), shard.clone(), ring.clone()));
    drive(&shard, &ring, &park, &heart, nap, &finished).await;
    beating.cancel().await;
    close(&shard, &ring);
    shard::enter(None);
    Ring::uninstall();
}

/// A shard whose main task panicked must end too.
struct SetOnDrop(Rc<Cell<bool>>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

async fn drive(
    shard: &Rc<Shard>,
    ring: &Rc<Ring>,
    park: &Arc<Unpark>,
    heart: &Heart,
    nap: Duration,
    finished: &Cell<bool>,
) {
    let wake = EventfdReader::new(ring);
    let mut spin = Duration::ZERO;
    let mut idle_since = None;
    let mut now = shard.now();
    let mut yielded = now;
    // Spinning pays when peers answer quickly, never while we wait for them to take bytes or to send more of many.
    let next_spin = |slept: Duration| {
        let worth_it = slept < SHORT_SLEEP && ring.patient() == 0;
        if worth_it { SPIN } else { Duration::ZERO }
    };
    while !finished.get() {
        heart.turns.set(heart.turns.get().wrapping_add(1));
        let has_spun = spin.is_zero() || idle_since.is_some_and(|since| now.since(since) >= spin);
        let may_nap = has_spun && !nap.is_zero() && now.since(yielded) < YIELD_EVERY;
        let done = turn(shard, ring, now, may_nap.then_some((&**park, nap)));
        now = done.ended;
        // Both, always: a shard that is never idle has jobs too.
        let busy = done.is_busy | take_jobs(shard, park);
        if heart.parked.get() && in_flight(shard, ring) {
            heart.start();
        }
        if let Some(slept) = done.napped {
            spin = next_spin(slept);
            idle_since = None;
            // glommio was kept from nothing meanwhile.
            yielded = yielded + slept;
        }
        if now.since(yielded) >= YIELD_EVERY {
            heart.parts.yields.fetch_add(1, Ordering::Relaxed);
            glommio::executor().yield_task_queue_now().await;
            now = shard.now();
            yielded = now;
        }
        if busy || has_work(shard, ring) {
            idle_since = None;
            continue;
        }
        let has_spun = now.since(*idle_since.get_or_insert(now)) >= spin;
        // The next turn naps first, where it may.
        let no_nap = done.napped.is_some() || nap.is_zero() || shard.jobs().in_flight() > 0;
        if has_spun && no_nap {
            let slept = sleep(shard, ring, park, &wake).await;
            spin = slept.map_or(Duration::ZERO, next_spin);
            idle_since = None;
            now = shard.now();
            yielded = now;
        }
    }
}

/// What became of a turn.
struct Turn {
    /// Whether anything happened.
    is_busy: bool,
    /// How long the shard slept in it, if it did.
    napped: Option<Duration>,
    /// When it was over. Reading the clock costs as much as much else here, so moments are passed on.
    ended: Moment,
}

/// One turn of a shard, from `began` on. Its one entry into the kernel waits there, as long as `rest` allows, if there is
/// nothing else to do: nor for the hooks at its end, which say so when a message waits for room elsewhere.
fn turn(shard: &Shard, ring: &Ring, began: Moment, rest: Option<(&Unpark, Duration)>) -> Turn {
    let waiting = shard.executor().ready_count();
    let mut is_busy = shard.start_turn();
    let is_within = |part: u32| {
        ring.queued_work() < WORK_MAX / part as usize && shard.now().since(began) < TASKS_MAX / part
    };
    // Who is woken by a message goes first: it has waited for a turn of each of two shards already, and perhaps holds
    // up somebody on a third one. Half of the turn remains for those that were ready before.
    is_busy |= shard.executor().run_turn(waiting, || is_within(2), || is_within(1));
    let is_pressed = shard.end_turn();
    is_busy |= is_pressed;
    let rest = rest.filter(|_| !is_pressed);
    let napped = rest.and_then(|(park, most)| nap(shard, ring, park, most, &mut is_busy));
    if napped.is_none() {
        is_busy |= ring.turn();
    }
    let ended = shard.now();
    ring.clear_alarm(ended);
    is_busy |= shard.timers().fire(ended) > 0;
    Turn { is_busy, napped, ended }
}

/// Submits what is queued and sleeps until a completion, a message or a timer, for `most` at the most; how long. `None`,
/// and nothing is submitted, when there is something to do or a job under way, whose end only glommio hears of.
fn nap(shard: &Shard, ring: &Ring, park: &Unpark, most: Duration, is_busy: &mut bool) -> Option<Duration> {
    let is_needed = || shard.executor().has_ready() || ring.has_completions() || shard.jobs().in_flight() > 0;
    if is_needed() {
        return None;
    }
    park.prepare_nap();
    let is_told = shard.start_turn();
    if is_told || is_needed() {
        park.awake();
        *is_busy |= is_told;
        return None;
    }
    let began = shard.now();
    let due = shard.timers().next().map_or(most, |deadline| deadline.since(began));
    *is_busy |= ring.nap(most.min(due));
    park.awake();
    Some(shard.now().since(began))
}

fn has_work(shard: &Shard, ring: &Ring) -> bool {
    shard.executor().has_ready() || ring.is_busy() || !shard.jobs().is_empty()
}

/// Whether something waits for an answer: a connection, a sync, a job. Listeners alone do not count.
fn in_flight(shard: &Shard, ring: &Ring) -> bool {
    ring.in_flight() > ring.standing() || shard.jobs().in_flight() > 0
}

/// Sleeps until a completion, a message, a timer or a finished job; `None` when there was something to do after
/// all.
async fn sleep(shard: &Shard, ring: &Rc<Ring>, park: &Unpark, wake: &EventfdReader) -> Option<Duration> {
    park.prepare_sleep();
    ring.announce();
    if shard.start_turn() || has_work(shard, ring) {
        ring.hush();
        park.awake();
        return None;
    }
    let began = shard.now();
    if let Some(deadline) = shard.timers().next() {
        ring.set_alarm(deadline, deadline.since(began));
    }
    wake.wait().await;
    ring.hush();
    park.awake();
    Some(shard.now().since(began))
}

/// Hands queued jobs to glommio's blocking pool.
fn take_jobs(shard: &Shard, park: &Arc<Unpark>) -> bool {
    let mut took = false;
    while let Some(job) = shard.jobs().take() {
        took = true;
        let (work, delivery) = job.split();
        let park = park.clone();
        glommio::spawn_local(async move {
            let outcome = glommio::executor().spawn_blocking(move || work.run()).await;
            delivery.deliver(outcome);
            park.nudge();
        })
        .detach();
    }
    took
}

/// Gives cancelled operations the turns they need to come back, so that the kernel lets go of their memory.
fn close(shard: &Shard, ring: &Ring) {
    shard.clear();
    for _ in 0..CLOSING_TURNS_MAX {
        if ring.in_flight() == 0 {
            return;
        }
        ring.turn();
        std::thread::yield_now();
    }
    tracing::warn!(operations = ring.in_flight(), "operations did not end with their shard");
}

/// The side of the completion eventfd that sleeps: a read on glommio's own ring.
struct EventfdReader(BufferedFile);

impl EventfdReader {
    fn new(ring: &Ring) -> Self {
        let fd = ring.eventfd().try_clone().expect("a descriptor for the sleeper");
        // SAFETY: the descriptor was just made and is handed over whole; `BufferedFile` closes it.
        EventfdReader(unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) })
    }

    async fn wait(&self) {
        if let Err(error) = self.0.read_at(0, size_of::<u64>()).await {
            tracing::error!(%error, "reading the wake descriptor failed");
        }
    }
}

/// What all hearts share.
#[derive(Clone)]
struct HeartParts {
    every: Duration,
    beats: Arc<AtomicU64>,
    yields: Arc<AtomicU64>,
}

/// The heartbeat of one shard.
struct Heart {
    parts: HeartParts,
    /// Turns of the driver, to tell rest from work.
    turns: Cell<u64>,
    parked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Heart {
    fn start(&self) {
        self.parked.set(false);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn stopped(&self) {
        self.parked.set(true);
        std::future::poll_fn(|cx| {
            if !self.parked.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Beats while anything is in flight. The timer's wake-up is all that matters: it makes glommio look at its run
/// queues again.
async fn beat(heart: Rc<Heart>, shard: Rc<Shard>, ring: Rc<Ring>) {
    let mut seen = 0;
    loop {
        if !in_flight(&shard, &ring) {
            heart.stopped().await;
        }
        let rested = std::mem::replace(&mut seen, heart.turns.get()) == seen;
        glommio::timer::sleep(heart.parts.every * if rested { RESTING_BEATS } else { 1 }).await;
        heart.parts.beats.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

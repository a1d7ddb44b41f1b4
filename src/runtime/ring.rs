//! The side ring: one io_uring per shard that carries all its traffic.
//!
//! glommio hosts the shard but its sockets are not completion I/O, so sockets, syncs and polls go through a
//! ring of our own on the same thread. One [`Ring::turn`] submits what the tasks queued and delivers what has
//! completed. A shard sleeps in two depths: a short while in [`Ring::nap`], where one system call submits, waits and
//! wakes; then with glommio, on an eventfd that the kernel signals for completions, while somebody sleeps on it alone.
//! Whoever wakes the shard writes to that eventfd, or to another one, which the ring polls, when it naps. One for both
//! would not do: the kernel does not signal an eventfd for a completion that the write to an eventfd brings about, but
//! puts that off.
//!
//! Invariant: what the kernel may still look at (buffers, descriptors, headers) lives in the operation's slot
//! until its last completion has arrived, whether or not anyone still waits for it.
//! Lives on: its shard, found through a thread local; nothing here may leave the thread.

pub mod accept;
pub mod buffers;
pub mod dial;
pub mod fifo;
pub mod poll;
pub mod recv;
pub mod send;
pub mod slot;
pub mod socket;
pub mod splice;
pub mod sync;
pub mod sys;

use super::clock::Moment;
use buffers::Buffers;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slot::{Keep, Slots};
use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use slot::{Completion, Op};

/// Submissions that fit before a turn; more are submitted early.
const SUBMISSIONS: u32 = 1024;
/// Completions that the kernel can queue before it falls back to its own list.
const COMPLETIONS: u32 = 4096;
/// Bytes of the window that bulk receives go through; also the unit of the store's checksums.
pub const WINDOW: usize = 256 * 1024;
/// Bytes that take the kernel about as long to move as an operation without any.
const WORK: usize = 4 * 1024;
/// `user_data` of operations whose completion nobody looks at.
const UNATTENDED: u64 = u64::MAX;
/// `user_data` of the poll of the eventfd that wakes the sleeper.
const WAKE: u64 = u64::MAX - 1;

/// One shard's ring.
pub struct Ring {
    uring: RefCell<IoUring>,
    slots: Slots,
    buffers: Buffers,
    completed: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    window: RefCell<Vec<u8>>,
    alarm: RefCell<Alarm>,
    standing: Cell<usize>,
    patient: Cell<usize>,
    submitted: Cell<u64>,
    queued_work: Cell<usize>,
    pipes: splice::Pipes,
}

/// The timeout that ends a sleep. The kernel reads `time` when the operation is submitted.
struct Alarm {
    time: Box<types::Timespec>,
    armed_for: Option<Moment>,
}

thread_local! {
    static RING: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
}

/// The ring of the shard that runs on this thread. Panics where there is none.
pub fn current() -> Rc<Ring> {
    try_current().expect("sockets need a shard with a ring")
}

/// The ring of the shard that runs on this thread, if it has one.
pub fn try_current() -> Option<Rc<Ring>> {
    RING.try_with(|ring| ring.borrow().clone()).ok().flatten()
}

fn set_up(completed: &OwnedFd) -> io::Result<(IoUring, Buffers)> {
    let mut uring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)?;
    uring.submitter().register_eventfd(completed.as_raw_fd())?;
    // Until somebody sleeps on it: a signal that nobody waits for would end the next sleep in vain.
    uring.completion().disable_eventfd();
    let buffers = Buffers::register(&uring)?;
    Ok((uring, buffers))
}

/// Sets a ring up as a shard does, lets it go again, and returns the operations that shards use and this kernel
/// does not have.
pub fn missing_operations() -> io::Result<Vec<&'static str>> {
    let completed = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let (uring, buffers) = set_up(&completed)?;
    let mut probe = io_uring::Probe::new();
    uring.submitter().register_probe(&mut probe)?;
    let missing = OPERATIONS.iter().filter(|(_, code)| !probe.is_supported(*code));
    let missing = missing.map(|(name, _)| *name).collect();
    // The kernel's use of the buffers ends first.
    drop(uring);
    drop(buffers);
    Ok(missing)
}

/// What is submitted somewhere below.
const OPERATIONS: &[(&str, u8)] = &[
    ("accept", opcode::AcceptMulti::CODE),
    ("async cancel", opcode::AsyncCancel::CODE),
    ("fsync", opcode::Fsync::CODE),
    ("poll", opcode::PollAdd::CODE),
    ("recv", opcode::RecvMulti::CODE),
    ("send", opcode::Send::CODE),
    ("sendmsg", opcode::SendMsg::CODE),
    ("timeout", opcode::Timeout::CODE),
];

impl Ring {
    /// Sets a ring up on this thread and makes it the thread's ring. The kernel adds to the eventfd `completed` for
    /// every completion while the shard sleeps; what is written to the eventfd `wake` ends its naps.
    pub fn install(completed: Arc<OwnedFd>, wake: Arc<OwnedFd>) -> io::Result<Rc<Self>> {
        let (uring, buffers) = set_up(&completed)?;
        let ring = Rc::new(Ring {
            uring: RefCell::new(uring),
            slots: Slots::default(),
            buffers,
            completed,
            wake,
            window: RefCell::new(vec![0; WINDOW]),
            alarm: RefCell::new(Alarm { time: Box::new(types::Timespec::new()), armed_for: None }),
            standing: Cell::new(0),
            patient: Cell::new(0),
            submitted: Cell::new(0),
            queued_work: Cell::new(0),
            pipes: splice::Pipes::default(),
        });
        ring.watch_wake();
        RING.set(Some(ring.clone()));
        Ok(ring)
    }

    /// Takes the ring from its thread. Operations still under way end with the ring.
    pub fn uninstall() {
        RING.set(None);
    }

    /// The eventfd that is signalled for completions between [`Ring::announce`] and [`Ring::hush`], and may be written
    /// to wake the sleeper.
    pub fn eventfd(&self) -> &Arc<OwnedFd> {
        &self.completed
    }

    /// Submits what is queued and delivers what has completed; true when anything completed. The kernel is entered only
    /// where it has something to do: a shard that spins looks at shared memory alone.
    pub fn turn(&self) -> bool {
        if self.is_for_the_kernel() {
            self.enter();
        }
        self.deliver() > 0
    }

    /// Submits what is queued and waits for a completion, for `most` at the most; true when anything completed. One
    /// system call, where [`Ring::turn`] and a sleep with glommio take eight.
    pub fn nap(&self, most: Duration) -> bool {
        let most = types::Timespec::from(most);
        self.queued_work.set(0);
        let until = types::SubmitArgs::new().timespec(&most);
        let waited = self.uring.borrow().submitter().submit_with_args(1, &until);
        pass(waited, &[libc::ETIME]);
        self.deliver() > 0
    }

    /// Whether something is queued, or the kernel has completions that it hands over only when it is entered.
    fn is_for_the_kernel(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let submission = uring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// From here on a completion signals the eventfd. What has completed before does not: the sleeper looks once more
    /// at [`Ring::is_busy`] after this call, whose read-modify-write on the flags keeps the two in order.
    pub fn announce(&self) {
        self.uring.borrow_mut().completion().enable_eventfd();
    }

    /// From here on completions are found by looking.
    pub fn hush(&self) {
        self.uring.borrow_mut().completion().disable_eventfd();
    }

    /// Whether something is queued or the kernel has work to hand over: then this is no moment to sleep.
    pub fn is_busy(&self) -> bool {
        self.is_for_the_kernel() || self.has_completions()
    }

    /// Whether something has completed, or the kernel has work to hand over: then this is no moment to nap.
    pub fn has_completions(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let submission = uring.submission();
        let is_due = submission.taskrun() || submission.cq_overflow();
        drop(submission);
        is_due || !uring.completion().is_empty()
    }

    /// The shard's receive window. Borrow it only between awaits.
    pub fn window(&self) -> RefMut<'_, Vec<u8>> {
        self.window.borrow_mut()
    }

    /// How many operations are under way.
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// How many of them only wait for newcomers.
    pub fn standing(&self) -> usize {
        self.standing.get()
    }

    /// How many operations wait for a peer to take our bytes, or to send more of many: a spin brings them nothing.
    pub fn patient(&self) -> usize {
        self.patient.get()
    }

    /// How many pipes carry bytes between sockets.
    pub fn pipes_out(&self) -> usize {
        self.pipes.out()
    }

    /// Operations submitted since start.
    pub fn submitted(&self) -> u64 {
        self.submitted.get()
    }

    /// How much the next submission has the kernel do at once: the operations that are queued, and their bytes in
    /// units of [`WORK`].
    pub fn queued_work(&self) -> usize {
        self.queued_work.get()
    }

    fn note_work(&self, bytes: usize) {
        self.queued_work.set(self.queued_work.get() + bytes / WORK);
    }

    /// Starts an operation that completes once.
    ///
    /// Crate-private: `entry` must point only to memory that `keep` owns.
    fn start(self: &Rc<Self>, entry: squeue::Entry, keep: Keep) -> Op {
        let key = self.slots.add_single(keep);
        self.push(entry.user_data(key));
        Op::new(self.clone(), key)
    }

    /// Starts an operation that completes many times, into `sink`.
    fn start_multi(
        self: &Rc<Self>,
        entry: squeue::Entry,
        keep: Keep,
        sink: Rc<dyn slot::Sink>,
    ) -> slot::Multi {
        let key = self.slots.add_multi(keep, sink);
        self.push(entry.user_data(key));
        slot::Multi::new(self.clone(), key)
    }

    fn cancel(&self, key: u64) {
        self.push(opcode::AsyncCancel::new(key).build().user_data(UNATTENDED));
    }

    fn push(&self, entry: squeue::Entry) {
        self.submitted.set(self.submitted.get() + 1);
        self.queued_work.set(self.queued_work.get() + 1);
        loop {
            let mut uring = self.uring.borrow_mut();
            // SAFETY: every caller in this module passes entries whose pointers lead into the operation's
            // `Keep`, which its slot owns until the last completion, or into `self.alarm`, which lives as long
            // as the ring.
            if unsafe { uring.submission().push(&entry) }.is_ok() {
                return;
            }
            drop(uring);
            self.enter();
        }
    }

    /// One io_uring_enter: submit all, run deferred work, do not wait.
    fn enter(&self) {
        self.queued_work.set(0);
        let uring = self.uring.borrow();
        // SAFETY: `submission_shared` needs that no other submission queue handle exists: this type is not
        // Sync, and every handle made in it is dropped within its expression.
        let queued = unsafe { uring.submission_shared().len() } as u32;
        const GET_EVENTS: u32 = 1;
        // SAFETY: no argument pointers; the entries counted by `queued` were pushed under the contract of `push`.
        let entered = unsafe { uring.submitter().enter::<libc::sigset_t>(queued, 0, GET_EVENTS, None) };
        pass(entered, &[]);
    }

    /// Has what is written to the wake descriptor complete something. It is never read: each write is news to a poll
    /// that goes on.
    fn watch_wake(&self) {
        let poll = opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), libc::POLLIN as u32).multi(true);
        self.push(poll.build().user_data(WAKE));
    }

    fn deliver(&self) -> usize {
        let mut count = 0;
        // Taken one at a time: a sink may queue operations, which needs the ring.
        while let Some(entry) = self.next_completion() {
            count += 1;
            let completion = Completion { result: entry.result(), flags: entry.flags() };
            match entry.user_data() {
                UNATTENDED => {}
                WAKE if cqueue::more(completion.flags) => {}
                WAKE => self.watch_wake(),
                key => self.slots.complete(key, completion, self),
            }
        }
        count
    }

    fn next_completion(&self) -> Option<cqueue::Entry> {
        self.uring.borrow_mut().completion().next()
    }

    /// Sees to it that the sleeper is woken at `deadline`, `until` from now. Cheap when an earlier alarm is set.
    pub fn set_alarm(&self, deadline: Moment, until: Duration) {
        let mut alarm = self.alarm.borrow_mut();
        if alarm.armed_for.is_some_and(|armed| armed <= deadline) {
            return;
        }
        *alarm.time = types::Timespec::from(until.max(Duration::from_nanos(1)));
        alarm.armed_for = Some(deadline);
        let entry = opcode::Timeout::new(&raw const *alarm.time).build().user_data(UNATTENDED);
        drop(alarm);
        self.push(entry);
        self.enter();
    }

    /// Forgets alarms that lie behind `now`.
    pub fn clear_alarm(&self, now: Moment) {
        let mut alarm = self.alarm.borrow_mut();
        if alarm.armed_for.is_some_and(|armed| armed <= now) {
            alarm.armed_for = None;
        }
    }
}

/// Lets an entry into the ring have failed in ways that pass. EBUSY and EAGAIN mean that completions must be taken first;
/// the entries stay queued.
fn pass(entered: io::Result<usize>, also: &[i32]) {
    if let Err(error) = entered {
        let passing = [&[libc::EBUSY, libc::EAGAIN, libc::EINTR], also].concat();
        assert!(error.raw_os_error().is_some_and(|code| passing.contains(&code)), "io_uring_enter: {error}");
    }
}

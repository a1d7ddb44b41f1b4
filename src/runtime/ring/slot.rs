//! The life of one operation.
//!
//! An operation sits in a slot from submission to its last completion. The slot owns everything that the
//! kernel was given ([`Keep`]); a future ([`Op`]) or handle ([`Multi`]) only points at it. Dropping the future
//! orphans the slot and asks the kernel to cancel; the memory stays until the kernel has answered.
//!
//! Keys carry a generation, so a late completion can never reach a slot's next tenant.

use super::Ring;
use super::send::Outgoing;
use super::socket::Socket;
use crate::runtime::file::os::OsFile;
use slab::Slab;
use std::cell::RefCell;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// A count, or a negated errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Completion {
    /// The count, or the error.
    pub fn into_result(self) -> std::io::Result<usize> {
        usize::try_from(self.result).map_err(|_| std::io::Error::from_raw_os_error(-self.result))
    }
}

/// What an operation owns while the kernel may use it.
#[allow(dead_code, reason = "held for the kernel's sake, not read again")]
pub enum Keep {
    /// A socket to accept from, receive on or poll.
    Socket(Rc<Socket>),
    /// A message on its way out.
    Outgoing(Box<Outgoing>),
    /// A file being synced.
    File(Arc<OsFile>),
    /// Anything else to poll.
    Descriptor(Rc<OwnedFd>),
}

/// Where the completions of a multishot operation go. Called between tasks, so it may not await; it gets each
/// completion as it arrives and the last one with `more == false`.
pub trait Sink {
    /// Takes one completion of operation `from`.
    fn take(&self, completion: Completion, more: bool, from: Handle<'_>);
}

/// The operation whose completion a sink is looking at.
#[derive(Clone, Copy)]
pub struct Handle<'r> {
    /// Its ring.
    pub ring: &'r Ring,
    key: u64,
}

impl Handle<'_> {
    /// Asks the kernel to stop the operation.
    pub fn cancel(self) {
        self.ring.cancel(self.key);
    }
}

enum State {
    Waiting(Option<Waker>),
    Done(Completion),
    Orphan,
    Multi(Rc<dyn Sink>),
    /// A multishot operation whose handle is gone: completions are still swept up by the sink.
    MultiOrphan(Rc<dyn Sink>),
}

struct Slot {
    generation: u32,
    state: State,
    keep: Keep,
}

/// The slots of one ring.
#[derive(Default)]
pub struct Slots {
    slots: RefCell<Slab<Slot>>,
    made: std::cell::Cell<u32>,
}

/// `IORING_CQE_F_MORE`: further completions of the same operation will come.
const MORE: u32 = 1 << 1;

impl Slots {
    /// How many operations are under way.
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn add_single(&self, keep: Keep) -> u64 {
        self.add(State::Waiting(None), keep)
    }

    pub(super) fn add_multi(&self, keep: Keep, sink: Rc<dyn Sink>) -> u64 {
        self.add(State::Multi(sink), keep)
    }

    fn add(&self, state: State, keep: Keep) -> u64 {
        // The top bit stays clear, so no key equals the mark of unattended operations.
        let generation = self.made.get().wrapping_add(1) & 0x7fff_ffff;
        self.made.set(generation);
        let index = self.slots.borrow_mut().insert(Slot { generation, state, keep });
        u64::from(generation) << 32 | index as u64
    }

    /// Delivers a completion to whoever the slot belongs to now.
    pub(super) fn complete(&self, key: u64, completion: Completion, ring: &Ring) {
        let (index, generation) = (key as u32 as usize, (key >> 32) as u32);
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(index).filter(|slot| slot.generation == generation) else { return };
        let more = completion.flags & MORE != 0;
        match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Done(completion);
                drop(slots);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Orphan if !more => {
                let gone = slots.remove(index);
                drop(slots);
                drop(gone);
            }
            State::Multi(sink) | State::MultiOrphan(sink) => {
                let sink = sink.clone();
                let gone = (!more).then(|| slots.remove(index));
                drop(slots);
                sink.take(completion, more, Handle { ring, key });
                drop(gone);
            }
            State::Orphan | State::Done(_) => {}
        }
    }

    fn poll(&self, key: u64, waker: &Waker) -> Poll<(Completion, Keep)> {
        let index = key as u32 as usize;
        let mut slots = self.slots.borrow_mut();
        match &mut slots[index].state {
            State::Done(completion) => {
                let completion = *completion;
                Poll::Ready((completion, slots.remove(index).keep))
            }
            State::Waiting(kept) => {
                if kept.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
                    *kept = Some(waker.clone());
                }
                Poll::Pending
            }
            _ => unreachable!("a future points only at its own single-shot slot"),
        }
    }

    /// Lets go of a single-shot operation; true when the kernel still has it and should be asked to stop.
    fn abandon(&self, key: u64) -> bool {
        let index = key as u32 as usize;
        let mut slots = self.slots.borrow_mut();
        if let State::Done(_) = slots[index].state {
            let gone = slots.remove(index);
            drop(slots);
            drop(gone);
            return false;
        }
        slots[index].state = State::Orphan;
        true
    }

    fn abandon_multi(&self, key: u64) -> bool {
        let (index, generation) = (key as u32 as usize, (key >> 32) as u32);
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(index).filter(|slot| slot.generation == generation) else {
            return false;
        };
        if let State::Multi(sink) = &slot.state {
            slot.state = State::MultiOrphan(sink.clone());
        }
        true
    }

    fn is_live(&self, key: u64) -> bool {
        let (index, generation) = (key as u32 as usize, (key >> 32) as u32);
        self.slots.borrow().get(index).is_some_and(|slot| slot.generation == generation)
    }
}

/// A single-shot operation: a future of its completion and of what it had borrowed.
pub struct Op {
    ring: Rc<Ring>,
    key: u64,
    finished: bool,
}

impl Op {
    pub(super) fn new(ring: Rc<Ring>, key: u64) -> Self {
        Op { ring, key, finished: false }
    }
}

impl Future for Op {
    type Output = (Completion, Keep);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.finished, "an operation completes once");
        let polled = self.ring.slots.poll(self.key, cx.waker());
        self.finished = polled.is_ready();
        polled
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        if !self.finished && self.ring.slots.abandon(self.key) {
            self.ring.cancel(self.key);
        }
    }
}

/// A multishot operation. Dropping it asks the kernel to stop; completions that were under way still reach
/// the sink.
pub struct Multi {
    ring: Rc<Ring>,
    key: u64,
}

impl Multi {
    pub(super) fn new(ring: Rc<Ring>, key: u64) -> Self {
        Multi { ring, key }
    }

    /// Whether the kernel may still complete it.
    pub fn is_live(&self) -> bool {
        self.ring.slots.is_live(self.key)
    }

    /// Asks the kernel to stop; the sink sees the last completion with `more == false`.
    pub fn cancel(&self) {
        if self.is_live() {
            self.ring.cancel(self.key);
        }
    }
}

impl Drop for Multi {
    fn drop(&mut self) {
        if self.ring.slots.abandon_multi(self.key) {
            self.ring.cancel(self.key);
        }
    }
}

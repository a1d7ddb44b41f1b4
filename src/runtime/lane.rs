//! A bounded ring from one thread to one other: the only memory that two shards' messages share.
//!
//! `head` counts what was taken and `tail` what was put; both only grow (wrapping), and each is written by one
//! side alone. Each half remembers the last count it saw of the other's, so that a push or a pop touches the
//! other side's cache line only when the remembered count says full or empty.
//!
//! Invariant: slots `[head, tail)` hold values and belong to the [`Receiver`], all others are empty and belong
//! to the [`Sender`]; `tail - head ≤ capacity`. Lives on: one half on each of two threads. When the lane is full
//! the value comes back. `tests/model.rs` checks that nothing is lost, doubled, torn or reordered.

use super::sync::{Arc, AtomicBool, AtomicUsize, OBSERVE, Ordering, PUBLISH, UnsafeCell};
use std::mem::MaybeUninit;

/// Makes a lane for `capacity` values, a power of two.
pub fn lane<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity.is_power_of_two(), "a lane's capacity is a power of two, not {capacity}");
    let ring = Arc::new(Ring {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        closed: Padded(AtomicBool::new(false)),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    (Sender { ring: ring.clone(), tail: 0, head_seen: 0 }, Receiver { ring, head: 0, tail_seen: 0 })
}

/// The half that puts values in.
pub struct Sender<T: Send> {
    ring: Arc<Ring<T>>,
    tail: usize,
    head_seen: usize,
}

/// The half that takes them out, in the order in which they were put.
pub struct Receiver<T: Send> {
    ring: Arc<Ring<T>>,
    head: usize,
    tail_seen: usize,
}

struct Ring<T> {
    head: Padded<AtomicUsize>,
    tail: Padded<AtomicUsize>,
    closed: Padded<AtomicBool>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

/// Two cache lines, because the usual prefetchers fetch lines in pairs.
#[repr(align(128))]
struct Padded<T>(T);

// SAFETY: the cells are reached through the one `Sender` and the one `Receiver` alone (neither is `Clone`, both
// push and pop take `&mut self`), each touches only the slots that the invariant above gives it, and a slot
// changes hands through a PUBLISH store and an OBSERVE load of `tail` or `head`. Values move between threads,
// hence `T: Send`; they are never shared, so `T: Sync` is not needed.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; a ring that is dropped on either thread drops values of `T`, which may be sent there.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, count: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // The capacity is a power of two, so this also holds when the counts wrap.
        &self.slots[count & (self.slots.len() - 1)]
    }
}

impl<T: Send> Sender<T> {
    /// Puts `value` in; gives it back when the lane is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(value);
        }
        self.ring.slot(self.tail).with_mut(|slot| {
            // SAFETY: `tail - head_seen < capacity` and the receiver's head only grows, so this slot lies
            // outside `[head, tail)` and is ours; it is empty, because the receiver moved its value out before
            // the PUBLISH store of the head that we observed. The receiver looks at it after the store below.
            unsafe { (*slot).write(value) };
        });
        self.tail = self.tail.wrapping_add(1);
        self.ring.tail.0.store(self.tail, PUBLISH);
        Ok(())
    }

    /// Whether a push would succeed.
    pub fn has_room(&mut self) -> bool {
        let full = |tail: usize, head: usize| tail.wrapping_sub(head) == self.ring.slots.len();
        if full(self.tail, self.head_seen) {
            self.head_seen = self.ring.head.0.load(OBSERVE);
        }
        !full(self.tail, self.head_seen)
    }

    /// Whether the receiver is gone, so that nobody will take what is put.
    pub fn is_closed(&self) -> bool {
        self.ring.closed.0.load(OBSERVE)
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest value out.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let value = self.ring.slot(self.head).with_mut(|slot| {
            // SAFETY: `head != tail_seen`, so this slot lies in `[head, tail)`: it holds a value, whose write
            // happened before the PUBLISH store of the tail that we observed, and it is ours until the store
            // below gives it back. The value is moved out exactly once, because `head` moves on.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        self.ring.head.0.store(self.head, PUBLISH);
        Some(value)
    }

    /// Whether there is nothing to take. Looks at the sender's count, so a sleeper may use it as its last look.
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.ring.tail.0.load(OBSERVE);
        }
        self.head == self.tail_seen
    }

    /// Whether the sender is gone. Everything it put can be popped after this said yes.
    pub fn is_closed(&self) -> bool {
        self.ring.closed.0.load(OBSERVE)
    }
}

impl<T: Send> Drop for Sender<T> {
    fn drop(&mut self) {
        self.ring.closed.0.store(true, PUBLISH);
    }
}

impl<T: Send> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Values that nobody will take are dropped here, on the thread that was to have them, as far as they
        // have arrived; the rest goes with the ring.
        while self.pop().is_some() {}
        self.ring.closed.0.store(true, PUBLISH);
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Both halves are gone, and `Arc` ordered their last stores before this.
        let (mut head, tail) = (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: slots `[head, tail)` hold values and nobody else is left to take them.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

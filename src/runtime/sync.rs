//! The shared-memory words that [`super::lane`] and [`super::park`] are written in.
//!
//! Those two files name nothing of `std::sync` themselves, so that `tests/model.rs` can compile the very same
//! source against a model checker's types, with the real orders and with orders that are too weak. Lives on:
//! every thread.

pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};

/// The order of a store that lets another thread see what was written before it.
pub const PUBLISH: Ordering = Ordering::Release;

/// The order of a load that sees what was written before the store it reads from.
pub const OBSERVE: Ordering = Ordering::Acquire;

/// The order of the fences between "I wrote" and "I look" on both sides of a sleep.
pub const TOTAL: Ordering = Ordering::SeqCst;

/// A cell that hands out its address, and leaves the argument of who may use it to the caller.
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// A cell around `value`.
    pub const fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Calls `change` with the address, for writing.
    #[inline]
    pub fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        change(self.0.get())
    }
}

//! Counts work in flight, so that shutdown can wait for it.
//!
//! Invariant: once [`Gate::closed`] returned, no [`Pass`] is out and none will be given. Lives on one shard.

use super::notify::Notify;
use std::cell::Cell;
use std::rc::Rc;

/// The door of a shard's work.
#[derive(Clone, Default)]
pub struct Gate(Rc<Inner>);

#[derive(Default)]
struct Inner {
    inside: Cell<usize>,
    closing: Cell<bool>,
    changed: Notify,
}

/// Held by a piece of work while it runs.
pub struct Pass(Rc<Inner>);

impl Gate {
    /// An open gate with nothing inside.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets work in, or `None` when the gate is closing.
    pub fn enter(&self) -> Option<Pass> {
        if self.0.closing.get() {
            return None;
        }
        self.0.inside.set(self.0.inside.get() + 1);
        Some(Pass(self.0.clone()))
    }

    /// How many passes are out.
    pub fn inside(&self) -> usize {
        self.0.inside.get()
    }

    /// Whether [`Gate::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.0.closing.get()
    }

    /// Lets nobody in from here on; work inside learns of it through [`Gate::closing`].
    pub fn close(&self) {
        self.0.closing.set(true);
        self.0.changed.notify_all();
    }

    /// Resolves when the gate begins to close.
    pub async fn closing(&self) {
        while !self.0.closing.get() {
            self.0.changed.wait().await;
        }
    }

    /// Resolves when the gate is closing and everything inside has left.
    pub async fn closed(&self) {
        while !(self.0.closing.get() && self.0.inside.get() == 0) {
            self.0.changed.wait().await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.set(self.0.inside.get() - 1);
        if self.0.inside.get() == 0 {
            self.0.changed.notify_all();
        }
    }
}

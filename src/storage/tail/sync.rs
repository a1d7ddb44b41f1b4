//! The atomics that [`super::progress`] is written against. A model checker compiles that file with its own.

pub use std::sync::atomic::{AtomicU64, Ordering, fence};

//! The side ring: one io_uring per shard that carries all its traffic.

pub mod sync;
pub mod sys;

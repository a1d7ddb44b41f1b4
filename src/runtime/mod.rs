//! Shards and everything that touches the kernel.
//!
//! A shard is one core's executor with all that lives on it. Code on a shard is ordinary `async` Rust
//! over `Rc`; it may not block and may not share a lock. What it needs from the world (time, chance,
//! files, other shards) comes from this layer and from nowhere else, so that the same storage and
//! services run on the ring of a real core and inside the seeded [`sim`].
//!
//! The seam is a vtable, not a type parameter: [`file::Disk`] and [`file::FileOps`] have a real and a
//! simulated implementor, and [`shard::Shard`] carries the clock. One indirect call beside a system call
//! costs nothing that can be measured, and everything above compiles once.
//!
//! Only this layer names glommio, io-uring, libc or a mapping, and only here is `unsafe` allowed.

pub mod blocking;
pub mod clock;
pub mod driver;
pub mod entropy;
pub mod executor;
pub mod file;
pub mod gate;
pub mod lane;
pub mod mailbox;
pub mod memory;
pub mod notify;
pub mod park;
pub mod preflight;
pub mod ring;
pub mod shard;
pub mod sim;
mod sync;
pub mod timer;

pub use clock::{Moment, WallTime};
pub use file::{Disk, File, FileRange};
pub use shard::{Shard, ShardId};

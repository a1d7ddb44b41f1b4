//! Files and addresses; has never heard of a socket.

mod append;
pub mod bulk;
mod error;
mod extent;
mod names;
mod placement;
mod tail;
mod window;

pub use append::Appender;
pub use error::{Damage, OpenError, StoreError, Unreadable};
pub use extent::{LogId, WINDOW};
pub use names::{Entry, Found, Names, Ticket};
pub use placement::{Key, owner_of, placement_hash};
pub use tail::{End, State, Tail};

use crate::observe::metrics::ShardMetrics;
use crate::runtime::{Disk, ShardId};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// When a change counts as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// After its bytes and its record are on disk.
    Sync,
    /// Once they are in the page cache; the disk follows every [`Options::sync_interval`].
    Cache,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many shards will serve it.
    pub shards: usize,
    /// When a change counts as done.
    pub durability: Durability,
    /// The longest time between two syncs in the cache class.
    pub sync_interval: Duration,
    /// The size of a bulk segment; a journal segment has at most 64 MiB of it.
    pub segment_size: u64,
}

/// Whether a shard's store can serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Everything works.
    Serving,
    /// A sync failed or damage was found: what is whole is served, readiness is false.
    Degraded,
    /// Nothing can be changed any more.
    ReadOnly,
}

/// What recovery found for one shard: everything it needs to serve.
pub struct ShardImage {}

/// Called with a shard that waits for a stream, and the stream's number, when the stream moved.
pub type OnWake = Box<dyn Fn(ShardId, u64)>;

/// The store of one shard.
pub struct Store {
    names: Names,
}

impl Store {
    /// Opens a data directory, or makes one: takes the lock, replays the journals, settles what a crash left
    /// open. One image per shard. Blocks; for the time before shards serve, on any thread.
    pub fn open_all(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        options: &Options,
    ) -> Result<Vec<ShardImage>, OpenError> {
        let _ = (disk, dir, options);
        Ok(Vec::new())
    }

    /// Starts serving on the current shard.
    pub fn start(image: ShardImage, metrics: Arc<ShardMetrics>) -> Rc<Self> {
        let _ = (image, metrics);
        Rc::new(Store { names: Names {} })
    }

    /// The names that this shard owns.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Attaches the one appender of `tail` in its current epoch.
    pub fn appender(self: &Rc<Self>, tail: &Arc<Tail>) -> Result<Appender, StoreError> {
        let _ = tail;
        Err(StoreError::Closing)
    }

    /// [`Tail::verify`], counted.
    pub async fn verify(&self, tail: &Arc<Tail>, from: u64, len: u64) -> Result<(), StoreError> {
        tail.verify(from, len).await.map(drop)
    }

    /// The log that this shard writes.
    pub fn log(&self) -> LogId {
        LogId(0)
    }

    /// Which shard owns names with this hash.
    pub fn owner_of_hash(&self, hash: u64) -> ShardId {
        let _ = hash;
        ShardId(0)
    }

    /// Whether it can serve.
    pub fn health(&self) -> Health {
        Health::Serving
    }

    /// Says whom to tell when a stream moved that another shard (or this one) waits for. Once, before serving.
    pub fn on_wake(&self, wake: OnWake) {
        drop(wake);
    }

    /// Takes no changes any more, syncs what is there and lets the directory go. For the end of the shard, after
    /// its appenders are gone.
    pub async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

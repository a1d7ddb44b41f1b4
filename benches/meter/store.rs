//! A store for a bench, over a temporary directory: on a shard of this thread whose turns the bench makes.
//!
//! Invariant: the directory is gone at the end. Runs on: one thread, without a ring.

use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::clock::Clock;
use millpond::runtime::entropy::Entropy;
use millpond::runtime::file::os::OsDisk;
use millpond::runtime::shard::{Parts, enter};
use millpond::runtime::{Disk, Shard, ShardId};
use millpond::storage::{Durability, Options, ShardImage, Store};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What [`Store::open_all`] gives for an empty directory.
pub fn images(dir: &Path, shards: usize, durability: Durability) -> Vec<ShardImage> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let options = Options {
        shards,
        durability,
        sync_interval: Duration::from_millis(100),
        segment_size: 256 << 20,
        part_of: |_| 0,
    };
    Store::open_all(&disk, dir, &options).expect("opens")
}

/// One shard with its store.
pub struct Bench {
    shard: Rc<Shard>,
    /// The store.
    pub store: Rc<Store>,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// In the cache class, so that no disk is waited for.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let image = images(dir.path(), 1, Durability::Cache).remove(0);
        let shard = Shard::new(Parts {
            id: ShardId(0),
            count: 1,
            clock: Clock::machine(),
            entropy: Entropy::from_seed(1),
            disk: Arc::new(OsDisk),
            unpark: Box::new(|| {}),
        });
        enter(Some(shard.clone()));
        let store = Store::start(image, Arc::new(ShardMetrics::default()));
        Bench { shard, store, _dir: dir }
    }

    /// One turn of the shard.
    pub fn turn(&self) {
        self.shard.start_turn();
        self.shard.executor().run_ready();
        while let Some(job) = self.shard.jobs().take() {
            let (work, delivery) = job.split();
            delivery.deliver(work.run());
        }
        self.shard.timers().fire(self.shard.now());
        self.shard.end_turn();
    }

    /// Turns until the future is done.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => return value,
                Poll::Pending => self.turn(),
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shard.clear();
        enter(None);
    }
}

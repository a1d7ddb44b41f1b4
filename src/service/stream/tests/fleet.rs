//! Shards on one simulated disk, and what tests of streams do with them.

use super::super::*;
use crate::runtime::mailbox::Mesh;
use crate::runtime::sim::{SimDisk, World};
use crate::runtime::{Disk, FileRange};
use crate::storage::{Durability, Options};
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

pub(in crate::service::stream) const SHARDS: usize = 3;

/// Shards that serve streams from one simulated disk.
pub(in crate::service::stream) struct Fleet {
    pub(in crate::service::stream) world: World,
    pub(in crate::service::stream) shards: Vec<Rc<Streams>>,
}

impl Fleet {
    pub(in crate::service::stream) fn new(seed: u64) -> Self {
        Self::on(seed, SimDisk::new(seed))
    }

    pub(in crate::service::stream) fn on(seed: u64, disk: SimDisk) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = Options {
            shards: SHARDS,
            durability: Durability::Sync,
            sync_interval: Duration::from_millis(100),
            segment_size: 4 << 20,
            part_of: crate::service::owner::part_of,
        };
        let images = Store::open_all(&shared, Path::new("data"), &options).expect("the store opens");
        let world = World::new(seed, SHARDS, disk);
        let mailboxes = Mesh::new(SHARDS);
        let start = |(index, (image, mailbox))| {
            world.enter(index, |_| {
                let metrics = Arc::new(ShardMetrics::default());
                let store = Store::start(image, metrics.clone());
                Streams::start(store, mailbox, world.unparks(), metrics)
            })
        };
        let shards = images.into_iter().zip(mailboxes).enumerate().map(start).collect();
        Fleet { world, shards }
    }

    /// The same limits everywhere.
    pub(in crate::service::stream) fn limit(&self, limits: Limits) {
        self.shards.iter().for_each(|shard| shard.set_limits(Keeper::Loom, limits));
    }

    /// Runs `work` on a shard to its end.
    pub(in crate::service::stream) fn run<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        shard: usize,
        work: impl FnOnce(Rc<Streams>) -> F,
    ) -> T {
        self.world.block_on(shard, work(self.shards[shard].clone()))
    }

    pub(in crate::service::stream) fn any(&self) -> usize {
        self.world.chance().below(SHARDS as u64) as usize
    }

    pub(in crate::service::stream) fn open(
        &self,
        shard: usize,
        name: &str,
        force: bool,
    ) -> Result<Producer, OpenError> {
        let id = id(name);
        self.run(shard, async move |streams| {
            streams.open(id, Open { force, metadata: Bytes::from_static(b"{}"), announced: None }).await
        })
    }

    pub(in crate::service::stream) fn resume(
        &self,
        shard: usize,
        name: &str,
        offset: u64,
        epoch: u64,
    ) -> Result<Producer, OpenError> {
        let id = id(name);
        self.run(shard, async move |streams| {
            streams.resume(id, Resume { offset, epoch, announced: None }).await
        })
    }

    /// Appends, and leaves it to chance when it is published.
    pub(in crate::service::stream) fn append(
        &self,
        shard: usize,
        mut producer: Producer,
        bytes: &[u8],
    ) -> (Producer, Result<(), ProduceError>) {
        let bytes = bytes.to_vec();
        self.run(shard, async move |_| {
            let done = produce(&mut producer, &bytes).await;
            (producer, done)
        })
    }

    pub(in crate::service::stream) fn find(&self, shard: usize, name: &str) -> Option<Found> {
        let id = id(name);
        self.run(shard, async move |streams| streams.find(&id).await).expect("the store answers")
    }

    /// What is there now, or all of it if the stream has ended.
    pub(in crate::service::stream) fn content(&self, shard: usize, found: &Found) -> (Vec<u8>, State) {
        let tail = found.tail.clone();
        self.run(shard, async move |streams| {
            let until = tail.published();
            read(streams.read(tail, 0, until)).await
        })
    }

    pub(in crate::service::stream) fn list(&self, shard: usize, query: Query) -> Page {
        self.run(shard, async move |streams| streams.list(query).await).expect("the store answers")
    }
}

pub(in crate::service::stream) fn id(name: &str) -> Id {
    Id::new(name.as_bytes()).expect("an id")
}

pub(in crate::service::stream) fn all() -> Query {
    Query { prefix: Bytes::new(), after: None, state: None, limit: 1000 }
}

pub(in crate::service::stream) async fn produce(
    producer: &mut Producer,
    bytes: &[u8],
) -> Result<(), ProduceError> {
    for piece in bytes.chunks(100_000) {
        producer.make_room().await?;
        // Large and small pieces, as chunks of a body come.
        piece.chunks(30_011).for_each(|piece| producer.take(piece));
    }
    producer.make_room().await
}

/// Reads to the end.
pub(in crate::service::stream) async fn read(mut follower: Follower) -> (Vec<u8>, State) {
    let mut bytes = Vec::new();
    loop {
        match follower.next().await.expect("the store answers") {
            Look::Ready(range) => bytes.extend(loaded(&range)),
            Look::End(state) => return (bytes, state),
        }
    }
}

pub(in crate::service::stream) fn loaded(range: &FileRange) -> Vec<u8> {
    let mut bytes = vec![0; range.len as usize];
    range.file.read_exact_at(&mut bytes, range.offset).expect("readable");
    bytes
}

/// Bytes that tell where they belong.
pub(in crate::service::stream) fn content(seed: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed as usize).wrapping_add(at * 7 + at / 251) as u8).collect()
}

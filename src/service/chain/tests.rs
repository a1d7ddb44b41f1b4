//! Chains on virtual shards: what a crash leaves of a topic.

use super::*;
use crate::observe::metrics::ShardMetrics;
use crate::runtime::Disk;
use crate::runtime::mailbox::Mesh;
use crate::runtime::sim::{SimDisk, World, seeds};
use crate::service::stream::{Id, Look, Open, Resume, load};
use crate::storage::{Durability, Options};
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

const SHARDS: usize = 2;

/// Shards with all that a chain stands on.
struct Fleet {
    world: World,
    chains: Vec<Rc<Chain>>,
}

impl Fleet {
    fn on(seed: u64, disk: SimDisk) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = Options {
            shards: SHARDS,
            durability: Durability::Sync,
            sync_interval: Duration::from_millis(20),
            segment_size: 4 << 20,
            part_of: crate::service::owner::part_of,
        };
        let images = Store::open_all(&shared, Path::new("data"), &options).expect("the store opens");
        let world = World::new(seed, SHARDS, disk);
        let stamps = Stamps::default();
        let mailboxes = Mesh::new(SHARDS).into_iter().zip(Mesh::new(SHARDS)).zip(Mesh::new(SHARDS));
        let start = |(index, (image, ((streams, blobs), chains)))| {
            world.enter(index, |_| {
                let metrics = Arc::new(ShardMetrics::default());
                let store = Store::start(image, metrics.clone());
                let streams = Streams::start(store.clone(), streams, world.unparks(), metrics.clone());
                let blobs = Blobs::start(store.clone(), blobs, world.unparks(), metrics);
                Chain::start(blobs, streams, store, stamps.clone(), chains, world.unparks())
            })
        };
        let chains = images.into_iter().zip(mailboxes).enumerate().map(start).collect();
        Fleet { world, chains }
    }

    /// Runs `work` on any shard to its end.
    fn run<T: 'static, F: Future<Output = T> + 'static>(&self, work: impl FnOnce(Rc<Chain>) -> F) -> T {
        let shard = self.world.chance().below(SHARDS as u64) as usize;
        self.world.block_on(shard, work(self.chains[shard].clone()))
    }

    fn publish(&self, event: &'static [u8]) {
        let identity = Identity { event: "e".into(), parent: "p".into(), correlation: "c".into() };
        let done = self.run(async move |chain| chain.publish(&identity, Bytes::from_static(event)).await);
        done.expect("it is published");
    }

    /// Bytes in the chain's stream without the end of their line, as a crash may leave them.
    fn tear(&self, bytes: &'static [u8]) {
        let done = self.run(async move |chain| {
            let id = || Id::new(topic_of("c").as_bytes()).expect("an id");
            let mut producer = match chain.streams.find(&id()).await.expect("the store answers") {
                Some(found) => {
                    let (offset, epoch) = (found.tail.published(), found.tail.epoch());
                    chain.streams.resume(id(), Resume { offset, epoch, announced: None }).await
                }
                None => chain.streams.open(id(), Open::default()).await,
            }
            .expect("nobody has it");
            producer.take(bytes);
            producer.make_room().await.expect("there is room");
            let end = producer.position();
            let found = chain.streams.find(&id()).await.expect("the store answers").expect("it is open");
            chain.store.durable(&found.tail, end).await
        });
        done.expect("they are on the disk");
    }

    fn events(&self) -> Vec<u8> {
        self.run(async |chain| {
            let topic = chain.events("c", false).await.expect("the store answers").expect("it is there");
            let mut follower = chain.streams.read(topic.tail.clone(), 0, topic.end);
            let mut all = Vec::new();
            while let Look::Ready(range) = follower.next().await.expect("the store answers") {
                all.extend(load(range).await.expect("the bytes are there"));
            }
            all
        })
    }

    fn kill(self, seed: u64) -> Self {
        let disk = self.world.disk().kill();
        drop(self);
        Fleet::on(seed, disk)
    }
}

#[test]
fn a_line_that_a_crash_tore_is_ended_before_the_next_one() {
    for seed in seeds(20) {
        let fleet = Fleet::on(seed, SimDisk::new(seed));
        fleet.publish(b"{\"one\":1}");
        // Its appender is open still; a crash leaves none.
        let fleet = fleet.kill(seed + 1);
        fleet.tear(b"{\"tw");
        let fleet = fleet.kill(seed + 2);
        fleet.publish(b"{\"three\":3}");
        assert_eq!(fleet.events(), b"{\"one\":1}\n{\"tw\n{\"three\":3}\n", "seed {seed:#x}");
        // What ends where a line ends is left as it is.
        let fleet = fleet.kill(seed + 3);
        fleet.publish(b"{\"four\":4}");
        assert!(fleet.events().ends_with(b"{\"three\":3}\n{\"four\":4}\n"), "seed {seed:#x}");
    }
}

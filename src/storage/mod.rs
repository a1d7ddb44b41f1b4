//! Files and addresses; has never heard of a socket.
//!
//! # What lies in the data directory
//!
//! | file | holds |
//! |---|---|
//! | `LOCK` | nothing; locked by the process that uses the directory |
//! | `FORMAT`, `FORMAT.2` | the same twice: what has to be known before a segment is read: version, hash, logs, how often it was opened |
//! | `journal-N/XXXXXXXX.mpj` | the records of log N, strictly in order: all that recovery reads. To the byte in [`journal::record`] |
//! | `bulk-N/XXXXXXXX.mpb` | the bytes of streams and bodies, in runs, without any framing: they mean something only where a mark in a journal names them |
//! | `checkpoint/` | all names as of some time, so that older journal segments are gone: see [`checkpoint`] |
//! | `quarantine/` | what a repair took away |
//!
//! Every segment begins with the 4 KiB of [`header`]. N is a log, not a shard: a shard writes the log of its own
//! number, and logs without a shard are adopted for reading.
//!
//! # How a byte becomes readable, and when it is safe
//!
//! 1. An [`Appender`] reserves a run and writes into it: one positioned write, no allocation. Nobody sees it.
//! 2. At the end of the turn every stream that advanced gets a *mark* (where its run lies, how far it is filled, a
//!    checksum for every 256 KiB), and all marks and names of the turn leave with one positioned write.
//! 3. Only then [`Tail::published`] moves and waiting shards are told. Killing the process takes nothing back.
//! 4. The sync task makes data and journal durable and moves [`Tail::durable`]; answers of the sync class wait for
//!    that. A name or an end is written only after the data that it speaks of is on disk.
//!
//! What is put whole, a blob, is a [`Link`] from a name to parts of a [`Body`], which is written like a stream. A link
//! is decided once its bytes are committed; see [`links`] for how the two logs that this takes are kept together. Links
//! of one group can be put by one record, so that after a crash all of them are there or none.
//!
//! # Rules that recovery rests on
//!
//! * A record says how far its log was durable when it was written. What is missing up to there is damage and is
//!   told, for its name alone; what is missing beyond is the torn tail and is cut.
//! * A mark that no record calls durable is believed only when its data matches its checksums.
//! * Bytes die when the record that supersedes or trims them is durable, never earlier; a file goes by unlink, never by
//!   being written over: pages that left by sendfile wait in sockets for as long as the peer likes.
//! * A failed sync is final: its segments are given up, and an abort record in a fresh one makes void what they
//!   held. What was answered is decided again; what was not is an error.
//! * Whatever a start finds is made durable before it is served, and a stream that was open goes on in a new epoch.

mod ahead;
mod append;
mod body;
pub mod bulk;
pub mod checkpoint;
mod compact;
mod core;
mod error;
mod extent;
pub mod header;
pub mod inspect;
pub mod journal;
mod links;
mod names;
mod peers;
mod placement;
mod reclaim;
mod recovery;
mod scrub;
mod sync;
mod tail;
mod tally;
mod trim;
mod twice;
mod window;

pub use append::Appender;
pub use body::{BODIES, Body};
pub use error::{Damage, OpenError, StoreError, Unreadable};
pub use extent::{LogId, WINDOW};
pub use links::{Content, Link, Linked, Links, PARTS_MAX, Part, Parts, Put};
pub use names::card::Card;
pub use names::{Entry, Found, Names, Stream, Ticket};
pub use placement::{COMPANION, GROUPED, Key, KeyRef, owner_of, placement_hash};
pub use tail::{End, OldRun, State, Tail};
pub use tally::{PartOf, Tally};

use self::core::Core;
use crate::observe::metrics::{self, ShardMetrics};
use crate::runtime::{Disk, ShardId, shard, timer};
use bulk::segment::Segment;
use bulk::space::Space;
use header::HEADER;
use journal::writer::{Position, Writer};
use links::LinkIndex;
use names::Index;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
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
    /// Which names of a space are counted apart.
    pub part_of: PartOf,
}

impl Options {
    /// Bytes that the first start allocates: a segment of each kind for every shard.
    pub fn bytes_at_start(&self) -> u64 {
        let each = [header::Kind::Journal, header::Kind::Bulk]
            .map(|kind| ahead::segment_len(kind, self.segment_size));
        each.iter().sum::<u64>().saturating_mul(self.shards as u64)
    }
}

/// How often a stream of another shard is looked at that is about to be durable, and for how long.
const AT_REST_POLL: Duration = Duration::from_millis(1);
const AT_REST_MAX: Duration = Duration::from_secs(30);

/// The file in a data directory that the process which uses it has locked.
pub const LOCK: &str = "LOCK";

/// Whether a shard's store can serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Everything works.
    Serving,
    /// A sync failed: what is whole is served, readiness is false.
    Degraded,
    /// Nothing can be changed any more.
    ReadOnly,
}

/// What all shards of a store count together.
#[derive(Clone, Default)]
struct Shared {
    news: Arc<AtomicU64>,
    compactions: Arc<AtomicU64>,
}

/// What recovery found for one shard: everything it needs to serve. Goes to the shard's thread.
pub struct ShardImage {
    shard: ShardId,
    shards: usize,
    disk: Arc<dyn Disk>,
    place: ahead::Place,
    durability: Durability,
    sync_interval: Duration,
    boot: u32,
    journal: Position,
    journal_number: u32,
    journal_count: usize,
    bulk_current: Option<Arc<Segment>>,
    bulk_held: Vec<Arc<Segment>>,
    bulk_number: u32,
    names: Vec<Entry>,
    links: Vec<Link>,
    bodies: body::Bodies,
    damaged: BTreeSet<u64>,
    /// In all logs, told by the first shard.
    records_damaged: u64,
    /// Streams of which no record says when they ended in their last epoch.
    ends_untold: Vec<Arc<Tail>>,
    epoch_floor: u64,
    tally: Arc<Tally>,
    checkpoint: checkpoint::round::Parts,
    shared: Shared,
    lock: Arc<dyn Send + Sync>,
}

const _: () = {
    const fn goes_to_another_thread<T: Send>() {}
    goes_to_another_thread::<ShardImage>();
};

/// Called with a shard that waits for a stream, and the stream's number, when the stream moved.
pub type OnWake = Box<dyn Fn(ShardId, u64)>;

/// Has another shard take a turn soon.
pub type OnPeer = Box<dyn Fn(ShardId)>;

/// The store of one shard.
pub struct Store {
    core: Rc<Core>,
    names: Names,
    links: Links,
}

impl Store {
    /// Opens a data directory, or makes one: takes the lock, replays the journals, settles what a crash left
    /// open. One image per shard. Blocks; for the time before shards serve, on any thread.
    pub fn open_all(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        options: &Options,
    ) -> Result<Vec<ShardImage>, OpenError> {
        recovery::open_all(disk, dir, options)
    }

    /// Starts serving on the current shard, which must be the image's.
    pub fn start(image: ShardImage, metrics: Arc<ShardMetrics>) -> Rc<Self> {
        let shard = shard::current();
        assert_eq!((shard.id(), shard.count()), (image.shard, image.shards), "an image is for one shard");
        metrics.segments.of(metrics::File::Journal).set(image.journal_count as i64);
        metrics.segments.of(metrics::File::Bulk).set(image.bulk_held.len() as i64);
        let dead: u64 = image.bulk_held.iter().map(|segment| segment.dead()).sum();
        let used: u64 = image.bulk_held.iter().map(|segment| segment.used() - HEADER).sum();
        metrics.dead_bytes.set(dead as i64);
        metrics.live_bytes.set((used - dead) as i64);
        // In one go: with a million names each look is a walk through much memory.
        let streams = image.names.iter().filter(|entry| entry.key().space != BODIES);
        let (streams, bytes) =
            streams.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.tail.stored()));
        metrics.streams.set(streams);
        metrics.stream_bytes.set(bytes as i64);
        metrics.records_damaged.add(image.records_damaged);
        metrics.names_damaged.set(image.damaged.len() as i64);
        let mut index = Index::new(image.shard, image.boot, image.damaged, image.epoch_floor);
        index.recovered(image.names);
        let core = Core::new(core::Parts {
            shard: image.shard,
            shards: image.shards,
            disk: image.disk,
            place: image.place,
            durability: image.durability,
            sync_interval: image.sync_interval,
            metrics,
            journal: Writer::new(image.journal, image.boot),
            journal_number: image.journal_number,
            space: Space::new(image.bulk_current, image.bulk_held, image.bulk_number),
            index,
            links: LinkIndex::new(image.boot, image.links),
            bodies: image.bodies,
            checkpoint: image.checkpoint,
            shared: image.shared,
            health: Health::Serving,
            tally: image.tally,
            lock: image.lock,
        });
        image.ends_untold.iter().for_each(|tail| core.tell_end(tail));
        let weak = Rc::downgrade(&core);
        shard.at_turn_end(Box::new(move || weak.upgrade().is_some_and(|core| core.end_turn())));
        let weak = Rc::downgrade(&core);
        shard.at_turn_start(Box::new(move || {
            weak.upgrade().is_some_and(|core| core.peers.look() | core.take_in_let_go())
        }));
        shard::spawn("sync", sync::run(core.clone()));
        shard::spawn("compact", compact::run(core.clone()));
        shard::spawn("checkpoint", checkpoint::round::run(core.clone()));
        // The first turn's end makes a segment, so that no appender has to wait for it.
        core.nudge();
        Rc::new(Store { names: Names::new(core.clone()), links: Links::new(core.clone()), core })
    }

    /// The names that this shard owns.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The links that this shard owns.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// A new body, empty and open, whose bytes come to this shard. It goes when it is dropped without a link.
    pub fn new_body(&self) -> Result<(Arc<Body>, Appender), StoreError> {
        self.core.new_body()
    }

    /// Resolves once all that was appended to `body`, which is of this shard, is committed in the store's class, with
    /// its length. Nothing is appended afterwards.
    pub async fn commit_body(&self, body: &Body, appender: Appender) -> Result<u64, StoreError> {
        self.core.commit_body(body, appender).await
    }

    /// How much all shards have.
    pub fn tally(&self) -> &Tally {
        &self.core.tally
    }

    /// Attaches the one appender of `tail` in its current epoch.
    pub fn appender(&self, tail: &Arc<Tail>) -> Result<Appender, StoreError> {
        Appender::attach(&self.core, tail)
    }

    /// Takes a stream from its appender on this shard, if there is one: the appender is told with its next call,
    /// and what it had not published is dropped. The stream can be reopened at once.
    pub fn fence(&self, tail: &Arc<Tail>) {
        self.core.appends.fence(&self.core, tail);
    }

    /// [`Tail::verify`], counted.
    pub async fn verify(&self, tail: &Arc<Tail>, from: u64, len: u64) -> Result<(), StoreError> {
        match tail.verify(from, len).await {
            Ok(count) => self.core.metrics.windows_verified.add(count),
            Err(error) => {
                if matches!(error, StoreError::Damaged(_)) {
                    self.core.metrics.windows_damaged.inc();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Resolves once a stream that is appended to on this shard is durable up to `len`.
    pub async fn durable(&self, tail: &Arc<Tail>, len: u64) -> Result<(), StoreError> {
        self.core.durable(tail, len).await
    }

    /// When a change of it counts as done.
    pub fn durability(&self) -> Durability {
        self.core.durability
    }

    /// Resolves once all that is published of a stream without an appender is durable, whichever shard it was
    /// appended on. Gives up with [`StoreError::Attached`] when that takes longer than any sync.
    pub async fn at_rest(&self, tail: &Tail) -> Result<(), StoreError> {
        let deadline = shard::now() + AT_REST_MAX;
        // A failed one has nothing readable beyond what is durable.
        while tail.durable() < tail.published() {
            if shard::now() >= deadline || self.core.closing.get() {
                return Err(StoreError::Attached);
            }
            timer::sleep(AT_REST_POLL).await;
        }
        Ok(())
    }

    /// The log that this shard writes.
    pub fn log(&self) -> LogId {
        self.core.log
    }

    /// Which shard owns names with this hash.
    pub fn owner_of_hash(&self, hash: u64) -> ShardId {
        owner_of(hash, self.core.shards)
    }

    /// Whether it can serve.
    pub fn health(&self) -> Health {
        self.core.health.get()
    }

    /// Bytes written and not synced.
    pub fn unsynced(&self) -> u64 {
        self.core.sync.unsynced()
    }

    /// Says whom to tell when a stream moved that another shard (or this one) waits for. Once, before serving.
    pub fn on_wake(&self, wake: OnWake) {
        *self.core.on_wake.borrow_mut() = Some(wake);
    }

    /// Says how to have a shard take a turn soon: called when it has something to look at. Once, before serving; a
    /// store with one shard, or whose shards never sleep, needs none.
    pub fn on_peer(&self, on_peer: OnPeer) {
        self.core.peers.set_on_peer(on_peer);
    }

    /// From now on reads and checks everything stored once a week, the first time in an hour. Once.
    pub fn keep_scrubbed(&self) {
        shard::spawn("scrub", scrub::run(self.core.clone()));
    }

    /// Has a checkpoint of all shards written; false when one of them could not join. It happens by itself when
    /// journals have grown.
    pub async fn checkpoint(&self) -> bool {
        self.core.checkpoint().await
    }

    /// For an orderly end, when nothing changes any more on this shard: once all shards have come here, writes a last
    /// checkpoint, so that the next start is quick. Gives up after `patience`.
    pub async fn finish(&self, patience: Duration) {
        self.core.finish(patience).await;
    }

    /// Takes no changes any more and syncs what is there. For the end of the shard, after its appenders are gone.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.core.close().await
    }
}

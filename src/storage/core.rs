//! What the parts of one shard's store share: the journal's writer, the space, what is dirty, who waits.
//!
//! Invariant: `RefCell`s here are borrowed for straight code only, never across an await or a callback.
//! Lives on: one shard.

use super::ahead::{self, Place};
use super::append::Appends;
use super::body::{BODIES, Bodies};
use super::bulk::segment::{self, Segment};
use super::bulk::space::Space;
use super::checkpoint;
use super::compact;
use super::error::StoreError;
use super::extent::LogId;
use super::header::Kind;
use super::journal::record::Record;
use super::journal::writer::{self, Writer};
use super::links::LinkIndex;
use super::names::Index;
use super::peers::Peers;
use super::reclaim;
use super::sync::SyncState;
use super::tail::Tail;
use super::tally::{Slot, Tally};
use super::{Durability, Health, OnWake, Shared};
use crate::observe::metrics::{File, ShardMetrics};
use crate::runtime::notify::Notify;
use crate::runtime::{Disk, Moment, ShardId, shard};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct Core {
    pub(super) shard: ShardId,
    pub(super) shards: usize,
    pub(super) log: LogId,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) place: Place,
    pub(super) durability: Durability,
    pub(super) sync_interval: Duration,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) journal: RefCell<Writer>,
    pub(super) journal_ahead: ahead::Ahead<writer::Segment>,
    pub(super) space: Space,
    pub(super) index: RefCell<Index>,
    pub(super) links: RefCell<LinkIndex>,
    pub(super) bodies: Bodies,
    pub(super) appends: Appends,
    pub(super) peers: Peers,
    pub(super) checkpoint: checkpoint::round::State,
    pub(super) compact: compact::State,
    pub(super) sync: SyncState,
    pub(super) health: Cell<Health>,
    pub(super) tally: Arc<Tally>,
    pub(super) closing: Cell<bool>,
    /// How many streams are being sealed.
    pub(super) sealing: Cell<usize>,
    /// Until then writes belong into workers, because one was slow.
    pub(super) slow_until: Cell<Option<Moment>>,
    /// Told when something was published, committed or failed.
    pub(super) progress: Notify,
    wakes: RefCell<Vec<(ShardId, u64)>>,
    pub(super) on_wake: RefCell<Option<OnWake>>,
    /// Set to have a turn end without anything appended.
    nudged: Cell<bool>,
    _lock: Arc<dyn Send + Sync>,
}

/// What a [`Core`] is made of.
pub struct Parts {
    pub(super) shard: ShardId,
    pub(super) shards: usize,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) place: Place,
    pub(super) durability: Durability,
    pub(super) sync_interval: Duration,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) journal: Writer,
    pub(super) journal_number: u32,
    pub(super) space: Space,
    pub(super) index: Index,
    pub(super) links: LinkIndex,
    pub(super) bodies: Bodies,
    pub(super) checkpoint: checkpoint::round::Parts,
    pub(super) shared: Shared,
    pub(super) health: Health,
    pub(super) tally: Arc<Tally>,
    pub(super) lock: Arc<dyn Send + Sync>,
}

/// Decided records may wait in memory for a journal segment up to this.
const PENDING_MAX: usize = 4 << 20;

impl Core {
    pub(super) fn new(parts: Parts) -> Rc<Self> {
        Rc::new(Core {
            shard: parts.shard,
            shards: parts.shards,
            log: LogId(parts.shard.0),
            disk: parts.disk,
            place: parts.place,
            durability: parts.durability,
            sync_interval: parts.sync_interval,
            metrics: parts.metrics,
            journal: RefCell::new(parts.journal),
            journal_ahead: ahead::Ahead::new(parts.journal_number),
            space: parts.space,
            index: RefCell::new(parts.index),
            links: RefCell::new(parts.links),
            bodies: parts.bodies,
            appends: Appends::default(),
            peers: Peers::new(parts.shards, parts.shared.news),
            checkpoint: checkpoint::round::State::new(parts.checkpoint),
            compact: compact::State::new(parts.shared.compactions),
            sync: SyncState::default(),
            health: Cell::new(parts.health),
            tally: parts.tally,
            closing: Cell::new(false),
            sealing: Cell::new(0),
            slow_until: Cell::new(None),
            progress: Notify::new(),
            wakes: RefCell::default(),
            on_wake: RefCell::new(None),
            nudged: Cell::new(false),
            _lock: parts.lock,
        })
    }

    /// Whether anything may be decided now.
    pub(super) fn admit(self: &Rc<Self>) -> Result<(), StoreError> {
        if self.health.get() == Health::ReadOnly {
            return Err(StoreError::ReadOnly);
        }
        if self.closing.get() {
            return Err(StoreError::Closing);
        }
        if self.sync.is_failing() {
            return Err(StoreError::SyncFailed);
        }
        let (room, pending, capacity) = {
            let journal = self.journal.borrow();
            (journal.room(), journal.pending_len(), journal.capacity())
        };
        if room < capacity / 2 && !self.journal_ahead.is_ready() {
            self.begin_journal_segment();
            // The last eighth is kept for what has to be said about changes that were already admitted.
            if room < capacity / 8
                && let Some(error) = self.journal_ahead.failure()
            {
                return Err(error);
            }
        }
        if pending > PENDING_MAX { Err(StoreError::NoSpace) } else { Ok(()) }
    }

    /// Takes note of bytes that were written for a stream.
    pub(super) fn count_bytes(&self, tail: &Tail, count: u64) {
        self.tally.add_bytes(tail.slot(), count);
        tail.note_counted(count);
        if tail.slot().space() != BODIES {
            self.metrics.stream_bytes.add(count as i64);
        }
    }

    /// Takes note that so many bytes of a stream do not count any more.
    pub(super) fn discount_some(&self, tail: &Tail, count: u64) {
        let count = tail.take_some_counted(count);
        self.tally.take_bytes(tail.slot(), count);
        self.metrics.stream_bytes.add(-(count as i64));
    }

    /// Takes note that nothing of a stream counts any more.
    pub(super) fn discount_bytes(&self, tail: &Tail) {
        let count = tail.take_counted();
        self.tally.take_bytes(tail.slot(), count);
        if tail.slot().space() != BODIES {
            self.metrics.stream_bytes.add(-(count as i64));
        }
    }

    /// Takes note of a new name that stands for a stream.
    pub(super) fn count_name(&self, space: u8) {
        if space != BODIES {
            self.metrics.streams.inc();
        }
    }

    /// Takes note that there is room for a name again.
    pub(super) fn discount_name(&self, slot: Slot) {
        self.tally.give_name(slot);
        if slot.space() != BODIES {
            self.metrics.streams.dec();
        }
    }

    /// Decides a record. It is written at the end of this turn.
    pub(super) fn decide(&self, record: &Record<'_>, key_hash: u64) -> u64 {
        self.journal.borrow_mut().append(record, key_hash)
    }

    /// Writes what was decided.
    pub(super) fn flush(self: &Rc<Self>) {
        if !self.journal.borrow().wants_flush() {
            return;
        }
        let begun = shard::now();
        let flushed = self.journal.borrow_mut().flush(|| self.journal_ahead.take());
        self.metrics.write_latency.record(shard::now() - begun);
        match flushed {
            Ok((records, bytes)) => {
                self.metrics.journal_records.add(records);
                self.metrics.journal_bytes.add(bytes);
                self.sync.add_unsynced(self, bytes);
                self.checkpoint.add_journal_bytes(self, bytes);
                if self.journal.borrow().wants_flush() {
                    self.begin_journal_segment();
                }
            }
            Err(error) => {
                let path = self.journal.borrow().path().clone();
                tracing::error!(path = %path.display(), %error, "a journal write failed");
                self.journal.borrow_mut().stop();
                self.sync.journal_broke();
            }
        }
    }

    pub(super) fn begin_journal_segment(self: &Rc<Self>) {
        ahead::begin(
            self,
            Kind::Journal,
            |core| &core.journal_ahead,
            |core, made| {
                core.metrics.segments.of(File::Journal).inc();
                writer::Segment { generation: made.header.generation, file: made.file, path: made.path }
            },
        );
    }

    pub(super) fn begin_bulk_segment(self: &Rc<Self>) {
        ahead::begin(
            self,
            Kind::Bulk,
            |core| &core.space.ahead,
            |core, made| {
                core.metrics.segments.of(File::Bulk).inc();
                let (log, number, generation) = (made.header.log, made.header.number, made.header.generation);
                let used = segment::HEADER;
                Arc::new(Segment::new(log, number, generation, made.file, made.path, core.shards, used))
            },
        );
    }

    /// Takes note that readers on `shard` are to be woken; [`Core::deliver_wakes`] does so.
    pub(super) fn wake_for(&self, tail: &Tail) -> impl FnMut(ShardId) {
        let uid = tail.uid();
        move |shard| self.wakes.borrow_mut().push((shard, uid))
    }

    /// Calls back for every noted wake. Outside of every borrow and critical section: the callback is foreign.
    pub(super) fn deliver_wakes(&self) {
        if self.wakes.borrow().is_empty() {
            return;
        }
        let mut wakes = self.wakes.take();
        if let Some(on_wake) = &*self.on_wake.borrow() {
            wakes.iter().for_each(|&(shard, uid)| on_wake(shard, uid));
        }
        wakes.clear();
        // Whatever the callback made us note meanwhile comes first.
        wakes.append(&mut self.wakes.borrow_mut());
        self.wakes.replace(wakes);
    }

    /// Has the next turn's end look at everything again.
    pub(super) fn nudge(&self) {
        self.nudged.set(true);
        self.progress.notify_all();
    }

    /// The end of a turn: marks for what was appended, one write of the journal, then publication.
    pub(super) fn end_turn(self: &Rc<Self>) -> bool {
        let busy = self.nudged.take() || self.appends.any_advanced() || self.journal.borrow().wants_flush();
        if busy {
            crate::runtime::executor::critical(|| {
                self.appends.mark(self);
                self.flush();
                self.appends.publish(self);
            });
            self.after_flush();
        }
        busy
    }

    /// What follows a flush: answers in the cache class, a sync, a segment ahead.
    pub(super) fn after_flush(self: &Rc<Self>) {
        if self.durability == Durability::Cache {
            self.settle_committed();
            self.settle_committed_links();
        }
        self.sync.look();
        self.progress.notify_all();
        if self.space.wants_next() && self.space.ahead.failure().is_none() && !self.closing.get() {
            self.begin_bulk_segment();
        }
        for segment in self.space.take_filled() {
            reclaim::retire_if_dead(self, &segment);
            self.compact.note_dead();
        }
        if self.compact.wants_look() {
            self.peers.look_again();
        }
        self.deliver_wakes();
    }

    /// The last sequence that is committed in this store's class.
    pub(super) fn committed_seq(&self) -> u64 {
        let journal = self.journal.borrow();
        match self.durability {
            Durability::Sync => journal.synced_seq(),
            // What is only flushed is about to be void, and nobody may be told otherwise.
            Durability::Cache if self.sync.is_failing() => journal.synced_seq(),
            Durability::Cache => journal.flushed_seq(),
        }
    }

    /// Waits until `seq` is durable, whatever the class.
    pub(super) async fn synced(&self, seq: u64) -> Result<(), StoreError> {
        loop {
            let looked = self.progress.wait();
            if let Some(error) = self.sync.void(seq) {
                return Err(error);
            }
            if seq <= self.journal.borrow().synced_seq() {
                return Ok(());
            }
            if self.health.get() != Health::Serving || self.closing.get() {
                return Err(StoreError::Closing);
            }
            looked.await;
        }
    }

    /// Waits until `seq` is committed.
    pub(super) async fn committed(&self, seq: u64) -> Result<(), StoreError> {
        self.reached(seq, Core::committed_seq).await
    }

    /// Waits until what `place` tells has come to `seq`.
    pub(super) async fn reached(&self, seq: u64, place: impl Fn(&Core) -> u64) -> Result<(), StoreError> {
        loop {
            if let Some(error) = self.sync.void(seq) {
                return Err(error);
            }
            if seq <= place(self) {
                return Ok(());
            }
            if self.health.get() == Health::ReadOnly {
                return Err(StoreError::ReadOnly);
            }
            self.progress.wait().await;
        }
    }
}

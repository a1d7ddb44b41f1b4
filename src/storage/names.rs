//! Names of one owner: the commit point, with what is decided and what is durable kept apart.
//!
//! Decisions are taken at once and in order against the latest state, durable or not; every answer that depends
//! on one waits for its [`Ticket`]. What a decision replaced is kept until the decision is durable, so a failed
//! sync can take it back. Invariant: a stream's bytes die only when the record that supersedes it is durable.
//! Lives on: the owner's shard.

pub(super) mod card;
pub(super) mod table;

use self::card::Card;
use self::table::Table;
use super::Health;
use super::core::Core;
use super::error::{Damage, StoreError};
use super::extent::LogId;
use super::journal::record::{ATTRIBUTES_MAX, Record};
use super::placement::{Key, KeyRef};
use super::reclaim;
use super::tail::Tail;
use crate::runtime::executor::critical;
use crate::runtime::{ShardId, shard};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

/// A position in this shard's journal: what was decided there is to be answered once it is committed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ticket(pub(super) u64);

/// A name, and the stream that it stands for.
pub type Entry = Card<Stream>;

/// What a name stands for.
#[derive(Debug)]
pub struct Stream {
    /// When it was put, in milliseconds since 1970.
    pub created_ms: u64,
    /// The log of its first appender, as the service said when it put the name.
    pub home: LogId,
    /// Its bytes.
    pub tail: Arc<Tail>,
}

/// The latest decision about a name, and the ticket to wait for before anyone is told.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What it stands for; `None` when it was never put or was deleted.
    pub entry: Option<Entry>,
    /// Answers that depend on this wait for it.
    pub ticket: Ticket,
}

impl Found {
    fn of(card: &Entry) -> Self {
        Found { entry: card.standing(), ticket: card.ticket() }
    }
}

/// The names that this shard owns.
pub struct Names {
    core: Rc<Core>,
}

impl Names {
    pub(super) fn new(core: Rc<Core>) -> Self {
        Names { core }
    }

    /// The latest decision about `key`. Refused when a damaged journal record may have been about it.
    pub fn get<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<Found, StoreError> {
        let (index, key) = (self.core.index.borrow(), key.into());
        if !index.damaged.is_empty() {
            index.check(key.hash())?;
        }
        Ok(index.found(key))
    }

    /// The latest decision about `key` as far as it is known: for who replaces or deletes it, whom damage does not
    /// stop.
    pub fn look(&self, key: &Key) -> Found {
        self.core.index.borrow().found(key.as_ref())
    }

    /// Puts `key`, or replaces what it stood for, with a new empty open stream. The bytes of a replaced one go
    /// once this is durable. Puts a damaged name right again.
    pub fn put(&self, key: Key, home: LogId, attributes: Bytes) -> Result<(Entry, Ticket), StoreError> {
        let put = self.put_within(key, home, attributes, u64::MAX)?;
        Ok(put.expect("without a bound there is room"))
    }

    /// Like [`Names::put`], but `None`, with nothing done, when the name is new and its part of its space has `names_max`
    /// names on all shards together.
    pub fn put_within(
        &self,
        key: Key,
        home: LogId,
        attributes: Bytes,
        names_max: u64,
    ) -> Result<Option<(Entry, Ticket)>, StoreError> {
        assert!(attributes.len() <= ATTRIBUTES_MAX, "attributes are at most {ATTRIBUTES_MAX} bytes long");
        self.core.admit()?;
        let created_ms = shard::current().wall().unix_millis();
        Ok(critical(|| {
            let mut index = self.core.index.borrow_mut();
            let slot = self.core.tally.slot(key.as_ref());
            if !index.stands(&key) {
                if !self.core.tally.take_name(slot, names_max) {
                    return None;
                }
                self.core.count_name(key.space);
            }
            index.remember_epoch(&key);
            let (uid, epoch) = (index.next_version(), index.epoch_floor + 1);
            let tail = Arc::new(Tail::new(uid, epoch, slot, key.hash(), self.core.shards));
            let entry = Entry::new(key.as_ref(), &attributes, Stream { created_ms, home, tail });
            let ticket = index.decide(&self.core, entry.clone(), Change::Put);
            Some((entry, ticket))
        }))
    }

    /// Deletes `key`; `None` when there is nothing, with the ticket in [`Names::look`] to wait for. A damaged name is
    /// deleted whether or not there was something.
    pub fn delete(&self, key: &Key) -> Result<Option<Ticket>, StoreError> {
        self.core.admit()?;
        Ok(critical(|| {
            let mut index = self.core.index.borrow_mut();
            let damaged = index.check(key.hash()).is_err();
            let stands = index.stands(key);
            index.remember_epoch(key);
            (stands || damaged).then(|| {
                let version = index.next_version();
                index.decide(&self.core, Entry::gone(key.as_ref()), Change::Delete(version))
            })
        }))
    }

    /// Begins a new epoch of an interrupted or abandoned stream, at its published length. Refused with
    /// [`StoreError::Attached`] while an appender is attached, or what it published is not durable: fence it first,
    /// wait until it let go, and for [`super::Store::at_rest`].
    pub fn reopen(&self, key: &Key) -> Result<(Entry, Ticket), StoreError> {
        self.core.admit()?;
        let Some(entry) = self.get(key)?.entry else { return Err(StoreError::Gone) };
        let reopened = critical(|| {
            let epoch = entry.tail.reopen(self.core.wake_for(&entry.tail))?;
            let cut = entry.tail.published();
            let mut index = self.core.index.borrow_mut();
            Ok(index.decide(&self.core, entry.clone(), Change::Epoch { epoch, cut }))
        });
        self.core.nudge();
        reopened.map(|ticket| (entry, ticket))
    }

    /// Up to `count_max` names of `space` that begin with `prefix`, after `after` if given, in order. A name whose
    /// deletion is pending is listed without an entry: the listing waits for its ticket.
    pub fn iterate(
        &self,
        space: u8,
        prefix: &[u8],
        after: Option<&[u8]>,
        count_max: usize,
    ) -> Vec<(Key, Found)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(KeyRef { space, bytes: after }),
            _ => Bound::Included(KeyRef { space, bytes: prefix }),
        };
        let index = self.core.index.borrow();
        let listed = index.map.range(from);
        listed
            .take_while(|card| card.key().space == space && card.key().bytes.starts_with(prefix))
            .take(count_max)
            .map(|card| (card.key().to_key(), Found::of(card)))
            .collect()
    }

    /// How many names there are, those included whose deletion is pending.
    pub fn count(&self) -> usize {
        self.core.index.borrow().map.len()
    }

    /// Whether what `ticket` stands for is committed in this store's durability class.
    pub fn is_committed(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.core.committed_seq() && self.core.sync.void(ticket.0).is_none()
    }

    /// Resolves once what `ticket` stands for is on disk, whatever the durability class, or with the reason why it
    /// never will be. What it superseded is dead then.
    pub async fn synced(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.core.reached(ticket.0, |core| core.journal.borrow().synced_seq()).await
    }

    /// Resolves once what `ticket` stands for is committed, or with the reason why it never will be.
    pub async fn committed(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.core.committed(ticket.0).await
    }
}

/// All names of a shard.
pub(super) struct Index {
    map: Table<Stream>,
    /// Decisions that are not durable yet, oldest first.
    pending: VecDeque<Pending>,
    /// How many of them, from the front, are committed and were acted upon.
    told: usize,
    /// Placement hashes of names whose latest record is lost.
    damaged: BTreeSet<u64>,
    next_version: u64,
    /// No stream of a name that was replaced or deleted here had a later epoch.
    epoch_floor: u64,
}

struct Pending {
    seq: u64,
    /// What is said since.
    card: Entry,
    change: Change,
    /// What was said before.
    before: Option<Entry>,
    /// The name was damaged before.
    was_damaged: bool,
}

#[derive(Clone)]
enum Change {
    Put,
    Delete(u64),
    Epoch { epoch: u64, cut: u64 },
}

/// Bits of a version: which start of the program, which shard of it, and which of the shard's decisions.
const SHARD_BITS: u32 = 10;
const COUNT_BITS: u32 = 34;

/// The most shards, which is what a version has room for.
pub(super) const SHARDS_MAX: usize = 1 << SHARD_BITS;

impl Index {
    pub(super) fn new(shard: ShardId, boot: u32, damaged: BTreeSet<u64>, epoch_floor: u64) -> Self {
        let first = (u64::from(boot) << (SHARD_BITS + COUNT_BITS)) | (u64::from(shard.0) << COUNT_BITS);
        let next_version = first + 1;
        // Not of the shard's chance, whose numbers are told to clients in ids.
        let map = Table::new(RandomState::new().hash_one(boot));
        Index { map, pending: VecDeque::new(), told: 0, damaged, next_version, epoch_floor }
    }

    /// The names as recovery found them.
    pub(super) fn recovered(&mut self, entries: Vec<Entry>) {
        self.map.fill(entries);
    }

    fn found(&self, key: KeyRef<'_>) -> Found {
        self.map.get(key).map(Found::of).unwrap_or_default()
    }

    fn stands(&self, key: &Key) -> bool {
        self.map.get(key.as_ref()).is_some_and(Card::stands)
    }

    /// A name's next stream begins in an epoch that its readers do not know yet, or they would take it for the one
    /// before. One floor for all names costs nothing to keep once a name is gone.
    fn remember_epoch(&mut self, key: &Key) {
        if let Some(entry) = self.map.get(key.as_ref()).and_then(Card::standing) {
            self.epoch_floor = self.epoch_floor.max(entry.tail.epoch());
        }
    }

    /// Whether a damaged journal record may have been about a name with this hash.
    pub(super) fn check(&self, key_hash: u64) -> Result<(), StoreError> {
        match self.damaged.contains(&key_hash) {
            true => Err(StoreError::Damaged(Damage::Name { key_hash })),
            false => Ok(()),
        }
    }

    /// A new record stands in for what was lost of this name; whether anything was.
    pub(super) fn mend(&mut self, core: &Core, key_hash: u64) -> bool {
        let was_damaged = self.damaged.remove(&key_hash);
        self.count_damaged(core);
        was_damaged
    }

    /// Takes [`Index::mend`] back.
    pub(super) fn unmend(&mut self, core: &Core, key_hash: u64) {
        self.damaged.insert(key_hash);
        self.count_damaged(core);
    }

    /// Brings the gauge of damaged names up to date.
    pub(super) fn count_damaged(&self, core: &Core) {
        core.metrics.names_damaged.set(self.damaged.len() as i64);
    }

    /// The version of the next decision, of whatever kind.
    pub(super) fn next_version(&mut self) -> u64 {
        let version = self.next_version;
        assert!((version + 1) << (64 - COUNT_BITS) != 0, "2^34 decisions of one shard since its start");
        self.next_version += 1;
        version
    }

    fn decide(&mut self, core: &Core, card: Entry, change: Change) -> Ticket {
        let seq = core.decide_change(&card, &change);
        card.set_ticket(Ticket(seq));
        let is_of_the_name = !matches!(change, Change::Epoch { .. });
        let was_damaged = is_of_the_name && self.mend(core, card.key().hash());
        let before = self.map.insert(card.clone());
        self.pending.push_back(Pending { seq, card, change, before, was_damaged });
        Ticket(seq)
    }
}

/// For checkpoints.
impl Index {
    /// What the journal durably says about the next `count_max` names after `after`: nothing for a name whose first
    /// record is not durable.
    fn durable_after(
        &self,
        after: Option<&Entry>,
        count_max: usize,
        synced: u64,
    ) -> Vec<(Entry, Option<Entry>)> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.key()));
        let listed = self.map.range(from).take(count_max);
        let durable = |card: &Entry| match card.ticket().0 <= synced {
            true => card.standing(),
            // The oldest change that is not durable knows what was before it.
            false => {
                let mut pending = self.pending.iter().filter(|pending| pending.seq > synced);
                let oldest = pending.find(|pending| pending.card.key() == card.key());
                oldest.and_then(|oldest| oldest.before.as_ref()?.standing())
            }
        };
        listed.map(|card| (card.clone(), durable(card))).collect()
    }

    /// The latest decision, as far as there are any that are not durable.
    pub(super) fn last_decided(&self) -> u64 {
        self.pending.back().map_or(0, |pending| pending.seq)
    }

    /// Placement hashes of names whose latest durable record is lost, and the floor of the next epochs.
    pub(super) fn losses(&self) -> (Vec<u64>, u64) {
        let pending = self.pending.iter().filter(|pending| pending.was_damaged);
        let damaged = self.damaged.iter().copied().chain(pending.map(|pending| pending.card.key().hash()));
        (damaged.collect(), self.epoch_floor)
    }
}

impl Pending {
    /// The stream that this change takes away.
    fn superseded(&self) -> Option<&Arc<Tail>> {
        match self.change {
            Change::Put | Change::Delete(_) => self.replaced().map(|entry| &entry.tail),
            Change::Epoch { .. } => None,
        }
    }

    /// What stood there before.
    fn replaced(&self) -> Option<&Entry> {
        self.before.as_ref().filter(|before| before.stands())
    }
}

impl Core {
    fn decide_change(&self, card: &Entry, change: &Change) -> u64 {
        let KeyRef { space, bytes } = card.key();
        let record = match change {
            Change::Put => Record::Name {
                uid: card.tail.uid(),
                epoch: card.tail.epochs().next().map_or(1, |(first, _)| first),
                created_ms: card.created_ms,
                home: card.home,
                space,
                key: bytes.into(),
                attributes: card.attributes().into(),
            },
            Change::Delete(version) => Record::Delete { version: *version, space, key: bytes.into() },
            Change::Epoch { epoch, cut } => Record::Epoch { uid: card.tail.uid(), epoch: *epoch, cut: *cut },
        };
        self.decide(&record, card.key().hash())
    }

    /// See [`Index::durable_after`].
    pub(super) fn durable_entries(
        &self,
        after: Option<&Entry>,
        count_max: usize,
    ) -> Vec<(Entry, Option<Entry>)> {
        let synced = self.journal.borrow().synced_seq();
        self.index.borrow().durable_after(after, count_max, synced)
    }

    /// Acts upon what was committed: readers of what is superseded learn that it is gone, and there is room for
    /// another name.
    pub(super) fn settle_committed(&self) {
        let committed = self.committed_seq();
        let mut index = self.index.borrow_mut();
        while let Some(pending) = index.pending.get(index.told)
            && pending.seq <= committed
        {
            if let Some(tail) = pending.superseded() {
                tail.set_gone(self.wake_for(tail));
                if let Change::Delete(_) = pending.change {
                    self.discount_name(tail.slot());
                }
            }
            index.told += 1;
        }
    }

    /// Acts upon what is durable: the bytes of what is superseded die.
    pub(super) fn settle_synced(&self) {
        self.settle_committed();
        let synced = self.journal.borrow().synced_seq();
        let mut index = self.index.borrow_mut();
        while let Some(pending) = index.pending.pop_front_if(|pending| pending.seq <= synced) {
            index.told -= 1;
            if let Some(tail) = pending.superseded() {
                reclaim::supersede(self, tail);
            }
            let key = pending.card.key();
            if !pending.card.stands() && index.map.get(key).is_some_and(|latest| latest.is(&pending.card)) {
                index.map.remove(key);
            }
        }
    }

    /// After a failed sync: takes back what nobody was told, and decides again what somebody was.
    pub(super) fn roll_back(&self) {
        let mut index = self.index.borrow_mut();
        let told = std::mem::take(&mut index.told);
        let mut again = std::mem::take(&mut index.pending);
        let mut epochs = Vec::new();
        for undone in again.drain(told..).rev() {
            match undone.change {
                // An appender may write in an epoch already, so that is not taken back.
                Change::Epoch { .. } => epochs.push(undone),
                Change::Put | Change::Delete(_) => self.take_back(&mut index, undone),
            }
        }
        index.told = again.len();
        for pending in again.into_iter().chain(epochs.into_iter().rev()) {
            self.decide_again(&mut index, pending);
        }
    }

    fn take_back(&self, index: &mut Index, undone: Pending) {
        let key = undone.card.key();
        if let Change::Put = undone.change {
            let tail = &undone.card.tail;
            tail.set_gone(self.wake_for(tail));
            // Without a durable abort the next start may find the record, and then its bytes have to be there.
            if self.health.get() != Health::ReadOnly {
                reclaim::supersede(self, tail);
            }
            if undone.replaced().is_none() {
                self.discount_name(tail.slot());
            }
        }
        if undone.was_damaged {
            index.unmend(self, key.hash());
        }
        match undone.replaced() {
            Some(before) => drop(index.map.insert(before.clone())),
            None => index.map.remove(key),
        }
    }

    fn decide_again(&self, index: &mut Index, pending: Pending) {
        let seq = self.decide_change(&pending.card, &pending.change);
        if pending.card.ticket().0 == pending.seq {
            pending.card.set_ticket(Ticket(seq));
        }
        index.pending.push_back(Pending { seq, ..pending });
    }
}

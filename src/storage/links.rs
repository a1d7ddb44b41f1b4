//! Links: names that stand for parts of bodies, and the commit point of everything that is put whole.
//!
//! Decisions are taken at once and in order against the latest state, as for [`super::Names`], and every answer that
//! depends on one waits for [`Links::committed`]. Between a link and its bodies there are two logs that become durable
//! each in its own time, so a link counts as durable only once its bodies are too: until then what it replaced is kept,
//! and a crash that takes the bodies away brings that back.
//!
//! Invariant: what a link replaced lets go of its bodies only when the link and its bodies are durable.
//! Lives on: the owner's shard; [`Link`]s go anywhere.

use super::body::Body;
use super::core::Core;
use super::error::StoreError;
use super::journal::link::{LinkRecord, PartAt, fit_together};
use super::journal::record::{ATTRIBUTES_MAX, Record};
use super::names::Ticket;
use super::names::card::Card;
use super::names::table::Table;
use super::placement::{Key, KeyRef};
use super::{Durability, Health};
use crate::runtime::executor::critical;
use crate::runtime::{shard, timer};
use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use super::journal::link::PARTS_MAX;

/// How often bodies of other shards are looked at that links wait for.
const POLL: Duration = Duration::from_millis(2);

/// Some bytes of a body, which are counted there for as long as this lives.
#[derive(Debug)]
pub struct Part {
    body: Arc<Body>,
    from: u64,
    len: u64,
}

impl Part {
    /// `len` bytes, not none, of `body` from position `from` on.
    pub fn new(body: Arc<Body>, from: u64, len: u64) -> Self {
        assert!(len > 0, "a part has bytes");
        body.note_linked(len);
        Part { body, from, len }
    }

    /// The body.
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }

    /// The body's position of the first byte.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// How many bytes.
    #[allow(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Clone for Part {
    fn clone(&self) -> Self {
        Part::new(self.body.clone(), self.from, self.len)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.body.note_unlinked(self.len);
    }
}

/// The bytes of a link, first to last. Most have one part, which needs no memory of its own.
#[derive(Clone, Debug, Default)]
pub enum Parts {
    /// No bytes.
    #[default]
    None,
    /// All of them in one place.
    One(Part),
    /// Several places; at most [`PARTS_MAX`].
    Many(Box<[Part]>),
}

impl Parts {
    /// First to last.
    pub fn as_slice(&self) -> &[Part] {
        match self {
            Parts::None => &[],
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.as_slice().iter().map(|part| part.len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        let mut parts: Vec<Part> = parts.into_iter().collect();
        match parts.len() {
            0 => Parts::None,
            1 => Parts::One(parts.remove(0)),
            _ => Parts::Many(parts.into()),
        }
    }
}

/// A name, and the parts of bodies that it stands for. Whoever has one holds the bytes.
pub type Link = Card<Content>;

/// What a name stands for.
#[derive(Debug)]
pub struct Content {
    /// Greater than that of everything the name stood for before.
    pub version: u64,
    /// When it was put, in milliseconds since 1970.
    pub created_ms: u64,
    /// Its bytes.
    pub parts: Parts,
}

impl Content {
    /// Whether its bytes are on disk as far as they will ever be.
    fn is_at_rest(&self) -> bool {
        let at_rest = |part: &Part| {
            let tail = part.body.tail();
            tail.durable() >= part.from + part.len || tail.has_failed()
        };
        self.parts.as_slice().iter().all(at_rest)
    }

    /// Whether some of its bytes are lost with a failed sync.
    fn has_failed(&self) -> bool {
        let failed = |part: &Part| {
            let tail = part.body.tail();
            tail.has_failed() && tail.durable() < part.from + part.len
        };
        self.parts.as_slice().iter().any(failed)
    }
}

/// The latest decision about a name, and the ticket to wait for before anyone is told.
#[derive(Clone, Debug, Default)]
pub struct Linked {
    /// What it stands for; `None` when it was never put or was deleted.
    pub link: Option<Link>,
    /// Answers that depend on this wait for it.
    pub ticket: Ticket,
}

impl Linked {
    fn of(card: &Link) -> Self {
        Linked { link: card.standing(), ticket: card.ticket() }
    }
}

/// Something that is put together with others.
#[derive(Debug)]
pub struct Put {
    /// Its name.
    pub key: Key,
    /// What the service keeps beside it.
    pub attributes: Box<[u8]>,
    /// Its bytes.
    pub parts: Parts,
}

/// The links that this shard owns.
pub struct Links {
    core: Rc<Core>,
}

impl Links {
    pub(super) fn new(core: Rc<Core>) -> Self {
        Links { core }
    }

    /// The latest decision about `key`. Refused when a damaged journal record may have been about it.
    pub fn get(&self, key: &Key) -> Result<Linked, StoreError> {
        self.core.index.borrow().check(key.hash())?;
        Ok(self.look(key))
    }

    /// The latest decision about `key` as far as it is known: for who replaces or deletes it, whom damage does not
    /// stop.
    pub fn look(&self, key: &Key) -> Linked {
        self.core.links.borrow().found(key)
    }

    /// Puts `key`, or replaces what it stood for. The bytes must be published, and durable in the sync class; those
    /// that this shard appended in this turn may still be on their way. `None`, with nothing done, when the name is
    /// new and its space has `names_max` names on all shards together. Puts a damaged name right again.
    pub fn put(
        &self,
        key: Key,
        attributes: Box<[u8]>,
        parts: Parts,
        names_max: u64,
    ) -> Result<Option<Linked>, StoreError> {
        assert!(attributes.len() <= ATTRIBUTES_MAX, "attributes are at most {ATTRIBUTES_MAX} bytes long");
        assert!(parts.as_slice().len() <= PARTS_MAX, "a link has at most {PARTS_MAX} parts");
        self.core.admit()?;
        let created_ms = shard::current().wall().unix_millis();
        Ok(critical(|| {
            let mut links = self.core.links.borrow_mut();
            if !links.stands(key.as_ref())
                && !self.core.tally.take_name(self.core.tally.slot(key.as_ref()), names_max)
            {
                return None;
            }
            let version = self.core.index.borrow_mut().next_version();
            let link = Link::new(key.as_ref(), &attributes, Content { version, created_ms, parts });
            let ticket = links.decide(&self.core, link.clone(), Change::Put);
            Some(Linked { link: Some(link), ticket })
        }))
    }

    /// Puts all of these, which are of one group, by one record: after a crash all of them are there or none. `None`,
    /// with nothing done, when they are too much for a record. As for [`Links::put`], but in the sync class the bytes
    /// must be durable whoever appended them: who is told of one must not lose it with another.
    pub fn put_together(&self, puts: Vec<Put>) -> Result<Option<Vec<Linked>>, StoreError> {
        self.core.admit()?;
        let created_ms = shard::current().wall().unix_millis();
        let made = puts.into_iter().map(|Put { key, attributes, parts }| {
            let version = self.core.index.borrow_mut().next_version();
            Link::new(key.as_ref(), &attributes, Content { version, created_ms, parts })
        });
        let made: Vec<Link> = made.collect();
        let Some(group) = made.first().map(|link| link.key().hash()) else { return Ok(Some(Vec::new())) };
        let is_of_group = |link: &Link| !link.key().is_alone() && link.key().hash() == group;
        assert!(made.iter().all(is_of_group), "names of one group");
        let records: Vec<_> = made.iter().map(record_of).collect();
        if !fit_together(records.iter()) {
            return Ok(None);
        }
        Ok(Some(critical(|| {
            let seq = self.core.decide(&Record::Links(records), group);
            let mut links = self.core.links.borrow_mut();
            let note = |link: &Link| {
                if !links.stands(link.key()) {
                    self.core.tally.take_name(self.core.tally.slot(link.key()), u64::MAX);
                }
                let ticket = links.note(&self.core, link.clone(), Change::Put, seq);
                Linked { link: Some(link.clone()), ticket }
            };
            made.iter().map(note).collect()
        })))
    }

    /// Has the same bytes lie elsewhere: `parts` hold what those of the link with this version do. `None`, with nothing
    /// done, when `key` stands for something else by now.
    pub fn relocate(&self, key: &Key, version: u64, parts: Parts) -> Result<Option<Linked>, StoreError> {
        self.core.admit()?;
        Ok(critical(|| {
            let mut links = self.core.links.borrow_mut();
            let before = links.found(key).link.filter(|link| link.version == version)?;
            assert_eq!(before.parts.len(), parts.len(), "bytes stay what they are");
            let version = self.core.index.borrow_mut().next_version();
            let content = Content { version, created_ms: before.created_ms, parts };
            let link = Link::new(key.as_ref(), before.attributes(), content);
            let ticket = links.decide(&self.core, link.clone(), Change::Put);
            Some(Linked { link: Some(link), ticket })
        }))
    }

    /// Deletes `key`; `None` when there is nothing, with the ticket in [`Links::look`] to wait for. A damaged name is
    /// deleted whether or not there was something.
    pub fn delete(&self, key: &Key) -> Result<Option<Ticket>, StoreError> {
        self.core.admit()?;
        Ok(critical(|| {
            let mut links = self.core.links.borrow_mut();
            let damaged = self.core.index.borrow().check(key.hash()).is_err();
            (links.stands(key.as_ref()) || damaged).then(|| {
                let version = self.core.index.borrow_mut().next_version();
                links.decide(&self.core, Link::gone(key.as_ref()), Change::Delete(version))
            })
        }))
    }

    /// Calls `each` with the names of `space` from `from` on, in order, until it says no. A name whose deletion is
    /// pending comes without a link: the answer waits for its ticket.
    pub fn each(&self, space: u8, from: Bound<&[u8]>, mut each: impl FnMut(KeyRef<'_>, &Linked) -> bool) {
        let from = match from {
            Bound::Included(bytes) => Bound::Included(KeyRef { space, bytes }),
            Bound::Excluded(bytes) => Bound::Excluded(KeyRef { space, bytes }),
            Bound::Unbounded => Bound::Included(KeyRef { space, bytes: &[] }),
        };
        let links = self.core.links.borrow();
        let listed = links.map.range(from).take_while(|card| card.key().space == space);
        for card in listed {
            if !each(card.key(), &Linked::of(card)) {
                return;
            }
        }
    }

    /// How many there are, those included whose deletion is pending.
    pub fn count(&self) -> usize {
        self.core.links.borrow().map.len()
    }

    /// Whether what `linked` says is committed in this store's durability class.
    pub fn is_committed(&self, linked: &Linked) -> bool {
        let seq = linked.ticket.0;
        let rests = || {
            let sync = self.core.durability == Durability::Sync;
            linked.link.as_ref().is_none_or(|link| !sync || link.is_at_rest() && !link.has_failed())
        };
        seq <= self.core.committed_seq() && self.core.sync.void(seq).is_none() && rests()
    }

    /// Resolves once what `linked` says is committed, or with the reason why it never will be.
    pub async fn committed(&self, linked: &Linked) -> Result<(), StoreError> {
        self.core.committed(linked.ticket.0).await?;
        let Some(link) = linked.link.as_ref().filter(|_| self.core.durability == Durability::Sync) else {
            return Ok(());
        };
        // Almost always at once: bytes that came another way are durable before they are linked.
        while !link.is_at_rest() {
            if self.core.health.get() == Health::ReadOnly {
                return Err(StoreError::ReadOnly);
            }
            timer::sleep(POLL).await;
        }
        if link.has_failed() { Err(StoreError::SyncFailed) } else { Ok(()) }
    }
}

/// All links of a shard.
pub(super) struct LinkIndex {
    map: Table<Content>,
    /// Decisions that are not durable yet, oldest first.
    pending: VecDeque<Pending>,
    /// How many of them, from the front, are committed and were acted upon.
    told: usize,
    /// A task looks when bodies that the oldest one waits for are durable.
    polls: Cell<bool>,
}

struct Pending {
    seq: u64,
    /// What is said since.
    card: Link,
    change: Change,
    /// What was said before.
    before: Option<Link>,
    /// The name was damaged before.
    was_damaged: bool,
}

enum Change {
    Put,
    Delete(u64),
}

impl Pending {
    fn is_at_rest(&self) -> bool {
        match self.change {
            Change::Put => self.card.is_at_rest(),
            Change::Delete(_) => true,
        }
    }

    /// What stood there before.
    fn replaced(&self) -> Option<&Link> {
        self.before.as_ref().filter(|before| before.stands())
    }
}

impl LinkIndex {
    /// The links as recovery found them, in the life of the data directory with number `boot`.
    pub(super) fn new(boot: u32, links: Vec<Link>) -> Self {
        // Not the seed of the names, and not of the shard's chance.
        let mut map = Table::new(RandomState::new().hash_one((boot, "links")));
        map.fill(links);
        LinkIndex { map, pending: VecDeque::new(), told: 0, polls: Cell::new(false) }
    }

    fn found(&self, key: &Key) -> Linked {
        self.map.get(key.as_ref()).map(Linked::of).unwrap_or_default()
    }

    fn stands(&self, key: KeyRef<'_>) -> bool {
        self.map.get(key).is_some_and(Card::stands)
    }

    fn decide(&mut self, core: &Core, card: Link, change: Change) -> Ticket {
        let seq = core.decide_link(&card, &change);
        self.note(core, card, change, seq)
    }

    /// What record `seq` says holds from now on.
    fn note(&mut self, core: &Core, card: Link, change: Change, seq: u64) -> Ticket {
        card.set_ticket(Ticket(seq));
        let key = card.key();
        // One that shares its hash says nothing of the others that have it.
        let was_damaged = key.is_alone() && core.index.borrow_mut().mend(core, key.hash());
        let before = self.map.insert(card.clone());
        self.pending.push_back(Pending { seq, card, change, before, was_damaged });
        Ticket(seq)
    }

    /// Placement hashes of names whose latest durable record is lost.
    pub(super) fn losses(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().filter(|pending| pending.was_damaged).map(|pending| pending.card.key().hash())
    }

    /// The first decision up to `synced` whose bodies are not durable. From it on nothing counts as durable: what a later
    /// one replaced is kept no longer than what the earlier one did.
    pub(super) fn first_fickle(&self, synced: u64) -> Option<u64> {
        let mut pending = self.pending.iter().take_while(|pending| pending.seq <= synced);
        pending.find(|pending| !pending.is_at_rest()).map(|pending| pending.seq)
    }

    /// What is durable, bodies included, about the next `count_max` names after `after`: nothing for a name whose
    /// first record is not.
    fn durable_after(
        &self,
        after: Option<&Link>,
        count_max: usize,
        synced: u64,
    ) -> Vec<(Link, Option<Link>)> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.key()));
        let first = self.first_fickle(u64::MAX).unwrap_or(u64::MAX).min(synced.saturating_add(1));
        let durable = |card: &Link| match card.ticket().0 < first {
            true => card.standing(),
            false => {
                let mut pending = self.pending.iter().filter(|pending| pending.seq >= first);
                let oldest = pending.find(|pending| pending.card.key() == card.key());
                oldest.and_then(|oldest| oldest.replaced().cloned())
            }
        };
        self.map.range(from).take(count_max).map(|card| (card.clone(), durable(card))).collect()
    }
}

impl Core {
    fn decide_link(&self, card: &Link, change: &Change) -> u64 {
        let key = card.key();
        let record = match change {
            Change::Put => Record::Link(record_of(card)),
            Change::Delete(version) => {
                Record::Delete { version: *version, space: key.space, key: key.bytes.into() }
            }
        };
        self.decide(&record, key.hash())
    }

    /// One record for what one record said.
    fn decide_links_again(&self, together: &[Pending]) -> u64 {
        match together {
            [one] => self.decide_link(&one.card, &one.change),
            many => {
                let records = many.iter().map(|pending| record_of(&pending.card)).collect();
                self.decide(&Record::Links(records), many[0].card.key().hash())
            }
        }
    }

    /// See [`LinkIndex::durable_after`].
    pub(super) fn durable_links(&self, after: Option<&Link>, count_max: usize) -> Vec<(Link, Option<Link>)> {
        let synced = self.journal.borrow().synced_seq();
        self.links.borrow().durable_after(after, count_max, synced)
    }

    /// Acts upon what was committed: there is room for another name.
    pub(super) fn settle_committed_links(&self) {
        let committed = self.committed_seq();
        let mut links = self.links.borrow_mut();
        while let Some(pending) = links.pending.get(links.told)
            && pending.seq <= committed
        {
            if let (Change::Delete(_), Some(before)) = (&pending.change, pending.replaced()) {
                self.tally.give_name(self.tally.slot(before.key()));
            }
            links.told += 1;
        }
    }

    /// Acts upon what is durable: what was replaced lets go of its bodies. Looks again later for what waits for bodies
    /// of other shards.
    pub(super) fn settle_synced_links(self: &Rc<Self>) {
        self.settle_committed_links();
        let synced = self.journal.borrow().synced_seq();
        let mut links = self.links.borrow_mut();
        let mut settled = Vec::new();
        // Of what one record says all or nothing is settled.
        let until = links.first_fickle(synced).unwrap_or(synced.saturating_add(1));
        while let Some(pending) = links.pending.pop_front_if(|pending| pending.seq < until) {
            links.told -= 1;
            let key = pending.card.key();
            if !pending.card.stands() && links.map.get(key).is_some_and(|latest| latest.is(&pending.card)) {
                links.map.remove(key);
            }
            settled.push(pending);
        }
        let waits = links.pending.front().is_some_and(|pending| pending.seq <= synced);
        if waits && !links.polls.replace(true) {
            let core = self.clone();
            shard::spawn("settle links", async move {
                timer::sleep(POLL * 10).await;
                core.links.borrow().polls.set(false);
                core.settle_synced_links();
            });
        }
        drop(links);
        // Bodies are let go of here, outside of every borrow.
        drop(settled);
    }

    /// After a failed sync: takes back what nobody was told, and decides again what somebody was.
    pub(super) fn roll_back_links(&self) {
        let mut links = self.links.borrow_mut();
        let told = std::mem::take(&mut links.told);
        let mut again = std::mem::take(&mut links.pending);
        for undone in again.drain(told..).rev() {
            let key = undone.card.key();
            if let (Change::Put, None) = (&undone.change, undone.replaced()) {
                self.tally.give_name(self.tally.slot(key));
            }
            if undone.was_damaged {
                self.index.borrow_mut().unmend(self, key.hash());
            }
            match undone.replaced() {
                Some(before) => drop(links.map.insert(before.clone())),
                None => links.map.remove(key),
            }
        }
        links.told = again.len();
        let mut again = Vec::from(again);
        for together in again.chunk_by_mut(|one, next| one.seq == next.seq) {
            let seq = self.decide_links_again(together);
            for pending in together {
                if pending.card.ticket().0 == pending.seq {
                    pending.card.set_ticket(Ticket(seq));
                }
                pending.seq = seq;
            }
        }
        links.pending = again.into();
    }
}

/// The record that says what a name stands for.
pub(super) fn record_of(link: &Link) -> LinkRecord<'_> {
    let at = |part: &Part| PartAt { uid: part.body.tail().uid(), from: part.from, len: part.len };
    LinkRecord {
        version: link.version,
        created_ms: link.created_ms,
        space: link.key().space,
        key: link.key().bytes.into(),
        attributes: link.attributes().into(),
        parts: link.parts.as_slice().iter().map(at).collect(),
    }
}

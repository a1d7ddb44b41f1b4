//! Events that a record says and that are not in their stream yet.
//!
//! Each is a link of the module's group, put by the commit's record and deleted once the event is durable in the stream.
//! One task per shard delivers them in the order of their commits, all that wait for one topic at once. A start finds
//! those that a crash left, and has each looked for in its stream, from where that ended before the commit.
//! Bound: what is committed and not delivered, which answers wait for; behind a store that refuses, retried every
//! [`RETRY`]. Invariant: an event that a record says is in its stream sooner or later, once.
//! Lives on: the module's owner.

use super::message::{Answer, Ask};
use super::topic::Events;
use super::{Chain, Identity, Stamps, ask, closing, name_of};
use crate::runtime::notify::Notify;
use crate::runtime::{shard, timer};
use crate::service::blob::{Blob, BlobError, Name, Properties};
use crate::service::owner::space;
use crate::storage::{Linked, Parts, Put, Store, StoreError};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How long to wait before what could not be delivered is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// The most that is delivered at once.
const TOGETHER_MAX: usize = 256;

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    stamp: u64,
    name: Name,
    topic: Box<str>,
    correlation: Box<str>,
    /// Where its stream ended before it was committed.
    from: u64,
    /// Its line; `None` until it is read, for one that a start found.
    event: Option<Bytes>,
}

impl Waiting {
    pub fn new(identity: &Identity, stamp: u64, topic: Box<str>, from: u64, event: Bytes) -> Self {
        let name = name_of(space::OUTBOX, &identity.event, &stamp.to_be_bytes());
        Waiting { stamp, name, topic, correlation: identity.correlation.clone(), from, event: Some(event) }
    }

    /// What puts it.
    pub fn put(&self, parts: Parts) -> Put {
        let fields = vec![
            ("correlation".into(), Box::from(self.correlation.as_bytes())),
            ("from".into(), Box::from(self.from.to_le_bytes())),
            ("stamp".into(), Box::from(self.stamp.to_le_bytes())),
        ];
        let attributes = Properties { etag: "".into(), fields }.encode();
        Put { key: self.name.store_key(), attributes, parts }
    }
}

/// What of a shard's modules waits.
pub(super) struct Outbox {
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    /// Those whose record is committed: only they are delivered.
    due: RefCell<HashSet<u64>>,
    changed: Notify,
    closed: Cell<bool>,
}

impl Outbox {
    /// What a crash left.
    pub fn read(store: &Store, stamps: &Stamps) -> Self {
        let (mut waiting, mut due) = (BTreeMap::new(), HashSet::new());
        store.links().each(space::OUTBOX, Bound::Unbounded, |key, linked| {
            let (Some((name, _)), Some(link)) = (Name::of_key(key), &linked.link) else { return true };
            let properties = Properties::decode(link.attributes()).unwrap_or_default();
            let number = |field| {
                properties.field(field).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
            };
            let correlation: Box<str> =
                String::from_utf8_lossy(properties.field("correlation").unwrap_or_default()).into();
            let (stamp, topic) = (number("stamp"), super::topic_of(&correlation));
            stamps.note(stamp);
            waiting.insert(
                stamp,
                Waiting { stamp, name, topic, correlation, from: number("from"), event: None },
            );
            due.insert(stamp);
            true
        });
        let (waiting, due) = (RefCell::new(waiting), RefCell::new(due));
        Outbox { waiting, due, changed: Notify::new(), closed: Cell::new(false) }
    }

    /// These were decided.
    pub fn enter(&self, events: Vec<Waiting>) -> Vec<u64> {
        let stamps = events.iter().map(|event| event.stamp).collect();
        self.waiting.borrow_mut().extend(events.into_iter().map(|event| (event.stamp, event)));
        stamps
    }

    /// They were taken back by a failed sync.
    pub fn withdraw(&self, stamps: &[u64]) {
        stamps.iter().for_each(|stamp| drop(self.waiting.borrow_mut().remove(stamp)));
        self.changed.notify_all();
    }

    /// They are committed: resolves once they are in their stream.
    pub async fn deliver(&self, stamps: &[u64]) -> Result<(), StoreError> {
        self.due.borrow_mut().extend(stamps);
        self.changed.notify_all();
        loop {
            let changed = self.changed.wait();
            if !stamps.iter().any(|stamp| self.waiting.borrow().contains_key(stamp)) {
                return Ok(());
            }
            if self.closed.get() {
                return closing();
            }
            changed.await;
        }
    }

    /// Resolves once nothing that was decided before waits for this chain's stream.
    pub async fn settle(&self, correlation: &str) -> Result<(), StoreError> {
        let last = match self.waiting.borrow().last_key_value() {
            Some((last, _)) => *last,
            None => return Ok(()),
        };
        loop {
            let changed = self.changed.wait();
            let waits = |waiting: &Waiting| *waiting.correlation == *correlation;
            if !self.waiting.borrow().range(..=last).any(|(_, waiting)| waits(waiting)) {
                return Ok(());
            }
            if self.closed.get() {
                return closing();
            }
            changed.await;
        }
    }

    /// The first that are due, of one topic. One that is decided and not committed holds up what follows it there.
    fn next(&self) -> Vec<Waiting> {
        let (waiting, due) = (self.waiting.borrow(), self.due.borrow());
        let mut held: HashSet<&str> = HashSet::new();
        let mut taken: Vec<Waiting> = Vec::new();
        for (stamp, one) in &*waiting {
            if !due.contains(stamp) {
                held.insert(&one.topic);
            } else if !held.contains(&*one.topic)
                && taken.first().is_none_or(|first| first.topic == one.topic)
                && taken.len() < TOGETHER_MAX
            {
                taken.push(one.clone());
            }
        }
        taken
    }

    fn is_done(&self, one: &Waiting) {
        self.waiting.borrow_mut().remove(&one.stamp);
        self.due.borrow_mut().remove(&one.stamp);
        self.changed.notify_all();
    }
}

impl Chain {
    pub(super) fn start_delivering(self: &Rc<Self>) {
        shard::spawn("deliver events", run(Rc::downgrade(self)));
    }

    /// Has these in their stream, and forgets them.
    async fn deliver(self: &Rc<Self>, together: Vec<Waiting>) -> Result<(), StoreError> {
        let Some(Waiting { topic, correlation, .. }) = together.first().cloned() else { return Ok(()) };
        let mut events = Events::default();
        for one in &together {
            match &one.event {
                Some(event) => events.new.push(event.clone()),
                None => match self.read_waiting(&one.name).await? {
                    Some(event) => events.again.push((one.from, event)),
                    None => tracing::error!(
                        topic = &*topic,
                        "a committed event is damaged and cannot be published"
                    ),
                },
            }
        }
        let owner = self.owner_of_topic(&topic);
        let appended: Result<(), StoreError> =
            ask!(self, owner, Ask::Append(correlation, events), Answer::Appended);
        appended?;
        for one in &together {
            self.outbox.is_done(one);
            if let Some(ticket) = self.store.links().delete(&one.name.store_key())? {
                // Nobody waits for this: at worst a start looks for an event that is there.
                let _ = self.store.links().is_committed(&Linked { link: None, ticket });
            }
        }
        Ok(())
    }

    async fn read_waiting(self: &Rc<Self>, name: &Name) -> Result<Option<Bytes>, StoreError> {
        let Some(link) = self.store.links().get(&name.store_key())?.link else { return Ok(None) };
        match self.blobs.read_whole(&Blob::new(name.clone(), link)).await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(BlobError::Store(StoreError::Damaged(_))) => Ok(None),
            Err(BlobError::Store(error)) => Err(error),
            Err(other) => unreachable!("{other} of a blob that is there"),
        }
    }
}

async fn run(chain: Weak<Chain>) {
    loop {
        let Some(strong) = chain.upgrade() else { return };
        let changed = strong.outbox.changed.wait();
        let next = strong.outbox.next();
        if next.is_empty() {
            changed.await;
            continue;
        }
        drop(changed);
        match strong.deliver(next).await {
            Ok(()) => {}
            Err(StoreError::Closing) => {
                strong.outbox.closed.set(true);
                strong.outbox.changed.notify_all();
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "committed events wait for their stream");
                drop(strong);
                timer::sleep(RETRY).await;
            }
        }
    }
}

//! Topics: the stream of a chain's events, one line of JSON each.
//!
//! A topic's stream has its appender on its owner's shard, whoever publishes; the others send what they have, at most one
//! request's events at a time for every connection. It stays open between events, as long as it is among the last
//! [`OPEN_MAX`] that were used here. Invariant: lines of different publishers do not mix, and what was answered is
//! committed in the store's class. Lives on: the topic's owner.

use super::message::{Answer, Ask};
use super::{Chain, Identity, ask};
use crate::runtime::notify::Notify;
use crate::runtime::{ShardId, shard};
use crate::service::owner::space;
use crate::service::stream::{Id, Open, OpenError, ProduceError, Producer, Resume, StoreError, Tail};
use crate::service::warm;
use crate::storage::{Durability, placement_hash};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Streams that are kept open on a shard.
const OPEN_MAX: usize = 256;
/// Most bytes looked through at once for an event that may be there.
const LOOK_MAX: u64 = 1 << 20;

/// The id of the stream that has a chain's events.
pub fn topic_of(correlation: &str) -> Box<str> {
    format!("ion/{correlation}").into()
}

/// A topic that is there.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its bytes.
    pub tail: Arc<Tail>,
    /// Where the last line that is published ends.
    pub end: u64,
}

/// What is to be appended.
#[derive(Debug, Default)]
pub struct Events {
    /// What may be there already, from this offset on.
    pub again: Vec<(u64, Bytes)>,
    /// What is not.
    pub new: Vec<Bytes>,
}

/// The topics of a shard that are open, or about to be.
#[derive(Default)]
pub(super) struct Topics {
    desks: RefCell<HashMap<Box<str>, Rc<Desk>>>,
    uses: Cell<u64>,
}

#[derive(Default)]
struct Desk {
    producer: RefCell<Option<Producer>>,
    /// Where its last whole line ends.
    end: Cell<u64>,
    busy: Cell<bool>,
    free: Notify,
    used: Cell<u64>,
}

impl Topics {
    fn desk(&self, topic: &str) -> Rc<Desk> {
        let mut desks = self.desks.borrow_mut();
        if desks.len() >= OPEN_MAX && !desks.contains_key(topic) {
            let idle = desks.iter().filter(|(_, desk)| !desk.busy.get() && Rc::strong_count(desk) == 1);
            if let Some(oldest) = idle.min_by_key(|(_, desk)| desk.used.get()).map(|(name, _)| name.clone()) {
                desks.remove(&oldest);
            }
        }
        self.uses.set(self.uses.get() + 1);
        let desk = desks.entry(topic.into()).or_default();
        desk.used.set(self.uses.get());
        desk.clone()
    }

    /// Lets go of all.
    pub fn close(&self) {
        self.desks.borrow_mut().clear();
    }
}

impl Desk {
    async fn take_turn(self: &Rc<Self>) -> Turn {
        while self.busy.replace(true) {
            self.free.wait().await;
        }
        Turn(self.clone())
    }
}

struct Turn(Rc<Desk>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.free.notify_all();
    }
}

/// For any shard.
impl Chain {
    /// Publishes an event that nothing has to be kept together with. Resolves once it is committed.
    pub(super) async fn publish(
        self: &Rc<Self>,
        identity: &Identity,
        event: Bytes,
    ) -> Result<(), StoreError> {
        let topic = topic_of(&identity.correlation);
        let events = Events { again: Vec::new(), new: vec![event] };
        ask!(
            self,
            self.owner_of_topic(&topic),
            Ask::Append(identity.correlation.clone(), events),
            Answer::Appended
        )
    }

    /// The events of a chain, all those included that were committed before this was asked; `None` when there is none
    /// and it is not to be made for who wants to follow it.
    pub async fn events(
        self: &Rc<Self>,
        correlation: &str,
        follow: bool,
    ) -> Result<Option<Topic>, StoreError> {
        for shard in shard::current().all() {
            let settled: Result<(), StoreError> =
                ask!(self, shard, Ask::Settle(correlation.into()), Answer::Settled);
            settled?;
        }
        self.topic(correlation, follow).await
    }

    pub(super) async fn topic(
        self: &Rc<Self>,
        correlation: &str,
        open: bool,
    ) -> Result<Option<Topic>, StoreError> {
        let owner = self.owner_of_topic(&topic_of(correlation));
        ask!(self, owner, Ask::Topic(correlation.into(), open), Answer::Topic)
    }

    pub(super) fn owner_of_topic(&self, topic: &str) -> ShardId {
        self.store.owner_of_hash(placement_hash(space::STREAMS, topic.as_bytes()))
    }
}

/// For the owner's shard.
impl Chain {
    pub(super) async fn append_to_topic(
        self: Rc<Self>,
        correlation: Box<str>,
        events: Events,
    ) -> Result<(), StoreError> {
        let topic = topic_of(&correlation);
        let desk = self.topics.desk(&topic);
        let turn = desk.take_turn().await;
        self.open_topic(&topic, &desk).await?;
        let tail = self.streams.find(&id_of(&topic)).await?.ok_or(StoreError::Gone)?.tail;
        let mut lines = Vec::with_capacity(events.again.len() + events.new.len());
        for (from, event) in events.again {
            if !self.has(&tail, from, &event).await? {
                lines.push(event);
            }
        }
        lines.extend(events.new);
        // Out of its desk while it works: should this fail, or be dropped, the stream is opened anew.
        let mut producer = desk.producer.take().ok_or(StoreError::Gone)?;
        for line in &lines {
            producer.take(line);
            producer.take(b"\n");
            made(producer.make_room().await)?;
        }
        let end = producer.position();
        desk.producer.replace(Some(producer));
        desk.end.set(end);
        drop(turn);
        match self.store.durability() {
            Durability::Sync => self.store.durable(&tail, end).await,
            // The end of this turn publishes it.
            Durability::Cache => {
                shard::yield_now().await;
                Ok(())
            }
        }
    }

    pub(super) async fn look_at_topic(
        self: Rc<Self>,
        correlation: Box<str>,
        open: bool,
    ) -> Result<Option<Topic>, StoreError> {
        let topic = topic_of(&correlation);
        let there = self.streams.find(&id_of(&topic)).await?;
        if there.is_none() && !open {
            return Ok(None);
        }
        let desk = self.topics.desk(&topic);
        // Nobody is in the middle of a line then.
        let _turn = desk.take_turn().await;
        if open || desk.producer.borrow().is_some() {
            self.open_topic(&topic, &desk).await?;
        }
        let Some(found) = self.streams.find(&id_of(&topic)).await? else { return Ok(None) };
        let published = found.tail.published();
        let end = if desk.producer.borrow().is_some() { desk.end.get().min(published) } else { published };
        Ok(Some(Topic { tail: found.tail, end }))
    }

    /// Has the appender of a topic in its desk.
    async fn open_topic(self: &Rc<Self>, topic: &str, desk: &Rc<Desk>) -> Result<(), StoreError> {
        if desk.producer.borrow().as_ref().is_some_and(|producer| !producer.is_fenced()) {
            return Ok(());
        }
        desk.producer.take();
        let id = id_of(topic);
        let producer = match self.streams.find(&id).await? {
            Some(found) => {
                let (offset, epoch) = (found.tail.published(), found.tail.epoch());
                opened(self.streams.resume(id, Resume { offset, epoch, announced: None }).await)?
            }
            None => opened(self.streams.open(id, Open::default()).await)?,
        };
        desk.end.set(producer.start());
        let mut producer = producer;
        if self.is_torn(topic, producer.start()).await? {
            // A crash took the end of a line that nobody was promised. The next one begins behind a line's end.
            tracing::warn!(topic, offset = producer.start(), "a torn line is ended");
            producer.take(b"\n");
            made(producer.make_room().await)?;
            desk.end.set(producer.position());
        }
        desk.producer.replace(Some(producer));
        Ok(())
    }

    /// Whether what is there ends in the middle of a line.
    async fn is_torn(&self, topic: &str, end: u64) -> Result<bool, StoreError> {
        let Some(tail) = self.streams.find(&id_of(topic)).await?.map(|found| found.tail) else {
            return Ok(false);
        };
        if end <= tail.first() {
            return Ok(false);
        }
        let range = tail.range(end - 1, 1).ok_or(StoreError::SyncFailed)?;
        warm::warm(&self.store, &tail, end - 1, &range).await?;
        Ok(warm::load(range).await? != b"\n")
    }

    /// Whether `event` is a line of the topic from `from` on.
    async fn has(&self, tail: &Arc<Tail>, from: u64, event: &Bytes) -> Result<bool, StoreError> {
        let (mut at, end) = (from.min(tail.published()).max(tail.first()), tail.published());
        let mut kept: Vec<u8> = Vec::new();
        while at < end {
            let Some(range) = tail.range(at, LOOK_MAX.min(end - at)) else { return Ok(false) };
            warm::warm(&self.store, tail, at, &range).await?;
            at += range.len;
            kept.extend(warm::load(range).await?);
            if memchr::memmem::find(&kept, event).is_some() {
                return Ok(true);
            }
            // It may begin in this piece and end in the next one.
            let rest = kept.len().saturating_sub(event.len());
            kept.drain(..rest);
        }
        Ok(false)
    }
}

fn id_of(topic: &str) -> Id {
    Id::new(topic.as_bytes()).expect("an id of a chain has at most 255 bytes")
}

fn opened(outcome: Result<Producer, OpenError>) -> Result<Producer, StoreError> {
    outcome.map_err(|error| match error {
        OpenError::Store(error) => error,
        OpenError::Limit(_) => StoreError::NoSpace,
        // Somebody else has it, or had it a moment ago.
        OpenError::Taken | OpenError::Unknown | OpenError::WrongPlace { .. } | OpenError::Complete { .. } => {
            StoreError::Attached
        }
        OpenError::MetadataTooLong(_) => unreachable!("there is none"),
    })
}

fn made(outcome: Result<(), ProduceError>) -> Result<(), StoreError> {
    outcome.map_err(|error| match error {
        ProduceError::Store(error) => error,
        ProduceError::Limit(_) => StoreError::NoSpace,
    })
}

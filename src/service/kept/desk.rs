//! The appender of a kept topic, and how messages become its lines.
//!
//! A line is a message as subscribers get it, with the time at which it was appended as its last key. What a crash cut off
//! in the middle of a line is ended before the next one, and is no message for readers.
//! Invariant: lines of different publishers do not mix; a line is appended whole or its publisher is told.
//! Lives on: the topic's owner.

use super::{Kept, KeptError, Topic, id_of, opened};
use crate::runtime::notify::Notify;
use crate::runtime::shard;
use crate::service::stream::{ProduceError, Producer, Resume, StoreError, Tail};
use crate::storage::Durability;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Appenders that are kept open on a shard.
const OPEN_MAX: usize = 256;

/// One topic's appender, taken in turns.
#[derive(Default)]
pub(super) struct Desk {
    producer: RefCell<Option<Producer>>,
    /// Where its last whole line ends.
    end: Cell<u64>,
    /// The time of its last line, in milliseconds since 1970.
    latest: Cell<u64>,
    /// Messages since the topic's desk was set up.
    appended: Cell<u64>,
    busy: Cell<bool>,
    free: Notify,
    used: Cell<u64>,
}

impl Desk {
    /// How many messages were appended here.
    pub(super) fn appended(&self) -> u64 {
        self.appended.get()
    }
}

struct Turn(Rc<Desk>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.free.notify_all();
    }
}

impl Kept {
    fn desk(&self, topic: &Arc<str>) -> Rc<Desk> {
        let mut desks = self.desks.borrow_mut();
        if desks.len() >= OPEN_MAX && !desks.contains_key(topic) {
            let idle = desks.iter().filter(|(_, desk)| Rc::strong_count(desk) == 1);
            let oldest = idle.min_by_key(|(_, desk)| desk.used.get()).map(|(name, _)| name.clone());
            oldest.map(|oldest| desks.remove(&oldest));
        }
        self.uses.set(self.uses.get() + 1);
        let desk = desks.entry(topic.clone()).or_default();
        desk.used.set(self.uses.get());
        desk.clone()
    }

    async fn turn(&self, topic: &Arc<str>) -> Result<Turn, KeptError> {
        let desk = self.desk(topic);
        while desk.busy.replace(true) {
            desk.free.wait().await;
        }
        let turn = Turn(desk);
        self.have_open(topic, &turn.0).await?;
        Ok(turn)
    }

    /// As the owner: has the topic there.
    pub(super) async fn open_owned(self: Rc<Self>, topic: Arc<str>) -> Result<Topic, KeptError> {
        let turn = self.turn(&topic).await?;
        let tail = self.committed_tail(&topic).await?;
        // What was appended in this turn of the shard is published at its end.
        let end = turn.0.end.get().min(tail.published());
        Ok(Topic { tail, end })
    }

    /// As the owner: appends lines, and waits until they are committed.
    pub(super) async fn append_owned(
        self: Rc<Self>,
        topic: Arc<str>,
        lines: Vec<Bytes>,
    ) -> Result<(), KeptError> {
        let turn = self.turn(&topic).await?;
        let tail = self.committed_tail(&topic).await?;
        let now = shard::current().wall().unix_millis().max(turn.0.latest.get());
        let mut text = Vec::new();
        for line in &lines {
            let open = line.strip_suffix(b"}").unwrap_or(line);
            text.extend_from_slice(open);
            let mut time = String::new();
            let _ = writeln!(time, ",\"Time\":{now}}}");
            text.extend_from_slice(time.as_bytes());
        }
        let (used, quota) = (self.shared.bytes.load(Ordering::Relaxed), self.quota.get());
        if quota > 0 && used + text.len() as u64 > quota {
            return Err(KeptError::Full);
        }
        // Out of its desk while it works: should this fail, or be dropped, the stream is opened anew.
        let mut producer = turn.0.producer.take().ok_or(StoreError::Gone)?;
        producer.take(&text);
        made(producer.make_room().await)?;
        let end = producer.position();
        self.shared.bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
        turn.0.end.set(end);
        turn.0.latest.set(now);
        turn.0.appended.set(turn.0.appended.get() + lines.len() as u64);
        turn.0.producer.replace(Some(producer));
        drop(turn);
        let streams = self.streams().await?;
        match streams.store().durability() {
            Durability::Sync => streams.store().durable(&tail, end).await?,
            // The end of this turn publishes it.
            Durability::Cache => shard::yield_now().await,
        }
        Ok(())
    }

    /// The topic's bytes, once its name is committed.
    async fn committed_tail(&self, topic: &Arc<str>) -> Result<Arc<Tail>, KeptError> {
        let found = self.streams().await?.find(&id_of(topic)?).await?;
        Ok(found.ok_or(StoreError::Gone)?.tail)
    }

    async fn have_open(&self, topic: &Arc<str>, desk: &Desk) -> Result<(), KeptError> {
        if desk.producer.borrow().as_ref().is_some_and(|producer| !producer.is_fenced()) {
            return Ok(());
        }
        desk.producer.take();
        let (streams, id) = (self.streams().await?, id_of(topic)?);
        let mut producer = match streams.find(&id).await? {
            None => opened(streams.open(id, crate::service::stream::Open::default()).await)?,
            Some(found) => {
                let (offset, epoch) = (found.tail.published(), found.tail.epoch());
                let resumed = opened(streams.resume(id, Resume { offset, epoch, announced: None }).await)?;
                let is_whole = offset <= found.tail.first()
                    || super::lines::byte_at(&streams, &found.tail, offset - 1).await? == Some(b'\n');
                let mut resumed = resumed;
                if !is_whole {
                    resumed.take(b"\n");
                }
                resumed
            }
        };
        made(producer.make_room().await)?;
        desk.end.set(producer.position());
        desk.producer.replace(Some(producer));
        Ok(())
    }
}

fn made(outcome: Result<(), ProduceError>) -> Result<(), KeptError> {
    outcome.map_err(|error| match error {
        ProduceError::Store(error) => error.into(),
        ProduceError::Limit(_) => KeptError::Full,
    })
}

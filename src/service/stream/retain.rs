//! Retention: streams that ended long ago go, and the oldest of them when all together are too much.
//!
//! Each owner looks at its own names for what is too old, and sleeps until the next one is due. What all shards have
//! together is the first shard's business: it asks every owner for what ended first there, merges, and has the oldest
//! deleted by whoever owns them. A stream goes as if somebody had asked for its deletion. Producers tell the first
//! shard when there is too much, so that nobody looks at a clock for that.
//!
//! A stream goes at most a second too late for its age, and one more for each 100,000 streams of its owner; what is too
//! much goes as fast as it can be deleted.
//!
//! Invariant: a stream is deleted only if it stands as it did when it was chosen: ended, in the same epoch, at the same
//! time. Without retention nothing here runs and no timer is set. Lives on: every shard.

use super::id::Id;
use super::list::Walk;
use super::message::{Answer, Ask};
use super::{Streams, ask};
use crate::runtime::notify::Notify;
use crate::runtime::{Moment, ShardId, shard, timer};
use crate::service::owner;
use crate::storage::{Entry, State, StoreError, Ticket};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

/// How long streams are kept. Nothing is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// A stream that ended longer ago goes.
    pub age_max: Option<Duration>,
    /// When all streams of all shards have more bytes together, those that ended first go.
    pub bytes_max: Option<u64>,
}

/// A stream that has ended. Older ones are less.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ended {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its name.
    pub id: Id,
    /// Its number.
    pub uid: u64,
    /// What it has.
    pub bytes: u64,
}

/// The streams of an owner that ended first.
#[derive(Clone, Debug)]
pub struct Oldest {
    /// Oldest first.
    pub streams: Vec<Ended>,
    /// Whether others ended later.
    pub has_more: bool,
}

/// What went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reaped {
    /// So many streams.
    pub streams: u64,
    /// With so many bytes.
    pub bytes: u64,
}

/// Why streams go, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// They ended too long ago.
    Age,
    /// All streams have too much together.
    Bytes,
}

/// The shortest time between two looks.
const STEP: Duration = Duration::from_secs(1);
/// What each name that was looked at adds to it: so looking costs a shard a hundredth of its time, or so.
const STEP_PER_NAME: Duration = Duration::from_micros(10);
/// The longest time until what is too much is looked at again when nothing could go.
const FRUITLESS: Duration = Duration::from_secs(10);
/// The longest time between two looks for age: the host's clock may be set meanwhile.
const REST: Duration = Duration::from_secs(3600);
/// Most streams that go at once.
const BATCH: usize = 1024;
/// The shard that looks after what all have together.
const FIRST: ShardId = ShardId(0);

/// A shard's part in retention.
#[derive(Default)]
pub(super) struct Reaper {
    retention: Cell<Retention>,
    closed: Cell<bool>,
    /// Told when either of these changed.
    changed: Notify,
    /// When this shard last told the first one that there is too much.
    told: Cell<Option<Moment>>,
    /// On the first shard: when it last heard so.
    heard: Cell<Option<Moment>>,
    /// On the first shard: told when it hears so, and when the retention changed.
    crowded: Notify,
}

impl Reaper {
    fn wake(&self) {
        self.changed.notify_all();
        self.crowded.notify_all();
    }
}

impl Streams {
    /// Keeps streams as long as `retention` says, from now on.
    pub fn retain(&self, retention: Retention) {
        if self.reaper.retention.replace(retention) != retention {
            self.reaper.wake();
        }
    }

    /// Nothing is deleted any more unless somebody asks for it.
    pub(super) fn end_retention(&self) {
        self.reaper.closed.set(true);
        self.reaper.wake();
    }

    /// To be called when there are more bytes, or more of them could go. Tells the first shard if there is too much:
    /// at most once per [`STEP`], because the first shard looks again that long after it heard.
    pub(super) fn note_growth(&self) {
        let Some(max) = self.reaper.retention.get().bytes_max else { return };
        if self.total_bytes() <= max {
            return;
        }
        let now = shard::now();
        if self.reaper.told.get().is_none_or(|told| now.since(told) >= STEP) {
            self.reaper.told.set(Some(now));
            self.post().tell(FIRST, Ask::Crowded);
        }
    }

    /// For the first shard.
    pub(super) fn note_crowded(&self) {
        self.reaper.heard.set(Some(shard::now()));
        self.reaper.crowded.notify_all();
    }

    /// Starts what looks after this shard's streams and, on the first shard, after the sum of all.
    pub(super) fn start_reapers(self: &Rc<Self>) {
        shard::spawn("reap by age", self.clone().reap_by_age());
        if self.me == FIRST {
            shard::spawn("reap by bytes", self.clone().reap_by_bytes());
        }
    }

    async fn reap_by_age(self: Rc<Self>) {
        loop {
            let changed = self.reaper.changed.wait();
            if self.reaper.closed.get() {
                return;
            }
            match self.reaper.retention.get().age_max {
                None => changed.await,
                Some(age_max) => {
                    let rest = self.reap_aged(age_max).await;
                    timer::until(shard::now() + rest, changed).await;
                }
            }
        }
    }

    /// Deletes what ended longer than `age_max` ago, and returns how long nothing else will be due.
    async fn reap_aged(self: &Rc<Self>, age_max: Duration) -> Duration {
        let age_ms_max = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        let mut next_ms = now_ms().saturating_add(age_ms_max);
        let (mut due, mut looked) = (Vec::new(), 0);
        let mut names = Walk::new(self, Bytes::new(), None);
        while let Some(entry) = names.next().await {
            looked += 1;
            if !has_ended(&entry) {
                continue;
            }
            let due_ms = entry.tail.ended_ms().saturating_add(age_ms_max);
            if due_ms > now_ms() {
                next_ms = next_ms.min(due_ms);
                continue;
            }
            due.push(ended(&entry));
            if due.len() == BATCH && self.clone().reap(std::mem::take(&mut due), Reason::Age).await.is_err() {
                break;
            }
        }
        // What stands against it is logged, and tried again with the next look.
        let _ = self.clone().reap(due, Reason::Age).await;
        let rest = Duration::from_millis(next_ms.saturating_sub(now_ms()));
        rest.min(REST).max(STEP + STEP_PER_NAME * looked)
    }

    async fn reap_by_bytes(self: Rc<Self>) {
        loop {
            let (changed, crowded) = (self.reaper.changed.wait(), self.reaper.crowded.wait());
            if self.reaper.closed.get() {
                return;
            }
            let max = self.reaper.retention.get().bytes_max;
            let Some(max) = max.filter(|max| self.total_bytes() > *max) else {
                // Whoever told us says nothing more for a while, whatever it receives.
                match self.reaper.heard.take() {
                    Some(heard) => drop(timer::until(heard + STEP, changed).await),
                    None => crowded.await,
                }
                continue;
            };
            let reaped = match self.reap_excess(max).await {
                Ok(reaped) => reaped,
                Err(error) => {
                    tell_trouble(&error);
                    Reaped::default()
                }
            };
            let is_fruitless = reaped.streams == 0;
            if is_fruitless || self.total_bytes() <= max {
                let names = self.store.tally().names(owner::space::STREAMS);
                let looked = u32::try_from(names).unwrap_or(u32::MAX);
                timer::until(shard::now() + STEP + STEP_PER_NAME * looked, changed).await;
            }
            if is_fruitless {
                timer::until(shard::now() + FRUITLESS, crowded).await;
            }
        }
    }

    /// Has the oldest deleted until no more than `bytes_max` are left of all, or nothing that has ended.
    async fn reap_excess(&self, bytes_max: u64) -> Result<Reaped, StoreError> {
        let excess = self.total_bytes().saturating_sub(bytes_max);
        let mut parts = Vec::new();
        for owner in shard::current().all() {
            let part: Result<Oldest, StoreError> = ask!(self, owner, Ask::Oldest(excess), Answer::Oldest);
            parts.push(part?);
        }
        let mut by_owner: BTreeMap<ShardId, Vec<Ended>> = BTreeMap::new();
        for ended in choose(parts, excess) {
            by_owner.entry(self.owner_of(&ended.id)).or_default().push(ended);
        }
        let mut all = Reaped::default();
        for (owner, chosen) in by_owner {
            let question = Ask::Reap(chosen, Reason::Bytes);
            let reaped: Result<Reaped, StoreError> = ask!(self, owner, question, Answer::Reaped);
            let reaped = reaped?;
            all.streams += reaped.streams;
            all.bytes += reaped.bytes;
        }
        Ok(all)
    }
}

/// For every owner.
impl Streams {
    /// What ended first here, until it has `bytes` bytes together.
    pub(super) async fn oldest_owned(self: Rc<Self>, bytes: u64) -> Result<Oldest, StoreError> {
        let mut oldest = Heap { streams: BinaryHeap::new(), sum: 0, has_more: false, wanted: bytes };
        let mut names = Walk::new(&self, Bytes::new(), None);
        while let Some(entry) = names.next().await {
            // Without bytes it is too much of nothing.
            if has_ended(&entry) && entry.tail.published() > 0 {
                oldest.offer(&entry);
            }
        }
        Ok(Oldest { streams: oldest.streams.into_sorted_vec(), has_more: oldest.has_more })
    }

    /// Deletes these as far as they stand as they did. Resolves once their space is dead.
    pub(super) async fn reap(
        self: Rc<Self>,
        chosen: Vec<Ended>,
        reason: Reason,
    ) -> Result<Reaped, StoreError> {
        let (mut last, mut reaped, mut outcome) = (Ticket::default(), Reaped::default(), Ok(()));
        for ended in &chosen {
            match self.delete_ended(ended) {
                Ok(None) => {}
                Ok(Some(ticket)) => {
                    last = last.max(ticket);
                    reaped.streams += 1;
                    reaped.bytes += ended.bytes;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if reaped.streams > 0 {
            match self.store.names().synced(last).await {
                Ok(()) => {
                    self.metrics.reaped_streams.add(reaped.streams);
                    self.metrics.reaped_bytes.add(reaped.bytes);
                    let Reaped { streams, bytes } = reaped;
                    tracing::info!(?reason, streams, bytes, "streams reaped");
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if let Err(error) = &outcome {
            tell_trouble(error);
        }
        outcome.map(|()| reaped)
    }

    fn delete_ended(&self, chosen: &Ended) -> Result<Option<Ticket>, StoreError> {
        let (names, key) = (self.store.names(), chosen.id.key());
        let entry = names.look(&key).entry;
        if !entry.is_some_and(|entry| has_ended(&entry) && ended(&entry) == *chosen) {
            return Ok(None);
        }
        let ticket = names.delete(&key)?;
        self.let_go(chosen.uid);
        Ok(ticket)
    }
}

/// The oldest of those that were offered, as many as are wanted.
struct Heap {
    streams: BinaryHeap<Ended>,
    sum: u64,
    has_more: bool,
    wanted: u64,
}

impl Heap {
    fn offer(&mut self, entry: &Entry) {
        let is_full = self.sum >= self.wanted || self.streams.len() == BATCH;
        if is_full && self.streams.peek().is_some_and(|newest| newest.at_ms < entry.tail.ended_ms()) {
            self.has_more = true;
            return;
        }
        let ended = ended(entry);
        self.sum += ended.bytes;
        self.streams.push(ended);
        while let Some(newest) = self.streams.peek()
            && (self.streams.len() > BATCH || self.sum - newest.bytes >= self.wanted)
        {
            self.sum -= newest.bytes;
            self.streams.pop();
            self.has_more = true;
        }
    }
}

/// The oldest of all, until they have `bytes` together. Behind the last one of a part that has more, nobody knows who
/// comes first.
fn choose(parts: Vec<Oldest>, bytes: u64) -> Vec<Ended> {
    let ends = parts.iter().filter(|part| part.has_more).filter_map(|part| part.streams.last());
    let horizon = ends.min().cloned();
    let mut streams: Vec<Ended> = parts.into_iter().flat_map(|part| part.streams).collect();
    streams.sort_unstable();
    let mut sum = 0;
    let is_chosen = |ended: &Ended| {
        let is_wanted = sum < bytes && horizon.as_ref().is_none_or(|end| ended <= end);
        sum += ended.bytes;
        is_wanted
    };
    let count = streams.iter().map(is_chosen).take_while(|chosen| *chosen).count();
    streams.truncate(count);
    streams
}

fn has_ended(entry: &Entry) -> bool {
    matches!(entry.tail.state(), State::Complete | State::Interrupted)
}

/// Of a stream that has.
fn ended(entry: &Entry) -> Ended {
    let tail = &entry.tail;
    let (at_ms, bytes) = (tail.ended_ms(), tail.published());
    Ended { at_ms, id: Id::of_key(&entry.key), uid: tail.uid(), bytes }
}

fn now_ms() -> u64 {
    shard::current().wall().unix_millis()
}

fn tell_trouble(error: &StoreError) {
    // The end of the shard is no trouble.
    if *error != StoreError::Closing {
        tracing::warn!(%error, "retention is held up");
    }
}

#[cfg(test)]
mod tests;

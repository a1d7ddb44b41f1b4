//! Retention: what is too old goes, and the oldest when all together are too much. Each keeper has a rule of its own,
//! which its own streams alone are counted for and go by.
//!
//! A stream that has ended goes whole, as if somebody had asked for its deletion, and is as old as its end. One that is
//! open loses its beginning by whole runs, each as old as its last byte; the run that is being filled stays. After a
//! restart runs of before are as old as the end that the start found, so nothing goes too early.
//!
//! An interrupted stream goes whole by its age, as any that has ended. But where all together are too much it loses its
//! beginning first: it may be an open one that a restart cut, which is about as long as may be, and whose producer is
//! about to come back.
//!
//! Each owner looks at its own names for what is too old, and sleeps until the next is due. What all shards have
//! together is the first shard's business: it asks every owner for what is oldest there, merges, and has it taken by
//! whoever owns it. Producers tell the first shard when there is too much, so that nobody looks at a clock for that.
//!
//! A stream goes at most a second too late for its age, and one more for each 100,000 streams of its owner; a run that
//! waits for the next one to be begun, by a sixteenth of the age. What is too much goes as fast as it can be taken.
//!
//! Invariant: what goes stands as it did when it was chosen: ended in the same epoch at the same time, or open. Without
//! retention nothing here runs and no timer is set. Lives on: every shard.

use super::id::Id;
use super::list::Walk;
use super::message::{Answer, Ask};
use super::{Each, Keeper, Streams, ask};
use crate::runtime::notify::{self, Notify};
use crate::runtime::{Moment, ShardId, shard, timer};
use crate::service::owner;
use crate::storage::{Entry, State, StoreError, Ticket};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

/// How long the streams of one keeper are kept. Nothing is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// A stream that ended longer ago goes, and what was written longer ago to one that is open.
    pub age_max: Option<Duration>,
    /// When all its streams on all shards have more bytes together, the oldest go.
    pub bytes_max: Option<u64>,
}

/// What goes at once: a stream that has ended, or a run at the beginning of one. Older ones are less.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Old {
    /// When it ended or was last written to, in milliseconds since 1970.
    pub at_ms: u64,
    /// The stream's name.
    pub id: Id,
    /// The stream's number.
    pub uid: u64,
    /// Where the stream begins without it; [`WHOLE`] when it goes, with what runs before this one have left of it.
    pub to: u64,
    /// What it has.
    pub bytes: u64,
}

/// Behind every run of a stream comes the stream.
const WHOLE: u64 = u64::MAX;

/// What is oldest at an owner.
#[derive(Clone, Debug)]
pub struct Oldest {
    /// Oldest first.
    pub all: Vec<Old>,
    /// Whether there is more that is younger.
    pub has_more: bool,
}

/// What went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reaped {
    /// So many streams.
    pub streams: u64,
    /// The beginnings of so many others.
    pub beginnings: u64,
    /// With so many bytes together.
    pub bytes: u64,
}

/// Why something goes, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It is too old.
    Age,
    /// All streams of their keeper have too much together.
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
/// A run that is old and waits for the next one to be begun is looked at so many times in the longest age.
const LOOKS_PER_AGE: u64 = 16;
/// Most that goes at once.
const BATCH: usize = 1024;
/// The shard that looks after what all have together.
const FIRST: ShardId = ShardId(0);

/// A shard's part in retention.
#[derive(Default)]
pub(super) struct Reaper {
    rules: Cell<Each<Retention>>,
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
    /// Keeps the streams of `keeper` as long as `retention` says, from now on.
    pub fn retain(&self, keeper: Keeper, retention: Retention) {
        let rules = self.reaper.rules.get().with(keeper, retention);
        if self.reaper.rules.replace(rules) != rules {
            self.reaper.wake();
        }
    }

    /// Nothing is deleted any more unless somebody asks for it.
    pub(super) fn end_retention(&self) {
        self.reaper.closed.set(true);
        self.reaper.wake();
    }

    /// To be called when `keeper` has more bytes, or more of them could go. Tells the first shard if that is too much:
    /// at most once per [`STEP`], because the first shard looks again that long after it heard, at every keeper.
    pub(super) fn note_growth(&self, keeper: Keeper) {
        let Some(max) = self.reaper.rules.get().of(keeper).bytes_max else { return };
        if self.total_bytes(keeper) <= max {
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
        for keeper in Keeper::ALL {
            shard::spawn("reap by age", self.clone().reap_by_age(keeper));
        }
        if self.me == FIRST {
            shard::spawn("reap by bytes", self.clone().reap_by_bytes());
        }
    }

    async fn reap_by_age(self: Rc<Self>, keeper: Keeper) {
        loop {
            let changed = self.reaper.changed.wait();
            if self.reaper.closed.get() {
                return;
            }
            match self.reaper.rules.get().of(keeper).age_max {
                None => changed.await,
                Some(age_max) => {
                    let rest = self.reap_aged(keeper, age_max).await;
                    timer::until(shard::now() + rest, changed).await;
                }
            }
        }
    }

    /// Takes what of `keeper` is older than `age_max`, and returns how long nothing else of it will be due.
    async fn reap_aged(self: &Rc<Self>, keeper: Keeper, age_max: Duration) -> Duration {
        let age_ms_max = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        let mut next_ms = now_ms().saturating_add(age_ms_max);
        let (mut due, mut looked) = (Vec::new(), 0);
        let mut names = self.walk_of(keeper);
        while let Some(entry) = names.next().await {
            looked += 1;
            if keeper_of(&entry) != keeper {
                continue;
            }
            let (old, rest_due_ms) = aged(&entry, age_ms_max);
            next_ms = next_ms.min(rest_due_ms);
            let Some(old) = old else { continue };
            due.push(old);
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
            let over = self.over();
            if over.is_empty() {
                // Whoever told us says nothing more for a while, whatever it receives.
                match self.reaper.heard.take() {
                    Some(heard) => drop(timer::until(heard + STEP, changed).await),
                    None => crowded.await,
                }
                continue;
            }
            let (mut is_fruitless, mut goes_on) = (true, false);
            for (keeper, max) in over {
                match self.reap_excess(keeper, max).await {
                    Ok(Reaped { bytes: 0, .. }) => {}
                    Ok(_) => {
                        is_fruitless = false;
                        goes_on |= self.total_bytes(keeper) > max;
                    }
                    Err(error) => tell_trouble(&error),
                }
            }
            if !goes_on {
                let tally = self.store.tally();
                let names = Keeper::ALL.map(|keeper| tally.names(owner::space::STREAMS, keeper as u8));
                let names: u64 = names.iter().sum();
                let looked = u32::try_from(names).unwrap_or(u32::MAX);
                timer::until(shard::now() + STEP + STEP_PER_NAME * looked, changed).await;
            }
            if is_fruitless {
                timer::until(shard::now() + FRUITLESS, crowded).await;
            }
        }
    }

    /// Who has more than may be, and how much may be.
    fn over(&self) -> Vec<(Keeper, u64)> {
        let rules = self.reaper.rules.get().all();
        let bounds = rules.filter_map(|(keeper, rule)| Some((keeper, rule.bytes_max?)));
        bounds.filter(|(keeper, max)| self.total_bytes(*keeper) > *max).collect()
    }

    /// Has the oldest of `keeper` taken until no more than `bytes_max` are left, or nothing that may go.
    async fn reap_excess(&self, keeper: Keeper, bytes_max: u64) -> Result<Reaped, StoreError> {
        let excess = self.total_bytes(keeper).saturating_sub(bytes_max);
        let mut parts = Vec::new();
        for owner in shard::current().all() {
            let part: Result<Oldest, StoreError> =
                ask!(self, owner, Ask::Oldest(keeper, excess), Answer::Oldest);
            parts.push(part?);
        }
        let mut by_owner: BTreeMap<ShardId, Vec<Old>> = BTreeMap::new();
        for old in choose(parts, excess) {
            by_owner.entry(self.owner_of(&old.id)).or_default().push(old);
        }
        let mut all = Reaped::default();
        for (owner, chosen) in by_owner {
            let question = Ask::Reap(chosen, Reason::Bytes);
            let reaped: Result<Reaped, StoreError> = ask!(self, owner, question, Answer::Reaped);
            let reaped = reaped?;
            all.streams += reaped.streams;
            all.beginnings += reaped.beginnings;
            all.bytes += reaped.bytes;
        }
        Ok(all)
    }
}

/// For every owner.
impl Streams {
    /// What of `keeper` is oldest here, until it has `bytes` bytes together.
    pub(super) async fn oldest_owned(
        self: Rc<Self>,
        keeper: Keeper,
        bytes: u64,
    ) -> Result<Oldest, StoreError> {
        let mut oldest = Heap { all: BinaryHeap::new(), sum: 0, has_more: false, wanted: bytes };
        let mut names = self.walk_of(keeper);
        while let Some(entry) = names.next().await {
            // Without bytes it is too much of nothing.
            if entry.tail.stored() > 0 && keeper_of(&entry) == keeper {
                oldest.offer_all(&entry);
            }
        }
        Ok(Oldest { all: oldest.all.into_sorted_vec(), has_more: oldest.has_more })
    }

    /// Over the streams of `keeper`; over all where that is nothing that their ids say.
    fn walk_of(&self, keeper: Keeper) -> Walk<'_> {
        Walk::new(self, Bytes::from_static(keeper.prefix().as_bytes()), None)
    }

    /// Takes these as far as they stand as they did. Resolves once their space is dead.
    pub(super) async fn reap(self: Rc<Self>, chosen: Vec<Old>, reason: Reason) -> Result<Reaped, StoreError> {
        let (mut last, mut reaped, mut outcome) = (Ticket::default(), Reaped::default(), Ok(()));
        // Of several runs of one stream the last says where it begins then.
        let mut beginnings: BTreeMap<u64, &Old> = BTreeMap::new();
        for old in &chosen {
            if old.to != WHOLE {
                beginnings.insert(old.uid, old);
                continue;
            }
            match self.delete_ended(old) {
                Ok(None) => {}
                Ok(Some((ticket, bytes))) => {
                    last = last.max(ticket);
                    reaped.streams += 1;
                    reaped.bytes += bytes;
                    beginnings.remove(&old.uid);
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let trims: Vec<_> = match outcome {
            Ok(()) => beginnings.values().map(|old| self.trim(old)).collect(),
            Err(_) => Vec::new(),
        };
        if reaped.streams > 0
            && let Err(error) = self.store.names().synced(last).await
        {
            outcome = outcome.and(Err(error));
            reaped = Reaped::default();
        }
        for trim in trims {
            let trimmed = match trim {
                Ok(None) => continue,
                Ok(Some(answer)) => answer.await.unwrap_or(Err(StoreError::Closing)),
                Err(error) => Err(error),
            };
            match trimmed {
                Ok(bytes) => {
                    reaped.beginnings += u64::from(bytes > 0);
                    reaped.bytes += bytes;
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        let Reaped { streams, beginnings, bytes } = reaped;
        if streams + beginnings > 0 {
            self.metrics.reaped_streams.add(streams);
            self.metrics.reaped_bytes.add(bytes);
            tracing::info!(?reason, streams, beginnings, bytes, "streams reaped");
        }
        if let Err(error) = &outcome {
            tell_trouble(error);
        }
        outcome.map(|()| reaped)
    }

    /// The ticket of its deletion, and what it has.
    fn delete_ended(&self, chosen: &Old) -> Result<Option<(Ticket, u64)>, StoreError> {
        let (names, key) = (self.store.names(), chosen.id.key());
        let is_same = |entry: &Entry| {
            let tail = &entry.tail;
            has_ended(entry) && (tail.uid(), tail.ended_ms()) == (chosen.uid, chosen.at_ms)
        };
        let Some(entry) = names.look(&key).entry.filter(is_same) else { return Ok(None) };
        let ticket = names.delete(&key)?;
        self.let_go(chosen.uid);
        Ok(ticket.map(|ticket| (ticket, entry.tail.stored())))
    }

    /// What is complete by now goes whole one day, and not by its beginning.
    fn trim(&self, chosen: &Old) -> Result<Option<Trimming>, StoreError> {
        let entry = self.store.names().look(&chosen.id.key()).entry;
        let is_same = |entry: &Entry| {
            entry.tail.uid() == chosen.uid && matches!(entry.tail.state(), State::Open | State::Interrupted)
        };
        match entry.filter(is_same) {
            Some(entry) => self.store.trim(&entry, chosen.to),
            None => Ok(None),
        }
    }
}

/// Resolves with how many bytes are dead.
type Trimming = notify::Answer<Result<u64, StoreError>>;

/// The oldest of those that were offered, as many as are wanted.
struct Heap {
    all: BinaryHeap<Old>,
    sum: u64,
    has_more: bool,
    wanted: u64,
}

impl Heap {
    /// False when it is too young.
    fn offer(&mut self, old: Old) -> bool {
        let is_full = self.sum >= self.wanted || self.all.len() == BATCH;
        if is_full && self.all.peek().is_some_and(|newest| newest.at_ms < old.at_ms) {
            self.has_more = true;
            return false;
        }
        self.sum += old.bytes;
        self.all.push(old);
        while let Some(newest) = self.all.peek()
            && (self.all.len() > BATCH || self.sum - newest.bytes >= self.wanted)
        {
            self.sum -= newest.bytes;
            self.all.pop();
            self.has_more = true;
        }
        true
    }

    /// The runs of a stream and what is left without them, until one is too young: what is behind it is younger.
    fn offer_all(&mut self, entry: &Entry) {
        let mut left = entry.tail.stored();
        for run in entry.tail.old_runs() {
            left = left.saturating_sub(run.bytes);
            if !self.offer(old_run(entry, run.written_ms, run.to, run.bytes)) {
                return;
            }
        }
        if has_ended(entry) {
            self.offer(Old { bytes: left, ..ended(entry) });
        }
    }
}

/// The oldest of all, until they have `bytes` together. Behind the last one of a part that has more, nobody knows who
/// comes first.
fn choose(parts: Vec<Oldest>, bytes: u64) -> Vec<Old> {
    let ends = parts.iter().filter(|part| part.has_more).filter_map(|part| part.all.last());
    let horizon = ends.min().cloned();
    let mut all: Vec<Old> = parts.into_iter().flat_map(|part| part.all).collect();
    all.sort_unstable();
    let mut sum = 0;
    let is_chosen = |old: &Old| {
        let is_wanted = sum < bytes && horizon.as_ref().is_none_or(|end| old <= end);
        sum += old.bytes;
        is_wanted
    };
    let count = all.iter().map(is_chosen).take_while(|chosen| *chosen).count();
    all.truncate(count);
    all
}

/// What of a stream is older than that, and when more of it will be.
fn aged(entry: &Entry, age_ms_max: u64) -> (Option<Old>, u64) {
    let (tail, now) = (&entry.tail, now_ms());
    let due_ms = |at_ms: u64| at_ms.saturating_add(age_ms_max);
    if has_ended(entry) {
        let due_ms = due_ms(tail.ended_ms());
        return if due_ms > now { (None, due_ms) } else { (Some(ended(entry)), u64::MAX) };
    }
    let (mut old, mut bytes) = (None, 0);
    for run in tail.old_runs() {
        if due_ms(run.written_ms) > now {
            return (old, due_ms(run.written_ms));
        }
        bytes += run.bytes;
        old = Some(old_run(entry, run.written_ms, run.to, bytes));
    }
    // The last run: it goes once there is another one, of which nobody tells us.
    let rest_due_ms = tail.last_written_ms().map_or(u64::MAX, due_ms);
    (old, rest_due_ms.max(now.saturating_add(age_ms_max / LOOKS_PER_AGE)))
}

fn keeper_of(entry: &Entry) -> Keeper {
    Keeper::of_bytes(entry.key().bytes)
}

fn has_ended(entry: &Entry) -> bool {
    matches!(entry.tail.state(), State::Complete | State::Interrupted)
}

/// All of a stream that has.
fn ended(entry: &Entry) -> Old {
    let tail = &entry.tail;
    let (at_ms, bytes) = (tail.ended_ms(), tail.stored());
    Old { at_ms, id: Id::of_key(entry.key()), uid: tail.uid(), to: WHOLE, bytes }
}

/// A run, or several, of one that goes on or may.
fn old_run(entry: &Entry, at_ms: u64, to: u64, bytes: u64) -> Old {
    Old { at_ms, id: Id::of_key(entry.key()), uid: entry.tail.uid(), to, bytes }
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

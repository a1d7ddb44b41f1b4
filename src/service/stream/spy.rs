//! Sees every stream that has a producer, wherever it is produced, and those that come.
//!
//! A spy's shard asks every shard to be told of new producers; what happens to a stream after that the spy sees
//! in the stream's tail, so neither ends nor bytes are sent to it by anyone.
//!
//! Invariant: a spy costs producers one message per stream and shard; how slowly it reads is its own affair. One that
//! is overtaken by the beginning of a stream it shows is given up. Streams take turns in it, a piece each. Lives on: the spy's shard.

use super::id::Id;
use super::keeper::Keepers;
use super::message::{Announced, Answer, Ask};
use super::{Streams, ask};
use crate::runtime::notify::Notify;
use crate::runtime::{FileRange, ShardId, blocking, shard};
use crate::storage::{State, StoreError, Tail};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// Most bytes of one stream before the next one's turn.
const PIECE_MAX: u64 = 64 * 1024;
/// Streams that one spy keeps in mind. One that reads so slowly that more wait for it is given up.
const STREAMS_MAX: usize = 16 * 1024;

/// What a spy sees.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Of which stream.
    pub id: Id,
    /// How many streams were shown before this one.
    pub number: u64,
    /// What.
    pub what: What,
}

/// What happened to a stream.
#[derive(Clone, Debug)]
pub enum What {
    /// It is shown from here on.
    Start,
    /// Bytes.
    Bytes(FileRange),
    /// It ended, or was deleted or replaced.
    End,
}

/// Why a spy sees no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpyError {
    /// More streams wait to be shown than are kept in mind.
    TooSlow,
    /// The store refused.
    Store(StoreError),
}

impl From<StoreError> for SpyError {
    fn from(error: StoreError) -> Self {
        SpyError::Store(error)
    }
}

impl fmt::Display for SpyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpyError::TooSlow => {
                write!(f, "the spy reads too slowly: more than {STREAMS_MAX} streams wait to be shown")
            }
            SpyError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SpyError {}

/// One spy.
pub struct Spy {
    streams: Rc<Streams>,
    desk: Rc<Desk>,
    key: usize,
    shown: u64,
}

impl Streams {
    /// Begins to spy on what `keepers` keep: first the streams that have a producer now, from their first byte, then
    /// those that come.
    pub async fn spy(self: &Rc<Self>, keepers: Keepers) -> Result<Spy, SpyError> {
        let desk = Rc::new(Desk { keepers, ..Desk::default() });
        let key = self.spies.here.borrow_mut().insert(desk.clone());
        let spy = Spy { streams: self.clone(), desk, key, shown: 0 };
        for home in shard::current().all() {
            let active: Result<Vec<Announced>, StoreError> = ask!(self, home, Ask::Watch, Answer::Active);
            active?.iter().for_each(|announced| spy.desk.add(announced));
        }
        Ok(spy)
    }

    /// As the home: tells the shards that watch.
    pub(super) fn announce(&self, announced: &Announced) {
        for &shard in &*self.spies.watchers.borrow() {
            self.post().tell(shard, Ask::Announce(announced.clone()));
        }
    }

    /// The bytes of a range that is small enough to be held in memory.
    pub async fn load(&self, range: &FileRange) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; range.len as usize];
        if let Ok(Some(len)) = range.file.read_at_nowait(&mut bytes, range.offset)
            && len == bytes.len()
        {
            return Ok(bytes);
        }
        let wanted = range.clone();
        let read = blocking::run(move || {
            let mut bytes = vec![0; wanted.len as usize];
            wanted.file.read_exact_at(&mut bytes, wanted.offset).map(|()| bytes)
        });
        match read.await.and_then(|read| read) {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(StoreError::Io(error.kind(), Arc::default())),
        }
    }
}

impl Spy {
    /// Whether there is something to see without waiting for a producer.
    pub fn has_more(&self) -> bool {
        while let Some(uid) = self.desk.turn() {
            // An error is something to be told of, too.
            if !matches!(self.desk.look(uid, self.streams.me, self.shown), Ok(None)) {
                return true;
            }
        }
        false
    }

    /// Waits for the next sight; nothing once this shard takes no producers any more and all was seen. May be
    /// dropped at any time.
    pub async fn next(&mut self) -> Result<Option<Sight>, SpyError> {
        let desk = self.desk.clone();
        loop {
            if desk.overflowed.get() {
                return Err(SpyError::TooSlow);
            }
            let woken = desk.changed.wait();
            let Some(uid) = desk.turn() else {
                if desk.closed.get() {
                    return Ok(None);
                }
                woken.await;
                continue;
            };
            let Some((sight, tail, position)) = desk.look(uid, self.streams.me, self.shown)? else {
                continue;
            };
            match &sight.what {
                What::Start => self.shown += 1,
                What::Bytes(range) => {
                    self.streams.warm(&tail, position, range).await?;
                    self.streams.metrics.stream_delivered_bytes.add(range.len);
                }
                What::End => {}
            }
            desk.pass_turn(uid, &sight);
            return Ok(Some(sight));
        }
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.streams.spies.here.borrow_mut().remove(self.key);
        if self.streams.spies.here.borrow().is_empty() {
            // Every lane keeps its order: a spy that comes next asks after this.
            for home in (0..self.streams.waits.shards()).map(|index| ShardId(index as u16)) {
                self.streams.post().tell(home, Ask::Unwatch);
            }
        }
    }
}

/// What is to be seen next, with the stream and the position in it.
type Seen = (Sight, Arc<Tail>, u64);

/// What a spy knows, filled from outside.
#[derive(Default)]
struct Desk {
    /// Of whose streams.
    keepers: Keepers,
    watched: RefCell<HashMap<u64, Watched>>,
    /// Streams that may have something to see; each is in here once at most.
    turns: RefCell<VecDeque<u64>>,
    changed: Notify,
    overflowed: Cell<bool>,
    closed: Cell<bool>,
}

struct Watched {
    id: Id,
    tail: Arc<Tail>,
    position: u64,
    /// Set once it is shown.
    number: Option<u64>,
    has_turn: bool,
}

impl Watched {
    fn peek(&self) -> Result<Option<What>, StoreError> {
        if self.number.is_none() {
            return Ok(Some(What::Start));
        }
        let state = self.tail.state();
        match self.tail.range(self.position, PIECE_MAX) {
            Some(range) => Ok(Some(What::Bytes(range))),
            // Overtaken by the stream's beginning: what is missing must not be skipped.
            None if self.position < self.tail.first() => Err(StoreError::Trimmed(self.tail.first())),
            None if state == State::Open => Ok(None),
            None => Ok(Some(What::End)),
        }
    }
}

impl Desk {
    /// A stream that is known goes on: its next producer came before its end was seen.
    fn add(&self, announced: &Announced) {
        if !self.keepers.keep(&announced.id) {
            return;
        }
        let uid = announced.tail.uid();
        let mut watched = self.watched.borrow_mut();
        if watched.contains_key(&uid) {
            return;
        }
        if watched.len() == STREAMS_MAX {
            self.overflowed.set(true);
        } else {
            let (id, tail) = (announced.id.clone(), announced.tail.clone());
            let position = announced.start;
            watched.insert(uid, Watched { id, tail, position, number: None, has_turn: true });
            self.turns.borrow_mut().push_back(uid);
        }
        self.changed.notify_all();
    }

    fn wake(&self, uid: u64) {
        if let Some(watched) = self.watched.borrow_mut().get_mut(&uid)
            && !std::mem::replace(&mut watched.has_turn, true)
        {
            self.turns.borrow_mut().push_back(uid);
            self.changed.notify_all();
        }
    }

    /// The stream whose turn it is; it stays so until the turn is passed.
    fn turn(&self) -> Option<u64> {
        self.turns.borrow().front().copied()
    }

    /// What is to be seen of the stream whose turn it is, with its tail and the position. When there is nothing,
    /// `shard` is announced at the tail and the turn is over.
    fn look(&self, uid: u64, shard: ShardId, shown: u64) -> Result<Option<Seen>, StoreError> {
        let mut all = self.watched.borrow_mut();
        let watched = all.get_mut(&uid).expect("who has a turn is watched");
        let mut seen = watched.peek()?;
        if seen.is_none() {
            // The second look after the announcement, as every reader takes it.
            watched.tail.wait_from(shard);
            seen = watched.peek()?;
        }
        Ok(match seen {
            Some(what) => {
                let sight = Sight { id: watched.id.clone(), number: watched.number.unwrap_or(shown), what };
                Some((sight, watched.tail.clone(), watched.position))
            }
            None => {
                watched.has_turn = false;
                self.turns.borrow_mut().pop_front();
                None
            }
        })
    }

    /// `sight` goes out: the stream moves on, and behind the others.
    fn pass_turn(&self, uid: u64, sight: &Sight) {
        let mut all = self.watched.borrow_mut();
        self.turns.borrow_mut().pop_front();
        let watched = all.get_mut(&uid).expect("who has a turn is watched");
        match &sight.what {
            What::Start => {
                watched.number = Some(sight.number);
                // From its first byte: that is where it begins now.
                watched.position = watched.position.max(watched.tail.first());
            }
            What::Bytes(range) => watched.position += range.len,
            What::End => {
                all.remove(&uid);
                return;
            }
        }
        self.turns.borrow_mut().push_back(uid);
    }
}

/// The spies of a shard, and the shards that watch what is produced here.
#[derive(Default)]
pub(super) struct Spies {
    here: RefCell<Slab<Rc<Desk>>>,
    watchers: RefCell<BTreeSet<ShardId>>,
}

impl Spies {
    pub(super) fn wake(&self, uid: u64) {
        self.here.borrow().iter().for_each(|(_, desk)| desk.wake(uid));
    }

    pub(super) fn announce(&self, announced: &Announced) {
        self.here.borrow().iter().for_each(|(_, desk)| desk.add(announced));
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        for (_, desk) in &*self.here.borrow() {
            desk.closed.set(true);
            desk.changed.notify_all();
        }
    }

    pub(super) fn watched_by(&self, shard: ShardId) {
        self.watchers.borrow_mut().insert(shard);
    }

    pub(super) fn unwatched_by(&self, shard: ShardId) {
        self.watchers.borrow_mut().remove(&shard);
    }
}

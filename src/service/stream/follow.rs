//! Follows a stream from any shard, from a position to its end or to a position known before.
//!
//! A reader waits in its shard's list for the stream; the shard is announced once at the tail however many
//! readers wait. When the appender publishes, each announced shard hears of it in one message per turn, and
//! wakes its own readers.
//!
//! Invariant: a follower sees bytes below `published` only, each one once and in order, and nothing that it
//! does or leaves undone reaches the producer. One that the stream's beginning overtakes is told so. Lives on: the reader's shard.

use super::Streams;
use super::message::Ask;
use crate::runtime::notify::Notify;
use crate::runtime::{FileRange, ShardId, shard};
use crate::service::outflow::{Piece, Source};
use crate::service::warm::{self, LARGE, PIECE_MAX};
use crate::storage::{State, StoreError, Tail};
use std::cell::RefCell;
use std::collections::HashMap;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

/// What a follower finds.
#[derive(Clone, Debug)]
pub enum Look {
    /// The next bytes.
    Ready(FileRange),
    /// No more will come; the stream stands so, or is read as far as was asked for.
    End(State),
}

/// One reader of one stream.
pub struct Follower {
    streams: Rc<Streams>,
    tail: Arc<Tail>,
    position: u64,
    until: u64,
    /// A large piece was given and nobody else had a turn since.
    owes_turn: bool,
    waiting: Option<Rc<Notify>>,
}

impl Streams {
    /// Reads `tail` from `from` until it ends.
    pub fn follow(self: &Rc<Self>, tail: Arc<Tail>, from: u64) -> Follower {
        self.read(tail, from, u64::MAX)
    }

    /// Reads `tail` from `from` up to `until`, or until it ends before.
    pub fn read(self: &Rc<Self>, tail: Arc<Tail>, from: u64, until: u64) -> Follower {
        let streams = self.clone();
        Follower { streams, tail, position: from, until, owes_turn: false, waiting: None }
    }
}

impl Follower {
    /// The position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What is there without waiting, neither for the producer nor for the disk.
    pub fn look(&mut self) -> Result<Option<Look>, StoreError> {
        if self.owes_turn {
            return Ok(None);
        }
        match self.peek()? {
            Some(Look::Ready(range)) if !self.is_warm(&range) => Ok(None),
            Some(Look::Ready(range)) => Ok(Some(self.give(range))),
            other => Ok(other),
        }
    }

    /// Waits for what comes next. May be dropped at any time.
    pub async fn next(&mut self) -> Result<Look, StoreError> {
        if mem::take(&mut self.owes_turn) {
            shard::yield_now().await;
        }
        loop {
            match self.peek()? {
                Some(Look::Ready(range)) => {
                    self.warm(&range).await?;
                    return Ok(self.give(range));
                }
                Some(end) => return Ok(end),
                None => self.wait().await?,
            }
        }
    }

    fn peek(&self) -> Result<Option<Look>, StoreError> {
        if self.position == self.until {
            return Ok(Some(Look::End(self.tail.state())));
        }
        // The state first: a stream that was seen to have ended has no bytes after those seen next.
        let state = self.tail.state();
        let published = self.tail.published();
        if self.position > published {
            // A failed sync took back what was read: an end here would be a lie about it.
            return Err(StoreError::SyncFailed);
        }
        match self.tail.range(self.position, PIECE_MAX.min(self.until - self.position)) {
            Some(range) => Ok(Some(Look::Ready(range))),
            // Overtaken by the stream's beginning: what is missing must not be skipped.
            None if self.position < self.tail.first() => Err(StoreError::Trimmed(self.tail.first())),
            None if state == State::Open => Ok(None),
            None => Ok(Some(Look::End(state))),
        }
    }

    async fn wait(&mut self) -> Result<(), StoreError> {
        let list = match &self.waiting {
            Some(list) => list.clone(),
            None => {
                let list = self.streams.waits.list(self.tail.uid());
                self.streams.metrics.followers_live.inc();
                self.waiting.insert(list).clone()
            }
        };
        let woken = list.wait();
        // Announced before the second look: a producer that publishes in between sees it, so no wake-up is lost.
        self.tail.wait_from(self.streams.me);
        if self.peek()?.is_none() {
            woken.await;
        }
        Ok(())
    }

    fn give(&mut self, range: FileRange) -> Look {
        self.position += range.len;
        self.owes_turn = range.len >= LARGE;
        self.streams.metrics.stream_delivered_bytes.add(range.len);
        Look::Ready(range)
    }

    fn is_warm(&self, range: &FileRange) -> bool {
        match self.until {
            u64::MAX => warm::is_warm(&self.tail, self.position, range),
            _ => warm::is_warm_in_whole(&self.tail, self.position, range),
        }
    }

    async fn warm(&self, range: &FileRange) -> Result<(), StoreError> {
        if self.is_warm(range) {
            return Ok(());
        }
        self.streams.warm(&self.tail, self.position, range).await
    }
}

impl Source for Follower {
    type Error = StoreError;

    fn look(&mut self) -> Result<Option<Piece>, StoreError> {
        Ok(Follower::look(self)?.map(Piece::from))
    }

    async fn next(&mut self) -> Result<Piece, StoreError> {
        Ok(Follower::next(self).await?.into())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(list) = self.waiting.take() {
            self.streams.metrics.followers_live.dec();
            self.streams.waits.leave(self.tail.uid(), list);
        }
    }
}

impl Streams {
    /// Brings the bytes at `position` into memory, checked, by way of a worker.
    pub(super) async fn warm(
        &self,
        tail: &Arc<Tail>,
        position: u64,
        range: &FileRange,
    ) -> Result<(), StoreError> {
        warm::warm(&self.store, tail, position, range).await
    }

    /// A stream moved that `shard` waits for.
    pub(super) fn wake(&self, shard: ShardId, uid: u64) {
        if shard == self.me {
            self.wake_here(uid);
        } else {
            self.waits.remote.borrow_mut()[shard.index()].push(uid);
        }
    }

    pub(super) fn wake_here(&self, uid: u64) {
        if let Some(list) = self.waits.lists.borrow().get(&uid) {
            list.notify_all();
        }
        self.spies.wake(uid);
    }

    /// At the end of a turn: one message to each shard that waits.
    pub(super) fn flush_wakes(&self) -> bool {
        let mut told = false;
        for (index, uids) in self.waits.remote.borrow_mut().iter_mut().enumerate() {
            if !uids.is_empty() {
                self.post().tell(ShardId(index as u16), Ask::Wake(mem::take(uids)));
                told = true;
            }
        }
        told
    }
}

/// Who waits on this shard, by the streams' numbers, and what is to be told to other shards.
pub(super) struct Waits {
    lists: RefCell<HashMap<u64, Rc<Notify>>>,
    /// By shard. Bounded by the streams that the shard announced itself at: each wakes it once per announcement.
    remote: RefCell<Vec<Vec<u64>>>,
}

impl Waits {
    pub(super) fn new(shards: usize) -> Self {
        Waits { lists: RefCell::default(), remote: RefCell::new(vec![Vec::new(); shards]) }
    }

    pub(super) fn shards(&self) -> usize {
        self.remote.borrow().len()
    }

    fn list(&self, uid: u64) -> Rc<Notify> {
        self.lists.borrow_mut().entry(uid).or_default().clone()
    }

    fn leave(&self, uid: u64, list: Rc<Notify>) {
        drop(list);
        let mut lists = self.lists.borrow_mut();
        if lists.get(&uid).is_some_and(|list| Rc::strong_count(list) == 1) {
            lists.remove(&uid);
        }
    }
}

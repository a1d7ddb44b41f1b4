//! Opening a stream: a new one, one in another's place, or one that goes on.
//!
//! Invariant: between the look at a name and the decision about it there is no await, so decisions about a name
//! have an order; a resumption is decided only after the appender before it has let go.
//! Lives on: the asking half on the producer's shard, the deciding half on the owner's.

use super::append::Producer;
use super::id::Id;
use super::limits::{Limit, ProduceError};
use super::message::{Answer, Ask};
use super::{Keeper, Streams, ask};
use crate::runtime::{ShardId, gate::Pass, notify, shard};
use crate::storage::{Entry, LogId, State, StoreError, Tail, Ticket};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// How to open a new stream.
#[derive(Clone, Debug, Default)]
pub struct Open {
    /// Replace the stream that has the id, if there is one.
    pub force: bool,
    /// What to keep beside the bytes; empty for nothing.
    pub metadata: Bytes,
    /// How many bytes will come, if that is known before they do.
    pub announced: Option<u64>,
}

impl Open {
    /// The longest metadata, well below what a record of the store can hold.
    pub const METADATA_MAX: usize = 256 * 1024;
}

/// Where a producer goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// The position of the first byte that it will send.
    pub offset: u64,
    /// The epoch that it knows.
    pub epoch: u64,
    /// How many bytes it will send, if that is known before it does.
    pub announced: Option<u64>,
}

/// Why a stream was not opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The id has a stream.
    Taken,
    /// There is nothing to resume.
    Unknown,
    /// The stream is not as the one who resumes it knows it. This is how it is.
    WrongPlace {
        /// Its length.
        offset: u64,
        /// Its epoch.
        epoch: u64,
    },
    /// The stream was ended by its producer.
    Complete {
        /// Its length.
        offset: u64,
        /// Its epoch.
        epoch: u64,
    },
    /// The metadata has so many bytes, more than [`Open::METADATA_MAX`].
    MetadataTooLong(usize),
    /// The stream would exceed a limit.
    Limit(Limit),
    /// The store refused.
    Store(StoreError),
}

impl From<Limit> for OpenError {
    fn from(limit: Limit) -> Self {
        OpenError::Limit(limit)
    }
}

impl From<ProduceError> for OpenError {
    fn from(error: ProduceError) -> Self {
        match error {
            ProduceError::Limit(limit) => OpenError::Limit(limit),
            ProduceError::Store(error) => OpenError::Store(error),
        }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        OpenError::Store(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Taken => f.write_str("the id is taken"),
            OpenError::Unknown => f.write_str("there is no such stream"),
            OpenError::WrongPlace { offset, epoch } => {
                write!(f, "the stream is {offset} bytes long in epoch {epoch}")
            }
            OpenError::Complete { offset, .. } => write!(f, "the stream ended at {offset} bytes"),
            OpenError::MetadataTooLong(len) => {
                write!(f, "the metadata has {len} bytes; up to {} are kept", Open::METADATA_MAX)
            }
            OpenError::Limit(limit) => limit.fmt(f),
            OpenError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// What the owner decided.
#[derive(Debug)]
pub struct Opened {
    /// The stream.
    pub tail: Arc<Tail>,
    /// The epoch in which to append.
    pub epoch: u64,
    /// Committed when this is.
    pub ticket: Ticket,
    /// Whether it took another one's place.
    pub replaced: bool,
}

/// As the owner: which shard has the appender of a stream, and in which epoch.
#[derive(Default)]
pub(super) struct Appenders(RefCell<HashMap<u64, (ShardId, u64)>>);

impl Appenders {
    fn insert(&self, uid: u64, shard: ShardId, epoch: u64) {
        self.0.borrow_mut().insert(uid, (shard, epoch));
    }

    fn of(&self, uid: u64) -> Option<(ShardId, u64)> {
        self.0.borrow().get(&uid).copied()
    }

    fn take(&self, uid: u64) -> Option<(ShardId, u64)> {
        self.0.borrow_mut().remove(&uid)
    }

    /// Forgets the appender of `epoch`, unless another one has come since.
    pub(super) fn remove(&self, uid: u64, shard: ShardId, epoch: u64) {
        let mut appenders = self.0.borrow_mut();
        if appenders.get(&uid) == Some(&(shard, epoch)) {
            appenders.remove(&uid);
        }
    }
}

/// For the producer's shard.
impl Streams {
    /// Opens a new stream with room for its first bytes, so that a full disk is told before anything is promised.
    /// That the name is committed is part of [`Producer::end`].
    pub async fn open(self: &Rc<Self>, id: Id, open: Open) -> Result<Producer, OpenError> {
        let Open { force, metadata, announced } = open;
        if metadata.len() > Open::METADATA_MAX {
            return Err(OpenError::MetadataTooLong(metadata.len()));
        }
        let question = Ask::Open { id: id.clone(), home: self.store.log(), force, metadata };
        self.open_within_limits(id, question, None, announced).await
    }

    /// Goes on with an open or interrupted stream in a new epoch. A producer that still holds it loses it first.
    /// Bytes from `resume.offset` on that are there already are skipped.
    pub async fn resume(self: &Rc<Self>, id: Id, resume: Resume) -> Result<Producer, OpenError> {
        let Resume { offset, epoch, announced } = resume;
        let question = Ask::Resume { id: id.clone(), offset, epoch };
        self.open_within_limits(id, question, Some(offset), announced).await
    }

    async fn open_within_limits(
        self: &Rc<Self>,
        id: Id,
        question: Ask,
        offset: Option<u64>,
        announced: Option<u64>,
    ) -> Result<Producer, OpenError> {
        let (limits, total) = (self.limits_of(&id), self.total_bytes(Keeper::of(&id)));
        let admitted = limits.admit_body(offset.unwrap_or(0), announced).and_then(|()| match offset {
            // What only ends a stream takes no room; and some of what is sent again is there already.
            Some(_) if announced == Some(0) => Ok(()),
            Some(_) => limits.admit_more(total, None),
            None => limits.admit_more(total, announced),
        });
        let opened = match admitted {
            Ok(()) => self.open_in_task(id, question, offset, announced).await,
            Err(limit) => Err(limit.into()),
        };
        match &opened {
            Ok(_) => {}
            Err(OpenError::Limit(limit)) => self.count_refused(&ProduceError::Limit(*limit)),
            Err(OpenError::Store(error)) => self.count_refused(&ProduceError::Store(error.clone())),
            Err(_) => {}
        }
        opened
    }

    /// In a task of the shard: once the owner has decided, somebody must be here to take the stream, or it would
    /// stay open for ever. A producer that nobody waits for any more ends as interrupted.
    async fn open_in_task(
        self: &Rc<Self>,
        id: Id,
        question: Ask,
        offset: Option<u64>,
        announced: Option<u64>,
    ) -> Result<Producer, OpenError> {
        let pass = self.producing.enter().ok_or(StoreError::Closing)?;
        let (answerer, answer) = notify::answer();
        let streams = self.clone();
        shard::spawn("open a stream", async move {
            answerer.give(streams.open_here(id, question, (offset, announced), pass).await);
        });
        answer.await.unwrap_or(Err(OpenError::Store(StoreError::Closing)))
    }

    async fn open_here(
        self: &Rc<Self>,
        id: Id,
        question: Ask,
        (offset, announced): (Option<u64>, Option<u64>),
        pass: Pass,
    ) -> Result<Producer, OpenError> {
        let opening = self.desks.opening();
        let opened: Result<Opened, OpenError> = ask!(self, self.owner_of(&id), question, Answer::Opened);
        let opened = opened?;
        let uid = opened.tail.uid();
        let attached = match opening.may_attach(uid, opened.epoch) {
            true => self.store.appender(&opened.tail),
            false => Err(StoreError::Fenced),
        };
        drop(opening);
        let made = match attached {
            Ok(mut appender) => {
                if let Some(len) = announced {
                    appender.expect_end(offset.unwrap_or(0).saturating_add(len));
                }
                let mut producer = Producer::new(self, id.clone(), appender, &opened, offset, pass);
                producer.try_make_room().await.map(|()| producer)
            }
            Err(error) => {
                self.tell_let_go(&id, uid, opened.epoch);
                Err(error.into())
            }
        };
        match made {
            Ok(producer) => Ok(producer),
            // Another request took the stream, and with it the id, before this one could have it.
            Err(ProduceError::Store(StoreError::Gone | StoreError::Fenced)) => Err(OpenError::Taken),
            // Refused before anyone was told of it: the id is free again. A resumed stream stays interrupted.
            Err(error) if offset.is_none() => {
                self.withdraw(id, uid).await;
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn withdraw(&self, id: Id, uid: u64) {
        let withdrawn: Result<(), StoreError> =
            ask!(self, self.owner_of(&id), Ask::Withdraw { id: id.clone(), uid }, Answer::Settled);
        if let Err(error) = withdrawn {
            tracing::warn!(stream = %id, %error, "a stream that could not be written could not be taken back");
        }
    }

    pub(super) fn tell_let_go(&self, id: &Id, uid: u64, epoch: u64) {
        self.post().tell(self.owner_of(id), Ask::LetGo { uid, epoch });
    }
}

/// For the owner's shard.
impl Streams {
    pub(super) async fn decide_open(
        self: Rc<Self>,
        from: ShardId,
        id: Id,
        home: LogId,
        force: bool,
        metadata: Bytes,
    ) -> Result<Opened, OpenError> {
        let (names, key) = (self.store.names(), id.key());
        let found = if force { names.look(&key) } else { names.get(&key)? };
        if found.entry.is_some() && !force {
            names.committed(found.ticket).await?;
            return Err(OpenError::Taken);
        }
        let names_max = self.limits_of(&id).streams.unwrap_or(u64::MAX);
        let Some((entry, ticket)) = names.put_within(key, home, metadata, names_max)? else {
            return Err(Limit::Streams(names_max).into());
        };
        if let Some(old) = &found.entry {
            self.let_go(old.tail.uid());
        }
        self.metrics.streams_created.inc();
        Ok(self.opened(from, &entry, ticket, found.entry.is_some()))
    }

    pub(super) async fn decide_resume(
        self: Rc<Self>,
        from: ShardId,
        id: Id,
        offset: u64,
        epoch: u64,
    ) -> Result<Opened, OpenError> {
        let (names, key) = (self.store.names(), id.key());
        let before = names.get(&key)?;
        if let Some(entry) = &before.entry
            && may_resume(&entry.tail, offset, epoch).is_ok()
            && let Some((home, epoch)) = self.appenders.of(entry.tail.uid())
        {
            let fence = Ask::Fence { uid: entry.tail.uid(), epoch };
            let fenced: Result<(), StoreError> = ask!(self, home, fence, Answer::Settled);
            fenced?;
        }
        if let Some(entry) = &before.entry
            && may_resume(&entry.tail, offset, epoch).is_ok()
        {
            self.store.at_rest(&entry.tail).await?;
        }
        // Whatever happened while the appender let go, this is what counts.
        let found = names.get(&key)?;
        let resumable = match &found.entry {
            None => Err(OpenError::Unknown),
            Some(entry) => may_resume(&entry.tail, offset, epoch),
        };
        if let Err(refused) = resumable {
            names.committed(found.ticket).await?;
            return Err(refused);
        }
        let (entry, ticket) = names.reopen(&key)?;
        let opened = self.opened(from, &entry, ticket, false);
        // Known to its producer means known after a crash: an epoch that a crash took back would be given twice.
        match names.committed(ticket).await {
            Ok(()) => Ok(opened),
            Err(error) => {
                self.appenders.remove(entry.tail.uid(), from, opened.epoch);
                Err(error.into())
            }
        }
    }

    /// Deletes `id` if it still stands for `uid`.
    pub(super) async fn decide_withdraw(self: Rc<Self>, id: Id, uid: u64) -> Result<(), StoreError> {
        let (names, key) = (self.store.names(), id.key());
        match names.get(&key)?.entry {
            Some(entry) if entry.tail.uid() == uid => match names.delete(&key)? {
                Some(ticket) => names.committed(ticket).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn opened(&self, from: ShardId, entry: &Entry, ticket: Ticket, replaced: bool) -> Opened {
        let (tail, epoch) = (entry.tail.clone(), entry.tail.epoch());
        self.appenders.insert(tail.uid(), from, epoch);
        Opened { tail, epoch, ticket, replaced }
    }

    /// The stream is gone: its appender, if there is one, is told so.
    pub(super) fn let_go(&self, uid: u64) {
        if let Some((home, epoch)) = self.appenders.take(uid) {
            self.post().tell(home, Ask::Fence { uid, epoch });
        }
    }
}

/// Whether a producer that knows the stream as of `epoch` may go on at `offset`.
fn may_resume(tail: &Tail, offset: u64, epoch: u64) -> Result<(), OpenError> {
    let (length, current) = (tail.published(), tail.epoch());
    match tail.state() {
        State::Gone => Err(OpenError::Unknown),
        State::Complete => Err(OpenError::Complete { offset: length, epoch: current }),
        State::Open | State::Interrupted if epoch == current && offset <= length => Ok(()),
        State::Open | State::Interrupted => Err(OpenError::WrongPlace { offset: length, epoch: current }),
    }
}

//! What shards ask and tell each other about streams.
//!
//! Invariant: every question has its own kind of answer, and whoever is asked answers from its own state alone.
//! Lives on: between shards, so everything here is `Send`.

use super::id::Id;
use super::keeper::Keeper;
use super::list::{Page, Query};
use super::open::{OpenError, Opened};
use super::retain::{Old, Oldest, Reaped, Reason};
use crate::runtime::mailbox;
use crate::storage::{LogId, StoreError, Tail, Ticket};
use bytes::Bytes;
use std::sync::Arc;

/// One shard's mailbox of this service.
pub type Mailbox = mailbox::Mailbox<Ask, Answer>;

/// A question or a statement.
#[derive(Debug)]
pub enum Ask {
    /// To the owner: put a new stream.
    Open {
        /// Its name.
        id: Id,
        /// The log of the shard that has the producer.
        home: LogId,
        /// Replace what is there.
        force: bool,
        /// What is kept beside the bytes.
        metadata: Bytes,
    },
    /// To the owner: a new epoch for a stream that is there.
    Resume {
        /// Its name.
        id: Id,
        /// Where the producer's bytes begin.
        offset: u64,
        /// The epoch that the producer knows.
        epoch: u64,
    },
    /// To the owner: take back a stream that got no byte.
    Withdraw {
        /// Its name.
        id: Id,
        /// Its number, so that only this stream goes.
        uid: u64,
    },
    /// To the owner: is it committed?
    Settle(Ticket),
    /// To the owner: what does this name stand for?
    Find(Id),
    /// To the owner: delete this name.
    Delete(Id),
    /// To every owner: delete all names that begin so.
    DeletePrefix(Bytes),
    /// To every owner: your part of a page.
    List(Query),
    /// To the producer's shard: let go of the stream. Answered, if asked, once it did.
    Fence {
        /// Its number.
        uid: u64,
        /// The appender's epoch.
        epoch: u64,
    },
    /// To the owner, not answered: this appender has let go.
    LetGo {
        /// Its number.
        uid: u64,
        /// The appender's epoch.
        epoch: u64,
    },
    /// To the first shard, not answered: all streams of some keeper have too much together.
    Crowded,
    /// To every owner: what of this keeper's is oldest with you, until it has so many bytes?
    Oldest(Keeper, u64),
    /// To the owner: take these if they stand as they did.
    Reap(Vec<Old>, Reason),
    /// Not answered: these streams moved, and readers on your shard wait for them.
    Wake(Vec<u64>),
    /// To every shard: what is produced there? And tell of what comes.
    Watch,
    /// To every shard, not answered: tell no more.
    Unwatch,
    /// To a shard with spies, not answered: this is produced now.
    Announce(Announced),
}

/// A stream with a producer.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Its name.
    pub id: Id,
    /// Its bytes.
    pub tail: Arc<Tail>,
    /// Where this producer began.
    pub start: u64,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub id: Id,
    /// Its bytes.
    pub tail: Arc<Tail>,
    /// What is kept beside them; empty when the producer gave nothing.
    pub metadata: Bytes,
    /// When it was opened, in milliseconds since 1970.
    pub created_ms: u64,
}

/// An answer, in the order of the questions.
#[derive(Debug)]
pub enum Answer {
    /// To [`Ask::Open`] and [`Ask::Resume`].
    Opened(Result<Opened, OpenError>),
    /// To [`Ask::Withdraw`], [`Ask::Settle`] and [`Ask::Fence`].
    Settled(Result<(), StoreError>),
    /// To [`Ask::Find`].
    Found(Result<Option<Found>, StoreError>),
    /// To [`Ask::Delete`]: whether there was something.
    Deleted(Result<bool, StoreError>),
    /// To [`Ask::DeletePrefix`]: what there was.
    DeletedAll(Result<Vec<Id>, StoreError>),
    /// To [`Ask::List`].
    Listed(Result<Page, StoreError>),
    /// To [`Ask::Oldest`].
    Oldest(Result<Oldest, StoreError>),
    /// To [`Ask::Reap`].
    Reaped(Result<Reaped, StoreError>),
    /// To [`Ask::Watch`].
    Active(Result<Vec<Announced>, StoreError>),
}

//! Names of one owner: the commit point, with what is decided and what is durable kept apart.
//!
//! Decisions are taken at once and in order against the latest state, durable or not; every answer that depends
//! on one waits for its [`Ticket`]. Lives on: the owner's shard.

use super::error::StoreError;
use super::extent::LogId;
use super::placement::Key;
use super::tail::Tail;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;

/// A position in this shard's journal: what was decided there is to be answered once it is committed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ticket(pub(super) u64);

/// What a name stands for.
#[derive(Debug)]
pub struct Entry {
    /// The name.
    pub key: Key,
    /// What the service keeps beside it, opaque here.
    pub attributes: Bytes,
    /// When it was put, in milliseconds since 1970.
    pub created_ms: u64,
    /// The log of its first appender, as the service said when it put the name.
    pub home: LogId,
    /// Its bytes.
    pub tail: Arc<Tail>,
}

/// The latest decision about a name, and the ticket to wait for before anyone is told.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it stands for; `None` when it was never put or was deleted.
    pub entry: Option<Rc<Entry>>,
    /// Answers that depend on this wait for it.
    pub ticket: Ticket,
}

/// The names that this shard owns.
pub struct Names {}

impl Names {
    /// The latest decision about `key`. Refused when a damaged journal record may have been about it.
    pub fn get(&self, key: &Key) -> Result<Found, StoreError> {
        let _ = key;
        Err(StoreError::Closing)
    }

    /// Puts `key`, or replaces what it stood for, with a new empty open stream. The bytes of a replaced one go
    /// once this is durable.
    pub fn put(&self, key: Key, home: LogId, attributes: Bytes) -> Result<(Rc<Entry>, Ticket), StoreError> {
        let _ = (key, home, attributes);
        Err(StoreError::Closing)
    }

    /// Deletes `key`; `None` when there is nothing, with the ticket in [`Names::get`] to wait for.
    pub fn delete(&self, key: &Key) -> Result<Option<Ticket>, StoreError> {
        let _ = key;
        Err(StoreError::Closing)
    }

    /// Begins a new epoch of an interrupted or abandoned stream, at its published length. Refused with
    /// [`StoreError::Attached`] while an appender is attached: fence it first, and wait until it let go.
    pub fn reopen(&self, key: &Key) -> Result<(Rc<Entry>, Ticket), StoreError> {
        let _ = key;
        Err(StoreError::Closing)
    }

    /// Names of `space` that begin with `prefix`, after `after` if given, in order.
    pub fn iterate(&self, space: u8, prefix: &[u8], after: Option<&[u8]>) -> Vec<Found> {
        let _ = (space, prefix, after);
        Vec::new()
    }

    /// Whether what `ticket` stands for is committed in this store's durability class.
    pub fn is_committed(&self, ticket: Ticket) -> bool {
        ticket.0 == 0
    }

    /// Resolves once what `ticket` stands for is committed, or with the reason why it never will be.
    pub async fn committed(&self, ticket: Ticket) -> Result<(), StoreError> {
        let _ = ticket;
        Err(StoreError::Closing)
    }
}

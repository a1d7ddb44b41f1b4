//! One name: what it stands for, and its deletion.
//!
//! Invariant: an answer leaves only once everything that it depends on is committed, also when it is "nothing".
//! Lives on: the asking half on any shard, the deciding half on the owner's.

use super::id::Id;
use super::message::{Answer, Ask, Found};
use super::{Streams, ask};
use crate::storage::{Entry, StoreError};
use bytes::Bytes;
use std::rc::Rc;

impl Streams {
    /// What `id` stands for.
    pub async fn find(&self, id: &Id) -> Result<Option<Found>, StoreError> {
        match self.owner_of(id) {
            // No message, and no task for its answer.
            owner if owner == self.me => self.look_up(id).await,
            owner => ask!(self, owner, Ask::Find(id.clone()), Answer::Found),
        }
    }

    /// Deletes `id`; false when there is nothing. Readers that are at it end at the bytes there are.
    pub async fn delete(&self, id: Id) -> Result<bool, StoreError> {
        ask!(self, self.owner_of(&id), Ask::Delete(id), Answer::Deleted)
    }
}

/// For the owner's shard.
impl Streams {
    pub(super) async fn look_up(&self, id: &Id) -> Result<Option<Found>, StoreError> {
        let names = self.store.names();
        let found = names.get(id.key_ref())?;
        names.committed(found.ticket).await?;
        Ok(found.entry.map(|entry| found_of(id.clone(), &entry)))
    }

    pub(super) async fn decide_delete(self: Rc<Self>, id: Id) -> Result<bool, StoreError> {
        let (names, key) = (self.store.names(), id.key());
        let found = names.look(&key);
        let (ticket, existed) = match names.delete(&key)? {
            Some(ticket) => (ticket, true),
            None => (found.ticket, false),
        };
        if let Some(entry) = found.entry {
            self.let_go(entry.tail.uid());
        }
        names.committed(ticket).await?;
        if existed {
            self.metrics.streams_deleted.inc();
        }
        Ok(existed)
    }
}

pub(super) fn found_of(id: Id, entry: &Entry) -> Found {
    let (tail, metadata) = (entry.tail.clone(), Bytes::copy_from_slice(entry.attributes()));
    Found { id, tail, metadata, created_ms: entry.created_ms }
}

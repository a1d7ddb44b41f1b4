//! What the operator allows all blobs together.
//!
//! Counted from bytes that are stored: what copies share counts once, and what is put counts from its first byte until
//! what replaces it is durable. Lives on: every shard with its own copy; the counts are shared.

use super::{BlobError, Blobs};
use crate::storage::BODIES;

/// What bounds blobs. Nothing is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// The most bytes of all blobs, parts of uploads included. May be exceeded by less than one receive, 256 KiB, for
    /// each upload that is under way.
    pub bytes: Option<u64>,
    /// The most blobs.
    pub blobs: Option<u64>,
}

impl Limits {
    /// Refuses `more` bytes beside `there` that are.
    pub(super) fn admit(&self, there: u64, more: u64) -> Result<(), BlobError> {
        match self.bytes {
            Some(max) if there.saturating_add(more) > max => Err(BlobError::Quota(max)),
            _ => Ok(()),
        }
    }
}

impl Blobs {
    /// Takes other limits: for what is put, and for what is received, from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.set(limits);
    }

    /// The bytes of all blobs of all shards.
    pub fn bytes(&self) -> u64 {
        self.store.tally().bytes(BODIES, 0)
    }
}

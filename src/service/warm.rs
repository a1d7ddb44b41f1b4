//! Stored bytes on their way out: brought into memory and checked before a shard sends them.
//!
//! Invariant: what was not written or verified since the start is verified before anyone gets it, and never by the shard
//! itself. Lives on: the reader's shard.

use crate::runtime::{FileRange, blocking};
use crate::storage::{State, Store, StoreError, Tail};
use std::sync::Arc;

/// Most bytes given at once: enough for a large send to be cheap, few enough for readers to take turns.
pub const PIECE_MAX: u64 = 1 << 20;
/// From this length on a piece costs the reader its turn.
pub const LARGE: u64 = 256 * 1024;

/// Whether the bytes of `tail` at `position` can be sent without waiting for the disk. What was just published was just
/// written.
pub fn is_warm(tail: &Tail, position: u64, range: &FileRange) -> bool {
    let is_newest = tail.state() == State::Open && range.len < LARGE;
    tail.is_verified(position, range.len) && (is_newest || range.file.is_resident(range.offset, range.len))
}

/// Brings the bytes at `position` into memory, checked, by way of a worker.
pub async fn warm(
    store: &Store,
    tail: &Arc<Tail>,
    position: u64,
    range: &FileRange,
) -> Result<(), StoreError> {
    if !tail.is_verified(position, range.len) {
        store.verify(tail, position, range.len).await?;
    }
    if !range.file.is_resident(range.offset, range.len) {
        let range = range.clone();
        // What cannot be read now is found out by the send, which has to tell anyway.
        let _ = blocking::run(move || {
            let mut bytes = vec![0; range.len as usize];
            range.file.read_exact_at(&mut bytes, range.offset)
        })
        .await;
    }
    Ok(())
}

/// Reads bytes that were brought into memory by [`warm`], for who has to look at them: at once where that waits for
/// nothing, else by way of a worker.
pub async fn load(range: FileRange) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; range.len as usize];
    if let Ok(Some(len)) = range.file.read_at_nowait(&mut bytes, range.offset)
        && len == bytes.len()
    {
        return Ok(bytes);
    }
    let loaded = blocking::run(move || range.file.read_exact_at(&mut bytes, range.offset).map(|()| bytes));
    let loaded = loaded.await.and_then(|loaded| loaded);
    loaded.map_err(|error| StoreError::Io(error.kind(), Arc::default()))
}

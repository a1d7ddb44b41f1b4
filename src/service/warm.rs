//! Stored bytes on their way out: brought into memory and checked before a shard sends them.
//!
//! Invariant: what was not written or verified since the start is verified before anyone gets it, and never by the shard
//! itself. Lives on: the reader's shard.

use crate::net::stream::COPIED_MAX;
use crate::runtime::clock::Moment;
use crate::runtime::{FileRange, blocking, shard};
use crate::storage::{State, Store, StoreError, Tail};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes given at once: enough for a large send to be cheap, few enough for readers to take turns.
pub const PIECE_MAX: u64 = 1 << 20;
/// From this length on a piece costs the reader its turn.
pub const LARGE: u64 = 256 * 1024;

/// Whether the bytes of `tail` at `position` can be sent without waiting for the disk. What was just published was just
/// written.
pub fn is_warm(tail: &Tail, position: u64, range: &FileRange) -> bool {
    let is_newest = tail.state() == State::Open && range.len < LARGE;
    tail.is_verified(position, range.len) && (is_newest || is_resident(range))
}

/// How long what was seen in memory is taken to be there still. Should it be gone, its send waits for the disk once.
const SEEN_FOR: Duration = Duration::from_millis(10);
/// Places for what was seen, one for each of as many hot pieces.
const SEEN: usize = 256;

/// A piece that was in memory.
#[derive(Clone, Copy)]
struct Seen {
    file: usize,
    offset: u64,
    len: u64,
    at: Moment,
}

thread_local! {
    static LATELY: RefCell<[Option<Seen>; SEEN]> = const { RefCell::new([None; SEEN]) };
}

/// Whether the range is in memory. The kernel is asked about the same piece once in a while only: for a hot one the
/// question would be a twentieth of what its answer costs.
fn is_resident(range: &FileRange) -> bool {
    let (file, now) = (range.file.identity(), shard::recent());
    let mixed = (file as u64 ^ range.offset ^ range.len.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = (mixed >> 56) as usize % SEEN;
    LATELY.with_borrow_mut(|seen| {
        let lately = seen[place].is_some_and(|seen| {
            (seen.file, seen.offset, seen.len) == (file, range.offset, range.len)
                && now.since(seen.at) < SEEN_FOR
        });
        if lately {
            return true;
        }
        let is_resident = range.file.is_resident(range.offset, range.len);
        seen[place] = is_resident.then_some(Seen { file, offset: range.offset, len: range.len, at: now });
        is_resident
    })
}

/// The same for a part of a whole answer, of which an exchange copies small ones wherever they are.
pub fn is_warm_in_whole(tail: &Tail, position: u64, range: &FileRange) -> bool {
    match range.len <= COPIED_MAX {
        true => tail.is_verified(position, range.len),
        false => is_warm(tail, position, range),
    }
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
        // Who reads as much as this at once goes on behind it.
        let ahead = if range.len == PIECE_MAX { PIECE_MAX } else { 0 };
        // What cannot be read now is found out by the send, which has to tell anyway.
        let _ = blocking::run(move || range.file.bring_in(range.offset, range.len, ahead)).await;
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

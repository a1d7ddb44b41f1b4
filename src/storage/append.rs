//! Appending to a stream: reserve, write, and at the end of the turn publish.
//!
//! Invariant: a byte is in the page cache before its mark is, and its mark is before anyone may read it.
//! Lives on: the shard of the stream's appender.

use super::error::StoreError;
use super::tail::{End, Tail};
use std::sync::Arc;

/// The one appender of a stream in its epoch. Dropping it lets go of the stream, which stays open, and gives
/// unused space back.
pub struct Appender {
    tail: Arc<Tail>,
}

impl Appender {
    /// The stream.
    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// Waits until some of `wanted` bytes can be appended, and returns how many: at least one, at most `wanted`.
    /// Waits for space to be allocated and while too much is unsynced. May be dropped at any time.
    pub async fn reserve(&mut self, wanted: usize) -> Result<usize, StoreError> {
        let _ = wanted;
        Err(StoreError::Closing)
    }

    /// Writes `bytes`, at most as many as the last [`Appender::reserve`] returned and were not used since.
    /// They are published at the end of the turn.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let _ = bytes;
        Err(StoreError::Closing)
    }

    /// Reserves and appends all of `bytes`.
    pub async fn append_all(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = self.reserve(bytes.len()).await?;
            self.append(&bytes[..room])?;
            bytes = &bytes[room..];
        }
        Ok(())
    }

    /// The stream's length with what was appended and is not published yet.
    pub fn len(&self) -> u64 {
        self.tail.published()
    }

    /// Whether the stream has no bytes yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the stream. Resolves once that is committed in the store's durability class, with the length.
    pub async fn seal(self, end: End) -> Result<u64, StoreError> {
        let _ = end;
        Err(StoreError::Closing)
    }

    /// Publishes what was appended and lets go of the stream, which stays open: another epoch's appender may go
    /// on from the returned length.
    pub async fn detach(self) -> Result<u64, StoreError> {
        Err(StoreError::Closing)
    }
}

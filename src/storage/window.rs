//! Verification of stored bytes at their first read after a start: the cold path.
//!
//! Invariant: a window is marked verified only after its bytes, read by a system call, matched the checksum that
//! its journal mark carries. Lives on: the reader's shard, with the reading done by a worker.

use super::bulk::segment::Segment;
use super::error::StoreError;
use super::extent::WINDOW;
use super::tail::Tail;
use crate::runtime::blocking;
use std::io;
use std::sync::Arc;

/// See [`Tail::verify`].
pub(super) async fn verify(tail: &Arc<Tail>, from: u64, len: u64) -> Result<u64, StoreError> {
    let mut count = 0;
    let unverified: Vec<(u64, usize)> = tail
        .pieces(from, len)
        .filter(|(run, window)| !run.window(*window).is_verified())
        .map(|(run, window)| (run.start(), window))
        .collect();
    for (start, window) in unverified {
        let (_, run) = tail.runs().last_where(|run| run.start() <= start).expect("runs stay");
        let Some(crc) = run.window(window).crc() else { return Err(tail.damage(run, window)) };
        // Given up meanwhile: nobody can be sent these bytes any more.
        let Some(place) = run.place() else { continue };
        let at = window as u64 * WINDOW;
        let (offset, len) = (place.offset + at, (run.len() - at).min(WINDOW));
        let segment = place.segment.clone();
        let read = blocking::run(move || checksum(&segment, offset, len)).await.and_then(|read| read);
        match read {
            Ok(found) if found == crc => run.window(window).set_verified(),
            Ok(_) => return Err(tail.damage(run, window)),
            Err(error) if is_damage(&error) => {
                return Err(tail.damage(run, window));
            }
            Err(error) => return Err(StoreError::from_io(&error, &place.segment.path)),
        }
        count += 1;
    }
    Ok(count)
}

/// What a device answers for a bad block.
const EIO: i32 = 5;

/// Whether a failed read means damage there: a bad block, or a file cut short.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::UnexpectedEof)
        || error.raw_os_error() == Some(EIO)
}

/// The CRC-32 of a part of a segment. Blocks.
pub(super) fn checksum(segment: &Segment, offset: u64, len: u64) -> io::Result<u32> {
    let mut bytes = vec![0; len as usize];
    segment.file.read_exact_at(&mut bytes, offset)?;
    Ok(crc32fast::hash(&bytes))
}

/// CRC-32 of each window of a run. Blocks.
pub(super) fn checksums(segment: &Segment, offset: u64, len: u64) -> io::Result<Vec<u32>> {
    (0..len.div_ceil(WINDOW))
        .map(|window| {
            let at = window * WINDOW;
            checksum(segment, offset + at, WINDOW.min(len - at))
        })
        .collect()
}

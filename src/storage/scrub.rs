//! The scrub: everything that is stored is read and checked now and then, so that damage is found before it is needed.
//!
//! One pass a week, the first an hour after the start, slowly enough not to be noticed. A window that no longer fits
//! its checksum is told in the log and in the metrics, and counts as not verified from then on: whoever asks for it
//! gets an error, as after a start. Nothing is repaired here.
//!
//! Invariant: a scrub changes nothing but what is known about a window. Lives on: one task per shard, for the names
//! that it owns; reading is the workers'.

use super::core::Core;
use super::extent::WINDOW;
use super::names::Entry;
use super::tail::Tail;
use super::window::{checksum, is_damage};
use crate::runtime::{blocking, shard, timer};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long after the start the first pass begins.
const FIRST: Duration = Duration::from_secs(3600);
/// How long after a pass the next one begins.
const BETWEEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes read per second.
const PACE: u64 = 16 << 20;
/// Names looked at between two chances for everything else on the shard.
const NAMES_PER_STEP: usize = 256;

/// The task: runs until the store closes.
pub(super) async fn run(core: Rc<Core>) {
    let mut wait = FIRST;
    loop {
        let closing = core.peers.until(|| core.closing.get());
        if timer::until(shard::now() + wait, closing).await.is_some() {
            return;
        }
        pass(&core).await;
        wait = BETWEEN;
    }
}

async fn pass(core: &Rc<Core>) {
    let begun = shard::now();
    let (mut after, mut windows, mut damaged) = (None, 0u64, 0u64);
    loop {
        let entries = core.durable_entries(after.as_ref(), NAMES_PER_STEP);
        let Some((last, _)) = entries.last() else { break };
        after = Some(last.clone());
        for entry in entries.into_iter().filter_map(|(_, entry)| entry) {
            let Some((looked_at, found)) = stream(core, &entry).await else { return };
            windows += looked_at;
            damaged += found;
        }
        shard::yield_now().await;
    }
    core.metrics.scrubs.inc();
    let seconds = (shard::now() - begun).as_secs();
    tracing::info!(shard = core.shard.0, windows, damaged, seconds, "everything stored was read and checked");
}

/// Looks at a stream's windows; how many, and how many are damaged. `None` when the store closes.
async fn stream(core: &Core, entry: &Entry) -> Option<(u64, u64)> {
    let (mut looked_at, mut damaged) = (0, 0);
    let tail = &entry.tail;
    for index in 0..tail.runs().count() {
        let Some(count) = tail.runs().at(index).and_then(|run| run.filled()).map(|(_, crcs)| crcs.len())
        else {
            continue;
        };
        for window in 0..count {
            if core.closing.get() {
                return None;
            }
            let Some((is_damaged, len)) = look_at(tail, index, window).await else { continue };
            looked_at += 1;
            if is_damaged {
                damaged += 1;
                core.metrics.windows_damaged.inc();
            }
            timer::sleep(Duration::from_nanos(len * 1_000_000_000 / PACE)).await;
        }
    }
    Some((looked_at, damaged))
}

/// Whether a window is damaged, and its length; nothing when it is still being filled, or could not be read now.
async fn look_at(tail: &Arc<Tail>, index: usize, window: usize) -> Option<(bool, u64)> {
    let run = tail.runs().at(index)?;
    let (len, crcs) = run.filled()?;
    let (crc, place) = (*crcs.get(window)?, run.place()?);
    let at = window as u64 * WINDOW;
    let piece = (len - at).min(WINDOW);
    let (segment, offset) = (place.segment.clone(), place.offset + at);
    let found = blocking::run(move || checksum(&segment, offset, piece)).await.and_then(|found| found);
    // The last window of a stream that grows has another checksum by now, and another length.
    let is_same = run.len() == len;
    match found {
        Ok(found) if found == crc || !is_same => Some((false, piece)),
        Err(error) if !is_damage(&error) => None,
        Ok(_) | Err(_) => {
            run.window(window).set_unverified();
            let (path, from) = (place.segment.path.display().to_string(), run.start() + at);
            tracing::error!(
                path,
                offset,
                uid = tail.uid(),
                from,
                "stored bytes no longer match their checksum"
            );
            Some((true, piece))
        }
    }
}

//! Giving space back: bytes die when the record that supersedes them is durable, files go when all of theirs did.
//!
//! Invariant: a stream's bytes are counted dead exactly once, by whoever comes last: its owner with the durable
//! record or its appender when it lets go. A file is unlinked, never truncated or written over, so that open
//! readers and pages in socket queues keep what they have.
//! Lives on: the shard that counts; the unlink is a worker's.

use super::bulk::segment::Segment;
use super::core::Core;
use super::tail::Tail;
use crate::observe::metrics::File;
use crate::runtime::{blocking, shard};
use std::path::Path;
use std::sync::Arc;

/// The record that supersedes the stream is durable.
pub(super) fn supersede(core: &Core, tail: &Tail) {
    if tail.supersede() {
        bury(core, tail);
    }
}

/// Counts all bytes of a superseded stream as dead, and retires the segments that are wholly dead now.
pub(super) fn bury(core: &Core, tail: &Tail) {
    core.discount_bytes(tail);
    for run in tail.runs().iter() {
        run.bury(|segment, len| count_dead(core, segment, len));
    }
}

/// Counts bytes of a segment as dead, and retires it if that was the last.
pub(super) fn count_dead(core: &Core, segment: &Arc<Segment>, len: u64) {
    segment.add_dead(core.shard.index(), len);
    core.metrics.dead_bytes.add(len as i64);
    core.metrics.live_bytes.add(-(len as i64));
    core.compact.note_dead();
    retire_if_dead(core, segment);
}

/// Unlinks the segment if nothing in it is alive and nothing will be.
pub(super) fn retire_if_dead(core: &Core, segment: &Arc<Segment>) {
    if !segment.retires() || shard::try_current().is_none() {
        return;
    }
    core.metrics.segments.of(File::Bulk).dec();
    core.metrics.dead_bytes.add(-(segment.dead() as i64));
    core.space.forget_retired();
    segment.file.note_removed();
    let (disk, path) = (core.disk.clone(), segment.path.clone());
    shard::spawn("retire segment", async move {
        let at = path.clone();
        let unlinked = blocking::run(move || {
            disk.remove(&at).and_then(|()| disk.sync_dir(at.parent().unwrap_or(Path::new("."))))
        });
        // The file stays as garbage then, and the next start removes it.
        if let Err(error) = unlinked.await.and_then(|unlinked| unlinked) {
            tracing::warn!(path = %path.display(), %error, "a dead segment could not be removed");
        }
    });
}

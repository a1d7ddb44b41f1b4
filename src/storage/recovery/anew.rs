//! What a look found, written down anew: one checkpoint of all of it, and a journal that begins behind it.
//!
//! For a repair. To everyone after it this is a start with one shard that came and went. Invariant: nothing is removed
//! here; what nothing needs any more is told once the checkpoint that stands in for it is durable, and a crash before
//! that leaves what was there. Runs while nobody serves; blocks.

use super::super::ahead::Place;
use super::super::checkpoint::{chunk_number, directory};
use super::super::error::OpenError;
use super::super::extent::LogId;
use super::super::header::Kind;
use super::format::Format;
use super::moved::Moved;
use super::{Beginning, LogEnd, Look, io, list, sync_found};
use crate::runtime::Disk;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Length of the journal segment that is made: the next start goes on in it, and makes longer ones.
const JOURNAL_LEN: u64 = 1 << 20;

/// Writes it, of a look for one shard. Tells the files that are superseded: all journals and chunks that were there.
pub fn write(disk: &dyn Disk, place: &Place, look: Look) -> Result<Vec<PathBuf>, OpenError> {
    let Look { manifest, facts, mut ends, bulk, mut owned } = look;
    let (place, before) =
        (Place { segment_size: JOURNAL_LEN, ..place.clone() }, manifest.unwrap_or_default());
    sync_found(disk, &ends, &owned.unsynced)?;
    let mut superseded = Vec::new();
    for log in ends.iter().map(|end| end.log) {
        let dir = place.log_dir(Kind::Journal, log);
        let names = list(disk, &dir)?;
        let journals = names.iter().filter(|name| super::segment_number(Kind::Journal, name).is_some());
        superseded.extend(journals.map(|name| dir.join(name)));
    }
    let chunks = list(disk, &directory(&place))?;
    superseded.extend(
        chunks.iter().filter(|name| chunk_number(name).is_some()).map(|name| directory(&place).join(name)),
    );

    let mut format = Format::open(disk, &place.dir, 1)?;
    if facts.boot_max >= format.boot {
        format = Format::raise(disk, &place.dir, facts.boot_max + 1)?;
    }
    let dirs =
        [place.log_dir(Kind::Journal, LogId(0)), place.log_dir(Kind::Bulk, LogId(0)), directory(&place)];
    dirs.iter().try_for_each(|dir| disk.create_dir(dir).map_err(io(dir)))?;
    // In a segment of its own, so that the ones before can go whole.
    let first = ends.iter().position(|end| end.log == LogId(0)).map(|at| ends.swap_remove(at));
    let first = first.unwrap_or_else(|| LogEnd::none(LogId(0)));
    let first =
        LogEnd { position: None, older: Vec::new(), useless: Vec::new(), unsynced: BTreeMap::new(), ..first };
    let start = Beginning { shards: 1, boot: format.boot }.write(disk, &place, first, &owned, 0)?;
    let journals = place.log_dir(Kind::Journal, LogId(0));
    disk.sync_dir(&journals).map_err(io(&journals))?;
    owned.damaged.iter_mut().for_each(BTreeSet::clear);
    let moved = Moved { disk, place: &place, boot: format.boot, before: &before };
    let logs = moved.logs(&[start], &ends, &bulk);
    moved.write(&mut owned, logs, &bulk, facts.epoch_max)?;
    Ok(superseded)
}

//! After a change of the number of shards: a checkpoint of everything, by the new owners, before they serve.
//!
//! Names have other owners now, and logs without a shard would be read for ever. Invariant: journals go only after
//! the manifest that covers them is durable; a crash before that starts over from the old checkpoint and journals.
//! Runs before shards serve.

use super::super::ahead::Place;
use super::super::checkpoint::part::PartWriter;
use super::super::checkpoint::{Chunks, Covered, Manifest, Used, chunk_number, directory, remove_all};
use super::super::error::OpenError;
use super::super::extent::LogId;
use super::owned::Owned;
use super::replay::LogEnd;
use super::{Bulk, Start, io, sync_now};
use crate::runtime::Disk;
use std::path::PathBuf;
use std::sync::Arc;

/// See the module.
pub struct Moved<'a> {
    pub disk: &'a dyn Disk,
    pub place: &'a Place,
    pub boot: u32,
    pub before: &'a Manifest,
}

impl Moved<'_> {
    /// Every log up to its end: `starts` are those with a shard, `orphans` those without.
    pub fn logs(&self, starts: &[Start], orphans: &[LogEnd], bulk: &Bulk) -> Vec<Covered> {
        let with_shard = starts.iter().enumerate().map(|(shard, start)| {
            let (log, seq) = (LogId(shard as u16), start.position.next_seq - 1);
            (log, seq, start.next_number)
        });
        let without = orphans.iter().map(|end| (end.log, end.next_seq - 1, end.next_number));
        let covered = |(log, seq, journal_next): (LogId, u64, u32)| {
            let bulk_next = bulk.numbers.get(&log).copied().unwrap_or(0);
            Covered { log: log.0, seq, journal_next, bulk_next }
        };
        with_shard.chain(without).map(covered).collect()
    }

    /// Writes and commits the checkpoint.
    pub fn write(
        &self,
        owned: &mut Owned,
        logs: Vec<Covered>,
        bulk: &Bulk,
        epoch_floor: u64,
    ) -> Result<Manifest, OpenError> {
        let segments = bulk.segments.values().map(|segment| Used {
            log: segment.log.0,
            number: segment.number,
            used: segment.used(),
        });
        let mut manifest = Manifest {
            number: self.before.number + 1,
            boot: self.boot,
            shards: owned.names.len() as u16,
            epoch_floor,
            logs,
            segments: segments.collect(),
            damaged: owned.damaged.iter().flatten().copied().collect(),
            parts: Vec::new(),
        };
        let links = std::mem::take(&mut owned.links);
        for (shard, (names, links)) in owned.names.iter_mut().zip(&links).enumerate() {
            names.sort_by(|a, b| a.key().cmp(&b.key()));
            let log = LogId(shard as u16);
            let mut writer = PartWriter::new(self.place.clone(), log, self.boot, self.next_chunk(log)?);
            for entry in names.iter() {
                let added = writer.add(entry, &[]);
                assert!(added.is_ok(), "nothing appends before shards serve");
                if writer.has_chunk() {
                    self.write_chunk(&mut writer)?;
                }
            }
            for link in links {
                writer.add_link(link);
                if writer.has_chunk() {
                    self.write_chunk(&mut writer)?;
                }
            }
            self.write_chunk(&mut writer)?;
            let (chunks, ..) = writer.into_chunks();
            manifest.parts.push(Chunks { shard: log.0, chunks });
        }
        owned.links = links;
        let dir = directory(self.place);
        self.disk.sync_dir(&dir).map_err(io(&dir))?;
        manifest.store(self.disk, self.place).map_err(io(&dir))?;
        Ok(manifest)
    }

    /// Removes what is covered now: all but the segments in which logs go on.
    pub fn remove_journals(&self, starts: &mut [Start], orphans: &[LogEnd]) -> Result<(), OpenError> {
        for start in starts {
            let older: Vec<Arc<PathBuf>> = start.position.older.drain(..).map(|older| older.path).collect();
            remove_all(self.disk, &older).map_err(io(&directory(self.place)))?;
        }
        for end in orphans {
            let mut paths: Vec<Arc<PathBuf>> = end.older.iter().map(|older| older.path.clone()).collect();
            paths.extend(end.position.iter().map(|(path, ..)| Arc::new(path.clone())));
            remove_all(self.disk, &paths).map_err(io(&directory(self.place)))?;
        }
        Ok(())
    }

    /// Numbers of the checkpoint before are taken until it is gone.
    fn next_chunk(&self, shard: LogId) -> Result<u32, OpenError> {
        let dir = directory(self.place);
        let names = self.disk.list(&dir).map_err(io(&dir))?;
        let numbers = names.iter().filter_map(|name| chunk_number(name)).filter(|&(of, _)| of == shard);
        Ok(numbers.map(|(_, number)| number + 1).max().unwrap_or(0))
    }

    fn write_chunk(&self, writer: &mut PartWriter) -> Result<(), OpenError> {
        let Some(chunk) = writer.take_chunk() else { return Ok(()) };
        let file = chunk.write(self.disk).map_err(io(&chunk.path))?;
        sync_now(&file).map_err(io(&chunk.path))
    }
}

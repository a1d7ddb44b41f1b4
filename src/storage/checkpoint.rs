//! Checkpoints: all names in few files, so that a start reads little and journals need not be kept for ever.
//!
//! A checkpoint is one *part* per shard and a manifest. A part is a row of chunk files in `checkpoint/`, each a
//! segment header and then the records of [`super::journal::snapshot`], numbered through the part from 1. The
//! manifest says which chunks there are, and for each log up to which sequence the checkpoint stands in for it:
//! those journal segments go. It is written twice, `MANIFEST` and then `MANIFEST.2`, each replaced atomically: one
//! line of JSON, and its CRC-32 in hexadecimal on the next. The first replacement is the commit.
//!
//! A part is written while its shard serves and is therefore no single moment: it holds at least what the covered
//! records say, and for some streams more. That is sound because what it holds is durable before the commit, and
//! reading the records after the covered ones over it again changes nothing: names carry versions, marks and epochs
//! are absolute.
//!
//! Invariant: a journal segment goes only after a manifest that covers all of it is durable; a chunk goes only
//! after a manifest that does not name it is.

pub mod part;
pub mod round;

use super::ahead::Place;
use super::error::{OpenError, Unreadable};
use super::extent::LogId;
use super::header::Kind;
use super::twice::{self, Copy};
use crate::runtime::Disk;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The two copies, in the order in which they are written.
pub const NAMES: [&str; 2] = ["MANIFEST", "MANIFEST.2"];

/// What a checkpoint consists of and what it covers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// One more than the one before.
    pub number: u32,
    /// The start of the program that wrote it.
    pub boot: u32,
    /// How many shards there were.
    pub shards: u16,
    /// No stream of a name that was replaced or deleted had a later epoch.
    pub epoch_floor: u64,
    /// What it covers.
    pub logs: Vec<Covered>,
    /// The bulk segments that had bytes, with how far they were handed out.
    pub segments: Vec<Used>,
    /// Placement hashes of names whose latest record is lost.
    pub damaged: Vec<u64>,
    /// One per shard.
    pub parts: Vec<Chunks>,
}

/// Up to where a log is covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Covered {
    /// The log.
    pub log: u16,
    /// The last sequence that need not be read again.
    pub seq: u64,
    /// No journal segment with this number or a greater one was made yet.
    pub journal_next: u32,
    /// The same of bulk segments.
    pub bulk_next: u32,
}

/// How far a bulk segment is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Used {
    /// Whose.
    pub log: u16,
    /// Its number.
    pub number: u32,
    /// Bytes, its header included.
    pub used: u64,
}

/// The chunks of a part, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chunks {
    /// Whose part.
    pub shard: u16,
    /// Number and records of each.
    pub chunks: Vec<(u32, u64)>,
}

impl Manifest {
    /// Both copies. Blocks.
    pub fn read(disk: &dyn Disk, place: &Place) -> Result<[Copy<Manifest>; 2], OpenError> {
        let paths = NAMES.map(|name| directory(place).join(name));
        twice::read(disk, &paths, |_, bytes| Ok(Manifest::decode(bytes)))
    }

    /// Reads the newer whole copy; `None` when there never was one. Blocks.
    pub fn load(disk: &dyn Disk, place: &Place) -> Result<Option<Manifest>, OpenError> {
        let mut found = Vec::new();
        let mut broken = None;
        for (copy, name) in Manifest::read(disk, place)?.into_iter().zip(NAMES) {
            let path = directory(place).join(name);
            match copy {
                Copy::Whole(manifest) => found.push(manifest),
                Copy::Missing => {}
                Copy::Damaged => {
                    tracing::error!(path = %path.display(), "a copy of the checkpoint's manifest is damaged");
                    broken = Some(path);
                }
            }
        }
        match (found.into_iter().max_by_key(|manifest| manifest.number), broken) {
            (Some(manifest), _) => Ok(Some(manifest)),
            (None, None) => Ok(None),
            (None, Some(path)) => Err(OpenError::Unreadable { path, why: Unreadable::Manifest }),
        }
    }

    /// Makes this the checkpoint that counts. Blocks.
    pub fn store(&self, disk: &dyn Disk, place: &Place) -> io::Result<()> {
        let bytes = self.encode()?;
        NAMES.iter().try_for_each(|name| disk.replace(&directory(place).join(name), &bytes))
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(format!("\n{crc:08x}\n").as_bytes());
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Manifest> {
        let split = bytes.iter().position(|&byte| byte == b'\n')?;
        let (document, rest) = bytes.split_at(split);
        let whole = rest == format!("\n{:08x}\n", crc32fast::hash(document)).as_bytes();
        if whole { serde_json::from_slice(document).ok() } else { None }
    }

    /// Up to where `log` is covered.
    pub fn covered(&self, log: LogId) -> Option<&Covered> {
        self.logs.iter().find(|covered| covered.log == log.0)
    }

    /// The number of the next chunk of `shard`.
    pub fn next_chunk(&self, shard: LogId) -> u32 {
        let parts = self.parts.iter().filter(|part| part.shard == shard.0);
        parts.flat_map(|part| &part.chunks).map(|chunk| chunk.0 + 1).max().unwrap_or(0)
    }

    /// Whether a chunk belongs to it.
    pub fn has_chunk(&self, shard: LogId, number: u32) -> bool {
        self.parts
            .iter()
            .any(|part| part.shard == shard.0 && part.chunks.iter().any(|chunk| chunk.0 == number))
    }
}

/// Where chunks and manifests lie, in the data directory.
pub const DIRECTORY: &str = "checkpoint";

/// Where chunks and manifests lie.
pub fn directory(place: &Place) -> PathBuf {
    place.dir.join(DIRECTORY)
}

/// The shard and the number in a chunk's file name.
pub fn chunk_number(name: &str) -> Option<(LogId, u32)> {
    let (shard, number) = name.strip_suffix(".mpc")?.split_once('-')?;
    let shaped = shard.len() == 4 && number.len() == 8;
    shaped.then_some(())?;
    Some((LogId(u16::from_str_radix(shard, 16).ok()?), u32::from_str_radix(number, 16).ok()?))
}

/// Removes chunks that are not of `manifest`: of `shard`, or of every one. Blocks.
pub fn remove_others(
    disk: &dyn Disk,
    place: &Place,
    manifest: &Manifest,
    shard: Option<LogId>,
) -> io::Result<()> {
    let names = disk.list(&directory(place))?;
    for (log, number) in names.iter().filter_map(|name| chunk_number(name)) {
        if shard.is_none_or(|shard| shard == log) && !manifest.has_chunk(log, number) {
            disk.remove(&place.segment_path(Kind::Checkpoint, log, number))?;
        }
    }
    Ok(())
}

/// Removes files, then makes that durable. Blocks.
pub fn remove_all(disk: &dyn Disk, paths: &[Arc<PathBuf>]) -> io::Result<()> {
    paths.iter().try_for_each(|path| disk.remove(path))?;
    let dir = paths.first().and_then(|path| path.parent());
    dir.map_or(Ok(()), |dir| disk.sync_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a copy that is believed although a byte of it changed.
    #[test]
    fn a_flipped_byte_is_noticed() {
        let covered = Covered { log: 3, seq: 77, journal_next: 4, bulk_next: 9 };
        let chunks = Chunks { shard: 0, chunks: vec![(8, 1000), (9, 12)] };
        let manifest = Manifest {
            number: 5,
            logs: vec![covered],
            parts: vec![chunks],
            damaged: vec![u64::MAX],
            ..Manifest::default()
        };
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes), Some(manifest));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(Manifest::decode(&flipped), None, "byte {at}");
            }
        }
    }

    #[test]
    fn a_chunk_is_told_by_its_name() {
        assert_eq!(chunk_number("0003-0000001f.mpc"), Some((LogId(3), 31)));
        for other in ["MANIFEST", "0003-1f.mpc", "3-0000001f.mpc", "0003-0000001f.mpj", "0003-0000001f"] {
            assert_eq!(chunk_number(other), None, "{other}");
        }
    }
}

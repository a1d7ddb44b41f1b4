//! What a look at a data directory finds wrong, where it is found.
//!
//! Recovery goes on over all of this; who inspects a directory tells it. Invariant: only what is certain is a
//! finding. A torn tail is none: a crash leaves one. Pure values.

use super::super::extent::LogId;
use super::super::placement::Key;
use super::facts::Written;
use std::path::PathBuf;

/// Something that is not as it was written.
pub enum Finding {
    /// Records that were durable and do not read.
    Records(LostRecords),
    /// A record of whose header one bit was put right.
    Mended {
        /// The file.
        path: PathBuf,
        /// The record's position in it.
        at: u64,
        /// Its sequence.
        seq: u64,
        /// What it is.
        kind: u8,
    },
    /// A copy of a segment's header.
    Header {
        /// The file.
        path: PathBuf,
        /// Which of the two are whole.
        whole: [bool; 2],
        /// The bulk segment, if it is one: where nothing lives there, it costs nothing.
        bulk: Option<(LogId, u32)>,
    },
    /// A file is shorter than it was made.
    CutShort {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The length it was made with, if that is known.
        made: Option<u64>,
        /// The bulk segment, if it is one.
        bulk: Option<(LogId, u32)>,
    },
    /// A log has no journal although there was one.
    NoJournal {
        /// Where it should be.
        dir: PathBuf,
    },
}

/// Records that were durable and do not read.
pub struct LostRecords {
    /// The file where they stood.
    pub path: PathBuf,
    /// Their position in it.
    pub at: u64,
    /// When and where the first of them was written.
    pub written: Written,
    /// The sequence of the first in its file.
    pub from_seq: u64,
    /// How many.
    pub count: u64,
    /// Kind and placement hash of the first, if its header is whole.
    pub header: Option<(u8, u64)>,
    /// The name of the first, if that much of its payload is whole.
    pub key: Option<Key>,
    /// The file behind that one, if it is not there.
    pub missing: Option<PathBuf>,
}

//! The address of bytes in a log: what a mark says, and all that recovery has to find them again.
//!
//! Invariant: the bytes at an extent never change; a segment that was renewed has another generation, so an old
//! extent can never name new bytes. Pure values; live anywhere.

/// Which log: a number that stays when the number of shards changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogId(pub u16);

/// The bytes that one checksum covers, counted from the start of a run.
pub const WINDOW: u64 = 256 * 1024;

/// Where bytes lie, and their checksums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Whose segments.
    pub log: LogId,
    /// Which of them.
    pub segment: u32,
    /// The generation that the segment must have.
    pub generation: u32,
    /// The first byte's position in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// CRC-32 of every window, the last one as far as `len` goes.
    pub crcs: Vec<u32>,
}

impl Extent {
    /// How many windows `len` bytes have.
    pub fn window_count(len: u64) -> usize {
        len.div_ceil(WINDOW) as usize
    }
}

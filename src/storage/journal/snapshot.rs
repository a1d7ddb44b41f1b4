//! A whole stream in one record: what checkpoints are made of, to the byte.
//!
//! Little-endian; `bytes` is a u32 length and as many bytes:
//!
//! | kind | | payload |
//! |---|---|---|
//! | 16 | Stream | `uid` u64, `first_epoch` u64, `epoch` u64, `created_ms` u64, `start` u64, `total` u64, `home` u16, `space` u8, `end` u8, `more` u8, `key` bytes, `attributes` bytes, runs |
//! | 17 | Runs | `uid` u64, runs |
//!
//! Runs are a u32 count and as many of them. A run is `epoch` u64, `start` u64, `log` u16, `segment` u32, `generation` u32, `offset` u64, `len` u64, then one
//! u32 checksum per window. With `more`, what did not fit follows: Runs, and an Epoch record for every epoch after
//! the first. Invariant: what decodes has whole runs and nothing else. Pure; runs anywhere.

use super::super::extent::{Extent, LogId};
use super::super::placement::Key;
use super::super::tail::End;
use super::record::{ATTRIBUTES_MAX, Input, end_byte, end_of, put_bytes};
use std::borrow::Cow;

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot<'a> {
    /// Its stream, which is its version too.
    pub uid: u64,
    /// The stream's first epoch.
    pub first_epoch: u64,
    /// The stream's last one.
    pub epoch: u64,
    /// When it was put.
    pub created_ms: u64,
    /// The first offset that is kept.
    pub start: u64,
    /// The stream's length.
    pub total: u64,
    /// The log of its first appender.
    pub home: LogId,
    /// The service's space.
    pub space: u8,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// Records about the rest of it follow.
    pub more: bool,
    /// The name.
    pub key: Cow<'a, [u8]>,
    /// What the service keeps beside it.
    pub attributes: Cow<'a, [u8]>,
    /// Its bytes, or the first of them.
    pub runs: Runs<'a>,
}

/// Runs one after the other, encoded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Runs<'a> {
    count: u32,
    bytes: Cow<'a, [u8]>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    /// The epoch it was written in.
    pub epoch: u64,
    /// The stream's position of its first byte.
    pub start: u64,
    /// Whose segment.
    pub log: LogId,
    /// Which.
    pub segment: u32,
    /// Which life of it.
    pub generation: u32,
    /// The file's position of its first byte.
    pub offset: u64,
    /// Bytes that it has, at least one.
    pub len: u64,
    /// CRC-32 of each window, four bytes each.
    pub crcs: Cow<'a, [u8]>,
}

impl Runs<'static> {
    /// Adds a run.
    pub fn push(&mut self, piece: &Piece<'_>) {
        self.count += 1;
        let out = self.bytes.to_mut();
        out.extend_from_slice(&piece.epoch.to_le_bytes());
        out.extend_from_slice(&piece.start.to_le_bytes());
        out.extend_from_slice(&piece.log.0.to_le_bytes());
        out.extend_from_slice(&piece.segment.to_le_bytes());
        out.extend_from_slice(&piece.generation.to_le_bytes());
        out.extend_from_slice(&piece.offset.to_le_bytes());
        out.extend_from_slice(&piece.len.to_le_bytes());
        debug_assert_eq!(piece.crcs.len(), Extent::window_count(piece.len) * 4);
        out.extend_from_slice(&piece.crcs);
    }
}

impl Runs<'_> {
    /// The same, on its own.
    pub fn into_owned(self) -> Runs<'static> {
        Runs { count: self.count, bytes: Cow::Owned(self.bytes.into_owned()) }
    }

    /// Bytes they take.
    pub fn encoded_len(&self) -> usize {
        4 + self.bytes.len()
    }

    /// First to last.
    pub fn iter(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut input = Input(&self.bytes);
        std::iter::from_fn(move || input.piece())
    }
}

impl Piece<'_> {
    /// CRC-32 of each window.
    pub fn crcs(&self) -> impl ExactSizeIterator<Item = u32> {
        self.crcs.chunks_exact(4).map(|crc| u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]))
    }
}

impl<'a> Input<'a> {
    fn piece(&mut self) -> Option<Piece<'a>> {
        let piece = Piece {
            epoch: self.u64()?,
            start: self.u64()?,
            log: LogId(self.u16()?),
            segment: self.u32()?,
            generation: self.u32()?,
            offset: self.u64()?,
            len: self.u64()?,
            crcs: Cow::Borrowed(&[]),
        };
        let sound = piece.len > 0
            && piece.start.checked_add(piece.len).is_some()
            && piece.offset.checked_add(piece.len).is_some();
        let crcs_len =
            usize::try_from(piece.len.div_ceil(super::super::extent::WINDOW)).ok()?.checked_mul(4)?;
        let crcs = self.take(crcs_len)?;
        sound.then_some(Piece { crcs: crcs.into(), ..piece })
    }

    pub(super) fn runs(&mut self) -> Option<Runs<'a>> {
        let count = self.u32()?;
        let bytes = self.0;
        for _ in 0..count {
            self.piece()?;
        }
        Some(Runs { count, bytes: bytes[..bytes.len() - self.0.len()].into() })
    }

    pub(super) fn snapshot(&mut self) -> Option<Snapshot<'a>> {
        Some(Snapshot {
            uid: self.u64()?,
            first_epoch: self.u64()?,
            epoch: self.u64()?,
            created_ms: self.u64()?,
            start: self.u64()?,
            total: self.u64()?,
            home: LogId(self.u16()?),
            space: self.u8()?,
            end: end_of(self.u8()?)?,
            more: match self.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            key: self.bytes(Key::BYTES_MAX)?.into(),
            attributes: self.bytes(ATTRIBUTES_MAX)?.into(),
            runs: self.runs()?,
        })
    }
}

pub(super) fn encode_snapshot(snapshot: &Snapshot<'_>, out: &mut Vec<u8>) {
    let Snapshot { uid, first_epoch, epoch, created_ms, start, total, .. } = snapshot;
    for value in [uid, first_epoch, epoch, created_ms, start, total] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&snapshot.home.0.to_le_bytes());
    out.extend_from_slice(&[snapshot.space, end_byte(snapshot.end), u8::from(snapshot.more)]);
    put_bytes(out, &snapshot.key);
    put_bytes(out, &snapshot.attributes);
    put_runs(out, &snapshot.runs);
}

pub(super) fn encode_runs(uid: u64, runs: &Runs<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&uid.to_le_bytes());
    put_runs(out, runs);
}

fn put_runs(out: &mut Vec<u8>, runs: &Runs<'_>) {
    out.extend_from_slice(&runs.count.to_le_bytes());
    out.extend_from_slice(&runs.bytes);
}

//! Journal records to the byte.
//!
//! Everything is little-endian. A record is a header of 48 bytes, a payload, and zeros up to a multiple of 8:
//!
//! | at | field | |
//! |---|---|---|
//! | 0 | `header_crc` u32 | CRC-32 of bytes 4 to 48, seeded with the segment's generation |
//! | 4 | `payload_crc` u32 | CRC-32 of the payload, seeded alike |
//! | 8 | `payload_len` u32 | at most 1 MiB |
//! | 12 | `kind` u8 | see below |
//! | 13 | `flags` u8, zero u16 | 0 |
//! | 16 | `seq` u64 | one more than the record before in this log |
//! | 24 | `synced_seq` u64 | the highest sequence known to be durable when this was written |
//! | 32 | `key_hash` u64 | placement hash of the name it is about, readable even if the payload is damaged; else 0 |
//! | 40 | `boot` u32, zero u32 | the start of the program that wrote it; never falls along a log |
//!
//! Payloads, in the order of their fields; `bytes` is a u32 length and as many bytes:
//!
//! | kind | | payload |
//! |---|---|---|
//! | 1 | Boot | `shards` u16 |
//! | 2 | Name | `uid` u64, `epoch` u64, `created_ms` u64, `home` u16, `space` u8, `key` bytes, `attributes` bytes |
//! | 3 | Delete | `version` u64, `space` u8, `key` bytes |
//! | 4 | Mark | `uid` u64, `epoch` u64, `start` u64, `total` u64, `end` u8, `log` u16, `segment` u32, `generation` u32, `offset` u64, `len` u64, then one u32 checksum per window |
//! | 5 | Epoch | `uid` u64, `epoch` u64, `cut` u64 |
//! | 6 | SyncMark | nothing |
//! | 7 | Abort | `from` u64, `to` u64: these sequences of this log are void |
//! | 8 | Trim | `uid` u64, `first` u64: bytes of the stream before this offset are gone; of several the greatest counts |
//! | 9 | Ended | `uid` u64, `epoch` u64, `at_ms` u64: when the stream ended in that epoch |
//! | 10 | Link | a name that stands for parts of bodies: see [`super::link`] |
//! | 11 | Links | several of them, all or none |
//! | 18 | Moved | as Mark: the run with this `epoch` and `start` lies here now |
//!
//! Kinds 16 and 17 stand in checkpoints alone and are laid out in [`super::snapshot`]. Invariant: decoding what was
//! encoded gives it back, and nothing else decodes. Pure; runs anywhere.

use super::super::extent::{Extent, LogId};
use super::super::placement::Key;
use super::super::tail::End;
use super::link::{LinkRecord, encode_link, encode_links};
use super::snapshot::{Runs, Snapshot, encode_runs, encode_snapshot};
use std::borrow::Cow;

/// Bytes of a record's header.
pub const HEADER_LEN: usize = 48;
/// Records begin at multiples of this.
pub const ALIGN: usize = 8;
/// The longest payload.
pub const PAYLOAD_MAX: usize = 1 << 20;
/// The longest attributes of a name; what remains holds the key.
pub const ATTRIBUTES_MAX: usize = PAYLOAD_MAX / 2;

const _: () = assert!(HEADER_LEN.is_multiple_of(ALIGN));
const _: () = assert!(ATTRIBUTES_MAX + Key::BYTES_MAX + 64 < PAYLOAD_MAX);

/// The header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// CRC-32 of the payload.
    pub payload_crc: u32,
    /// Its length.
    pub payload_len: u32,
    /// What the payload is.
    pub kind: u8,
    /// Its place in the log.
    pub seq: u64,
    /// What was durable when it was written.
    pub synced_seq: u64,
    /// The name it is about.
    pub key_hash: u64,
    /// The start of the program that wrote it.
    pub boot: u32,
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// The program started and writes on from here.
    Boot {
        /// With how many shards.
        shards: u16,
    },
    /// A name was put or replaced.
    Name {
        /// Its stream, which is its version too.
        uid: u64,
        /// The stream's first epoch: greater than any that a stream of this name had before.
        epoch: u64,
        /// When it was put.
        created_ms: u64,
        /// The log of its first appender.
        home: LogId,
        /// The service's space.
        space: u8,
        /// The name within.
        key: Cow<'a, [u8]>,
        /// What the service keeps beside it.
        attributes: Cow<'a, [u8]>,
    },
    /// A name was deleted.
    Delete {
        /// Greater than the version it deletes.
        version: u64,
        /// The service's space.
        space: u8,
        /// The name within.
        key: Cow<'a, [u8]>,
    },
    /// A stream has come this far.
    Mark(Mark<'a>),
    /// A run was copied and lies here now.
    Moved(Mark<'a>),
    /// A stream's history was cut and goes on in a new epoch.
    Epoch {
        /// The stream.
        uid: u64,
        /// The new epoch.
        epoch: u64,
        /// Where the one before ended.
        cut: u64,
    },
    /// The beginning of a stream is gone.
    Trim {
        /// The stream.
        uid: u64,
        /// The first offset that is kept: where a run begins.
        first: u64,
    },
    /// A stream ended in this epoch, as the mark that follows says, or was found without an appender.
    Ended {
        /// The stream.
        uid: u64,
        /// Its epoch: once there is a later one, the stream went on.
        epoch: u64,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// Everything up to this record's `synced_seq` is durable.
    SyncMark,
    /// A sync failed: records of these sequences, both included, are void.
    Abort {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A name was put or replaced that stands for parts of bodies.
    Link(LinkRecord<'a>),
    /// Several such names of one group were, together.
    Links(Vec<LinkRecord<'a>>),
    /// Where a name stands, whole.
    Stream(Snapshot<'a>),
    /// More runs of a stream.
    Runs {
        /// The stream.
        uid: u64,
        /// What did not fit before.
        runs: Runs<'a>,
    },
}

/// Where a run of a stream lies and how far it is filled. Each mark says all about its run, so losing one that
/// a later one repeats loses nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark<'a> {
    /// The stream.
    pub uid: u64,
    /// The epoch it was written in.
    pub epoch: u64,
    /// The stream's position of the run's first byte.
    pub start: u64,
    /// The stream's length.
    pub total: u64,
    /// How the stream ended, if it did.
    pub end: Option<End>,
    /// Whose segment.
    pub log: LogId,
    /// Which.
    pub segment: u32,
    /// Which life of it.
    pub generation: u32,
    /// The file's position of the run's first byte.
    pub offset: u64,
    /// Bytes of the run that are filled.
    pub len: u64,
    /// CRC-32 of each window of them.
    pub crcs: Cow<'a, [u32]>,
}

impl Mark<'_> {
    /// Whether both are about one run.
    pub fn is_of_run(&self, other: &Mark<'_>) -> bool {
        let run = |mark: &Mark<'_>| (mark.uid, mark.epoch, mark.start, mark.log, mark.segment, mark.offset);
        run(self) == run(other) && self.end == other.end
    }
}

const BOOT: u8 = 1;
const NAME: u8 = 2;
const DELETE: u8 = 3;
const MARK: u8 = 4;
const EPOCH: u8 = 5;
const SYNC_MARK: u8 = 6;
const ABORT: u8 = 7;
const TRIM: u8 = 8;
const ENDED: u8 = 9;
const LINK: u8 = 10;
const LINKS: u8 = 11;
const STREAM: u8 = 16;
const RUNS: u8 = 17;
const MOVED: u8 = 18;

/// Whether `kind` tells of a stream's bytes and not of its name, for a record whose payload is damaged.
pub fn is_mark(kind: u8) -> bool {
    matches!(kind, MARK | RUNS | MOVED)
}

/// Whether `kind` is an abort, for a record whose payload is damaged.
pub fn is_abort(kind: u8) -> bool {
    kind == ABORT
}

/// Whether records of `kind` speak of the log alone: losing one loses nothing of any name.
pub fn is_about_the_log(kind: u8) -> bool {
    matches!(kind, BOOT | SYNC_MARK | ABORT)
}

/// Whether `kind` says something of several names of a group, for a record whose payload is damaged.
pub fn is_of_a_group(kind: u8) -> bool {
    kind == LINKS
}

/// Whether `kind` says where a stream begins, for a record whose payload is damaged.
pub fn is_trim(kind: u8) -> bool {
    kind == TRIM
}

/// Whether records of `kind` say when something happened: the next start takes the time anew for one that is lost.
pub fn is_time(kind: u8) -> bool {
    kind == ENDED
}

/// The name in a record whose payload is damaged, if it still has the placement hash that the header tells. `bytes`
/// begin with the record.
pub fn key_in(header: &Header, bytes: &[u8]) -> Option<Key> {
    let payload = bytes.get(HEADER_LEN..)?.get(..header.payload_len as usize)?;
    let key = match decode_payload(header.kind, payload)? {
        Record::Name { space, key, .. } | Record::Delete { space, key, .. } => Key::new(space, &key),
        Record::Stream(snapshot) => Key::new(snapshot.space, &snapshot.key),
        Record::Link(link) => Key::new(link.space, &link.key),
        // Any of them tells the group.
        Record::Links(links) => links.first().map(|link| Key::new(link.space, &link.key))?,
        _ => return None,
    };
    if key.hash() == header.key_hash { Some(key) } else { one_bit_off(&key, header.key_hash) }
}

/// The name with this hash that differs from `key` in one bit, if there is one: the damage may have hit the name itself.
fn one_bit_off(key: &Key, hash: u64) -> Option<Key> {
    let mut bytes = key.bytes.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let other = Key::new(key.space, &bytes);
            if other.hash() == hash {
                return Some(other);
            }
            bytes[at] ^= 1 << bit;
        }
    }
    None
}

/// What a record of `kind` is called.
pub fn kind_name(kind: u8) -> &'static str {
    match kind {
        BOOT => "boot",
        NAME => "name",
        DELETE => "delete",
        MARK => "mark",
        EPOCH => "epoch",
        SYNC_MARK => "sync mark",
        ABORT => "abort",
        TRIM => "trim",
        ENDED => "ended",
        LINK => "link",
        LINKS => "links",
        STREAM => "stream",
        RUNS => "runs",
        MOVED => "moved",
        _ => "unknown",
    }
}

impl Header {
    /// Bytes of the whole record with its padding.
    pub fn record_len(&self) -> usize {
        HEADER_LEN + (self.payload_len as usize).next_multiple_of(ALIGN)
    }

    /// Reads a header; `None` unless its checksum matches.
    pub fn decode(bytes: &[u8], generation: u32) -> Option<Header> {
        let bytes = bytes.get(..HEADER_LEN)?;
        // Free space is zero, and looking for the next record passes much of it.
        if bytes[12] == 0 {
            return None;
        }
        let header = Header {
            payload_crc: u32_at(bytes, 4),
            payload_len: u32_at(bytes, 8),
            kind: bytes[12],
            seq: u64_at(bytes, 16),
            synced_seq: u64_at(bytes, 24),
            key_hash: u64_at(bytes, 32),
            boot: u32_at(bytes, 40),
        };
        let whole = header.payload_len as usize <= PAYLOAD_MAX
            && u32_at(bytes, 0) == seeded_crc(generation, &bytes[4..]);
        whole.then_some(header)
    }

    /// Whether `payload` is what this header describes.
    pub fn fits(&self, payload: &[u8], generation: u32) -> bool {
        payload.len() == self.payload_len as usize && seeded_crc(generation, payload) == self.payload_crc
    }
}

/// Appends a record to `out`, without checksums: [`finish`] adds them once the segment is known. Returns the
/// record's length.
pub fn encode(
    record: &Record<'_>,
    key_hash: u64,
    seq: u64,
    synced_seq: u64,
    boot: u32,
    out: &mut Vec<u8>,
) -> usize {
    let at = out.len();
    debug_assert!(at.is_multiple_of(ALIGN));
    out.resize(at + HEADER_LEN, 0);
    let kind = encode_payload(record, out);
    let payload_len = out.len() - at - HEADER_LEN;
    assert!(payload_len <= PAYLOAD_MAX, "a payload is at most {PAYLOAD_MAX} bytes long");
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    let header = &mut out[at..at + HEADER_LEN];
    header[8..12].copy_from_slice(&(payload_len as u32).to_le_bytes());
    header[12] = kind;
    header[16..24].copy_from_slice(&seq.to_le_bytes());
    header[24..32].copy_from_slice(&synced_seq.to_le_bytes());
    header[32..40].copy_from_slice(&key_hash.to_le_bytes());
    header[40..44].copy_from_slice(&boot.to_le_bytes());
    out.len() - at
}

/// The length and sequence of the record at the start of `bytes`, which [`encode`] wrote.
pub fn measure(bytes: &[u8]) -> (usize, u64) {
    let payload_len = u32_at(bytes, 8) as usize;
    (HEADER_LEN + payload_len.next_multiple_of(ALIGN), u64_at(bytes, 16))
}

/// Adds the checksums to the record at the start of `bytes`; returns its length.
pub fn finish(bytes: &mut [u8], generation: u32) -> usize {
    let payload_len = u32_at(bytes, 8) as usize;
    let crc = seeded_crc(generation, &bytes[HEADER_LEN..HEADER_LEN + payload_len]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    let crc = seeded_crc(generation, &bytes[4..HEADER_LEN]);
    bytes[0..4].copy_from_slice(&crc.to_le_bytes());
    HEADER_LEN + payload_len.next_multiple_of(ALIGN)
}

fn encode_payload(record: &Record<'_>, out: &mut Vec<u8>) -> u8 {
    match record {
        Record::Boot { shards } => {
            out.extend_from_slice(&shards.to_le_bytes());
            BOOT
        }
        Record::Name { uid, epoch, created_ms, home, space, key, attributes } => {
            for value in [uid, epoch, created_ms] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            out.extend_from_slice(&home.0.to_le_bytes());
            out.push(*space);
            put_bytes(out, key);
            put_bytes(out, attributes);
            NAME
        }
        Record::Delete { version, space, key } => {
            out.extend_from_slice(&version.to_le_bytes());
            out.push(*space);
            put_bytes(out, key);
            DELETE
        }
        Record::Mark(mark) => {
            encode_mark(mark, out);
            MARK
        }
        Record::Moved(mark) => {
            encode_mark(mark, out);
            MOVED
        }
        Record::Epoch { uid, epoch, cut } => {
            for value in [uid, epoch, cut] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            EPOCH
        }
        Record::Trim { uid, first } => {
            for value in [uid, first] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            TRIM
        }
        Record::Ended { uid, epoch, at_ms } => {
            for value in [uid, epoch, at_ms] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            ENDED
        }
        Record::SyncMark => SYNC_MARK,
        Record::Link(link) => {
            encode_link(link, out);
            LINK
        }
        Record::Links(links) => {
            encode_links(links, out);
            LINKS
        }
        Record::Abort { from, to } => {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
            ABORT
        }
        Record::Stream(snapshot) => {
            encode_snapshot(snapshot, out);
            STREAM
        }
        Record::Runs { uid, runs } => {
            encode_runs(*uid, runs, out);
            RUNS
        }
    }
}

fn encode_mark(mark: &Mark<'_>, out: &mut Vec<u8>) {
    for value in [mark.uid, mark.epoch, mark.start, mark.total] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.push(end_byte(mark.end));
    out.extend_from_slice(&mark.log.0.to_le_bytes());
    out.extend_from_slice(&mark.segment.to_le_bytes());
    out.extend_from_slice(&mark.generation.to_le_bytes());
    out.extend_from_slice(&mark.offset.to_le_bytes());
    out.extend_from_slice(&mark.len.to_le_bytes());
    debug_assert_eq!(mark.crcs.len(), Extent::window_count(mark.len));
    for crc in mark.crcs.iter() {
        out.extend_from_slice(&crc.to_le_bytes());
    }
}

/// Reads the payload of a record of `kind`; `None` when it is not exactly one.
pub fn decode_payload(kind: u8, payload: &[u8]) -> Option<Record<'_>> {
    let mut input = Input(payload);
    let record = match kind {
        BOOT => Record::Boot { shards: input.u16()? },
        NAME => Record::Name {
            uid: input.u64()?,
            epoch: input.u64()?,
            created_ms: input.u64()?,
            home: LogId(input.u16()?),
            space: input.u8()?,
            key: input.bytes(Key::BYTES_MAX)?.into(),
            attributes: input.bytes(ATTRIBUTES_MAX)?.into(),
        },
        DELETE => Record::Delete {
            version: input.u64()?,
            space: input.u8()?,
            key: input.bytes(Key::BYTES_MAX)?.into(),
        },
        MARK => Record::Mark(input.mark()?),
        MOVED => Record::Moved(input.mark()?),
        EPOCH => Record::Epoch { uid: input.u64()?, epoch: input.u64()?, cut: input.u64()? },
        TRIM => Record::Trim { uid: input.u64()?, first: input.u64()? },
        ENDED => Record::Ended { uid: input.u64()?, epoch: input.u64()?, at_ms: input.u64()? },
        SYNC_MARK => Record::SyncMark,
        ABORT => Record::Abort { from: input.u64()?, to: input.u64()? },
        LINK => Record::Link(input.link()?),
        LINKS => Record::Links(input.links()?),
        STREAM => Record::Stream(input.snapshot()?),
        RUNS => Record::Runs { uid: input.u64()?, runs: input.runs()? },
        _ => return None,
    };
    input.0.is_empty().then_some(record)
}

/// What is left of a payload.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32_at(bytes, 0))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64_at(bytes, 0))
    }

    pub(super) fn bytes(&mut self, len_max: usize) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        if len > len_max { None } else { self.take(len) }
    }

    fn mark(&mut self) -> Option<Mark<'a>> {
        let mark = Mark {
            uid: self.u64()?,
            epoch: self.u64()?,
            start: self.u64()?,
            total: self.u64()?,
            end: end_of(self.u8()?)?,
            log: LogId(self.u16()?),
            segment: self.u32()?,
            generation: self.u32()?,
            offset: self.u64()?,
            len: self.u64()?,
            crcs: self.take(self.0.len() & !3)?.chunks_exact(4).map(|crc| u32_at(crc, 0)).collect(),
        };
        let whole = mark.crcs.len() == Extent::window_count(mark.len)
            && mark.start.checked_add(mark.len).is_some_and(|end| end <= mark.total)
            && mark.offset.checked_add(mark.len).is_some();
        whole.then_some(mark)
    }
}

pub(super) fn end_byte(end: Option<End>) -> u8 {
    match end {
        None => 0,
        Some(End::Complete) => 1,
        Some(End::Interrupted) => 2,
    }
}

pub(super) fn end_of(byte: u8) -> Option<Option<End>> {
    match byte {
        0 => Some(None),
        1 => Some(Some(End::Complete)),
        2 => Some(Some(End::Interrupted)),
        _ => None,
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn seeded_crc(generation: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(generation);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
pub(super) mod tests;

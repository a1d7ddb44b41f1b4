//! `FORMAT`: what has to be known before any segment is read.
//!
//! A small JSON document, replaced atomically: `format` (5), `hash` ("xxh3-64"), `logs` (the ids that exist),
//! `shards` (of the last start), `boot` (how often the directory was opened), `secret` (16 hex digits, of which
//! generations are made), `crc` (CRC-32 of the file's text in 8 hex digits, computed with zeros in their place). It
//! is written twice, `FORMAT.2` and then `FORMAT`; of two whole ones the one with the greater `boot` counts. Format 1
//! may come without `crc`, and then without a second copy; every later one has both.
//!
//! Invariant: `boot` is durable before anything of that start is written, and greater than any in a record.

use super::super::error::{OpenError, Unreadable};
use super::super::extent::LogId;
use super::super::header::VERSION;
use super::super::placement::HASH_NAME;
use super::super::twice::{self, Copy};
use super::io;
use crate::runtime::Disk;
use crate::runtime::entropy::Entropy;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What `FORMAT` says.
pub struct Format {
    /// The logs that exist, those of this start's shards included.
    pub logs: Vec<LogId>,
    /// This start's number.
    pub boot: u32,
    /// What generations are made of.
    pub secret: u64,
    /// How many shards the start before this one had, if this was just read.
    pub shards_before: Option<usize>,
}

/// The copies, the one that is written last first.
pub const NAMES: [&str; 2] = ["FORMAT", "FORMAT.2"];

/// The JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Document {
    format: u32,
    hash: String,
    logs: Vec<u16>,
    shards: u16,
    boot: u32,
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc: Option<String>,
}

/// Read first, because a newer release may have changed everything else.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// What a version has bits for.
const BOOT_MAX: u32 = (1 << 20) - 1;

/// From here on a document has a checksum.
const FORMAT_WITH_CRC: u32 = 2;

impl Format {
    /// Reads what is there, or begins anew, and writes down that this start happens.
    pub fn open(disk: &dyn Disk, dir: &Path, shards: usize) -> Result<Self, OpenError> {
        let mut document = match Document::newest(disk, dir, read(disk, dir)?)? {
            Some(document) => document,
            None => begin(),
        };
        let shards_before = (document.shards > 0).then_some(usize::from(document.shards));
        document.format = VERSION;
        document.shards = shards as u16;
        document.logs.extend(0..shards as u16);
        document.logs.sort_unstable();
        document.logs.dedup();
        let boot = document.boot.saturating_add(1);
        let format = document.store(disk, dir, boot)?;
        Ok(Format { shards_before, ..format })
    }

    /// Starts again from `boot`, because records are there of a start that `FORMAT` does not know.
    pub fn raise(disk: &dyn Disk, dir: &Path, boot: u32) -> Result<Self, OpenError> {
        let document = Document::newest(disk, dir, read(disk, dir)?)?.unwrap_or_else(begin);
        document.store(disk, dir, boot)
    }
}

/// Both copies. An error when one of them is of a newer release or names an unknown hash.
pub fn read(disk: &dyn Disk, dir: &Path) -> Result<[Copy<Document>; 2], OpenError> {
    let mut newer = None;
    let copies = twice::read(disk, &NAMES.map(|name| dir.join(name)), |path, bytes| match parse(bytes) {
        Parsed::Whole(document) if document.hash != HASH_NAME => {
            Err(OpenError::Unreadable { path: path.to_owned(), why: Unreadable::Hash })
        }
        Parsed::Whole(document) => Ok(Some(document)),
        Parsed::Damaged => Ok(None),
        Parsed::Newer { found, certain } => {
            let error = OpenError::Newer { path: path.to_owned(), found, newest: VERSION };
            if certain {
                return Err(error);
            }
            newer.get_or_insert(error);
            Ok(None)
        }
    })?;
    // A version that is only the work of a wrong bit has a whole copy beside it.
    match newer {
        Some(error) if !copies.iter().any(|copy| matches!(copy, Copy::Whole(_))) => Err(error),
        _ => Ok(copies),
    }
}

enum Parsed {
    Whole(Document),
    Damaged,
    Newer { found: u32, certain: bool },
}

fn parse(bytes: &[u8]) -> Parsed {
    let crc_fits = crc_fits(bytes);
    let Ok(Version { format }) = serde_json::from_slice(bytes) else { return Parsed::Damaged };
    if format > VERSION {
        return Parsed::Newer { found: format, certain: crc_fits == Some(true) };
    }
    let has_what_it_should = crc_fits.unwrap_or(format < FORMAT_WITH_CRC);
    match serde_json::from_slice::<Document>(bytes) {
        Ok(document) if has_what_it_should && document.is_sound() => Parsed::Whole(document),
        _ => Parsed::Damaged,
    }
}

/// Whether the text has the checksum that it names; `None` when it names none.
fn crc_fits(bytes: &[u8]) -> Option<bool> {
    let at = memchr::memmem::find(bytes, CRC_FIELD)? + CRC_FIELD.len();
    let digits = bytes.get(at..at + CRC_DIGITS)?;
    let mut hasher = crc32fast::Hasher::new();
    for part in [&bytes[..at], &[b'0'; CRC_DIGITS], &bytes[at + CRC_DIGITS..]] {
        hasher.update(part);
    }
    Some(digits == format!("{:08x}", hasher.finalize()).as_bytes())
}

const CRC_FIELD: &[u8] = b"\"crc\": \"";
const CRC_DIGITS: usize = 8;

impl Document {
    /// The whole copy that counts; `None` when there never was one.
    pub fn newest(disk: &dyn Disk, dir: &Path, copies: [Copy<Self>; 2]) -> Result<Option<Self>, OpenError> {
        let mut whole = Vec::new();
        let mut damaged = false;
        for (copy, name) in copies.into_iter().zip(NAMES) {
            match copy {
                Copy::Whole(document) => whole.push(document),
                Copy::Missing => {}
                Copy::Damaged => {
                    tracing::error!(path = %dir.join(name).display(), "this copy of the format description is damaged");
                    damaged = true;
                }
            }
        }
        let why = match (whole.into_iter().max_by_key(|document| document.boot), damaged) {
            (Some(document), _) => return Ok(Some(document)),
            (None, true) => Unreadable::Format,
            (None, false) if has_logs(disk, dir)? => Unreadable::Missing,
            (None, false) => return Ok(None),
        };
        Err(OpenError::Unreadable { path: dir.join(NAMES[0]), why })
    }

    /// Whether what it says can be so.
    fn is_sound(&self) -> bool {
        self.secret().is_some() && self.boot < BOOT_MAX
    }

    /// What generations are made of.
    pub fn secret(&self) -> Option<u64> {
        u64::from_str_radix(&self.secret, 16).ok()
    }

    /// Whether it was written with a second copy beside it.
    pub fn has_crc(&self) -> bool {
        self.crc.is_some()
    }

    /// The last start.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Its version.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// The logs that exist.
    pub fn logs(&self) -> Vec<LogId> {
        self.logs.iter().copied().map(LogId).collect()
    }

    /// Writes it down with this number of a start.
    fn store(mut self, disk: &dyn Disk, dir: &Path, boot: u32) -> Result<Format, OpenError> {
        self.boot = boot;
        let unreadable = || OpenError::Unreadable { path: dir.join(NAMES[0]), why: Unreadable::Format };
        let secret = self.secret().filter(|_| boot <= BOOT_MAX).ok_or_else(unreadable)?;
        let text = self.encode().ok_or_else(unreadable)?;
        for path in NAMES.iter().rev().map(|name| dir.join(name)) {
            disk.replace(&path, &text).map_err(io(&path))?;
        }
        Ok(Format { logs: self.logs(), boot, secret, shards_before: None })
    }

    /// The text of the file.
    pub fn encode(&mut self) -> Option<Vec<u8>> {
        self.crc = Some("0".repeat(CRC_DIGITS));
        let mut text = serde_json::to_vec_pretty(self).ok()?;
        let crc = format!("{:08x}", crc32fast::hash(&text));
        let at = memchr::memmem::find(&text, CRC_FIELD)? + CRC_FIELD.len();
        text[at..at + CRC_DIGITS].copy_from_slice(crc.as_bytes());
        Some(text)
    }
}

/// Whether there is a log, whatever is in it.
pub fn has_logs(disk: &dyn Disk, dir: &Path) -> Result<bool, OpenError> {
    let names = disk.list(dir).map_err(io(dir))?;
    Ok(names.iter().any(|name| name.starts_with("journal-")))
}

fn begin() -> Document {
    let secret = match crate::runtime::shard::try_current() {
        Some(shard) => shard.entropy().next(),
        None => Entropy::from_system().next(),
    };
    let (format, hash) = (VERSION, HASH_NAME.to_owned());
    Document {
        format,
        hash,
        logs: Vec::new(),
        shards: 0,
        boot: 0,
        secret: format!("{secret:016x}"),
        crc: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a byte of the description that may change without a word.
    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let mut document = begin();
        document.logs = vec![0, 1, 7];
        let text = document.encode().expect("text");
        let whole = |bytes: &[u8]| matches!(parse(bytes), Parsed::Whole(_));
        assert!(whole(&text));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(!whole(&flipped), "bit {bit} of byte {at}: {}", String::from_utf8_lossy(&flipped));
            }
        }
        for len in 0..text.len() {
            assert!(!whole(&text[..len]), "cut to {len}");
        }
    }
}

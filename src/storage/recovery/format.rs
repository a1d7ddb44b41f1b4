//! `FORMAT`: what has to be known before any segment is read.
//!
//! A small JSON document, replaced atomically: `format` (1), `hash` ("xxh3-64"), `logs` (the ids that exist),
//! `shards` (of the last start), `boot` (how often the directory was opened), `secret` (16 hex digits, of which
//! generations are made). Invariant: `boot` is durable before anything of that start is written.

use super::super::error::{OpenError, Unreadable};
use super::super::extent::LogId;
use super::super::header::VERSION;
use super::super::placement::HASH_NAME;
use super::io;
use crate::runtime::Disk;
use crate::runtime::entropy::Entropy;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// What `FORMAT` says.
pub struct Format {
    /// The logs that exist, those of this start's shards included.
    pub logs: Vec<LogId>,
    /// This start's number.
    pub boot: u32,
    /// What generations are made of.
    pub secret: u64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    hash: String,
    logs: Vec<u16>,
    shards: u16,
    boot: u32,
    secret: String,
}

/// Read first, because a newer release may have changed everything else.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// What a version has bits for.
const BOOT_MAX: u32 = (1 << 20) - 1;

impl Format {
    /// Reads what is there, or begins anew, and writes down that this start happens.
    pub fn open(disk: &dyn Disk, dir: &Path, shards: usize) -> Result<Self, OpenError> {
        let path = dir.join("FORMAT");
        let unreadable = |why| OpenError::Unreadable { path: path.clone(), why };
        let mut document = match disk.read(&path) {
            Ok(bytes) => parse(&bytes, &path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => begin(),
            Err(error) => return Err(io(&path)(error)),
        };
        if document.hash != HASH_NAME {
            return Err(unreadable(Unreadable::Hash));
        }
        let secret = u64::from_str_radix(&document.secret, 16).map_err(|_| unreadable(Unreadable::Format))?;
        document.boot = document.boot.saturating_add(1);
        if document.boot > BOOT_MAX {
            return Err(unreadable(Unreadable::Format));
        }
        document.shards = shards as u16;
        document.logs.extend(0..shards as u16);
        document.logs.sort_unstable();
        document.logs.dedup();
        let text = serde_json::to_vec_pretty(&document).map_err(|_| unreadable(Unreadable::Format))?;
        disk.replace(&path, &text).map_err(io(&path))?;
        Ok(Format { logs: document.logs.into_iter().map(LogId).collect(), boot: document.boot, secret })
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<Document, OpenError> {
    let unreadable = |_| OpenError::Unreadable { path: path.to_owned(), why: Unreadable::Format };
    let version: Version = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version.format > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found: version.format, newest: VERSION });
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

fn begin() -> Document {
    let secret = match crate::runtime::shard::try_current() {
        Some(shard) => shard.entropy().next(),
        None => Entropy::from_system().next(),
    };
    let (format, hash) = (VERSION, HASH_NAME.to_owned());
    Document { format, hash, logs: Vec::new(), shards: 0, boot: 0, secret: format!("{secret:016x}") }
}

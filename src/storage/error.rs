//! What can go wrong with a disk, one variant per cause.
//!
//! Invariant: closed enums that callers match without a wildcard; nothing is turned into text before the
//! outermost layer asks. Lives on: any thread.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a running store could not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// The disk is full. Trying again after something was deleted may succeed.
    NoSpace,
    /// A sync failed, and what was written since the last good one is void.
    SyncFailed,
    /// Two syncs in a row failed: this shard changes nothing any more until it is restarted.
    ReadOnly,
    /// Stored bytes do not match their checksum.
    Damaged(Damage),
    /// The stream was deleted or replaced.
    Gone,
    /// Retention took what is asked for: the stream begins at this offset.
    Trimmed(u64),
    /// The stream has ended: an ended one takes no bytes.
    Ended,
    /// Another appender holds the stream, or held it in this epoch.
    Attached,
    /// The owner asked for a handover: this appender is of an older epoch.
    Fenced,
    /// The store is closing.
    Closing,
    /// The system refused a file operation.
    Io(io::ErrorKind, Arc<PathBuf>),
}

/// Where stored bytes do not match their checksum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A window of a stream's bytes.
    Window {
        /// The stream.
        uid: u64,
        /// Its first byte's position in the stream.
        from: u64,
        /// The position after its last byte.
        to: u64,
    },
    /// A journal record about this name, so that its latest state is unknown.
    Name {
        /// The name's placement hash.
        key_hash: u64,
    },
}

impl StoreError {
    /// From the system's error about `path`.
    pub(super) fn from_io(error: &io::Error, path: &Arc<PathBuf>) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
            kind => StoreError::Io(kind, path.clone()),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::NoSpace => f.write_str("the disk is full"),
            StoreError::SyncFailed => f.write_str("a sync of the disk failed; the change did not happen"),
            StoreError::ReadOnly => f.write_str("the store is read-only after repeated failed syncs"),
            StoreError::Damaged(Damage::Window { uid, from, to }) => {
                write!(f, "bytes {from} to {to} of stream {uid:#x} do not match their checksum")
            }
            StoreError::Damaged(Damage::Name { key_hash }) => {
                write!(
                    f,
                    "a journal record of the name with hash {key_hash:#018x} is damaged; replacing or deleting the name \
                     puts it right, or of names that are written together, `millpond verify --repair`"
                )
            }
            StoreError::Gone => f.write_str("the stream was deleted or replaced"),
            StoreError::Trimmed(first) => {
                write!(f, "the stream begins at byte {first}; what was before is gone")
            }
            StoreError::Ended => f.write_str("the stream has ended"),
            StoreError::Attached => f.write_str("the stream has an appender already"),
            StoreError::Fenced => f.write_str("a newer appender took the stream over"),
            StoreError::Closing => f.write_str("the store is closing"),
            StoreError::Io(kind, path) => write!(f, "{}: {kind}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {}

/// Why a data directory could not be opened. Nothing was changed then, apart from what an empty directory needs.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the directory.
    Locked(PathBuf),
    /// A newer release wrote it.
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this release reads.
        newest: u32,
    },
    /// A file does not read as what it should be.
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        why: Unreadable,
    },
    /// An option is outside of what is accepted.
    Option {
        /// Which one.
        name: &'static str,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// The system refused a file operation.
    Io(PathBuf, io::Error),
}

/// What is wrong with a file that does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// It is not the JSON document that it should be.
    Format,
    /// Names are placed by a hash that this release does not know.
    Hash,
    /// It is not there, although segments are.
    Missing,
    /// It holds nothing of a data directory.
    NoData,
    /// A segment's header is another's: of another data directory, or of another place in this one.
    Header,
    /// Neither copy of the checkpoint's manifest is whole.
    Manifest,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Locked(dir) => {
                write!(f, "{}: another process uses this data directory", dir.display())
            }
            OpenError::Newer { path, found, newest } => write!(
                f,
                "{}: written by a newer release (format {found}); this one reads up to format {newest}",
                path.display()
            ),
            OpenError::Unreadable { path, why } => write!(f, "{}: {why}", path.display()),
            OpenError::Option { name, accepted } => write!(f, "{name}: accepted is {accepted}"),
            OpenError::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unreadable::Format => "not a format description of this program",
            Unreadable::Hash => "names are placed by an unknown hash; known is xxh3-64",
            Unreadable::NoData => "no data directory: neither FORMAT nor a journal is there",
            Unreadable::Missing => {
                "missing, as is its copy, although there are segments; put it back from a backup"
            }
            Unreadable::Header => {
                "this segment belongs to another data directory, or to another place in this one"
            }
            Unreadable::Manifest => "both copies of the checkpoint's manifest are damaged",
        })
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io(_, error) => Some(error),
            OpenError::Locked(_)
            | OpenError::Newer { .. }
            | OpenError::Unreadable { .. }
            | OpenError::Option { .. } => None,
        }
    }
}

//! Files as the store sees them: positioned writes, reads that may or may not block, a sync that is awaited.
//!
//! Rules that the implementors keep:
//! * a file is made at its full length before its first use and never shrinks while it is open, so a mapping
//!   of it never faults;
//! * nobody outside the kernel loads from a mapping: sends take it as the source of a kernel copy, everything
//!   else reads with a system call, so a bad block is an error and not a signal;
//! * one descriptor per file for its whole life, because the kernel reports a failed writeback once per
//!   descriptor;
//! * a failed sync is final: nobody asks again.
//!
//! Blocking calls say so; they belong into [`super::blocking::run`] or before a shard serves.

pub mod os;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// The future of [`FileOps::sync_data`]; it belongs to the shard that asked.
pub type Syncing = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// A place where files live: the machine's file systems, or a simulation's.
pub trait Disk: Send + Sync {
    /// Makes a new file of exactly `len` bytes, all allocated and all zero, and opens it. Fails when the path
    /// exists. When there is no room, nothing of it stays behind. Blocks.
    fn create(&self, path: &Path, len: u64) -> io::Result<File>;

    /// Opens an existing file for reading and writing. Blocks.
    fn open(&self, path: &Path) -> io::Result<File>;

    /// The whole content of a small file. Blocks.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Replaces the content of a small file atomically and durably: temporary file, sync, rename, directory
    /// sync. Blocks.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Makes a directory and its parents, and syncs what holds them. Blocks.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted. Blocks.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Renames within one file system; durable after [`Disk::sync_dir`] of both directories. Blocks.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file; open handles of it stay good. Durable after [`Disk::sync_dir`]. Blocks.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable. Blocks.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of a file, made if missing, or says that another process holds it
    /// (`WouldBlock`). Held until the returned value is dropped or the process ends. Blocks.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// What an open file can do.
#[allow(clippy::len_without_is_empty, reason = "a file is made with its length, and never with none")]
pub trait FileOps: Send + Sync {
    /// Writes all of `bytes` at `offset`, which must lie within the file. Returns once the page cache has
    /// them. May take long when the kernel throttles writers.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads up to `into.len()` bytes at `offset`; fewer only at the end of the file. Blocks.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Like [`FileOps::read_at`] but only what is in memory: `None` when it would have to wait.
    fn read_at_nowait(&self, into: &mut [u8], offset: u64) -> io::Result<Option<usize>>;

    /// Whether all of the range is in memory, as far as the kernel can tell.
    fn is_resident(&self, offset: u64, len: u64) -> bool;

    /// Brings the range into memory, and has the disk go on with the `ahead` bytes behind it, as far as the file goes.
    /// Promises nothing: who reads learns of errors. Blocks.
    fn bring_in(&self, offset: u64, len: u64, ahead: u64);

    /// Asks the kernel to begin writing the range back; promises nothing. May block: for workers.
    fn start_writeback(&self, offset: u64, len: u64);

    /// Makes everything written before this call durable. Final: after an error nothing that was written
    /// since the last success may be trusted.
    fn sync_data(self: Arc<Self>) -> Syncing;

    /// The length, fixed when the file was made.
    fn len(&self) -> u64;

    /// Takes note that its name was removed: the space goes with whoever has it open.
    fn note_removed(&self) {}

    /// Whether its name was removed, as far as anyone took note.
    fn is_removed(&self) -> bool {
        false
    }

    /// The real file behind it, for sending; `None` in a simulation.
    fn os(&self) -> Option<&os::OsFile>;
}

/// An open file, shared by whoever reads it, on any shard.
#[derive(Clone)]
pub struct File(Arc<dyn FileOps>);

impl File {
    /// Wraps an implementor.
    pub fn new(ops: impl FileOps + 'static) -> Self {
        File(Arc::new(ops))
    }

    /// See [`FileOps::sync_data`].
    pub fn sync_data(&self) -> Syncing {
        self.0.clone().sync_data()
    }

    /// Reads exactly `into.len()` bytes at `offset`. Blocks.
    pub fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self.0.read_at(into, offset)? {
            len if len == into.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// A number that no other file has which is open now.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>().addr()
    }

    /// Whether both are the same open file.
    pub fn same(&self, other: &File) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::ops::Deref for File {
    type Target = dyn FileOps;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File(len {})", self.len())
    }
}

/// Immutable bytes of a file that may be sent from any shard. Holding one keeps the file open, not the name.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// Where they lie.
    pub file: File,
    /// The first byte's position in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

//! Files of the machine.
//!
//! Invariant: an [`OsFile`] was allocated to its full length before anyone could see it, is mapped read-only
//! for its whole length, and is never truncated while open. Lives on: any shard; all calls are system calls on
//! one descriptor.

use super::{Disk, File, FileOps, Syncing};
use crate::runtime::ring;
use memmap2::Mmap;
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The machine's file systems.
pub struct OsDisk;

/// An open file with its mapping.
pub struct OsFile {
    fd: OwnedFd,
    map: Mmap,
    len: u64,
    removed: AtomicBool,
}

impl OsFile {
    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let len = rustix::fs::fstat(&fd)?.st_size as u64;
        // SAFETY: the mapping is private to this type and no reference to its bytes is ever made: the only
        // accessor hands out an address for the kernel to copy from. Another process that truncated the file
        // would turn that copy into a short write or EFAULT, not into undefined behaviour here.
        let map = unsafe { Mmap::map(&fd)? };
        Ok(OsFile { fd, map, len, removed: AtomicBool::new(false) })
    }

    /// The descriptor, for sendfile and splice.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptor's number, for ring operations that keep this file alive.
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The address of `len` mapped bytes at `offset`, for the kernel to copy from while `self` lives. Never to
    /// be read by this process. `None` when the range leaves the file.
    pub fn address(&self, offset: u64, len: u64) -> Option<*const u8> {
        let end = offset.checked_add(len)?;
        (end <= self.map.len() as u64).then(|| self.map.as_ptr().wrapping_add(offset as usize))
    }
}

impl FileOps for OsFile {
    fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a write beyond the end of a preallocated file",
            ));
        }
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match rustix::io::pread(&self.fd, &mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }

    fn read_at_nowait(&self, into: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let iov = &mut [io::IoSliceMut::new(into)];
        match rustix::io::preadv2(&self.fd, iov, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_resident(&self, offset: u64, len: u64) -> bool {
        ring::sys::cached_pages(self.fd(), offset, len).is_some_and(|pages| {
            let (first, end) = (offset / PAGE, (offset + len).div_ceil(PAGE));
            pages >= end - first
        })
    }

    fn bring_in(&self, offset: u64, len: u64, ahead: u64) {
        let end = (offset + len).min(self.len);
        let wanted = NonZeroU64::new((end + ahead).min(self.len).saturating_sub(offset));
        // The disk gets all of it at once, whatever the steps are in which it is waited for.
        let _ = rustix::fs::fadvise(&self.fd, offset, wanted, rustix::fs::Advice::WillNeed);
        let Some(nowhere) = nowhere() else { return };
        // Pages that go nowhere are neither copied nor mapped; each is waited for.
        let mut at = offset;
        while at < end {
            let left = (end - at) as usize;
            match rustix::fs::sendfile(nowhere, &self.fd, Some(&mut at), left) {
                Ok(0) => return,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        ring::sys::start_writeback(self.fd(), offset, len);
    }

    fn sync_data(self: Arc<Self>) -> Syncing {
        Box::pin(ring::sync::sync_data(self))
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn note_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }

    fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    fn os(&self) -> Option<&OsFile> {
        Some(self)
    }
}

/// Where bytes go that nobody wants; `None` on a machine without.
fn nowhere() -> Option<&'static OwnedFd> {
    static NOWHERE: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let open = || rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).ok();
    NOWHERE.get_or_init(open).as_ref()
}

const PAGE: u64 = 4096;
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIR_MODE: u32 = 0o700;

impl Disk for OsDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, FILE_MODE)?;
        // The size changes with the allocation, so later syncs have no size to write. A full disk leaves a
        // partly grown file: it is taken back whole.
        match allocate(&fd, len).and_then(|()| OsFile::from_fd(fd)) {
            Ok(file) => Ok(File::new(file)),
            Err(error) => {
                let _ = rustix::fs::unlink(path);
                Err(error)
            }
        }
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(File::new(OsFile::from_fd(fd)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = temporary_beside(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::open(&temporary, flags, FILE_MODE)?);
        io::Write::write_all(&mut &file, content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        self.sync_dir(parent_of(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), DIR_MODE)
            .create(path)?;
        // The new directory and whatever parents were made are entries of directories above.
        path.ancestors().skip(1).take(3).try_for_each(|above| match above.as_os_str().is_empty() {
            true => self.sync_dir(Path::new(".")),
            false => self.sync_dir(above),
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, FILE_MODE)?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(fd))
    }
}

/// The machine's file systems, to be looked at: whatever would change a byte is refused.
pub struct ReadOnlyDisk;

impl ReadOnlyDisk {
    fn refused<T>() -> io::Result<T> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Disk for ReadOnlyDisk {
    fn create(&self, _: &Path, _: u64) -> io::Result<File> {
        Self::refused()
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(File::new(OsFile::from_fd(fd)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        OsDisk.read(path)
    }

    fn replace(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Self::refused()
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Self::refused()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Self::refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Self::refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Self::refused()
    }

    /// The lock of a file that is there already.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(fd))
    }
}

fn allocate(fd: &OwnedFd, len: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

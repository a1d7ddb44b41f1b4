//! A FIFO that others write to, and the file that its bytes land in.
//!
//! What is taken from a pipe is gone from it, and what a process has in memory is gone when it is killed. So bytes leave
//! the FIFO by splice into a file and in one system call, which a kill does not divide: at every moment the file is
//! exactly as long as what was ever taken. Whoever comes after a kill finds there what its predecessor took and did not
//! store. Bytes that are stored are punched out of the file; its length stays.
//!
//! The kernel's word on ends: without a writer, a read and a splice return 0 at once, also before the first one has
//! come; a poll stays silent until then. Invariant: the read end is open before anyone can know the path, and this
//! process has no write end, which would hide the end from it. Lives on: its shard; what blocks says so.

use super::slot::Keep;
use io_uring::{opcode, types};
use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What the file beside `<name>` is called.
const LANDED: &str = ".landed";
/// Bytes that one take moves at most: bounds how long it holds the shard.
pub const TAKE_MAX: usize = 256 * 1024;
/// Stored bytes are punched out of the file in pieces of this.
const PUNCH: u64 = 1 << 20;
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The open ends of a FIFO and its file, on their way to a shard.
pub struct Opened {
    path: PathBuf,
    read: OwnedFd,
    landed: OwnedFd,
    taken: u64,
}

/// A FIFO that is read here.
pub struct Fifo {
    path: PathBuf,
    read: Rc<OwnedFd>,
    landed: OwnedFd,
    taken: Cell<u64>,
    punched: Cell<u64>,
}

/// What a look into a FIFO brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// So many bytes have landed.
    Bytes(usize),
    /// Nothing now, but somebody may write.
    Nothing,
    /// Nobody has it open for writing.
    NoWriter,
}

impl Opened {
    /// Makes the FIFO, mode 0600, and opens it. Nothing stays behind where that fails. Blocks.
    pub fn make(path: &Path) -> io::Result<Self> {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, PRIVATE)?;
        let opened = Self::open(path, OFlags::CREATE | OFlags::EXCL);
        if opened.is_err() {
            let _ = remove(path);
        }
        opened
    }

    /// Opens a FIFO that an earlier process made. Blocks.
    pub fn adopt(path: &Path) -> io::Result<Self> {
        Self::open(path, OFlags::CREATE)
    }

    fn open(path: &Path, how: OFlags) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let read = rustix::fs::open(path, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&read)?.st_mode) != FileType::Fifo {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | how;
        let landed = rustix::fs::open(landing(path), flags, PRIVATE)?;
        // Held as long as it is open: no two daemons read one FIFO.
        rustix::fs::flock(&landed, FlockOperation::NonBlockingLockExclusive)?;
        let taken = rustix::fs::fstat(&landed)?.st_size as u64;
        Ok(Opened { path: path.to_owned(), read, landed, taken })
    }

    /// Gives it to the current shard.
    pub fn here(self) -> Rc<Fifo> {
        let Opened { path, read, landed, taken } = self;
        Rc::new(Fifo { path, read: Rc::new(read), landed, taken: Cell::new(taken), punched: Cell::new(0) })
    }
}

/// Removes a FIFO and its file. Blocks.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = |result: rustix::io::Result<()>| match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(io::Error::from(error)),
    };
    gone(rustix::fs::unlink(path)).and(gone(rustix::fs::unlink(landing(path))))
}

/// The FIFOs in a directory, by their names; none where there is no directory. Files without a FIFO are removed.
/// Blocks.
pub fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if std::os::unix::fs::FileTypeExt::is_fifo(&entry.file_type()?) {
            names.push(name);
        } else if name.strip_suffix(LANDED).is_some_and(|fifo| !dir.join(fifo).exists()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory for FIFOs, with its parents, that only this user can enter. Blocks.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let there = std::fs::symlink_metadata(dir)?;
    let mine = there.is_dir() && there.uid() == rustix::process::geteuid().as_raw();
    if !mine {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a directory of this user"));
    }
    if there.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn landing(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(LANDED);
    name.into()
}

impl Fifo {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes ever taken.
    pub fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Resolves when a writer has come and there are bytes, or no writer any more.
    pub async fn readable(&self) {
        let entry = opcode::PollAdd::new(types::Fd(self.read.as_raw_fd()), libc::POLLIN as u32).build();
        super::current().start(entry, Keep::Descriptor(self.read.clone())).await;
    }

    /// Takes what is there now, up to [`TAKE_MAX`] bytes.
    pub fn take(&self) -> io::Result<Take> {
        let mut offset = self.taken.get();
        match splice(&*self.read, None, &self.landed, Some(&mut offset), TAKE_MAX, SpliceFlags::NONBLOCK) {
            Ok(0) => Ok(Take::NoWriter),
            Ok(len) => {
                self.taken.set(self.taken.get() + len as u64);
                Ok(Take::Bytes(len))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Take::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what is there now and lets it go.
    pub fn discard(&self) -> io::Result<Take> {
        match rustix::io::read(&*self.read, &mut super::current().window()[..]) {
            Ok(0) => Ok(Take::NoWriter),
            Ok(len) => Ok(Take::Bytes(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Take::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what has landed at `from`, at most `into.len()` bytes.
    pub fn read(&self, from: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.landed, into, from)?)
    }

    /// Whether what has landed is there from byte `from` on, and not punched out.
    pub fn has_from(&self, from: u64) -> bool {
        from == self.taken.get()
            || rustix::fs::seek(&self.landed, SeekFrom::Data(from)).is_ok_and(|data| data == from)
    }

    /// Says that everything before `stored` is stored.
    pub fn forget(&self, stored: u64) {
        let (from, to) = (self.punched.get(), stored / PUNCH * PUNCH);
        if to > from {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where a file system cannot, the file keeps its bytes until it goes.
            let _ = rustix::fs::fallocate(&self.landed, how, from, to - from);
            self.punched.set(to);
        }
    }
}

//! FIFOs that others write to, and the file that their bytes land in.
//!
//! What is taken from a pipe is gone from it, and what a process has in memory is gone when it is killed. So bytes leave
//! a FIFO by splice into a file and in one system call, which a kill does not divide: at every moment the file is
//! exactly as long as what was ever taken. Whoever comes after a kill finds there what its predecessor took and did not
//! store. Bytes that are stored are punched out of the file; its length stays.
//!
//! The file belongs beside the FIFOs on a file system in memory, as `/run` is: then taking waits for nothing. Elsewhere
//! the kernel may hold a splice up while it writes pages back, and the shard with it; [`is_in_memory`] tells.
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

/// The open ends of FIFOs and their file, on their way to a shard.
pub struct Opened {
    fifos: Vec<(PathBuf, OwnedFd)>,
    landed: OwnedFd,
    len: u64,
}

/// A FIFO that is read here.
pub struct Fifo {
    path: PathBuf,
    read: Rc<OwnedFd>,
}

/// Where bytes land.
pub struct Landing {
    file: OwnedFd,
    len: Cell<u64>,
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
    /// Makes the FIFOs, mode 0600, and the file of `stem`, and opens them. Nothing stays behind where that fails. Blocks.
    pub fn make(stem: &Path, fifos: &[PathBuf]) -> io::Result<Self> {
        let made = fifos.iter().try_for_each(|path| rustix::fs::mkfifoat(rustix::fs::CWD, path, PRIVATE));
        let opened = made
            .map_err(io::Error::from)
            .and_then(|()| Self::open(stem, fifos, OFlags::CREATE | OFlags::EXCL));
        if opened.is_err() {
            let _ = remove(stem, fifos);
        }
        opened
    }

    /// Opens FIFOs that an earlier process made. Blocks.
    pub fn adopt(stem: &Path, fifos: &[PathBuf]) -> io::Result<Self> {
        Self::open(stem, fifos, OFlags::CREATE)
    }

    fn open(stem: &Path, fifos: &[PathBuf], how: OFlags) -> io::Result<Self> {
        let mut read = Vec::with_capacity(fifos.len());
        for path in fifos {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let end = rustix::fs::open(path, flags, Mode::empty())?;
            if FileType::from_raw_mode(rustix::fs::fstat(&end)?.st_mode) != FileType::Fifo {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
            }
            read.push((path.clone(), end));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | how;
        let landed = rustix::fs::open(landing(stem), flags, PRIVATE)?;
        // Held as long as it is open: no two daemons read one FIFO.
        rustix::fs::flock(&landed, FlockOperation::NonBlockingLockExclusive)?;
        let len = rustix::fs::fstat(&landed)?.st_size as u64;
        Ok(Opened { fifos: read, landed, len })
    }

    /// Gives them to the current shard.
    pub fn here(self) -> (Vec<Rc<Fifo>>, Landing) {
        let fifo = |(path, read): (PathBuf, OwnedFd)| Rc::new(Fifo { path, read: Rc::new(read) });
        let landing = Landing { file: self.landed, len: Cell::new(self.len), punched: Cell::new(0) };
        (self.fifos.into_iter().map(fifo).collect(), landing)
    }
}

/// Removes FIFOs and the file of `stem`. Blocks.
pub fn remove(stem: &Path, fifos: &[PathBuf]) -> io::Result<()> {
    fifos.iter().map(|path| unlink(path)).chain([unlink(&landing(stem))]).fold(Ok(()), io::Result::and)
}

/// Removes one FIFO. Blocks.
pub fn unlink(path: &Path) -> io::Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The FIFOs in a directory, by their names; none where there is no directory. Files are removed that have none of the
/// FIFOs any more which `names_of` their stem tells. Blocks.
pub fn list(dir: &Path, names_of: impl Fn(&str) -> Vec<String>) -> io::Result<Vec<String>> {
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
        } else if let Some(stem) = name.strip_suffix(LANDED)
            && !names_of(stem).iter().any(|fifo| dir.join(fifo).exists())
        {
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

/// Whether files in a directory lie in memory, so that writing to one waits for no disk. Blocks.
pub fn is_in_memory(dir: &Path) -> io::Result<bool> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(dir)?.f_type as u64;
    Ok(matches!(kind, TMPFS | RAMFS))
}

fn landing(stem: &Path) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(LANDED);
    name.into()
}

impl Fifo {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Resolves when a writer has come and there are bytes, or no writer any more.
    pub async fn readable(&self) {
        let entry = opcode::PollAdd::new(types::Fd(self.read.as_raw_fd()), libc::POLLIN as u32).build();
        super::current().start(entry, Keep::Descriptor(self.read.clone())).await;
    }

    /// Has what is there now land at byte `at`, up to `most` bytes. The file's length is the caller's to tell.
    pub fn take_to(&self, landing: &Landing, mut at: u64, most: usize) -> io::Result<Take> {
        match splice(
            &*self.read,
            None,
            &landing.file,
            Some(&mut at),
            most.min(TAKE_MAX),
            SpliceFlags::NONBLOCK,
        ) {
            Ok(0) => Ok(Take::NoWriter),
            Ok(len) => Ok(Take::Bytes(len)),
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
}

impl Landing {
    /// Bytes that have landed.
    pub fn len(&self) -> u64 {
        self.len.get()
    }

    /// Whether nothing has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says that so many have.
    pub fn set_len(&self, len: u64) {
        self.len.set(len);
    }

    /// Reads what has landed at `from`, at most `into.len()` bytes.
    pub fn read(&self, from: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.file, into, from)?)
    }

    /// Writes at `at`. Within one page a kill does not divide it.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match rustix::io::pwrite(&self.file, bytes, at)? {
            len if len == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Cuts everything off from byte `len` on.
    pub fn cut(&self, len: u64) -> io::Result<()> {
        rustix::fs::ftruncate(&self.file, len)?;
        self.len.set(len);
        Ok(())
    }

    /// Whether what has landed is there from byte `from` on, and not punched out.
    pub fn has_from(&self, from: u64) -> bool {
        from == self.len.get()
            || rustix::fs::seek(&self.file, SeekFrom::Data(from)).is_ok_and(|data| data == from)
    }

    /// Says that everything before `stored` is stored.
    pub fn forget(&self, stored: u64) {
        let (from, to) = (self.punched.get(), stored / PUNCH * PUNCH);
        if to > from {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where a file system cannot, the file keeps its bytes until it goes.
            let _ = rustix::fs::fallocate(&self.file, how, from, to - from);
            self.punched.set(to);
        }
    }
}

//! Disks that break one rule of the store each, to show that histories notice.
//!
//! Each stands between the store and the simulated disk, where the store's own files are: what ships knows nothing
//! of them. Lives on: one test's thread.

use super::DATA;
use millpond::runtime::entropy::Entropy;
use millpond::runtime::file::os::OsFile;
use millpond::runtime::file::{FileOps, Syncing};
use millpond::runtime::sim::SimDisk;
use millpond::runtime::{Disk, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// A sync of data returns before anything is durable: names and ends are written down before what they speak of.
    DataIsSyncedLate,
    /// A segment in which all is dead is used again in place, while its pages wait in sockets.
    SegmentsAreRecycled,
    /// A write returns before the page cache has the bytes: readers are told of what is not there.
    WritesComeLate,
}

/// A disk that breaks a rule.
pub struct BrokenDisk {
    inner: SimDisk,
    broken: Broken,
    shared: Arc<Shared>,
}

#[allow(clippy::disallowed_types, reason = "a disk must be shareable between threads; here is one")]
#[derive(Default)]
struct Shared {
    /// Files to be used again, with their lengths.
    spare: std::sync::Mutex<Vec<(PathBuf, u64)>>,
    /// Writes that come later.
    late: std::sync::Mutex<Vec<(File, Vec<u8>, u64)>>,
    chance: std::sync::Mutex<Option<Entropy>>,
}

impl BrokenDisk {
    /// One over `inner`.
    pub fn new(inner: SimDisk, broken: Broken, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        *shared.chance.lock().unwrap() = Some(Entropy::from_seed(seed));
        BrokenDisk { inner, broken, shared }
    }

    fn wrap(&self, file: File, path: &Path) -> File {
        match is_data(path) {
            true => File::new(BrokenFile { file, broken: self.broken, shared: self.shared.clone() }),
            false => file,
        }
    }
}

fn is_data(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "mpb")
}

impl Disk for BrokenDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        let spare = {
            let mut spare = self.shared.spare.lock().unwrap();
            let fits = spare.iter().position(|(_, spare)| is_data(path) && *spare == len);
            fits.map(|at| spare.remove(at).0)
        };
        let Some(spare) = spare else {
            return self.inner.create(path, len).map(|file| self.wrap(file, path));
        };
        self.inner.rename(&spare, path)?;
        let file = self.inner.open(path)?;
        file.write_at(&vec![0; len as usize], 0)?;
        Ok(self.wrap(file, path))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.inner.open(path).map(|file| self.wrap(file, path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.inner.read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.inner.replace(path, content)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.broken != Broken::SegmentsAreRecycled || !is_data(path) {
            return self.inner.remove(path);
        }
        let mut spare = self.shared.spare.lock().unwrap();
        let aside = Path::new(DATA).join(format!("spare-{}", spare.len()));
        let len = self.inner.open(path)?.len();
        self.inner.rename(path, &aside)?;
        spare.push((aside, len));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }
}

struct BrokenFile {
    file: File,
    broken: Broken,
    shared: Arc<Shared>,
}

impl BrokenFile {
    /// Writes what is late, all of it or, now and then, nothing.
    fn catch_up(&self, all: bool) -> io::Result<()> {
        let chance = self.shared.chance.lock().unwrap();
        if !all && !chance.as_ref().expect("seeded").one_in(3) {
            return Ok(());
        }
        let late = std::mem::take(&mut *self.shared.late.lock().unwrap());
        late.into_iter().try_for_each(|(file, bytes, offset)| file.write_at(&bytes, offset))
    }
}

impl FileOps for BrokenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.broken != Broken::WritesComeLate {
            return self.file.write_at(bytes, offset);
        }
        self.catch_up(false)?;
        self.shared.late.lock().unwrap().push((self.file.clone(), bytes.to_vec(), offset));
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn read_at_nowait(&self, into: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.file.read_at_nowait(into, offset)
    }

    fn bring_in(&self, offset: u64, len: u64, ahead: u64) {
        self.file.bring_in(offset, len, ahead);
    }

    fn is_resident(&self, offset: u64, len: u64) -> bool {
        self.file.is_resident(offset, len)
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.file.start_writeback(offset, len);
    }

    fn sync_data(self: Arc<Self>) -> Syncing {
        if self.broken == Broken::DataIsSyncedLate {
            return Box::pin(std::future::ready(Ok(())));
        }
        if let Err(error) = self.catch_up(true) {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.file.sync_data()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn os(&self) -> Option<&OsFile> {
        self.file.os()
    }
}

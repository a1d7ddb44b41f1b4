//! A simulated disk on which a sync outside of any shard is over at its first poll.
//!
//! Opening a store runs before shards serve and has no world to step; once shards run, this is the disk that it
//! wraps. Lives on: the test's thread.

use crate::runtime::file::{FileOps, Syncing, os::OsFile};
use crate::runtime::sim::SimDisk;
use crate::runtime::{Disk, File, shard};
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

/// See the module.
pub struct Prompt(pub SimDisk);

impl Prompt {
    fn wrap(&self, file: File) -> File {
        File::new(PromptFile { disk: self.0.clone(), file })
    }
}

impl Disk for Prompt {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        self.0.create(path, len).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.0.open(path).map(|file| self.wrap(file))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.0.replace(path, content)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock(path)
    }
}

struct PromptFile {
    disk: SimDisk,
    file: File,
}

impl FileOps for PromptFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn read_at_nowait(&self, into: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.file.read_at_nowait(into, offset)
    }

    fn is_resident(&self, offset: u64, len: u64) -> bool {
        self.file.is_resident(offset, len)
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.file.start_writeback(offset, len);
    }

    fn sync_data(self: Arc<Self>) -> Syncing {
        let mut syncing = self.file.sync_data();
        Box::pin(poll_fn(move |cx| {
            loop {
                match syncing.as_mut().poll(cx) {
                    Poll::Pending if shard::try_current().is_none() && self.disk.complete_one_sync() => {}
                    polled => return polled,
                }
            }
        }))
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn os(&self) -> Option<&OsFile> {
        self.file.os()
    }
}

//! A disk in memory that behaves as badly as the real one may.
//!
//! It keeps apart what the page cache shows and what is durable (see the contents and the tree beside this
//! file), completes syncs when told, injects faults by seed, and can stop for good at any chosen operation.
//!
//! Invariant: nothing but a successful sync promises that bytes, lengths or names outlive a power loss. Lives
//! on: any thread; in practice one test's.

use super::content::{Content, PAGE};
use super::tree::Tree;
use crate::runtime::entropy::Entropy;
use crate::runtime::file::os::OsFile;
use crate::runtime::file::{Disk, File, FileOps, Syncing};
use crate::runtime::shard;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How often things go wrong, each as "once in so many": 0 never, 1 always.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// A write stores a part of its bytes, or none, and fails with EIO.
    pub writes_fail: u64,
    /// A read fails with EIO.
    pub reads_fail: u64,
    /// A sync fails with EIO. What it covered is given up: asking again succeeds and stores nothing.
    pub syncs_fail: u64,
    /// A sync takes long.
    pub syncs_slow: u64,
    /// Bytes are said not to be in memory. The only one that is not never from the start.
    pub not_resident: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults { writes_fail: 0, reads_fail: 0, syncs_fail: 0, syncs_slow: 0, not_resident: 4 }
    }
}

/// One process's view of a simulated disk. Clones are the same view; the next process's comes from
/// [`SimDisk::kill`] or [`SimDisk::power_loss`], and this one and all its files are dead then.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Shared>,
    life: u64,
}

#[allow(
    clippy::disallowed_types,
    reason = "a disk must be shareable between threads; in a simulation no one else is there to wait for"
)]
type Shared = std::sync::Mutex<Machine>;

/// The disk itself, which outlives processes.
pub(super) struct Machine {
    /// Counts processes.
    pub(super) life: u64,
    pub(super) chance: Entropy,
    pub(super) tree: Tree,
    pub(super) files: BTreeMap<u64, Inode>,
    files_made: u64,
    capacity: u64,
    faults: Faults,
    planned: Planned,
    /// The files whose locks are held.
    pub(super) locks: Vec<u64>,
    pub(super) syncs: BTreeMap<u64, Sync>,
    syncs_made: u64,
    /// Operations that change something, so far.
    pub(super) ops: u64,
    pub(super) stop_at: Option<u64>,
    pub(super) stopped: bool,
}

/// A file, named or not.
pub(super) struct Inode {
    pub(super) content: Content,
    pub(super) handles: usize,
}

/// A sync on its way. Stays in the list with its result until its waiter has seen it.
pub(super) struct Sync {
    file: u64,
    /// How many of the file's writes it covers.
    writes: u64,
    patience: u64,
    waker: Option<Waker>,
    result: Option<io::Result<()>>,
    /// Nobody waits any more.
    abandoned: bool,
}

/// Single faults asked for by a test.
#[derive(Default)]
struct Planned {
    writes: u64,
    syncs: u64,
}

impl SimDisk {
    /// An empty disk, without a bound, without faults except that bytes are not always in memory.
    pub fn new(seed: u64) -> Self {
        let machine = Machine {
            life: 0,
            chance: Entropy::from_seed(seed),
            tree: Tree::default(),
            files: BTreeMap::new(),
            files_made: 0,
            capacity: u64::MAX,
            faults: Faults::default(),
            planned: Planned::default(),
            locks: Vec::new(),
            syncs: BTreeMap::new(),
            syncs_made: 0,
            ops: 0,
            stop_at: None,
            stopped: false,
        };
        SimDisk { machine: Arc::new(machine.into()), life: 0 }
    }

    /// Replaces the odds of faults.
    pub fn set_faults(&self, faults: Faults) {
        self.machine().faults = faults;
    }

    /// Bounds the sum of all files' lengths; beyond it [`Disk::create`] and
    /// [`Disk::replace`] fail for lack of room.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine().capacity = bytes;
    }

    /// Lets the next write fail.
    pub fn fail_next_write(&self) {
        self.machine().planned.writes += 1;
    }

    /// Lets the next sync that completes fail.
    pub fn fail_next_sync(&self) {
        self.machine().planned.syncs += 1;
    }

    /// Flips a bit of a stored byte, as a bad disk would: no operation reports it.
    pub fn damage(&self, path: &Path, offset: u64) {
        let machine = &mut *self.machine();
        let file = machine.tree.file(path).expect("a file to damage");
        machine.inode(file).content.damage(offset);
    }

    /// How many syncs wait to be completed.
    pub fn pending_syncs(&self) -> usize {
        self.machine().syncs.values().filter(|sync| sync.result.is_none()).count()
    }

    /// Completes one of the pending syncs, whichever chance picks, or lets a slow one wait on; false when there
    /// was none. A [`super::World`] does this; a test without one does it by hand.
    pub fn complete_one_sync(&self) -> bool {
        let waker = {
            let machine = &mut *self.machine();
            let pending: Vec<u64> =
                machine.syncs.iter().filter(|(_, sync)| sync.result.is_none()).map(|(id, _)| *id).collect();
            if machine.stopped || pending.is_empty() {
                return false;
            }
            machine.complete(pending[machine.chance.below(pending.len() as u64) as usize])
        };
        // Outside the lock: a waker may run anything.
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic under this lock is a failing test's; its destructors come here too and must not panic again.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view that the process with the number `life` has.
    pub(super) fn in_life(&self, life: u64) -> SimDisk {
        SimDisk { machine: self.machine.clone(), life }
    }

    fn open_handle(&self, machine: &mut Machine, file: u64) -> File {
        let inode = machine.inode(file);
        inode.handles += 1;
        File::new(SimFile { disk: self.clone(), file, len: inode.content.len() })
    }
}

impl Machine {
    pub(super) fn inode(&mut self, file: u64) -> &mut Inode {
        self.files.get_mut(&file).expect("a file that is named or open exists")
    }

    /// Lets an operation of the process `life` through.
    fn admit(&self, life: u64) -> io::Result<()> {
        match (self.life == life, self.stopped) {
            (true, false) => Ok(()),
            (false, _) => Err(io::Error::other("the process that held this is dead")),
            (_, true) => Err(stopped()),
        }
    }

    /// Lets an operation that changes something through, unless it is the one to stop at.
    fn begin(&mut self, life: u64) -> io::Result<()> {
        match self.begin_or_stop(life)? {
            Begun::Goes => Ok(()),
            Begun::Stops => Err(stopped()),
        }
    }

    fn begin_or_stop(&mut self, life: u64) -> io::Result<Begun> {
        self.admit(life)?;
        self.stopped = self.stop_at == Some(self.ops);
        self.ops += 1;
        Ok(if self.stopped { Begun::Stops } else { Begun::Goes })
    }

    fn make(&mut self, content: Content) -> u64 {
        let file = self.files_made;
        self.files_made += 1;
        self.files.insert(file, Inode { content, handles: 0 });
        file
    }

    fn used(&self) -> u64 {
        let takes_room = |(file, inode): &(&u64, &Inode)| inode.handles > 0 || self.tree.names_now(**file);
        self.files.iter().filter(takes_room).map(|(_, inode)| inode.content.len()).sum()
    }

    fn has_room_for(&self, len: u64) -> io::Result<()> {
        match self.used().checked_add(len) {
            Some(used) if used <= self.capacity => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }

    /// Forgets files that nothing can reach any more, not even after a power loss.
    pub(super) fn collect(&mut self) {
        let Machine { files, tree, .. } = self;
        files.retain(|file, inode| inode.handles > 0 || tree.names_ever(*file));
    }

    fn draw(&self, once_in: u64) -> bool {
        once_in > 0 && self.chance.one_in(once_in)
    }

    fn sync_fails(&mut self) -> bool {
        spend(&mut self.planned.syncs) || self.draw(self.faults.syncs_fail)
    }

    fn write_fails(&mut self) -> bool {
        spend(&mut self.planned.writes) || self.draw(self.faults.writes_fail)
    }

    /// The effect of a sync that covers the first `writes` writes.
    fn sync(&mut self, file: u64, writes: u64) -> io::Result<()> {
        if self.sync_fails() {
            let content = &mut self.files.get_mut(&file).expect("a synced file exists").content;
            content.lose(writes, &self.chance);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.inode(file).content.settle(writes);
        Ok(())
    }

    fn complete(&mut self, id: u64) -> Option<Waker> {
        let sync = self.syncs.get_mut(&id).expect("a pending sync");
        if sync.patience > 0 {
            sync.patience -= 1;
            return None;
        }
        let (file, writes) = (sync.file, sync.writes);
        let result = self.sync(file, writes);
        let sync = self.syncs.get_mut(&id).expect("a pending sync");
        sync.result = Some(result);
        let waker = sync.waker.take();
        if sync.abandoned {
            self.syncs.remove(&id);
        }
        self.close_handle(file);
        waker
    }

    fn close_handle(&mut self, file: u64) {
        self.inode(file).handles -= 1;
        self.collect();
    }
}

fn spend(planned: &mut u64) -> bool {
    let any = *planned > 0;
    *planned -= u64::from(any);
    any
}

/// What becomes of an operation that changes something.
enum Begun {
    Goes,
    /// It is the one to stop at: a write may leave a part, everything else nothing.
    Stops,
}

fn stopped() -> io::Error {
    io::Error::other("the simulation has stopped the machine here")
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        let machine = &mut *self.machine();
        machine.begin(self.life)?;
        machine.tree.vacant(path)?;
        machine.has_room_for(len)?;
        let file = machine.make(Content::zeros(len));
        machine.tree.link(path, file)?;
        Ok(self.open_handle(machine, file))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let machine = &mut *self.machine();
        machine.admit(self.life)?;
        let file = machine.tree.file(path)?;
        Ok(self.open_handle(machine, file))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let machine = &mut *self.machine();
        machine.admit(self.life)?;
        let file = machine.tree.file(path)?;
        let content = &machine.inode(file).content;
        let mut bytes = vec![0; content.len() as usize];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.file_name().unwrap_or_default().to_os_string();
        temporary.push(".new");
        let temporary = path.with_file_name(temporary);
        {
            let machine = &mut *self.machine();
            machine.begin(self.life)?;
            machine.has_room_for(bytes.len() as u64)?;
            let mut content = Content::zeros(bytes.len() as u64);
            content.write(bytes, 0);
            let file = machine.make(content);
            // The name is another file's from now on, as after a truncation: what that one held is gone.
            machine.tree.link(&temporary, file)?;
            machine.begin(self.life)?;
            machine.sync(file, u64::MAX)?;
        }
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let machine = &mut *self.machine();
        machine.begin(self.life)?;
        machine.tree.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let machine = self.machine();
        machine.admit(self.life)?;
        machine.tree.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let machine = &mut *self.machine();
        machine.begin(self.life)?;
        machine.tree.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let machine = &mut *self.machine();
        machine.begin(self.life)?;
        machine.tree.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let machine = &mut *self.machine();
        machine.begin(self.life)?;
        machine.tree.sync_dir(path)?;
        machine.collect();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + std::marker::Sync>> {
        let machine = &mut *self.machine();
        machine.admit(self.life)?;
        let file = match machine.tree.file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                machine.begin(self.life)?;
                let file = machine.make(Content::zeros(0));
                machine.tree.link(path, file)?;
                file
            }
            found => found?,
        };
        if machine.locks.contains(&file) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        machine.locks.push(file);
        machine.inode(file).handles += 1;
        Ok(Box::new(SimLock { disk: self.clone(), file }))
    }
}

/// A held lock.
struct SimLock {
    disk: SimDisk,
    file: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        if machine.life == self.disk.life {
            machine.locks.retain(|held| *held != self.file);
            machine.close_handle(self.file);
        }
    }
}

/// An open file.
struct SimFile {
    disk: SimDisk,
    file: u64,
    len: u64,
}

impl SimFile {
    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let machine = &mut *self.disk.machine();
        machine.admit(self.disk.life)?;
        match machine.draw(machine.faults.reads_fail) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(machine.inode(self.file).content.read(into, offset)),
        }
    }
}

impl FileOps for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a write beyond the end of a preallocated file",
            ));
        }
        let machine = &mut *self.disk.machine();
        let begun = machine.begin_or_stop(self.disk.life)?;
        let error = match begun {
            Begun::Stops => stopped(),
            Begun::Goes if machine.write_fails() => io::Error::from_raw_os_error(libc::EIO),
            Begun::Goes => {
                machine.inode(self.file).content.write(bytes, offset);
                return Ok(());
            }
        };
        // The kernel copies page by page and stops between two of them.
        let pages = ((offset % PAGE as u64) as usize + bytes.len()).div_ceil(PAGE) as u64;
        let end = (offset / PAGE as u64 + machine.chance.below(pages + 1)) * PAGE as u64;
        let part = end.saturating_sub(offset).min(bytes.len() as u64) as usize;
        machine.inode(self.file).content.write(&bytes[..part], offset);
        Err(error)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(into, offset)
    }

    fn read_at_nowait(&self, into: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        match self.is_resident(offset, into.len() as u64) {
            true => self.read(into, offset).map(Some),
            false => Ok(None),
        }
    }

    fn is_resident(&self, _offset: u64, _len: u64) -> bool {
        let machine = self.disk.machine();
        !machine.draw(machine.faults.not_resident)
    }

    fn bring_in(&self, _offset: u64, _len: u64, _ahead: u64) {}

    // A power loss already chooses among everything that writeback may have stored.
    fn start_writeback(&self, _offset: u64, _len: u64) {}

    fn sync_data(self: Arc<Self>) -> Syncing {
        // What it covers is settled now, though the kernel hears of it at the first poll.
        let writes = {
            let machine = &mut *self.disk.machine();
            machine.files.get(&self.file).map_or(0, |inode| inode.content.writes())
        };
        let mut waiter = SyncWaiter { file: self, writes, sync: None };
        Box::pin(poll_fn(move |cx| waiter.poll(cx)))
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn os(&self) -> Option<&OsFile> {
        None
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        if machine.life == self.disk.life {
            machine.close_handle(self.file);
        }
    }
}

/// Who waits for a sync.
struct SyncWaiter {
    file: Arc<SimFile>,
    writes: u64,
    sync: Option<u64>,
}

impl SyncWaiter {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let machine = &mut *self.file.disk.machine();
        let Some(id) = self.sync else {
            return match machine.begin(self.file.disk.life) {
                Ok(()) => {
                    let id = self.begin(machine, cx.waker());
                    // As without a ring: before shards serve there is nobody to wait.
                    if shard::try_current().is_none() {
                        let patience = &mut machine.syncs.get_mut(&id).expect("just begun").patience;
                        *patience = 0;
                        machine.complete(id);
                        let sync = machine.syncs.remove(&id).expect("just completed");
                        return Poll::Ready(sync.result.expect("just completed"));
                    }
                    self.sync = Some(id);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            };
        };
        machine.admit(self.file.disk.life)?;
        let sync = machine.syncs.get_mut(&id).expect("a sync is listed until its waiter has seen its result");
        match sync.result.take() {
            Some(result) => {
                machine.syncs.remove(&id);
                self.sync = None;
                Poll::Ready(result)
            }
            None => {
                sync.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn begin(&self, machine: &mut Machine, waker: &Waker) -> u64 {
        let id = machine.syncs_made;
        machine.syncs_made += 1;
        let patience = if machine.draw(machine.faults.syncs_slow) { machine.chance.below(200) } else { 0 };
        let (file, writes) = (self.file.file, self.writes);
        // The operation holds the file until it is done, whoever waits.
        machine.inode(file).handles += 1;
        let waker = Some(waker.clone());
        machine.syncs.insert(id, Sync { file, writes, patience, waker, result: None, abandoned: false });
        id
    }
}

impl Drop for SyncWaiter {
    fn drop(&mut self) {
        let machine = &mut *self.file.disk.machine();
        if let Some(id) = self.sync
            && machine.life == self.file.disk.life
            && let Some(sync) = machine.syncs.get_mut(&id)
        {
            sync.abandoned = true;
            if sync.result.is_some() {
                machine.syncs.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests;

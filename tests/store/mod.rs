//! A store on real files for tests: virtual shards on one thread, a disk that fails and forgets on request.
//!
//! Time is virtual and moves with every turn, so nothing here sleeps. Runs on the test's thread.
#![allow(dead_code, clippy::disallowed_types, reason = "every test uses its part")]

use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::clock::Clock;
use millpond::runtime::entropy::Entropy;
use millpond::runtime::file::os::{OsDisk, OsFile};
use millpond::runtime::file::{FileOps, Syncing};
use millpond::runtime::shard::{Parts, enter};
use millpond::runtime::{Disk, File, Shard, ShardId, shard};
use millpond::storage::{
    Appender, Durability, End, Entry, GROUPED, Key, Link, Linked, LogId, OpenError, Options, Part, Put,
    ShardImage, Store, StoreError, Tail,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Shards with their stores.
pub struct Rig {
    pub disk: Arc<TestDisk>,
    pub shards: Vec<Rc<Shard>>,
    pub stores: Vec<Rc<Store>>,
    pub metrics: Vec<Arc<ShardMetrics>>,
    pub wakes: Rc<RefCell<Vec<(ShardId, u64)>>>,
    nanos: Rc<Cell<u64>>,
}

thread_local! {
    /// The clock of this thread's rig, for writes that take their time.
    static NANOS: RefCell<Rc<Cell<u64>>> = RefCell::default();
}

/// Small segments, so that rotation and exhaustion are near.
pub fn options(shards: usize, durability: Durability) -> Options {
    let sync_interval = Duration::from_millis(100);
    Options { shards, durability, sync_interval, segment_size: 1 << 20, part_of: |_| 0 }
}

pub fn open(disk: &Arc<TestDisk>, dir: &Path, options: &Options) -> Result<Vec<ShardImage>, OpenError> {
    let disk: Arc<dyn Disk> = disk.clone();
    Store::open_all(&disk, dir, options)
}

impl Rig {
    pub fn new(dir: &Path, options: &Options) -> Rig {
        Rig::on(TestDisk::new(), dir, options)
    }

    pub fn on(disk: Arc<TestDisk>, dir: &Path, options: &Options) -> Rig {
        let images = open(&disk, dir, options).unwrap_or_else(|error| panic!("{error}"));
        // Time goes on from one rig of a thread to the next.
        let nanos = Rc::new(Cell::new(NANOS.with(|nanos| nanos.borrow().get())));
        NANOS.set(nanos.clone());
        let wakes = Rc::new(RefCell::new(Vec::new()));
        let mut rig = Rig { disk, shards: vec![], stores: vec![], metrics: vec![], wakes, nanos };
        for (id, image) in images.into_iter().enumerate() {
            let shard = Shard::new(Parts {
                id: ShardId(id as u16),
                count: options.shards,
                clock: Clock::Simulated { nanos: rig.nanos.clone() },
                entropy: Entropy::from_seed(id as u64),
                disk: rig.disk.clone(),
                unpark: Box::new(|| {}),
            });
            let metrics = Arc::new(ShardMetrics::default());
            let before = enter(Some(shard.clone()));
            let store = Store::start(image, metrics.clone());
            let wakes = rig.wakes.clone();
            store.on_wake(Box::new(move |shard, uid| wakes.borrow_mut().push((shard, uid))));
            enter(before);
            rig.shards.push(shard);
            rig.stores.push(store);
            rig.metrics.push(metrics);
        }
        rig
    }

    /// One turn of one shard, without the end of it if `whole` is false.
    pub fn turn_of(&self, index: usize, whole: bool) {
        let shard = &self.shards[index];
        let before = enter(Some(shard.clone()));
        shard.start_turn();
        shard.executor().run_ready();
        while let Some(job) = shard.jobs().take() {
            let (work, delivery) = job.split();
            delivery.deliver(work.run());
        }
        shard.timers().fire(shard.now());
        if whole {
            shard.end_turn();
        }
        enter(before);
    }

    /// Polls what is ready on a shard, once, and nothing else: jobs wait, and time stands still.
    pub fn poll(&self, index: usize) {
        self.on_shard(index, || self.shards[index].executor().run_ready());
    }

    /// One turn of every shard; time moves by a millisecond.
    pub fn turn(&self) {
        self.nanos.set(self.nanos.get() + 1_000_000);
        (0..self.shards.len()).for_each(|index| self.turn_of(index, true));
    }

    /// Lets time pass.
    pub fn wait(&self, duration: Duration) {
        self.nanos.set(self.nanos.get() + duration.as_nanos() as u64);
    }

    /// What time it is, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.on_shard(0, || shard::current().wall().unix_millis())
    }

    /// Runs until nothing moves any more, intervals included.
    pub fn settle(&self) {
        (0..400).for_each(|_| self.turn());
    }

    /// Runs `future` on a shard to its end.
    pub fn run<T: 'static>(&self, shard: usize, future: impl Future<Output = T> + 'static) -> T {
        let task = self.start(shard, future);
        for _ in 0..5000 {
            self.turn();
            if let Some(value) = task.take() {
                return value;
            }
        }
        panic!("still not done after 5000 turns");
    }

    /// Starts `future` on a shard; its result appears in the returned place.
    pub fn start<T: 'static>(
        &self,
        shard: usize,
        future: impl Future<Output = T> + 'static,
    ) -> Rc<Cell<Option<T>>> {
        let place = Rc::new(Cell::new(None));
        let into = place.clone();
        self.on_shard(shard, || shard::spawn("test", async move { into.set(Some(future.await)) }));
        place
    }

    /// Calls `work` with a shard entered.
    pub fn on_shard<T>(&self, index: usize, work: impl FnOnce() -> T) -> T {
        let before = enter(Some(self.shards[index].clone()));
        let value = work();
        enter(before);
        value
    }

    /// Ends as SIGKILL would: nothing more is written, the page cache stays.
    pub fn kill(self) -> Arc<TestDisk> {
        self.disk.frozen.store(true, Ordering::SeqCst);
        for shard in &self.shards {
            let before = enter(Some(shard.clone()));
            shard.clear();
            while shard.jobs().take().is_some() {}
            enter(before);
        }
        let disk = self.disk.clone();
        drop(self);
        disk.frozen.store(false, Ordering::SeqCst);
        disk
    }

    /// Ends in order.
    pub fn close(self) {
        for index in 0..self.stores.len() {
            let store = self.stores[index].clone();
            self.run(index, async move { store.close().await }).expect("closes");
        }
        self.kill();
    }

    pub fn owner(&self, key: &Key) -> usize {
        self.stores[0].owner_of_hash(key.hash()).index()
    }

    /// Puts a name and waits until it is committed.
    pub fn put(&self, name: &str) -> Entry {
        self.try_put(name).expect("put")
    }

    pub fn try_put(&self, name: &str) -> Result<Entry, StoreError> {
        let key = key(name);
        let owner = self.owner(&key);
        let store = self.stores[owner].clone();
        let attributes = format!("about {name}");
        self.run(owner, async move {
            let (entry, ticket) = store.names().put(key, LogId(0), attributes.into())?;
            store.names().committed(ticket).await?;
            Ok(entry)
        })
    }

    pub fn delete(&self, name: &str) -> Result<(), StoreError> {
        let key = key(name);
        let owner = self.owner(&key);
        let store = self.stores[owner].clone();
        self.run(owner, async move {
            let ticket = store.names().delete(&key)?.expect("there is something to delete");
            store.names().committed(ticket).await
        })
    }

    /// What a name stands for, once that is committed.
    pub fn find(&self, name: &str) -> Result<Option<Entry>, StoreError> {
        let key = key(name);
        let owner = self.owner(&key);
        let store = self.stores[owner].clone();
        self.run(owner, async move {
            let found = store.names().get(&key)?;
            store.names().committed(found.ticket).await?;
            Ok(found.entry)
        })
    }

    pub fn found(&self, name: &str) -> Entry {
        self.find(name).expect("readable").unwrap_or_else(|| panic!("{name} is gone"))
    }

    pub fn reopen(&self, name: &str) -> Result<Entry, StoreError> {
        let key = key(name);
        let owner = self.owner(&key);
        let store = self.stores[owner].clone();
        self.run(owner, async move {
            let (entry, ticket) = store.names().reopen(&key)?;
            store.names().committed(ticket).await.map(|()| entry)
        })
    }

    /// Has a stream begin at `to`, and waits until the bytes before are dead; how many that were.
    pub fn trim(&self, name: &str, to: u64) -> Result<Option<u64>, StoreError> {
        let (owner, trimming) = self.begin_trim(name, to);
        self.run(owner, trimming)
    }

    /// The same, decided on the owner in its next turn: the owner, and the wait.
    pub fn begin_trim(
        &self,
        name: &str,
        to: u64,
    ) -> (usize, impl Future<Output = Result<Option<u64>, StoreError>> + 'static) {
        let key = key(name);
        let owner = self.owner(&key);
        let store = self.stores[owner].clone();
        (owner, async move {
            let entry = store.names().get(&key)?.entry.expect("there is something to trim");
            match store.trim(&entry, to)? {
                None => Ok(None),
                Some(trimmed) => trimmed.await.expect("answered").map(Some),
            }
        })
    }

    /// Has a link stand for `bytes` in a body of its own, which `shard` gets.
    pub fn link(&self, shard: usize, name: &str, bytes: &[u8]) -> Link {
        let (store, bytes) = (self.stores[shard].clone(), bytes.to_vec());
        let part = self.run(shard, async move {
            let (body, mut appender) = store.new_body().unwrap();
            appender.append_all(&bytes).await.unwrap();
            let len = store.commit_body(&body, appender).await.unwrap();
            Part::new(body, 0, len)
        });
        self.put_link(name, vec![part])
    }

    /// Has a link stand for `parts`.
    pub fn put_link(&self, name: &str, parts: Vec<Part>) -> Link {
        let key = link_key(name);
        let owner = self.owner(&key);
        let (store, attributes) = (self.stores[owner].clone(), format!("about {name}"));
        self.run(owner, async move {
            let parts = parts.into_iter().collect();
            let put =
                store.links().put(key, attributes.into_bytes().into(), parts, u64::MAX).unwrap().unwrap();
            store.links().committed(&put).await.unwrap();
            put.link.unwrap()
        })
    }

    /// Has links of one group stand for these parts, by one record.
    pub fn put_together(&self, group: &str, puts: Vec<(&str, Vec<Part>)>) {
        let owner = self.owner(&group_key(group, ""));
        let puts = puts.into_iter().map(|(name, parts)| Put {
            key: group_key(group, name),
            attributes: format!("about {name}").into_bytes().into(),
            parts: parts.into_iter().collect(),
        });
        let (store, puts) = (self.stores[owner].clone(), puts.collect());
        self.run(owner, async move {
            for linked in store.links().put_together(puts).unwrap().expect("it fits") {
                store.links().committed(&linked).await.unwrap();
            }
        });
    }

    pub fn unlink(&self, name: &str) {
        let key = link_key(name);
        let owner = self.owner(&key);
        let store = self.stores[owner].clone();
        self.run(owner, async move {
            let ticket = store.links().delete(&key).unwrap().unwrap();
            store.links().committed(&Linked { link: None, ticket }).await.unwrap();
        });
    }

    /// What a link stands for, read.
    pub fn linked(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.linked_by(link_key(name))
    }

    /// The same of a link of a group.
    pub fn linked_in(&self, group: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.linked_by(group_key(group, name))
    }

    fn linked_by(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        let owner = self.owner(&key);
        let store = self.stores[owner].clone();
        let found = self.run(owner, async move {
            let found = store.links().get(&key)?;
            store.links().committed(&found).await?;
            Ok::<_, StoreError>(found.link)
        })?;
        let Some(link) = found else { return Ok(None) };
        let mut bytes = Vec::new();
        for part in link.parts.as_slice() {
            let whole = self.read(part.body().tail())?;
            bytes.extend_from_slice(&whole[part.from() as usize..][..part.len() as usize]);
        }
        Ok(Some(bytes))
    }

    pub fn attach(&self, shard: usize, tail: &Arc<Tail>) -> Result<Appender, StoreError> {
        self.on_shard(shard, || self.stores[shard].appender(tail))
    }

    /// Appends all of `bytes` and waits until they are published.
    pub fn append(&self, shard: usize, appender: Appender, bytes: &[u8]) -> Appender {
        self.try_append(shard, appender, bytes).expect("append")
    }

    pub fn try_append(
        &self,
        shard: usize,
        mut appender: Appender,
        bytes: &[u8],
    ) -> Result<Appender, StoreError> {
        let bytes = bytes.to_vec();
        let appended =
            self.run(shard, async move { appender.append_all(&bytes).await.map(|()| appender) })?;
        self.turn();
        Ok(appended)
    }

    /// A whole stream: put, append, seal.
    pub fn write(&self, shard: usize, name: &str, bytes: &[u8]) -> Arc<Tail> {
        let tail = self.put(name).tail.clone();
        let appender = self.attach(shard, &tail).expect("attach");
        let appender = self.append(shard, appender, bytes);
        self.run(shard, async move { appender.seal(End::Complete).await }).expect("seal");
        tail
    }

    /// All published bytes, verified, read as a reader would.
    pub fn read(&self, tail: &Arc<Tail>) -> Result<Vec<u8>, StoreError> {
        let (store, at) = (self.stores[0].clone(), tail.clone());
        self.run(0, async move { store.verify(&at, 0, u64::MAX).await })?;
        Ok(read_unverified(tail))
    }
}

/// All published bytes that are there, whatever they are.
pub fn read_unverified(tail: &Tail) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(range) = tail.range(tail.first() + bytes.len() as u64, u64::MAX) {
        let mut piece = vec![0; range.len as usize];
        range.file.read_exact_at(&mut piece, range.offset).expect("readable");
        bytes.extend(piece);
    }
    bytes
}

/// All files and directories of `from`, in `to`.
pub fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub fn key(name: &str) -> Key {
    Key::new(1, name.as_bytes())
}

/// Bytes that tell where they belong.
pub fn link_key(name: &str) -> Key {
    Key::new(4, name.as_bytes())
}

pub fn group_key(group: &str, name: &str) -> Key {
    Key::new(GROUPED, format!("{group}\0{name}").as_bytes())
}

pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let chance = Entropy::from_seed(seed);
    (0..len.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes()).take(len).collect()
}

/// A write: where, and what.
type Written = (u64, Vec<u8>);

/// The machine's files, with faults.
pub struct TestDisk {
    state: Arc<State>,
}

pub struct State {
    inner: OsDisk,
    /// Creating a file whose path contains this fails for want of space.
    pub full: Mutex<Option<String>>,
    /// Syncing a file whose path contains the text fails, as often as the number says.
    bad_sync: Mutex<Option<(String, u64)>>,
    /// Syncs do not return while set.
    pub slow_sync: AtomicBool,
    /// What happened: `write journal-0/00000000.mpj`, `sync …` when one begins, `synced …`, `create …`, `open …`, `remove …`.
    events: Mutex<Vec<String>>,
    /// Writes since the last sync of each file: where, and what was there before.
    unsynced: Mutex<HashMap<PathBuf, Vec<Written>>>,
    /// Writes that a failed sync gave up: the page cache holds them for clean, so no later sync stores them.
    given_up: Mutex<HashMap<PathBuf, Vec<Written>>>,
    frozen: AtomicBool,
    pub writebacks: AtomicU64,
    /// How many nanoseconds of the rig's time a write takes.
    pub write_nanos: AtomicU64,
}

impl std::ops::Deref for TestDisk {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl TestDisk {
    pub fn new() -> Arc<Self> {
        let state = State {
            inner: OsDisk,
            full: Mutex::default(),
            bad_sync: Mutex::default(),
            slow_sync: AtomicBool::new(false),
            events: Mutex::default(),
            unsynced: Mutex::default(),
            given_up: Mutex::default(),
            frozen: AtomicBool::new(false),
            writebacks: AtomicU64::new(0),
            write_nanos: AtomicU64::new(0),
        };
        Arc::new(TestDisk { state: Arc::new(state) })
    }

    fn wrap(&self, file: File, path: &Path) -> File {
        File::new(TestFile { file, path: path.to_owned(), state: self.state.clone() })
    }
}

impl State {
    pub fn fail_creates(&self, path: &str) {
        *self.full.lock().unwrap() = Some(path.to_owned());
    }

    pub fn allow_creates(&self) {
        *self.full.lock().unwrap() = None;
    }

    pub fn fail_syncs(&self, path: &str, count: u64) {
        *self.bad_sync.lock().unwrap() = Some((path.to_owned(), count));
    }

    pub fn hold_syncs(&self, held: bool) {
        self.slow_sync.store(held, Ordering::SeqCst);
    }

    pub fn take_events(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    /// A writeback of everything fails, and nobody was told.
    pub fn give_up_unsynced(&self) {
        let mut given_up = self.given_up.lock().unwrap();
        for (path, writes) in self.unsynced.lock().unwrap().drain() {
            given_up.entry(path).or_default().extend(writes);
        }
    }

    /// Cuts the power: of what was not synced, each 512-byte sector survives or not, as `chance` has it.
    pub fn lose_power(&self, chance: &Entropy, survives_one_in: u64) {
        // What was given up was written first, so it is undone last.
        let mut lost = std::mem::take(&mut *self.given_up.lock().unwrap());
        for (path, writes) in self.unsynced.lock().unwrap().drain() {
            lost.entry(path).or_default().extend(writes);
        }
        let mut files: Vec<_> = lost.into_iter().collect();
        files.sort();
        for (path, writes) in files {
            let (Ok(file), Ok(now)) = (self.inner.open(&path), self.inner.read(&path)) else { continue };
            let mut before = now.clone();
            for (offset, old) in writes.iter().rev() {
                before[*offset as usize..][..old.len()].copy_from_slice(old);
            }
            for (sector, (old, new)) in before.chunks(512).zip(now.chunks(512)).enumerate() {
                if old != new && !chance.one_in(survives_one_in) {
                    file.write_at(old, sector as u64 * 512).unwrap();
                }
            }
        }
    }

    fn note(&self, what: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let dir = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        self.events.lock().unwrap().push(format!("{what} {dir}/{name}"));
    }

    fn sync_fails(&self, path: &Path) -> bool {
        let mut bad = self.bad_sync.lock().unwrap();
        match &mut *bad {
            Some((part, count)) if *count > 0 && path.to_string_lossy().contains(&**part) => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        let full = self.full.lock().unwrap().clone();
        if full.is_some_and(|part| path.to_string_lossy().contains(&part)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.note("create", path);
        self.inner.create(path, len).map(|file| self.wrap(file, path))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.note("open", path);
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
        self.note("remove", path);
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }
}

struct TestFile {
    file: File,
    path: PathBuf,
    state: Arc<State>,
}

impl FileOps for TestFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(!self.state.frozen.load(Ordering::SeqCst), "a killed process writes nothing");
        let mut before = vec![0; bytes.len()];
        self.file.read_exact_at(&mut before, offset)?;
        self.state.unsynced.lock().unwrap().entry(self.path.clone()).or_default().push((offset, before));
        self.state.note("write", &self.path);
        let took = self.state.write_nanos.load(Ordering::SeqCst);
        NANOS.with_borrow(|nanos| nanos.set(nanos.get() + took));
        self.file.write_at(bytes, offset)
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

    fn start_writeback(&self, _: u64, _: u64) {
        self.state.writebacks.fetch_add(1, Ordering::SeqCst);
    }

    fn sync_data(self: Arc<Self>) -> Syncing {
        self.state.note("sync", &self.path);
        // What was written before the call is what it makes durable.
        let covered = self.state.unsynced.lock().unwrap().get(&self.path).map_or(0, Vec::len);
        Box::pin(std::future::poll_fn(move |cx| {
            if self.state.slow_sync.load(Ordering::SeqCst) {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            if self.state.sync_fails(&self.path) {
                self.state.note("failed", &self.path);
                if let Some(writes) = self.state.unsynced.lock().unwrap().get_mut(&self.path) {
                    let covered = writes.drain(..covered.min(writes.len()));
                    let mut given_up = self.state.given_up.lock().unwrap();
                    given_up.entry(self.path.clone()).or_default().extend(covered);
                }
                return std::task::Poll::Ready(Err(io::Error::from_raw_os_error(5)));
            }
            self.state.note("synced", &self.path);
            if let Some(writes) = self.state.unsynced.lock().unwrap().get_mut(&self.path) {
                let mut given_up = self.state.given_up.lock().unwrap();
                let given_up = given_up.entry(self.path.clone()).or_default();
                for (at, bytes) in writes.drain(..covered.min(writes.len())) {
                    let end = at + bytes.len() as u64;
                    given_up.retain(|(lost, old)| *lost < at || lost + old.len() as u64 > end);
                }
            }
            std::task::Poll::Ready(Ok(()))
        }))
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn os(&self) -> Option<&OsFile> {
        self.file.os()
    }
}

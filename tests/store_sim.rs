//! The store under a seeded schedule on a disk that forgets: after every crash the names and bytes that were
//! acknowledged are there, and a stream is bit for bit what its epochs appended.
//!
//! Users put, append, end, reopen, replace and delete, with their appenders on any shard; readers take bytes late,
//! as sockets do; shards checkpoint; the number of shards changes between lives. Three disks that break a rule of
//! the store show that such histories notice.
//!
//! `MILLPOND_SEEDS=1000 cargo test --test store_sim` runs more of the same row; `cargo x soak sim` runs thousands of
//! each class and adds up the line that each prints.

#[path = "sim/broken.rs"]
mod broken;

use broken::{Broken, BrokenDisk};
use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::entropy::Entropy;
use millpond::runtime::sim::{Faults, SimDisk, SimSocket, World, seeds};
use millpond::runtime::{Disk, shard, timer};
use millpond::storage::{
    Appender, Durability, End, Entry, Key, LogId, Options, State, Store, StoreError, Tail, owner_of,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The data directory.
const DATA: &str = "data";

/// What must be true of a name after a crash.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// Every content that it may have, by stream number; `None` when it may be absent.
    may: BTreeMap<Option<u64>, Content>,
}

/// A stream as the model knows it. What its bytes are follows from its number and its epochs.
#[derive(Clone, Debug, Default)]
struct Content {
    /// At most this much may be there.
    written: Rc<Cell<u64>>,
    /// At least this much must be there.
    floor: Rc<Cell<u64>>,
    /// The stream may begin as late as this, and not before the second: up to where its beginning was to go, and is
    /// known to be gone.
    trims: Rc<Cell<(u64, u64)>>,
    /// The end that was acknowledged, unless it was reopened since.
    ended: Rc<Cell<Option<End>>>,
    /// The epochs that were acknowledged, with where each began.
    epochs: Rc<RefCell<Vec<(u64, u64)>>>,
}

type Model = Rc<RefCell<BTreeMap<String, Expected>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Crash {
    Kill,
    Power,
}

/// How a history goes.
#[derive(Clone, Copy)]
struct Setting {
    faults: Faults,
    durability: Durability,
    broken: Option<Broken>,
    /// Users do nothing but replace, so that segments come and go.
    churn: bool,
    /// The disk has no room now and then.
    full: bool,
    /// Open streams lose their beginnings.
    trims: bool,
}

/// Syncs that fail, and slow ones.
const FAILING: Faults =
    Faults { writes_fail: 0, reads_fail: 0, syncs_fail: 12, syncs_slow: 4, not_resident: 4 };

/// Writes that stop half way, reads that fail, and syncs.
const ERRING: Faults =
    Faults { writes_fail: 150, reads_fail: 100, syncs_fail: 60, syncs_slow: 0, not_resident: 4 };

const CALM: Setting = Setting {
    faults: Faults { syncs_fail: 0, syncs_slow: 0, ..FAILING },
    durability: Durability::Sync,
    broken: None,
    churn: false,
    full: false,
    trims: false,
};

#[test]
fn what_was_acknowledged_survives_any_crash() {
    histories(seeds(60), CALM);
}

#[test]
fn what_was_acknowledged_survives_crashes_beside_failing_disks() {
    histories(seeds(60), Setting { faults: FAILING, ..CALM });
}

/// Catches writes that stop half way and are believed, and reads that fail and are taken for damage, or for nothing.
#[test]
fn what_was_acknowledged_survives_disks_that_err() {
    histories(seeds(40), Setting { faults: ERRING, ..CALM });
}

#[test]
fn the_cache_class_survives_kills_whole() {
    histories(seeds(40), Setting { durability: Durability::Cache, ..CALM });
}

/// A checkpoint that covered marks of a stream whose name was not durable yet, and so not in it; an epoch that was
/// durable before the bytes in front of it; runs of a producer that was cut off, in front of those of the next one.
#[test]
fn histories_that_went_wrong_once_do_not_any_more() {
    for seed in [0xa649_9545_892b_343f, 0x354c_790b_8f21_f613] {
        history(seed, Setting { durability: Durability::Cache, ..CALM });
    }
    history(0x93dd_498a_1b9b_36ec, Setting { faults: FAILING, ..CALM });
    // A shard that could not say that its records are void gave up bytes of streams that the next start found.
    history(0x0bc9_1e2e_d2dd_fe68, Setting { faults: FAILING, ..CALM });
    history(0x79d8_97af_c52d_8793, Setting { faults: FAILING, trims: true, ..CALM });
    // A run that was moved, whose copy did not outlive the crash, was looked for there by the start after the next crash.
    let cache = Setting { durability: Durability::Cache, ..CALM };
    for setting in [CALM, Setting { faults: FAILING, ..CALM }, cache, Setting { full: true, ..CALM }] {
        history(0xb3a3_8f56_6e51_c37f, Setting { trims: true, ..setting });
    }
    // Bytes were published by marks that were about to be void; and those of runs that were full were not marked again.
    for seed in [0x0169_e7e2_415b_3fd3, 0x7bfe_b126_99be_1953, 0x4985_2690_2248_3288] {
        history(seed, Setting { faults: ERRING, ..CALM });
    }
}

/// Catches bytes that go before the record which says so is durable, some that go although nobody said so, and any that
/// come back: after every crash a stream begins where it was said to, and what is behind is whole.
#[test]
fn streams_lose_their_beginnings_and_nothing_else() {
    let cache = Setting { durability: Durability::Cache, ..CALM };
    let settings = [CALM, Setting { faults: FAILING, ..CALM }, cache, Setting { full: true, ..CALM }];
    for setting in settings {
        histories(seeds(20), Setting { trims: true, ..setting });
    }
}

/// Catches a segment, a checkpoint or a record that is half made, or believed, when there is no room for it.
#[test]
fn a_full_disk_costs_nothing_that_was_acknowledged() {
    histories(seeds(40), Setting { full: true, ..CALM });
}

/// Catches a reader that gets bytes of another stream, or none, once its segment went.
#[test]
fn segments_come_and_go_under_late_readers() {
    histories(seeds(3), Setting { churn: true, ..CALM });
}

/// Catches histories that look at nothing: each broken rule shows in one of them.
#[test]
fn a_broken_rule_is_noticed() {
    for broken in [Broken::DataIsSyncedLate, Broken::SegmentsAreRecycled, Broken::WritesComeLate] {
        let is_noticed = |seed: u64| {
            let churn = broken == Broken::SegmentsAreRecycled;
            let setting = Setting { broken: Some(broken), churn, ..CALM };
            catch_unwind(AssertUnwindSafe(|| history(seed, setting))).is_err()
        };
        let noticed = seeds(200).into_iter().take(200).position(is_noticed);
        println!("{broken:?} is noticed by history {noticed:?}");
        assert!(noticed.is_some(), "no history noticed that {broken:?}");
    }
}

fn options(shards: usize, durability: Durability) -> Options {
    let sync_interval = Duration::from_millis(3);
    Options { shards, durability, sync_interval, segment_size: 512 << 10, part_of: |_| 0 }
}

/// One life of the data directory, as its tasks see it.
struct Life {
    world: World,
    stores: Vec<Rc<Store>>,
    model: Model,
    /// What a reader got that it must not get.
    wrong: RefCell<Vec<String>>,
}

/// What histories went through.
#[derive(Default)]
struct Lived {
    events: u64,
    kills: u64,
    power_losses: u64,
}

impl Lived {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.kills += other.kills;
        self.power_losses += other.power_losses;
    }
}

/// One history of each seed. Each that goes wrong tells how to repeat it, and the others run all the same.
fn histories(seeds: Vec<u64>, setting: Setting) {
    let (count, mut violations, mut all) = (seeds.len(), 0, Lived::default());
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| history(seed, setting))) {
            Ok(lived) => all.add(&lived),
            Err(_) => violations += 1,
        }
    }
    let Lived { events, kills, power_losses } = all;
    println!(
        "histories {count}, events {events}, kills {kills}, power losses {power_losses}, violations {violations}"
    );
    assert_eq!(violations, 0, "histories went wrong; a line above repeats each");
}

/// A few lives of one data directory.
fn history(seed: u64, setting: Setting) -> Lived {
    let mut lived = Lived::default();
    let Setting { faults, durability, broken, churn, .. } = setting;
    let chance = Entropy::from_seed(seed ^ 0x5eed);
    let mut disk = SimDisk::new(seed);
    // The secret is the one thing that a directory draws outside of the schedule.
    let format = r#"{"format":1,"hash":"xxh3-64","logs":[],"shards":0,"boot":0,"secret":"5eed"}"#;
    disk.create_dir(Path::new(DATA)).unwrap();
    disk.replace(&Path::new(DATA).join("FORMAT"), format.as_bytes()).unwrap();
    let model: Model = Rc::default();
    for number in 0..4 {
        let shards = 1 + chance.below(3) as usize;
        disk.set_faults(CALM.faults);
        disk.set_capacity(u64::MAX);
        let shared: Arc<dyn Disk> = match broken {
            Some(broken) => Arc::new(BrokenDisk::new(disk.clone(), broken, seed)),
            None => Arc::new(disk.clone()),
        };
        let images = Store::open_all(&shared, Path::new(DATA), &options(shards, durability))
            .unwrap_or_else(|error| panic!("life {number}: {error}"));
        let world = World::new(seed, shards, disk.clone());
        let start = |(at, image)| {
            world.enter(at, |_| {
                let store = Store::start(image, Arc::new(ShardMetrics::default()));
                store.on_wake(Box::new(|_, _| {}));
                store
            })
        };
        let stores: Vec<Rc<Store>> = images.into_iter().enumerate().map(start).collect();
        let life = Rc::new(Life { world, stores, model: model.clone(), wrong: RefCell::default() });
        life.check(number);
        disk.set_faults(faults);
        life.begin(&chance, setting);
        // Somewhere in the middle, or after everything came to rest.
        match chance.below(4) {
            0 => life.world.run_for(Duration::from_millis(50)),
            _ => drop(life.world.run_until(|| false, chance.below(if churn { 40_000 } else { 8_000 }))),
        }
        assert_eq!(life.world.panics(), 0);
        assert!(life.wrong.borrow().is_empty(), "life {number}: {:?}", life.wrong.borrow());
        let crash = match durability {
            Durability::Sync if chance.one_in(2) => Crash::Power,
            Durability::Sync | Durability::Cache => Crash::Kill,
        };
        // A failed sync drops from the page cache what it covered, before anyone is told.
        let seen_stays = crash == Crash::Kill && faults.syncs_fail == 0;
        life.note_floors(seen_stays);
        lived.events += life.world.events();
        disk = match crash {
            Crash::Kill => {
                lived.kills += 1;
                disk.kill()
            }
            Crash::Power => {
                lived.power_losses += 1;
                disk.power_loss(&chance)
            }
        };
        for at in 0..shards {
            life.world.enter(at, |shard| shard.clear());
        }
    }
    lived
}

impl Life {
    /// Starts users, readers, and checkpoints.
    fn begin(self: &Rc<Self>, chance: &Entropy, setting: Setting) {
        let shards = self.stores.len() as u64;
        for number in 0..6 {
            let (life, at, trims) = (self.clone(), chance.below(shards) as usize, setting.trims);
            let chance = Entropy::from_seed(chance.next());
            match number {
                0..4 => self.spawn(at, async move {
                    User { life, at, number, trims, chance }.run(setting.churn).await
                }),
                _ => self.spawn(at, async move { life.read(at, chance).await }),
            }
        }
        let (store, pause) = (self.stores[0].clone(), Duration::from_micros(chance.below(20_000)));
        self.spawn(0, async move {
            loop {
                timer::sleep(pause).await;
                store.checkpoint().await;
            }
        });
        if setting.full {
            let (disk, chance) = (self.world.disk().clone(), Entropy::from_seed(chance.next()));
            self.spawn(0, async move {
                loop {
                    let room = if chance.one_in(3) { u64::MAX } else { chance.below(8 << 20) };
                    disk.set_capacity(room);
                    timer::sleep(Duration::from_micros(chance.below(8_000))).await;
                }
            });
        }
    }

    fn spawn(&self, at: usize, task: impl Future<Output = ()> + 'static) {
        self.world.enter(at, |_| shard::spawn("task", task));
    }

    /// Has `work` done on another shard, as the service's messages do; here whoever asked looks every now and then.
    async fn on<T: 'static>(&self, at: usize, work: impl Future<Output = T> + 'static) -> T {
        let answer = Rc::new(Cell::new(None));
        let into = answer.clone();
        self.spawn(at, async move { into.set(Some(work.await)) });
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            timer::sleep(Duration::from_micros(20)).await;
        }
    }

    fn owner(&self, name: &str) -> usize {
        owner_of(key(name).hash(), self.stores.len()).index()
    }

    /// Looks a name up on its owner, once what is known about it is committed.
    async fn find(&self, name: &str) -> Result<Option<(u64, Arc<Tail>)>, StoreError> {
        let (owner, key) = (self.owner(name), key(name));
        let store = self.stores[owner].clone();
        self.on(owner, async move {
            let found = store.names().get(&key)?;
            store.names().committed(found.ticket).await?;
            Ok(found.entry.map(|entry| (entry.tail.uid(), entry.tail.clone())))
        })
        .await
    }

    /// A reader: takes what is published of any name, part of it late.
    async fn read(self: Rc<Self>, at: usize, chance: Entropy) {
        loop {
            timer::sleep(Duration::from_micros(chance.below(400))).await;
            let name = format!("{}/{}", chance.below(4), chance.below(2));
            let Ok(Some((uid, tail))) = self.find(&name).await else { continue };
            let from = chance.below(tail.published() + 1);
            if self.stores[at].verify(&tail, from, u64::MAX).await.is_err() {
                continue;
            }
            let epochs: Vec<(u64, u64)> = tail.epochs().collect();
            let Some(range) = tail.range(from, 1 + chance.below(100_000)) else { continue };
            let expected = content(uid, &epochs, from, range.len);
            let mut socket = SimSocket::new();
            socket.send_file(range);
            let mut got = Vec::new();
            while got.len() < expected.len() {
                let Ok(some) = socket.deliver(1 + chance.below(60_000) as usize) else { return };
                got.extend(some);
                timer::sleep(Duration::from_micros(chance.below(3_000))).await;
            }
            if got != expected {
                let at = got.iter().zip(&expected).position(|(got, expected)| got != expected);
                self.wrong
                    .borrow_mut()
                    .push(format!("{name}: a reader from {from} got a wrong byte at {at:?}"));
            }
        }
    }
}

fn key(name: &str) -> Key {
    Key::new(1, name.as_bytes())
}

/// The bytes of stream `uid` from `from` on: each tells its place, and in which epoch it was appended.
fn content(uid: u64, epochs: &[(u64, u64)], from: u64, len: u64) -> Vec<u8> {
    let epoch_of = |at: u64| epochs.iter().rfind(|(_, start)| *start <= at).map_or(0, |(epoch, _)| *epoch);
    // Never zero, which is what a place has that nobody wrote to.
    let byte = |at: u64| ((at ^ (at >> 8) ^ uid ^ epoch_of(at).wrapping_mul(0x35)) as u8) | 1;
    (from..from + len).map(byte).collect()
}

/// One user of the store. Names are not shared between users, so that the model needs no order between them.
struct User {
    life: Rc<Life>,
    at: usize,
    number: u64,
    /// Streams lose their beginnings.
    trims: bool,
    chance: Entropy,
}

impl User {
    async fn run(self, churn: bool) {
        let rounds = if churn { 60 } else { 1 + self.chance.below(6) };
        for _ in 0..rounds {
            let name = format!("{}/{}", self.number, self.chance.below(2));
            let done = match self.chance.below(5) {
                _ if churn => self.put(&name).await,
                0 => self.delete(&name).await,
                1 | 2 => self.reopen(&name).await,
                _ => self.put(&name).await,
            };
            // Without room, the next thing may need none.
            if done.is_err_and(|error| error != StoreError::NoSpace) {
                return;
            }
        }
    }

    fn store(&self) -> &Rc<Store> {
        &self.life.stores[self.at]
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let (owner, key) = (self.life.owner(name), key(name));
        let store = self.life.stores[owner].clone();
        let (life, allowed) = (self.life.clone(), name.to_owned());
        let deleted = self.life.on(owner, async move {
            let Some(ticket) = store.names().delete(&key)? else { return Ok(false) };
            life.allow(&allowed, None, Content::default());
            store.names().committed(ticket).await.map(|()| true)
        });
        if deleted.await? {
            self.life.settle(name, None);
        }
        Ok(())
    }

    async fn put(&self, name: &str) -> Result<(), StoreError> {
        let (owner, key) = (self.life.owner(name), key(name));
        let (home, attributes) = (LogId(self.at as u16), name.to_owned());
        let (store, life) = (self.life.stores[owner].clone(), self.life.clone());
        let allowed = name.to_owned();
        let put = self.life.on(owner, async move {
            let (entry, ticket) = store.names().put(key, home, attributes.into())?;
            let content = Content::default();
            *content.epochs.borrow_mut() = entry.tail.epochs().collect();
            life.allow(&allowed, Some(entry.tail.uid()), content.clone());
            Ok::<_, StoreError>((entry.tail.clone(), ticket, content))
        });
        let (tail, ticket, content) = put.await?;
        let (uid, store) = (tail.uid(), self.life.stores[owner].clone());
        let committed = async |store: Rc<Store>| {
            self.life.on(owner, async move { store.names().committed(ticket).await }).await?;
            // Unless it was deleted meanwhile.
            if self.life.model.borrow()[name].may.contains_key(&Some(uid)) {
                self.life.settle(name, Some(uid));
            }
            Ok::<_, StoreError>(())
        };
        // As the service does: bytes are taken before the name is committed, and the end waits for both.
        let early = self.chance.one_in(2);
        if !early {
            committed(store.clone()).await?;
        }
        self.produce(name, tail, content).await?;
        if early { committed(store).await } else { Ok(()) }
    }

    /// Goes on with an interrupted stream, or takes one from its appender.
    async fn reopen(&self, name: &str) -> Result<(), StoreError> {
        let Some((uid, tail)) = self.life.find(name).await? else { return Ok(()) };
        let known = self.life.model.borrow().get(name).and_then(|known| known.may.get(&Some(uid)).cloned());
        let Some(content) = known else { return Ok(()) };
        if self.trims && self.chance.one_in(2) {
            self.trim(name, &tail, &content).await?;
        }
        // The one who had it is this user, on this shard, or someone in an earlier life.
        self.store().fence(&tail);
        if tail.state() == State::Complete || tail.is_attached() {
            return Ok(());
        }
        match self.store().at_rest(&tail).await {
            Err(StoreError::Attached) => return Ok(()),
            done => done?,
        }
        let (owner, key) = (self.life.owner(name), key(name));
        let (store, known) = (self.life.stores[owner].clone(), content.clone());
        let reopened = self.life.on(owner, async move {
            // From here on an acknowledged end does not hold any more.
            let ended = known.ended.take();
            let (entry, ticket) = store.names().reopen(&key).inspect_err(|_| known.ended.set(ended))?;
            store.names().committed(ticket).await.map(|()| entry.tail.clone())
        });
        let tail = match reopened.await {
            Ok(tail) => tail,
            Err(StoreError::Attached | StoreError::Ended | StoreError::Gone) => return Ok(()),
            Err(error) => return Err(error),
        };
        *content.epochs.borrow_mut() = tail.epochs().collect();
        self.produce(name, tail, content).await
    }

    /// Appends, and ends the stream in one of all ways, or not.
    async fn produce(&self, name: &str, tail: Arc<Tail>, content: Content) -> Result<(), StoreError> {
        let mut appender = self.store().appender(&tail)?;
        for _ in 0..self.chance.below(6) {
            self.append(&mut appender, &tail, &content).await?;
            if self.chance.one_in(2) {
                let to = appender.len();
                self.store().durable(&tail, to).await?;
                content.floor.set(to);
            }
            if self.trims && self.chance.one_in(2) {
                self.trim(name, &tail, &content).await?;
            }
        }
        let end = match self.chance.below(8) {
            // Let go of, open.
            0 => return Ok(()),
            1 => return appender.detach().await.map(drop),
            // Deleted or replaced while it is appended to: the appender is told, or was quicker.
            2 => {
                self.delete(name).await?;
                return match self.append(&mut appender, &tail, &content).await {
                    Ok(()) | Err(StoreError::Gone) => Ok(()),
                    Err(error) => Err(error),
                };
            }
            3 | 4 => End::Interrupted,
            _ => End::Complete,
        };
        let len = appender.seal(end).await?;
        content.floor.set(len);
        content.ended.set(Some(end));
        Ok(())
    }

    /// Has the beginning of the stream go, and waits for that or not.
    async fn trim(&self, name: &str, tail: &Arc<Tail>, known: &Content) -> Result<(), StoreError> {
        let runs: Vec<u64> = tail.old_runs().map(|run| run.to).collect();
        let Some(&to) = runs.get(self.chance.below(8) as usize) else { return Ok(()) };
        let (owner, key, uid) = (self.life.owner(name), key(name), tail.uid());
        let (store, content) = (self.life.stores[owner].clone(), known.clone());
        let trimming = async move {
            let entry = store.names().look(&key).entry.filter(|entry| entry.tail.uid() == uid);
            let Some(entry) = entry else { return Ok(()) };
            let Some(trimmed) = store.trim(&entry, to)? else { return Ok(()) };
            let (may, is) = content.trims.get();
            content.trims.set((may.max(to), is));
            let trimmed = trimmed.await.expect("answered");
            if trimmed? > 0 {
                let (may, is) = content.trims.get();
                content.trims.set((may, is.max(to)));
            }
            Ok(())
        };
        if self.chance.one_in(2) {
            return self.life.on(owner, trimming).await;
        }
        // Goes on beside whatever comes next.
        self.life.spawn(owner, async move { drop(trimming.await) });
        Ok(())
    }

    async fn append(
        &self,
        appender: &mut Appender,
        tail: &Arc<Tail>,
        known: &Content,
    ) -> Result<(), StoreError> {
        let epochs: Vec<(u64, u64)> = tail.epochs().collect();
        let mut left = 1 + self.chance.below(60_000);
        let piece = 1 + self.chance.below(40_000);
        while left > 0 {
            let room = appender.reserve(left.min(piece) as usize).await?;
            let from = appender.len();
            known.written.set(known.written.get().max(from + room as u64));
            appender.append(&content(tail.uid(), &epochs, from, room as u64))?;
            left -= room as u64;
        }
        Ok(())
    }
}

/// The model.
impl Life {
    /// From now on the name may have this content as well.
    fn allow(&self, name: &str, uid: Option<u64>, content: Content) {
        let mut model = self.model.borrow_mut();
        let expected = model.entry(name.to_owned()).or_default();
        if expected.may.is_empty() {
            expected.may.insert(None, Content::default());
        }
        expected.may.insert(uid, content);
    }

    /// It was acknowledged: nothing else will do.
    fn settle(&self, name: &str, uid: Option<u64>) {
        let mut model = self.model.borrow_mut();
        model.get_mut(name).expect("allowed before").may.retain(|known, _| *known == uid);
    }

    /// What is durable is promised to survive anything, and what readers could see to survive a kill.
    fn note_floors(&self, seen_stays: bool) {
        for (name, expected) in &*self.model.borrow() {
            let Ok(found) = self.stores[self.owner(name)].names().get(&key(name)) else { continue };
            let Some(entry) = found.entry else { continue };
            if let Some(content) = expected.may.get(&Some(entry.tail.uid())) {
                let promised = if seen_stays { entry.tail.published() } else { entry.tail.durable() };
                content.floor.set(content.floor.get().max(promised));
            }
        }
    }

    /// Compares every name with the model, and makes the model say what was found.
    fn check(self: &Rc<Self>, number: u64) {
        for (name, expected) in &mut *self.model.borrow_mut() {
            let (owner, key) = (self.owner(name), key(name));
            let store = self.stores[owner].clone();
            let entry: Option<Entry> = self.world.block_on(owner, async move {
                let found = store.names().get(&key).expect("no damage");
                store.names().committed(found.ticket).await.expect("no fault");
                found.entry
            });
            let uid = entry.as_ref().map(|entry| entry.tail.uid());
            let what = format!("life {number}: {name}");
            let Some(content) = expected.may.get(&uid).cloned() else {
                panic!("{what} is {uid:?}, expected was {expected:?}");
            };
            if let Some(entry) = entry {
                assert_eq!(entry.attributes(), name.as_bytes(), "{what}");
                self.check_content(owner, &entry.tail, &content, &what);
            }
            expected.may = BTreeMap::from([(uid, content)]);
        }
    }

    fn check_content(&self, owner: usize, tail: &Arc<Tail>, known: &Content, what: &str) {
        let (store, verified) = (self.stores[owner].clone(), tail.clone());
        self.world.block_on(owner, async move { store.verify(&verified, 0, u64::MAX).await }).expect(what);
        let (mut found, first) = (Vec::new(), tail.first());
        while let Some(range) = tail.range(first + found.len() as u64, u64::MAX) {
            let mut piece = vec![0; range.len as usize];
            range.file.read_exact_at(&mut piece, range.offset).expect(what);
            found.extend(piece);
        }
        let len = first + found.len() as u64;
        let (may, is) = known.trims.get();
        assert!((is..=may).contains(&first), "{what}: begins at {first}, not from {is} to {may}");
        known.trims.set((first, first));
        let epochs: Vec<(u64, u64)> = tail.epochs().collect();
        let before = known.epochs.borrow().clone();
        assert!(epochs.starts_with(&before), "{what}: epochs {epochs:?} do not go on from {before:?}");
        let (floor, written) = (known.floor.get(), known.written.get());
        assert!(
            (floor..=written).contains(&len),
            "{what}: {len} bytes of at least {floor}, at most {written}"
        );
        assert!(
            found == content(tail.uid(), &epochs, first, len - first),
            "{what}: bytes that nobody appended there"
        );
        assert!(tail.durable() == tail.published() && tail.published() == len);
        let state = match known.ended.get() {
            Some(End::Complete) => Some(State::Complete),
            Some(End::Interrupted) => Some(State::Interrupted),
            None => None,
        };
        assert!(
            state.is_none_or(|state| tail.state() == state),
            "{what}: {:?} after {state:?}",
            tail.state()
        );
        assert!(state.is_none() || epochs == before, "{what}: an ended stream has a new epoch: {epochs:?}");
        known.floor.set(len);
        known.written.set(len);
        // What a crash interrupted may be given another epoch by the next start; an end that was decided stays.
        if tail.state() == State::Complete {
            known.ended.set(Some(End::Complete));
        }
        *known.epochs.borrow_mut() = epochs;
    }
}

//! The store under a seeded schedule on a disk that forgets: after every crash the names and bytes that were
//! acknowledged are there, and a stream is a prefix of what was appended.
//!
//! `MILLPOND_SEEDS=1000 cargo test --test store_sim` runs more of the same row.

use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::entropy::Entropy;
use millpond::runtime::sim::{Faults, SimDisk, World, seeds};
use millpond::runtime::{Disk, shard, timer};
use millpond::storage::{
    Durability, End, Entry, Key, LogId, Options, State, Store, StoreError, Tail, owner_of,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What must be true of a name after a crash.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// Every content that it may have, by stream number; `None` when it may be absent.
    may: BTreeMap<Option<u64>, Content>,
}

/// A stream's content as the model knows it.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Rc<RefCell<Vec<u8>>>,
    /// At least this much must be there.
    floor: Rc<RefCell<u64>>,
    /// The seal was acknowledged.
    sealed: Rc<RefCell<bool>>,
}

type Model = Rc<RefCell<BTreeMap<String, Expected>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Crash {
    Kill,
    Power,
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    for seed in seeds(60) {
        history(seed, Faults::default(), Durability::Sync);
    }
}

#[test]
fn what_was_acknowledged_survives_crashes_beside_failing_disks() {
    for seed in seeds(60) {
        let faults = Faults { syncs_fail: 12, syncs_slow: 4, ..Faults::default() };
        history(seed, faults, Durability::Sync);
    }
}

#[test]
fn the_cache_class_survives_kills_whole() {
    for seed in seeds(40) {
        history(seed, Faults::default(), Durability::Cache);
    }
}

fn options(shards: usize, durability: Durability) -> Options {
    let sync_interval = Duration::from_millis(3);
    Options { shards, durability, sync_interval, segment_size: 512 << 10 }
}

/// A few lives of one data directory.
fn history(seed: u64, faults: Faults, durability: Durability) {
    let chance = Entropy::from_seed(seed ^ 0x5eed);
    let mut disk = SimDisk::new(seed);
    // The secret is the one thing that a directory draws outside of the schedule.
    let format = r#"{"format":1,"hash":"xxh3-64","logs":[],"shards":0,"boot":0,"secret":"5eed"}"#;
    disk.create_dir(Path::new("data")).unwrap();
    disk.replace(Path::new("data/FORMAT"), format.as_bytes()).unwrap();
    let model: Model = Rc::default();
    for life in 0..4 {
        let shards = 1 + chance.below(3) as usize;
        disk.set_faults(Faults { not_resident: 4, ..Faults::default() });
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let images = Store::open_all(&shared, Path::new("data"), &options(shards, durability))
            .unwrap_or_else(|error| panic!("life {life}: {error}"));
        let world = World::new(seed, shards, disk.clone());
        let stores: Vec<Rc<Store>> = images
            .into_iter()
            .enumerate()
            .map(|(at, image)| {
                world.enter(at, |_| {
                    let store = Store::start(image, Arc::new(ShardMetrics::default()));
                    store.on_wake(Box::new(|_, _| {}));
                    store
                })
            })
            .collect();
        check(&world, &stores, &model, life);
        disk.set_faults(faults);
        for user in 0..4 {
            let at = chance.below(shards as u64) as usize;
            let (stores, model) = (stores.clone(), model.clone());
            let chance = Entropy::from_seed(chance.next());
            world.enter(at, |_| shard::spawn("user", use_store(user, at, stores, model, chance)));
        }
        let store = stores[0].clone();
        let pause = Duration::from_micros(chance.below(20_000));
        world.enter(0, |_| {
            shard::spawn("checkpoints", async move {
                loop {
                    timer::sleep(pause).await;
                    store.checkpoint().await;
                }
            })
        });
        // Somewhere in the middle, or after everything came to rest.
        match chance.below(4) {
            0 => world.run_for(Duration::from_millis(50)),
            _ => {
                let steps = chance.below(6000);
                world.run_until(|| false, steps);
            }
        }
        assert_eq!(world.panics(), 0);
        let crash = match durability {
            Durability::Sync if chance.one_in(2) => Crash::Power,
            Durability::Sync | Durability::Cache => Crash::Kill,
        };
        // A failed sync drops from the page cache what it covered, before anyone is told.
        match crash == Crash::Kill && faults.syncs_fail == 0 {
            true => note_published(&stores, &model),
            false => forget_published(&model, &stores),
        }
        disk = match crash {
            Crash::Kill => disk.kill(),
            Crash::Power => disk.power_loss(&chance),
        };
        for at in 0..shards {
            world.enter(at, |shard| shard.clear());
        }
        drop(stores);
    }
}

/// One user of the store: puts, appends, seals, deletes, a few times over a handful of names.
async fn use_store(user: u64, home: usize, stores: Vec<Rc<Store>>, model: Model, chance: Entropy) {
    for _ in 0..1 + chance.below(5) {
        // Names are not shared between users, so that the model needs no order between them.
        let name = format!("{user}/{}", chance.below(2));
        if act(&name, home, &stores, &model, &chance).await.is_err() {
            return;
        }
    }
}

async fn act(
    name: &str,
    home: usize,
    stores: &[Rc<Store>],
    model: &Model,
    chance: &Entropy,
) -> Result<(), StoreError> {
    let key = Key::new(1, name.as_bytes());
    // Names of the user's own shard alone: calls to other shards are the service's business.
    if owner_of(key.hash(), stores.len()).index() != home {
        return Ok(());
    }
    let store = &stores[home];
    if chance.one_in(4) {
        let Some(ticket) = store.names().delete(&key)? else { return Ok(()) };
        allow(model, name, None, Content::default());
        store.names().committed(ticket).await?;
        settle(model, name, None);
        return Ok(());
    }
    let (entry, ticket) = store.names().put(key, LogId(home as u16), name.to_owned().into())?;
    let uid = entry.tail.uid();
    let content = Content::default();
    allow(model, name, Some(uid), content.clone());
    store.names().committed(ticket).await?;
    settle(model, name, Some(uid));
    let mut appender = store.appender(&entry.tail)?;
    for _ in 0..chance.below(6) {
        let piece: Vec<u8> = (0..1 + chance.below(60_000)).map(|at| (at ^ uid) as u8).collect();
        for piece in piece.chunks(1 + chance.below(40_000) as usize) {
            let room = appender.reserve(piece.len()).await?;
            content.bytes.borrow_mut().extend(&piece[..room]);
            appender.append(&piece[..room])?;
        }
        if chance.one_in(2) {
            let to = appender.len();
            store.durable(&entry.tail, to).await?;
            *content.floor.borrow_mut() = to;
        }
    }
    if chance.one_in(3) {
        return Ok(());
    }
    let len = appender.seal(End::Complete).await?;
    *content.floor.borrow_mut() = len;
    *content.sealed.borrow_mut() = true;
    Ok(())
}

/// From now on the name may have this content as well.
fn allow(model: &Model, name: &str, uid: Option<u64>, content: Content) {
    let mut model = model.borrow_mut();
    let expected = model.entry(name.to_owned()).or_default();
    if expected.may.is_empty() {
        expected.may.insert(None, Content::default());
    }
    expected.may.insert(uid, content);
}

/// It was acknowledged: nothing else will do.
fn settle(model: &Model, name: &str, uid: Option<u64>) {
    model.borrow_mut().get_mut(name).expect("allowed before").may.retain(|known, _| *known == uid);
}

/// What readers could see is promised to survive a kill.
fn note_published(stores: &[Rc<Store>], model: &Model) {
    each(stores, model, |tail, content| {
        let floor = &mut *content.floor.borrow_mut();
        *floor = (*floor).max(tail.published());
    });
}

/// A power loss may take what was not durable.
fn forget_published(model: &Model, stores: &[Rc<Store>]) {
    each(stores, model, |tail, content| {
        if !*content.sealed.borrow() {
            *content.floor.borrow_mut() = tail.durable();
        }
    });
}

fn each(stores: &[Rc<Store>], model: &Model, look: impl Fn(&Tail, &Content)) {
    for (name, expected) in &*model.borrow() {
        let key = Key::new(1, name.as_bytes());
        let store = &stores[owner_of(key.hash(), stores.len()).index()];
        let Ok(found) = store.names().get(&key) else { continue };
        if let Some(entry) = found.entry
            && let Some(content) = expected.may.get(&Some(entry.tail.uid()))
        {
            look(&entry.tail, content);
        }
    }
}

/// Compares every name with the model, and makes the model say what was found.
fn check(world: &World, stores: &[Rc<Store>], model: &Model, life: u64) {
    for (name, expected) in &mut *model.borrow_mut() {
        let key = Key::new(1, name.as_bytes());
        let owner = owner_of(key.hash(), stores.len()).index();
        let store = stores[owner].clone();
        let entry: Option<Rc<Entry>> = world.block_on(owner, async move {
            let found = store.names().get(&key).expect("no damage");
            store.names().committed(found.ticket).await.expect("no fault");
            found.entry
        });
        let uid = entry.as_ref().map(|entry| entry.tail.uid());
        let what = format!("life {life}: {name}");
        let Some(content) = expected.may.get(&uid).cloned() else {
            panic!("{what} is {uid:?}, expected was {expected:?}");
        };
        if let Some(entry) = entry {
            assert_eq!(entry.attributes, name.as_bytes(), "{what}");
            check_content(world, stores, owner, &entry.tail, &content, &what);
        }
        expected.may = BTreeMap::from([(uid, content)]);
    }
}

fn check_content(
    world: &World,
    stores: &[Rc<Store>],
    owner: usize,
    tail: &Arc<Tail>,
    content: &Content,
    what: &str,
) {
    let (store, verified) = (stores[owner].clone(), tail.clone());
    world.block_on(owner, async move { store.verify(&verified, 0, u64::MAX).await }).expect(what);
    let mut found = Vec::new();
    while let Some(range) = tail.range(found.len() as u64, u64::MAX) {
        let mut piece = vec![0; range.len as usize];
        range.file.read_exact_at(&mut piece, range.offset).expect(what);
        found.extend(piece);
    }
    let mut bytes = content.bytes.borrow_mut();
    assert!(bytes.starts_with(&found), "{what}: {} bytes are no prefix of {}", found.len(), bytes.len());
    let floor = *content.floor.borrow();
    assert!(found.len() as u64 >= floor, "{what}: {} bytes left of {floor}", found.len());
    assert!(tail.durable() == tail.published() && tail.published() == found.len() as u64);
    assert!(tail.state() == State::Complete || !*content.sealed.borrow(), "{what}: the end is forgotten");
    bytes.truncate(found.len());
    *content.floor.borrow_mut() = found.len() as u64;
}

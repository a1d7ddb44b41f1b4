//! The service on virtual shards: histories against a simple model, with crashes.

use super::*;
use crate::runtime::mailbox::Mesh;
use crate::runtime::sim::{Faults, SimDisk, World, seeds};
use crate::runtime::{Disk, FileRange};
use crate::service::outflow::Piece;
use crate::storage::{Durability, Options};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

struct Fleet {
    world: World,
    shards: Vec<Rc<Blobs>>,
    seed: u64,
    durability: Durability,
}

impl Fleet {
    fn new(seed: u64, shards: usize, durability: Durability) -> Self {
        Self::on(seed, shards, durability, SimDisk::new(seed))
    }

    fn on(seed: u64, count: usize, durability: Durability, disk: SimDisk) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = Options {
            shards: count,
            durability,
            sync_interval: Duration::from_millis(20),
            segment_size: 4 << 20,
            part_of: crate::service::owner::part_of,
        };
        let images = Store::open_all(&shared, Path::new("data"), &options).expect("the store opens");
        let world = World::new(seed, count, disk);
        let start = |(index, (image, mailbox))| {
            world.enter(index, |_| {
                let metrics = Arc::new(ShardMetrics::default());
                let store = Store::start(image, metrics.clone());
                Blobs::start(store, mailbox, world.unparks(), metrics)
            })
        };
        let shards: Vec<_> = images.into_iter().zip(Mesh::new(count)).enumerate().map(start).collect();
        for (index, blobs) in shards.iter().enumerate() {
            let blobs = blobs.clone();
            world.block_on(index, async move { blobs.load().await }).expect("containers are read");
        }
        Fleet { world, shards, seed, durability }
    }

    /// The machine ends, by a kill or with its power, and starts with `count` shards.
    fn crash(self, power: bool, count: usize) -> Self {
        let disk = match power {
            true => self.world.disk().power_loss(self.world.chance()),
            false => self.world.disk().kill(),
        };
        let (seed, durability) = (self.seed.wrapping_add(1), self.durability);
        drop(self);
        Fleet::on(seed, count, durability, disk)
    }

    fn below(&self, end: usize) -> usize {
        self.world.chance().below(end as u64) as usize
    }

    fn any(&self) -> usize {
        self.below(self.shards.len())
    }

    fn run<T: 'static, F: Future<Output = T> + 'static>(&self, work: impl FnOnce(Rc<Blobs>) -> F) -> T {
        let shard = self.any();
        self.world.block_on(shard, work(self.shards[shard].clone()))
    }

    fn put(&self, name: &Name, bytes: Vec<u8>, when: When) -> Result<Stored, BlobError> {
        let name = name.clone();
        self.run(async move |blobs| put(blobs, name, bytes, when).await)
    }

    fn content(&self, name: &Name) -> Option<Vec<u8>> {
        let name = name.clone();
        self.run(async move |blobs| match blobs.find(&name).await {
            Ok(found) => Some(read(&blobs, &found?).await),
            Err(BlobError::NoSuchContainer) => None,
            Err(error) => panic!("{name:?}: {error}"),
        })
    }

    fn create(&self, container: &'static str) {
        self.run(async move |blobs| blobs.create_container(container).await).expect("it is created");
    }

    /// What is on disk as segments, in bytes that are used and not dead.
    fn alive(&self) -> u64 {
        self.shards[0].bytes()
    }
}

async fn put(blobs: Rc<Blobs>, name: Name, bytes: Vec<u8>, when: When) -> Result<Stored, BlobError> {
    let mut upload = blobs.put(name, None).await?;
    fill(&mut upload, &bytes).await?;
    upload.commit(tagged(&bytes), when).await
}

async fn fill(upload: &mut put::Upload, bytes: &[u8]) -> Result<(), BlobError> {
    for piece in bytes.chunks(90_001) {
        upload.make_room().await?;
        piece.chunks(40_000).for_each(|piece| upload.take(piece));
    }
    upload.make_room().await
}

/// Properties that tell the bytes.
fn tagged(bytes: &[u8]) -> Properties {
    let etag = format!("{:08x}-{}", crc32fast::hash(bytes), bytes.len());
    Properties { etag: etag.into(), fields: vec![("meta-x".into(), b"y"[..].into())] }
}

/// All bytes; they are what was put with the properties.
async fn read(blobs: &Rc<Blobs>, blob: &Blob) -> Vec<u8> {
    let mut reader = blobs.read(blob, 0, blob.size);
    let mut bytes = Vec::new();
    loop {
        let look = match reader.look().expect("it is readable") {
            Some(look) => look,
            None => reader.next().await.expect("it is readable"),
        };
        match look {
            Piece::Stored(range) => bytes.extend(loaded(&range)),
            Piece::Loaded(_) => unreachable!("it lies in files"),
            Piece::End(_) => break,
        }
    }
    assert_eq!(*blob.properties, tagged(&bytes), "bytes and properties belong together");
    bytes
}

fn loaded(range: &FileRange) -> Vec<u8> {
    let mut bytes = vec![0; range.len as usize];
    range.file.read_exact_at(&mut bytes, range.offset).expect("it is there");
    bytes
}

fn name(key: &str) -> Name {
    Name::new("box", key.as_bytes()).expect("a name")
}

/// Bytes that no other call gives.
fn bytes(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number.wrapping_mul(0x9e37_79b9) >> 7) as u8 ^ (at / 7) as u8 ^ at as u8).collect()
}

#[test]
fn what_is_put_is_found_from_every_shard() {
    for seed in seeds(4) {
        let fleet = Fleet::new(seed, 3, Durability::Sync);
        fleet.create("box");
        for (number, len) in [0, 1, 65_536, 65_537, 200_000, 3_000_000].into_iter().enumerate() {
            let (name, content) = (name(&format!("k{number}")), bytes(number as u64, len));
            let stored = fleet.put(&name, content.clone(), When::default()).expect("it is put");
            assert_eq!((stored.size, stored.replaced), (len as u64, false));
            for _ in 0..3 {
                assert_eq!(fleet.content(&name), Some(content.clone()), "{len} bytes");
            }
        }
        let page = fleet.run(async |blobs| blobs.list("box", Query { limit: 4, ..Query::default() }).await);
        let page = page.expect("a page");
        assert_eq!((page.entries.len(), page.next.as_deref()), (4, Some(&b"k4"[..])));
    }
}

#[test]
fn a_reader_keeps_what_it_opened() {
    let fleet = Fleet::new(seeds(1)[0], 2, Durability::Sync);
    fleet.create("box");
    let (old, new) = (bytes(1, 300_000), bytes(2, 10));
    fleet.put(&name("k"), old.clone(), When::default()).expect("it is put");
    let opened = fleet.run(async |blobs| blobs.find(&name("k")).await).expect("found").expect("there");
    let replaced = fleet.put(&name("k"), new.clone(), When::default()).expect("it is put").replaced;
    assert!(replaced);
    fleet.world.run_for(Duration::from_secs(5));
    assert_eq!(fleet.alive(), 300_010, "the old bytes are held");
    let read = fleet.run(async move |blobs| read(&blobs, &opened).await);
    assert_eq!(read, old);
    assert_eq!(fleet.content(&name("k")), Some(new));
    fleet.world.run_for(Duration::from_secs(5));
    assert_eq!(fleet.alive(), 10, "and let go of with the reader");
}

#[test]
fn a_dropped_upload_leaves_nothing() {
    let fleet = Fleet::new(seeds(1)[0], 2, Durability::Sync);
    fleet.create("box");
    fleet.run(async |blobs| {
        let mut upload = blobs.put(name("k"), Some(1_000_000)).await.expect("it begins");
        fill(&mut upload, &bytes(1, 500_000)).await.expect("it takes bytes");
    });
    assert_eq!(fleet.content(&name("k")), None);
    fleet.world.run_for(Duration::from_secs(5));
    assert_eq!(fleet.alive(), 0);
}

#[test]
fn conditions_are_decided_with_the_change() {
    let fleet = Fleet::new(seeds(1)[0], 3, Durability::Sync);
    fleet.create("box");
    let absent = When { matches_none: Some(Tags::Any), ..When::default() };
    let is = |bytes: &[u8]| Tags::Of(vec![tagged(bytes).etag]);
    let (one, two) = (bytes(1, 100), bytes(2, 100_000));
    let matches = When { matches: Some(is(&one)), ..When::default() };
    assert_eq!(fleet.put(&name("k"), two.clone(), matches.clone()), Err(BlobError::NoSuchBlob));
    fleet.put(&name("k"), one.clone(), absent.clone()).expect("nothing is there");
    assert_eq!(fleet.put(&name("k"), two.clone(), absent), Err(BlobError::Precondition));
    assert_eq!(fleet.content(&name("k")), Some(one));
    fleet.put(&name("k"), two.clone(), matches.clone()).expect("it matches");
    let delete = fleet.run(async move |blobs| blobs.delete(&name("k"), matches).await);
    assert_eq!(delete, Err(BlobError::Precondition));
    assert_eq!(fleet.content(&name("k")), Some(two));
    // Of many who put only if nothing is there, one does.
    let tasks: Vec<_> = (0..9).map(|number| bytes(number, 50 + 30_000 * number as usize)).collect();
    let done = Rc::new(std::cell::RefCell::new(Vec::new()));
    for content in tasks {
        let shard = fleet.any();
        let (blobs, done) = (fleet.shards[shard].clone(), done.clone());
        fleet.world.enter(shard, |_| {
            shard::spawn("race", async move {
                let when = When { matches_none: Some(Tags::Any), ..When::default() };
                let stored = put(blobs, name("race"), content.clone(), when).await;
                done.borrow_mut().push((content, stored.is_ok()));
            });
        });
    }
    assert!(fleet.world.run_until(|| done.borrow().len() == 9, 1_000_000));
    let winners: Vec<_> =
        done.borrow().iter().filter(|(_, won)| *won).map(|(bytes, _)| bytes.clone()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(fleet.content(&name("race")), winners.into_iter().next());
}

#[test]
fn a_failed_sync_keeps_what_was_there() {
    let mut failed = 0;
    for seed in seeds(8) {
        let fleet = Fleet::new(seed, 2, Durability::Sync);
        fleet.create("box");
        let (old, new) = (bytes(1, 300_000), bytes(2, 400_000));
        fleet.put(&name("k"), old.clone(), When::default()).expect("it is put");
        fleet.world.run_for(Duration::from_secs(1));
        fleet.world.disk().fail_next_sync();
        let stored = fleet.put(&name("k"), new.clone(), When::default());
        failed += usize::from(stored.is_err());
        let expected = if stored.is_ok() { new } else { old };
        assert!(fleet.content(&name("k")).as_ref() == Some(&expected), "{stored:?}");
        let fleet = fleet.crash(true, 2);
        assert!(fleet.content(&name("k")).as_ref() == Some(&expected), "after a crash; {stored:?}");
    }
    assert!(failed > 0 || seeds(8).len() == 1, "some of the syncs were its own");
}

#[test]
fn containers_go_only_when_they_are_empty() {
    for seed in seeds(8) {
        let fleet = Fleet::new(seed, 3, Durability::Sync);
        fleet.create("box");
        let again = fleet.run(async |blobs| blobs.create_container("box").await);
        assert_eq!(again, Ok(false));
        fleet.put(&name("k"), bytes(1, 10), When::default()).expect("it is put");
        let full = fleet.run(async |blobs| blobs.delete_container("box").await);
        assert_eq!(full, Err(BlobError::ContainerNotEmpty));
        fleet.put(&name("l"), bytes(1, 10), When::default()).expect("it takes blobs still");
        for key in ["k", "l"] {
            fleet.run(async move |blobs| blobs.delete(&name(key), When::default()).await).expect("deleted");
        }
        // Whoever comes first: either the container stays with the blob, or both are gone.
        let shard = fleet.any();
        let blobs = fleet.shards[shard].clone();
        let stored = Rc::new(Cell::new(None));
        let told = stored.clone();
        fleet.world.enter(shard, |_| {
            shard::spawn("race", async move {
                told.set(Some(put(blobs, name("m"), bytes(3, 70_000), When::default()).await.is_ok()));
            });
        });
        for _ in 0..fleet.below(60) {
            fleet.world.step();
        }
        let deleted = fleet.run(async |blobs| blobs.delete_container("box").await);
        assert!(fleet.world.run_until(|| stored.get().is_some(), 1_000_000));
        assert_ne!(deleted.is_ok(), stored.get() == Some(true), "{deleted:?}");
        assert_eq!(fleet.content(&name("m")).is_some(), deleted.is_err());
        let fleet = fleet.crash(true, 2);
        assert_eq!(fleet.shards[0].container("box").is_some(), deleted.is_err());
    }
}

#[test]
fn parts_become_a_blob_without_a_copy() {
    let fleet = Fleet::new(seeds(1)[0], 3, Durability::Sync);
    fleet.create("box");
    let id = fleet.run(async |blobs| blobs.begin(&name("big"), tagged(b"")).await).expect("begun");
    let contents: Vec<_> = (0..5u64).map(|number| bytes(number, 60_000 * number as usize + 7)).collect();
    for (number, content) in contents.iter().enumerate().rev() {
        let (id, content) = (id.clone(), content.clone());
        let part = fleet.run(async move |blobs| {
            let mut upload = blobs.put_part(&name("big"), &id, number as u16 + 1, None).await?;
            fill(&mut upload, &content).await?;
            upload.commit(tagged(&content), When::default()).await
        });
        part.expect("a part");
    }
    let stored = fleet.alive();
    let (upload, of) =
        (id.clone(), |number: u16| PartOf { number, etag: tagged(&contents[number as usize - 1]).etag });
    let listed = fleet.run(async move |blobs| blobs.parts(&name("big"), &upload, 1, 2).await).expect("parts");
    assert_eq!((listed.1.iter().map(|part| part.number).collect::<Vec<_>>(), listed.2), (vec![2, 3], true));
    assert_eq!(fleet.content(&name("big")), None, "parts are no blob");
    let wrong = PartOf { number: 2, etag: "other".into() };
    let upload = id.clone();
    let refused = fleet.run(async move |blobs| {
        blobs.complete(&name("big"), &upload, vec![wrong], tagged(b""), When::default()).await
    });
    assert_eq!(refused, Err(BlobError::InvalidPart(2)));
    let whole = [&contents[0][..], &contents[2], &contents[4]].concat();
    let (upload, parts, properties) = (id.clone(), vec![of(1), of(3), of(5)], tagged(&whole));
    let done = fleet.run(async move |blobs| {
        blobs.complete(&name("big"), &upload, parts, properties, When::default()).await
    });
    assert_eq!(done.expect("composed").size, whole.len() as u64);
    assert_eq!(fleet.content(&name("big")), Some(whole.clone()));
    let again = fleet.run(async move |blobs| blobs.parts(&name("big"), &id, 0, 10).await);
    assert_eq!(again.map(|_| ()), Err(BlobError::NoSuchUpload));
    fleet.world.run_for(Duration::from_secs(5));
    assert!(fleet.alive() < stored, "parts that were left out are gone");
    let copied = fleet.run(async |blobs| {
        let big = blobs.find(&name("big")).await?.expect("there");
        let properties = (*big.properties).clone();
        blobs.copy(&big, name("copy"), properties, When::default()).await
    });
    assert_eq!(copied.expect("copied").size, whole.len() as u64);
    let before = fleet.alive();
    fleet.run(async |blobs| blobs.delete(&name("big"), When::default()).await).expect("deleted");
    fleet.world.run_for(Duration::from_secs(5));
    assert_eq!(fleet.alive(), before, "the copy holds the bytes");
    let fleet = fleet.crash(true, 2);
    assert_eq!(fleet.content(&name("copy")), Some(whole));
    let count = fleet.run(async |blobs| blobs.uploads("box", b"", None, 10).await).expect("uploads").0.len();
    assert_eq!(count, 0);
}

#[test]
fn small_blobs_leave_packs_that_are_mostly_gone() {
    let fleet = Fleet::new(seeds(1)[0], 2, Durability::Sync);
    fleet.create("box");
    let content = |number: u64| bytes(number, 40_000 + number as usize);
    for number in 0..600 {
        fleet.put(&name(&format!("{number}")), content(number), When::default()).expect("it is put");
    }
    for number in (0..600).filter(|number| number % 5 > 0) {
        let name = name(&format!("{number}"));
        fleet.run(async move |blobs| blobs.delete(&name, When::default()).await).expect("deleted");
    }
    assert!(fleet.alive() > 20_000_000, "packs keep what they have");
    fleet.world.run_for(Duration::from_secs(120));
    // A fifth of 24 MB, and what is in the packs that are being filled.
    assert!(fleet.alive() < 14_000_000, "{} bytes are left", fleet.alive());
    let fleet = fleet.crash(true, 3);
    for number in (0..600).step_by(5) {
        assert!(fleet.content(&name(&format!("{number}"))) == Some(content(number)), "{number}");
    }
}

/// What a name was said to be, from the last that was answered on.
type Said = BTreeMap<Name, Vec<Option<Vec<u8>>>>;

/// Histories of puts, copies, deletes, listings and checkpoints, some of them unanswered when the machine ends.
fn history(seed: u64, durability: Durability, power: bool) {
    let mut fleet = Fleet::new(seed, 3, durability);
    fleet.create("box");
    let keys = ["a", "a/b", "a/c/d", "b/x", "b/y", "c", "d/", "d//e"];
    let mut said = Said::new();
    let mut number = 0;
    // In the cache class a power loss may take back what was answered.
    let forgetful = power && durability == Durability::Cache;
    for life in 0..3 {
        for _ in 0..25 {
            number += 1;
            let key = name(keys[fleet.below(keys.len())]);
            let history = said.entry(key.clone()).or_insert_with(|| vec![None]);
            match fleet.below(13) {
                0..6 => {
                    let len = [0, 5, 3_000, 60_000, 150_000, 700_000][fleet.below(6)];
                    let content = bytes(number, len);
                    fleet.put(&key, content.clone(), When::default()).expect("it is put");
                    history.push(Some(content));
                }
                6 | 7 => {
                    let gone = key.clone();
                    let deleted = fleet.run(async move |blobs| blobs.delete(&gone, When::default()).await);
                    assert_eq!(deleted, Ok(history.last().unwrap().is_some()));
                    history.push(None);
                }
                8 => {
                    let to = name(keys[fleet.below(keys.len())]);
                    let target = to.clone();
                    let copied = fleet.run(async move |blobs| {
                        let Some(found) = blobs.find(&key).await? else { return Ok(false) };
                        let properties = (*found.properties).clone();
                        blobs.copy(&found, target, properties, When::default()).await.map(|_| true)
                    });
                    let content = history.last().unwrap().clone();
                    assert_eq!(copied, Ok(content.is_some()));
                    if content.is_some() {
                        said.entry(to).or_insert_with(|| vec![None]).push(content);
                    }
                }
                9 => assert_eq!(fleet.content(&key), history.last().unwrap().clone(), "{key:?}"),
                10 => check_list(&fleet, &said),
                11 => {
                    // Long enough for all of it to be on disk: from here on nothing forgets it.
                    fleet.world.run_for(Duration::from_secs(25));
                    said.values_mut().for_each(|history| drop(history.drain(..history.len() - 1)));
                }
                _ => {
                    let shard = fleet.any();
                    let blobs = fleet.shards[shard].clone();
                    fleet.world.block_on(shard, async move { blobs.store.checkpoint().await });
                }
            }
            if !forgetful {
                said.values_mut().for_each(|history| drop(history.drain(..history.len() - 1)));
            }
        }
        check_list(&fleet, &said);
        // Some are under way when it ends.
        for _ in 0..fleet.below(5) {
            number += 1;
            let key = name(keys[fleet.below(keys.len())]);
            let content = bytes(number, [10, 80_000, 400_000][fleet.below(3)]);
            said.entry(key.clone()).or_insert_with(|| vec![None]).push(Some(content.clone()));
            let shard = fleet.any();
            let blobs = fleet.shards[shard].clone();
            fleet.world.enter(shard, |_| {
                shard::spawn("under way", async move {
                    let _ = put(blobs, key, content, When::default()).await;
                });
            });
        }
        for _ in 0..fleet.below(400) {
            fleet.world.step();
        }
        let count = 1 + fleet.below(4);
        fleet = fleet.crash(power, count);
        assert!(fleet.shards[0].container("box").is_some() || forgetful, "life {life}");
        if fleet.shards[0].container("box").is_none() {
            fleet.create("box");
        }
        for (key, history) in &mut said {
            let content = fleet.content(key);
            assert!(
                history.contains(&content),
                "life {life}: {key:?} has {:?} bytes, and was {:?}",
                content.as_ref().map(Vec::len),
                history.iter().map(|content| content.as_ref().map(Vec::len)).collect::<Vec<_>>()
            );
            *history = vec![content];
        }
        check_list(&fleet, &said);
    }
    let keys: Vec<_> = said.keys().cloned().collect();
    for key in keys {
        fleet.run(async move |blobs| blobs.delete(&key, When::default()).await).expect("deleted");
    }
    fleet.world.run_for(Duration::from_secs(5));
    assert_eq!(fleet.alive(), 0, "what nobody names takes no space");
}

fn check_list(fleet: &Fleet, said: &Said) {
    let there = said.iter().filter(|(_, history)| history.last().unwrap().is_some());
    let keys: Vec<Vec<u8>> = there.map(|(name, _)| name.key().to_vec()).collect();
    let prefix: &[u8] = [&b""[..], b"a", b"d/"][fleet.below(3)];
    let delimiter: &[u8] = [&b""[..], b"/", b"/b"][fleet.below(3)];
    let limit = 1 + fleet.below(4);
    let mut expected: Vec<(Vec<u8>, bool)> = Vec::new();
    for key in keys.into_iter().filter(|key| key.starts_with(prefix)) {
        let at = key[prefix.len()..].windows(delimiter.len().max(1)).position(|at| at == delimiter);
        let entry = match at {
            Some(at) => (key[..prefix.len() + at + delimiter.len()].to_vec(), true),
            None => (key, false),
        };
        if expected.last() != Some(&entry) {
            expected.push(entry);
        }
    }
    let mut found = Vec::new();
    let mut start = Start::First;
    loop {
        let query = Query { prefix: prefix.into(), delimiter: delimiter.into(), start, limit };
        let page = fleet.run(async move |blobs| blobs.list("box", query).await).expect("a page");
        assert!(page.entries.len() <= limit);
        let last_page = page.next.is_none();
        found.extend(page.entries.into_iter().map(|entry| match entry {
            Listed::Blob(blob) => (blob.name.key().to_vec(), false),
            Listed::Prefix(prefix) => (prefix.to_vec(), true),
        }));
        if last_page {
            break;
        }
        // Both ways to go on lead to the same place.
        start = match fleet.below(2) {
            0 => Start::At(page.next.expect("looked at above")),
            _ => Start::After(found.last().expect("pages have entries").0.as_slice().into()),
        };
    }
    assert_eq!(found, expected, "prefix {prefix:?}, delimiter {delimiter:?}, limit {limit}");
}

/// Catches bodies that go before what replaced them is whole: many names are replaced at once while syncs take long, so
/// that at the end of the power links are durable whose bodies, on other shards, are not.
#[test]
fn what_is_replaced_stays_until_its_heir_is_whole() {
    const NAMES: u64 = 8;
    for seed in seeds(8) {
        let mut fleet = Fleet::new(seed, 3, Durability::Cache);
        fleet.create("box");
        let key = |number: u64| name(&format!("k{number}"));
        let content =
            |round: u64, number: u64| bytes(round * 100 + number, 70_000 + 40_000 * number as usize);
        let mut said: Vec<Vec<Option<Vec<u8>>>> = Vec::new();
        for round in 0..3 {
            if round == 0 {
                for number in 0..NAMES {
                    fleet.put(&key(number), content(round, number), When::default()).expect("it is put");
                    said.push(vec![Some(content(round, number))]);
                }
            }
            // Long enough for all of it to be on disk.
            fleet.world.run_for(Duration::from_secs(5));
            fleet.world.disk().set_faults(Faults { syncs_slow: 2, ..Faults::default() });
            for number in 0..NAMES {
                said[number as usize].push(Some(content(round + 1, number)));
                let shard = fleet.any();
                let blobs = fleet.shards[shard].clone();
                let (key, content) = (key(number), content(round + 1, number));
                fleet.world.enter(shard, |_| {
                    shard::spawn("replace", async move {
                        let _ = put(blobs, key, content, When::default()).await;
                    });
                });
            }
            for _ in 0..fleet.below(8_000) {
                fleet.world.step();
            }
            fleet.world.disk().set_faults(Faults::default());
            fleet = fleet.crash(true, 3);
            for (number, said) in said.iter_mut().enumerate() {
                let found = fleet.content(&key(number as u64));
                assert!(
                    said.contains(&found),
                    "round {round}: k{number} is neither what it was nor what it became"
                );
                *said = vec![found];
            }
        }
    }
}

#[test]
fn histories_in_the_sync_class() {
    for seed in seeds(16) {
        history(seed, Durability::Sync, seed & 64 == 0);
    }
}

#[test]
fn histories_in_the_cache_class() {
    for seed in seeds(16) {
        history(seed, Durability::Cache, seed & 64 == 0);
    }
}

#[test]
fn options_of_a_container_are_501_and_of_one_that_is_not_there_its_own_error() {
    let fleet = Fleet::new(1, 1, Durability::Sync);
    let asked = fleet.run(async |blobs| {
        let driver = Driver::Segments(blobs);
        let before = driver.container_options("box").await;
        driver.container_create("box").await.expect("it is created");
        (before, driver.container_options("box").await)
    });
    assert!(matches!(asked.0, Err(BlobError::NoSuchContainer)), "{:?}", asked.0.err());
    let Err(BlobError::Remote(error)) = asked.1 else { panic!("options are offered") };
    assert_eq!(error.status().code(), 501);
}

//! Checkpoints: what they hold is what the journals held, and nothing goes before it is held.

mod store;

use millpond::storage::{Durability, End, State};
use std::fs;
use std::path::{Path, PathBuf};
use store::{Rig, options, pattern};
use tempfile::TempDir;

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn checkpoint(rig: &Rig) -> bool {
    let store = rig.stores[0].clone();
    rig.run(0, async move { store.checkpoint().await })
}

/// Streams of all kinds, and what each must read as.
fn fill(rig: &Rig, round: u64) -> Vec<(String, Vec<u8>)> {
    let mut expected = Vec::new();
    for number in 0..20u64 {
        let name = format!("small-{round}-{number}");
        let bytes = pattern(number, 10 + number as usize * 300);
        rig.write(number as usize % rig.stores.len(), &name, &bytes);
        expected.push((name, bytes));
    }
    let long = pattern(99 + round, 700_000);
    rig.write(0, &format!("long-{round}"), &long);
    expected.push((format!("long-{round}"), long));
    for name in ["deleted", "replaced"] {
        rig.write(0, &format!("{name}-{round}"), b"first");
    }
    rig.delete(&format!("deleted-{round}")).unwrap();
    rig.write(0, &format!("replaced-{round}"), b"second");
    expected.push((format!("replaced-{round}"), b"second".to_vec()));
    expected
}

fn check(rig: &Rig, expected: &[(String, Vec<u8>)], rounds: u64) {
    for (name, bytes) in expected {
        let found = rig.found(name);
        assert_eq!(found.attributes(), format!("about {name}").as_bytes());
        assert_eq!(found.tail.state(), State::Complete, "{name}");
        assert!(rig.read(&found.tail).unwrap() == *bytes, "{name}");
    }
    for round in 0..rounds {
        assert!(rig.find(&format!("deleted-{round}")).unwrap().is_none());
    }
}

/// Catches a part that forgets a kind of stream, a journal segment that goes too early, and one that never goes.
#[test]
fn names_come_from_the_checkpoint_and_covered_journal_segments_are_gone() {
    let dir = TempDir::new().unwrap();
    let options = options(2, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let mut expected = fill(&rig, 0);
    // More than a journal segment of marks, so that there is something to cover.
    let tail = rig.put("busy").tail.clone();
    let mut appender = rig.attach(1, &tail).unwrap();
    for _ in 0..9000 {
        appender = rig.append(1, appender, b"x");
    }
    assert!(checkpoint(&rig));
    assert!(!dir.path().join("journal-1/00000000.mpj").exists(), "covered segments are gone");
    appender = rig.append(1, appender, b"after");
    expected.extend(fill(&rig, 1));
    let epoch = tail.epoch();
    drop(appender);
    let disk = rig.kill();

    let rig = Rig::on(disk, dir.path(), &options);
    check(&rig, &expected, 2);
    let busy = rig.found("busy").tail.clone();
    assert_eq!(busy.state(), State::Interrupted);
    assert_eq!(busy.epoch(), epoch + 1);
    assert_eq!(rig.read(&busy).unwrap(), [vec![b'x'; 9000], b"after".to_vec()].concat());
    // Again, from the checkpoint and what the first start added.
    assert!(checkpoint(&rig));
    rig.close();
    let rig = Rig::new(dir.path(), &options);
    check(&rig, &expected, 2);
    assert_eq!(rig.found("busy").tail.epoch(), epoch + 1, "it was not open any more");
}

/// Catches a checkpoint after which a start reads all journals anyway: their files are gone here.
#[test]
fn a_journal_may_begin_in_the_middle() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let mut expected = Vec::new();
    for round in 0..4 {
        expected.extend(fill(&rig, round));
        let tail = rig.put(&format!("busy-{round}")).tail.clone();
        let mut appender = rig.attach(0, &tail).unwrap();
        for _ in 0..9000 {
            appender = rig.append(0, appender, b"x");
        }
        rig.run(0, async move { appender.seal(End::Interrupted).await }).unwrap();
        assert!(checkpoint(&rig));
    }
    assert!(!dir.path().join("journal-0/00000000.mpj").exists());
    let chunks = files(dir.path(), ".mpc").len();
    assert_eq!(chunks, 1, "old checkpoints are gone");
    rig.kill();
    let rig = Rig::new(dir.path(), &options);
    check(&rig, &expected, 4);
    for round in 0..4 {
        assert_eq!(rig.found(&format!("busy-{round}")).tail.published(), 9000);
    }
}

/// Catches names that stay with the owner they had, journals of shards that are gone and are read for ever, and
/// deletions that are forgotten with the log they stood in.
#[test]
fn another_number_of_shards_begins_with_a_checkpoint_of_everything() {
    let dir = TempDir::new().unwrap();
    let mut expected = Vec::new();
    for (round, shards) in [3, 1, 2, 5, 1, 4].into_iter().enumerate() {
        let rig = Rig::new(dir.path(), &options(shards, Durability::Sync));
        check(&rig, &expected, round as u64);
        for orphan in shards..5 {
            let left = dir.path().join(format!("journal-{orphan}"));
            assert!(!left.exists() || files(&left, ".mpj").is_empty(), "{shards} shards: {}", left.display());
        }
        expected.extend(fill(&rig, round as u64));
        if round % 2 == 0 {
            assert!(checkpoint(&rig));
        }
        rig.kill();
    }
}

/// Catches damage in a checkpoint that spreads: it costs the name whose record it hit, and that name says so.
#[test]
fn a_damaged_record_of_a_checkpoint_costs_its_name_alone() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let expected = fill(&rig, 0);
    assert!(checkpoint(&rig));
    rig.close();
    let chunk = files(dir.path(), ".mpc").remove(0);
    let mut bytes = fs::read(&chunk).unwrap();
    let at = bytes.windows(11).position(|window| window == b"about small").unwrap();
    let name = String::from_utf8(bytes[at + 6..at + 15].to_vec()).unwrap();
    bytes[at + 3] ^= 1;
    fs::write(&chunk, &bytes).unwrap();
    for _ in 0..2 {
        let rig = Rig::new(dir.path(), &options);
        let mut damaged = 0;
        for (name, bytes) in &expected {
            match rig.find(name) {
                Ok(found) => assert!(rig.read(&found.expect("there").tail).unwrap() == *bytes, "{name}"),
                Err(error) => {
                    damaged += 1;
                    assert!(error.to_string().contains("damaged"), "{name}: {error}");
                }
            }
        }
        assert_eq!(damaged, 1, "{name}…");
        // The next checkpoint knows it too, so that the next start does not take the name for free.
        assert!(checkpoint(&rig));
        rig.close();
    }
}

/// Catches a start that believes half a manifest, and one that takes a store without one for empty.
#[test]
fn one_copy_of_the_manifest_is_enough_and_none_is_refused() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let expected = fill(&rig, 0);
    assert!(checkpoint(&rig));
    rig.close();
    let manifests = ["MANIFEST", "MANIFEST.2"].map(|name| dir.path().join("checkpoint").join(name));
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[9] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip(&manifests[0]);
    let rig = Rig::new(dir.path(), &options);
    check(&rig, &expected, 1);
    rig.close();
    flip(&manifests[1]);
    let error =
        store::open(&store::TestDisk::new(), dir.path(), &options).err().expect("refused").to_string();
    assert!(error.contains("both copies of the checkpoint's manifest are damaged"), "{error}");
}

/// Catches a name's deletion or replacement that a checkpoint brings back because it was not durable yet, and a
/// failed sync in the middle of one.
#[test]
fn a_failed_sync_ends_a_round_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let options = options(2, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let expected = fill(&rig, 0);
    rig.disk.fail_syncs(".mpc", 1);
    assert!(!checkpoint(&rig));
    assert!(files(dir.path(), ".mpc").is_empty(), "what was begun is gone");
    assert!(checkpoint(&rig), "the next one works");
    rig.disk.fail_syncs(".mpj", 1);
    assert!(rig.try_put("x").is_err());
    assert!(!checkpoint(&rig), "no checkpoint beside a failed disk");
    let disk = rig.kill();
    let rig = Rig::on(disk, dir.path(), &options);
    check(&rig, &expected, 1);
    assert!(rig.find("x").unwrap().is_none());
}

/// Catches a part that ends where a producer came and left without a byte.
#[test]
fn a_run_without_a_byte_hides_nothing_behind_it() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.put("a").tail.clone();
    let mut written = Vec::new();
    for round in 0..3 {
        let appender = rig.attach(0, &tail).unwrap();
        // Room is asked for, and nothing comes.
        let appender = rig.run(0, async move {
            let mut appender = appender;
            appender.reserve(1000).await.map(|_| appender)
        });
        rig.run(0, appender.unwrap().seal(End::Interrupted)).unwrap();
        rig.reopen("a").unwrap();
        let appender = rig.attach(0, &tail).unwrap();
        let bytes = pattern(round, 20_000);
        let appender = rig.append(0, appender, &bytes);
        written.extend(bytes);
        rig.run(0, appender.seal(End::Interrupted)).unwrap();
        rig.reopen("a").unwrap();
    }
    let appender = rig.attach(0, &tail).unwrap();
    rig.run(0, appender.seal(End::Complete)).unwrap();
    let store = rig.stores[0].clone();
    assert!(rig.run(0, async move { store.checkpoint().await }));
    let disk = rig.kill();
    let rig = Rig::on(disk, dir.path(), &options);
    let tail = rig.found("a").tail.clone();
    assert_eq!(tail.state(), State::Complete);
    assert!(rig.read(&tail).unwrap() == written);
}

/// Catches runs of a producer that was cut off, unpublished, which stay in front of what the next one writes: bytes of
/// the one are read as the other's, a checkpoint believes them, and the stream is damaged after the next start.
/// Found by history 0x354c790b8f21f613 of `store_sim.rs`.
#[test]
fn what_a_producer_did_not_publish_hides_nothing_of_the_next_one() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = TempDir::new().unwrap();
        let options = options(1, durability);
        let rig = Rig::new(dir.path(), &options);
        let tail = rig.put("a").tail.clone();
        let appender = rig.attach(0, &tail).unwrap();
        let mut written = pattern(1, 10_000);
        let mut appender = rig.append(0, appender, &written);
        rig.settle();
        // Several runs in one turn, and before it ends somebody else takes the stream.
        let (store, taken) = (rig.stores[0].clone(), tail.clone());
        rig.run(0, async move {
            appender.append_all(&pattern(2, 100_000)).await.unwrap();
            store.fence(&taken);
        });
        assert_eq!(tail.published(), 10_000);
        rig.reopen("a").unwrap();
        let appender = rig.attach(0, &tail).unwrap();
        let bytes = pattern(3, 200_000);
        let appender = rig.append(0, appender, &bytes);
        written.extend(bytes);
        rig.run(0, appender.seal(End::Interrupted)).unwrap();
        assert!(rig.read(&tail).unwrap() == written, "{durability:?}: a reader of this life");
        rig.settle();
        assert!(checkpoint(&rig));
        let rig = Rig::on(rig.kill(), dir.path(), &options);
        let tail = rig.found("a").tail.clone();
        assert!(rig.read(&tail).unwrap() == written, "{durability:?}: after the next start");
    }
}

/// Between the sync of a stream's end and the moment when memory knows, a checkpoint is written down: it must not cover
/// what it does not hold.
#[test]
fn a_checkpoint_in_between_leaves_the_end_of_a_stream_in_the_journal() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.put("a").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    let appender = rig.append(0, appender, b"all of it");
    rig.settle();
    rig.disk.hold_syncs(true);
    let sealed = rig.start(0, async move { appender.seal(End::Complete).await });
    (0..3).for_each(|_| rig.turn());
    assert_eq!(tail.state(), State::Open);
    // Called for, and looked at in the very turn in which the sync is over: behind the sync, before who waits for it.
    let store = rig.stores[0].clone();
    let written = rig.start(0, async move { store.checkpoint().await });
    rig.poll(0);
    rig.disk.hold_syncs(false);
    rig.settle();
    assert_eq!((sealed.take(), written.take()), (Some(Ok(9)), Some(true)));
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    let tail = rig.found("a").tail.clone();
    assert_eq!((tail.state(), tail.epoch()), (State::Complete, 1), "it was acknowledged");
    assert_eq!(rig.read(&tail).unwrap(), b"all of it");
}

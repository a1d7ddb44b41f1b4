//! What a start finds, whatever the end before it was like.

mod store;

use millpond::runtime::entropy::Entropy;
use millpond::storage::{Damage, Durability, End, OpenError, State, StoreError};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use store::{Rig, TestDisk, copy_dir, key, open, options, pattern};

fn flip(path: &Path, at: u64) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x40]).unwrap();
}

fn find_bytes(path: &Path, wanted: &[u8]) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    memchr::memmem::find_iter(&bytes, wanted).map(|at| at as u64).collect()
}

/// Catches losing what was acknowledged, keeping half of what was not, and a stream that is not a prefix: power
/// cuts at random turns, of which any sector that was not synced may be missing.
#[test]
fn a_power_cut_keeps_what_was_acknowledged_and_a_prefix_of_the_rest() {
    for seed in 0..16 {
        let dir = tempfile::tempdir().unwrap();
        let chance = Entropy::from_seed(seed);
        let mut disk = TestDisk::new();
        // Names that were acknowledged and neither deleted nor touched since, with their content.
        let mut sealed: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut open_streams: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
        for round in 0..4 {
            let shards = 1 + chance.below(3) as usize;
            let rig = Rig::on(disk, dir.path(), &options(shards, Durability::Sync));
            for (name, bytes) in &sealed {
                let tail = rig.found(name).tail.clone();
                assert_eq!(tail.state(), State::Complete, "seed {seed}: {name}");
                assert!(rig.read(&tail).unwrap() == *bytes, "seed {seed}: {name}");
            }
            for (name, (bytes, durable)) in &mut open_streams {
                let tail = rig.found(name).tail.clone();
                let kept = rig.read(&tail).unwrap();
                assert!(bytes.starts_with(&kept), "seed {seed}: {name} is no prefix");
                assert!(kept.len() as u64 >= *durable, "seed {seed}: {name} lost durable bytes");
                assert!(tail.state() == State::Interrupted && tail.epoch() > 1);
                bytes.truncate(kept.len());
                *durable = kept.len() as u64;
            }
            for number in 0..1 + chance.below(4) {
                let name = format!("{round}.{number}");
                let shard = chance.below(shards as u64) as usize;
                let bytes = pattern(seed * 100 + number, 1 + chance.below(400_000) as usize);
                let tail = rig.put(&name).tail.clone();
                let mut appender = rig.attach(shard, &tail).unwrap();
                for piece in bytes.chunks(1 + chance.below(90_000) as usize) {
                    appender = rig.append(shard, appender, piece);
                }
                if chance.one_in(2) {
                    rig.run(shard, async move { appender.seal(End::Complete).await }).unwrap();
                    sealed.insert(name, bytes);
                } else {
                    (0..chance.below(3)).for_each(|_| rig.turn());
                    open_streams.insert(name, (bytes, tail.durable()));
                }
            }
            if chance.one_in(3)
                && let Some(name) = sealed.keys().next().cloned()
            {
                rig.delete(&name).unwrap();
                sealed.remove(&name);
            }
            for (name, (bytes, durable)) in &mut open_streams {
                let tail = rig.found(name).tail.clone();
                *durable = tail.durable();
                bytes.truncate(bytes.len().max(tail.published() as usize));
            }
            disk = rig.kill();
            disk.lose_power(&chance, 2);
        }
    }
}

/// In the cache class a power cut may take what was not synced, and leaves a prefix whose every byte is right.
#[test]
fn a_power_cut_in_the_cache_class_leaves_prefixes() {
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let chance = Entropy::from_seed(seed);
        let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
        let bytes = pattern(seed, 600_000);
        let kept = rig.write(0, "kept", &bytes[..1000]);
        rig.settle();
        assert_eq!(kept.durable(), 1000);
        let tail = rig.put("growing").tail.clone();
        let mut appender = rig.attach(0, &tail).unwrap();
        for piece in bytes.chunks(50_000) {
            appender = rig.append(0, appender, piece);
            (0..chance.below(60)).for_each(|_| rig.turn());
        }
        let durable = tail.durable() as usize;
        if chance.one_in(2) {
            rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
        } else {
            drop(appender);
        }
        let disk = rig.kill();
        disk.lose_power(&chance, 3);
        let rig = Rig::on(disk, dir.path(), &options(1, Durability::Cache));
        assert!(rig.read(&rig.found("kept").tail).unwrap() == bytes[..1000]);
        if let Some(entry) = rig.find("growing").unwrap() {
            let found = rig.read(&entry.tail).unwrap();
            assert!(bytes.starts_with(&found) && found.len() >= durable, "seed {seed}");
            assert!(entry.tail.state() == State::Interrupted || found.len() == bytes.len());
        } else {
            assert_eq!(durable, 0, "seed {seed}");
        }
    }
}

/// Catches names that stay with a log instead of their owner, and logs that are forgotten.
#[test]
fn any_number_of_shards_finds_every_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut written: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (round, shards) in [1, 3, 2, 5, 1].into_iter().enumerate() {
        let rig = Rig::new(dir.path(), &options(shards, Durability::Sync));
        for (name, bytes) in &written {
            assert!(rig.read(&rig.found(name).tail).unwrap() == *bytes, "{name} with {shards} shards");
        }
        for number in 0..6 {
            let name = format!("{round}/{number}");
            let bytes = pattern(number, 10_000 + round);
            rig.write(number as usize % shards, &name, &bytes);
            written.insert(name, bytes);
        }
        // Replaced by another owner than the one that put it, and deleted by another.
        let replaced = format!("{}/0", round.saturating_sub(1));
        rig.write(0, &replaced, b"replaced");
        written.insert(replaced, b"replaced".to_vec());
        let deleted = format!("{}/1", round.saturating_sub(1));
        if written.remove(&deleted).is_some() {
            rig.delete(&deleted).unwrap();
        }
        rig.kill();
    }
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    assert_eq!(rig.stores.iter().map(|store| store.names().count()).sum::<usize>(), written.len());
    // Deleting everything gives every file of every log back, adopted ones included.
    for name in written.keys() {
        rig.delete(name).unwrap();
    }
    rig.settle();
    rig.kill();
    Rig::new(dir.path(), &options(2, Durability::Sync)).settle();
    for log in 2..5 {
        let left = std::fs::read_dir(dir.path().join(format!("bulk-{log}"))).unwrap().count();
        assert_eq!(left, 0, "bulk-{log}");
    }
}

/// Catches bytes passed on without a look, and damage that spreads beyond its window's stream.
#[test]
fn a_flipped_byte_costs_only_the_window_that_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let bytes = pattern(1, 700_000);
    rig.write(0, "before", &bytes[..10_000]);
    let tail = rig.write(0, "hit", &bytes);
    rig.write(0, "behind", &bytes[..10_000]);
    let hit = tail.range(450_000, 1).unwrap();
    rig.close();
    let path = dir.path().join("bulk-0/00000000.mpb");
    flip(&path, hit.offset);

    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    for name in ["before", "behind"] {
        assert!(rig.read(&rig.found(name).tail).unwrap() == bytes[..10_000]);
    }
    let tail = rig.found("hit").tail.clone();
    let Err(StoreError::Damaged(Damage::Window { uid, from, to })) = rig.read(&tail) else {
        panic!("the damage went unnoticed")
    };
    assert!(uid == tail.uid() && (from..to).contains(&450_000) && to - from <= 256 * 1024);
    assert_eq!(rig.metrics[0].windows_damaged.value(), 1);
    let verify = |from, len| {
        let (store, tail) = (rig.stores[0].clone(), tail.clone());
        rig.run(0, async move { store.verify(&tail, from, len).await })
    };
    assert_eq!(verify(0, from), Ok(()));
    assert_eq!(verify(to, 700_000 - to), Ok(()));
    assert!(verify(449_999, 2).is_err(), "it stays damaged");
}

/// Catches calling a lost record the torn tail (which would lose all behind it and tell nobody), and damage that
/// spreads to other names.
#[test]
fn a_damaged_record_is_told_for_its_name_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    for name in ["first", "victim of a flipped bit", "last"] {
        rig.write(0, name, name.as_bytes());
    }
    rig.put("deleted meanwhile");
    rig.delete("deleted meanwhile").unwrap();
    rig.close();
    let journal = dir.path().join("journal-0/00000000.mpj");
    let [at] = find_bytes(&journal, b"about victim")[..] else { panic!("one record") };
    flip(&journal, at);

    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    for name in ["first", "last"] {
        assert_eq!(rig.read(&rig.found(name).tail).unwrap(), name.as_bytes());
    }
    let victim = key("victim of a flipped bit");
    let told = StoreError::Damaged(Damage::Name { key_hash: victim.hash() });
    assert_eq!(rig.find("victim of a flipped bit").unwrap_err(), told);
    assert!(rig.find("deleted meanwhile").unwrap().is_none());
    assert!(dir.path().join("bulk-0/00000000.mpb").exists());
    // A new content puts the name right, now and after the next start.
    rig.write(0, "victim of a flipped bit", b"healed");
    rig.close();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    assert_eq!(rig.read(&rig.found("victim of a flipped bit").tail).unwrap(), b"healed");
}

/// Catches a flipped bit anywhere in the journal that costs more than one name, or is passed on.
#[test]
fn one_flipped_bit_in_the_journal_costs_one_name_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let names: Vec<String> = (0..12).map(|number| format!("name {number}")).collect();
    for name in &names {
        rig.write(0, name, name.as_bytes());
    }
    rig.close();
    let journal = dir.path().join("journal-0/00000000.mpj");
    let whole = std::fs::read(&journal).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() as u64;
    let chance = Entropy::from_seed(5);
    for _ in 0..60 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let at = chance.below(end);
        flip(&copy.path().join("journal-0/00000000.mpj"), at);
        let rig = Rig::new(copy.path(), &options(1, Durability::Sync));
        let mut lost = 0;
        for name in &names {
            match rig.find(name) {
                Ok(Some(entry)) => match rig.read(&entry.tail) {
                    Ok(bytes) => assert_eq!(bytes, name.as_bytes(), "flip at {at}"),
                    Err(StoreError::Damaged(_)) => lost += 1,
                    Err(error) => panic!("{error}"),
                },
                Ok(None) | Err(StoreError::Damaged(_)) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lost <= 1, "{lost} names lost to a flip at {at}");
    }
}

/// Catches an end whose time is the restart's, one that moves with every restart, and one that outlives a producer
/// who went on.
#[test]
fn when_a_stream_ended_survives_every_restart() {
    for (shards, by_checkpoint) in [(1, false), (2, false), (1, true), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path(), &options(shards, Durability::Sync));
        let times = |rig: &Rig, names: &[&str]| -> Vec<u64> {
            names.iter().map(|name| rig.found(name).tail.ended_ms()).collect()
        };
        let end = |rig: Rig| {
            if by_checkpoint {
                let store = rig.stores[0].clone();
                assert!(rig.run(0, async move { store.checkpoint().await }));
            }
            rig.kill()
        };
        let before = rig.now_ms();
        rig.write(0, "complete", b"whole");
        let tail = rig.put("interrupted").tail.clone();
        let appender = rig.attach(0, &tail).unwrap();
        rig.run(0, async move { appender.seal(End::Interrupted).await }).unwrap();
        for name in ["resumed", "open", "never written"] {
            let tail = rig.put(name).tail.clone();
            if name != "never written" {
                let appender = rig.attach(0, &tail).unwrap();
                let appender = rig.append(0, appender, b"some");
                rig.run(0, async move { appender.seal(End::Interrupted).await }).unwrap();
            }
        }
        let resumed = rig.reopen("resumed").unwrap();
        assert_eq!(resumed.tail.ended_ms(), 0, "it is open");
        let resumed_at = rig.found("open").tail.ended_ms();
        let open = rig.reopen("open").unwrap();
        assert_eq!((open.tail.state(), open.tail.ended_ms()), (State::Open, 0));
        rig.settle();
        let ended = ["complete", "interrupted"];
        let known = times(&rig, &ended);
        assert!(known.iter().all(|&at| (before..rig.now_ms()).contains(&at)), "{known:?} from {before}");
        end(rig);

        let rig = Rig::new(dir.path(), &options(3 - shards, Durability::Sync));
        let restarted = rig.now_ms();
        assert_eq!(times(&rig, &ended), known, "not when it was restarted");
        let crashed = ["resumed", "open", "never written"];
        let found = times(&rig, &crashed);
        assert!(
            restarted > resumed_at && found.iter().all(|&at| at == restarted),
            "{found:?} at {restarted}"
        );
        rig.settle();
        // A restart that follows knows it, and the one after that, whatever epochs they begin.
        let mut rig = rig;
        for _ in 0..2 {
            end(rig);
            rig = Rig::new(dir.path(), &options(shards, Durability::Sync));
            assert!(rig.now_ms() > restarted);
            assert_eq!((times(&rig, &ended), times(&rig, &crashed)), (known.clone(), found.clone()));
            rig.settle();
        }
        // Whoever goes on makes it a stream of today.
        let tail = rig.reopen("open").unwrap().tail.clone();
        let appender = rig.attach(0, &tail).unwrap();
        let again = rig.now_ms();
        rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
        assert!(tail.ended_ms() >= again);
        let known = tail.ended_ms();
        end(rig);
        let rig = Rig::new(dir.path(), &options(shards, Durability::Sync));
        assert_eq!(times(&rig, &["open"]), [known]);
        end(rig);
    }
}

#[test]
fn a_directory_is_opened_by_one_process_and_by_no_older_release() {
    let dir = tempfile::tempdir().unwrap();
    let disk = TestDisk::new();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let Err(OpenError::Locked(path)) = open(&disk, dir.path(), &options(1, Durability::Sync)) else {
        panic!("two processes in one directory")
    };
    assert_eq!(path, dir.path());
    rig.close();
    let format = dir.path().join("FORMAT");
    let text = std::fs::read_to_string(&format).unwrap();
    std::fs::remove_file(dir.path().join("FORMAT.2")).unwrap();
    std::fs::write(&format, text.replace("\"format\": 5", "\"format\": 6")).unwrap();
    let Err(error) = open(&disk, dir.path(), &options(1, Durability::Sync)) else { panic!("a newer format") };
    assert!(matches!(error, OpenError::Newer { found: 6, newest: 5, .. }));
    let message = error.to_string();
    assert!(message.contains("FORMAT") && message.contains("newer release"), "{message}");
    std::fs::write(&format, "{").unwrap();
    let Err(error) = open(&disk, dir.path(), &options(1, Durability::Sync)) else { panic!("no format") };
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
    for (shards, segment_size) in [(0, 1 << 20), (2000, 1 << 20), (1, 4096), (1, (1 << 20) + 1)] {
        let options = millpond::storage::Options { segment_size, ..options(shards, Durability::Sync) };
        assert!(matches!(open(&disk, dir.path(), &options), Err(OpenError::Option { .. })));
    }
}

/// Catches a directory that is lost with a small file of it, and a start that makes a new secret for old segments.
#[test]
fn a_lost_or_damaged_copy_of_the_format_description_costs_nothing_and_two_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    rig.write(0, "kept", b"kept");
    rig.close();
    let paths = ["FORMAT", "FORMAT.2"].map(|name| dir.path().join(name));
    for hit in &paths {
        for damage in 0..3 {
            let whole = std::fs::read(hit).unwrap();
            match damage {
                0 => std::fs::remove_file(hit).unwrap(),
                1 => std::fs::write(hit, &whole[..whole.len() / 2]).unwrap(),
                _ => flip(hit, whole.len() as u64 - 20),
            }
            let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
            assert_eq!(rig.read(&rig.found("kept").tail).unwrap(), b"kept");
            rig.close();
            assert_eq!(
                std::fs::read(&paths[0]).unwrap(),
                std::fs::read(&paths[1]).unwrap(),
                "both are whole"
            );
        }
    }
    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let Err(error) = open(&TestDisk::new(), dir.path(), &options(2, Durability::Sync)) else {
        panic!("opened")
    };
    assert!(
        matches!(error, OpenError::Unreadable { .. }) && error.to_string().contains("missing"),
        "{error}"
    );
    assert!(!paths[0].exists(), "nothing is made in its place");
}

/// Catches a start whose records the next one does not believe, because an older one wrote later numbers.
#[test]
fn a_format_description_from_a_backup_does_not_turn_back_time() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["FORMAT", "FORMAT.2"].map(|name| dir.path().join(name));
    Rig::new(dir.path(), &options(1, Durability::Sync)).close();
    let old = std::fs::read(&paths[0]).unwrap();
    for name in ["a", "b", "c"] {
        let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
        rig.write(0, name, name.as_bytes());
        rig.close();
    }
    paths.iter().for_each(|path| std::fs::write(path, &old).unwrap());
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let uid = rig.found("c").tail.uid();
    assert!(rig.write(0, "d", b"d").uid() > uid, "versions only rise");
    rig.close();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    for name in ["a", "b", "c", "d"] {
        assert_eq!(rig.read(&rig.found(name).tail).unwrap(), name.as_bytes());
    }
}

/// Catches a start that keeps files nobody needs: what was made ahead and never used goes with the next start.
#[test]
fn restarting_for_ever_takes_no_space() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12u8 {
        let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
        rig.write(0, &format!("{round}"), &[round; 100]);
        rig.settle();
        rig.kill();
    }
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    for round in 0..12u8 {
        assert_eq!(rig.read(&rig.found(&format!("{round}")).tail).unwrap(), [round; 100]);
    }
    for kind in ["journal-0", "bulk-0"] {
        let count = std::fs::read_dir(dir.path().join(kind)).unwrap().count();
        assert!(count <= 2, "{count} files in {kind}");
    }
}

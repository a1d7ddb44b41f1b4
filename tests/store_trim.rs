//! The beginning of a live stream goes: once that is durable and not before, for good, and nothing else goes with it.

mod store;

use millpond::runtime::entropy::Entropy;
use millpond::storage::inspect::Inspection;
use millpond::storage::{Appender, Durability, End, State, StoreError, Tail};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Rig, options, pattern, read_unverified};
use tempfile::TempDir;

/// Pieces of a stream, each of them written in a turn of its own.
const PIECE: usize = 10_000;

/// A stream that is open and has `len` bytes, all of them durable.
fn open(rig: &Rig, shard: usize, name: &str, len: usize) -> (Appender, Vec<u8>) {
    let tail = rig.put(name).tail.clone();
    let appender = rig.attach(shard, &tail).unwrap();
    go_on(rig, shard, appender, len, 1)
}

fn go_on(rig: &Rig, shard: usize, mut appender: Appender, len: usize, seed: u64) -> (Appender, Vec<u8>) {
    let bytes = pattern(seed, len);
    for piece in bytes.chunks(PIECE) {
        appender = rig.append(shard, appender, piece);
    }
    let (store, tail, to) = (rig.stores[shard].clone(), appender.tail(), appender.len());
    rig.run(shard, async move { store.durable(&tail, to).await }).unwrap();
    (appender, bytes)
}

/// Where the stream may begin, at about a part of its length.
fn place(tail: &Tail, share: u64) -> u64 {
    let wanted = tail.published() * share / 100;
    let runs: Vec<_> = tail.old_runs().collect();
    runs.iter().map(|run| run.to).rfind(|to| *to <= wanted).expect("a run ends there")
}

fn is_from(rig: &Rig, tail: &Arc<Tail>, first: u64, bytes: &[u8]) {
    assert_eq!((tail.first(), tail.published()), (first, bytes.len() as u64));
    assert_eq!(tail.stored(), bytes.len() as u64 - first);
    assert!(tail.range(first - 1, 1).is_none(), "nothing in front of it is found");
    assert!(rig.read(tail).unwrap() == bytes[first as usize..], "and all behind it is what it was");
}

fn is_whole(dir: &Path) {
    let disk = millpond::runtime::file::os::OsDisk;
    let mut inspection = Inspection::open(&disk, dir).unwrap();
    inspection.check_windows(|_| {});
    assert!(inspection.damage().is_empty(), "{:?}", inspection.damage());
}

fn checkpoint(rig: &Rig) {
    let store = rig.stores[0].clone();
    assert!(rig.run(0, async move { store.checkpoint().await }));
}

/// Catches a mark that a start forgets, one that a checkpoint forgets, and bytes that come back or are missed.
#[test]
fn what_is_gone_stays_gone_and_the_rest_stays() {
    for durability in [Durability::Sync, Durability::Cache] {
        for with_checkpoint in [false, true] {
            let dir = TempDir::new().unwrap();
            let rig = Rig::new(dir.path(), &options(2, durability));
            let (appender, mut bytes) = open(&rig, 1, "a", 600_000);
            rig.write(0, "beside", &pattern(7, 50_000));
            let tail = appender.tail();
            let (one, two) = (place(&tail, 30), place(&tail, 70));
            assert!(0 < one && one < two);
            assert_eq!(rig.trim("a", one), Ok(Some(one)));
            is_from(&rig, &tail, one, &bytes);
            if with_checkpoint {
                checkpoint(&rig);
            }
            assert_eq!(rig.trim("a", two), Ok(Some(two - one)));
            // The producer never notices.
            let (appender, more) = go_on(&rig, 1, appender, 100_000, 2);
            bytes.extend(more);
            is_from(&rig, &tail, two, &bytes);
            let total = rig.stores[0].tally().bytes(1, 0);
            assert_eq!(total, tail.stored() + 50_000);
            drop(appender);
            if with_checkpoint {
                checkpoint(&rig);
            }
            let mut disk = rig.kill();
            // And with another number of shards, which writes a checkpoint of its own.
            for shards in [2, 3, 1] {
                is_whole(dir.path());
                let rig = Rig::on(disk, dir.path(), &options(shards, durability));
                let tail = rig.found("a").tail.clone();
                is_from(&rig, &tail, two, &bytes);
                assert_eq!(tail.state(), State::Interrupted);
                assert_eq!(rig.stores[0].tally().bytes(1, 0), total);
                disk = rig.kill();
            }
            // It goes on where it was, and ends; from then on it comes out of the checkpoint as it is.
            let rig = Rig::on(disk, dir.path(), &options(2, durability));
            let entry = rig.reopen("a").unwrap();
            assert!(entry.tail.admits(entry.tail.epoch(), bytes.len() as u64));
            let appender = rig.attach(0, &entry.tail).unwrap();
            let (appender, more) = go_on(&rig, 0, appender, 30_000, 3);
            bytes.extend(more);
            rig.run(0, appender.seal(End::Complete)).unwrap();
            checkpoint(&rig);
            let rig = Rig::on(rig.kill(), dir.path(), &options(2, durability));
            let tail = rig.found("a").tail.clone();
            is_from(&rig, &tail, two, &bytes);
            assert_eq!(tail.state(), State::Complete);
            assert_eq!(rig.stores[0].tally().bytes(1, 0), tail.stored() + 50_000);
            rig.close();
            is_whole(dir.path());
        }
    }
}

/// Most streams have one epoch and come out of a checkpoint straight away: that way knows where they begin as well.
#[test]
fn a_stream_that_ended_in_its_first_epoch_comes_out_of_a_checkpoint_without_its_beginning() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let (appender, bytes) = open(&rig, 0, "a", 300_000);
    let to = place(&appender.tail(), 50);
    rig.trim("a", to).unwrap();
    rig.run(0, appender.seal(End::Complete)).unwrap();
    rig.settle();
    checkpoint(&rig);
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    is_from(&rig, &rig.found("a").tail.clone(), to, &bytes);
    assert_eq!(rig.stores[0].tally().bytes(1, 0), bytes.len() as u64 - to);
    // What was in front of it is nobody's.
    let alive = rig.metrics[0].live_bytes.value() as u64;
    assert!(alive < bytes.len() as u64 - to + 8192, "{alive} bytes are alive");
    rig.delete("a").unwrap();
    rig.settle();
    assert_eq!((rig.stores[0].tally().bytes(1, 0), rig.metrics[0].live_bytes.value()), (0, 0));
}

/// Catches bytes that die, or a mark that shows, before the record is durable.
#[test]
fn until_the_record_is_durable_everything_is_there() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = TempDir::new().unwrap();
        let rig = Rig::new(dir.path(), &options(1, durability));
        let (appender, bytes) = open(&rig, 0, "a", 3 << 20);
        let tail = appender.tail();
        let to = place(&tail, 90);
        rig.settle();
        rig.disk.take_events();
        rig.disk.hold_syncs(true);
        let (owner, trimming) = rig.begin_trim("a", to);
        let trimmed = rig.start(owner, trimming);
        rig.settle();
        assert!(trimmed.take().is_none());
        assert_eq!((tail.first(), rig.metrics[0].dead_bytes.value()), (0, 0));
        assert!(read_unverified(&tail) == bytes);
        let removed =
            |rig: &Rig| rig.disk.take_events().iter().any(|event| event.starts_with("remove bulk-0"));
        assert!(!removed(&rig), "no file goes");
        // The power goes, and the record with it.
        drop(appender);
        let disk = rig.kill();
        disk.hold_syncs(false);
        disk.lose_power(&Entropy::from_seed(1), u64::MAX);
        let rig = Rig::on(disk, dir.path(), &options(1, durability));
        let tail = rig.found("a").tail.clone();
        assert_eq!((tail.first(), tail.published()), (0, bytes.len() as u64));
        assert!(rig.read(&tail).unwrap() == bytes);
        // Once it is durable it survives any power cut, and the files go.
        let entry = rig.reopen("a").unwrap();
        let appender = rig.attach(0, &entry.tail).unwrap();
        let appender = rig.append(0, appender, b"more");
        rig.settle();
        rig.disk.take_events();
        let to = place(&entry.tail, 90);
        assert_eq!(rig.trim("a", to), Ok(Some(to)));
        rig.settle();
        assert!(removed(&rig), "room comes back");
        drop(appender);
        let disk = rig.kill();
        disk.lose_power(&Entropy::from_seed(2), u64::MAX);
        let rig = Rig::on(disk, dir.path(), &options(1, durability));
        is_from(&rig, &rig.found("a").tail.clone(), to, &[&bytes[..], b"more"].concat());
        rig.kill();
        is_whole(dir.path());
    }
}

/// A kill between the record's sync and the moment when memory knows: the next start does what was left to do.
#[test]
fn a_kill_behind_the_record_leaves_garbage_that_the_next_start_removes() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let (appender, bytes) = open(&rig, 0, "a", 3 << 20);
    let tail = appender.tail();
    let to = place(&tail, 90);
    rig.disk.hold_syncs(true);
    let (owner, trimming) = rig.begin_trim("a", to);
    let _trimmed = rig.start(owner, trimming);
    rig.turn();
    drop(appender);
    // The record is in the page cache, and the process is not there any more.
    let disk = rig.kill();
    disk.hold_syncs(false);
    let files = |dir: &Path| std::fs::read_dir(dir.join("bulk-0")).unwrap().count();
    let before = files(dir.path());
    let rig = Rig::on(disk, dir.path(), &options(1, Durability::Sync));
    is_from(&rig, &rig.found("a").tail.clone(), to, &bytes);
    // One that was made ahead goes with any start, and what is gone took two more.
    assert!(files(dir.path()) + 3 <= before, "{} of {before} files", files(dir.path()));
}

/// Between the sync of the record and the moment when memory knows, a checkpoint is written down: it must not cover
/// what it does not hold.
#[test]
fn a_checkpoint_in_between_leaves_the_record_in_the_journal() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let (appender, bytes) = open(&rig, 0, "a", 300_000);
    let tail = appender.tail();
    let to = place(&tail, 50);
    rig.settle();
    rig.disk.hold_syncs(true);
    let (owner, trimming) = rig.begin_trim("a", to);
    let trimmed = rig.start(owner, trimming);
    (0..3).for_each(|_| rig.turn());
    // Called for, and looked at in the very turn in which the sync is over: behind the sync, before who waits for it.
    let store = rig.stores[0].clone();
    let written = rig.start(0, async move { store.checkpoint().await });
    rig.poll(0);
    rig.disk.hold_syncs(false);
    rig.settle();
    assert_eq!((trimmed.take(), written.take()), (Some(Ok(Some(to))), Some(true)));
    drop(appender);
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    is_from(&rig, &rig.found("a").tail.clone(), to, &bytes);
    rig.kill();
    is_whole(dir.path());
}

/// Catches a record that is believed although its sync failed.
#[test]
fn a_failed_sync_takes_it_back() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let (appender, bytes) = open(&rig, 0, "a", 300_000);
    let tail = appender.tail();
    let to = place(&tail, 50);
    rig.settle();
    rig.disk.fail_syncs("journal-0", 1);
    assert_eq!(rig.trim("a", to), Err(StoreError::SyncFailed));
    assert_eq!(tail.first(), 0);
    assert!(rig.read(&tail).unwrap() == bytes);
    drop(appender);
    let rig = Rig::on(rig.kill(), dir.path(), &options(1, Durability::Sync));
    let tail = rig.found("a").tail.clone();
    assert_eq!(tail.first(), 0);
    assert!(rig.read(&tail).unwrap() == bytes);
    // What is tried again once syncs work again holds.
    let entry = rig.reopen("a").unwrap();
    let appender = rig.attach(0, &entry.tail).unwrap();
    let appender = rig.append(0, appender, b"more");
    rig.settle();
    assert_eq!(rig.trim("a", to), Ok(Some(to)));
    drop(appender);
}

/// Catches places that are no run's, the run that is being filled, what is not on disk, and streams that have ended.
#[test]
fn a_stream_begins_only_where_a_run_does() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let (appender, bytes) = open(&rig, 0, "a", 300_000);
    let tail = appender.tail();
    let runs: Vec<_> = tail.old_runs().collect();
    assert!(runs.len() > 2 && runs.is_sorted_by_key(|run| run.to));
    assert!(runs.iter().all(|run| run.to < bytes.len() as u64), "the last one stays");
    assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), runs.last().unwrap().to);
    let to = runs[1].to;
    for other in [0, to - 1, to + 1, bytes.len() as u64, u64::MAX] {
        assert_eq!(rig.trim("a", other), Ok(None), "{other}");
    }
    rig.disk.hold_syncs(true);
    let appender = rig.append(0, appender, &pattern(2, 500_000));
    assert_eq!(tail.old_runs().last().unwrap().to, runs.last().unwrap().to, "what is not on disk stays");
    let entry = rig.found("a");
    for to in (0..tail.published()).step_by(64).filter(|to| *to > bytes.len() as u64) {
        let trimming = rig.on_shard(0, || rig.stores[0].trim(&entry, to));
        assert!(matches!(trimming, Ok(None)), "{to} is not on disk");
    }
    rig.disk.hold_syncs(false);
    assert_eq!(rig.trim("a", to), Ok(Some(to)));
    assert_eq!(rig.trim("a", to), Ok(None), "it does so already");
    assert_eq!(tail.old_runs().next().unwrap().to, runs[2].to);
    rig.run(0, appender.seal(End::Complete)).unwrap();
    assert_eq!(tail.old_runs().count(), 0, "what has ended goes whole");
}

/// Catches a run that compaction brings back, and a copy of it that nobody counts as dead.
#[test]
fn a_run_that_goes_while_it_is_copied_stays_gone() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    // Runs of a live stream between others, most of which die.
    let tail = rig.put("live").tail.clone();
    let mut appender = rig.attach(0, &tail).unwrap();
    let mut bytes = Vec::new();
    for number in 0..16u64 {
        rig.write(0, &format!("filler-{number}"), &pattern(number, 150_000));
        let (kept, more) = go_on(&rig, 0, appender, 30_000, 100 + number);
        appender = kept;
        bytes.extend(more);
    }
    for number in 0..16 {
        rig.delete(&format!("filler-{number}")).unwrap();
    }
    // Until something was copied and its record is not durable.
    let moved = || rig.metrics[0].compacted_bytes.value();
    let before = moved();
    (0..2000).find(|_| {
        rig.turn();
        if moved() > before {
            rig.disk.hold_syncs(true);
        }
        moved() > before
    });
    assert!(moved() > before, "something is copied");
    let to = place(&tail, 95);
    let (owner, trimming) = rig.begin_trim("live", to);
    let trimmed = rig.start(owner, trimming);
    (0..20).for_each(|_| rig.turn());
    rig.disk.hold_syncs(false);
    rig.settle();
    assert_eq!(trimmed.take(), Some(Ok(Some(to))));
    is_from(&rig, &tail, to, &bytes);
    let alive = rig.metrics[0].live_bytes.value() as u64;
    // What is alive is the rest of this stream, with what its last run has reserved.
    assert!(alive <= tail.stored() + (1 << 20), "{alive} bytes for {}", tail.stored());
    drop(appender);
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    is_from(&rig, &rig.found("live").tail.clone(), to, &bytes);
    rig.kill();
    is_whole(dir.path());
}

/// Catches a reader in the middle of a run that goes under it.
#[test]
fn a_reader_keeps_what_it_has_begun_with() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let (appender, bytes) = open(&rig, 0, "a", 3 << 20);
    let tail = appender.tail();
    let held = tail.range(100_000, u64::MAX).unwrap();
    let to = place(&tail, 90);
    assert_eq!(rig.trim("a", to), Ok(Some(to)));
    // New files, in which nothing of it may be written over.
    let (appender, _) = go_on(&rig, 0, appender, 3 << 20, 9);
    rig.settle();
    let mut piece = vec![0; held.len as usize];
    held.file.read_exact_at(&mut piece, held.offset).unwrap();
    assert!(piece == bytes[100_000..][..piece.len()]);
    drop(appender);
}

/// Catches runs without an age, and with one that a restart makes up.
#[test]
fn a_run_is_as_old_as_its_last_byte_and_after_a_start_as_the_end_that_it_found() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.put("a").tail.clone();
    let mut appender = rig.attach(0, &tail).unwrap();
    let mut written = Vec::new();
    for round in 0..6 {
        let (kept, _) = go_on(&rig, 0, appender, 30_000, round);
        appender = kept;
        written.push(rig.now_ms());
        rig.wait(Duration::from_secs(3600));
    }
    let ages: Vec<u64> = tail.old_runs().map(|run| run.written_ms).collect();
    assert!(ages.len() >= 2 && ages.is_sorted());
    // Rounded up by less than a second, and never before the last byte came.
    let ends: Vec<u64> = tail.old_runs().map(|run| run.to).collect();
    for (to, written_ms) in ends.iter().zip(&ages) {
        let came = written[(*to as usize - 1) / 30_000];
        assert!(*written_ms + 200 >= came && *written_ms < came + 1000, "{written_ms} of {came}");
    }
    rig.run(0, appender.seal(End::Interrupted)).unwrap();
    let ended = rig.now_ms();
    rig.wait(Duration::from_secs(7200));
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    let found = rig.found("a").tail.clone();
    assert!(found.old_runs().count() > 0);
    assert!(found.old_runs().all(|run| run.written_ms == found.ended_ms()), "nobody knows better");
    let entry = rig.reopen("a").unwrap();
    let appender = rig.attach(0, &entry.tail).unwrap();
    let appender = rig.append(0, appender, b"more");
    rig.settle();
    for run in entry.tail.old_runs() {
        assert!(run.written_ms + 200 >= ended && run.written_ms < ended + 2000, "as old as that end");
    }
    assert!(entry.tail.last_written_ms().unwrap() > ended + 7_000_000);
    // A crash leaves no end: nobody knows better than the start that finds it.
    drop(appender);
    rig.wait(Duration::from_secs(7200));
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    let started = rig.now_ms();
    let entry = rig.reopen("a").unwrap();
    let appender = rig.attach(0, &entry.tail).unwrap();
    let appender = rig.append(0, appender, b"more");
    rig.settle();
    assert!(entry.tail.old_runs().count() > 0);
    assert!(entry.tail.old_runs().all(|run| run.written_ms >= started), "never too old");
    drop(appender);
}

/// Catches a lost record that costs another name something, and one that is not missed at all.
#[test]
fn a_damaged_record_is_told_unless_a_later_one_stands_in_for_it() {
    for stands_in in [false, true] {
        let dir = TempDir::new().unwrap();
        let options = options(1, Durability::Sync);
        let rig = Rig::new(dir.path(), &options);
        let (appender, bytes) = open(&rig, 0, "a", 600_000);
        rig.write(0, "beside", b"whole");
        let tail = appender.tail();
        let (one, two) = (place(&tail, 30), place(&tail, 70));
        rig.trim("a", one).unwrap();
        if stands_in {
            rig.trim("a", two).unwrap();
        }
        // Something durable behind it, so that it is no torn tail.
        rig.write(0, "behind", b"whole");
        rig.settle();
        drop(appender);
        let disk = rig.kill();
        damage_trim(dir.path());
        let mut inspection = Inspection::open(&millpond::runtime::file::os::OsDisk, dir.path()).unwrap();
        inspection.check_windows(|_| {});
        let told: Vec<String> = inspection.damage().iter().map(|damage| damage.to_string()).collect();
        drop(inspection);
        assert!(told.len() == 1 && told[0].contains("trim record"), "{told:?}");
        assert_eq!(told[0].contains("a later record stands in for it"), stands_in, "{told:?}");
        let rig = Rig::on(disk, dir.path(), &options);
        assert_eq!(rig.read(&rig.found("beside").tail.clone()).unwrap(), b"whole");
        match stands_in {
            true => is_from(&rig, &rig.found("a").tail.clone(), two, &bytes),
            false => assert!(matches!(rig.find("a"), Err(StoreError::Damaged(_)))),
        }
    }
}

/// Flips a byte in the payload of the first trim.
fn damage_trim(dir: &Path) {
    let path = dir.join("journal-0/00000000.mpj");
    let mut bytes = std::fs::read(&path).unwrap();
    let mut at = 4096;
    while bytes[at + 12] != 8 {
        assert!(bytes[at + 12] != 0, "there is a trim");
        let payload_len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        at += 48 + payload_len.next_multiple_of(8);
    }
    bytes[at + 48 + 9] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

/// Catches a deletion and a trim that count the same bytes twice.
#[test]
fn a_stream_that_is_deleted_meanwhile_dies_once() {
    let dir = TempDir::new().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let (appender, bytes) = open(&rig, 0, "a", 300_000);
    let tail = appender.tail();
    let to = place(&tail, 50);
    rig.disk.hold_syncs(true);
    let (owner, trimming) = rig.begin_trim("a", to);
    let trimmed = rig.start(owner, trimming);
    rig.turn();
    let store = rig.stores[0].clone();
    let deleted = rig.start(0, async move { store.names().delete(&store::key("a")).map(drop) });
    rig.turn();
    rig.disk.hold_syncs(false);
    rig.settle();
    assert!(matches!((trimmed.take(), deleted.take()), (Some(Ok(Some(_))), Some(Ok(())))));
    assert!(read_unverified(&tail) == bytes[tail.first() as usize..], "who has it reads on");
    drop(appender);
    rig.settle();
    assert_eq!(rig.stores[0].tally().bytes(1, 0), 0);
    assert_eq!(rig.metrics[0].live_bytes.value(), 0);
}

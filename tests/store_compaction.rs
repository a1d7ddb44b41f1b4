//! Compaction: dead space comes back while streams that are alive stay what they are, under their readers' eyes.

mod store;

use millpond::storage::{Durability, State};
use std::fs;
use std::path::Path;
use store::{Rig, options, pattern, read_unverified};
use tempfile::TempDir;

fn bulk_bytes(dir: &Path) -> u64 {
    let logs = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let bulk = logs.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("bulk-"));
    bulk.flat_map(|dir| fs::read_dir(dir).unwrap()).map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn name(number: u64) -> String {
    format!("stream-{number}")
}

/// Writes streams, then deletes all but every fourth: dead space is spread over all segments.
fn churn(rig: &Rig, count: u64) -> Vec<(String, Vec<u8>)> {
    let mut kept = Vec::new();
    for number in 0..count {
        let bytes = pattern(number, 20_000 + (number * 7919 % 50_000) as usize);
        rig.write(number as usize % rig.stores.len(), &name(number), &bytes);
        kept.push((name(number), bytes));
    }
    for number in (0..count).filter(|number| number % 4 != 0) {
        rig.delete(&name(number)).unwrap();
    }
    kept.into_iter().step_by(4).collect()
}

fn check(rig: &Rig, kept: &[(String, Vec<u8>)]) {
    for (name, bytes) in kept {
        let tail = rig.found(name).tail.clone();
        assert_eq!(tail.state(), State::Complete);
        assert!(rig.read(&tail).unwrap() == *bytes, "{name}");
    }
}

/// Runs until the segments take no more than `limit`.
fn shrink(rig: &Rig, dir: &Path, limit: u64) {
    for _ in 0..4000 {
        rig.turn();
        if bulk_bytes(dir) <= limit {
            return;
        }
    }
    panic!("{} bytes are still taken, {limit} would do", bulk_bytes(dir));
}

const SEGMENT: u64 = 1 << 20;

/// Catches a segment that keeps its dead, a run that is lost on its way, and a place that only memory knows.
#[test]
fn mostly_dead_segments_go_and_what_was_alive_is_found_again() {
    let dir = TempDir::new().unwrap();
    let options = options(2, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let kept = churn(&rig, 240);
    let alive: u64 = kept.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    // Held beside what is alive: for each shard the current segment and the next one.
    let limit = alive * 13 / 10 + 4 * SEGMENT;
    assert!(240 * 40_000 > limit, "there was more");
    // Readers that began before.
    let before: Vec<_> =
        kept.iter().map(|(name, _)| rig.found(name).tail.range(0, u64::MAX).unwrap()).collect();
    shrink(&rig, dir.path(), limit);
    check(&rig, &kept);
    for (range, (name, bytes)) in before.iter().zip(&kept) {
        let mut piece = vec![0; range.len as usize];
        range.file.read_exact_at(&mut piece, range.offset).unwrap();
        assert!(bytes.starts_with(&piece), "{name}: a reader keeps what it opened");
    }
    let moved: u64 = rig.metrics.iter().map(|metrics| metrics.compacted_bytes.value()).sum();
    assert!(moved > 0 && moved < 4 * alive, "{moved} bytes were copied for {alive}");
    let disk = rig.kill();
    let rig = Rig::on(disk, dir.path(), &options);
    check(&rig, &kept);
    // And from a checkpoint, by another number of shards.
    let store = rig.stores[0].clone();
    assert!(rig.run(0, async move { store.checkpoint().await }));
    rig.kill();
    let rig = Rig::new(dir.path(), &store::options(3, Durability::Sync));
    check(&rig, &kept);
}

/// Catches an old place that is given up before the record of the new one is durable, and one believed too early.
#[test]
fn a_crash_at_any_moment_of_it_loses_nothing() {
    for turns in (5..300).step_by(23) {
        let dir = TempDir::new().unwrap();
        let options = options(2, Durability::Sync);
        let rig = Rig::new(dir.path(), &options);
        let kept = churn(&rig, 80);
        rig.disk.hold_syncs(turns % 2 == 0);
        for _ in 0..turns {
            rig.turn();
        }
        let chance = millpond::runtime::entropy::Entropy::from_seed(turns);
        let disk = rig.kill();
        disk.hold_syncs(false);
        disk.lose_power(&chance, 2);
        let rig = Rig::on(disk, dir.path(), &options);
        check(&rig, &kept);
    }
}

/// Catches damage that is copied with a fresh checksum, and a copy that takes the place of what is damaged.
#[test]
fn damage_stays_where_it_is() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let kept = churn(&rig, 1);
    let place = rig.found(&kept[0].0).tail.range(0, 1).unwrap();
    place.file.write_at(b"?", place.offset).unwrap();
    for number in 1000..1060u64 {
        rig.write(0, &name(number), &pattern(number, 30_000));
    }
    for number in 1000..1060u64 {
        rig.delete(&name(number)).unwrap();
    }
    for _ in 0..300 {
        rig.turn();
    }
    assert_eq!(rig.metrics[0].windows_damaged.value(), 1);
    rig.close();
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.found(&kept[0].0).tail.clone();
    assert!(rig.read(&tail).is_err(), "damage is told, not passed on");
}

/// Catches a growing stream that pins every segment it ever touched, or loses the place where it goes on.
#[test]
fn a_stream_that_grows_leaves_its_old_segments_too() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.put("slow").tail.clone();
    let mut appender = rig.attach(0, &tail).unwrap();
    let mut expected = Vec::new();
    for round in 0..30u64 {
        let piece = pattern(round, 17_000);
        expected.extend_from_slice(&piece);
        appender = rig.append(0, appender, &piece);
        for number in 0..10 {
            rig.write(0, &name(number), &pattern(number, 90_000));
            rig.delete(&name(number)).unwrap();
        }
    }
    shrink(&rig, dir.path(), 5 * SEGMENT);
    appender = rig.append(0, appender, b"and on");
    expected.extend_from_slice(b"and on");
    assert!(read_unverified(&tail) == expected);
    drop(appender);
    let disk = rig.kill();
    let rig = Rig::on(disk, dir.path(), &options);
    assert!(rig.read(&rig.found("slow").tail).unwrap() == expected);
}

/// Between the sync of a move and the moment when memory knows, a checkpoint is written down: it must not cover what it
/// does not hold, or the next start looks for bytes where they were.
#[test]
fn a_checkpoint_in_between_leaves_a_move_in_the_journal() {
    let dir = TempDir::new().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let kept = churn(&rig, 120);
    let moved = || rig.metrics[0].compacted_bytes.value();
    // All copies of a round, and none of their records.
    let before = moved();
    let mut copied = before;
    for _ in 0..4000 {
        rig.turn();
        rig.disk.hold_syncs(moved() > before);
        if rig.disk.slow_sync.load(std::sync::atomic::Ordering::SeqCst) {
            copied = moved();
            (0..200).for_each(|_| rig.turn());
            if moved() == copied {
                break;
            }
        }
    }
    assert!(copied > before, "something is copied");
    let store = rig.stores[0].clone();
    let written = rig.start(0, async move { store.checkpoint().await });
    rig.poll(0);
    rig.disk.hold_syncs(false);
    (0..4).for_each(|_| rig.settle());
    assert_eq!(written.take(), Some(true));
    check(&rig, &kept);
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    check(&rig, &kept);
}

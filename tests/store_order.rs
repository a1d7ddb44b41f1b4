//! What is answered, and what is given up, follows what is durable.

mod store;

use millpond::storage::{Durability, End, LogId, State, StoreError};
use std::time::Duration;
use store::{Rig, key, options, pattern};

fn position(events: &[String], wanted: &str) -> usize {
    let at = events.iter().position(|event| event.starts_with(wanted));
    at.unwrap_or_else(|| panic!("no `{wanted}` in {events:#?}"))
}

/// Catches answering before the sync returned.
#[test]
fn a_put_is_answered_only_when_its_record_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    rig.settle();
    rig.disk.hold_syncs(true);
    let store = rig.stores[0].clone();
    let put = rig.start(0, async move {
        let (_, ticket) = store.names().put(key("held"), LogId(0), "".into()).unwrap();
        store.names().committed(ticket).await
    });
    // Decided at once: the next decision sees it, and would wait for the same ticket.
    rig.turn();
    let found = rig.stores[0].names().get(&key("held")).unwrap();
    assert!(found.entry.is_some(), "decided on what is pending");
    assert!(!rig.stores[0].names().is_committed(found.ticket));
    rig.settle();
    assert!(put.take().is_none(), "nothing is durable yet");
    rig.disk.hold_syncs(false);
    rig.settle();
    assert_eq!(put.take(), Some(Ok(())));
    assert!(rig.stores[0].names().is_committed(found.ticket));
}

/// Catches a cache class that waits for the disk, and one that never gets there.
#[test]
fn the_cache_class_answers_at_once_and_syncs_within_the_interval() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    rig.settle();
    rig.disk.take_events();
    let tail = rig.put("quick").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    let appender = rig.append(0, appender, &[1; 10]);
    rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
    assert_eq!(tail.state(), State::Complete);
    assert_eq!(tail.durable(), 0);
    let events = rig.disk.take_events();
    assert!(!events.iter().any(|event| event.starts_with("sync")), "no sync yet: {events:?}");
    (0..110).for_each(|_| rig.turn());
    assert_eq!(tail.durable(), 10);
    let events = rig.disk.take_events();
    assert!(position(&events, "synced bulk-0") < position(&events, "sync journal-0"), "data first");
}

/// Catches a pass that begins in the middle of a turn: it syncs bytes without their mark, and all of it again after.
#[test]
fn a_writer_that_waits_for_each_append_costs_one_pass_each() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let tail = rig.put("patient").tail.clone();
    let mut appender = rig.attach(0, &tail).unwrap();
    rig.settle();
    let passes = || rig.metrics[0].sync_latency.snapshot().count();
    let (before, store) = (passes(), rig.stores[0].clone());
    let writing = rig.start(0, async move {
        for _ in 0..20 {
            appender.append_all(b"line").await.unwrap();
            store.durable(&appender.tail(), appender.len()).await.unwrap();
        }
    });
    // A sync that takes a turn, as on a disk.
    let done = (0..1000).any(|turn| {
        rig.disk.hold_syncs(turn % 2 == 0);
        rig.turn();
        writing.take().is_some()
    });
    assert!(done);
    assert_eq!((tail.durable(), passes() - before), (80, 20));
}

/// Catches a sealing mark written before the data that it speaks of is on disk, and an end that is told, or a
/// seal that resolves, before the mark is.
#[test]
fn a_seal_is_data_then_record_then_answer() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let tail = rig.put("ordered").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    rig.settle();
    rig.disk.hold_syncs(true);
    let appender = rig.append(0, appender, &pattern(1, 5000));
    let seal = rig.start(0, async move { appender.seal(End::Complete).await });
    rig.settle();
    let records = rig.metrics[0].journal_records.value();
    assert_eq!((tail.durable(), tail.state()), (0, State::Open));
    rig.settle();
    assert_eq!(rig.metrics[0].journal_records.value(), records, "the sealing mark waits for the data");
    rig.disk.take_events();
    rig.disk.hold_syncs(false);
    rig.settle();
    assert_eq!(seal.take(), Some(Ok(5000)));
    assert_eq!((tail.durable(), tail.state()), (5000, State::Complete));
    let events = rig.disk.take_events();
    let data = position(&events, "synced bulk-0");
    let mark = data + position(&events[data..], "write journal-0");
    position(&events[mark..], "synced journal-0");
}

/// Catches bytes that are given up when the delete is decided or committed, not when it is durable; and bytes
/// that are never given up.
#[test]
fn bytes_die_only_when_the_record_that_supersedes_them_is_durable() {
    for durability in [Durability::Sync, Durability::Cache] {
        for replace in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let interval = Duration::from_millis(100);
            let rig = Rig::new(
                dir.path(),
                &millpond::storage::Options { sync_interval: interval, ..options(1, durability) },
            );
            let bytes = pattern(1, 960_000);
            let tail = rig.write(0, "doomed", &bytes);
            // Fills the first segment, so that only the stream keeps it.
            let filler = rig.write(0, "filler", &pattern(2, 200_000));
            rig.delete("filler").unwrap();
            rig.settle();
            assert_eq!(filler.state(), State::Gone);
            let first = dir.path().join("bulk-0/00000000.mpb");
            assert!(first.exists());
            rig.disk.hold_syncs(true);
            let store = rig.stores[0].clone();
            rig.start(0, async move {
                match replace {
                    true => drop(store.names().put(key("doomed"), LogId(0), "".into()).unwrap()),
                    false => drop(store.names().delete(&key("doomed")).unwrap()),
                }
            });
            rig.settle();
            assert!(first.exists(), "superseded, and not durably");
            let answered = durability == Durability::Cache;
            assert_eq!(tail.state() == State::Gone, answered, "readers are told what was answered");
            assert!(rig.read(&tail).unwrap() == bytes, "and who reads reads on");
            rig.disk.hold_syncs(false);
            rig.settle();
            assert_eq!(tail.state(), State::Gone);
            assert!(!first.exists(), "{durability:?}, replaced: {replace}");
            assert!(store::read_unverified(&tail) == bytes, "an open reader keeps an unlinked file");
        }
    }
}

/// Catches a stream that is deleted while its appender runs: the last of the two gives the space back, once.
#[test]
fn a_stream_deleted_under_its_appender_is_given_back_by_the_last_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let tail = rig.put("busy").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    let mut appender = rig.append(0, appender, &[1; 20_000]);
    rig.delete("busy").unwrap();
    rig.settle();
    assert_eq!(rig.metrics[0].dead_bytes.value(), 0, "the appender still has it");
    assert_eq!(appender.append(b"x"), Err(StoreError::Gone));
    drop(appender);
    rig.settle();
    let live = rig.metrics[0].live_bytes.value();
    assert_eq!(live, 0);
    assert!(rig.metrics[0].dead_bytes.value() >= 20_000);
    assert!(rig.find("busy").unwrap().is_none());
}

/// Catches a tombstone that is lost, and a version order that lets an older record win.
#[test]
fn the_latest_decision_about_a_name_stands_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..4 {
        let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
        for name in ["put", "deleted", "put again", "deleted again"] {
            assert_eq!(rig.find(name).unwrap().is_some(), round > 0 && name.starts_with("put"), "{name}");
        }
        rig.put("put");
        rig.put("deleted");
        rig.delete("deleted").unwrap();
        rig.put("put again");
        rig.delete("put again").unwrap();
        let again = rig.put("put again");
        assert!(again.tail.uid() > last, "a later put has a greater version");
        last = again.tail.uid();
        rig.put("deleted again");
        rig.put("deleted again");
        rig.delete("deleted again").unwrap();
        rig.kill();
    }
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    assert_eq!(rig.found("put again").tail.uid(), last);
    assert!(rig.stores.iter().map(|store| store.names().count()).sum::<usize>() == 2);
}

/// Catches a bound that is not kept: an appender waits while too much is unsynced, and goes on afterwards.
#[test]
fn unsynced_bytes_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = millpond::storage::Options { segment_size: 16 << 20, ..options(1, Durability::Cache) };
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.put("flood").tail.clone();
    let mut appender = rig.attach(0, &tail).unwrap();
    let piece = pattern(1, 1 << 20);
    let last = piece.clone();
    let flood = rig.start(0, async move {
        for _ in 0..80 {
            appender.append_all(&piece).await.unwrap();
            millpond::runtime::shard::yield_now().await;
        }
        appender
    });
    // Segments are still made: their headers are synced while data is held back by a sync that never ends.
    let mut highest = 0;
    for _ in 0..3000 {
        rig.turn();
        highest = highest.max(rig.stores[0].unsynced());
    }
    assert!(flood.take().is_some(), "it goes on once the disk has caught up");
    assert!(highest <= 66 << 20, "{highest} unsynced");
    assert!(rig.disk.writebacks.load(std::sync::atomic::Ordering::SeqCst) > 0, "writeback begins early");
    assert_eq!(tail.published(), 80 << 20);
    let end = tail.range((80 << 20) - 8, 8).unwrap();
    let mut read = [0; 8];
    end.file.read_exact_at(&mut read, end.offset).unwrap();
    assert_eq!(read, last[last.len() - 8..]);
}

/// The same bound with a disk that does not answer at all.
#[test]
fn an_appender_waits_for_a_disk_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let options = millpond::storage::Options { segment_size: 128 << 20, ..options(1, Durability::Sync) };
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.put("flood").tail.clone();
    let mut appender = rig.attach(0, &tail).unwrap();
    rig.settle();
    rig.disk.hold_syncs(true);
    let piece = pattern(1, 1 << 20);
    let flood = rig.start(0, async move {
        for _ in 0..80 {
            appender.append_all(&piece).await.unwrap();
        }
        appender
    });
    rig.settle();
    assert!(flood.take().is_none());
    let unsynced = rig.stores[0].unsynced();
    assert!((64 << 20..70 << 20).contains(&unsynced), "{unsynced} unsynced");
    assert_eq!(tail.durable(), 0);
    rig.disk.hold_syncs(false);
    rig.settle();
    assert!(flood.take().is_some());
    assert_eq!((tail.published(), tail.durable()), (80 << 20, 80 << 20));
}

/// Catches room for a name that a failed sync takes away again, and room that an answered deletion does not give.
#[test]
fn a_name_counts_from_its_decision_until_its_deletion_is_committed() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path(), &options(1, durability));
        rig.put("a");
        rig.settle();
        let store = rig.stores[0].clone();
        let count = || store.tally().names(key("").space, 0);
        let try_put = |max| {
            rig.on_shard(0, || {
                let put = store.names().put_within(key("b"), LogId(0), "".into(), max);
                put.unwrap().is_some()
            })
        };
        rig.disk.hold_syncs(true);
        rig.on_shard(0, || store.names().delete(&key("a")).unwrap().unwrap());
        assert_eq!((count(), try_put(1)), (1, false), "it was only decided");
        rig.settle();
        // What the cache class has in its page cache is answered.
        let left = if durability == Durability::Cache { 0 } else { 1 };
        assert_eq!(count(), left, "{durability:?}");
        rig.disk.hold_syncs(false);
        rig.settle();
        assert_eq!((count(), try_put(0), try_put(1)), (0, false, true));
        assert_eq!((count(), try_put(0)), (1, true), "what is there is replaced without room");
        assert_eq!(count(), 1);
    }
}

/// Catches a log that ends in a record which no sync mark follows: the next start takes it for torn, and with it the bytes
/// that it speaks of.
#[test]
fn a_store_closes_behind_what_is_being_sealed() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path(), &options(1, durability));
        let tail = rig.put("a").tail.clone();
        let appender = rig.attach(0, &tail).unwrap();
        let appender = rig.append(0, appender, &pattern(1, 90_000));
        rig.settle();
        // Both begin in one turn.
        let _ = rig.start(0, appender.seal(End::Complete));
        rig.close();
        assert_eq!(tail.state(), State::Complete, "{durability:?}");
        let journal = std::fs::read(dir.path().join("journal-0/00000000.mpj")).unwrap();
        let word = |at: usize| u64::from_le_bytes(journal[at..at + 8].try_into().unwrap());
        // Of a record's header: the length of its payload, its sequence, and how far the log was durable.
        let (mut at, mut last, mut durable) = (4096, 0, 0);
        while word(at + 16) > 0 {
            (last, durable) = (word(at + 16), word(at + 24));
            at += 48 + (word(at + 8) as u32 as usize).next_multiple_of(8);
        }
        assert!(last > 2);
        assert_eq!(durable, last - 1, "{durability:?}: the last record speaks for all before it");
    }
}

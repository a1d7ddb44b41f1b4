//! A disk that fails is told as it is: nothing acknowledged is lost, nothing failed is retried into silence.

mod store;

use millpond::storage::{Durability, End, Health, LogId, State, StoreError};
use store::{Rig, key, options, pattern, read_unverified};

/// Catches a failed sync that is retried, answered as success, or taken back only in memory.
#[test]
fn a_failed_journal_sync_takes_back_what_was_pending_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    rig.put("kept");
    rig.put("replaced");
    let before = rig.found("replaced").tail.uid();
    rig.put("deleted");
    rig.settle();
    rig.disk.fail_syncs("journal-0/00000000", 1);
    let store = rig.stores[0].clone();
    let results = rig.run(0, async move {
        let names = store.names();
        let (_, new) = names.put(key("new"), LogId(0), "".into()).unwrap();
        let (_, replaced) = names.put(key("replaced"), LogId(0), "".into()).unwrap();
        let deleted = names.delete(&key("deleted")).unwrap().unwrap();
        [names.committed(new).await, names.committed(replaced).await, names.committed(deleted).await]
    });
    assert_eq!(results, [const { Err(StoreError::SyncFailed) }; 3]);
    assert_eq!(rig.stores[0].health(), Health::Degraded);
    let check = |rig: &Rig| {
        assert!(rig.find("kept").unwrap().is_some());
        assert!(rig.find("new").unwrap().is_none(), "its client was told that it failed");
        assert_eq!(rig.found("replaced").tail.uid(), before);
        assert!(rig.find("deleted").unwrap().is_some());
    };
    let count = |rig: &Rig| rig.stores[0].tally().names(key("").space, 0);
    check(&rig);
    assert_eq!(count(&rig), 3, "what was taken back is not counted");
    // A fresh segment took over, and works.
    rig.settle();
    rig.disk.take_events();
    rig.put("later");
    let events = rig.disk.take_events();
    assert!(!events.iter().any(|event| event.contains("journal-0/00000000")), "{events:?}");
    rig.kill();
    // Its records are whole in the page cache: the abort record alone makes them void.
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    check(&rig);
    assert!(rig.find("later").unwrap().is_some());
    assert_eq!(count(&rig), 4);
}

/// Catches bytes of a stream that are lost with the journal segment although their own file is sound.
#[test]
fn a_failed_journal_sync_costs_no_stream_a_byte() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path(), &options(1, durability));
        let tail = rig.put("open").tail.clone();
        let quiet = rig.put("quiet").tail.clone();
        let appender = rig.attach(0, &tail).unwrap();
        let sealed = rig.attach(0, &quiet).unwrap();
        rig.settle();
        rig.disk.fail_syncs("journal-0/00000000", 1);
        let bytes = pattern(1, 300_000);
        let appender = rig.append(0, appender, &bytes[..200_000]);
        let sealed = rig.append(0, sealed, &bytes[..50_000]);
        drop(sealed);
        rig.settle();
        assert_eq!(rig.stores[0].health(), Health::Degraded);
        assert_eq!((tail.durable(), quiet.durable()), (200_000, 50_000));
        let appender = rig.append(0, appender, &bytes[200_000..]);
        rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
        rig.settle();
        let disk = rig.kill();
        disk.lose_power(&millpond::runtime::entropy::Entropy::from_seed(1), 2);
        let rig = Rig::on(disk, dir.path(), &options(1, durability));
        assert!(rig.read(&rig.found("open").tail).unwrap() == bytes, "{durability:?}");
        assert!(rig.read(&rig.found("quiet").tail).unwrap() == bytes[..50_000]);
    }
}

/// Catches a cache class that forgets, after a failed sync, what it had answered.
#[test]
fn what_the_cache_class_answered_is_decided_again_after_a_failed_sync() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    rig.put("deleted");
    rig.settle();
    rig.put("answered");
    rig.delete("deleted").unwrap();
    let ended = rig.put("ended").tail.clone();
    let appender = rig.attach(0, &ended).unwrap();
    rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
    rig.disk.fail_syncs("journal-0/00000000", 1);
    rig.settle();
    assert_eq!(rig.stores[0].health(), Health::Degraded);
    assert!(rig.find("answered").unwrap().is_some() && rig.find("deleted").unwrap().is_none());
    assert_eq!(
        rig.stores[0].tally().names(key("").space, 0),
        2,
        "counted once, however often it was decided"
    );
    rig.kill();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    assert!(rig.find("answered").unwrap().is_some() && rig.find("deleted").unwrap().is_none());
    let found = rig.found("ended").tail.clone();
    assert_eq!((found.state(), found.ended_ms()), (State::Complete, ended.ended_ms()));
}

/// Catches serving bytes that a failed sync may have dropped from the page cache, and writing on beside them.
#[test]
fn a_failed_data_sync_ends_the_streams_that_it_may_have_cost_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let tail = rig.put("hit").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    let bytes = pattern(1, 40_000);
    let appender = rig.append(0, appender, &bytes[..10_000]);
    rig.settle();
    assert_eq!(tail.durable(), 10_000);
    rig.disk.fail_syncs("bulk-0", 1);
    let mut appender = rig.append(0, appender, &bytes[10_000..]);
    rig.settle();
    assert_eq!(appender.append(b"x"), Err(StoreError::SyncFailed));
    assert_eq!((tail.state(), tail.published()), (State::Interrupted, 10_000));
    assert!(read_unverified(&tail) == bytes[..10_000]);
    assert!(matches!(rig.reopen("hit"), Err(StoreError::Attached | StoreError::SyncFailed)));
    drop(appender);
    let poisoned = dir.path().join("bulk-0/00000000.mpb");
    assert!(poisoned.exists());
    rig.disk.take_events();
    assert!(rig.read(&rig.write(0, "after", &bytes)).unwrap() == bytes);
    let events = rig.disk.take_events();
    assert!(!events.iter().any(|event| event.starts_with("write bulk-0/00000000")), "{events:?}");
    rig.kill();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let hit = rig.found("hit").tail.clone();
    assert_eq!((hit.state(), hit.published()), (State::Interrupted, 10_000));
    assert!(rig.read(&rig.found("after").tail).unwrap() == bytes);
    rig.reopen("hit").unwrap();
}

/// Catches a shard that goes on deciding after it could not even write down that a sync failed.
#[test]
fn a_second_failed_sync_makes_the_shard_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let bytes = pattern(1, 1000);
    rig.write(0, "kept", &bytes);
    rig.settle();
    rig.disk.fail_syncs("journal-0", 1000);
    assert_eq!(rig.try_put("refused").unwrap_err(), StoreError::SyncFailed);
    assert_eq!(rig.stores[0].health(), Health::ReadOnly);
    assert_eq!(rig.try_put("refused").unwrap_err(), StoreError::ReadOnly);
    assert!(rig.find("refused").unwrap().is_none());
    assert!(rig.read(&rig.found("kept").tail).unwrap() == bytes, "what is whole is served");
    let store = rig.stores[0].clone();
    assert_eq!(rig.run(0, async move { store.close().await }), Err(StoreError::ReadOnly));
    let disk = rig.kill();
    disk.fail_syncs("", 0);
    let rig = Rig::on(disk, dir.path(), &options(1, Durability::Sync));
    assert!(rig.read(&rig.found("kept").tail).unwrap() == bytes);
    rig.put("again");
}

/// Catches an appender that waits for ever on a full disk, and one that stays refused when there is room again.
#[test]
fn a_full_disk_is_told_to_who_waits_and_forgotten_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let tail = rig.put("fed").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    let bytes = pattern(1, 1_500_000);
    let appender = rig.append(0, appender, &bytes[..500_000]);
    rig.settle();
    rig.disk.fail_creates("bulk-0");
    let mut appender = appender;
    let rest = bytes.clone();
    let (mut appender, written) = rig.run(0, async move {
        let mut written = 500_000;
        loop {
            match appender.reserve(rest.len() - written).await {
                Ok(room) => appender.append(&rest[written..][..room]).unwrap(),
                Err(error) => {
                    assert_eq!(error, StoreError::NoSpace);
                    return (appender, written);
                }
            }
            written = appender.len() as usize;
        }
    });
    assert!((500_000..1_500_000).contains(&written));
    let again = rig.run(0, async move {
        let refused = appender.reserve(1).await;
        (refused, appender)
    });
    assert_eq!(again.0, Err(StoreError::NoSpace));
    rig.disk.allow_creates();
    let appender = rig.append(0, again.1, &bytes[written..]);
    rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
    assert!(rig.read(&tail).unwrap() == bytes, "nothing leaked, nothing doubled");
    let files = std::fs::read_dir(dir.path().join("bulk-0")).unwrap().count();
    assert!(files <= 3, "{files} files");
}

/// Catches a journal that cannot grow and takes records nonetheless, and one that never takes any again.
#[test]
fn a_full_disk_refuses_names_before_the_journal_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    rig.disk.fail_creates("journal-0");
    let mut count = 0;
    let refused = loop {
        match rig.try_put(&format!("{count:0>3000}")) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 1000);
    };
    assert_eq!(refused, StoreError::NoSpace);
    assert!((130..170).contains(&count), "{count} names of 6 KiB in a segment of 1 MiB");
    rig.disk.allow_creates();
    rig.settle();
    let _ = rig.try_put("kick");
    rig.settle();
    rig.put("room again");
    rig.kill();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    assert!(rig.find("room again").unwrap().is_some());
    assert!(rig.find(&format!("{:0>3000}", count - 1)).unwrap().is_some());
}

/// Catches publishing what has no mark in the page cache yet: here the journal takes none any more.
#[test]
fn what_cannot_be_marked_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    let tail = rig.put("unmarked").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    // A run that is long enough for all that follows.
    let mut appender = rig.append(0, appender, &[7; 120_000]);
    let (got, again) = rig.run(0, async move { (appender.reserve(60_000).await, appender) });
    appender = again;
    assert!(got.unwrap() > 20_000);
    rig.disk.fail_creates("journal-0");
    let mut turns = 0;
    while tail.published() == appender.len() {
        rig.on_shard(0, || appender.append(b"x")).unwrap();
        rig.turn();
        turns += 1;
        assert!(turns < 20_000, "the journal is never full");
    }
    rig.settle();
    let seen = tail.published();
    assert!(seen > 120_000 && seen < appender.len());
    drop(appender);
    rig.kill();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    assert_eq!(rig.read(&rig.found("unmarked").tail).unwrap().len() as u64, seen);
}

/// Catches a start that takes a sync's word for bytes which an earlier failed sync, unseen before the process was
/// killed, left clean in the page cache and nowhere else.
#[test]
fn a_start_makes_durable_what_a_failed_sync_gave_up_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    let bytes = pattern(1, 30_000);
    rig.settle();
    rig.write(0, "given up", &bytes);
    rig.turn();
    // The kernel's writeback fails, and the process dies before it hears of it.
    rig.disk.give_up_unsynced();
    let disk = rig.kill();
    let rig = Rig::on(disk, dir.path(), &options(1, Durability::Cache));
    assert!(rig.read(&rig.found("given up").tail).unwrap() == bytes, "it is served");
    let disk = rig.kill();
    disk.lose_power(&millpond::runtime::entropy::Entropy::from_seed(1), u64::MAX);
    let rig = Rig::on(disk, dir.path(), &options(1, Durability::Cache));
    assert!(rig.read(&rig.found("given up").tail).unwrap() == bytes, "so it stays");
}

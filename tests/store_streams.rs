//! What is appended is read back, by every shard, before and after a restart, as long as nobody deletes it.

mod store;

use millpond::runtime::ShardId;
use millpond::storage::{Durability, End, LogId, State, StoreError};
use std::future::Future;
use std::task::{Context, Waker};
use store::{Rig, key, options, pattern, read_unverified};

#[test]
fn a_sealed_stream_is_read_back_before_and_after_a_restart() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path(), &options(2, durability));
        let bytes = pattern(1, 900_000);
        let tail = rig.write(1, "whole", &bytes);
        assert_eq!((tail.state(), tail.epoch(), tail.published()), (State::Complete, 1, 900_000));
        assert!(rig.read(&tail).unwrap() == bytes);
        rig.close();

        let rig = Rig::new(dir.path(), &options(2, durability));
        let entry = rig.found("whole");
        let tail = entry.tail.clone();
        assert_eq!((tail.state(), tail.epoch(), tail.durable()), (State::Complete, 1, 900_000));
        assert_eq!(entry.attributes(), b"about whole");
        assert!(!tail.is_verified(0, 1), "nothing was read since the start");
        assert!(rig.read(&tail).unwrap() == bytes);
        assert!(tail.is_verified(0, u64::MAX));
    }
}

#[test]
fn many_streams_grow_side_by_side_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    let names: Vec<String> = (0..5).map(|number| format!("stream {number}")).collect();
    let mut appenders: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(at, name)| Some(rig.attach(at % 2, &rig.put(name).tail).unwrap()))
        .collect();
    let wanted: Vec<Vec<u8>> = (0..5).map(|number| pattern(number, 700_000 + number as usize)).collect();
    for step in 0..71 {
        for (at, appender) in appenders.iter_mut().enumerate() {
            let piece = &wanted[at][(step * 10_000).min(wanted[at].len())..];
            let piece = &piece[..piece.len().min(10_000)];
            *appender = Some(rig.append(at % 2, appender.take().unwrap(), piece));
        }
    }
    for (at, appender) in appenders.into_iter().enumerate() {
        let appender = appender.unwrap();
        rig.run(at % 2, async move { appender.seal(End::Complete).await }).unwrap();
    }
    let check = |rig: &Rig| {
        for (name, wanted) in names.iter().zip(&wanted) {
            assert!(rig.read(&rig.found(name).tail).unwrap() == *wanted, "{name}");
        }
    };
    check(&rig);
    rig.kill();
    check(&Rig::new(dir.path(), &options(2, Durability::Sync)));
}

/// Catches publishing before the write or the mark: what a reader could see at any turn must be there after a
/// kill that leaves the page cache and syncs nothing.
#[test]
fn a_byte_that_a_reader_saw_survives_a_kill_without_any_sync() {
    for durability in [Durability::Sync, Durability::Cache] {
        for turns in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let rig = Rig::new(dir.path(), &options(1, durability));
            let tail = rig.put("seen").tail.clone();
            let mut appender = rig.attach(0, &tail).unwrap();
            rig.settle();
            rig.disk.hold_syncs(true);
            let bytes = pattern(3, 50_000);
            let written = bytes.clone();
            let task = rig.start(0, async move {
                for piece in written.chunks(7_000) {
                    appender.append_all(piece).await.unwrap();
                    millpond::runtime::shard::yield_now().await;
                }
                appender
            });
            (0..turns).for_each(|_| rig.turn());
            // In the middle of a turn: appended, and not published.
            rig.turn_of(0, false);
            let seen = read_unverified(&tail);
            assert!(bytes.starts_with(&seen));
            assert!(turns < 2 || !seen.is_empty(), "something was published by then");
            let disk = rig.kill();
            disk.hold_syncs(false);
            drop(task);

            let rig = Rig::on(disk, dir.path(), &options(1, durability));
            let kept = rig.read(&rig.found("seen").tail).unwrap();
            assert!(kept.starts_with(&seen), "{} of {} bytes after {turns} turns", kept.len(), seen.len());
            assert!(bytes.starts_with(&kept));
        }
    }
}

/// Catches a wake-up that is lost, one that nobody asked for, and publishing without telling.
#[test]
fn shards_that_wait_are_told_once_and_others_never() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(3, Durability::Cache));
    let tail = rig.put("watched").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    rig.wakes.borrow_mut().clear();
    let appender = rig.append(0, appender, b"unheard");
    assert!(rig.wakes.borrow().is_empty(), "nobody waited");
    tail.wait_from(ShardId(2));
    tail.wait_from(ShardId(2));
    let appender = rig.append(0, appender, b"heard");
    assert_eq!(rig.wakes.take(), [(ShardId(2), tail.uid())]);
    let appender = rig.append(0, appender, b"unheard again");
    assert!(rig.wakes.borrow().is_empty(), "waiting is asked for each time");
    tail.wait_from(ShardId(1));
    rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
    assert_eq!(rig.wakes.take(), [(ShardId(1), tail.uid())], "an end is news too");
}

/// Catches an epoch that is not raised, a cut at the wrong place, and an old reader let into a new history.
#[test]
fn a_stream_left_open_goes_on_in_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    let tail = rig.put("cut").tail.clone();
    let appender = rig.attach(1, &tail).unwrap();
    let appender = rig.append(1, appender, &[1; 1000]);
    drop(appender);
    rig.kill();

    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    let tail = rig.found("cut").tail.clone();
    assert_eq!((tail.state(), tail.epoch(), tail.published()), (State::Interrupted, 2, 1000));
    assert!(tail.admits(1, 1000) && !tail.admits(1, 1001) && tail.admits(2, 5000) && !tail.admits(3, 0));
    assert!(matches!(rig.attach(0, &tail), Err(StoreError::Ended)), "only the owner reopens");
    let tail = rig.reopen("cut").unwrap().tail.clone();
    assert_eq!((tail.state(), tail.epoch()), (State::Open, 3));
    // On the other shard, so into the other journal.
    let appender = rig.attach(0, &tail).unwrap();
    assert_eq!(appender.len(), 1000);
    let appender = rig.append(0, appender, &[2; 500]);
    rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
    rig.kill();

    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    let tail = rig.found("cut").tail.clone();
    assert_eq!((tail.state(), tail.epoch(), tail.published()), (State::Complete, 3, 1500));
    assert_eq!(tail.epochs().collect::<Vec<_>>(), [(1, 0), (2, 1000), (3, 1000)]);
    assert_eq!(rig.read(&tail).unwrap(), [&[1; 1000][..], &[2; 500]].concat());
}

/// Catches two appenders at once, a second one in an epoch, and an old one that still publishes.
#[test]
fn a_stream_has_one_appender_per_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    let tail = rig.put("one").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    assert!(matches!(rig.attach(1, &tail), Err(StoreError::Attached)));
    assert!(matches!(rig.reopen("one"), Err(StoreError::Attached)));
    let mut appender = rig.append(0, appender, b"kept");
    // Appended in this turn and not published when the fence comes.
    rig.run(0, async {});
    rig.on_shard(0, || {
        let mut reserve = Box::pin(appender.reserve(4));
        let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(matches!(reserve.as_mut().poll(cx), std::task::Poll::Ready(Ok(4))));
        drop(reserve);
        appender.append(b"lost").unwrap();
        rig.stores[0].fence(&tail);
    });
    assert!(!tail.is_attached());
    rig.settle();
    assert_eq!(tail.published(), 4);
    assert_eq!(appender.append(b"more"), Err(StoreError::Fenced));
    assert!(matches!(rig.attach(1, &tail), Err(StoreError::Attached)), "not twice in one epoch");
    rig.reopen("one").unwrap();
    let second = rig.attach(1, &tail).unwrap();
    let second = rig.append(1, second, b" and gone on");
    rig.run(1, async move { second.seal(End::Complete).await }).unwrap();
    drop(appender);
    assert_eq!(rig.read(&tail).unwrap(), b"kept and gone on");
    assert!(matches!(rig.reopen("one"), Err(StoreError::Ended)));
}

/// Catches an end that happens only as long as somebody waits for it.
#[test]
fn a_seal_that_nobody_waits_for_happens_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(1, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    let tail = rig.put("left").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    let appender = rig.append(0, appender, b"all of it");
    let mut sealing = Box::pin(appender.seal(End::Complete));
    rig.on_shard(0, || {
        let polled = sealing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "it takes a sync");
        drop(sealing);
    });
    rig.settle();
    assert_eq!(tail.state(), State::Complete);
    let rig = Rig::on(rig.kill(), dir.path(), &options);
    let tail = rig.found("left").tail.clone();
    assert_eq!((tail.state(), rig.read(&tail).unwrap()), (State::Complete, b"all of it".to_vec()));
}

/// Catches space that a dropped appender keeps: the next stream begins where the last byte of it was.
#[test]
fn a_dropped_appender_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    let mut starts = Vec::new();
    for number in 0..3 {
        let tail = rig.put(&format!("short {number}")).tail.clone();
        let appender = rig.attach(0, &tail).unwrap();
        drop(rig.append(0, appender, &[7; 100]));
        rig.turn();
        starts.push(tail.range(0, 1).unwrap().offset);
        assert_eq!(tail.reserved(), 100);
    }
    assert_eq!([starts[1] - starts[0], starts[2] - starts[1]], [128, 128], "100 bytes, rounded up to 64");
}

#[test]
fn names_are_listed_in_order_by_prefix_and_after_a_marker() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
    for name in ["b/2", "a", "b/1", "b/3", "c"] {
        rig.put(name);
    }
    let list = |prefix: &str, after: Option<&str>, count| -> Vec<String> {
        let listed = rig.stores[0].names().iterate(1, prefix.as_bytes(), after.map(str::as_bytes), count);
        listed.into_iter().map(|(key, _)| String::from_utf8(key.bytes.to_vec()).unwrap()).collect()
    };
    assert_eq!(list("", None, 9), ["a", "b/1", "b/2", "b/3", "c"]);
    assert_eq!(list("b/", None, 2), ["b/1", "b/2"]);
    assert_eq!(list("b/", Some("b/1"), 9), ["b/2", "b/3"]);
    assert_eq!(list("b/", Some("a"), 9), ["b/1", "b/2", "b/3"]);
    assert!(list("b/", Some("c"), 9).is_empty());
    assert!(rig.stores[0].names().iterate(2, b"", None, 9).is_empty(), "another space");
    assert_eq!(rig.found("a").home, LogId(0));
    assert!(rig.stores[0].names().get(&key("zzz")).unwrap().entry.is_none());
}

/// Catches an epoch whose record is durable before the bytes in front of it: a power cut would leave a gap.
#[test]
fn an_epoch_begins_where_everything_before_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    let tail = rig.put("a").tail.clone();
    rig.settle();
    rig.disk.hold_syncs(true);
    let appender = rig.attach(0, &tail).unwrap();
    let appender = rig.append(0, appender, b"not durable yet");
    rig.on_shard(0, || drop(appender));
    rig.turn();
    assert!(!tail.is_attached() && tail.durable() < tail.published());
    let owner = rig.owner(&key("a"));
    let reopened = rig.on_shard(owner, || rig.stores[owner].names().reopen(&key("a")).map(drop));
    assert_eq!(reopened, Err(StoreError::Attached));
    let (store, at) = (rig.stores[owner].clone(), tail.clone());
    let waited = rig.start(owner, async move { store.at_rest(&at).await });
    rig.settle();
    assert_eq!(waited.take(), None, "it waits");
    rig.disk.hold_syncs(false);
    rig.settle();
    assert_eq!(waited.take(), Some(Ok(())));
    assert_eq!(rig.reopen("a").unwrap().tail.epochs().last(), Some((tail.epoch(), 15)));
}

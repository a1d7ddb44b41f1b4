//! What a producer marked and never published is nobody's, whatever the journal or a checkpoint says of it.

mod store;

use millpond::storage::{Durability, End, Options, Tail};
use std::path::Path;
use std::sync::Arc;
use store::{Rig, options, pattern};
use tempfile::TempDir;

/// A stream whose producer was fenced while the journal took no marks: its last mark goes beyond what was published,
/// and is in the journal by now.
fn marked_beyond(dir: &Path, options: &Options) -> (Rig, Arc<Tail>, Vec<u8>) {
    let rig = Rig::new(dir, options);
    let tail = rig.put("a").tail.clone();
    let appender = rig.attach(0, &tail).unwrap();
    let mut written = pattern(1, 120_000);
    let appender = rig.append(0, appender, &written);
    // A run that is long enough for all that follows.
    let (room, mut appender) = rig.run(0, async move {
        let mut appender = appender;
        (appender.reserve(60_000).await, appender)
    });
    assert!(room.unwrap() > 20_000);
    rig.disk.fail_creates("journal-0");
    while tail.published() == appender.len() {
        assert!(appender.len() < 140_000, "the journal is never full");
        rig.on_shard(0, || appender.append(b"x")).unwrap();
        rig.turn();
    }
    rig.stores[0].fence(&tail);
    drop(appender);
    let published = tail.published() as usize;
    assert!(published > 120_000);
    written.resize(published, b'x');
    rig.disk.allow_creates();
    let _ = rig.try_put("kick");
    rig.settle();
    assert_eq!((tail.published(), tail.durable()), (published as u64, published as u64));
    (rig, tail, written)
}

/// Catches a start that knows of a run only what goes beyond the cut, and gives the run up.
#[test]
fn a_mark_beyond_the_cut_takes_nothing_from_before_it() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = TempDir::new().unwrap();
        let options = options(1, durability);
        let (rig, tail, mut written) = marked_beyond(dir.path(), &options);
        rig.reopen("a").unwrap();
        let appender = rig.attach(0, &tail).unwrap();
        let bytes = pattern(3, 50_000);
        let appender = rig.append(0, appender, &bytes);
        written.extend(bytes);
        rig.run(0, appender.seal(End::Complete)).unwrap();
        rig.settle();
        let rig = Rig::on(rig.kill(), dir.path(), &options);
        let tail = rig.found("a").tail.clone();
        assert!(rig.read(&tail).unwrap() == written, "{durability:?}");
    }
}

/// Catches a checkpoint that counts to a stream what a producer of an earlier epoch left behind the cut, because the
/// next one is there and has not begun a run of its own.
#[test]
fn a_checkpoint_ends_an_epoch_at_its_cut() {
    for durability in [Durability::Sync, Durability::Cache] {
        let dir = TempDir::new().unwrap();
        let options = options(1, durability);
        let (rig, tail, mut written) = marked_beyond(dir.path(), &options);
        rig.reopen("a").unwrap();
        let appender = rig.attach(0, &tail).unwrap();
        rig.settle();
        let store = rig.stores[0].clone();
        let checkpoint = rig.start(0, async move { store.checkpoint().await });
        (0..50).for_each(|_| rig.turn());
        // Then the stream grows over where the other one's bytes ended.
        let bytes = pattern(3, 50_000);
        let appender = rig.append(0, appender, &bytes);
        written.extend(bytes);
        rig.settle();
        assert_eq!(checkpoint.take(), Some(true));
        rig.run(0, appender.seal(End::Complete)).unwrap();
        rig.settle();
        let rig = Rig::on(rig.kill(), dir.path(), &options);
        let tail = rig.found("a").tail.clone();
        assert!(rig.read(&tail).unwrap() == written, "{durability:?}");
    }
}

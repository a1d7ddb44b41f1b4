//! Directories that earlier releases wrote are opened, whatever the number of shards is now.
//!
//! `tests/fixtures/format-1` was written by two shards and ended by a kill, `format-2` has a checkpoint too, and
//! `format-3` a stream whose beginning is gone, `format-4` links, and `format-5` links that were put together; they are never written again. A new format gets a directory beside them, made by
//! `MILLPOND_WRITE_FIXTURE=format-N cargo test --test store_format`.

mod store;

use millpond::storage::{Durability, End, Link, Options, Part, State};
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::{Rig, copy_dir, pattern};

#[test]
fn format_1_is_read() {
    is_read("format-1", Has { trims: false, links: false, together: false });
}

#[test]
fn format_2_is_read() {
    is_read("format-2", Has { trims: false, links: false, together: false });
}

#[test]
fn format_3_is_read() {
    is_read("format-3", Has { trims: true, links: false, together: false });
}

#[test]
fn format_4_is_read() {
    is_read("format-4", Has { trims: true, links: true, together: false });
}

#[test]
fn format_5_is_read() {
    is_read("format-5", Has { trims: true, links: true, together: true });
}

/// What a directory has beside what all of them have.
#[derive(Clone, Copy)]
struct Has {
    trims: bool,
    links: bool,
    together: bool,
}

fn is_read(name: &str, has: Has) {
    for shards in 1..4 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&fixtures().join(name), copy.path());
        check(copy.path(), shards, has);
        // And once more as this release left it.
        check(copy.path(), shards, has);
    }
}

#[test]
fn what_this_release_writes_is_such_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    check(dir.path(), 2, Has { trims: true, links: true, together: true });
    if let Ok(name) = std::env::var("MILLPOND_WRITE_FIXTURE") {
        let to = fixtures().join(name);
        assert!(!to.exists(), "a fixture is never written again");
        std::fs::create_dir(&to).unwrap();
        write(&to);
        std::fs::remove_file(to.join("LOCK")).unwrap();
    }
}

fn options(shards: usize) -> Options {
    let sync_interval = Duration::from_millis(100);
    Options { shards, durability: Durability::Sync, sync_interval, segment_size: 128 << 10, part_of: |_| 0 }
}

fn write(dir: &Path) {
    let rig = Rig::new(dir, &options(2));
    rig.write(0, "complete", &pattern(1, 40_000));
    rig.write(1, "replaced", b"what stood here before");
    rig.write(0, "replaced", b"what stands here now");
    rig.write(1, "deleted", &pattern(3, 100));
    rig.delete("deleted").unwrap();
    rig.put("empty");
    // One of its trims is in the checkpoint, and one behind it.
    let trimmed = rig.put("trimmed").tail.clone();
    let mut appender = rig.attach(0, &trimmed).unwrap();
    for piece in pattern(6, 100_000).chunks(10_000) {
        appender = rig.append(0, appender, piece);
    }
    rig.settle();
    let runs: Vec<u64> = trimmed.old_runs().map(|run| run.to).collect();
    rig.trim("trimmed", runs[0]).unwrap().expect("a run ends there");
    let one = rig.link(0, "one", &pattern(7, 30_000));
    let two = rig.link(1, "two", &pattern(8, 20_000));
    let parts = |link: &Link, from, len| Part::new(link.parts.as_slice()[0].body().clone(), from, len);
    rig.put_link("copy", vec![parts(&one, 10_000, 20_000), parts(&two, 0, 20_000)]);
    rig.unlink("two");
    let first = rig.link(1, "first", &pattern(9, 5_000));
    // What stands so far is in the checkpoint, the rest in the journals behind it.
    let store = rig.stores[0].clone();
    assert!(rig.run(0, async move { store.checkpoint().await }));
    rig.trim("trimmed", runs[1]).unwrap().expect("a run ends there");
    drop(appender);
    rig.put_link("shared", vec![parts(&first, 0, 5_000)]);
    rig.unlink("first");
    rig.put_link("nothing", Vec::new());
    let whole = |link: &Link, len| vec![parts(link, 0, len)];
    rig.put_together(
        "group",
        vec![("one", whole(&one, 30_000)), ("two", whole(&two, 20_000)), ("none", Vec::new())],
    );
    drop((one, two, first));
    let tail = rig.put("interrupted").tail.clone();
    let appender = rig.attach(1, &tail).unwrap();
    let appender = rig.append(1, appender, &pattern(4, 1000));
    rig.run(1, async move { appender.seal(End::Interrupted).await }).unwrap();
    rig.reopen("interrupted").unwrap();
    // Goes on in the other log, and is cut by the kill.
    let appender = rig.attach(0, &tail).unwrap();
    let appender = rig.append(0, appender, &pattern(5, 500));
    rig.settle();
    drop(appender);
    rig.kill();
}

fn check(dir: &Path, shards: usize, has: Has) {
    let rig = Rig::new(dir, &options(shards));
    let read = |name: &str| rig.read(&rig.found(name).tail).unwrap();
    assert!(read("complete") == pattern(1, 40_000));
    assert_eq!(rig.found("complete").tail.state(), State::Complete);
    // Format 1 did not say when: as of the first start of a release that does.
    assert!(rig.found("complete").tail.ended_ms() > 0);
    assert_eq!(rig.found("complete").attributes(), b"about complete");
    assert_eq!(read("replaced"), b"what stands here now");
    assert!(rig.find("deleted").unwrap().is_none());
    assert!(read("empty").is_empty());
    assert_eq!(read("interrupted"), [pattern(4, 1000), pattern(5, 500)].concat());
    let tail = rig.found("interrupted").tail.clone();
    let epochs: Vec<_> = tail.epochs().take(3).collect();
    assert_eq!(epochs.iter().map(|epoch| epoch.1).collect::<Vec<_>>(), [0, 1000, 1500]);
    assert!(epochs.is_sorted_by(|before, after| before.0 + 1 == after.0), "{epochs:?}");
    // Written by a stream of its own name in epoch 1 before, so it may not be taken for that one.
    assert!(rig.found("replaced").tail.epochs().next().unwrap().0 > 1);
    assert_eq!(tail.state(), State::Interrupted);
    if has.trims {
        let tail = rig.found("trimmed").tail.clone();
        // Two runs of 16 and 32 KiB are gone.
        assert_eq!((tail.first(), tail.published()), (48 << 10, 100_000));
        assert!(read("trimmed") == pattern(6, 100_000)[48 << 10..]);
    }
    if has.links {
        let linked = |name: &str| rig.linked(name).unwrap();
        assert!(linked("one") == Some(pattern(7, 30_000)));
        assert!(linked("copy") == Some([&pattern(7, 30_000)[10_000..], &pattern(8, 20_000)].concat()));
        assert!(linked("shared") == Some(pattern(9, 5_000)), "its first name is gone");
        assert_eq!(linked("first"), None);
        assert_eq!(linked("nothing"), Some(Vec::new()));
    }
    if has.together {
        let linked = |name: &str| rig.linked_in("group", name).unwrap();
        assert!(linked("one") == Some(pattern(7, 30_000)));
        assert!(linked("two") == Some(pattern(8, 20_000)), "its other name is gone");
        assert_eq!(linked("none"), Some(Vec::new()));
        assert_eq!(linked("no"), None);
    }
    let names: usize = rig.stores.iter().map(|store| store.names().count()).sum();
    assert_eq!(names, 4 + usize::from(has.trims) + if has.links { 3 } else { 0 }, "bodies are names, too");
    rig.kill();
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

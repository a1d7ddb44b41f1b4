//! A disk that holds writers up holds up the streams that write, not the shard: their writes move to workers.

mod store;

use millpond::storage::{Appender, Durability, End, StoreError, Tail};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use store::{Rig, options, pattern};

const SLOW_NANOS: u64 = 30_000_000;

fn rig(dir: &std::path::Path) -> Rig {
    Rig::new(dir, &options(1, Durability::Cache))
}

/// An appender of a new stream, with room.
fn appender(rig: &Rig, name: &str) -> (Arc<Tail>, Appender) {
    let tail = rig.put(name).tail.clone();
    let mut appender = rig.attach(0, &tail).unwrap();
    let (room, appender) = rig.run(0, async move { (appender.reserve(1000).await, appender) });
    assert_eq!(room, Ok(1000));
    (tail, appender)
}

type Writing = Pin<Box<dyn Future<Output = Result<(), StoreError>>>>;

/// Begins a write by a worker, up to where its job waits for one.
fn begin(rig: &Rig, mut appender: Appender, bytes: &[u8]) -> Writing {
    let bytes = bytes.to_vec();
    let mut writing: Writing = Box::pin(async move { appender.append_in_worker(bytes).await });
    rig.on_shard(0, || assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()));
    rig.poll(0);
    assert!(!rig.shards[0].jobs().is_empty(), "the write waits for a worker");
    writing
}

/// Catches a slow write that nobody takes note of, and one that is remembered for ever.
#[test]
fn a_slow_write_sends_the_next_ones_to_workers_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path());
    let (_, appender) = appender(&rig, "slow");
    assert!(!rig.on_shard(0, || appender.is_slow()));
    rig.disk.write_nanos.store(SLOW_NANOS, Ordering::SeqCst);
    let appender = rig.append(0, appender, b"takes its time");
    rig.disk.write_nanos.store(0, Ordering::SeqCst);
    assert!(rig.on_shard(0, || appender.is_slow()));
    (0..3).for_each(|_| rig.settle());
    assert!(!rig.on_shard(0, || appender.is_slow()), "a second has passed");
}

/// Catches a write on the shard, publishing before the worker is done, and a reservation that does not wait for it.
#[test]
fn what_a_worker_writes_is_published_once_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path());
    let (tail, appender) = appender(&rig, "by a worker");
    rig.disk.take_events();
    let bytes = pattern(1, 1000);
    let writing = begin(&rig, appender, &bytes);
    assert!(!rig.disk.take_events().iter().any(|event| event.starts_with("write bulk")));
    rig.on_shard(0, || rig.shards[0].end_turn());
    assert_eq!(tail.published(), 0);
    assert_eq!(rig.run(0, writing), Ok(()));
    rig.settle();
    assert!(rig.read(&tail).unwrap() == bytes);
    rig.kill();
    let rig = self::rig(dir.path());
    assert!(rig.read(&rig.found("by a worker").tail).unwrap() == bytes);
}

/// Catches bytes that are appended twice, or not at all, when whoever waited for the worker is gone.
#[test]
fn who_leaves_a_worker_behind_leaves_its_bytes_once() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path());
    let (tail, appender) = appender(&rig, "left behind");
    drop(begin(&rig, appender, b"first "));
    assert!(tail.is_attached(), "the worker still writes");
    rig.settle();
    assert!(!tail.is_attached());
    rig.reopen("left behind").unwrap();
    let appender = rig.attach(0, &tail).unwrap();
    let appender = rig.append(0, appender, b"second");
    rig.run(0, async move { appender.seal(End::Complete).await }).unwrap();
    assert_eq!(rig.read(&tail).unwrap(), b"first second");
}

/// Catches a run that is handed out again while a worker still writes into it.
#[test]
fn a_run_taken_from_a_worker_has_no_next_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path());
    let (tail, appender) = appender(&rig, "taken");
    let writing = begin(&rig, appender, &[b'x'; 1000]);
    let late = rig.shards[0].jobs().take().expect("the write");
    rig.on_shard(0, || rig.stores[0].fence(&tail));
    let bytes = pattern(2, 40_000);
    rig.write(0, "next", &bytes);
    let (work, delivery) = late.split();
    let outcome = work.run();
    rig.on_shard(0, || delivery.deliver(outcome));
    assert_eq!(rig.run(0, writing), Err(StoreError::Fenced));
    rig.settle();
    assert_eq!(tail.published(), 0);
    assert!(rig.read(&rig.found("next").tail).unwrap() == bytes);
    rig.kill();
    let rig = self::rig(dir.path());
    assert!(rig.read(&rig.found("next").tail).unwrap() == bytes, "a late byte reached the file");
}

//! An answer that follows from a change leaves only once that change is on disk: not "taken" before there is a winner
//! that a crash cannot take back, not "unknown" before what was there is gone for good.

mod store;

use bytes::Bytes;
use millpond::runtime::mailbox::Mesh;
use millpond::runtime::park::Unpark;
use millpond::service::stream::{Id, Open, OpenError, Query, Resume, Streams};
use millpond::storage::Durability;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use store::{Rig, options};

fn streams(rig: &Rig) -> Rc<Streams> {
    let mailbox = Mesh::new(1).pop().expect("one");
    let unparks = vec![Arc::new(Unpark::new(|| ()))];
    rig.on_shard(0, || Streams::start(rig.stores[0].clone(), mailbox, unparks, rig.metrics[0].clone()))
}

fn id(name: &str) -> Id {
    Id::new(name.as_bytes()).unwrap()
}

/// A stream that has ended.
fn write(rig: &Rig, streams: &Rc<Streams>, name: &str) {
    let (streams, id) = (streams.clone(), id(name));
    rig.run(0, async move { streams.open(id, Open::default()).await.expect("free").end().await })
        .expect("stored");
}

fn listed() -> Query {
    Query { prefix: Bytes::new(), after: None, state: None, limit: 10 }
}

/// Asks while `change` is decided and not on disk: there is no answer before it is, and then it is `expected`.
#[track_caller]
fn waits<C, A, F, G>(
    change: impl Fn(Rc<Streams>) -> F,
    ask: impl Fn(Rc<Streams>) -> G,
    is: impl Fn(A) -> bool,
) where
    C: 'static,
    A: std::fmt::Debug + 'static,
    F: Future<Output = C> + 'static,
    G: Future<Output = A> + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let streams = streams(&rig);
    write(&rig, &streams, "there");
    rig.settle();
    rig.disk.hold_syncs(true);
    let changed = rig.start(0, change(streams.clone()));
    (0..10).for_each(|_| rig.turn());
    let answered = rig.start(0, ask(streams.clone()));
    rig.settle();
    assert!(answered.take().is_none(), "nothing is known before the disk has it");
    rig.disk.hold_syncs(false);
    rig.settle();
    assert!(changed.take().is_some());
    let answer = answered.take().expect("it is known now");
    assert!(is(answer));
    // Whoever still produces goes before its shard does.
    drop((changed, streams));
    rig.kill();
}

/// Opens a stream and leaves it to its producer, who stays.
async fn open(streams: Rc<Streams>, name: &str) {
    let producer = streams.open(id(name), Open::default()).await.expect("free");
    std::mem::forget(producer);
}

#[test]
fn a_conflict_waits_for_the_winner() {
    waits(
        |streams| async move { open(streams, "new").await },
        |streams| async move { streams.open(id("new"), Open::default()).await.map(drop) },
        |answer: Result<(), OpenError>| answer == Err(OpenError::Taken),
    );
}

#[test]
fn a_stream_is_found_once_a_crash_cannot_take_it_back() {
    waits(
        |streams| async move { open(streams, "new").await },
        |streams| async move { streams.find(&id("new")).await.map(|found| found.is_some()) },
        |answer| answer == Ok(true),
    );
}

#[test]
fn what_is_deleted_is_unknown_once_it_cannot_come_back() {
    waits(
        |streams| async move { streams.delete(id("there")).await },
        |streams| async move { streams.find(&id("there")).await.map(|found| found.is_some()) },
        |answer| answer == Ok(false),
    );
    waits(
        |streams| async move { streams.delete(id("there")).await },
        |streams| async move { streams.delete(id("there")).await },
        |answer| answer == Ok(false),
    );
    waits(
        |streams| async move { streams.delete(id("there")).await },
        |streams| async move { streams.list(listed()).await.map(|page| page.streams.len()) },
        |answer| answer == Ok(0),
    );
}

#[test]
fn a_listing_shows_what_stays() {
    waits(
        |streams| async move { open(streams, "new").await },
        |streams| async move { streams.list(listed()).await.map(|page| page.streams.len()) },
        |answer| answer == Ok(2),
    );
}

#[test]
fn a_refused_resumption_waits_for_what_refuses_it() {
    let resume = Resume { offset: 7, epoch: 99, announced: None };
    waits(
        |streams| async move { open(streams, "new").await },
        move |streams| async move { streams.resume(id("new"), resume).await.map(drop) },
        |answer| matches!(answer, Err(OpenError::WrongPlace { offset: 0, .. })),
    );
    waits(
        |streams| async move { streams.delete(id("there")).await },
        move |streams| async move { streams.resume(id("there"), resume).await.map(drop) },
        |answer| answer == Err(OpenError::Unknown),
    );
}

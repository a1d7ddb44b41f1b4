//! A producer whose connection goes while a receive is being written: what came is in the stream, once and in order,
//! wherever the cut falls.
//!
//! The disk holds writers up, so that pieces of the receive are written by workers, and the producer goes while one of
//! them is at it, or in between.

mod store;

use millpond::runtime::mailbox::Mesh;
use millpond::runtime::park::Unpark;
use millpond::service::stream::{Id, Open, Producer, State, Streams};
use millpond::storage::Durability;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use store::{Rig, options, pattern};

const SLOW_NANOS: u64 = 30_000_000;

fn streams(rig: &Rig) -> Rc<Streams> {
    let mailbox = Mesh::new(1).pop().expect("one");
    let unparks = vec![Arc::new(Unpark::new(|| ()))];
    rig.on_shard(0, || Streams::start(rig.stores[0].clone(), mailbox, unparks, rig.metrics[0].clone()))
}

/// A stream of 100 bytes, the write of which took so long that the next ones go to workers.
fn begin(rig: &Rig, streams: &Rc<Streams>, id: &Id, bytes: &[u8]) -> Producer {
    let (opening, named) = (streams.clone(), id.clone());
    let mut producer = rig.run(0, async move { opening.open(named, Open::default()).await }).expect("free");
    rig.disk.write_nanos.store(SLOW_NANOS, Ordering::SeqCst);
    producer.take(bytes);
    let producer = rig.run(0, async move {
        producer.make_room().await.expect("room");
        producer
    });
    rig.disk.write_nanos.store(0, Ordering::SeqCst);
    producer
}

/// Catches bytes that a worker writes and the end of the stream writes again, and some that neither does.
#[test]
fn a_cut_between_any_two_steps_of_a_receive_doubles_and_loses_nothing() {
    let (first, receive) = (pattern(1, 100), pattern(2, 150_000));
    let mut cuts = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path(), &options(1, Durability::Cache));
        let streams = streams(&rig);
        let id = Id::new(b"cut").unwrap();
        let mut producer = begin(&rig, &streams, &id, &first);
        // One receive, as small chunks bring it: gathered, and longer than the first runs of the stream.
        receive.chunks(1000).for_each(|piece| producer.take(piece));
        let mut writing: Pin<Box<dyn Future<Output = Producer>>> = Box::pin(async move {
            producer.make_room().await.expect("room");
            producer
        });
        let mut poll =
            || rig.on_shard(0, || writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        let mut is_ready = poll();
        assert!(!is_ready && cuts < 100, "workers write it");
        // A step: what is ready on the shard, or one job of a worker.
        for step in 0..cuts {
            rig.poll(0);
            if step % 2 == 1
                && let Some(job) = rig.shards[0].jobs().take()
            {
                let (work, delivery) = job.split();
                let outcome = work.run();
                rig.on_shard(0, || delivery.deliver(outcome));
            }
            is_ready = is_ready || poll();
        }
        // The connection goes, and the producer with it.
        rig.on_shard(0, || drop(writing));
        rig.settle();
        let found = rig.run(0, async move { streams.find(&id).await });
        let tail = found.expect("readable").expect("it is there").tail;
        assert_eq!(tail.state(), State::Interrupted);
        let read = rig.read(&tail).unwrap();
        assert!(read == [&first[..], &receive].concat(), "cut at step {cuts}: {} bytes", read.len());
        if is_ready {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 6, "several pieces were written: {cuts}");
}

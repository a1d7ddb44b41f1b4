//! How soon a reader on another shard has what a producer appended.
//!
//! Expected: the end of the producer's turn (one positioned write of the journal's marks), one message, one turn of
//! the reader's shard; no lock, and no work of the producer for a reader on its own shard but the wake. Bytes are
//! not copied for the reader: what it gets is a range of a file. Not measured: sockets, and the disk.

mod meter;

use meter::{Delays, Tally, count, shards, store};
use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::mailbox::Mesh;
use millpond::runtime::park::Unpark;
use millpond::runtime::{ShardId, shard, timer};
use millpond::service::stream::{Id, Look, Mailbox, Open, Streams};
use millpond::storage::{Durability, ShardImage, Store};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn main() {
    for (where_, reader, pause) in [
        ("the same shard", 0, Duration::ZERO),
        ("another shard", 1, Duration::ZERO),
        ("another shard that sleeps", 1, Duration::from_millis(1)),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let parts = store::images(dir.path(), 2, Durability::Cache).into_iter().zip(Mesh::new(2)).collect();
        let case = Case { where_, reader: ShardId(reader), pause, said: Arc::default() };
        shards::run(parts, move |(image, mailbox), unparks| wake(image, mailbox, unparks, case.clone()));
    }
}

#[derive(Clone)]
struct Case {
    where_: &'static str,
    reader: ShardId,
    /// Between a reader's looking again and the next append.
    pause: Duration,
    said: Arc<Said>,
}

/// What producer and reader tell each other beside the stream, for the bench alone.
#[derive(Default)]
struct Said {
    /// When the last append began.
    appended: AtomicU64,
    /// Up to where the reader has read.
    read: AtomicU64,
    opened: AtomicU64,
}

const LEN: usize = 128;

async fn wake(image: ShardImage, mailbox: Mailbox, unparks: Vec<Arc<Unpark>>, case: Case) {
    let metrics = Arc::new(ShardMetrics::default());
    let store = Store::start(image, metrics.clone());
    let streams = Streams::start(store.clone(), mailbox, unparks, metrics);
    let appends = if case.pause.is_zero() { count(20_000, 20) } else { count(2_000, 5) };
    let reading = Rc::new(Cell::new(shard::current().id() == case.reader));
    if reading.get() {
        let (streams, reading, case) = (streams.clone(), reading.clone(), case.clone());
        shard::spawn("reader", async move {
            read(&streams, &case, appends).await;
            reading.set(false);
        });
    }
    if shard::current().id() == ShardId(0) {
        produce(&streams, &case, appends).await;
    }
    while reading.get() || case.said.read.load(Ordering::Acquire) < (appends * LEN) as u64 {
        timer::sleep(Duration::from_millis(1)).await;
    }
    streams.drain().await;
    store.close().await.expect("closes");
}

fn id() -> Id {
    Id::new(b"a-stream").expect("an id")
}

async fn produce(streams: &Rc<Streams>, case: &Case, appends: usize) {
    let mut producer = streams.open(id(), Open::default()).await.expect("opens");
    case.said.opened.store(1, Ordering::Release);
    for number in 0..appends as u64 {
        // Only once the reader waits again is there anybody to wake.
        while case.said.read.load(Ordering::Acquire) < number * LEN as u64 {
            shard::yield_now().await;
        }
        if !case.pause.is_zero() {
            timer::sleep(case.pause).await;
        }
        case.said.appended.store(shard::now().as_nanos(), Ordering::Release);
        producer.take(&[7; LEN]);
        producer.make_room().await.expect("room");
    }
    assert_eq!(producer.end().await.expect("ends"), (appends * LEN) as u64);
}

async fn read(streams: &Rc<Streams>, case: &Case, appends: usize) {
    while case.said.opened.load(Ordering::Acquire) == 0 {
        shard::yield_now().await;
    }
    let found = streams.find(&id()).await.expect("works").expect("is there");
    let mut follower = streams.follow(found.tail, 0);
    let mut delays = Delays::with_room(appends);
    let tally = Tally::begin();
    while follower.position() < (appends * LEN) as u64 {
        let Look::Ready(range) = follower.next().await.expect("readable") else {
            panic!("the stream is open")
        };
        delays
            .push(Duration::from_nanos(shard::now().as_nanos() - case.said.appended.load(Ordering::Acquire)));
        assert_eq!(range.len, LEN as u64, "one append, one wake");
        case.said.read.store(follower.position(), Ordering::Release);
    }
    let allocations = format!("{:.3} allocations/op", tally.end(appends).allocations_per_op());
    delays.report(&format!("tail wake on {}", case.where_), &allocations);
    assert!(matches!(follower.next().await, Ok(Look::End(_))));
}

//! What one append costs, and what the end of a turn does.
//!
//! Expected: an append is a checksum and one positioned write, and allocates nothing while its run lasts (asserted
//! on the first of them); a turn's end is one positioned write however many streams advanced, so the share of each
//! falls with their number. Not measured: the disk, which is synced in the background, and sockets.

mod meter;

use meter::measure;
use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::clock::Clock;
use millpond::runtime::entropy::Entropy;
use millpond::runtime::file::os::OsDisk;
use millpond::runtime::shard::{Parts, enter};
use millpond::runtime::{Disk, Shard, ShardId};
use millpond::storage::{Appender, Durability, Key, LogId, Options, Store};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

fn main() {
    allocates_nothing();
    for len in [128, 4096, 65_536] {
        appends(len);
    }
    for streams in [1, 16, 256] {
        turns(streams);
    }
}

/// As many appends as a run of 4 MiB takes, one byte each.
fn allocates_nothing() {
    let bench = Bench::new();
    let mut appender = bench.appender(0);
    // Runs double: this one is as long as they get, and has just begun.
    bench.append(&mut appender, &vec![7; (8 << 20) - (16 << 10)]);
    bench.append(&mut appender, &[7]);
    bench.turn();
    measure("append 1 B", || bench.append(&mut appender, &[7]));
}

/// Appends to one stream, with a turn's end after every 64.
fn appends(len: usize) {
    let bench = Bench::new();
    let mut appender = bench.appender(0);
    let bytes = vec![7; len];
    let count = if is_measured() { (256 << 20) / len } else { 128 };
    let started = Instant::now();
    for number in 1..=count {
        bench.append(&mut appender, &bytes);
        if number.is_multiple_of(64) {
            bench.turn();
        }
    }
    bench.turn();
    report(&format!("append {len} B"), started, count);
    assert_eq!(appender.tail().published(), (count * len) as u64, "a fast wrong answer does not count");
}

/// Turns in which every stream advances by 128 bytes.
fn turns(streams: u64) {
    let bench = Bench::new();
    let mut appenders: Vec<_> = (0..streams).map(|number| bench.appender(number)).collect();
    let count = if is_measured() { 200_000 / streams as usize } else { 10 };
    let started = Instant::now();
    for _ in 0..count {
        appenders.iter_mut().for_each(|appender| bench.append(appender, &[7; 128]));
        bench.turn();
    }
    report(&format!("append 128 B in turns of {streams} streams"), started, count * streams as usize);
    assert!(appenders.iter().all(|appender| appender.tail().published() == count as u64 * 128));
}

fn is_measured() -> bool {
    std::env::args().any(|arg| arg == "--bench") && std::env::var_os("MILLPOND_BENCH_SMOKE").is_none()
}

fn report(name: &str, started: Instant, count: usize) {
    let note = if is_measured() { "" } else { " (smoke: not a measurement)" };
    println!("{name}: {:.1} ns/append{note}", started.elapsed().as_nanos() as f64 / count as f64);
}

struct Bench {
    shard: Rc<Shard>,
    store: Rc<Store>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let options = Options {
            shards: 1,
            durability: Durability::Cache,
            sync_interval: Duration::from_millis(100),
            segment_size: 256 << 20,
        };
        let image = Store::open_all(&disk, dir.path(), &options).expect("opens").remove(0);
        let shard = Shard::new(Parts {
            id: ShardId(0),
            count: 1,
            clock: Clock::machine(),
            entropy: Entropy::from_seed(1),
            disk,
            unpark: Box::new(|| {}),
        });
        enter(Some(shard.clone()));
        let store = Store::start(image, Arc::new(ShardMetrics::default()));
        Bench { shard, store, _dir: dir }
    }

    fn turn(&self) {
        self.shard.start_turn();
        self.shard.executor().run_ready();
        while let Some(job) = self.shard.jobs().take() {
            let (work, delivery) = job.split();
            delivery.deliver(work.run());
        }
        self.shard.timers().fire(self.shard.now());
        self.shard.end_turn();
    }

    fn appender(&self, number: u64) -> Appender {
        let key = Key::new(1, &number.to_le_bytes());
        let (entry, _) = self.store.names().put(key, LogId(0), "".into()).expect("put");
        self.store.appender(&entry.tail).expect("attach")
    }

    fn append(&self, appender: &mut Appender, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = {
                let mut reserve = pin!(appender.reserve(bytes.len()));
                loop {
                    match reserve.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(room) => break room.expect("room"),
                        Poll::Pending => self.turn(),
                    }
                }
            };
            appender.append(&bytes[..room]).expect("append");
            bytes = &bytes[room..];
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shard.clear();
        enter(None);
    }
}

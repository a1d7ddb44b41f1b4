//! What durability costs when many ask for it at once.
//!
//! Expected: however many appenders wait, one pass makes all of them durable: one fdatasync of the data and one of
//! the journal. So the syncs per commit fall with the number of appenders, and a commit takes one to two passes:
//! the one that runs when it comes, and its own. Disk: the machine's, where the temporary directory lies.
//! Not measured: sockets.

mod meter;

use meter::{Delays, Tally, count, shards, store};
use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::notify::Notify;
use millpond::runtime::{ShardId, shard};
use millpond::storage::{Durability, Key, LogId, ShardImage, Store};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

fn main() {
    for appenders in [1, 16, 256] {
        let dir = tempfile::tempdir().expect("a directory");
        let images = store::images(dir.path(), 1, Durability::Sync);
        shards::run(images, move |image, _| commits(image, appenders));
    }
}

/// What the appenders of a round share.
struct Round {
    delays: RefCell<Delays>,
    running: Cell<usize>,
    ended: Notify,
}

async fn commits(image: ShardImage, appenders: usize) {
    let metrics = Arc::new(ShardMetrics::default());
    let store = Store::start(image, metrics.clone());
    let each = count(2_000, 20).div_ceil(if appenders > 16 { 8 } else { 1 });
    let commits = appenders * each;
    let round = Rc::new(Round {
        delays: RefCell::new(Delays::with_room(commits)),
        running: Cell::new(appenders),
        ended: Notify::new(),
    });
    // The first runs and the segment that they lie in are not what is measured.
    let mut tails = Vec::new();
    for number in 0..appenders {
        let key = Key::new(1, &number.to_le_bytes());
        let (entry, ticket) = store.names().put(key, LogId(ShardId(0).0), "".into()).expect("put");
        let mut appender = store.appender(&entry.tail).expect("attach");
        appender.append_all(b"first").await.expect("append");
        store.names().committed(ticket).await.expect("committed");
        tails.push(appender);
    }
    let passes = metrics.sync_latency.snapshot().count();
    let tally = Tally::begin();
    for mut appender in tails {
        let (store, round) = (store.clone(), round.clone());
        shard::spawn("appender", async move {
            for _ in 0..each {
                let began = shard::now();
                appender.append_all(&[7; 200]).await.expect("append");
                let (tail, len) = (appender.tail(), appender.len());
                store.durable(&tail, len).await.expect("durable");
                assert!(tail.durable() >= len, "a fast wrong answer does not count");
                round.delays.borrow_mut().push(shard::now() - began);
            }
            round.running.set(round.running.get() - 1);
            round.ended.notify_all();
        });
    }
    while round.running.get() > 0 {
        round.ended.wait().await;
    }
    let total = tally.end(commits);
    let passes = (metrics.sync_latency.snapshot().count() - passes) as f64;
    let name = format!("commit 200 B of {appenders} appenders");
    total.report(&name, &format!("{:.3} passes/op", passes / commits as f64));
    round.delays.borrow_mut().report(&name, "");
    // Everybody appends in the turn after a pass, so the next pass is everybody's. When there are more than one turn
    // takes, the first of them begin a pass, and the others have the next one to themselves.
    let passes_max = 2.0 * each as f64 + 2.0;
    assert!(passes <= passes_max, "{passes} passes for {each} appends of each of {appenders}");
    store.close().await.expect("closes");
}

//! The way of a large body: received into the shard's window, checksummed while hot, one positioned write.
//!
//! Expected per 256 KiB: one receive (the kernel's copy), one checksum, one positioned write (the kernel's copy into
//! the page cache), nothing allocated. Not measured: the disk, which is synced in the background, and TCP: the bytes
//! come through a unix socket, whose other end is a thread of its own.

mod meter;

use meter::{Tally, count, shards, store};
use millpond::observe::metrics::ShardMetrics;
use millpond::runtime::ring::recv::Receiver;
use millpond::runtime::ring::socket::Socket;
use millpond::storage::{Durability, End, Key, LogId, ShardImage, Store, WINDOW};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let windows = count(4_096, 16);
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    // One send fills one receive.
    socket2::SockRef::from(&theirs).set_send_buffer_size(8 << 20).expect("an option");
    ours.set_nonblocking(true).expect("an option");
    let source = std::thread::spawn(move || {
        let window: Vec<u8> = (0..WINDOW as usize).map(|at| at as u8).collect();
        (0..windows).for_each(|_| theirs.write_all(&window).expect("the shard reads"));
    });
    let images = store::images(dir.path(), 1, Durability::Cache);
    let parts = images.into_iter().zip([ours]).collect();
    shards::run(parts, move |(image, socket), _| receive(image, socket, windows));
    source.join().expect("everything was sent");
}

async fn receive(image: ShardImage, socket: UnixStream, windows: usize) {
    let metrics = Arc::new(ShardMetrics::default());
    let store = Store::start(image, metrics.clone());
    let receiver = Receiver::new(Rc::new(Socket::from_fd(socket.into())));
    let (entry, _) = store.names().put(Key::new(1, b"body"), LogId(0), "".into()).expect("put");
    let mut appender = store.appender(&entry.tail).expect("attach");
    let total = windows as u64 * WINDOW;
    let tally = Tally::begin();
    let mut receives = 0;
    while appender.len() < total {
        // As many as there is room for, so that every piece leaves with one write.
        let room = appender.reserve(WINDOW as usize).await.expect("room");
        let piece = receiver.next_piece(room, |bytes| {
            let at = appender.len();
            assert_eq!(bytes[0], at as u8, "a fast wrong answer does not count");
            appender.append(bytes).expect("append");
            bytes.len()
        });
        piece.await.expect("the source is there").expect("the source sends all");
        receives += 1;
    }
    let ended = tally.end(windows);
    let writes = metrics.write_latency.snapshot().count();
    let more = format!(
        "{:.2} GiB/s, {:.2} receives/op, {:.2} writes/op",
        ended.rate(total),
        f64::from(receives) / windows as f64,
        writes as f64 / windows as f64
    );
    ended.report("receive and store 256 KiB", &more);
    assert_eq!(appender.seal(End::Complete).await.expect("seals"), total);
    assert_eq!(entry.tail.published(), total);
    store.close().await.expect("closes");
}

//! A reader that does not read delays neither the producer nor other readers, and costs no memory.

mod common;

use common::content::{Rng, difference};
use common::http::request_bytes;
use common::{Conn, Daemon, Live, Producer, Setup, bytes_of, eventually, proc};

const CONTENT: usize = 48 << 20;

#[test]
fn a_paused_reader_holds_up_nobody_and_costs_no_memory() {
    let daemon = Daemon::start();
    let content = bytes_of(1, CONTENT);
    let mut producer = Producer::begin(daemon.loom(), "big");
    let paused: Vec<Conn> = (0..8).map(|_| paused_reader(&daemon, "/stream/big")).collect();
    let before = proc::status_bytes(daemon.pid(), "RssAnon");

    let addr = daemon.loom();
    let mut most = 0;
    std::thread::scope(|scope| {
        let quick: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || Live::get(addr, "/stream/big").try_finish().expect("the stream ends"))
            })
            .collect();
        for piece in content.chunks(256 << 10) {
            producer.chunk(piece);
            most = most.max(proc::status_bytes(daemon.pid(), "RssAnon"));
        }
        producer.finish().whole();
        for reader in quick {
            let answer = reader.join().expect("a quick reader").whole();
            assert!(answer.body == content, "{}", difference(&answer.body, &content));
        }
    });
    most = most.max(proc::status_bytes(daemon.pid(), "RssAnon"));
    assert!(
        most < before + (24 << 20),
        "{CONTENT} bytes with 8 paused readers cost {} bytes of memory",
        most - before
    );

    // A paused reader was never dropped: once it reads again, it gets everything.
    for mut conn in paused {
        let answer = conn.answer().expect(200).whole();
        assert!(answer.body == content, "a paused reader: {}", difference(&answer.body, &content));
    }
}

#[test]
fn a_paused_spy_holds_up_nobody_and_costs_no_memory() {
    let daemon = Daemon::start();
    let _paused: Vec<Conn> = (0..4).map(|_| paused_reader(&daemon, "/spy")).collect();
    let before = proc::status_bytes(daemon.pid(), "RssAnon");
    let content = bytes_of(2, 4 << 20);
    for round in 0..8 {
        common::post(daemon.loom(), &format!("spied-{round}"), &content).expect(201);
    }
    let cost = proc::status_bytes(daemon.pid(), "RssAnon").saturating_sub(before);
    assert!(cost < 24 << 20, "32 MiB past 4 paused spies cost {cost} bytes of memory");
}

#[test]
fn a_slow_producer_delays_no_other() {
    let daemon = Daemon::start();
    let mut slow = Producer::begin(daemon.loom(), "slow");
    slow.chunk("begun");
    // In the middle of a chunk, where the daemon wants more and gets none.
    slow.conn().send("10000\r\nhalf");
    for number in 0..50 {
        common::post(daemon.loom(), &format!("quick-{number}"), &bytes_of(number, 50_000)).expect(201);
    }
    let answer = daemon.get("/stream/slow?notail").expect(200).whole();
    assert!(
        b"begunhalf".starts_with(&answer.body) && answer.body.starts_with(b"begun"),
        "{:?}",
        answer.text()
    );
}

#[test]
fn a_big_complete_stream_to_paused_readers_costs_no_memory() {
    let daemon = Daemon::start();
    let content = bytes_of(3, 32 << 20);
    common::post(daemon.loom(), "stored", &content).expect(201);
    let before = proc::status_bytes(daemon.pid(), "RssAnon");
    let mut paused: Vec<Conn> = (0..16).map(|_| paused_reader(&daemon, "/stream/stored")).collect();
    let mut rng = Rng::new(3);
    for _ in 0..4 {
        let first = rng.below(31 << 20) as usize;
        let range = format!("bytes={first}-{}", first + 99_999);
        let answer =
            common::request(daemon.loom(), "GET", "/stream/stored", &[("Range", &range)], b"").expect(206);
        assert!(answer.body == content[first..first + 100_000]);
    }
    let cost = proc::status_bytes(daemon.pid(), "RssAnon").saturating_sub(before);
    assert!(cost < 24 << 20, "16 paused readers of 32 MiB cost {cost} bytes of memory");
    assert!(paused.swap_remove(7).answer().expect(200).body == content);
}

/// A connection with an unread answer that fills whatever the kernel holds for it. Its receive buffer is small but
/// larger than a segment of loopback: below that, the kernel's own rule against small windows leaves a reader that
/// went on to the sender's probes, which come ever more rarely the longer it paused.
fn paused_reader(daemon: &Daemon, target: &str) -> Conn {
    let mut conn = Conn::open(daemon.loom());
    conn.small_receive_buffer(256 << 10);
    conn.send(request_bytes("GET", target, &[], b""));
    conn
}

/// Catches a reader that keeps the space of what was deleted for as long as it likes, and one that is cut although what
/// it reads is there.
#[test]
fn a_slow_reader_keeps_no_space_of_what_is_gone() {
    let daemon = Setup::default().shards(1).top("segment_size = \"16MiB\"").start();
    let (addr, kept) = (daemon.loom(), bytes_of(5, 9 << 20));
    common::post(addr, "gone", &bytes_of(4, 12 << 20)).expect(201);
    // Fills the segment, and some of the next.
    common::post(addr, "filler", &bytes_of(6, 6 << 20)).expect(201);
    common::post(addr, "kept", &kept).expect(201);
    let mut readers = ["gone", "kept"].map(|id| paused_reader(&daemon, &format!("/stream/{id}")));
    let heads = readers.each_mut().map(|conn| conn.head().expect(200));
    for id in ["gone", "filler"] {
        common::request(addr, "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
    }
    eventually("the file is removed, and the reader has it open", || {
        (removed_and_open(&daemon) == 1).then_some(())
    });
    daemon.wait_metric("millpond_readers_expired_total", |count| count == 1.0);
    eventually("its space is given back", || (removed_and_open(&daemon) == 0).then_some(()));
    let [mut gone, mut other] = readers;
    let [_, head] = heads;
    assert!(gone.rest().len() < 12 << 20, "it was cut");
    let answer = other.try_body(head, "GET").expect("a whole answer").whole();
    assert!(answer.body == kept, "what is there may be read slowly: {}", difference(&answer.body, &kept));
}

/// Segments that the daemon has open and that have no name any more.
fn removed_and_open(daemon: &Daemon) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs");
    let paths = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    paths.filter(|path| path.to_string_lossy().ends_with(".mpb (deleted)")).count()
}

//! An idle daemon costs no CPU and little memory, also with idle connections, tails and spies.
//!
//! The kernel counts time on a CPU per process, so whatever else loads the machine does not show here.

mod common;

use std::time::Duration;

use common::http::request_bytes;
use common::{Conn, Daemon, Live, Producer, Setup, post, proc};

#[test]
fn an_idle_daemon_of_two_shards_uses_no_cpu_and_less_than_24_mib() {
    let daemon = Setup::default().shards(2).start();
    post(daemon.loom(), "warm", b"up").expect(201);
    assert_no_cpu(&daemon);
    let anon = proc::status_bytes(daemon.pid(), "RssAnon");
    assert!(anon < 24 << 20, "{anon} bytes of memory beside mapped files");
}

#[test]
fn idle_connections_tails_and_spies_use_hardly_any_cpu() {
    let daemon = Setup::default().shards(2).start();
    let mut producer = Producer::begin(daemon.loom(), "tailed");
    producer.chunk("x");
    let mut held: Vec<Live> = Vec::new();
    for _ in 0..10 {
        let mut tail = Live::get(daemon.loom(), "/stream/tailed");
        tail.wait_for(b"x");
        held.push(tail);
        let mut spy = Live::get(daemon.loom(), "/spy");
        spy.wait_for(b"x");
        held.push(spy);
    }
    let mut idle: Vec<Conn> = (0..50).map(|_| Conn::open(daemon.loom())).collect();
    for conn in &mut idle {
        conn.send(request_bytes("GET", "/stream/absent", &[], b""));
        conn.answer().expect(404);
    }
    assert_hardly_any_cpu(&daemon);
}

#[test]
fn an_idle_daemon_with_the_cache_class_uses_no_cpu() {
    let daemon = Setup::default().shards(2).durability("cache").start();
    post(daemon.loom(), "warm", b"up").expect(201);
    assert_no_cpu(&daemon);
}

#[test]
fn an_idle_daemon_with_retention_uses_no_cpu_until_something_is_due() {
    let retention = "retention = { max_age = \"1h\", max_bytes = \"1GiB\" }";
    let daemon = Setup::default().shards(2).loom(retention).start();
    for id in ["a", "b", "c"] {
        post(daemon.loom(), id, b"there").expect(201);
    }
    assert_no_cpu(&daemon);
}

/// Time on a CPU within three seconds, once the work of before is done.
#[allow(clippy::disallowed_methods, reason = "what is measured is the use of a span of time")]
fn at_rest(daemon: &Daemon) -> (u64, Duration) {
    common::eventually("the daemon comes to rest", || {
        let before = proc::cpu_nanos(daemon.pid());
        std::thread::sleep(Duration::from_millis(400));
        (proc::cpu_nanos(daemon.pid()) - before < 2_000_000).then_some(())
    });
    let (ticks, nanos) = (proc::cpu_ticks(daemon.pid()), proc::cpu_nanos(daemon.pid()));
    std::thread::sleep(Duration::from_secs(3));
    (proc::cpu_ticks(daemon.pid()) - ticks, Duration::from_nanos(proc::cpu_nanos(daemon.pid()) - nanos))
}

/// Not one clock tick.
#[track_caller]
fn assert_no_cpu(daemon: &Daemon) {
    let (ticks, used) = at_rest(daemon);
    assert_eq!(ticks, 0, "clock ticks in 3 s; {used:?} on a CPU");
}

/// What is held open may cost a heartbeat: below a third of a percent.
#[track_caller]
fn assert_hardly_any_cpu(daemon: &Daemon) {
    let (_, used) = at_rest(daemon);
    assert!(used < Duration::from_millis(10), "{used:?} on a CPU in 3 s");
}

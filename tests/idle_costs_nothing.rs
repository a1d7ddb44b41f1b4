//! An idle daemon costs no CPU and little memory, also with idle connections, tails and spies.
//!
//! The files with the tests that load the machine run in processes of their own; time on a CPU is counted by
//! the kernel per process, so that they cannot disturb this one.

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
fn idle_connections_tails_and_spies_use_no_cpu() {
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
    assert_no_cpu(&daemon);
}

#[test]
fn an_idle_daemon_with_the_cache_class_uses_no_cpu() {
    let daemon = Setup::default().shards(2).durability("cache").start();
    post(daemon.loom(), "warm", b"up").expect(201);
    assert_no_cpu(&daemon);
}

/// Not one clock tick in three seconds, once the work of before is done.
fn assert_no_cpu(daemon: &Daemon) {
    common::eventually("the daemon comes to rest", || {
        let before = proc::cpu_ticks(daemon.pid());
        std::thread::sleep(Duration::from_millis(400));
        (proc::cpu_ticks(daemon.pid()) == before).then_some(())
    });
    let (ticks, nanos) = (proc::cpu_ticks(daemon.pid()), proc::cpu_nanos(daemon.pid()));
    std::thread::sleep(Duration::from_secs(3));
    let used = Duration::from_nanos(proc::cpu_nanos(daemon.pid()) - nanos);
    assert_eq!(proc::cpu_ticks(daemon.pid()) - ticks, 0, "clock ticks in 3 s; {used:?} on a CPU");
    assert!(used < Duration::from_millis(10), "{used:?} on a CPU in 3 s");
}

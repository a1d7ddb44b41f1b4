//! SIGTERM drains: nothing new is accepted, what is under way is finished, then the daemon is gone.

mod common;

use std::time::{Duration, Instant};

use common::http::request_bytes;
use common::{Conn, Daemon, End, Live, Producer, Setup, bytes_of, eventually, post};
use rustix::process::Signal;

#[test]
fn an_idle_daemon_ends_at_once_with_success() {
    let mut daemon = Daemon::start();
    let mut idle = Conn::open(daemon.loom());
    idle.send(request_bytes("GET", "/stream/absent", &[], b""));
    idle.answer().expect(404);
    let asked = Instant::now();
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());
    assert!(idle.ends(), "an idle connection is ended in order");
}

#[test]
fn sigint_means_the_same() {
    let mut daemon = Daemon::start();
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_body_under_way_is_finished_and_stored() {
    let mut daemon = Setup::default().top("drain_timeout = \"15s\"").start();
    let mut producer = Producer::begin(daemon.loom(), "draining");
    producer.chunk("before ");
    Live::get(daemon.loom(), "/stream/draining").wait_for(b"before ");
    let reader = Live::get(daemon.loom(), "/stream/draining");
    daemon.signal(Signal::TERM);
    eventually("the listener is closed", || Conn::try_open(daemon.loom()).is_err().then_some(()));
    producer.chunk("after");
    let answer = producer.finish().whole();
    assert_eq!(answer.end, End::LastChunk);
    assert_eq!(reader.finish().whole().text(), "before after");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.restart();
    let answer = daemon.get("/stream/draining").expect(200);
    assert_eq!((answer.text(), answer.header("x-stream-state")), ("before after", Some("complete")));
}

#[test]
fn readiness_turns_false_while_draining() {
    let mut daemon = Setup::default().top("drain_timeout = \"15s\"").start();
    let mut producer = Producer::begin(daemon.loom(), "holding");
    daemon.get("/stream/absent").expect(404);
    assert_eq!(common::get(daemon.admin(), "/readyz").status, 200);
    daemon.signal(Signal::TERM);
    // Whoever asks must be told, so the admin listener outlives the others.
    eventually("readiness is false", || {
        let mut conn = Conn::try_open(daemon.admin()).ok()?;
        conn.try_send(request_bytes("GET", "/readyz", &[], b"")).ok()?;
        (conn.try_answer_to("GET").ok()?.status == 503).then_some(())
    });
    producer.chunk("x");
    producer.finish().whole();
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn after_the_drain_timeout_it_ends_nevertheless_and_keeps_what_it_has() {
    let mut daemon = Setup::default().top("drain_timeout = \"1s\"").start();
    let mut producer = Producer::begin(daemon.loom(), "endless");
    let mut reader = Live::get(daemon.loom(), "/stream/endless");
    producer.chunk("so far");
    reader.wait_for(b"so far");
    let asked = Instant::now();
    daemon.terminate();
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(8), "it took {took:?}");
    assert!(!producer.try_finish().is_ok_and(|answer| answer.end == End::LastChunk));
    daemon.restart();
    let answer = daemon.get("/stream/endless").expect(200);
    assert_eq!((answer.text(), answer.header("x-stream-state")), ("so far", Some("interrupted")));
}

#[test]
fn a_second_signal_stops_at_once_and_loses_nothing_acknowledged() {
    let mut daemon = Setup::default().top("drain_timeout = \"60s\"").start();
    post(daemon.loom(), "kept", &bytes_of(1, 100_000)).expect(201);
    let _producer = Producer::begin(daemon.loom(), "holding");
    daemon.signal(Signal::TERM);
    eventually("the listener is closed", || Conn::try_open(daemon.loom()).is_err().then_some(()));
    assert!(daemon.is_running(), "the first signal waits for the body");
    daemon.signal(Signal::TERM);
    daemon.wait_exit();
    daemon.restart();
    assert!(daemon.get("/stream/kept").expect(200).body == bytes_of(1, 100_000));
}

#[test]
fn a_keep_alive_connection_is_told_that_its_answer_is_the_last() {
    let mut daemon = Setup::default().top("drain_timeout = \"15s\"").start();
    post(daemon.loom(), "big", &bytes_of(2, 24 << 20)).expect(201);
    let mut conn = Conn::open(daemon.loom());
    conn.small_receive_buffer(16 << 10);
    conn.send(request_bytes("GET", "/stream/big", &[], b""));
    let head = conn.head().expect(200);
    daemon.signal(Signal::TERM);
    eventually("the listener is closed", || Conn::try_open(daemon.loom()).is_err().then_some(()));
    let answer = conn.try_body(head, "GET").expect("the rest of the body").whole();
    assert!(answer.body == bytes_of(2, 24 << 20), "an answer under way is finished");
    assert!(conn.ends());
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

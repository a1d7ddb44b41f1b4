//! The life of a connection: reuse, order, deadlines, half-closed peers, caps and other kinds of sockets.

mod common;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::daemon::A_MOMENT;
use common::http::{Trouble, request_bytes};
use common::{
    Conn, Daemon, End, Live, Producer, Setup, Shared, bytes_of, eventually, fresh_id, get, post, request,
};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().share(&DAEMON)
}

/// Every timer short, so that a deadline can be seen to pass.
fn impatient() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().limits("header_timeout = \"400ms\"\nidle_timeout = \"400ms\"").share(&DAEMON)
}

#[test]
fn a_connection_serves_many_requests() {
    let daemon = daemon();
    let mut conn = Conn::open(daemon.loom());
    for _ in 0..200 {
        conn.send(request_bytes("GET", "/stream/absent", &[], b""));
        conn.answer().expect(404);
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let daemon = daemon();
    let id = fresh_id("pipelined");
    let mut pipeline = Vec::new();
    for number in 0..50 {
        pipeline.extend(request_bytes(
            "POST",
            &format!("/stream/{id}-{number}"),
            &[],
            &bytes_of(number, 1000),
        ));
        pipeline.extend(request_bytes("GET", &format!("/stream/{id}-{number}"), &[], b""));
        pipeline.extend(request_bytes("GET", &format!("/stream/{id}-absent-{number}"), &[], b""));
    }
    let mut conn = Conn::open(daemon.loom());
    conn.send(&pipeline);
    for number in 0..50 {
        assert_eq!(conn.answer().expect(201).header("x-stream-id"), Some(format!("{id}-{number}").as_str()));
        assert!(conn.answer().expect(200).body == bytes_of(number, 1000), "{number}");
        assert!(conn.answer().expect(404).text().contains(&format!("{id}-absent-{number} ")), "{number}");
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let daemon = daemon();
    let id = fresh_id("bytewise");
    let mut conn = Conn::open(daemon.loom());
    for byte in format!("POST /stream/{id} HTTP/1.1\r\nHost: mill.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX-T: z\r\n\r\n").bytes() {
        conn.send([byte]);
    }
    conn.answer().expect(201).whole();
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"abc0123456789abcdef");
}

#[test]
fn an_expectation_is_met_before_the_body_comes() {
    let daemon = daemon();
    let id = fresh_id("expects");
    let mut conn = Conn::open(daemon.loom());
    conn.send(format!(
        "POST /stream/{id} HTTP/1.1\r\nHost: mill.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    let interim = conn.head();
    assert_eq!((interim.status, interim.reason.as_str()), (100, "Continue"));
    let head = conn.head().expect(201);
    conn.send("hello");
    assert_eq!(conn.try_body(head, "POST").expect("the end of the answer").end, End::LastChunk);
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"hello");
}

#[test]
fn an_expectation_whose_request_is_refused_gets_the_refusal_at_once() {
    let daemon = daemon();
    let id = fresh_id("expects-conflict");
    post(daemon.loom(), &id, b"first").expect(201);
    let mut conn = Conn::open(daemon.loom());
    conn.send(format!(
        "POST /stream/{id} HTTP/1.1\r\nHost: mill.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    let answer = conn.answer().expect(409);
    // Either the connection is over, or the body is still due: a new request at once would be taken for it.
    if answer.closes() {
        assert!(conn.ends());
    } else {
        conn.send("hello");
        conn.send(request_bytes("GET", &format!("/stream/{id}"), &[], b""));
        assert_eq!(conn.answer().expect(200).body, b"first");
    }
}

#[test]
fn http_1_0_gets_no_100_and_no_chunks() {
    let daemon = daemon();
    let id = fresh_id("old-client");
    let mut conn = Conn::open(daemon.loom());
    conn.send(format!(
        "POST /stream/{id} HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    ));
    let answer = conn.answer().expect(201);
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("x-stream-id"), Some(id.as_str()));
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"hello");
}

#[test]
fn a_live_stream_to_http_1_0_ends_with_the_connection() {
    let daemon = daemon();
    let id = fresh_id("old-reader");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut reader =
        Live::with(Conn::open(daemon.loom()), format!("GET /stream/{id} HTTP/1.0\r\n\r\n").as_bytes());
    assert_eq!(reader.so_far().header("transfer-encoding"), None);
    assert_eq!(reader.so_far().header("content-length"), None);
    producer.chunk("one ");
    reader.wait_for(b"one ");
    producer.chunk("two");
    producer.finish().whole();
    let answer = reader.finish();
    assert_eq!((answer.text(), answer.end), ("one two", End::Close));
}

#[test]
fn http_1_0_may_ask_to_stay() {
    let daemon = daemon();
    let id = fresh_id("old-stays");
    post(daemon.loom(), &id, b"kept").expect(201);
    let mut conn = Conn::open(daemon.loom());
    conn.send(format!("GET /stream/{id} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    let answer = conn.answer().expect(200);
    assert_eq!(answer.text(), "kept");
    match answer.closes() {
        true => assert!(conn.ends(), "the head said that the connection ends"),
        false => {
            conn.send(format!("GET /stream/{id} HTTP/1.0\r\n\r\n"));
            assert_eq!(conn.answer().expect(200).text(), "kept");
            assert!(conn.ends());
        }
    }
}

#[test]
fn a_client_that_ended_its_half_still_gets_its_answer() {
    let daemon = daemon();
    let (id, content) = (fresh_id("half-closed"), bytes_of(3, 500_000));
    post(daemon.loom(), &id, &content).expect(201);
    let mut conn = Conn::open(daemon.loom());
    conn.send(request_bytes("GET", &format!("/stream/{id}"), &[], b""));
    conn.half_close();
    let answer = conn.answer().expect(200).whole();
    assert!(answer.body == content, "{}", common::content::difference(&answer.body, &content));
    assert!(conn.ends());
}

#[test]
fn a_producer_that_ended_its_half_behind_the_body_gets_the_end_of_its_answer() {
    let daemon = daemon();
    let id = fresh_id("half-closed-producer");
    let mut producer = Producer::begin(daemon.loom(), &id);
    producer.chunk("all of it");
    producer.conn().send("0\r\n\r\n");
    producer.conn().half_close();
    assert_eq!(producer.try_rest().expect("the end of the answer").end, End::LastChunk);
    assert_eq!(daemon.get(&format!("/stream/{id}")).header("x-stream-state"), Some("complete"));
}

#[test]
fn a_live_reader_that_ended_its_half_is_followed_to_the_end() {
    let daemon = daemon();
    let id = fresh_id("half-closed-reader");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut conn = Conn::open(daemon.loom());
    conn.send(request_bytes("GET", &format!("/stream/{id}"), &[], b""));
    conn.half_close();
    let head = conn.head().expect(200);
    producer.chunk("still here");
    producer.finish().whole();
    let answer = conn.try_body(head, "GET").expect("the end of the answer");
    assert_eq!((answer.text(), answer.end), ("still here", End::LastChunk));
}

#[test]
fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let daemon = daemon();
    let id = fresh_id("early-409");
    post(daemon.loom(), &id, b"first").expect(201);
    for _ in 0..5 {
        let mut conn = Conn::open(daemon.loom());
        conn.send(format!(
            "POST /stream/{id} HTTP/1.1\r\nHost: mill.test\r\nContent-Length: 8388608\r\n\r\n"
        ));
        // A reset in place of an orderly end would throw the answer away before it is read.
        for piece in bytes_of(9, 8 << 20).chunks(64 << 10) {
            if conn.try_send(piece).is_err() {
                break;
            }
        }
        let answer = conn.answer().expect(409).whole();
        if !answer.closes() {
            conn.send(request_bytes("GET", &format!("/stream/{id}"), &[], b""));
            assert_eq!(conn.answer().expect(200).body, b"first");
        } else {
            assert!(conn.ends());
        }
    }
}

#[test]
fn an_early_refusal_comes_before_the_body() {
    let daemon = daemon();
    let id = fresh_id("at-once-409");
    post(daemon.loom(), &id, b"first").expect(201);
    let producer = Producer::begin_at(daemon.loom(), &format!("/stream/{id}"), &[]);
    assert_eq!(producer.head.status, 409);
}

#[test]
fn a_head_that_does_not_come_in_time_ends_the_connection() {
    let daemon = impatient();
    for part in ["", "G", "GET /stream/x HTTP/1.1\r\nHost: mill"] {
        let started = Instant::now();
        let mut conn = Conn::open(daemon.loom());
        conn.send(part);
        match conn.try_answer_to("GET") {
            Ok(answer) => assert_eq!(answer.expect(408).header("connection"), Some("close")),
            Err(trouble) => assert_eq!(trouble, Trouble::Ended, "{part:?}"),
        }
        assert!(conn.ends());
        assert!(
            started.elapsed() >= Duration::from_millis(300),
            "ended too early: {:?} {part:?}",
            started.elapsed()
        );
    }
}

#[test]
fn a_head_that_drips_cannot_outlive_the_deadline() {
    let daemon = impatient();
    let started = Instant::now();
    let mut conn = Conn::open(daemon.loom());
    conn.send("GET /stream/x HTTP/1.1\r\nHost: mill.test\r\n");
    eventually("a head that drips is ended", || {
        let alive = conn.is_silent_for(Duration::from_millis(20)) && conn.try_send("X-A: b\r\n").is_ok();
        (!alive).then_some(())
    });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_connection_that_rests_too_long_is_ended_without_a_word() {
    let daemon = impatient();
    let mut conn = Conn::open(daemon.loom());
    conn.send(request_bytes("GET", "/stream/absent", &[], b""));
    conn.answer().expect(404);
    let rested = Instant::now();
    assert_eq!(conn.rest(), b"", "an idle connection is owed no answer");
    assert!(rested.elapsed() >= Duration::from_millis(300), "ended after {:?}", rested.elapsed());
}

#[test]
fn no_timer_ends_a_body_or_a_tail() {
    let daemon = impatient();
    let id = fresh_id("patient");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    let mut spy = Live::get(daemon.loom(), "/spy");
    producer.chunk("before ");
    reader.wait_for(b"before ");
    assert!(reader.is_silent_for(Duration::from_millis(1500)), "the tail was ended by a timer");
    producer.chunk("after");
    reader.wait_for(b"after");
    spy.wait_for(b"after");
    producer.finish().whole();
    assert_eq!(reader.finish().whole().text(), "before after");
}

#[test]
fn at_the_cap_accepting_pauses_and_goes_on() {
    let daemon = Setup::default().shards(1).limits("max_connections = 4").start();
    let mut held: Vec<Conn> = (0..4)
        .map(|_| {
            let mut conn = Conn::open(daemon.loom());
            conn.send(request_bytes("GET", "/stream/absent", &[], b""));
            conn.answer().expect(404);
            conn
        })
        .collect();
    // The kernel takes this connection into its queue; the daemon must not serve it yet.
    let mut waiting = Conn::open(daemon.loom());
    waiting.send(request_bytes("GET", "/stream/absent", &[], b""));
    assert!(waiting.is_silent_for(Duration::from_millis(300)), "the cap does not hold");
    for conn in &mut held {
        conn.send(request_bytes("GET", "/stream/absent", &[], b""));
        conn.answer().expect(404);
    }
    held.pop();
    waiting.answer().expect(404);
    drop(held);
    for _ in 0..12 {
        daemon.get("/stream/absent").expect(404);
    }
}

#[test]
fn the_admin_listener_is_reachable_while_dialects_are_at_their_cap() {
    let daemon = Setup::default().shards(1).limits("max_connections = 4").start();
    let _held: Vec<Conn> = (0..8).map(|_| Conn::open(daemon.loom())).collect();
    eventually("the shard says that it paused", || {
        (daemon.metrics().sum("millpond_accept_paused") >= 1.0).then_some(())
    });
}

#[test]
fn a_unix_socket_serves_as_tcp_does() {
    let dir = common::daemon::scratch();
    let socket = dir.path().join("loom.sock");
    let daemon = Setup::default().loom_listen(&format!("\"unix:{}\"", socket.display())).start();
    assert_eq!(daemon.loom(), format!("unix:{}", socket.display()));
    let content = bytes_of(4, 400_000);
    post(daemon.loom(), "over-unix", &content).expect(201);
    let answer = get(daemon.loom(), "/stream/over-unix").expect(200);
    assert!(answer.body == content, "{}", common::content::difference(&answer.body, &content));
    let mut producer = Producer::begin(daemon.loom(), "live");
    let mut reader = Live::get(daemon.loom(), "/stream/live");
    producer.chunk("one ");
    reader.wait_for(b"one ");
    producer.finish().whole();
    assert_eq!(reader.finish().whole().text(), "one ");
}

#[test]
fn one_dialect_may_listen_in_several_places() {
    let dir = common::daemon::scratch();
    let socket = format!("unix:{}", dir.path().join("second.sock").display());
    let daemon = Setup::default().loom_listen(&format!("[\"127.0.0.1:0\", \"{socket}\"]")).start();
    let places: Vec<&str> = daemon.ready()["loom"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|place| place.as_str().unwrap())
        .collect();
    assert_eq!(places.len(), 2);
    assert_eq!(places[1], socket);
    post(places[0], "shared", b"one stream").expect(201);
    assert_eq!(get(places[1], "/stream/shared").expect(200).text(), "one stream");
}

#[test]
fn a_unix_socket_is_taken_over_from_a_killed_daemon() {
    let dir = common::daemon::scratch();
    let socket = format!("unix:{}", dir.path().join("stale.sock").display());
    let mut daemon = Setup::default().loom_listen(&format!("\"{socket}\"")).start();
    daemon.kill9();
    daemon.restart();
    get(daemon.loom(), "/stream/absent").expect(404);
}

#[test]
fn every_answer_has_a_date() {
    let daemon = daemon();
    for answer in [
        get(daemon.loom(), "/stream/absent"),
        get(daemon.admin(), "/livez"),
        request(daemon.loom(), "PUT", "/stream/x", &[], b""),
    ] {
        let date = httpdate::parse_http_date(answer.header("date").expect("a Date")).expect("an HTTP date");
        let off = date.elapsed().unwrap_or_else(|ahead| ahead.duration());
        assert!(off < Duration::from_secs(5), "the date is {off:?} off");
        let text = httpdate::fmt_http_date(date);
        assert_eq!(answer.header("date"), Some(text.as_str()), "the preferred form");
    }
}

#[test]
fn a_client_that_vanishes_in_its_head_disturbs_nobody() {
    let daemon = daemon();
    for _ in 0..50 {
        let mut conn = Conn::open(daemon.loom());
        conn.send("GET /stream/absent HT");
        conn.reset();
    }
    let mut conn = Conn::open(daemon.loom());
    conn.send(request_bytes("GET", "/stream/absent", &[], b""));
    conn.answer().expect(404);
    assert_eq!(daemon.metrics().sum("millpond_panics_contained_total"), 0.0);
}

#[test]
fn connections_that_end_are_given_back() {
    let daemon = Daemon::start();
    daemon.get("/stream/absent").expect(404);
    let before = common::proc::open_fds(daemon.pid());
    for _ in 0..100 {
        daemon.get("/stream/absent").expect(404);
    }
    eventually("the descriptors of ended connections are closed", || {
        (common::proc::open_fds(daemon.pid()) <= before + 2).then_some(())
    });
    let mut conn = Conn::open(daemon.loom());
    assert!(conn.is_silent_for(A_MOMENT));
}

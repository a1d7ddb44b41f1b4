//! Streams that ended go when they are too old or too much, and nothing else does.

mod common;

use std::time::{Duration, Instant};

use common::{Conn, Daemon, End, Live, Producer, Setup, bytes_of, eventually, head, json_of, post, request};

fn kept(retention: &str) -> Setup {
    Setup::default().loom(&format!("retention = {{ {retention} }}"))
}

fn ids(daemon: &Daemon) -> Vec<String> {
    let listed = json_of(&daemon.get("/streams"));
    let streams = listed["streams"].as_array().expect("a list");
    streams.iter().map(|stream| stream["id"].as_str().expect("an id").to_owned()).collect()
}

fn is_gone(daemon: &Daemon, id: &str) -> bool {
    daemon.get(&format!("/stream/{id}?notail")).status == 404
}

/// An interrupted stream.
fn interrupted(daemon: &Daemon, id: &str) {
    let mut producer = Producer::begin(daemon.loom(), id);
    producer.chunk("so far");
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    reader.wait_for(b"so far");
    producer.reset();
    assert_eq!(reader.finish().trailer("x-stream-state"), Some("interrupted"));
}

#[test]
fn what_ended_longer_ago_than_its_age_goes_and_what_is_open_stays() {
    let daemon = kept("max_age = \"2s\"").start();
    let mut open = Producer::begin(daemon.loom(), "open");
    open.chunk("never ends");
    post(daemon.loom(), "complete", b"whole").expect(201).whole();
    interrupted(&daemon, "interrupted");
    let ended = Instant::now();
    eventually("the complete one is gone", || is_gone(&daemon, "complete").then_some(()));
    // Not before its time: it ended before `ended`, by less than the rest of the test took so far.
    eventually("the interrupted one is gone", || is_gone(&daemon, "interrupted").then_some(()));
    assert!(ended.elapsed() > Duration::from_millis(1800), "gone after {:?}", ended.elapsed());
    assert_eq!(ids(&daemon), ["open"]);
    head(daemon.loom(), "/stream/complete").expect(404);
    // As if by a deletion: the ids are free.
    post(daemon.loom(), "complete", b"again").expect(201).whole();
    open.finish().whole();
    assert_eq!(daemon.get("/stream/open").expect(200).text(), "never ends");
    eventually("all are gone", || ids(&daemon).is_empty().then_some(()));
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("millpond_reaped_streams_total"), 4.0);
    assert_eq!(metrics.sum("millpond_reaped_bytes_total"), (5 + 6 + 5 + 10) as f64);
    assert_eq!((metrics.sum("millpond_streams"), metrics.sum("millpond_stream_bytes")), (0.0, 0.0));
}

#[test]
fn a_batch_is_one_line_in_the_log() {
    let mut daemon = Setup::default().shards(1).start();
    for number in 0..50 {
        post(daemon.loom(), &format!("s{number}"), b"x").expect(201).whole();
    }
    daemon.restart_with(kept("max_age = \"1s\"").shards(1));
    eventually("all are gone", || ids(&daemon).is_empty().then_some(()));
    let lines = eventually("the log says so", || {
        let log = daemon.own_log();
        let lines: Vec<String> =
            log.lines().filter(|line| line.contains("streams reaped")).map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    });
    let told: u64 = lines
        .iter()
        .map(|line| {
            let (_, rest) = line.split_once("streams=").expect("how many");
            rest.split(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a number")
        })
        .sum();
    assert!(told == 50 && lines.len() <= 2 && lines[0].contains("reason=Age"), "{lines:#?}");
}

#[test]
fn age_is_counted_from_the_end_and_not_from_a_restart() {
    let mut daemon = Setup::default().start();
    post(daemon.loom(), "a", b"there").expect(201).whole();
    let ended = Instant::now();
    eventually("four seconds pass", || (ended.elapsed() > Duration::from_secs(4)).then_some(()));
    daemon.restart_with(kept("max_age = \"4s\""));
    let started = Instant::now();
    eventually("it is gone", || is_gone(&daemon, "a").then_some(()));
    // Had it ended with the restart, it would stay for four seconds more.
    assert!(started.elapsed() < Duration::from_millis(2500), "gone after {:?}", started.elapsed());
}

#[test]
fn the_oldest_go_first_until_all_together_are_within_bounds() {
    let daemon = kept("max_bytes = \"1MiB\"").shards(4).start();
    // Sizes that fit by threes, over four owners and homes.
    let content = bytes_of(1, 300_000);
    let mut expected: Vec<String> = Vec::new();
    for number in 0..12 {
        let id = format!("s{number:02}");
        post(daemon.loom(), &id, &content).expect(201).whole();
        expected.push(id);
        if expected.len() > 3 {
            expected.remove(0);
        }
        eventually("the oldest is gone", || (ids(&daemon) == expected).then_some(()));
    }
    for id in &expected {
        assert!(daemon.get(&format!("/stream/{id}")).expect(200).body == content);
    }
    assert_eq!(daemon.metrics().sum("millpond_reaped_streams_total"), 9.0);
    assert_eq!(daemon.metrics().sum("millpond_stream_bytes"), 900_000.0);
}

#[test]
fn a_bound_that_comes_later_holds_for_what_is_there() {
    let mut daemon = Setup::default().start();
    for number in 0..5 {
        post(daemon.loom(), &format!("s{number}"), &bytes_of(number, 1000)).expect(201).whole();
    }
    // At the start.
    daemon.restart_with(kept("max_bytes = \"3500B\""));
    eventually("the two oldest are gone", || (ids(&daemon) == ["s2", "s3", "s4"]).then_some(()));
    // And without one.
    daemon.reload_with(kept("max_bytes = \"1000B\""));
    eventually("one is left", || (ids(&daemon) == ["s4"]).then_some(()));
    daemon.reload_with(kept("max_age = \"1s\""));
    eventually("none is left", || ids(&daemon).is_empty().then_some(()));
    eventually("the log names the keys", || {
        let log = daemon.own_log();
        ["loom.retention.max_bytes", "loom.retention.max_age"]
            .iter()
            .all(|key| log.contains(key))
            .then_some(())
    });
    assert!(!daemon.own_log().contains("needs a restart"), "{}", daemon.own_log());
    // Nothing goes any more.
    daemon.reload_with(Setup::default());
    eventually("retention is off", || (daemon.own_log().matches("reloaded").count() >= 4).then_some(()));
}

#[test]
fn a_dialect_that_is_off_deletes_nothing() {
    let mut daemon = Setup::default().start();
    post(daemon.loom(), "a", b"there").expect(201).whole();
    daemon.restart_with(kept("max_age = \"1s\"").loom("enabled = false"));
    let reaped = |daemon: &Daemon| daemon.metrics().sum("millpond_reaped_streams_total");
    // What would go would be gone within two seconds of a start.
    let begun = Instant::now();
    eventually("three seconds pass", || (begun.elapsed() > Duration::from_secs(3)).then_some(()));
    assert_eq!(reaped(&daemon), 0.0);
    daemon.restart_with(Setup::default());
    assert_eq!(daemon.get("/stream/a").expect(200).text(), "there");
}

#[test]
fn who_reads_what_goes_gets_all_of_it_and_the_disk_gets_its_room_back() {
    let mut daemon = Setup::default().shards(1).start();
    // Two files of 16 MiB, and some of a third.
    let content = bytes_of(1, 34 << 20);
    post(daemon.loom(), "big", &content).expect(201).whole();
    let files = |daemon: &Daemon| std::fs::read_dir(daemon.data_dir().join("bulk-0")).expect("a log").count();
    let before = files(&daemon);
    let conn = Conn::open(daemon.loom());
    conn.small_receive_buffer(64 << 10);
    let request = common::http::request_bytes("GET", "/stream/big", &[], b"");
    let mut reader = Live::with(conn, &request);
    reader.wait_len(100_000);
    daemon.reload_with(kept("max_age = \"1s\"").shards(1));
    eventually("it is gone", || is_gone(&daemon, "big").then_some(()));
    eventually("its files are gone", || (files(&daemon) + 2 <= before).then_some(()));
    let answer = reader.finish();
    assert_eq!(answer.end, End::Length);
    assert!(answer.body == content, "{} of {} bytes", answer.body.len(), content.len());
}

#[test]
fn what_goes_makes_room_under_the_quota() {
    let setup = |retention: &str| kept(retention).loom("quota = \"1000B\"").loom("max_streams = 2");
    let mut daemon = setup("").start();
    post(daemon.loom(), "a", &[b'x'; 600]).expect(201).whole();
    post(daemon.loom(), "b", &[b'x'; 400]).expect(201).whole();
    post(daemon.loom(), "c", b"x").expect(507);
    daemon.reload_with(setup("max_bytes = \"500B\""));
    eventually("there is room", || (post(daemon.loom(), "c", b"x").status == 201).then_some(()));
    assert_eq!(ids(&daemon), ["b", "c"]);
    request(daemon.loom(), "DELETE", "/stream/b", &[], b"").expect(204);
}

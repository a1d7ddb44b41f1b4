//! What the operator allows is kept: the longest stream, the number of streams, the bytes of all.

mod common;

use std::sync::OnceLock;

use common::http::request_bytes;
use common::{
    Answer, Conn, Daemon, End, Live, Producer, Setup, Shared, bytes_of, error_of, eventually, fresh_id, head,
    json_of, post, request,
};

/// The longest stream of the daemon that most tests share.
const MAX: usize = 100_000;

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    limited(MAX).share(&DAEMON)
}

fn limited(bytes_max: usize) -> Setup {
    Setup::default().loom(&format!("max_stream_bytes = \"{bytes_max}B\""))
}

fn number(answer: &Answer, header: &str) -> u64 {
    let text = answer.header(header).unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    text.parse().unwrap_or_else(|_| panic!("{header} is no number: {text}"))
}

/// Length and epoch.
fn place(daemon: &Daemon, id: &str) -> (u64, u64) {
    let head = head(daemon.loom(), &format!("/stream/{id}")).expect(200);
    (number(&head, "stream-next-offset"), number(&head, "stream-epoch"))
}

fn resume(daemon: &Daemon, id: &str, offset: u64, body: &[u8]) -> Answer {
    let (_, epoch) = place(daemon, id);
    request(daemon.loom(), "POST", &format!("/stream/{id}?resume={offset}&epoch={epoch}"), &[], body)
}

/// An interrupted stream with the first `len` bytes of `content`.
fn interrupted(daemon: &Daemon, content: &[u8], len: usize) -> String {
    let id = fresh_id("cut");
    let mut producer = Producer::begin(daemon.loom(), &id);
    producer.chunk(&content[..len]);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    reader.wait_len(len);
    producer.reset();
    assert_eq!(reader.finish().trailer("x-stream-state"), Some("interrupted"));
    id
}

#[track_caller]
fn assert_names_the_limit(answer: &Answer) {
    let sentence = error_of(answer);
    let says = |what: &str| sentence.contains(what);
    assert!(says(&MAX.to_string()) && says("loom.max_stream_bytes"), "{sentence}");
}

// ---- the longest stream ----

#[test]
fn a_stream_of_exactly_the_limit_is_stored() {
    let daemon = daemon();
    let content = bytes_of(1, MAX);
    let id = fresh_id("exact");
    post(daemon.loom(), &id, &content).expect(201).whole();
    assert!(daemon.get(&format!("/stream/{id}")).expect(200).body == content);
    let id = fresh_id("exact-chunked");
    let mut producer = Producer::begin(daemon.loom(), &id);
    for piece in content.chunks(9_999) {
        producer.chunk(piece);
    }
    producer.finish().whole();
    let answer = daemon.get(&format!("/stream/{id}")).expect(200);
    assert!(answer.body == content && answer.header("x-stream-state") == Some("complete"));
}

#[test]
fn a_body_that_says_it_is_too_long_is_refused_before_anything_is_made() {
    let daemon = daemon();
    let content = bytes_of(1, MAX + 1);
    for id in [fresh_id("long"), fresh_id("long")] {
        let answer = post(daemon.loom(), &id, &content).expect(413);
        assert_names_the_limit(&answer);
        daemon.get(&format!("/stream/{id}")).expect(404);
        // The id is free, and what is there is not replaced by what cannot be.
        post(daemon.loom(), &id, b"short").expect(201).whole();
        let target = format!("/stream/{id}?force=true");
        request(daemon.loom(), "POST", &target, &[], &content).expect(413);
        assert_eq!(daemon.get(&format!("/stream/{id}")).expect(200).text(), "short");
    }
    let listed = common::json_of(&daemon.get("/streams?prefix=loom-")).to_string();
    request(daemon.loom(), "POST", "/stream", &[], &content).expect(413);
    assert_eq!(common::json_of(&daemon.get("/streams?prefix=loom-")).to_string(), listed);
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    let daemon = daemon();
    let id = fresh_id("asks");
    let mut conn = Conn::open(daemon.loom());
    let head = |len: usize| {
        format!(
            "POST /stream/{id} HTTP/1.1\r\nHost: mill.test\r\nContent-Length: {len}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    conn.send(head(MAX + 1));
    let answer = conn.answer();
    assert_eq!(answer.status, 413, "the first answer is the final one: {answer:?}");
    assert_names_the_limit(&answer);
    assert!(answer.closes() && conn.ends());
    daemon.get(&format!("/stream/{id}")).expect(404);
    let mut conn = Conn::open(daemon.loom());
    conn.send(head(4));
    conn.head().expect(100);
    conn.head().expect(201);
}

#[test]
fn what_fits_is_kept_and_the_producer_is_told_why_it_was_cut() {
    let daemon = daemon();
    let content = bytes_of(2, MAX + 1);
    // In one piece or many, small ones that are gathered and large ones that are not.
    for piece in [1_000, 33_333, 70_000, MAX + 1] {
        let id = fresh_id("cut");
        let mut producer = Producer::begin(daemon.loom(), &id);
        let reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
        for chunk in content.chunks(piece) {
            producer.chunk(chunk);
        }
        let answer = producer.try_rest().expect("what the daemon had to say");
        assert_eq!((answer.status, answer.end), (201, End::Cut), "not all is well");
        let said = std::str::from_utf8(&answer.body).expect("text");
        let said: serde_json::Value = serde_json::from_str(said).expect("the reason, in JSON");
        assert!(said["error"].as_str().is_some_and(|text| text.contains("loom.max_stream_bytes")), "{said}");
        let seen = reader.finish();
        assert_eq!((seen.trailer("x-stream-state"), seen.end), (Some("interrupted"), End::LastChunk));
        assert!(seen.body == content[..MAX], "in pieces of {piece}: {} bytes", seen.body.len());
        let kept = daemon.get(&format!("/stream/{id}")).expect(200);
        assert!(kept.body == content[..MAX] && kept.header("x-stream-state") == Some("interrupted"));
    }
}

#[test]
fn a_resumption_has_the_room_that_is_left() {
    let daemon = daemon();
    let content = bytes_of(3, MAX + 1);
    let half = MAX / 2;
    // Announced: what fits goes on, the bytes that are there already not counted twice.
    let id = interrupted(&daemon, &content, half);
    let before = place(&daemon, &id);
    assert_names_the_limit(&resume(&daemon, &id, half as u64, &content[half..]).expect(413));
    assert_eq!(place(&daemon, &id), before, "a refused resumption begins no epoch");
    resume(&daemon, &id, 10, &content[10..MAX]).expect(201).whole();
    assert!(daemon.get(&format!("/stream/{id}")).expect(200).body == content[..MAX]);
    // Not announced: what fits is kept.
    let id = interrupted(&daemon, &content, half);
    let (at, epoch) = place(&daemon, &id);
    let target = format!("/stream/{id}?resume={at}&epoch={epoch}");
    let mut producer = Producer::begin_at(daemon.loom(), &target, &[]);
    producer.chunk(&content[half..]);
    assert_eq!(producer.try_rest().expect("the reason").end, End::Cut);
    eventually("the stream is full", || (place(&daemon, &id).0 == MAX as u64).then_some(()));
}

#[test]
fn a_full_stream_can_be_ended_and_takes_no_more() {
    let daemon = daemon();
    let content = bytes_of(4, MAX);
    let id = interrupted(&daemon, &content, MAX);
    let before = place(&daemon, &id);
    assert_names_the_limit(&resume(&daemon, &id, MAX as u64, b"x").expect(413));
    let target = format!("/stream/{id}?resume={MAX}&epoch={}", before.1);
    let mut conn = Conn::open(daemon.loom());
    conn.send(format!("POST {target} HTTP/1.1\r\nHost: mill.test\r\nTransfer-Encoding: chunked\r\n\r\n"));
    assert_names_the_limit(&conn.answer().expect(413));
    assert_eq!(place(&daemon, &id), before);
    resume(&daemon, &id, MAX as u64, b"").expect(201).whole();
    let answer = daemon.get(&format!("/stream/{id}")).expect(200);
    assert!(answer.body == content && answer.header("x-stream-state") == Some("complete"));
}

#[test]
fn pipe_ends_with_the_reason() {
    use std::io::Write;
    let daemon = daemon();
    let id = fresh_id("piped");
    let mut client = std::process::Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(["pipe", &format!("http://{}", daemon.loom()), &id])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the client starts");
    let content = bytes_of(5, 2 * MAX);
    // The client may close the pipe before all of it is in.
    let _ = client.stdin.take().expect("piped").write_all(&content);
    let output = client.wait_with_output().expect("the client ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("413") && said.contains("loom.max_stream_bytes"), "{said}");
    assert!(daemon.get(&format!("/stream/{id}")).expect(200).body == content[..MAX]);
}

#[test]
fn refusals_are_counted_once_each() {
    let daemon = limited(10).shards(1).start();
    let refused =
        || daemon.metrics().sum_where("millpond_producers_refused_total", &[("bound", "stream_bytes")]);
    post(daemon.loom(), "announced", b"eleven bytes").expect(413);
    assert_eq!(refused(), 1.0);
    let mut producer = Producer::begin(daemon.loom(), "cut");
    producer.chunk("eleven bytes");
    assert_eq!(producer.try_rest().expect("the reason").end, End::Cut);
    assert_eq!(refused(), 2.0);
    post(daemon.loom(), "fits", b"ten bytes!").expect(201).whole();
    assert_eq!(refused(), 2.0);
}

#[test]
fn a_reload_changes_the_limit_for_what_comes_and_for_what_runs() {
    // One shard: what holds for one connection holds for all.
    let mut daemon = Setup::default().shards(1).start();
    let mut running = Producer::begin(daemon.loom(), "running");
    running.chunk("0123456789");
    post(daemon.loom(), "before", b"eleven bytes").expect(201).whole();
    daemon.reload_with(limited(10).shards(1));
    let mut tries = 0;
    eventually("the limit holds", || {
        tries += 1;
        // One that is under way when the limit comes is cut instead.
        let answer = request(daemon.loom(), "POST", &format!("/stream/after-{tries}"), &[], b"eleven bytes");
        (answer.status == 413).then_some(())
    });
    running.chunk("x");
    assert_eq!(running.try_rest().expect("the reason").end, End::Cut);
    assert_eq!(place(&daemon, "running").0, 10);
    eventually("the log names the key", || daemon.own_log().contains("loom.max_stream_bytes").then_some(()));
    daemon.reload_with(Setup::default().shards(1));
    eventually("the limit is gone", || {
        let (at, epoch) = place(&daemon, "running");
        let target = format!("/stream/running?resume={at}&epoch={epoch}");
        let mut conn = Conn::open(daemon.loom());
        conn.send(request_bytes("POST", &target, &[], b"more"));
        (conn.answer().status == 201).then_some(())
    });
    assert_eq!(daemon.get("/stream/running").expect(200).text(), "0123456789more");
}

// ---- the number of streams ----

fn counted(streams_max: u32) -> Setup {
    Setup::default().shards(4).loom(&format!("max_streams = {streams_max}"))
}

fn ids(daemon: &Daemon) -> Vec<String> {
    let listed = json_of(&daemon.get("/streams"));
    let streams = listed["streams"].as_array().expect("a list");
    streams.iter().map(|stream| stream["id"].as_str().expect("an id").to_owned()).collect()
}

#[track_caller]
fn assert_names_the_number(answer: &Answer, streams_max: u32) {
    let sentence = error_of(answer);
    let says = |what: &str| sentence.contains(what);
    assert!(says(&streams_max.to_string()) && says("loom.max_streams") && says("force=true"), "{sentence}");
}

#[test]
fn as_many_streams_as_allowed_are_made_however_many_ask_at_once() {
    let daemon = counted(15).start();
    let loom = daemon.loom();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40)
            .map(|number| {
                // With names and without: they land on all four owners.
                let target =
                    if number % 2 == 0 { format!("/stream/s{number}") } else { "/stream".to_owned() };
                scope.spawn(move || request(loom, "POST", &target, &[], b"x").status)
            })
            .collect();
        asking.into_iter().map(|asking| asking.join().expect("an answer")).collect()
    });
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(429)), (15, 25), "{statuses:?}");
    assert_eq!(ids(&daemon).len(), 15);
    assert_eq!(daemon.metrics().sum_where("millpond_producers_refused_total", &[("bound", "streams")]), 25.0);
}

#[test]
fn one_stream_too_many_is_429_and_made_of_nothing_until_there_is_room() {
    let mut daemon = counted(3).start();
    for id in ["a", "b", "c"] {
        post(daemon.loom(), id, b"there").expect(201).whole();
    }
    let check = |daemon: &Daemon| {
        for target in ["/stream/d", "/stream", "/stream/d?force=true"] {
            assert_names_the_number(&request(daemon.loom(), "POST", target, &[], b"x").expect(429), 3);
        }
        daemon.get("/stream/d").expect(404);
        assert_eq!(ids(daemon), ["a", "b", "c"]);
        // What is there may be replaced, resumed and read, and is a conflict as ever.
        request(daemon.loom(), "POST", "/stream/b?force=true", &[], b"there").expect(201).whole();
        post(daemon.loom(), "c", b"x").expect(409);
        assert_eq!(daemon.get("/stream/b").expect(200).text(), "there");
    };
    check(&daemon);
    daemon.restart();
    check(&daemon);
    // Room is there once the deletion was answered, and for one only.
    request(daemon.loom(), "DELETE", "/stream/a", &[], b"").expect(204);
    post(daemon.loom(), "d", b"there").expect(201).whole();
    post(daemon.loom(), "a", b"x").expect(429);
    daemon.restart();
    post(daemon.loom(), "a", b"x").expect(429);
    assert_eq!(ids(&daemon), ["b", "c", "d"]);
    // A higher limit holds without a restart.
    daemon.reload_with(counted(4));
    eventually("the new limit holds", || (post(daemon.loom(), "a", b"x").status == 201).then_some(()));
    post(daemon.loom(), "e", b"x").expect(429);
}

#[test]
fn a_stream_that_is_open_counts_and_a_resumption_does_not() {
    let daemon = counted(1).start();
    let mut producer = Producer::begin(daemon.loom(), "open");
    producer.chunk("so far");
    post(daemon.loom(), "other", b"x").expect(429);
    Live::get(daemon.loom(), "/stream/open").wait_for(b"so far");
    producer.reset();
    let epoch = eventually("the stream is interrupted", || {
        let head = head(daemon.loom(), "/stream/open");
        (head.header("x-stream-state") == Some("interrupted")).then(|| number(&head, "stream-epoch"))
    });
    let target = format!("/stream/open?resume=6&epoch={epoch}");
    request(daemon.loom(), "POST", &target, &[], b" and more").expect(201).whole();
    assert_eq!(daemon.get("/stream/open").expect(200).text(), "so far and more");
}

// ---- what all streams have together ----

const QUOTA: usize = 1 << 20;

/// Most bytes that one receive brings, by which each of several producers may step over the quota at the same time.
const RECEIVE_MAX: usize = 256 << 10;

fn quota() -> Setup {
    Setup::default().shards(4).loom(&format!("quota = \"{QUOTA}B\""))
}

/// What all streams have together, as they say themselves.
fn lengths(daemon: &Daemon) -> usize {
    let listed = json_of(&daemon.get("/streams"));
    let streams = listed["streams"].as_array().expect("a list");
    streams.iter().map(|stream| stream["length"].as_u64().expect("a length") as usize).sum()
}

#[track_caller]
fn assert_names_the_quota(answer: &Answer) {
    let sentence = error_of(answer);
    let says = |what: &str| sentence.contains(what);
    assert!(says(&QUOTA.to_string()) && says("loom.quota") && says("deleted"), "{sentence}");
}

#[test]
fn at_the_quota_nothing_new_is_made_until_something_is_deleted() {
    let mut daemon = quota().start();
    let half = bytes_of(1, QUOTA / 2);
    for id in ["a", "b"] {
        post(daemon.loom(), id, &half).expect(201).whole();
    }
    let check = |daemon: &Daemon| {
        for target in ["/stream/c", "/stream", "/stream/a?force=true"] {
            assert_names_the_quota(&request(daemon.loom(), "POST", target, &[], b"x").expect(507));
            let mut conn = Conn::open(daemon.loom());
            conn.send(format!(
                "POST {target} HTTP/1.1\r\nHost: mill.test\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            ));
            assert_eq!(conn.answer().status, 507, "told before it sends");
        }
        daemon.get("/stream/c").expect(404);
        assert_eq!(ids(daemon), ["a", "b"]);
        assert!(daemon.get("/stream/a").expect(200).body == half, "what is there is read and not replaced");
        assert_eq!(daemon.metrics().sum("millpond_stream_bytes"), QUOTA as f64);
    };
    check(&daemon);
    // Counted from what is in the store.
    daemon.restart();
    check(&daemon);
    request(daemon.loom(), "DELETE", "/stream/a", &[], b"").expect(204);
    post(daemon.loom(), "c", &half).expect(201).whole();
    post(daemon.loom(), "d", b"x").expect(507);
    assert_eq!(daemon.metrics().sum_where("millpond_producers_refused_total", &[("bound", "quota")]), 7.0);
    daemon.reload_with(Setup::default().shards(4));
    eventually("the quota is gone", || (post(daemon.loom(), "d", b"x").status == 201).then_some(()));
}

#[test]
fn in_the_cache_class_room_comes_back_with_the_next_sync() {
    let daemon = quota().durability("cache").start();
    post(daemon.loom(), "a", &bytes_of(1, QUOTA)).expect(201).whole();
    post(daemon.loom(), "b", b"x").expect(507);
    request(daemon.loom(), "DELETE", "/stream/a", &[], b"").expect(204);
    eventually("there is room", || (post(daemon.loom(), "b", b"x").status == 201).then_some(()));
}

#[test]
fn a_body_that_could_never_fit_is_refused_at_once() {
    let daemon = quota().start();
    let answer = post(daemon.loom(), "huge", &bytes_of(1, QUOTA + 1)).expect(507);
    assert_names_the_quota(&answer);
    daemon.get("/stream/huge").expect(404);
}

#[test]
fn a_producer_that_reaches_the_quota_is_cut_with_what_fits() {
    let daemon = quota().start();
    let content = bytes_of(1, QUOTA + 1);
    let mut producer = Producer::begin(daemon.loom(), "cut");
    let reader = Live::get(daemon.loom(), "/stream/cut");
    let sending = content.chunks(50_000).try_for_each(|piece| producer.try_chunk(piece));
    let answer = producer.try_rest().expect("what the daemon had to say");
    assert_eq!((answer.status, answer.end), (201, End::Cut), "{sending:?}");
    assert!(answer.text().contains("loom.quota"), "{}", answer.text());
    let seen = reader.finish();
    assert_eq!(seen.trailer("x-stream-state"), Some("interrupted"));
    assert!(seen.body == content[..QUOTA], "all that fits and no more: {}", seen.body.len());
    // What only ends it needs no room; what adds to it does.
    let before = place(&daemon, "cut");
    assert_names_the_quota(&resume(&daemon, "cut", QUOTA as u64, b"x").expect(507));
    assert_eq!(place(&daemon, "cut"), before);
    resume(&daemon, "cut", QUOTA as u64, b"").expect(201).whole();
    assert_eq!(head(daemon.loom(), "/stream/cut").header("x-stream-state"), Some("complete"));
}

#[test]
fn many_producers_step_over_the_quota_by_less_than_a_receive_each() {
    const PRODUCERS: usize = 12;
    let daemon = quota().start();
    let loom = daemon.loom();
    let content = bytes_of(1, QUOTA);
    std::thread::scope(|scope| {
        for number in 0..PRODUCERS {
            let content = &content;
            scope.spawn(move || {
                // Some of them may come when it is reached already.
                let target = format!("/stream/p{number}");
                let Ok(mut producer) = Producer::try_begin(loom, &target, &[]) else { return };
                let piece = 1_000 + number * 20_000;
                while content.chunks(piece).all(|piece| producer.try_chunk(piece).is_ok()) {}
                let _ = producer.try_rest();
            });
        }
    });
    eventually("all of them are cut", || {
        (daemon.metrics().sum("millpond_streams_open") == 0.0).then_some(())
    });
    let there = lengths(&daemon);
    assert!((QUOTA..=QUOTA + PRODUCERS * RECEIVE_MAX).contains(&there), "{there} of {QUOTA}");
    assert_eq!(
        daemon.metrics().sum("millpond_stream_bytes"),
        there as f64,
        "what is counted is what is there"
    );
    for id in ids(&daemon) {
        let kept = daemon.get(&format!("/stream/{id}")).expect(200);
        let sent = content.iter().cycle().take(kept.body.len());
        assert!(kept.body.iter().eq(sent), "{id}: a prefix of what was sent");
        request(daemon.loom(), "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
    }
    assert_eq!(daemon.metrics().sum("millpond_stream_bytes"), 0.0);
    post(daemon.loom(), "again", b"x").expect(201).whole();
}

#[test]
fn a_length_that_is_only_announced_takes_no_room() {
    let daemon = Setup::default().shards(1).start();
    let live = || daemon.metrics().sum("millpond_live_bytes");
    let before = live();
    let mut producers = Vec::new();
    for number in 0..3 {
        let mut conn = Conn::open(daemon.loom());
        // More than any disk has.
        conn.send(format!(
            "POST /stream/huge-{number} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
            1u64 << 60
        ));
        assert_eq!(conn.head().status, 201);
        conn.send("a few bytes");
        let mut reader = Live::get(daemon.loom(), &format!("/stream/huge-{number}"));
        reader.wait_for(b"a few bytes");
        producers.push(conn);
    }
    let taken = live() - before;
    assert!(taken < (1 << 20) as f64, "{taken} bytes are reserved for 33");
    post(daemon.loom(), "another", b"fits").expect(201).whole();
}

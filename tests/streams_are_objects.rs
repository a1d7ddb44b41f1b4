//! One store, many doors: a stream is an object of the bucket `streams` and a file of the container `streams`, while it
//! grows and after it ended. Nobody writes it there, and only what is shared is seen.

mod common;

use std::sync::OnceLock;

use common::daemon::Shared;
use common::loom::{fresh_id, post};
use common::s3::{plain, refused, text_of, texts_of};
use common::vblob::{elements, refused as vblob_refused};
use common::{Answer, Daemon, End, Live, Producer, Setup, bytes_of, get, head, request};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().vblob("").s3("").share(&DAEMON)
}

/// A stream that has these bytes and may get more.
fn growing(daemon: &Daemon, id: &str, bytes: &[u8]) -> Producer {
    let mut producer = Producer::begin(daemon.loom(), id);
    producer.chunk(bytes);
    Live::get(daemon.loom(), &format!("/stream/{id}")).wait_len(bytes.len());
    producer
}

fn with(addr: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    request(addr, "GET", target, headers, b"")
}

/// What both dialects say of a stream: its bytes, its length, how it stands.
fn both(daemon: &Daemon) -> [(&str, &str); 2] {
    [(daemon.s3(), "x-amz-meta-"), (daemon.vblob(), "x-blb-meta-")]
}

#[test]
fn a_stream_that_has_ended_is_an_object_and_a_file() {
    let (daemon, id, content) = (daemon(), fresh_id("ended"), bytes_of(1, 700_000));
    post(daemon.loom(), &id, &content).expect(201);
    let target = format!("/streams/{id}");
    for (addr, meta) in both(&daemon) {
        let got = get(addr, &target).expect(200);
        assert_eq!((got.end, got.body == content), (End::Length, true));
        let told = head(addr, &target).expect(200);
        for answer in [&got, &told] {
            assert_eq!(answer.header("content-length"), Some("700000"));
            assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
            assert_eq!(answer.header(&format!("{meta}stream-state")), Some("complete"));
            assert_eq!(answer.header(&format!("{meta}stream-durable-offset")), Some("700000"));
        }
        assert_eq!(got.header("etag"), told.header("etag"));
        let part = with(addr, &target, &[("Range", "bytes=5-9")]).expect(206);
        assert_eq!(
            (&part.body[..], part.header("content-range")),
            (&content[5..10], Some("bytes 5-9/700000"))
        );
        assert_eq!(with(addr, &target, &[("Range", "bytes=-3")]).expect(206).body, content[699_997..]);
        let beyond = with(addr, &target, &[("Range", "bytes=700000-")]).expect(416);
        assert_eq!(beyond.header("content-range"), Some("bytes */700000"));
        // Nothing grows any more: the word changes nothing.
        let followed = get(addr, &format!("{target}?follow")).expect(200);
        assert_eq!(followed.body, content);
        get(addr, "/streams/no-such-stream").expect(404);
    }
    refused(&get(daemon.s3(), "/streams/no-such-stream"), 404, "NoSuchKey");
    vblob_refused(&get(daemon.vblob(), "/streams/no-such-stream"), 404, "NoSuchFile");
}

#[test]
fn a_live_stream_answers_what_is_there_with_its_length() {
    let (daemon, id, content) = (daemon(), fresh_id("live"), bytes_of(2, 100_000));
    let mut producer = growing(&daemon, &id, &content[..60_000]);
    let target = format!("/streams/{id}");
    for (addr, meta) in both(&daemon) {
        let got = get(addr, &target).expect(200);
        assert_eq!((got.end, got.body == content[..60_000]), (End::Length, true));
        assert_eq!(got.header(&format!("{meta}stream-state")), Some("open"));
        assert_eq!(head(addr, &target).header("content-length"), Some("60000"));
    }
    let before: Vec<Answer> = both(&daemon).iter().map(|(addr, _)| head(addr, &target)).collect();
    producer.chunk(&content[60_000..]);
    Live::get(daemon.loom(), &format!("/stream/{id}")).wait_len(content.len());
    for ((addr, _), before) in both(&daemon).into_iter().zip(before) {
        let tag = before.header("etag").expect("a tag");
        // Who has the tag of the beginning reads on in the beginning.
        let rest = with(addr, &target, &[("If-Match", tag), ("Range", "bytes=50000-79999")]).expect(206);
        assert_eq!(rest.header("content-range"), Some("bytes 50000-59999/60000"), "{rest:?}");
        assert_eq!((rest.header("etag"), &rest.body[..]), (Some(tag), &content[50_000..60_000]));
        // And is told that there is more by any other question.
        let news = with(addr, &target, &[("If-None-Match", tag)]).expect(200);
        assert_eq!(news.body, content);
        let tag = news.header("etag").expect("another tag");
        with(addr, &target, &[("If-None-Match", tag)]).expect(304);
        with(addr, &target, &[("If-Match", "\"0123456789abcdef0123456789abcdef\"")]).expect(412);
    }
    producer.finish().whole();
    for (addr, meta) in both(&daemon) {
        let told = head(addr, &target).expect(200);
        assert_eq!(told.header(&format!("{meta}stream-state")), Some("complete"));
    }
}

#[test]
fn follow_tails_a_live_stream_to_its_end() {
    let (daemon, id, content) = (daemon(), fresh_id("followed"), bytes_of(3, 300_000));
    let mut producer = growing(&daemon, &id, &content[..1000]);
    let target = format!("/streams/{id}?follow");
    let range = |addr: &str, range: &str| with(addr, &target, &[("Range", range)]);
    let request = |from: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: millpond.test\r\nRange: bytes={from}-\r\n\r\n").into_bytes()
    };
    let mut all: Vec<(Live, usize)> = Vec::new();
    for (addr, _) in both(&daemon) {
        all.push((Live::get(addr, &target), 0));
        all.push((Live::with(common::Conn::open(addr), &request("400")), 400));
        assert_eq!(head(addr, &target).expect(200).header("content-length"), None);
        assert_eq!(range(addr, "bytes=1001-").expect(416).header("content-range"), Some("bytes */1000"));
        range(addr, "bytes=1-2").expect(400);
    }
    for (live, from) in &mut all {
        live.wait_len(1000 - *from);
        assert_eq!(live.so_far().header("stream-offset"), Some(&*from.to_string()));
        assert_eq!(live.so_far().header("content-length"), None);
    }
    producer.chunk(&content[1000..]).conn();
    producer.finish().whole();
    for (live, from) in all {
        let answer = live.finish();
        assert!(answer.end == End::LastChunk && answer.body == content[from..], "{:?}", answer.end);
        assert_eq!(answer.trailer("x-stream-state"), Some("complete"));
        assert_eq!(answer.trailer("stream-next-offset"), Some("300000"));
    }
}

#[test]
fn streams_are_listed_in_order_folded_and_page_by_page() {
    let (daemon, base) = (Setup::default().vblob("").s3("").shards(2).start(), "dir");
    for name in ["a", "dir/1", "dir/2", "dir/sub/3", "dirx", "z"] {
        post(daemon.loom(), &name.replace('/', "%2F"), name.as_bytes()).expect(201);
    }
    let s3 = |query: &str| plain(daemon.s3(), "GET", &format!("/streams?{query}"), &[], b"").expect(200);
    let vblob = |query: &str| get(daemon.vblob(), &format!("/streams?{query}")).expect(200);
    let keys = ["a", "dir/1", "dir/2", "dir/sub/3", "dirx", "z"];
    let listed = s3("list-type=2");
    assert_eq!(texts_of(&listed, "Key"), keys);
    assert_eq!(texts_of(&listed, "Size"), ["1", "5", "5", "9", "4", "1"]);
    assert_eq!(elements(vblob("").text(), "Key"), keys);
    let folded = s3("delimiter=/");
    assert_eq!(texts_of(&folded, "Key"), ["a", "dirx", "z"]);
    assert_eq!(texts_of(&folded, "Prefix")[1..], ["dir/"]);
    let within = s3(&format!("prefix={base}/&delimiter=/"));
    assert_eq!(texts_of(&within, "Key"), ["dir/1", "dir/2"]);
    assert_eq!(texts_of(&within, "Prefix")[1..], ["dir/sub/"]);
    // Page by page, folded and not, every entry once.
    for (delimiter, entries) in [("", &keys[..]), ("&delimiter=/", &["a", "dir/", "dirx", "z"])] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = s3(&format!("list-type=2&max-keys=1{delimiter}{token}"));
            seen.extend(texts_of(&page, "Key"));
            seen.extend(texts_of(&page, "Prefix").into_iter().skip(1));
            if text_of(&page, "IsTruncated") == "false" {
                break;
            }
            token = format!("&continuation-token={}", text_of(&page, "NextContinuationToken"));
        }
        assert_eq!(seen, entries, "{delimiter}");
        let (mut seen, mut marker) = (Vec::new(), String::new());
        loop {
            let page = vblob(&format!("max-keys=2{delimiter}{marker}"));
            let page = page.text();
            seen.extend(elements(page, "Key").into_iter().map(str::to_owned));
            seen.extend(elements(page, "Prefix").into_iter().skip(1).map(str::to_owned));
            let [next] = elements(page, "NextMarker")[..] else { break };
            marker = format!("&marker={next}");
        }
        seen.sort();
        assert_eq!(seen, entries, "{delimiter}");
    }
    assert_eq!(texts_of(&s3("start-after=dir/2&list-type=2"), "Key"), keys[3..]);
    assert_eq!(elements(vblob("marker=dir/2").text(), "Key"), keys[2..]);
    assert_eq!(texts_of(&plain(daemon.s3(), "GET", "/", &[], b""), "Name"), ["streams"]);
    assert_eq!(elements(get(daemon.vblob(), "/").text(), "Name"), ["streams"]);
    plain(daemon.s3(), "HEAD", "/streams", &[], b"").expect(200);
}

#[test]
fn nobody_writes_streams_through_another_door() {
    let (daemon, id) = (daemon(), fresh_id("kept"));
    post(daemon.loom(), &id, b"content").expect(201);
    plain(daemon.s3(), "PUT", "/nobody-writes", &[], b"").expect(200);
    plain(daemon.s3(), "PUT", "/nobody-writes/k", &[], b"k").expect(200);
    let target = format!("/streams/{id}");
    let s3 = |method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]| {
        plain(daemon.s3(), method, target, headers, body)
    };
    refused(&s3("PUT", &target, &[], b"other"), 403, "AccessDenied");
    refused(&s3("DELETE", &target, &[], b""), 403, "AccessDenied");
    refused(&s3("POST", &format!("{target}?uploads"), &[], b""), 403, "AccessDenied");
    refused(&s3("PUT", &target, &[("x-amz-copy-source", "nobody-writes/k")], b""), 403, "AccessDenied");
    refused(&s3("DELETE", "/streams", &[], b""), 403, "AccessDenied");
    refused(&s3("PUT", "/streams", &[], b""), 409, "BucketAlreadyExists");
    // To copy would be to store the bytes twice.
    let source = [("x-amz-copy-source", &*format!("streams/{id}"))];
    refused(&s3("PUT", "/nobody-writes/copy", &source, b""), 501, "NotImplemented");
    let many = format!("<Delete><Object><Key>{id}</Key></Object></Delete>");
    let answer = s3("POST", "/streams?delete", &[], many.as_bytes()).expect(200);
    assert_eq!((text_of(&answer, "Code"), text_of(&answer, "Key")), ("AccessDenied".into(), id.clone()));
    let vblob = |method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]| {
        request(daemon.vblob(), method, target, headers, body)
    };
    vblob_refused(&vblob("PUT", &target, &[], b"other"), 403, "AccessDenied");
    vblob_refused(&vblob("DELETE", &target, &[], b""), 403, "AccessDenied");
    vblob_refused(&vblob("PUT", "/streams", &[], b""), 403, "AccessDenied");
    vblob_refused(&vblob("DELETE", "/streams", &[], b""), 403, "AccessDenied");
    let from = [("x-blb-copy-from", &*target), ("Content-Length", "0")];
    vblob_refused(&vblob("PUT", "/nobody-writes/copy", &from, b""), 400, "NotImplemented");
    assert_eq!(get(daemon.loom(), &format!("/stream/{id}")).expect(200).body, b"content");
}

#[test]
fn only_what_is_shared_is_seen() {
    let mut daemon = Setup::default().vblob("").s3("").top("doors.share = []").start();
    post(daemon.loom(), "mine", b"content").expect(201);
    refused(&get(daemon.s3(), "/streams/mine"), 404, "NoSuchBucket");
    vblob_refused(&get(daemon.vblob(), "/streams"), 404, "NoSuchContainer");
    assert_eq!(texts_of(&plain(daemon.s3(), "GET", "/", &[], b""), "Name"), [""; 0]);
    refused(&plain(daemon.s3(), "PUT", "/streams", &[], b""), 409, "BucketAlreadyExists");
    daemon.reload_with(Setup::default().vblob("").s3("").top("doors.share = [\"ion\"]"));
    common::eventually("the bucket is seen", || (get(daemon.s3(), "/streams").status == 200).then_some(()));
    refused(&get(daemon.s3(), "/streams/mine"), 404, "NoSuchKey");
    assert_eq!(texts_of(&get(daemon.s3(), "/streams"), "Key"), [""; 0]);
    daemon.reload_with(Setup::default().vblob("").s3("").top("doors.share = [\"loom\"]"));
    common::eventually("the stream is seen", || {
        (get(daemon.s3(), "/streams/mine").status == 200).then_some(())
    });
}

/// Catches loom writing under the name of another dialect, whose streams it may at most read.
#[test]
fn ids_of_other_dialects_are_theirs() {
    let daemon = daemon();
    for prefix in ["serpentine", "ion", "micro"] {
        let target = format!("/stream/{prefix}%2Fx");
        for method in ["POST", "DELETE"] {
            let answer = request(daemon.loom(), method, &target, &[], b"").expect(403);
            assert!(common::error_of(&answer).contains(&format!("{prefix}/")), "{answer:?}");
        }
        get(daemon.loom(), &target).expect(404);
        post(daemon.loom(), &format!("{prefix}x"), b"").expect(201);
    }
}

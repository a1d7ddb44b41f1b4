//! Files of vblob: what is stored is what is read, whole or in part, under any key, and nothing in between.

pub(crate) mod common;

use std::sync::OnceLock;

use common::http::request_bytes;
use common::moto;
use common::vblob::{elements, fresh_container, put, refused};
use common::{Conn, Daemon, End, Live, Shared, bytes_of, eventually, get, head, request, sha256};
use md5::{Digest, Md5};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    moto::vblob().share(&DAEMON)
}

fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn md5_base64(bytes: &[u8]) -> String {
    millpond::codec::text::base64(&Md5::digest(bytes))
}

// ---- storing ----

#[test]
fn a_file_comes_back_with_its_tag_date_type_and_metadata() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "plain");
    let target = format!("/{container}/a");
    let headers = [
        ("Content-Type", "text/plain"),
        ("Cache-Control", "no-cache"),
        ("Content-Disposition", "inline"),
        ("Content-Encoding", "identity"),
        ("Expires", "never"),
        ("X-Blb-Meta-One", "1"),
        ("x-blb-meta-one", "2"),
        ("X-Unknown", "dropped"),
    ];
    let stored = put(daemon.vblob(), &target, &headers, b"hello").expect(200);
    assert_eq!(stored.header("etag"), Some("5d41402abc4b2a76b9719d911017c592"), "bare, as ever");
    assert_eq!((stored.header("content-length"), stored.body.as_slice()), (Some("0"), &b""[..]));
    let answer = get(daemon.vblob(), &target).expect(200);
    assert_eq!((answer.body.as_slice(), answer.end), (&b"hello"[..], End::Length));
    for (name, value) in [
        ("etag", "5d41402abc4b2a76b9719d911017c592"),
        ("accept-ranges", "bytes"),
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("content-disposition", "inline"),
        ("content-encoding", "identity"),
        ("expires", "never"),
        ("x-blb-meta-one", "1, 2"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}: {answer:?}");
    }
    assert_eq!(answer.header("x-unknown"), None);
    let modified = answer.header("last-modified").expect("a date");
    assert!(modified.ends_with(" GMT") && modified.len() == 29, "{modified}");
    let asked = head(daemon.vblob(), &target).expect(200);
    assert_eq!((asked.header("content-length"), asked.end), (Some("5"), End::Bodyless));
    assert_eq!(asked.header("x-blb-meta-one"), Some("1, 2"));
}

#[test]
fn a_file_without_a_type_is_octets() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "typeless"));
    put(daemon.vblob(), &target, &[], b"x").expect(200);
    assert_eq!(get(daemon.vblob(), &target).header("content-type"), Some("binary/octet-stream"));
}

#[test]
fn an_empty_file_is_a_file() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "empty"));
    let stored = put(daemon.vblob(), &target, &[], b"").expect(200);
    assert_eq!(stored.header("etag"), Some("d41d8cd98f00b204e9800998ecf8427e"));
    let answer = get(daemon.vblob(), &target).expect(200);
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("0"), 0));
}

#[test]
fn a_length_or_chunks_are_needed() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "lengths"));
    refused(&request(daemon.vblob(), "PUT", &target, &[], b""), 411, "MissingContentLength");
    let mut conn = Conn::open(daemon.vblob());
    conn.send(request_bytes("PUT", &target, &[("Transfer-Encoding", "chunked")], b""));
    conn.send(b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n");
    conn.answer().expect(200);
    assert_eq!(get(daemon.vblob(), &target).expect(200).body, b"abcdefg");
}

#[test]
fn large_files_come_back_with_the_md5_of_all_their_bytes() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "large");
    for (seed, len) in [(1, 65_537), (2, 300_000), (3, 5 << 20), (4, (9 << 20) + 1)] {
        let (target, bytes) = (format!("/{container}/{len}"), bytes_of(seed, len));
        let stored =
            put(daemon.vblob(), &target, &[("Content-MD5", &md5_base64(&bytes))], &bytes).expect(200);
        assert_eq!(stored.header("etag"), Some(md5_hex(&bytes).as_str()), "{len} bytes");
        let answer = get(daemon.vblob(), &target).expect(200).whole();
        assert_eq!(sha256(&answer.body), sha256(&bytes), "{len} bytes");
    }
}

#[test]
fn a_wrong_content_md5_stores_nothing_and_keeps_what_was_there() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "digest"));
    let wrong = md5_base64(b"other");
    refused(&put(daemon.vblob(), &target, &[("Content-MD5", &wrong)], b"new"), 400, "InvalidDigest");
    refused(&get(daemon.vblob(), &target), 404, "NoSuchFile");
    put(daemon.vblob(), &target, &[("Content-MD5", &md5_base64(b"old"))], b"old").expect(200);
    for wrong in [wrong.as_str(), "x", "", "AAAA", &md5_hex(b"new")] {
        refused(&put(daemon.vblob(), &target, &[("Content-MD5", wrong)], b"new"), 400, "InvalidDigest");
    }
    assert_eq!(get(daemon.vblob(), &target).body, b"old");
}

#[test]
fn keys_are_bytes_and_never_paths() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "keys");
    let long = "k".repeat(1024);
    let keys = [
        "a",
        "a/",
        "a//b",
        "/",
        "..",
        "../..",
        "a/../b",
        ".",
        "%20",
        "a%20b%09c",
        "%0A",
        "a+b",
        "%2B",
        "%25",
        "%2F%2F",
        "%2e%2e%2Fetc",
        "a%3Fb",
        "%00",
        "%FF%FE",
        "%E6%97%A5",
        "*",
        "$(x);`y`",
        "'",
        "%22",
        "%26lt;",
        &long,
    ];
    // Of keys of an S3 server that are no text, of those that moto takes for paths, it knows nothing.
    let is_there = |key: &&str| !moto::is_used() || !["/", "%00", "%FF%FE", "%2F%2F", "%0A"].contains(key);
    let keys: Vec<&str> = keys.into_iter().filter(is_there).collect();
    for key in &keys {
        put(daemon.vblob(), &format!("/{container}/{key}"), &[], key.as_bytes()).expect(200);
    }
    for key in keys {
        assert_eq!(
            get(daemon.vblob(), &format!("/{container}/{key}")).expect(200).body,
            key.as_bytes(),
            "{key}"
        );
    }
    let same = get(daemon.vblob(), &format!("/{container}/%61%2f%2E%2E%2fb")).expect(200);
    assert_eq!(same.body, b"a/../b", "decoded once, and `%2F` is a slash");
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "badkeys");
    for method in ["GET", "PUT", "DELETE"] {
        let zero = [("Content-Length", "0")];
        let asked = |key: &str| request(daemon.vblob(), method, &format!("/{container}/{key}"), &zero, b"");
        refused(&asked(&"k".repeat(1025)), 400, "KeyTooLongError");
        refused(&asked("%zz"), 400, "InvalidURI");
        refused(&asked("a%2"), 400, "InvalidURI");
    }
    put(daemon.vblob(), &format!("/{container}/{}", "%6B".repeat(1024)), &[], b"x").expect(200);
}

#[test]
fn a_query_of_a_file_means_nothing() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "query"));
    put(daemon.vblob(), &format!("{target}?acl"), &[], b"x").expect(200);
    assert_eq!(get(daemon.vblob(), &format!("{target}?versions&x=%zz")).expect(200).body, b"x");
}

// ---- whole or not at all ----

#[test]
fn half_an_upload_is_seen_by_nobody_and_replaces_nothing() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "half");
    let (target, other) = (format!("/{container}/a"), format!("/{container}/b"));
    put(daemon.vblob(), &target, &[], b"old").expect(200);
    for target in [&target, &other] {
        let mut conn = Conn::open(daemon.vblob());
        conn.send(format!("PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n"));
        conn.send(bytes_of(1, 399_999));
        assert_eq!(get(daemon.vblob(), &format!("/{container}/a")).body, b"old");
        conn.half_close();
        assert!(conn.rest().is_empty(), "half a body has no answer");
    }
    assert_eq!(get(daemon.vblob(), &target).body, b"old");
    refused(&get(daemon.vblob(), &other), 404, "NoSuchFile");
    assert_eq!(elements(get(daemon.vblob(), &format!("/{container}")).text(), "Key"), ["a"]);
}

#[test]
fn the_last_to_finish_wins() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "last"));
    let begin = || {
        let mut conn = Conn::open(daemon.vblob());
        conn.send(format!("PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwi"));
        conn
    };
    let (mut first, mut second) = (begin(), begin());
    second.send("nds");
    second.answer().expect(200);
    assert_eq!(get(daemon.vblob(), &target).body, b"winds");
    first.send("ndy");
    first.answer().expect(200);
    assert_eq!(get(daemon.vblob(), &target).body, b"windy");
}

#[test]
fn who_reads_keeps_the_bytes_that_were_there_when_reading_began() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "readers");
    let target = format!("/{container}/a");
    let old = bytes_of(1, 24 << 20);
    put(daemon.vblob(), &target, &[], &old).expect(200);
    let conn = Conn::open(daemon.vblob());
    conn.small_receive_buffer(64 << 10);
    let mut slow = Live::with(conn, &request_bytes("GET", &target, &[], b""));
    slow.wait_len(1);
    put(daemon.vblob(), &target, &[], b"new").expect(200);
    request(daemon.vblob(), "DELETE", &target, &[], b"").expect(204);
    slow.wait_len(old.len());
    assert_eq!(sha256(slow.seen()), sha256(&old));
    refused(&get(daemon.vblob(), &target), 404, "NoSuchFile");
}

#[test]
fn what_was_answered_is_there_after_a_crash() {
    let mut daemon = moto::vblob().start();
    for container in ["abc", "gone", "more"] {
        request(daemon.vblob(), "PUT", &format!("/{container}"), &[], b"").expect(200);
    }
    let large = bytes_of(1, 700_000);
    put(daemon.vblob(), "/abc/small", &[("x-blb-meta-a", "b")], b"small").expect(200);
    put(daemon.vblob(), "/abc/large", &[], &large).expect(200);
    put(daemon.vblob(), "/abc/twice", &[], b"first").expect(200);
    put(daemon.vblob(), "/abc/twice", &[], b"second").expect(200);
    put(daemon.vblob(), "/abc/deleted", &[], b"x").expect(200);
    request(daemon.vblob(), "PUT", "/abc/copy", &[("x-blb-copy-from", "/abc/large")], b"").expect(200);
    request(daemon.vblob(), "DELETE", "/abc/deleted", &[], b"").expect(204);
    request(daemon.vblob(), "DELETE", "/abc/large", &[], b"").expect(204);
    request(daemon.vblob(), "DELETE", "/gone", &[], b"").expect(204);
    daemon.kill9();
    daemon.restart();
    let small = get(daemon.vblob(), "/abc/small").expect(200);
    assert_eq!((small.body.as_slice(), small.header("x-blb-meta-a")), (&b"small"[..], Some("b")));
    assert_eq!(get(daemon.vblob(), "/abc/twice").body, b"second");
    assert_eq!(sha256(&get(daemon.vblob(), "/abc/copy").whole().body), sha256(&large));
    assert_eq!(elements(get(daemon.vblob(), "/abc").text(), "Key"), ["copy", "small", "twice"]);
    assert_eq!(elements(get(daemon.vblob(), "/").text(), "Name"), ["abc", "more", "streams"]);
}

// ---- reading ----

#[test]
fn a_missing_file_or_container_is_told_at_once_by_its_code() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "missing");
    refused(&get(daemon.vblob(), &format!("/{container}/a")), 404, "NoSuchFile");
    assert_eq!(head(daemon.vblob(), &format!("/{container}/a")).status, 404);
    for method in ["GET", "PUT", "DELETE"] {
        let answer = request(daemon.vblob(), method, "/no-such/a", &[("Content-Length", "0")], b"");
        refused(&answer, 404, "NoSuchContainer");
    }
    assert_eq!(head(daemon.vblob(), "/no-such/a").status, 404);
}

#[test]
fn ranges_are_those_of_the_rfc() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "ranges"));
    put(daemon.vblob(), &target, &[], b"0123456789").expect(200);
    for (range, status, body, content_range) in [
        ("bytes=0-1", 206, "01", Some("bytes 0-1/10")),
        ("bytes=3-", 206, "3456789", Some("bytes 3-9/10")),
        ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
        ("bytes=5-50", 206, "56789", Some("bytes 5-9/10")),
        ("bytes=-50", 206, "0123456789", Some("bytes 0-9/10")),
        ("bytes=9-9", 206, "9", Some("bytes 9-9/10")),
        ("bytes=5-2", 200, "0123456789", None),
        ("bytes=-", 200, "0123456789", None),
        ("bytes=0-1,3-4", 200, "0123456789", None),
        ("items=0-1", 200, "0123456789", None),
    ] {
        let answer = request(daemon.vblob(), "GET", &target, &[("Range", range)], b"");
        assert_eq!((answer.status, answer.text()), (status, body), "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
        let answer = request(daemon.vblob(), "GET", &target, &[("Range", range)], b"");
        refused(&answer, 416, "InvalidRange");
        assert_eq!(answer.header("content-range"), Some("bytes */10"), "{range}");
    }
    let asked = request(daemon.vblob(), "HEAD", &target, &[("Range", "bytes=0-1")], b"");
    assert_eq!((asked.status, asked.header("content-length")), (200, Some("10")), "ranges are for GET");
}

#[test]
fn a_range_of_a_large_file_is_its_bytes() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "part"));
    let bytes = bytes_of(7, 3 << 20);
    put(daemon.vblob(), &target, &[], &bytes).expect(200);
    for (from, to) in [(0, 1), (262_143, 262_145), (1, 3 << 20), (1_000_000, 2_500_000)] {
        let range = format!("bytes={from}-{}", to - 1);
        let answer = request(daemon.vblob(), "GET", &target, &[("Range", &range)], b"").expect(206);
        assert_eq!(sha256(&answer.body), sha256(&bytes[from..to]), "{range}");
    }
}

// ---- conditions ----

const LONG_AGO: &str = "Sat, 01 Jan 2000 00:00:00 GMT";

#[test]
fn conditions_on_reading_hold_or_not() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "conditions"));
    put(daemon.vblob(), &target, &[], b"hello").expect(200);
    let bare = "5d41402abc4b2a76b9719d911017c592";
    let (quoted, weak) = (format!("\"{bare}\""), format!("W/\"{bare}\""));
    let list = format!("\"x\", {quoted}");
    let modified = get(daemon.vblob(), &target).header("last-modified").unwrap().to_owned();
    let upper = bare.to_uppercase();
    for (name, value, status) in [
        ("If-Match", bare, 200),
        ("If-Match", &quoted, 200),
        ("If-Match", &list, 200),
        ("If-Match", "*", 200),
        ("If-Match", &upper, 412),
        ("If-Match", &weak, 412),
        ("If-Match", "\"x\"", 412),
        ("If-None-Match", bare, 304),
        ("If-None-Match", &quoted, 304),
        ("If-None-Match", &weak, 304),
        ("If-None-Match", &list, 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"x\"", 200),
        ("If-Modified-Since", &modified, 304),
        ("If-Modified-Since", LONG_AGO, 200),
        ("If-Modified-Since", "yesterday", 200),
        ("If-Unmodified-Since", &modified, 200),
        ("If-Unmodified-Since", LONG_AGO, 412),
        ("If-Unmodified-Since", "yesterday", 200),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = request(daemon.vblob(), method, &target, &[(name, value)], b"");
            assert_eq!(answer.status, status, "{method} {name}: {value}");
            if status == 304 {
                assert_eq!((answer.end, answer.body.len()), (End::Bodyless, 0));
                assert_eq!(answer.header("etag"), Some(bare));
                assert_eq!(answer.header("last-modified"), Some(modified.as_str()));
            }
        }
    }
    let failed = request(daemon.vblob(), "GET", &target, &[("If-Match", "x"), ("If-None-Match", bare)], b"");
    refused(&failed, 412, "PreconditionFailed");
}

#[test]
fn conditions_and_ranges_go_together() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "both"));
    let stored = put(daemon.vblob(), &target, &[], b"hello").expect(200);
    let etag = stored.header("etag").unwrap();
    let quoted = format!("\"{etag}\"");
    let asked = |name, value| {
        request(daemon.vblob(), "GET", &target, &[("Range", "bytes=1-2"), (name, value)], b"").status
    };
    assert_eq!(asked("If-Match", etag), 206);
    assert_eq!(asked("If-Match", "x"), 412);
    assert_eq!(asked("If-None-Match", etag), 304);
    assert_eq!(asked("If-Range", &quoted), 206);
    assert_eq!(asked("If-Range", "\"x\""), 200, "the whole, since it is another one");
    assert_eq!(asked("If-Range", LONG_AGO), 200);
}

#[test]
fn conditions_on_storing_are_judged_with_the_change() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "guarded"));
    let guarded = |name: &str, value: &str, body: &[u8]| put(daemon.vblob(), &target, &[(name, value)], body);
    refused(&guarded("If-Match", "*", b"0"), 412, "PreconditionFailed");
    let first = guarded("If-None-Match", "*", b"1").expect(200);
    refused(&guarded("If-None-Match", "*", b"2"), 412, "PreconditionFailed");
    let etag = first.header("etag").unwrap();
    refused(&guarded("If-Match", "\"x\"", b"2"), 412, "PreconditionFailed");
    refused(&guarded("If-None-Match", etag, b"2"), 412, "PreconditionFailed");
    assert_eq!(get(daemon.vblob(), &target).body, b"1");
    guarded("If-Match", &format!("\"{etag}\""), b"2").expect(200);
    refused(&guarded("If-Match", etag, b"3"), 412, "PreconditionFailed");
    assert_eq!(get(daemon.vblob(), &target).body, b"2");
    let delete = |name: &str, value: &str| request(daemon.vblob(), "DELETE", &target, &[(name, value)], b"");
    refused(&delete("If-Match", etag), 412, "PreconditionFailed");
    assert_eq!(get(daemon.vblob(), &target).body, b"2");
    delete("If-Match", "*").expect(204);
    refused(&delete("If-Match", "*"), 412, "PreconditionFailed");
}

#[test]
fn of_many_who_create_at_once_one_does() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "race");
    for round in 0..10 {
        let target = format!("/{container}/{round}");
        let done: Vec<(u16, String)> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..6)
                .map(|who| {
                    let (target, addr) = (&target, daemon.vblob());
                    scope.spawn(move || {
                        let body = format!("{who}");
                        let answer = put(addr, target, &[("If-None-Match", "*")], body.as_bytes());
                        (answer.status, body)
                    })
                })
                .collect();
            tries.into_iter().map(|handle| handle.join().unwrap()).collect()
        });
        let won: Vec<_> = done.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(won.len(), 1, "{done:?}");
        assert!(done.iter().all(|(status, _)| [200, 412].contains(status)), "{done:?}");
        assert_eq!(get(daemon.vblob(), &target).text(), won[0].1);
    }
}

// ---- copying and deleting ----

#[test]
fn a_copy_has_bytes_and_metadata_and_outlives_its_source() {
    let daemon = daemon();
    let addr = daemon.vblob();
    let (from, to) = (fresh_container(addr, "source"), fresh_container(addr, "target"));
    let bytes = bytes_of(1, 300_000);
    put(addr, &format!("/{from}/a%20b"), &[("Content-Type", "a/b"), ("x-blb-meta-m", "1")], &bytes)
        .expect(200);
    let fields = [("x-blb-copy-from", format!("/{from}/a%20b")), ("x-blb-meta-m", "ignored".into())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let copied = request(addr, "PUT", &format!("/{to}/c"), &fields, b"").expect(200);
    let text = copied.text();
    let etag = format!("&quot;{}&quot;", md5_hex(&bytes));
    assert_eq!(copied.header("content-type"), Some("application/xml"));
    assert_eq!(elements(text, "ETag"), [etag.as_str()]);
    let date = elements(text, "LastModified")[0];
    assert!(date.len() == 24 && date.ends_with('Z') && &date[10..11] == "T", "{date}");
    assert!(
        text.contains("\n<FileCopy xmlns=\"https://github.com/vmware-bdc/vblob/\"><LastModified>"),
        "{text}"
    );
    request(addr, "DELETE", &format!("/{from}/a%20b"), &[], b"").expect(204);
    let answer = get(addr, &format!("/{to}/c")).expect(200);
    assert_eq!(sha256(&answer.body), sha256(&bytes));
    assert_eq!((answer.header("content-type"), answer.header("x-blb-meta-m")), (Some("a/b"), Some("1")));
}

#[test]
fn replacing_metadata_replaces_all_of_it_also_in_place() {
    let daemon = daemon();
    let addr = daemon.vblob();
    let container = fresh_container(addr, "replace");
    let target = format!("/{container}/a");
    put(addr, &target, &[("Content-Type", "a/b"), ("Expires", "then"), ("x-blb-meta-old", "1")], b"x")
        .expect(200);
    let fields = [
        ("x-blb-copy-from", &target[1..]),
        ("x-blb-metadata-copy-or-replace", "replace"),
        ("x-blb-meta-new", "2"),
        ("Cache-Control", "no-store"),
    ];
    request(addr, "PUT", &target, &fields, b"").expect(200);
    let answer = get(addr, &target).expect(200);
    assert_eq!(answer.body, b"x");
    assert_eq!((answer.header("x-blb-meta-old"), answer.header("x-blb-meta-new")), (None, Some("2")));
    assert_eq!((answer.header("expires"), answer.header("cache-control")), (None, Some("no-store")));
    assert_eq!(answer.header("content-type"), Some("binary/octet-stream"));
}

#[test]
fn copies_that_make_no_sense_are_refused() {
    let daemon = daemon();
    let addr = daemon.vblob();
    let container = fresh_container(addr, "odd");
    let target = format!("/{container}/a");
    put(addr, &target, &[], b"x").expect(200);
    let copy = |from: &str, word: &str| {
        let fields = [("x-blb-copy-from", from), ("x-blb-metadata-copy-or-replace", word)];
        request(addr, "PUT", &target, &fields, b"")
    };
    refused(&copy(&target, "COPY"), 400, "NotImplemented");
    refused(&copy(&target, "MERGE"), 400, "NotImplemented");
    refused(&copy(&format!("/{container}/none"), "COPY"), 404, "NoSuchFile");
    refused(&copy("/no-such/a", "COPY"), 404, "NoSuchContainer");
    refused(&copy("/NO/a", "COPY"), 400, "InvalidContainerName");
    refused(&copy(&container, "COPY"), 400, "InvalidArgument");
    let fields = [("x-blb-copy-from", target.as_str())];
    refused(&request(addr, "PUT", "/no-such/a", &fields, b""), 404, "NoSuchContainer");
    let fields = [("x-blb-copy-from", target.as_str()), ("If-None-Match", "*")];
    request(addr, "PUT", &format!("/{container}/b"), &fields, b"").expect(200);
    refused(&request(addr, "PUT", &format!("/{container}/b"), &fields, b""), 412, "PreconditionFailed");
}

#[test]
fn deleting_is_done_whether_or_not_it_was_there() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "delete"));
    put(daemon.vblob(), &target, &[], b"x").expect(200);
    for _ in 0..2 {
        let answer = request(daemon.vblob(), "DELETE", &target, &[], b"").expect(204);
        assert_eq!((answer.header("content-length"), answer.end), (None, End::Bodyless));
        refused(&get(daemon.vblob(), &target), 404, "NoSuchFile");
    }
}

// ---- connections ----

#[test]
fn connections_stay_open_and_take_requests_ahead() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "ahead"));
    let mut conn = Conn::open(daemon.vblob());
    let requests = [
        request_bytes("PUT", &target, &[], b"one"),
        request_bytes("GET", &target, &[], b""),
        request_bytes("POST", &target, &[], b"ignored"),
        request_bytes("PUT", &target, &[], b"two"),
        request_bytes("GET", &target, &[], b""),
        request_bytes("DELETE", &target, &[], b""),
        request_bytes("GET", &target, &[], b""),
    ];
    conn.send(requests.concat());
    let statuses: Vec<u16> = requests
        .iter()
        .map(|_| {
            let answer = conn.answer();
            assert!(!answer.closes(), "{answer:?}");
            answer.status
        })
        .collect();
    assert_eq!(statuses, [200, 200, 405, 200, 200, 204, 404]);
}

#[test]
fn a_peer_that_waits_is_told_to_go_on_or_why_not() {
    let daemon = daemon();
    let target = format!("/{}/a", fresh_container(daemon.vblob(), "expect"));
    let ask = |field: &str| {
        let mut conn = Conn::open(daemon.vblob());
        conn.send(format!(
            "PUT {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n{field}\r\n"
        ));
        let head = conn.head();
        (conn, head)
    };
    let (mut conn, head) = ask("");
    assert_eq!(head.status, 100);
    conn.send("hello");
    conn.answer().expect(200);
    assert_eq!(ask("If-None-Match: *\r\n").1.status, 412, "before it sends a byte");
    assert_eq!(ask("Content-MD5: x\r\n").1.status, 400);
}

#[test]
fn requests_and_bytes_are_counted() {
    let daemon = moto::vblob().start();
    request(daemon.vblob(), "PUT", "/abc", &[], b"").expect(200);
    put(daemon.vblob(), "/abc/a", &[], b"12345").expect(200);
    get(daemon.vblob(), "/abc/a").expect(200);
    eventually("the page counts them", || {
        let page = get(daemon.admin(), "/metrics").text().to_owned();
        let requests = page.contains("millpond_http_requests_total{dialect=\"vblob\",class=\"2xx\"} 3");
        let received = page.lines().any(|line| line.contains("dialect=\"vblob\"") && line.ends_with(" 5"));
        (requests && received).then_some(())
    });
}

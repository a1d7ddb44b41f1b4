//! What ion answers, row by row of what its dialect promises: modules, secrets, blobs, documents, events, commits.

pub(crate) mod common;

use common::http::{Conn, Live, request_bytes};
use common::ion::{PAIR, ask, ask_with, module, refused};
use common::moto;
use common::{Daemon, Setup, bytes_of, json_of, request};
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Modules of tests that need one of their own: each is its own chain.
const ALONE: [&str; 14] = [
    "names", "empty", "depth", "whole", "cut", "ranges", "types", "docs", "exact", "events", "follow",
    "again", "nothing", "lists",
];

fn daemon() -> common::Shared {
    static SHARED: OnceLock<Daemon> = OnceLock::new();
    let alone: String = ALONE.iter().map(|name| module(name, "")).collect();
    let typed = module("typed", "valid_event_types = [\"done\", \"failed\"]");
    let apart =
        module("apart", "listen = \"127.0.0.1:0\"").replace("secret = \"apart\"", "secret = \"child\"");
    moto::ion(&[PAIR, &alone, &typed, &apart].concat()).share(&SHARED)
}

/// One that keeps blobs itself, wherever the others do.
fn here() -> common::Shared {
    static SHARED: OnceLock<Daemon> = OnceLock::new();
    Setup::default().ion(&["commit", "swap"].map(|name| module(name, "")).concat()).share(&SHARED)
}

#[test]
fn an_unknown_path_is_404_and_a_wrong_method_405_before_the_secret() {
    let daemon = daemon();
    for path in ["/", "/self", "/self/blob/", "//self/blobs", "/Self/blob", "/parent/blobs", "/self/meta/x"] {
        refused(&request(daemon.ion(), "GET", path, &[], b""), 404);
    }
    for (path, allowed, wrong) in [
        ("/parent/blob?res=a", "GET, HEAD", "PUT"),
        ("/self/blob?res=a", "GET, HEAD, PUT, DELETE", "POST"),
        ("/self/blobs", "GET, HEAD", "DELETE"),
        ("/parent/meta", "GET, HEAD", "PUT"),
        ("/self/meta", "GET, HEAD, PUT", "DELETE"),
        ("/meta", "GET, HEAD", "POST"),
        ("/events", "GET, HEAD, POST", "PUT"),
        ("/events", "GET, HEAD, POST", "DELETE"),
        ("/self/commit", "POST", "GET"),
        ("/self/blobs", "GET, HEAD", "OPTIONS"),
    ] {
        let answer = request(daemon.ion(), wrong, path, &[], b"");
        refused(&answer, 405);
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
}

#[test]
fn a_missing_an_empty_and_a_wrong_secret_are_401_on_every_path() {
    let daemon = daemon();
    for (method, path) in [
        ("GET", "/parent/blob?res=a"),
        ("GET", "/self/blob?res=a"),
        ("PUT", "/self/blob?res=a"),
        ("DELETE", "/self/blob?res=a"),
        ("GET", "/self/blobs"),
        ("GET", "/parent/meta"),
        ("GET", "/self/meta"),
        ("PUT", "/self/meta"),
        ("GET", "/meta"),
        ("POST", "/events"),
        ("GET", "/events"),
        ("POST", "/self/commit"),
    ] {
        refused(&request(daemon.ion(), method, path, &[], b""), 401);
        for secret in ["", "x", "childx", "chil", "CHILD", "child, child"] {
            refused(&ask(daemon.ion(), secret, method, path, b""), 401);
        }
    }
    // In the query it is none.
    refused(&request(daemon.ion(), "GET", "/self/blobs?secret=child", &[], b""), 401);
}

#[test]
fn a_repeated_secret_counts_where_all_are_the_same() {
    let daemon = daemon();
    let twice = |one: &str, two: &str| {
        request(daemon.ion(), "GET", "/self/blobs", &[("secret", one), ("Secret", two)], b"")
    };
    twice("child", "child").expect(200);
    for (one, two) in [("child", "x"), ("x", "child"), ("child", "parent"), ("child", ""), ("", "child")] {
        refused(&twice(one, two), 401);
    }
}

#[test]
fn the_secret_is_judged_before_anything_of_the_body_is_asked_for() {
    let daemon = daemon();
    let mut conn = Conn::open(daemon.ion());
    conn.send(
        "PUT /self/blob?res=a HTTP/1.1\r\nHost: a\r\nsecret: wrong\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
    );
    let answer = conn.answer_to("PUT");
    refused(&answer, 401);
}

#[test]
fn a_port_of_its_own_serves_one_module_and_no_other_secret() {
    let daemon = daemon();
    let own = daemon.ready()["ion.module"].as_str().expect("a listener of its own");
    // The secret is the child's as well: on this port it is another module's.
    ask(own, "child", "PUT", "/self/blob?res=here", b"apart").expect(200);
    ask(daemon.ion(), "child", "GET", "/self/blob?res=here", b"").expect(404);
    assert_eq!(ask(own, "child", "GET", "/self/blob?res=here", b"").body, b"apart");
    refused(&ask(own, "parent", "GET", "/self/blobs", b""), 401);
}

#[test]
fn a_secret_never_reaches_the_log() {
    let mut daemon = Setup::default()
        .top("log_level = \"trace\"")
        .ion(&module("m", "").replace("secret = \"m\"", "secret = \"hush-hush-hush\""))
        .start();
    ask(daemon.ion(), "hush-hush-hush", "PUT", "/self/blob?res=a", b"x").expect(200);
    refused(&ask(daemon.ion(), "not-hush-hush", "GET", "/self/blobs", b""), 401);
    daemon.terminate();
    assert!(!daemon.log().contains("hush"), "{}", daemon.log());
}

#[test]
fn a_put_is_answered_200_with_its_location_and_read_back_by_self_and_child() {
    let daemon = daemon();
    let bytes = bytes_of(7, 70_000);
    let put = ask(daemon.ion(), "parent", "PUT", "/self/blob?res=images/a+b.png", &bytes).expect(200);
    assert_eq!(put.text(), "ion/e-1/images/a b.png");
    assert_eq!(put.header("content-type"), Some("text/plain; charset=utf-8"));
    for (secret, path) in [("parent", "/self/blob"), ("child", "/parent/blob")] {
        let got = ask(daemon.ion(), secret, "GET", &format!("{path}?res=images/a%20b.png"), b"").expect(200);
        assert!(got.body == bytes);
        assert_eq!(got.header("content-length"), Some("70000"));
        assert_eq!(got.header("content-type"), Some("application/octet-stream"));
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(got.header("accept-ranges"), Some("bytes"));
    }
    refused(&ask(daemon.ion(), "child", "GET", "/self/blob?res=images/a%20b.png", b""), 404);
}

#[test]
fn of_a_blob_that_is_not_there_get_and_delete_are_404() {
    let daemon = daemon();
    refused(&ask(daemon.ion(), "nothing", "GET", "/self/blob?res=a", b""), 404);
    refused(&ask(daemon.ion(), "nothing", "GET", "/parent/blob?res=a", b""), 404);
    refused(&ask(daemon.ion(), "nothing", "DELETE", "/self/blob?res=a", b""), 404);
    let head = ask(daemon.ion(), "nothing", "HEAD", "/self/blob?res=a", b"");
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[test]
fn an_empty_body_is_an_empty_blob_and_delete_takes_it_away() {
    let daemon = daemon();
    ask(daemon.ion(), "empty", "PUT", "/self/blob?res=e", b"").expect(200);
    let got = ask(daemon.ion(), "empty", "GET", "/self/blob?res=e", b"").expect(200);
    assert_eq!((got.body.len(), got.header("content-length")), (0, Some("0")));
    let deleted = ask(daemon.ion(), "empty", "DELETE", "/self/blob?res=e", b"").expect(200);
    assert!(deleted.body.is_empty());
    refused(&ask(daemon.ion(), "empty", "GET", "/self/blob?res=e", b""), 404);
    let chunked = b"PUT /self/blob?res=c HTTP/1.1\r\nHost: a\r\nsecret: empty\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let mut conn = Conn::open(daemon.ion());
    conn.send(chunked);
    conn.answer_to("PUT").expect(200);
    assert_eq!(ask(daemon.ion(), "empty", "GET", "/self/blob?res=c", b"").body, b"abcde");
    let mut conn = Conn::open(daemon.ion());
    conn.send("PUT /self/blob?res=n HTTP/1.1\r\nHost: a\r\nsecret: empty\r\n\r\n");
    refused(&conn.answer_to("PUT"), 411);
}

#[test]
fn names_have_any_depth_and_stand_beside_each_other() {
    let daemon = daemon();
    for name in ["a", "a/b", "a/b/c/d/e/f", "a/", "a//b"] {
        ask(daemon.ion(), "depth", "PUT", &format!("/self/blob?res={name}"), name.as_bytes()).expect(200);
    }
    for name in ["a", "a/b", "a/b/c/d/e/f", "a/", "a//b"] {
        let got = ask(daemon.ion(), "depth", "GET", &format!("/self/blob?res=/{name}&file=x"), b"");
        assert_eq!(got.body, name.as_bytes(), "one slash in front means nothing");
    }
    let listed = ask(daemon.ion(), "depth", "GET", "/self/blobs", b"").expect(200);
    let names: Vec<String> = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(names, ["a", "a/", "a//b", "a/b", "a/b/c/d/e/f"]);
}

/// Every legal name of the corpus comes back as it went in, every other one is 400, and nothing appears in the file
/// system.
#[test]
fn a_corpus_of_names_round_trips_or_is_400() {
    let daemon = daemon();
    let escaped = |name: &[u8]| name.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut legal: BTreeSet<Vec<u8>> = BTreeSet::new();
    // Every character of ASCII that can be seen, alone, within and behind; what looks like an escape, a path or a query.
    for byte in (0x20u8..0x7f).filter(|byte| !matches!(byte, b'/' | b'.')) {
        let byte = char::from(byte);
        for name in [format!("{byte}"), format!("x{byte}y"), format!("d/{byte}{byte}")] {
            legal.insert(name.into_bytes());
        }
    }
    for name in [
        "...",
        "....",
        ".a",
        "a.",
        "..a",
        "a..",
        "a/...",
        "%2e%2e",
        "%2e%2e%2fx",
        "..%2f",
        "a\\..\\b",
        "C:\\x",
        "~/x",
        "\u{fc}ber",
        "\u{65e5}\u{672c}",
        "\u{1f41f}",
        "e\u{301}",
        "\u{202e}x",
        "a/b?c=d&e",
        "null",
        "CON",
        "a:b",
        "-rf",
        "$(x)",
        "`x`",
        "'; DROP",
        "a//b",
        "a/",
        "\u{feff}x",
        "\u{a0}",
        "\u{2028}",
    ] {
        legal.insert(name.as_bytes().to_vec());
    }
    legal.insert(vec![b'l'; 1024]);
    assert!(legal.len() > 300, "{}", legal.len());
    let mut conn = Conn::open(daemon.ion());
    for name in &legal {
        let target = format!("/self/blob?res={}", escaped(name));
        conn.send(request_bytes("PUT", &target, &[("secret", "names")], name));
        let answer = conn.answer_to("PUT").expect(200);
        assert_eq!(answer.body, [&b"ion/names/"[..], name].concat());
        conn.send(request_bytes("GET", &target, &[("secret", "names")], b""));
        assert_eq!(&conn.answer_to("GET").expect(200).body, name);
    }
    let listed = ask(daemon.ion(), "names", "GET", "/self/blobs", b"").expect(200);
    let listed: Vec<String> = serde_json::from_slice(&listed.body).unwrap();
    let wanted: Vec<String> = legal.iter().map(|name| String::from_utf8(name.clone()).unwrap()).collect();
    assert_eq!(listed, wanted, "in the order of their bytes");

    let mut illegal: Vec<String> = Vec::new();
    for control in (0..0x20).chain([0x7f]) {
        illegal.push(format!("res=a%{control:02x}b"));
    }
    for segments in [
        "..",
        ".",
        "../x",
        "a/..",
        "a/../b",
        "./a",
        "a/.",
        "../../etc/passwd",
        "/..",
        "//..",
        "a/./b",
        "x//../y",
    ] {
        illegal.push(format!("res={segments}"));
        illegal.push(format!("res={}", escaped(segments.as_bytes())));
    }
    illegal.extend(
        [
            "",
            "res",
            "res=",
            "res=/",
            "Res=a",
            "xres=a",
            "res=%",
            "res=%2",
            "res=%gg",
            "res=%ff",
            "res=%c3",
            "res=%ed%a0%80",
        ]
        .map(String::from),
    );
    illegal.push(format!("res={}", "x".repeat(1025)));
    for query in &illegal {
        for method in ["PUT", "GET", "DELETE"] {
            refused(&ask(daemon.ion(), "names", method, &format!("/self/blob?{query}"), b""), 400);
        }
    }
    assert!(!daemon.dir().join("names").exists() && !daemon.dir().join("x").exists());
}

#[test]
fn an_overwrite_is_whole_for_whoever_reads_meanwhile() {
    if moto::is_used() {
        // It closes an object's file under its readers, and answers 500.
        return;
    }
    let daemon = daemon();
    let body = |seed: u64| bytes_of(seed, 300_000 + seed as usize);
    let wanted: Vec<Vec<u8>> = (0..8).map(body).collect();
    ask(daemon.ion(), "whole", "PUT", "/self/blob?res=w", &wanted[0]).expect(200);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !done.load(Ordering::Relaxed) || seen == 0 {
                        let got = ask(daemon.ion(), "whole", "GET", "/self/blob?res=w", b"").expect(200);
                        assert!(wanted.contains(&got.body), "mixed, or empty: {} bytes", got.body.len());
                        seen += 1;
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|writer: usize| {
                let wanted = &wanted;
                let addr = daemon.ion();
                scope.spawn(move || {
                    for round in 0..12 {
                        let body = &wanted[(round * 2 + writer) % 8];
                        ask(addr, "whole", "PUT", "/self/blob?res=w", body).expect(200);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn an_upload_that_is_cut_leaves_what_was_there() {
    let daemon = daemon();
    ask(daemon.ion(), "cut", "PUT", "/self/blob?res=a", b"before").expect(200);
    for (name, head) in [
        ("a", "Content-Length: 100000"),
        ("a", "Transfer-Encoding: chunked"),
        ("new", "Content-Length: 100000"),
        ("new", "Transfer-Encoding: chunked"),
    ] {
        let mut conn = Conn::open(daemon.ion());
        conn.send(format!("PUT /self/blob?res={name} HTTP/1.1\r\nHost: a\r\nsecret: cut\r\n{head}\r\n\r\n"));
        conn.send(match head.starts_with('C') {
            true => "x".repeat(50_000),
            false => format!("c350\r\n{}\r\n", "x".repeat(50_000)),
        });
        conn.reset();
    }
    // A request behind it on the same shards, so that they have noticed.
    for number in 0..4 {
        ask(daemon.ion(), "cut", "PUT", &format!("/self/blob?res=after-{number}"), b"").expect(200);
    }
    assert_eq!(ask(daemon.ion(), "cut", "GET", "/self/blob?res=a", b"").body, b"before");
    refused(&ask(daemon.ion(), "cut", "GET", "/self/blob?res=new", b""), 404);
}

#[test]
fn ranges_conditions_and_head_are_those_of_http() {
    let daemon = daemon();
    let bytes = bytes_of(3, 1000);
    let put = ask(daemon.ion(), "ranges", "PUT", "/self/blob?res=r", &bytes).expect(200);
    let etag = put.header("etag").unwrap().to_owned();
    let get =
        |headers: &[(&str, &str)]| ask_with(daemon.ion(), "ranges", "GET", "/self/blob?res=r", headers, b"");
    let part = get(&[("Range", "bytes=10-19")]).expect(206);
    assert_eq!((&part.body[..], part.header("content-range")), (&bytes[10..20], Some("bytes 10-19/1000")));
    assert_eq!(get(&[("Range", "bytes=-5")]).expect(206).body, bytes[995..]);
    let beyond = get(&[("Range", "bytes=1000-")]);
    refused(&beyond, 416);
    assert_eq!(beyond.header("content-range"), Some("bytes */1000"));
    assert_eq!(get(&[("Range", "lines=1-2")]).expect(200).body.len(), 1000);
    let same = get(&[("If-None-Match", &etag)]).expect(304);
    assert_eq!((same.body.len(), same.header("etag")), (0, Some(&*etag)));
    refused(&get(&[("If-Match", "\"x\"")]), 412);
    assert_eq!(get(&[("Range", "bytes=0-0"), ("If-Range", "\"x\"")]).expect(200).body.len(), 1000);
    let head = ask(daemon.ion(), "ranges", "HEAD", "/self/blob?res=r", b"").expect(200);
    assert_eq!((head.body.len(), head.header("content-length")), (0, Some("1000")));
    let put = |headers: &[(&str, &str)]| {
        ask_with(daemon.ion(), "ranges", "PUT", "/self/blob?res=r", headers, b"new")
    };
    refused(&put(&[("If-None-Match", "*")]), 412);
    refused(&put(&[("If-Match", "\"x\"")]), 412);
    put(&[("If-Match", &etag)]).expect(200);
    assert_ne!(get(&[]).expect(200).header("etag"), Some(&*etag));
}

#[test]
fn a_type_that_was_said_comes_back() {
    let daemon = daemon();
    let put = |kind: &str| {
        ask_with(daemon.ion(), "types", "PUT", "/self/blob?res=t", &[("Content-Type", kind)], b"x")
    };
    let told = || {
        ask(daemon.ion(), "types", "GET", "/self/blob?res=t", b"").header("content-type").map(str::to_owned)
    };
    put("image/png").expect(200);
    assert_eq!(told().as_deref(), Some("image/png"));
    put("application/x-www-form-urlencoded").expect(200);
    assert_eq!(told().as_deref(), Some("application/octet-stream"));
}

#[test]
fn a_list_is_empty_before_the_first_blob_and_ignores_res() {
    let daemon = daemon();
    let list = || ask(daemon.ion(), "lists", "GET", "/self/blobs?res=x", b"").expect(200);
    assert_eq!((list().text(), list().header("content-type")), ("[]\n", Some("application/json")));
    for number in 0..1500 {
        ask(daemon.ion(), "lists", "PUT", &format!("/self/blob?res=n{number:04}"), b"").expect(200);
    }
    let names: Vec<String> = serde_json::from_slice(&list().body).unwrap();
    assert_eq!(names, (0..1500).map(|number| format!("n{number:04}")).collect::<Vec<_>>());
}

#[test]
fn a_document_is_any_object_or_array_and_comes_back_byte_for_byte() {
    let daemon = daemon();
    refused(&ask(daemon.ion(), "exact", "GET", "/self/meta", b""), 404);
    for document in [
        "{}",
        "[]",
        " {\"b\" : 1e400, \"a\":[1.0, 123456789012345678901234567890, {\"x\": null}], \"a\": \"\\u00e9\"}\n",
        "[\"2018/04/05\", \"ion/other/x\", \"a/b/c/d\"]",
    ] {
        let put = ask(daemon.ion(), "exact", "PUT", "/self/meta", document.as_bytes()).expect(200);
        assert!(put.body.is_empty());
        let got = ask(daemon.ion(), "exact", "GET", "/self/meta", b"").expect(200);
        assert_eq!((got.text(), got.header("content-type")), (document, Some("application/json")));
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(900_000));
    ask(daemon.ion(), "exact", "PUT", "/self/meta", large.as_bytes()).expect(200);
    assert_eq!(ask(daemon.ion(), "exact", "GET", "/self/meta", b"").text(), large);
}

#[test]
fn a_document_that_is_none_is_400_and_one_that_is_too_long_413() {
    let daemon = daemon();
    let put = |body: &[u8]| ask(daemon.ion(), "docs", "PUT", "/self/meta", body);
    for bad in [&b""[..], b"null", b"1", b"\"a\"", b"{} {}", b"{\"a\"", b"a=b&c=d", b"[\"\xff\"]"] {
        refused(&put(bad), 400);
    }
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    put(nested(64).as_bytes()).expect(200);
    assert!(refused(&put(nested(65).as_bytes()), 400).contains("64"));
    refused(&put(format!("[\"{}\"]", "x".repeat(1 << 20)).as_bytes()), 413);
    let mut conn = Conn::open(daemon.ion());
    conn.send("PUT /self/meta HTTP/1.1\r\nHost: a\r\nsecret: docs\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..18 {
        let _ = conn.try_send(format!("10000\r\n{}\r\n", " ".repeat(65_536)));
    }
    refused(&conn.answer_to("PUT"), 413);
    assert_eq!(ask(daemon.ion(), "docs", "GET", "/self/meta", b"").text(), nested(64), "it stays");
}

#[test]
fn a_stored_location_leads_a_child_to_the_blob() {
    let daemon = Setup::default().ion(PAIR).start();
    refused(&ask(daemon.ion(), "child", "GET", "/parent/meta", b""), 404);
    let location = ask(daemon.ion(), "parent", "PUT", "/self/blob?res=out/img.png", b"pixels").expect(200);
    let document =
        format!("{{\"image\": \"{}\", \"not\": \"ion/e-2/x\", \"ion/e-1/k\": 1}}", location.text());
    ask(daemon.ion(), "parent", "PUT", "/self/meta", document.as_bytes()).expect(200);
    let meta = ask(daemon.ion(), "child", "GET", "/parent/meta", b"").expect(200);
    assert_eq!(meta.text(), "{\"image\": \"out/img.png\", \"not\": \"ion/e-2/x\", \"ion/e-1/k\": 1}");
    let image = json_of(&meta)["image"].as_str().unwrap().to_owned();
    let got = ask(daemon.ion(), "child", "GET", &format!("/parent/blob?res={image}"), b"").expect(200);
    assert_eq!(got.body, b"pixels");
}

#[test]
fn the_chain_is_told_in_the_order_of_its_commits() {
    let third = "[[ion.module]]\nname = \"third\"\nevent_id = \"e-3\"\nparent_event_id = \"e-2\"\n\
         correlation_id = \"c\"\nsecret = \"third\"\n";
    let mut daemon = Setup::default().ion(&[PAIR, third, &module("other", "")].concat()).start();
    let chain = |addr: &str| -> Vec<serde_json::Value> {
        serde_json::from_slice(&ask(addr, "child", "GET", "/meta", b"").expect(200).body).unwrap()
    };
    assert!(chain(daemon.ion()).is_empty());
    for secret in ["third", "parent", "other", "child", "third"] {
        ask(daemon.ion(), secret, "PUT", "/self/meta", format!("{{\"of\":\"{secret}\"}}").as_bytes())
            .expect(200);
    }
    let wanted = serde_json::json!([
        {"id": "e-1", "correlationId": "c", "parentId": "e-0", "metadata": {"of": "parent"}},
        {"id": "e-2", "correlationId": "c", "parentId": "e-1", "metadata": {"of": "child"}},
        {"id": "e-3", "correlationId": "c", "parentId": "e-2", "metadata": {"of": "third"}},
    ]);
    assert_eq!(serde_json::json!(chain(daemon.ion())), wanted);
    daemon.kill9();
    daemon.restart();
    assert_eq!(serde_json::json!(chain(daemon.ion())), wanted, "and after a crash");
}

fn lines(answer: &common::Answer) -> Vec<serde_json::Value> {
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"), "{answer:?}");
    answer.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn an_event_is_an_envelope_in_the_stream_of_its_chain() {
    let daemon = daemon();
    let post = |body: &str| ask(daemon.ion(), "events", "POST", "/events", body.as_bytes());
    assert!(lines(&ask(daemon.ion(), "events", "GET", "/events", b"").expect(200)).is_empty());
    let posted = post("{\"eventType\":\"done\",\"a\":\"1\",\"id\":\"mine\",\"type\":\"x\"}").expect(201);
    assert!(posted.body.is_empty());
    post("{\"eventType\":\"later\"}").expect(201);
    let all = ask(daemon.ion(), "events", "GET", "/events", b"").expect(200);
    let events = lines(&all);
    let id = events[0]["id"].as_str().unwrap();
    assert_eq!((id.len(), &id[14..15], posted.header("x-event-id")), (36, "7", Some(id)));
    assert_eq!(
        events[0],
        serde_json::json!({"id": id, "type": "done", "previousStages": [], "parentId": "events",
            "correlationId": "chain-of-events", "data": {"a": "1", "id": "mine", "type": "x"}})
    );
    assert_eq!(
        (events.len(), &events[1]["type"], &events[1]["data"]),
        (2, &"later".into(), &serde_json::json!({}))
    );
    // From an offset: only where a line begins.
    let first = all.text().find('\n').unwrap() + 1;
    let next = all.header("stream-next-offset").unwrap().to_owned();
    assert_eq!(next, all.body.len().to_string());
    let from = |offset: &str| ask(daemon.ion(), "events", "GET", &format!("/events?from={offset}"), b"");
    assert_eq!(lines(&from(&first.to_string()).expect(200)), events[1..]);
    assert!(from(&next).expect(200).body.is_empty());
    refused(&from("5"), 400);
    refused(&from("x"), 400);
    refused(&from("999999"), 416);
}

#[test]
fn what_is_no_event_is_400_and_publishes_nothing() {
    let daemon = daemon();
    let post = |body: &[u8]| ask(daemon.ion(), "nothing", "POST", "/events", body);
    for bad in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"{\"eventType\":\"\"}",
        b"{\"eventType\":1}",
        b"{\"eventType\":\"a\",\"n\":1}",
        b"{\"EventType\":\"a\"}",
        b"{\"eventType\":\"a\"} {}",
        b"eventType=a",
        b"{\"eventType\":\"a\",\"n\":null}",
    ] {
        refused(&post(bad), 400);
    }
    refused(&post(&[b"{\"eventType\":\"a\",\"b\":\"", &vec![b'x'; 1 << 20][..], b"\"}"].concat()), 413);
    assert!(lines(&ask(daemon.ion(), "nothing", "GET", "/events", b"")).is_empty());
    let typed = |kind: &str| {
        ask(daemon.ion(), "typed", "POST", "/events", format!("{{\"eventType\":\"{kind}\"}}").as_bytes())
    };
    assert!(refused(&typed("other"), 400).contains("done, failed"));
    typed("failed").expect(201);
}

#[test]
fn an_event_that_is_posted_again_with_its_key_is_there_once() {
    let daemon = daemon();
    let post = |key: &str, body: &str| {
        ask_with(daemon.ion(), "again", "POST", "/events", &[("Idempotency-Key", key)], body.as_bytes())
    };
    let first = post("k-1", "{\"eventType\":\"a\"}").expect(201);
    let again = post("k-1", "{\"eventType\":\"a\"}").expect(201);
    assert_eq!(first.header("x-event-id"), again.header("x-event-id"));
    assert!(refused(&post("k-1", "{\"eventType\":\"b\"}"), 422).contains("key"));
    refused(&post(&"k".repeat(256), "{\"eventType\":\"a\"}"), 400);
    post("k-2", "{\"eventType\":\"a\"}").expect(201);
    // Many at once with one key: one event.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| post("k-3", "{\"eventType\":\"c\"}").expect(201));
        }
    });
    let events = lines(&ask(daemon.ion(), "again", "GET", "/events", b""));
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["a", "a", "c"]);
}

#[test]
fn events_are_followed_live_as_lines_and_as_server_sent_events() {
    let daemon = daemon();
    let get = |headers: &[(&str, &str)], target: &str| {
        let headers = [headers, &[("secret", "follow")]].concat();
        Live::with(Conn::open(daemon.ion()), &request_bytes("GET", target, &headers, b""))
    };
    // Before there is any.
    let mut lines = get(&[], "/events?follow");
    let mut events = get(&[("Accept", "text/event-stream")], "/events?follow");
    for number in 0..3 {
        ask(daemon.ion(), "follow", "POST", "/events", format!("{{\"eventType\":\"n{number}\"}}").as_bytes())
            .expect(201);
    }
    let count = |seen: &[u8], what: &str| String::from_utf8_lossy(seen).matches(what).count();
    lines.until("three lines", |seen| count(seen, "\n") == 3);
    events.until("three events", |seen| count(seen, "\n\n") == 3);
    let seen = String::from_utf8(events.seen().to_vec()).unwrap();
    let (first, _) = seen.split_once("\n\n").unwrap();
    let (id, data) = first.split_once("\ndata: ").unwrap();
    let id = id.strip_prefix("id: ").unwrap();
    assert!(String::from_utf8_lossy(lines.seen()).starts_with(&format!("{data}\n")));
    assert_eq!(id, (data.len() + 1).to_string());
    // A browser that comes back says where it was.
    let mut rest = get(&[("Accept", "text/event-stream"), ("Last-Event-ID", id)], "/events?follow");
    rest.until("the two that follow", |seen| count(seen, "\n\n") == 2);
    assert!(seen.ends_with(std::str::from_utf8(rest.seen()).unwrap()));
    lines.reset();
    events.reset();
    rest.reset();
}

#[test]
fn a_commit_shows_blobs_document_and_events_together() {
    let daemon = here();
    let put = |name: &str, body: &[u8]| {
        ask(daemon.ion(), "commit", "PUT", &format!("/self/blob?res={name}&stage"), body)
    };
    let commit = |body: &str| ask(daemon.ion(), "commit", "POST", "/self/commit", body.as_bytes());
    ask(daemon.ion(), "commit", "PUT", "/self/blob?res=b", b"old").expect(200);
    assert_eq!(put("a", b"first").expect(200).text(), "ion/commit/a");
    put("b", &bytes_of(9, 200_000)).expect(200);
    // Not to be seen before.
    refused(&ask(daemon.ion(), "commit", "GET", "/self/blob?res=a", b""), 404);
    assert_eq!(ask(daemon.ion(), "commit", "GET", "/self/blob?res=b", b"").body, b"old");
    assert_eq!(ask(daemon.ion(), "commit", "GET", "/self/blobs", b"").text(), "[\"b\"]\n");
    for (bad, status) in [
        ("", 400),
        ("{}", 400),
        ("[]", 400),
        ("{\"blobs\":[\"a\"],\"more\":1}", 400),
        ("{\"blobs\":[\"../a\"]}", 400),
        ("{\"blobs\":[\"a\"],\"document\":1}", 400),
        ("{\"blobs\":[\"a\"],\"events\":[{\"a\":\"b\"}]}", 400),
        ("{\"blobs\":[\"a\",\"missing\"],\"events\":[{\"eventType\":\"x\"}]}", 409),
    ] {
        refused(&commit(bad), status);
    }
    refused(&ask(daemon.ion(), "commit", "GET", "/self/blob?res=a", b""), 404);
    let done = commit(
        "{\"blobs\":[\"a\",\"b\"],\"document\":{ \"n\": 1.0 },\"events\":[{\"eventType\":\"x\"},{\"eventType\":\"y\"}]}",
    );
    let done = json_of(&done.expect(201));
    assert_eq!(done["blobs"], serde_json::json!({"a": "ion/commit/a", "b": "ion/commit/b"}));
    assert_eq!(ask(daemon.ion(), "commit", "GET", "/self/blob?res=a", b"").body, b"first");
    assert!(ask(daemon.ion(), "commit", "GET", "/self/blob?res=b", b"").body == bytes_of(9, 200_000));
    assert_eq!(ask(daemon.ion(), "commit", "GET", "/self/meta", b"").text(), "{ \"n\": 1.0 }");
    let events = lines(&ask(daemon.ion(), "commit", "GET", "/events", b""));
    let ids: Vec<&serde_json::Value> = events.iter().map(|event| &event["id"]).collect();
    assert_eq!(serde_json::json!(ids), done["events"]);
}

#[test]
fn a_commit_that_is_repeated_with_its_key_is_done_once() {
    let daemon = here();
    ask(daemon.ion(), "swap", "PUT", "/self/blob?res=a&stage", b"x").expect(200);
    let commit = |body: &str| {
        ask_with(daemon.ion(), "swap", "POST", "/self/commit", &[("Idempotency-Key", "one")], body.as_bytes())
    };
    let body = "{\"blobs\":[\"a\"],\"events\":[{\"eventType\":\"x\"}]}";
    let first = commit(body).expect(201);
    assert_eq!(commit(body).expect(201).text(), first.text());
    refused(&commit("{\"events\":[{\"eventType\":\"x\"}]}"), 422);
    assert_eq!(lines(&ask(daemon.ion(), "swap", "GET", "/events", b"")).len(), 1);
}

#[test]
fn everything_survives_a_kill_and_goes_on() {
    for durability in ["sync", "cache"] {
        let mut daemon = Setup::default().durability(durability).ion(PAIR).start();
        ask(daemon.ion(), "parent", "PUT", "/self/blob?res=a&stage", b"bytes").expect(200);
        let body = b"{\"blobs\":[\"a\"],\"document\":{\"a\":1},\"events\":[{\"eventType\":\"one\"}]}";
        ask_with(daemon.ion(), "parent", "POST", "/self/commit", &[("Idempotency-Key", "k")], body)
            .expect(201);
        ask(daemon.ion(), "child", "POST", "/events", b"{\"eventType\":\"two\"}").expect(201);
        daemon.kill9();
        daemon.restart();
        let addr = daemon.ion().to_owned();
        assert_eq!(ask(&addr, "parent", "GET", "/self/blob?res=a", b"").expect(200).body, b"bytes");
        assert_eq!(ask(&addr, "child", "GET", "/parent/meta", b"").expect(200).text(), "{\"a\":1}");
        ask_with(&addr, "parent", "POST", "/self/commit", &[("Idempotency-Key", "k")], body).expect(201);
        ask(&addr, "child", "POST", "/events", b"{\"eventType\":\"three\"}").expect(201);
        let events = lines(&ask(&addr, "child", "GET", "/events", b"").expect(200));
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["one", "two", "three"], "{durability}");
        assert!(daemon.terminate().success());
    }
}

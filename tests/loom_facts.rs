//! What a user of loom relies on, one test per fact; where bytes are pinned, they are compared as bytes.

mod common;

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use common::daemon::A_MOMENT;
use common::http::{find, request_bytes};
use common::{
    Answer, Conn, Daemon, End, Live, Producer, Setup, Shared, bytes_of, error_of, eventually, fresh_id,
    json_of, post, request,
};
use percent_encoding::percent_decode_str;

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().share(&DAEMON)
}

// ---- producing ----

#[test]
fn the_201_is_sent_before_any_byte_of_the_body() {
    let daemon = daemon();
    let id = fresh_id("early");
    let producer = Producer::begin(daemon.loom(), &id);
    assert_eq!(producer.head.reason, "Created");
    assert_eq!(producer.head.header("x-stream-id"), Some(id.as_str()));
    assert_eq!(producer.head.header("transfer-encoding"), Some("chunked"));
    producer.finish().expect(201).whole();
}

#[test]
fn the_end_of_the_answer_waits_for_the_end_of_the_body() {
    let daemon = daemon();
    let mut producer = Producer::begin(daemon.loom(), &fresh_id("late"));
    producer.chunk("some");
    assert!(producer.conn().is_silent_for(A_MOMENT), "the answer went on before the body ended");
    let answer = producer.finish();
    assert_eq!((answer.body.as_slice(), &answer.end), (&b""[..], &End::LastChunk));
}

#[test]
fn a_producer_with_content_length_is_answered_early_and_ended_late_as_well() {
    let daemon = daemon();
    let id = fresh_id("length");
    let mut conn = Conn::open(daemon.loom());
    conn.send(format!("POST /stream/{id} HTTP/1.1\r\nHost: mill.test\r\nContent-Length: 10\r\n\r\n"));
    let head = conn.head().expect(201);
    assert_eq!(head.header("x-stream-id"), Some(id.as_str()));
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(head.header("content-length"), None);
    conn.send("01234");
    Live::get(daemon.loom(), &format!("/stream/{id}")).wait_for(b"01234");
    assert!(conn.is_silent_for(A_MOMENT), "the answer went on before the body ended");
    conn.send("56789");
    let answer = conn.try_body(head, "POST").expect("the end of the answer");
    assert_eq!((answer.body.as_slice(), answer.end), (&b""[..], End::LastChunk));
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"0123456789");
}

#[test]
fn the_connection_of_a_producer_serves_further_requests() {
    let daemon = daemon();
    let mut conn = Conn::open(daemon.loom());
    for body in ["one", "", "three"] {
        let id = fresh_id("again");
        conn.send(request_bytes("POST", &format!("/stream/{id}"), &[], body.as_bytes()));
        conn.answer().expect(201).whole();
        conn.send(request_bytes("GET", &format!("/stream/{id}"), &[], b""));
        assert_eq!(conn.answer().expect(200).body, body.as_bytes());
    }
}

#[test]
fn a_generated_id_starts_with_loom_and_leads_to_the_stream() {
    let daemon = daemon();
    for target in ["/stream", "/stream/"] {
        let answer = request(daemon.loom(), "POST", target, &[], b"anonymous").expect(201);
        let id = answer.header("x-stream-id").expect("an id").to_owned();
        assert!(id.strip_prefix("loom-").is_some_and(|rest| !rest.is_empty()), "{id}");
        assert_eq!(daemon.get(&format!("/stream/{id}")).expect(200).body, b"anonymous");
    }
}

#[test]
fn generated_ids_are_unique_under_parallel_posts() {
    let daemon = daemon();
    let addr = daemon.loom();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let mut conn = Conn::open(addr);
                    // All of a worker's requests leave in one segment, so that many fall into one millisecond.
                    conn.send(request_bytes("POST", "/stream/", &[], b"x").repeat(40));
                    let answers: Vec<Answer> = (0..40).map(|_| conn.answer().expect(201).whole()).collect();
                    answers
                        .iter()
                        .map(|answer| answer.header("x-stream-id").expect("an id").to_owned())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    assert_eq!(ids.len(), 320);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 320, "an id was given twice");
}

#[test]
fn a_body_is_stored_without_its_chunk_framing_and_read_back_whole() {
    let daemon = daemon();
    let id = fresh_id("framing");
    let content = bytes_of(7, 300_000);
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut rest = content.as_slice();
    for len in [1, 2, 15, 4_096, 65_536, 16_384, 100_000].into_iter().cycle() {
        let (piece, more) = rest.split_at(len.min(rest.len()));
        if piece.is_empty() {
            break;
        }
        producer.chunk(piece);
        rest = more;
    }
    producer.finish().whole();
    let answer = daemon.get(&format!("/stream/{id}")).expect(200).whole();
    assert_eq!(answer.body.len(), content.len());
    assert!(answer.body == content, "{}", common::content::difference(&answer.body, &content));
}

#[test]
fn producer_content_type_and_encoding_change_nothing() {
    let daemon = daemon();
    let id = fresh_id("typed");
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    request(daemon.loom(), "POST", &format!("/stream/{id}"), &headers, b"\x1f\x8bno gzip").expect(201);
    let answer = daemon.get(&format!("/stream/{id}")).expect(200);
    assert_eq!(answer.body, b"\x1f\x8bno gzip");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-encoding"), None);
}

// ---- ids ----

#[test]
fn ids_are_percent_decoded_exactly_once() {
    let daemon = daemon();
    let plain = fresh_id("decoded");
    post(daemon.loom(), &format!("%{:02x}{}", plain.as_bytes()[0], &plain[1..]), b"same").expect(201);
    assert_eq!(daemon.get(&format!("/stream/{plain}")).expect(200).body, b"same");

    // `%2541` is the id `%41`, not `A`.
    let twice = fresh_id("twice");
    post(daemon.loom(), &format!("{twice}%2541"), b"percent").expect(201);
    assert_eq!(daemon.get(&format!("/stream/{twice}%2541")).expect(200).body, b"percent");
    daemon.get(&format!("/stream/{twice}%41")).expect(404);
    daemon.get(&format!("/stream/{twice}A")).expect(404);
}

#[test]
fn a_plus_in_an_id_is_a_plus() {
    let daemon = daemon();
    let id = fresh_id("plus");
    post(daemon.loom(), &format!("{id}+1"), b"plus").expect(201);
    assert_eq!(daemon.get(&format!("/stream/{id}%2B1")).expect(200).body, b"plus");
    daemon.get(&format!("/stream/{id}%201")).expect(404);
}

#[test]
fn ids_with_an_encoded_slash_are_ids() {
    let daemon = daemon();
    let id = fresh_id("a%2Fb%2Fc");
    let answer = post(daemon.loom(), &id, b"slashes").expect(201);
    assert_eq!(answer.header("x-stream-id"), Some(id.replace("%2F", "/").as_str()));
    assert_eq!(daemon.get(&format!("/stream/{id}")).expect(200).body, b"slashes");
}

#[test]
fn a_raw_slash_in_the_id_is_another_route() {
    let daemon = daemon();
    let answer = request(daemon.loom(), "POST", "/stream/a/b", &[], b"x").expect(404);
    assert_eq!(answer.text(), r#"{"code":"ResourceNotFound","message":"/stream/a/b does not exist"}"#);
}

#[test]
fn ids_that_look_like_paths_are_opaque() {
    let daemon = daemon();
    let before = tree(daemon.dir());
    let ids = [
        "..%2F..%2Fescape",
        "..%2Fescape",
        "escape",
        "%2Fetc%2Fescape",
        "a%2F..%2Fescape",
        "..",
        ".",
        "%2e%2e",
    ];
    for (number, id) in ids.iter().enumerate().filter(|(_, id)| **id != "%2e%2e") {
        post(daemon.loom(), id, format!("stream {number}").as_bytes()).expect(201);
    }
    for (number, id) in ids.iter().enumerate().filter(|(_, id)| **id != "%2e%2e") {
        assert_eq!(
            daemon.get(&format!("/stream/{id}")).expect(200).text(),
            format!("stream {number}"),
            "{id}"
        );
    }
    assert_eq!(daemon.get("/stream/%2e%2e").expect(200).text(), "stream 5", "an encoded dot is a dot");
    let outside: Vec<_> =
        tree(daemon.dir()).difference(&before).filter(|path| path.contains("escape")).cloned().collect();
    assert!(outside.is_empty(), "an id became a path: {outside:?}");
}

#[test]
fn ids_with_line_ends_are_served_and_split_no_head() {
    let daemon = daemon();
    let id = fresh_id("line%0D%0AX-Injected:%201%0D%0A%0D%0Aend");
    let answer = post(daemon.loom(), &id, b"lines").expect(201);
    assert!(answer.header("x-injected").is_none());
    let answer = daemon.get(&format!("/stream/{id}")).expect(200);
    assert!(answer.header("x-injected").is_none());
    assert_eq!(answer.body, b"lines");
    // The conflict names the id; JSON escapes what a line end would break.
    let answer = post(daemon.loom(), &id, b"again").expect(409);
    assert!(error_of(&answer).contains("\r\nX-Injected: 1\r\n\r\nend"), "{answer:?}");
}

#[test]
fn ids_outside_latin_1_and_outside_utf_8_are_served() {
    let daemon = daemon();
    for id in
        [fresh_id("%E6%97%A5%E6%9C%AC"), fresh_id("%F0%9F%9A%80"), fresh_id("%FF%FE%00"), fresh_id("%C3%A9")]
    {
        post(daemon.loom(), &id, id.as_bytes()).expect(201);
        assert_eq!(daemon.get(&format!("/stream/{id}")).expect(200).text(), id);
        post(daemon.loom(), &id, b"x").expect(409);
    }
    let id = fresh_id("%E6%97%A5");
    let answer = post(daemon.loom(), &id, b"x");
    assert_eq!(
        answer.header("x-stream-id"),
        Some(id.replace("%E6%97%A5", "日").as_str()),
        "UTF-8 comes back as sent"
    );
}

#[test]
fn an_id_that_no_field_can_hold_comes_back_escaped_and_says_so() {
    let daemon = daemon();
    for id in [fresh_id("cr%0D%0Alf"), fresh_id("nul%00"), fresh_id("del%7F")] {
        let answer = post(daemon.loom(), &id, b"x").expect(201);
        let escaped = answer.header("x-stream-id").expect("an id");
        assert_eq!(answer.header("x-stream-id-encoding"), Some("percent"), "{answer:?}");
        let (sent, back) = (percent_decode_str(&id), percent_decode_str(escaped));
        assert_eq!(sent.collect::<Vec<u8>>(), back.collect::<Vec<u8>>());
        assert_eq!(daemon.get(&format!("/stream/{escaped}")).expect(200).body, b"x");
    }
    let plain = post(daemon.loom(), &fresh_id("100%25"), b"x").expect(201);
    assert_eq!(plain.header("x-stream-id-encoding"), None);
}

#[test]
fn ids_have_a_bound_that_a_refusal_names() {
    let daemon = daemon();
    let id = "i".repeat(1024);
    post(daemon.loom(), &id, b"x").expect(201);
    assert_eq!(daemon.get(&format!("/stream/{id}")).expect(200).body, b"x");
    let answer = post(daemon.loom(), &format!("{id}i"), b"x").expect(400);
    assert!(error_of(&answer).contains("1024"), "{answer:?}");
}

#[test]
fn a_malformed_escape_is_refused_with_a_sentence() {
    let daemon = daemon();
    for id in ["%zz", "%4", "%"] {
        let answer = daemon.get(&format!("/stream/bad{id}")).expect(400);
        assert!(!error_of(&answer).is_empty());
    }
}

// ---- metadata ----

#[test]
fn metadata_comes_back_minified_with_its_text_kept() {
    let daemon = daemon();
    for (sent, kept) in [
        (r#"{"meta": true}"#, r#"{"meta":true}"#),
        (r#"{ "z" : 1 , "a" : [ 1 , 2 ] , "m" : { } }"#, r#"{"z":1,"a":[1,2],"m":{}}"#),
        (
            r#"{"n": 2.50, "big": 12345678901234567890123, "e": 1E+2}"#,
            r#"{"n":2.50,"big":12345678901234567890123,"e":1E+2}"#,
        ),
        (r#"{"s": "a \u4f60 \ud83d\ude80 \/ b"}"#, r#"{"s":"a \u4f60 \ud83d\ude80 \/ b"}"#),
        (
            r#"{"space": "two  spaces, \"quoted  \" and \\"}"#,
            r#"{"space":"two  spaces, \"quoted  \" and \\"}"#,
        ),
        (r#"{"a": 1, "a": 2}"#, r#"{"a":1,"a":2}"#),
        ("[1,\t2]", "[1,2]"),
        (r#""text""#, r#""text""#),
        ("42", "42"),
        ("null", "null"),
        ("false", "false"),
    ] {
        let id = fresh_id("meta");
        let answer =
            request(daemon.loom(), "POST", &format!("/stream/{id}"), &[("X-Stream-Metadata", sent)], b"x");
        assert_eq!(answer.expect(201).header("x-stream-metadata-warning"), None, "{sent}");
        assert_eq!(
            daemon.get(&format!("/stream/{id}")).expect(200).header("x-stream-metadata"),
            Some(kept),
            "{sent}"
        );
    }
}

#[test]
fn metadata_in_raw_utf_8_comes_back_byte_for_byte() {
    let daemon = daemon();
    let id = fresh_id("meta-utf8");
    let sent = r#"{"who":"日本 é 🚀"}"#;
    request(daemon.loom(), "POST", &format!("/stream/{id}"), &[("X-Stream-Metadata", sent)], b"x")
        .expect(201);
    let answer = daemon.get(&format!("/stream/{id}"));
    assert_eq!(answer.header_bytes("x-stream-metadata"), Some(sent.as_bytes()));
}

#[test]
fn metadata_that_is_no_json_is_kept_as_a_string_with_a_warning() {
    let daemon = daemon();
    for (sent, kept) in [
        ("{not json", r#""{not json""#),
        ("hello world", r#""hello world""#),
        (r#"a "quote" and \ slash"#, r#""a \"quote\" and \\ slash""#),
        ("{'single': 1}", r#""{'single': 1}""#),
        ("01", r#""01""#),
        ("{} {}", r#""{} {}""#),
    ] {
        let id = fresh_id("meta-bad");
        let answer =
            request(daemon.loom(), "POST", &format!("/stream/{id}"), &[("X-Stream-Metadata", sent)], b"x")
                .expect(201);
        assert!(
            answer.header("x-stream-metadata-warning").is_some_and(|why| !why.is_empty()),
            "{sent}: {answer:?}"
        );
        assert_eq!(
            daemon.get(&format!("/stream/{id}")).expect(200).header("x-stream-metadata"),
            Some(kept),
            "{sent}"
        );
    }
}

#[test]
fn a_stream_without_metadata_has_no_metadata_header() {
    let daemon = daemon();
    let id = fresh_id("bare");
    assert_eq!(post(daemon.loom(), &id, b"x").header("x-stream-metadata-warning"), None);
    assert_eq!(daemon.get(&format!("/stream/{id}")).expect(200).header("x-stream-metadata"), None);
}

#[test]
fn metadata_is_there_while_the_stream_is_open() {
    let daemon = daemon();
    let id = fresh_id("meta-live");
    let _producer =
        Producer::begin_at(daemon.loom(), &format!("/stream/{id}"), &[("X-Stream-Metadata", "{\"a\": 1}")]);
    let reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    assert_eq!(reader.so_far().header("x-stream-metadata"), Some("{\"a\":1}"));
}

// ---- conflicts and force ----

#[test]
fn a_taken_id_is_a_conflict_with_the_documented_body() {
    let daemon = daemon();
    let id = fresh_id("taken");
    post(daemon.loom(), &id, b"first").expect(201);
    let answer = post(daemon.loom(), &id, b"second").expect(409);
    assert_eq!(answer.reason, "Conflict");
    assert_eq!(
        answer.text(),
        format!(
            r#"{{"error":"The stream with ID {id} already exists. Specify force=true query param to override."}}"#
        )
    );
    json_of(&answer);
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"first", "the refused body must not be stored");
}

#[test]
fn a_conflict_leaves_an_open_original_alone() {
    let daemon = daemon();
    let id = fresh_id("taken-open");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    producer.chunk("one ");
    reader.wait_for(b"one ");
    post(daemon.loom(), &id, b"intruder").expect(409);
    producer.chunk("two");
    producer.finish().whole();
    let answer = reader.finish();
    assert_eq!((answer.body.as_slice(), answer.end), (&b"one two"[..], End::LastChunk));
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"one two");
}

#[test]
fn force_replaces_a_complete_stream_and_says_so() {
    let daemon = daemon();
    let id = fresh_id("force");
    let target = format!("/stream/{id}");
    request(daemon.loom(), "POST", &target, &[("X-Stream-Metadata", "{\"old\":1}")], b"old and longer")
        .expect(201);
    let answer = request(
        daemon.loom(),
        "POST",
        &format!("{target}?force=true"),
        &[("X-Stream-Metadata", "{\"new\":1}")],
        b"new",
    );
    assert_eq!(answer.expect(201).header("x-stream-replaced"), Some("true"));
    let answer = daemon.get(&target).expect(200);
    assert_eq!(answer.body, b"new");
    assert_eq!(answer.header("x-stream-metadata"), Some("{\"new\":1}"));
}

#[test]
fn force_without_metadata_drops_the_old_metadata() {
    let daemon = daemon();
    let target = format!("/stream/{}", fresh_id("force-meta"));
    request(daemon.loom(), "POST", &target, &[("X-Stream-Metadata", "{\"old\":1}")], b"old").expect(201);
    request(daemon.loom(), "POST", &format!("{target}?force=true"), &[], b"new").expect(201);
    assert_eq!(daemon.get(&target).header("x-stream-metadata"), None);
}

#[test]
fn force_on_a_free_id_is_a_plain_201() {
    let daemon = daemon();
    let target = format!("/stream/{}", fresh_id("force-free"));
    let answer = request(daemon.loom(), "POST", &format!("{target}?force=true"), &[], b"new").expect(201);
    assert_eq!(answer.header("x-stream-replaced"), None);
    assert_eq!(daemon.get(&target).body, b"new");
}

#[test]
fn only_the_word_true_is_force() {
    let daemon = daemon();
    let id = fresh_id("force-word");
    post(daemon.loom(), &id, b"first").expect(201);
    for query in [
        "force=1",
        "force",
        "force=",
        "force=TRUE",
        "force=True",
        "force=yes",
        "force=false",
        "FORCE=true",
        "force=true%20",
    ] {
        let answer = request(daemon.loom(), "POST", &format!("/stream/{id}?{query}"), &[], b"second");
        assert_eq!(answer.status, 409, "{query}");
    }
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"first");
}

#[test]
fn force_ends_old_readers_at_the_old_bytes_and_the_old_answer_without_its_end() {
    let daemon = daemon();
    let id = fresh_id("force-live");
    let target = format!("/stream/{id}");
    let mut old = Producer::begin(daemon.loom(), &id);
    let mut reader = Live::get(daemon.loom(), &target);
    old.chunk("old bytes");
    reader.wait_for(b"old bytes");

    let mut new = Producer::begin_at(daemon.loom(), &format!("{target}?force=true"), &[]);
    assert_eq!(new.head.status, 201);
    assert_eq!(new.head.header("x-stream-replaced"), Some("true"));
    new.chunk("new bytes");

    // What the old producer still sends is taken and discarded; it may also find the connection ended already.
    for _ in 0..20 {
        if old.try_chunk(b"late bytes").is_err() {
            break;
        }
    }
    let answer = reader.finish();
    assert_eq!(answer.body, b"old bytes", "an attached reader ends at the old bytes");
    let mut second = Live::get(daemon.loom(), &target);
    second.wait_for(b"new bytes");
    assert_eq!(second.seen(), b"new bytes", "a new reader sees the new stream alone");

    let ended = old.try_finish();
    assert!(
        ended.as_ref().is_ok_and(|answer| answer.end == End::Cut) || ended.is_err(),
        "the old producer was told that all was well: {ended:?}"
    );
    new.finish().whole();
    assert_eq!(second.finish().body, b"new bytes");
    assert_eq!(daemon.get(&target).body, b"new bytes");
}

#[test]
fn force_is_atomic_a_reader_finds_the_old_stream_or_the_new_one() {
    let daemon = daemon();
    let target = format!("/stream/{}", fresh_id("force-atomic"));
    let (addr, target) = (daemon.loom(), target.as_str());
    let content = |number: u64| bytes_of(number, 20_000);
    request(addr, "POST", target, &[], &content(0)).expect(201);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for number in 1..=30 {
                request(addr, "POST", &format!("{target}?force=true"), &[], &content(number))
                    .expect(201)
                    .whole();
            }
        });
        let mut seen = 0;
        while !writer.is_finished() {
            let answer = request(addr, "GET", target, &[], b"").expect(200);
            // Attached while the old one is replaced, a reader ends early; what it has is one stream's prefix.
            let fits = (seen..=30).find(|number| content(*number).starts_with(&answer.body));
            seen = fits.unwrap_or_else(|| {
                panic!("a mix of streams, or one older than seen before: {} bytes", answer.body.len())
            });
        }
        writer.join().expect("the writer");
    });
    assert!(request(addr, "GET", target, &[], b"").body == content(30));
}

// ---- consuming ----

#[test]
fn an_unknown_id_is_a_404_with_the_documented_body() {
    let daemon = daemon();
    let answer = daemon.get("/stream/no-such-stream").expect(404);
    assert_eq!(answer.reason, "Not Found");
    assert_eq!(answer.text(), r#"{"error":"The stream with ID no-such-stream does not exist"}"#);
    json_of(&answer);
    let answer = daemon.get("/stream/").expect(404);
    assert_eq!(answer.text(), r#"{"error":"The stream with ID  does not exist"}"#);
}

#[test]
fn a_complete_stream_comes_as_octets_with_its_length() {
    let daemon = daemon();
    let id = fresh_id("complete");
    post(daemon.loom(), &id, b"whole").expect(201);
    let answer = daemon.get(&format!("/stream/{id}")).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-length"), Some("5"));
    assert_eq!((answer.body.as_slice(), answer.end), (&b"whole"[..], End::Length));
}

#[test]
fn an_empty_stream_is_a_stream() {
    let daemon = daemon();
    let id = fresh_id("empty");
    post(daemon.loom(), &id, b"").expect(201);
    let answer = daemon.get(&format!("/stream/{id}")).expect(200);
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("0"), 0));
    post(daemon.loom(), &id, b"x").expect(409);
}

#[test]
fn a_live_stream_is_replayed_and_followed_in_chunks_to_its_real_end() {
    let daemon = daemon();
    let id = fresh_id("live");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut early = Live::get(daemon.loom(), &format!("/stream/{id}"));
    assert_eq!(early.so_far().status, 200, "the head is sent before the first byte");
    assert_eq!(early.so_far().header("transfer-encoding"), Some("chunked"));
    assert_eq!(early.so_far().header("content-type"), Some("application/octet-stream"));
    producer.chunk("one\n");
    early.wait_for(b"one\n");
    let mut late = Live::get(daemon.loom(), &format!("/stream/{id}"));
    late.wait_for(b"one\n");
    producer.chunk("two\n");
    early.wait_for(b"two\n");
    late.wait_for(b"two\n");
    assert!(early.is_silent_for(A_MOMENT), "a silent producer has not ended");
    producer.finish().whole();
    for reader in [early, late] {
        let answer = reader.finish();
        assert_eq!((answer.body.as_slice(), &answer.end), (&b"one\ntwo\n"[..], &End::LastChunk));
        assert_eq!(answer.trailer("x-stream-state"), Some("complete"));
    }
}

#[test]
fn the_connection_of_a_live_reader_serves_further_requests() {
    let daemon = daemon();
    let id = fresh_id("reader-again");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    producer.chunk("x");
    reader.wait_for(b"x");
    producer.finish();
    reader.until("nothing more is waited for", |seen| seen == b"x");
    while reader.step(common::PATIENCE).expect("the end of the answer") {}
    let mut conn = reader.into_conn();
    conn.send(request_bytes("GET", &format!("/stream/{id}"), &[], b""));
    assert_eq!(conn.answer().expect(200).body, b"x");
}

#[test]
fn notail_ends_with_the_current_bytes_whatever_its_value() {
    let daemon = daemon();
    let id = fresh_id("notail");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    producer.chunk("so far");
    reader.wait_for(b"so far");
    for query in
        ["notail", "notail=", "notail=1", "notail=true", "notail=false", "notail=0", "x=1&notail", "notail&y"]
    {
        let answer = daemon.get(&format!("/stream/{id}?{query}")).expect(200).whole();
        assert_eq!(answer.text(), "so far", "{query}");
    }
    producer.finish().whole();
    assert_eq!(daemon.get(&format!("/stream/{id}?notail")).expect(200).text(), "so far");
    assert_eq!(reader.finish().text(), "so far", "the follower was not disturbed");
}

#[test]
fn notail_on_a_stream_without_bytes_is_empty_at_once() {
    let daemon = daemon();
    let id = fresh_id("notail-empty");
    let _producer = Producer::begin(daemon.loom(), &id);
    let answer = daemon.get(&format!("/stream/{id}?notail")).expect(200).whole();
    assert_eq!(answer.body, b"");
}

#[test]
fn every_one_of_many_readers_gets_every_byte() {
    let daemon = daemon();
    let id = fresh_id("many");
    let content = bytes_of(11, 200_000);
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut readers = Vec::new();
    for piece in content.chunks(10_000) {
        readers.push(Live::get(daemon.loom(), &format!("/stream/{id}")));
        producer.chunk(piece);
    }
    producer.finish().whole();
    for reader in readers {
        let answer = reader.finish().whole();
        assert!(answer.body == content, "{}", common::content::difference(&answer.body, &content));
    }
}

#[test]
fn a_reader_that_leaves_harms_nobody() {
    let daemon = daemon();
    let id = fresh_id("leaving");
    let mut producer = Producer::begin(daemon.loom(), &id);
    let mut stays = Live::get(daemon.loom(), &format!("/stream/{id}"));
    let resets = Live::get(daemon.loom(), &format!("/stream/{id}"));
    let closes = Live::get(daemon.loom(), &format!("/stream/{id}"));
    producer.chunk("one ");
    stays.wait_for(b"one ");
    resets.reset();
    drop(closes);
    for _ in 0..10 {
        producer.chunk("more ");
    }
    producer.finish().whole();
    assert_eq!(stays.finish().whole().text(), format!("one {}", "more ".repeat(10)));
}

// ---- a producer that vanishes ----

/// A live stream whose producer is about to vanish, with an attached reader that has seen all of it.
fn attached(daemon: &Daemon, id: &str) -> (Producer, Live) {
    let mut producer = Producer::begin(daemon.loom(), id);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    producer.chunk("so far");
    reader.wait_for(b"so far");
    (producer, reader)
}

#[test]
fn readers_of_a_vanished_producer_get_a_clean_end_that_says_interrupted() {
    let daemon = daemon();
    for vanish in [Producer::reset, Producer::hang_up] {
        let id = fresh_id("vanished");
        let (producer, reader) = attached(&daemon, &id);
        vanish(producer);
        let answer = reader.finish();
        assert_eq!((answer.text(), &answer.end), ("so far", &End::LastChunk));
        assert_eq!(answer.trailer("x-stream-state"), Some("interrupted"));

        let answer = daemon.get(&format!("/stream/{id}")).expect(200);
        assert_eq!((answer.text(), &answer.end), ("so far", &End::Length));
        assert_eq!(answer.header("x-stream-state"), Some("interrupted"));
        post(daemon.loom(), &id, b"x").expect(409);
    }
}

#[test]
fn a_body_shorter_than_its_content_length_is_interrupted() {
    let daemon = daemon();
    let id = fresh_id("short");
    let mut conn = Conn::open(daemon.loom());
    conn.send(format!("POST /stream/{id} HTTP/1.1\r\nHost: mill.test\r\nContent-Length: 10\r\n\r\n01234"));
    let head = conn.head().expect(201);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    reader.wait_for(b"01234");
    conn.half_close();
    let answer = conn.try_body(head, "POST").expect("the end of the connection");
    assert_eq!(answer.end, End::Cut, "a producer that sent half must not be told that all was well");
    let answer = reader.finish();
    assert_eq!((answer.text(), &answer.end), ("01234", &End::LastChunk));
    assert_eq!(answer.trailer("x-stream-state"), Some("interrupted"));
}

#[test]
fn with_interrupted_abort_readers_are_cut_instead() {
    let daemon = Setup::default().loom("interrupted = \"abort\"").start();
    let (producer, reader) = attached(&daemon, "vanished");
    producer.reset();
    let answer = reader.finish();
    assert_eq!((answer.text(), &answer.end), ("so far", &End::Cut));
    let state = common::head(daemon.loom(), "/stream/vanished");
    assert_eq!(state.header("x-stream-state"), Some("interrupted"));
    post(daemon.loom(), "vanished", b"x").expect(409);
    // An ordinary end stays one.
    let mut producer = Producer::begin(daemon.loom(), "ended");
    let reader = Live::get(daemon.loom(), "/stream/ended");
    producer.chunk("all");
    producer.finish().whole();
    assert_eq!(reader.finish().whole().text(), "all");
}

// ---- deleting ----

#[test]
fn delete_frees_the_id() {
    let daemon = daemon();
    let id = fresh_id("deleted");
    post(daemon.loom(), &id, b"first").expect(201);
    let answer = request(daemon.loom(), "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
    assert_eq!(answer.end, End::Bodyless);
    daemon.get(&format!("/stream/{id}")).expect(404);
    let answer = request(daemon.loom(), "DELETE", &format!("/stream/{id}"), &[], b"").expect(404);
    assert_eq!(answer.text(), format!(r#"{{"error":"The stream with ID {id} does not exist"}}"#));
    let answer = post(daemon.loom(), &id, b"second").expect(201);
    assert_eq!(answer.header("x-stream-replaced"), None);
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, b"second");
}

#[test]
fn deleting_an_open_stream_ends_its_readers_and_never_tells_its_producer_that_all_was_well() {
    let daemon = daemon();
    let id = fresh_id("deleted-open");
    let (producer, reader) = attached(&daemon, &id);
    request(daemon.loom(), "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
    assert_eq!(reader.finish().text(), "so far");
    daemon.get(&format!("/stream/{id}")).expect(404);
    let ended = producer.try_finish();
    assert!(!ended.as_ref().is_ok_and(|answer| answer.end == End::LastChunk), "{ended:?}");
}

#[test]
fn deleting_a_build_deletes_its_prefix_and_nothing_else() {
    let daemon = daemon();
    let build = fresh_id("b");
    for id in [
        format!("build-{build}-one"),
        format!("build-{build}-two"),
        format!("build-{build}0-x"),
        format!("build-{build}"),
        format!("xbuild-{build}-x"),
    ] {
        post(daemon.loom(), &id, b"x").expect(201);
    }
    let delete = |build: &str| {
        request(daemon.loom(), "DELETE", &format!("/stream/build/{build}"), &[], b"").expect(200)
    };
    let answer = delete(&build);
    let json = json_of(&answer);
    assert_eq!(json["status"], "deleted");
    assert_eq!(json["buildId"], build.as_str());
    let mut deleted: Vec<&str> =
        json["deleted"].as_array().expect("a list").iter().map(|id| id.as_str().unwrap()).collect();
    deleted.sort_unstable();
    assert_eq!(deleted, [format!("build-{build}-one"), format!("build-{build}-two")]);
    assert!(
        answer.text().starts_with(&format!(r#"{{"status":"deleted","buildId":"{build}","deleted":["#)),
        "{answer:?}"
    );

    assert_eq!(
        delete(&build).text(),
        format!(r#"{{"status":"deleted","buildId":"{build}","deleted":[]}}"#),
        "again is fine"
    );
    for gone in [format!("build-{build}-one"), format!("build-{build}-two")] {
        daemon.get(&format!("/stream/{gone}")).expect(404);
        post(daemon.loom(), &gone, b"again").expect(201);
    }
    for kept in [format!("build-{build}0-x"), format!("build-{build}"), format!("xbuild-{build}-x")] {
        daemon.get(&format!("/stream/{kept}")).expect(200);
    }
}

#[test]
fn a_build_id_is_no_pattern() {
    let daemon = daemon();
    let build = fresh_id("glob");
    post(daemon.loom(), &format!("build-{build}-x"), b"x").expect(201);
    for pattern in ["*", "%3F", &format!("{}*", &build[..3]), "%5Ba-z%5D*", "{a,b}", "**", ".*"] {
        let answer =
            request(daemon.loom(), "DELETE", &format!("/stream/build/{pattern}"), &[], b"").expect(200);
        assert_eq!(json_of(&answer)["deleted"].as_array().map(Vec::len), Some(0), "{pattern}");
    }
    daemon.get(&format!("/stream/build-{build}-x")).expect(200);
}

// ---- authentication ----

fn guarded() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    let setup =
        Setup::default().top("log_level = \"trace\"").loom("tokens = [\"first-s3cret\", \"second-s3cret\"]");
    setup.share(&DAEMON)
}

const UNAUTHORIZED: &str =
    r#"{"name":"AuthenticationError","message":"Unauthorized","status":401,"statusCode":401}"#;
const BAD_REQUEST: &str =
    r#"{"name":"AuthenticationError","message":"Bad Request","status":400,"statusCode":400}"#;

fn ask(daemon: &Daemon, target: &str, headers: &[(&str, &str)]) -> Answer {
    request(daemon.loom(), "GET", target, headers, b"")
}

#[test]
fn without_a_token_the_answer_is_401() {
    let daemon = guarded();
    for headers in
        [&[][..], &[("Authorization", "Basic Zm9vOmJhcg==")], &[("Authorization", "Token first-s3cret")]]
    {
        let answer = ask(&daemon, "/stream/x", headers).expect(401);
        assert_eq!(answer.reason, "Unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"API Key\""), "{headers:?}");
        assert_eq!(answer.text(), UNAUTHORIZED);
        json_of(&answer);
    }
}

#[test]
fn a_wrong_token_is_401_and_named_invalid() {
    let daemon = guarded();
    for token in ["first-s3cre", "first-s3cretx", "First-s3cret", "first-s3cret,second-s3cret", "0"] {
        let answer = ask(&daemon, "/stream/x", &[("Authorization", &format!("Bearer {token}"))]).expect(401);
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"API Key\", error=\"invalid_token\"")
        );
        assert_eq!(answer.text(), UNAUTHORIZED);
    }
}

#[test]
fn every_token_opens_every_route_under_both_header_names() {
    let daemon = guarded();
    for (name, value) in [
        ("Authorization", "Bearer first-s3cret"),
        ("Authorization", "bearer second-s3cret"),
        ("authorization", "BEARER first-s3cret"),
        ("Authentication", "Bearer first-s3cret"),
        ("authentication", "bearer second-s3cret"),
    ] {
        let target = format!("/stream/{}", fresh_id("opened"));
        request(daemon.loom(), "POST", &target, &[(name, value)], b"x").expect(201);
        ask(&daemon, &target, &[(name, value)]).expect(200);
        request(daemon.loom(), "DELETE", &target, &[(name, value)], b"").expect(204);
    }
}

#[test]
fn the_query_may_carry_the_token() {
    let daemon = guarded();
    let target = format!("/stream/{}", fresh_id("query"));
    request(daemon.loom(), "POST", &format!("{target}?access_token=first-s3cret"), &[], b"x").expect(201);
    ask(&daemon, &format!("{target}?notail&access_token=second-s3cret"), &[]).expect(200);
    ask(&daemon, &format!("{target}?access_token=first%2Ds3cret"), &[]).expect(200);
    ask(&daemon, &format!("{target}?access_token=wrong"), &[]).expect(401);
}

#[test]
fn a_token_in_both_places_is_400() {
    let daemon = guarded();
    for name in ["Authorization", "Authentication"] {
        let answer =
            ask(&daemon, "/stream/x?access_token=first-s3cret", &[(name, "Bearer first-s3cret")]).expect(400);
        assert_eq!(answer.text(), BAD_REQUEST);
        json_of(&answer);
    }
}

#[test]
fn a_header_that_is_not_two_words_is_400() {
    let daemon = guarded();
    for value in ["Bearer", "first-s3cret", "Bearer first-s3cret second-s3cret"] {
        let answer = ask(&daemon, "/stream/x", &[("Authorization", value)]).expect(400);
        assert_eq!(answer.text(), BAD_REQUEST, "{value}");
    }
}

#[test]
fn routes_are_looked_up_before_tokens() {
    let daemon = guarded();
    let answer = ask(&daemon, "/nowhere", &[]).expect(404);
    assert_eq!(answer.text(), r#"{"code":"ResourceNotFound","message":"/nowhere does not exist"}"#);
    request(daemon.loom(), "PUT", "/stream/x", &[], b"").expect(405);
}

#[test]
fn a_refused_producer_stores_nothing() {
    let daemon = guarded();
    let target = format!("/stream/{}", fresh_id("refused"));
    request(daemon.loom(), "POST", &target, &[], b"secretly").expect(401);
    ask(&daemon, &target, &[("Authorization", "Bearer first-s3cret")]).expect(404);
}

#[test]
fn the_spy_needs_a_token_too() {
    let daemon = guarded();
    ask(&daemon, "/spy", &[]).expect(401);
    ask(&daemon, "/streams", &[]).expect(401);
}

#[test]
fn tokens_never_reach_the_log() {
    let daemon = Setup::default().top("log_level = \"trace\"").loom("tokens = [\"t0psecret\"]").start();
    ask(&daemon, "/stream/logged", &[("Authorization", "Bearer t0psecret")]).expect(404);
    ask(&daemon, "/stream/logged?access_token=t0psecret", &[]).expect(404);
    ask(&daemon, "/stream/logged?access_token=t0p%73ecret", &[]).expect(404);
    ask(&daemon, "/stream/logged?access_token=t0psecret-wrong", &[]).expect(401);
    ask(&daemon, "/stream/logged", &[("Authentication", "Bearer wrong-t0psecret")]).expect(401);
    request(daemon.loom(), "POST", "/stream/logged?access_token=t0psecret", &[], b"x").expect(201);
    Live::with(Conn::open(daemon.loom()), &request_bytes("GET", "/spy?access_token=t0psecret", &[], b""))
        .so_far();
    let mut daemon = daemon;
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert!(!log.is_empty(), "a daemon at trace level says something");
    for secret in ["t0psecret", "t0p%73ecret"] {
        assert!(!log.contains(secret), "{:?}", log.lines().find(|line| line.contains(secret)));
    }
}

#[test]
fn without_tokens_in_the_configuration_nobody_is_asked_for_one() {
    let daemon = daemon();
    ask(&daemon, "/stream/absent", &[]).expect(404);
    ask(&daemon, "/stream/absent", &[("Authorization", "Bearer whatever")]).expect(404);
    ask(&daemon, "/stream/absent", &[("Authorization", "Bearer token1")]).expect(404);
    // A default token would show as a 401 for others.
    let answer = ask(&guarded(), "/stream/absent", &[("Authorization", "Bearer token1")]).expect(401);
    assert!(answer.header("www-authenticate").is_some());
}

// ---- routes and methods ----

#[test]
fn an_unknown_path_is_404_and_names_the_path_without_its_query() {
    let daemon = daemon();
    for (target, path) in [
        ("/", "/"),
        ("/streamx", "/streamx"),
        ("/nope?x=1", "/nope"),
        ("/stream/a/b", "/stream/a/b"),
        ("/spy/x", "/spy/x"),
    ] {
        let answer = daemon.get(target).expect(404);
        assert_eq!(
            answer.text(),
            format!(r#"{{"code":"ResourceNotFound","message":"{path} does not exist"}}"#),
            "{target}"
        );
        json_of(&answer);
    }
}

#[test]
fn a_wrong_method_is_405_with_the_methods_that_are_right() {
    let daemon = daemon();
    for (method, target, right) in [
        ("PUT", "/stream/x", &["GET", "HEAD", "POST", "DELETE"][..]),
        ("PATCH", "/stream/x", &["GET", "HEAD", "POST", "DELETE"]),
        ("OPTIONS", "/stream/x", &["GET", "HEAD", "POST", "DELETE"]),
        ("PUT", "/stream/", &["POST"]),
        ("POST", "/spy", &["GET"]),
        ("DELETE", "/spy", &["GET"]),
        ("POST", "/stream/build/x", &["DELETE"]),
    ] {
        let answer = request(daemon.loom(), method, target, &[], b"").expect(405);
        assert_eq!(answer.reason, "Method Not Allowed");
        let body = format!(r#"{{"code":"MethodNotAllowed","message":"{method} is not allowed"}}"#);
        assert_eq!(answer.text(), body, "{method} {target}");
        json_of(&answer);
        let allow: Vec<&str> = answer.header("allow").expect("Allow").split(',').map(str::trim).collect();
        assert!(right.iter().all(|method| allow.contains(method)), "{method} {target}: {allow:?}");
        assert!(!allow.contains(&method), "{method} {target}: {allow:?}");
    }
}

// ---- the spy ----

/// A spy alone with its daemon, since it shows every stream there is.
fn spy(daemon: &Daemon, query: &str) -> Live {
    let spy = Live::get(daemon.loom(), &format!("/spy{query}"));
    assert_eq!(spy.so_far().status, 200);
    spy
}

#[test]
fn the_spy_answers_at_once_though_nothing_happens() {
    let daemon = Daemon::start();
    let mut spy = spy(&daemon, "");
    assert_eq!(spy.so_far().header("transfer-encoding"), Some("chunked"));
    assert!(spy.is_silent_for(A_MOMENT), "{:?}", spy.seen());
}

#[test]
fn the_spy_shows_start_data_and_end_byte_for_byte() {
    let daemon = Daemon::start();
    let mut spy = spy(&daemon, "");
    let mut a = Producer::begin(daemon.loom(), "A");
    spy.wait_for(b"START: A\n");
    a.chunk("a1\n");
    spy.wait_for(b"A:\na1\n");
    a.chunk("a2\n");
    spy.wait_for(b"a2\n");
    let mut b = Producer::begin(daemon.loom(), "B");
    spy.wait_for(b"START: B\n");
    b.chunk("b1");
    spy.wait_for(b"B:\nb1");
    a.chunk("a3\n");
    spy.wait_for(b"A:\na3\n");
    a.finish();
    spy.wait_for(b"END: A\n");
    b.finish();
    spy.wait_for(b"END: B\n");
    let expected: &[u8] = b"START: A\nA:\na1\na2\nSTART: B\nB:\nb1A:\na3\nEND: A\nEND: B\n";
    assert_eq!(spy.seen().escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn the_spy_passes_raw_bytes() {
    let daemon = Daemon::start();
    let mut spy = spy(&daemon, "");
    let mut producer = Producer::begin(daemon.loom(), "raw");
    let every_byte: Vec<u8> = (0..=255).collect();
    producer.chunk(&every_byte);
    spy.wait_for(&every_byte);
    assert_eq!(spy.seen(), [b"START: raw\nraw:\n", every_byte.as_slice()].concat());
}

#[test]
fn a_spy_that_comes_late_is_shown_the_active_streams_with_their_data_so_far() {
    let daemon = Daemon::start();
    post(daemon.loom(), "over", b"not shown").expect(201);
    let (mut producer, reader) = attached(&daemon, "open");
    let mut spy = spy(&daemon, "");
    spy.wait_for(b"so far");
    assert_eq!(spy.seen(), b"START: open\nopen:\nso far");
    producer.chunk(" and on");
    spy.wait_for(b" and on");
    producer.finish();
    spy.wait_for(b"END: open\n");
    assert_eq!(spy.seen(), b"START: open\nopen:\nso far and onEND: open\n");
    assert_eq!(reader.finish().text(), "so far and on");
}

#[test]
fn the_spy_lists_no_stream_whose_producer_vanished() {
    let daemon = Daemon::start();
    let mut witness = spy(&daemon, "");
    let (producer, reader) = attached(&daemon, "gone");
    producer.reset();
    reader.finish();
    witness.wait_for(b"END: gone\n");
    let mut late = spy(&daemon, "");
    let _producer = Producer::begin(daemon.loom(), "next");
    late.wait_for(b"START: next\n");
    assert_eq!(late.seen(), b"START: next\n");
}

#[test]
fn a_spy_that_leaves_harms_nobody() {
    let daemon = Daemon::start();
    let mut stays = spy(&daemon, "");
    spy(&daemon, "?color").reset();
    drop(spy(&daemon, ""));
    let (producer, reader) = attached(&daemon, "on");
    producer.finish().whole();
    stays.wait_for(b"END: on\n");
    assert_eq!(reader.finish().text(), "so far");
}

#[test]
fn the_coloured_spy_paints_byte_for_byte() {
    let daemon = Daemon::start();
    let mut spy = spy(&daemon, "?color");
    let mut a = Producer::begin(daemon.loom(), "A");
    // The first shown stream is black.
    let start = b"\x1b[1m\x1b[30mSTART:\x1b[22m A\x1b[39m\n\x1b[30m\x1b[39m";
    spy.wait_for(start);
    a.chunk("a1\n");
    let first = b"\x1b[1m\x1b[30mA:\x1b[22m\x1b[39m\n\x1b[30ma1\x1b[39m\n\x1b[30m\x1b[39m";
    spy.wait_for(first);
    a.chunk("a2\n");
    let second = b"\x1b[30ma2\x1b[39m\n\x1b[30m\x1b[39m";
    spy.wait_for(second);
    a.chunk("no line end");
    let open = b"\x1b[30mno line end\x1b[39m";
    spy.wait_for(open);
    // Bold reaches up to the last colon of the first line, and no further.
    a.chunk("x:y: z\nk: v\n");
    let colons = b"\x1b[1m\x1b[30mx:y:\x1b[22m z\x1b[39m\n\x1b[30mk: v\x1b[39m\n\x1b[30m\x1b[39m";
    spy.wait_for(colons);
    a.finish();
    let end = b"\x1b[1m\x1b[30mEND:\x1b[22m A\x1b[39m\n\x1b[30m\x1b[39m";
    spy.wait_for(end);
    let expected = [&start[..], first, second, open, colons, end].concat();
    assert_eq!(spy.seen().escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn the_coloured_spy_takes_one_colour_per_shown_stream_in_a_cycle() {
    let daemon = Daemon::start();
    let mut spy = spy(&daemon, "?color=whatever");
    for (number, colour) in [30, 31, 32, 33, 34, 90, 35, 36, 37, 30, 31].into_iter().enumerate() {
        let producer = Producer::begin(daemon.loom(), &format!("s{number}"));
        spy.wait_for(
            format!("\x1b[1m\x1b[{colour}mSTART:\x1b[22m s{number}\x1b[39m\n\x1b[{colour}m\x1b[39m")
                .as_bytes(),
        );
        producer.finish();
        spy.wait_for(
            format!("\x1b[1m\x1b[{colour}mEND:\x1b[22m s{number}\x1b[39m\n\x1b[{colour}m\x1b[39m").as_bytes(),
        );
    }
}

#[test]
fn the_spy_sees_streams_of_every_shard() {
    let daemon = Daemon::start();
    let mut spy = spy(&daemon, "");
    for number in 0..24 {
        post(daemon.loom(), &format!("s{number:02}"), format!("<{number}>").as_bytes()).expect(201);
    }
    spy.until("every stream has ended", |seen| {
        (0..24).all(|number| find(seen, format!("END: s{number:02}\n").as_bytes()).is_some())
    });
    for number in 0..24 {
        for part in [format!("START: s{number:02}\n"), format!("s{number:02}:\n<{number}>")] {
            assert!(find(spy.seen(), part.as_bytes()).is_some(), "{part:?} in {}", spy.seen().escape_ascii());
        }
    }
}

// ---- surviving ordinary use ----

#[test]
fn what_ends_other_servers_is_ordinary_use_here() {
    let daemon = daemon();
    // Two pipelined requests; a notail on a live stream; a read of an interrupted one; odd ids: then all is well.
    let mut conn = Conn::open(daemon.loom());
    conn.send(
        [request_bytes("GET", "/stream/a", &[], b""), request_bytes("GET", "/stream/b", &[], b"")].concat(),
    );
    conn.answer().expect(404);
    conn.answer().expect(404);
    let id = fresh_id("ordinary");
    let (producer, reader) = attached(&daemon, &id);
    daemon.get(&format!("/stream/{id}?notail")).expect(200);
    producer.reset();
    reader.finish();
    daemon.get(&format!("/stream/{id}")).expect(200);
    eventually("the daemon is ready", || {
        (common::get(daemon.admin(), "/readyz").status == 200).then_some(())
    });
}

#[test]
fn a_reader_is_not_cut_by_silence() {
    // Every timer that a daemon has is short here; none of them may end a tail.
    let daemon = Setup::default().limits("header_timeout = \"300ms\"\nidle_timeout = \"300ms\"").start();
    let (mut producer, mut reader) = attached(&daemon, "silent");
    assert!(reader.is_silent_for(Duration::from_millis(1200)), "silence ended the tail");
    producer.chunk(" and on");
    reader.wait_for(b" and on");
    producer.finish().whole();
    assert_eq!(reader.finish().whole().text(), "so far and on");
}

/// Every path below a directory.
fn tree(dir: &std::path::Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        found.insert(entry.path().display().to_string());
        if entry.path().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

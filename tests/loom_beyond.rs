//! What loom streams can do beyond the original: offsets, ranges, states, resuming, listing.

mod common;

use std::sync::OnceLock;

use common::daemon::A_MOMENT;
use common::http::request_bytes;
use common::{
    Answer, Conn, Daemon, End, Live, Producer, Setup, Shared, bytes_of, error_of, eventually, fresh_id,
    json_of, post, request,
};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().share(&DAEMON)
}

fn ranged(daemon: &Daemon, id: &str, range: &str) -> Answer {
    request(daemon.loom(), "GET", &format!("/stream/{id}"), &[("Range", range)], b"").whole()
}

fn number(answer: &Answer, header: &str) -> u64 {
    let text = answer.header(header).unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    text.parse().unwrap_or_else(|_| panic!("{header} is no number: {text}"))
}

fn epoch_of(daemon: &Daemon, id: &str) -> u64 {
    number(&common::head(daemon.loom(), &format!("/stream/{id}")).expect(200), "stream-epoch")
}

/// A complete stream of a hundred bytes.
fn hundred(daemon: &Daemon) -> (String, Vec<u8>) {
    let (id, content) = (fresh_id("hundred"), bytes_of(100, 100));
    post(daemon.loom(), &id, &content).expect(201);
    (id, content)
}

/// An open stream of a hundred bytes that every reader can see.
fn hundred_open(daemon: &Daemon) -> (String, Vec<u8>, Producer) {
    let (id, content) = (fresh_id("hundred-open"), bytes_of(100, 100));
    let mut producer = Producer::begin(daemon.loom(), &id);
    producer.chunk(&content);
    Live::get(daemon.loom(), &format!("/stream/{id}")).wait_len(100);
    (id, content, producer)
}

/// An interrupted stream of a hundred bytes.
fn hundred_interrupted(daemon: &Daemon) -> (String, Vec<u8>) {
    let (id, content, producer) = hundred_open(daemon);
    let reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    producer.reset();
    assert_eq!(reader.finish().trailer("x-stream-state"), Some("interrupted"));
    (id, content)
}

// ---- state in headers and trailers ----

#[test]
fn a_complete_stream_says_where_it_ends_and_that_it_does() {
    let daemon = daemon();
    let (id, content) = hundred(&daemon);
    for answer in
        [daemon.get(&format!("/stream/{id}")), common::head(daemon.loom(), &format!("/stream/{id}"))]
    {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), Some("100"));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(answer.header("x-stream-state"), Some("complete"));
        assert_eq!(answer.header("stream-closed"), Some("true"));
        assert_eq!(number(&answer, "stream-next-offset"), 100);
        assert_eq!(number(&answer, "stream-durable-offset"), 100);
        number(&answer, "stream-epoch");
        match answer.end {
            End::Bodyless => assert_eq!(answer.body, b""),
            _ => assert_eq!(answer.body, content),
        }
    }
}

#[test]
fn an_open_stream_says_where_it_stands_now_and_in_trailers_where_it_ended() {
    let daemon = daemon();
    let (id, _, mut producer) = hundred_open(&daemon);
    let reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    for answer in [reader.so_far(), &common::head(daemon.loom(), &format!("/stream/{id}"))] {
        assert_eq!(answer.header("x-stream-state"), Some("open"), "{answer:?}");
        assert_eq!(answer.header("stream-closed"), None);
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(number(answer, "stream-next-offset"), 100);
        assert!(number(answer, "stream-durable-offset") <= 100);
        number(answer, "stream-epoch");
    }
    producer.chunk("more");
    producer.finish().whole();
    let answer = reader.finish();
    assert_eq!(answer.end, End::LastChunk);
    assert_eq!(answer.trailer("x-stream-state"), Some("complete"));
    assert_eq!(answer.trailer("stream-next-offset"), Some("104"));
    assert_eq!(answer.trailer("stream-closed"), Some("true"));
}

#[test]
fn an_interrupted_stream_is_not_closed() {
    let daemon = daemon();
    let (id, _) = hundred_interrupted(&daemon);
    let answer = common::head(daemon.loom(), &format!("/stream/{id}")).expect(200);
    assert_eq!(answer.header("x-stream-state"), Some("interrupted"));
    assert_eq!(answer.header("stream-closed"), None);
    assert_eq!(answer.header("content-length"), Some("100"));
    assert_eq!(number(&answer, "stream-next-offset"), 100);
    assert_eq!(number(&answer, "stream-durable-offset"), 100);
}

#[test]
fn the_durable_offset_of_an_open_stream_follows() {
    let daemon = daemon();
    let (id, _, _producer) = hundred_open(&daemon);
    eventually("the bytes of an open stream are durable", || {
        let answer = common::head(daemon.loom(), &format!("/stream/{id}"));
        (number(&answer, "stream-durable-offset") == 100).then_some(())
    });
}

#[test]
fn head_of_an_unknown_stream_is_404_without_a_body() {
    let daemon = daemon();
    let mut conn = Conn::open(daemon.loom());
    conn.send(request_bytes("HEAD", "/stream/unknown-to-head", &[], b""));
    conn.answer_to("HEAD").expect(404);
    // Had a body come, the next answer would start with it.
    conn.send(request_bytes("GET", "/stream/unknown-to-head", &[], b""));
    conn.answer().expect(404);
}

// ---- ranges and offsets ----

#[test]
fn ranges_of_a_complete_stream() {
    let daemon = daemon();
    let (id, content) = hundred(&daemon);
    for (range, first, last) in [
        ("bytes=0-", 0, 99),
        ("bytes=40-", 40, 99),
        ("bytes=99-", 99, 99),
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=90-1000", 90, 99),
        ("bytes=-10", 90, 99),
        ("bytes=-1", 99, 99),
        ("bytes=-1000", 0, 99),
        ("Bytes=5-6", 5, 6),
    ] {
        let answer = ranged(&daemon, &id, range).expect(206);
        assert_eq!(answer.reason, "Partial Content");
        assert_eq!(
            answer.header("content-range"),
            Some(format!("bytes {first}-{last}/100").as_str()),
            "{range}"
        );
        assert_eq!(answer.body, content[first..=last], "{range}");
        assert_eq!(answer.header("content-length"), Some((last - first + 1).to_string().as_str()), "{range}");
    }
}

#[test]
fn a_range_beyond_the_end_is_416_and_names_the_length() {
    let daemon = daemon();
    let (id, _) = hundred(&daemon);
    for range in ["bytes=100-", "bytes=100-200", "bytes=18446744073709551615-", "bytes=-0"] {
        let answer = ranged(&daemon, &id, range).expect(416);
        assert_eq!(answer.header("content-range"), Some("bytes */100"), "{range}");
    }
    let empty = fresh_id("empty");
    post(daemon.loom(), &empty, b"").expect(201);
    assert_eq!(ranged(&daemon, &empty, "bytes=0-").expect(416).header("content-range"), Some("bytes */0"));
}

#[test]
fn a_range_that_is_none_is_ignored() {
    let daemon = daemon();
    let (id, content) = hundred(&daemon);
    for range in [
        "lines=1-2",
        "bytes",
        "bytes=",
        "bytes=x-",
        "bytes=5-4",
        "bytes=--5",
        "bytes=1-2-3",
        "bytes 1-2",
        "bytes=0x1-2",
    ] {
        assert_eq!(ranged(&daemon, &id, range).expect(200).body, content, "{range}");
    }
}

#[test]
fn a_range_on_a_head_is_ignored() {
    let daemon = daemon();
    let (id, _) = hundred(&daemon);
    let answer = request(daemon.loom(), "HEAD", &format!("/stream/{id}"), &[("Range", "bytes=10-19")], b"")
        .expect(200);
    assert_eq!(answer.header("content-length"), Some("100"));
}

#[test]
fn an_offset_of_a_complete_stream_is_the_rest_with_its_length() {
    let daemon = daemon();
    let (id, content) = hundred(&daemon);
    for offset in [0, 1, 50, 99, 100] {
        let answer = daemon.get(&format!("/stream/{id}?offset={offset}")).expect(200).whole();
        assert_eq!(answer.body, content[offset..], "{offset}");
        assert_eq!(answer.header("content-length"), Some((100 - offset).to_string().as_str()));
        assert_eq!(number(&answer, "stream-next-offset"), 100);
        assert_eq!(answer.header("stream-closed"), Some("true"));
    }
}

#[test]
fn an_offset_beyond_the_end_is_416_and_names_the_end() {
    let daemon = daemon();
    let (complete, _) = hundred(&daemon);
    let (open, _, _producer) = hundred_open(&daemon);
    let (interrupted, _) = hundred_interrupted(&daemon);
    for id in [complete, open, interrupted] {
        let answer = daemon.get(&format!("/stream/{id}?offset=101")).expect(416);
        assert_eq!(answer.header("content-range"), Some("bytes */100"), "{id}");
        assert!(error_of(&answer).contains("100"), "the sentence names the end: {answer:?}");
    }
}

#[test]
fn an_offset_of_a_live_stream_is_followed_from_there() {
    let daemon = daemon();
    let (id, content, mut producer) = hundred_open(&daemon);
    let mut readers: Vec<(usize, Live)> = [0, 1, 60, 99, 100]
        .into_iter()
        .map(|offset| (offset, Live::get(daemon.loom(), &format!("/stream/{id}?offset={offset}"))))
        .collect();
    for (offset, reader) in &mut readers {
        assert_eq!(reader.so_far().status, 200);
        assert_eq!(reader.so_far().header("transfer-encoding"), Some("chunked"));
        reader.wait_len(100 - *offset);
    }
    let more = bytes_of(101, 50_000);
    producer.chunk(&more);
    producer.finish().whole();
    let all = [content, more].concat();
    for (offset, reader) in readers {
        let answer = reader.finish();
        assert!(
            answer.body == all[offset..],
            "{offset}: {}",
            common::content::difference(&answer.body, &all[offset..])
        );
        assert_eq!(answer.trailer("stream-next-offset"), Some("50100"));
    }
}

#[test]
fn a_closed_range_of_a_live_stream_that_is_there_is_206() {
    let daemon = daemon();
    let (id, content, _producer) = hundred_open(&daemon);
    for (range, first, last) in [("bytes=0-0", 0, 0), ("bytes=10-19", 10, 19), ("bytes=99-99", 99, 99)] {
        let answer = ranged(&daemon, &id, range).expect(206);
        let said = answer.header("content-range").expect("Content-Range");
        assert_eq!(said, format!("bytes {first}-{last}/*"), "a live stream has no length yet");
        assert_eq!(answer.body, content[first..=last]);
    }
}

#[test]
fn notail_and_an_offset_give_what_is_there_behind_it() {
    let daemon = daemon();
    let (id, content, _producer) = hundred_open(&daemon);
    let answer = daemon.get(&format!("/stream/{id}?notail&offset=70")).expect(200).whole();
    assert_eq!(answer.body, content[70..]);
    let answer = daemon.get(&format!("/stream/{id}?offset=100&notail")).expect(200).whole();
    assert_eq!(answer.body, b"");
}

#[test]
fn an_offset_that_is_no_number_is_refused_with_a_sentence() {
    let daemon = daemon();
    let (id, _) = hundred(&daemon);
    for offset in ["x", "-1", "1.5", "", "0x10", "99999999999999999999999", "+1", "%20"] {
        let answer = daemon.get(&format!("/stream/{id}?offset={offset}")).expect(400);
        assert!(error_of(&answer).contains("offset"), "{offset}: {answer:?}");
    }
}

#[test]
fn big_ranges_arrive_whole_from_any_place() {
    let daemon = daemon();
    let (id, content) = (fresh_id("big"), bytes_of(5, 3 << 20));
    post(daemon.loom(), &id, &content).expect(201);
    // Around the edges of windows and of whatever a shard sends at once.
    for (first, last) in [
        (0, 262_143),
        (262_143, 262_144),
        (262_144, 524_288),
        (1, 3_145_726),
        (3_000_000, 3_145_727),
        (16_383, 16_385),
    ] {
        let answer = ranged(&daemon, &id, &format!("bytes={first}-{last}")).expect(206);
        assert!(
            answer.body == content[first..=last],
            "{first}-{last}: {}",
            common::content::difference(&answer.body, &content[first..=last])
        );
    }
}

// ---- resuming ----

fn resume(daemon: &Daemon, id: &str, offset: u64, epoch: u64, body: &[u8]) -> Answer {
    request(daemon.loom(), "POST", &format!("/stream/{id}?resume={offset}&epoch={epoch}"), &[], body)
}

fn assert_success(answer: &Answer) {
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    assert_eq!(answer.end, End::LastChunk, "{answer:?}");
}

#[test]
fn an_interrupted_stream_goes_on_where_it_was() {
    let daemon = daemon();
    let (id, content) = hundred_interrupted(&daemon);
    let answer = resume(&daemon, &id, 100, epoch_of(&daemon, &id), b" and the rest");
    assert_success(&answer);
    let answer = daemon.get(&format!("/stream/{id}")).expect(200);
    assert_eq!(answer.body, [content.as_slice(), b" and the rest"].concat());
    assert_eq!(answer.header("x-stream-state"), Some("complete"));
}

#[test]
fn bytes_that_are_there_already_are_skipped() {
    let daemon = daemon();
    for offset in [0, 1, 60, 99] {
        let (id, content) = hundred_interrupted(&daemon);
        let all = [content.as_slice(), b" and the rest"].concat();
        assert_success(&resume(&daemon, &id, offset, epoch_of(&daemon, &id), &all[offset as usize..]));
        assert_eq!(daemon.get(&format!("/stream/{id}")).body, all, "resumed at {offset}");
    }
}

#[test]
fn a_resume_that_only_repeats_completes_the_stream() {
    let daemon = daemon();
    let (id, content) = hundred_interrupted(&daemon);
    assert_success(&resume(&daemon, &id, 40, epoch_of(&daemon, &id), &content[40..]));
    let answer = daemon.get(&format!("/stream/{id}"));
    assert_eq!(
        (answer.body.as_slice(), answer.header("x-stream-state")),
        (content.as_slice(), Some("complete"))
    );
}

#[test]
fn a_wrong_offset_or_epoch_is_412_with_the_true_ones() {
    let daemon = daemon();
    let (id, content) = hundred_interrupted(&daemon);
    let epoch = epoch_of(&daemon, &id);
    for (offset, claimed) in [(101, epoch), (100, epoch + 1), (5_000_000_000, epoch), (0, epoch + 7)] {
        let answer = resume(&daemon, &id, offset, claimed, b"never").expect(412);
        assert_eq!(number(&answer, "stream-next-offset"), 100);
        assert_eq!(number(&answer, "stream-epoch"), epoch);
        assert!(!error_of(&answer).is_empty());
    }
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, content, "a refused resume stores nothing");
    assert_success(&resume(&daemon, &id, 100, epoch, b""));
}

#[test]
fn resuming_an_open_stream_takes_it_over() {
    let daemon = daemon();
    let (id, content, mut old) = hundred_open(&daemon);
    let mut reader = Live::get(daemon.loom(), &format!("/stream/{id}"));
    reader.wait_len(100);
    let target = format!("/stream/{id}?resume=100&epoch={}", epoch_of(&daemon, &id));
    let mut new = Producer::begin_at(daemon.loom(), &target, &[]);
    assert!(matches!(new.head.status, 200 | 201), "{:?}", new.head);
    // The one who was there is fenced off: nothing of it gets in between.
    let _ = old.try_chunk(b"INTRUDER");
    new.chunk("+taken over");
    let ended = old.try_finish();
    assert!(
        !ended.as_ref().is_ok_and(|answer| answer.end == End::LastChunk),
        "the old producer was told that all was well: {ended:?}"
    );
    new.chunk("+on");
    new.finish().whole();
    let all = [content.as_slice(), b"+taken over+on"].concat();
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, all);
    // The reader may follow into the new producer's bytes or be ended at the take-over; it sees a prefix.
    let answer = reader.finish().whole();
    assert!(
        all.starts_with(&answer.body) && answer.body.len() >= 100,
        "{:?}",
        answer.body.escape_ascii().to_string()
    );
}

#[test]
fn a_complete_stream_cannot_be_resumed() {
    let daemon = daemon();
    let (id, content) = hundred(&daemon);
    let answer = resume(&daemon, &id, 100, epoch_of(&daemon, &id), b"more");
    assert!(matches!(answer.status, 409 | 412), "{answer:?}");
    assert!(!error_of(&answer).is_empty());
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, content);
}

#[test]
fn an_unknown_stream_cannot_be_resumed() {
    let daemon = daemon();
    let id = fresh_id("never");
    let answer = resume(&daemon, &id, 0, 1, b"x").expect(404);
    assert_eq!(answer.text(), format!(r#"{{"error":"The stream with ID {id} does not exist"}}"#));
    daemon.get(&format!("/stream/{id}")).expect(404);
}

#[test]
fn a_resume_with_bad_parameters_is_refused_with_a_sentence() {
    let daemon = daemon();
    let (id, content) = hundred_interrupted(&daemon);
    let epoch = epoch_of(&daemon, &id);
    for (query, culprit) in [
        (format!("resume=x&epoch={epoch}"), "resume"),
        (format!("resume=-1&epoch={epoch}"), "resume"),
        (format!("resume=&epoch={epoch}"), "resume"),
        ("resume=100&epoch=x".to_owned(), "epoch"),
        ("resume=100".to_owned(), "epoch"),
        (format!("resume=100&epoch={epoch}&force=true"), "force"),
    ] {
        let answer =
            request(daemon.loom(), "POST", &format!("/stream/{id}?{query}"), &[], b"never").expect(400);
        assert!(error_of(&answer).contains(culprit), "{query}: {answer:?}");
    }
    assert_eq!(daemon.get(&format!("/stream/{id}")).body, content);
}

#[test]
fn force_raises_the_epoch_and_an_old_epoch_reads_no_new_history() {
    let daemon = daemon();
    let (id, _) = hundred(&daemon);
    let old = epoch_of(&daemon, &id);
    let content = bytes_of(7, 200);
    request(daemon.loom(), "POST", &format!("/stream/{id}?force=true"), &[], &content).expect(201);
    let new = epoch_of(&daemon, &id);
    assert!(new > old, "{new} after {old}");
    let answer = daemon.get(&format!("/stream/{id}?offset=50&epoch={old}")).expect(412);
    assert_eq!(number(&answer, "stream-epoch"), new);
    assert_eq!(number(&answer, "stream-next-offset"), 200);
    assert_eq!(daemon.get(&format!("/stream/{id}?offset=50&epoch={new}")).expect(200).body, content[50..]);
}

#[test]
fn deleting_and_creating_again_raises_the_epoch_too() {
    let daemon = daemon();
    let (id, _) = hundred(&daemon);
    let old = epoch_of(&daemon, &id);
    request(daemon.loom(), "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
    post(daemon.loom(), &id, &bytes_of(8, 200)).expect(201);
    assert_ne!(epoch_of(&daemon, &id), old, "a reader of the old stream must be able to tell");
    daemon.get(&format!("/stream/{id}?offset=50&epoch={old}")).expect(412);
}

// ---- listing ----

fn list(daemon: &Daemon, query: &str) -> serde_json::Value {
    json_of(&daemon.get(&format!("/streams?{query}")).expect(200))
}

fn ids(listing: &serde_json::Value) -> Vec<&str> {
    listing["streams"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|stream| stream["id"].as_str().expect("an id"))
        .collect()
}

#[test]
fn streams_are_listed_by_prefix_in_order_with_state_and_length() {
    let daemon = daemon();
    let prefix = fresh_id("list");
    // Enough that both shards own some.
    for number in 0..12 {
        post(daemon.loom(), &format!("{prefix}/{number:02}").replace('/', "%2F"), &bytes_of(1, number))
            .expect(201);
    }
    let mut open = Producer::begin(daemon.loom(), &format!("{prefix}%2Fopen"));
    open.chunk("123");
    Live::get(daemon.loom(), &format!("/stream/{prefix}%2Fopen")).wait_len(3);

    let listing = list(&daemon, &format!("prefix={prefix}%2F"));
    let expected: Vec<String> =
        (0..12).map(|number| format!("{prefix}/{number:02}")).chain([format!("{prefix}/open")]).collect();
    assert_eq!(ids(&listing), expected);
    assert_eq!(listing["has_more"], false);
    for (number, stream) in listing["streams"].as_array().unwrap().iter().enumerate() {
        let (state, length) = if number < 12 { ("complete", number as u64) } else { ("open", 3) };
        assert_eq!(
            (stream["state"].as_str(), stream["length"].as_u64()),
            (Some(state), Some(length)),
            "{stream}"
        );
    }
    open.finish();
}

#[test]
fn a_listing_goes_on_behind_its_last_id() {
    let daemon = daemon();
    let prefix = fresh_id("page");
    for number in 0..10 {
        post(daemon.loom(), &format!("{prefix}-{number}"), b"x").expect(201);
    }
    let (mut found, mut start_after) = (Vec::new(), String::new());
    for _ in 0..10 {
        let listing = list(&daemon, &format!("prefix={prefix}-&limit=3&start_after={start_after}"));
        let page = ids(&listing);
        assert!(page.len() <= 3);
        found.extend(page.iter().map(|id| (*id).to_owned()));
        start_after = found.last().cloned().unwrap_or_default();
        if listing["has_more"] == false {
            break;
        }
        assert_eq!(page.len(), 3, "a page that is not the last is full");
    }
    assert_eq!(found, (0..10).map(|number| format!("{prefix}-{number}")).collect::<Vec<_>>());
}

#[test]
fn a_listing_may_ask_for_one_state() {
    let daemon = daemon();
    let (complete, _) = hundred(&daemon);
    let (open, _, _producer) = hundred_open(&daemon);
    let (interrupted, _) = hundred_interrupted(&daemon);
    for (state, wanted) in [("complete", &complete), ("open", &open), ("interrupted", &interrupted)] {
        for id in [&complete, &open, &interrupted] {
            let listing = list(&daemon, &format!("prefix={id}&state={state}"));
            assert_eq!(ids(&listing).contains(&id.as_str()), id == wanted, "{state} {id}: {listing}");
        }
    }
}

#[test]
fn nothing_found_is_an_empty_list() {
    let daemon = daemon();
    let answer = daemon.get("/streams?prefix=there-is-none-such").expect(200);
    assert_eq!(answer.text(), r#"{"streams":[],"has_more":false}"#);
}

#[test]
fn deleted_streams_are_not_listed() {
    let daemon = daemon();
    let (id, _) = hundred(&daemon);
    assert_eq!(ids(&list(&daemon, &format!("prefix={id}"))).len(), 1);
    request(daemon.loom(), "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
    assert!(ids(&list(&daemon, &format!("prefix={id}"))).iter().all(|listed| *listed != id));
}

#[test]
fn a_listing_with_bad_parameters_is_refused_with_a_sentence() {
    let daemon = daemon();
    for (query, culprit, accepted) in [
        ("limit=x", "limit", "1000"),
        ("limit=-1", "limit", "1000"),
        ("limit=0", "limit", "1000"),
        ("limit=1001", "limit", "1000"),
        ("state=gone", "state", "interrupted"),
    ] {
        let answer = daemon.get(&format!("/streams?{query}")).expect(400);
        let sentence = error_of(&answer);
        assert!(sentence.contains(culprit) && sentence.contains(accepted), "{query}: {sentence}");
    }
}

#[test]
fn an_open_stream_costs_a_listing_no_waiting() {
    let daemon = daemon();
    let id = fresh_id("quiet");
    let mut producer = Producer::begin(daemon.loom(), &id);
    assert_eq!(ids(&list(&daemon, &format!("prefix={id}"))), [id.as_str()], "listed before its first byte");
    assert!(producer.conn().is_silent_for(A_MOMENT));
}

#[test]
fn deleting_gives_the_disk_its_room_back() {
    let daemon = Setup::default().shards(1).start();
    let files = || std::fs::read_dir(daemon.data_dir().join("bulk-0")).expect("a log").count();
    let fresh = files();
    // Two files of 16 MiB each, and some of a third.
    let content = bytes_of(1, 34 << 20);
    for (id, target, status) in [("one", "/stream/one", 204), ("build-9-linux", "/stream/build/9", 200)] {
        post(daemon.loom(), id, &content).expect(201).whole();
        let before = files();
        assert!(before >= fresh + 2, "{before} files, {fresh} before");
        request(daemon.loom(), "DELETE", target, &[], b"").expect(status);
        eventually("its files are gone", || (files() + 2 <= before).then_some(()));
    }
    assert_eq!(daemon.metrics().sum("millpond_stream_bytes"), 0.0);
}

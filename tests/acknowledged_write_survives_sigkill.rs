//! An acknowledged write survives SIGKILL, in both durability classes, whatever its size and shape.

mod common;

use common::http::find;
use common::{Daemon, Live, Producer, Setup, bytes_of, eventually, post, request};

#[test]
fn with_durability_sync() {
    survives("sync");
}

#[test]
fn with_durability_cache() {
    // The page cache outlives the process; only a power cut takes it, and that is what `sync` is for.
    survives("cache");
}

fn survives(class: &'static str) {
    let mut daemon = Setup::default().durability(class).start();
    // Around the size up to which bodies live in the journal, around windows, and beyond one run.
    let sizes = [0, 1, 100, 16_383, 16_384, 16_385, 65_536, 262_143, 262_144, 262_145, 5 << 20];
    for (number, size) in sizes.into_iter().enumerate() {
        let headers = [("X-Stream-Metadata", format!("{{\"n\":{number}}}"))];
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = bytes_of(number as u64, size);
        request(daemon.loom(), "POST", &format!("/stream/s{number}"), &headers, &body).expect(201).whole();
    }
    daemon.kill9();
    daemon.restart();
    for (number, size) in sizes.into_iter().enumerate() {
        let answer = daemon.get(&format!("/stream/s{number}")).expect(200).whole();
        let body = bytes_of(number as u64, size);
        assert!(answer.body == body, "{size}: {}", common::content::difference(&answer.body, &body));
        assert_eq!(answer.header("x-stream-state"), Some("complete"));
        assert_eq!(answer.header("x-stream-metadata"), Some(format!("{{\"n\":{number}}}").as_str()));
        post(daemon.loom(), &format!("s{number}"), b"x").expect(409);
    }
}

#[test]
fn an_acknowledged_delete_stays_deleted() {
    let mut daemon = Daemon::start();
    post(daemon.loom(), "gone", b"x").expect(201);
    for number in 0..3 {
        post(daemon.loom(), &format!("build-7-{number}"), b"x").expect(201);
    }
    request(daemon.loom(), "DELETE", "/stream/gone", &[], b"").expect(204);
    request(daemon.loom(), "DELETE", "/stream/build/7", &[], b"").expect(200);
    daemon.kill9();
    daemon.restart();
    for id in ["gone", "build-7-0", "build-7-1", "build-7-2"] {
        daemon.get(&format!("/stream/{id}")).expect(404);
        post(daemon.loom(), id, b"again").expect(201);
    }
}

#[test]
fn an_acknowledged_force_stays_the_new_stream() {
    let mut daemon = Daemon::start();
    post(daemon.loom(), "forced", &bytes_of(1, 100_000)).expect(201);
    request(daemon.loom(), "POST", "/stream/forced?force=true", &[], &bytes_of(2, 50_000))
        .expect(201)
        .whole();
    daemon.kill9();
    daemon.restart();
    assert!(daemon.get("/stream/forced").expect(200).body == bytes_of(2, 50_000));
}

#[test]
fn an_open_stream_is_interrupted_and_keeps_what_was_durable_and_what_was_read() {
    for class in ["sync", "cache"] {
        let mut daemon = Setup::default().durability(class).start();
        let content = bytes_of(3, 100_000);
        let mut producer = Producer::begin(daemon.loom(), "open");
        let mut reader = Live::get(daemon.loom(), "/stream/open");
        for piece in content.chunks(7_000) {
            producer.chunk(piece);
        }
        reader.wait_len(content.len());
        daemon.kill9();
        daemon.restart();
        let answer = daemon.get("/stream/open").expect(200).whole();
        assert_eq!(answer.header("x-stream-state"), Some("interrupted"), "{class}");
        assert!(answer.body == content, "{class}: {}", common::content::difference(&answer.body, &content));
    }
}

#[test]
fn a_durable_offset_holds_what_it_says() {
    let mut daemon = Daemon::start();
    let content = bytes_of(4, 64_000);
    let mut producer = Producer::begin(daemon.loom(), "durable");
    producer.chunk(&content);
    let durable = eventually("some bytes of an open stream are durable", || {
        let answer = common::head(daemon.loom(), "/stream/durable");
        let durable: usize =
            answer.header("stream-durable-offset").expect("the header").parse().expect("a number");
        (durable > 0).then_some(durable)
    });
    daemon.kill9();
    daemon.restart();
    let answer = daemon.get("/stream/durable").expect(200);
    assert!(answer.body.len() >= durable, "{} of {durable} durable bytes are left", answer.body.len());
    assert!(content.starts_with(&answer.body));
}

#[test]
fn an_interrupted_stream_goes_on_after_the_restart() {
    let mut daemon = Daemon::start();
    let content = bytes_of(5, 300_000);
    let mut producer = Producer::begin(daemon.loom(), "resumed");
    producer.chunk(&content[..200_000]);
    Live::get(daemon.loom(), "/stream/resumed").wait_len(200_000);
    daemon.kill9();
    daemon.restart();
    let head = common::head(daemon.loom(), "/stream/resumed").expect(200);
    let next: usize = head.header("stream-next-offset").expect("the header").parse().expect("a number");
    let epoch = head.header("stream-epoch").expect("the header");
    assert_eq!(next, 200_000, "bytes that a reader saw are there");
    let target = format!("/stream/resumed?resume={next}&epoch={epoch}");
    let answer = request(daemon.loom(), "POST", &target, &[], &content[next..]).whole();
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    daemon.kill9();
    daemon.restart();
    let answer = daemon.get("/stream/resumed").expect(200);
    assert_eq!(answer.header("x-stream-state"), Some("complete"));
    assert!(answer.body == content, "{}", common::content::difference(&answer.body, &content));
}

#[test]
fn many_starts_on_the_same_data_lose_nothing() {
    let mut daemon = Daemon::start();
    for round in 0..8 {
        post(daemon.loom(), &format!("round-{round}"), &bytes_of(round, 30_000)).expect(201);
        daemon.kill9();
        daemon.restart();
        for earlier in 0..=round {
            assert!(
                daemon.get(&format!("/stream/round-{earlier}")).expect(200).body == bytes_of(earlier, 30_000)
            );
        }
    }
}

#[test]
fn another_number_of_shards_finds_the_same_streams() {
    let mut daemon = Setup::default().shards(2).start();
    for number in 0..20 {
        post(daemon.loom(), &format!("s{number}"), &bytes_of(number, 1000 * number as usize)).expect(201);
    }
    for shards in [1, 3, 2] {
        daemon.restart_with(Setup::default().shards(shards));
        for number in 0..20 {
            let answer = daemon.get(&format!("/stream/s{number}")).expect(200).whole();
            assert!(
                answer.body == bytes_of(number, 1000 * number as usize),
                "{shards} shards, stream {number}"
            );
        }
    }
}

#[test]
fn a_clean_stop_leaves_nothing_to_repair() {
    let mut daemon = Daemon::start();
    post(daemon.loom(), "kept", &bytes_of(6, 70_000)).expect(201);
    assert!(daemon.terminate().success());
    daemon.restart();
    assert!(daemon.get("/stream/kept").expect(200).body == bytes_of(6, 70_000));
    let log = daemon.own_log();
    assert!(find(log.as_bytes(), b"WARN").is_none() && find(log.as_bytes(), b"ERROR").is_none(), "{log}");
}

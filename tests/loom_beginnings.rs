//! A stream that never ends does not grow for ever: its beginning goes, every answer says where it begins, and nobody
//! is given bytes as if nothing were missing.

mod common;

use std::time::{Duration, Instant};

use common::daemon::MILLPOND;
use common::{
    Answer, Conn, Daemon, End, Live, Producer, Setup, bytes_of, error_of, eventually, head, json_of, request,
};

fn kept(retention: &str) -> Setup {
    Setup::default().loom(&format!("retention = {{ {retention} }}"))
}

fn number(answer: &Answer, header: &str) -> Option<u64> {
    answer.header(header).map(|value| value.parse().unwrap_or_else(|_| panic!("{header}: {answer:?}")))
}

fn first(daemon: &Daemon, id: &str) -> u64 {
    number(&head(daemon.loom(), &format!("/stream/{id}")), "stream-first-offset").unwrap_or(0)
}

fn ranged(daemon: &Daemon, id: &str, range: &str) -> Answer {
    request(daemon.loom(), "GET", &format!("/stream/{id}"), &[("Range", range)], b"")
}

/// Behind the runs of 16, 32, 64 and 128 KiB that a stream begins with.
const FIRST: u64 = 240 << 10;

/// An open stream of `content`, of which retention took what it could: the run that is being filled stays.
fn trimmed(daemon: &mut Daemon, id: &str, content: &[u8]) -> (Producer, u64) {
    let mut producer = Producer::begin(daemon.loom(), id);
    for piece in content.chunks(20_000) {
        producer.chunk(piece);
    }
    has_come(daemon, id, content.len());
    // What is left is less, so that it stays when it ends.
    daemon.reload_with(kept("max_bytes = \"120KiB\""));
    eventually("its beginning goes", || (first(daemon, id) == FIRST).then_some(()));
    (producer, FIRST)
}

/// Waits until the stream is so long.
fn has_come(daemon: &Daemon, id: &str, len: usize) {
    eventually("all came", || {
        let state = head(daemon.loom(), &format!("/stream/{id}"));
        (number(&state, "stream-next-offset") == Some(len as u64)).then_some(())
    });
}

const GONE: &str = "what was before is gone";

#[track_caller]
fn assert_is_gone(answer: Answer, first: u64) {
    let answer = answer.expect(410);
    assert_eq!(number(&answer, "stream-first-offset"), Some(first), "{answer:?}");
    let sentence = error_of(&answer);
    assert!(sentence.contains(&first.to_string()) && sentence.contains(GONE), "{sentence}");
    for header in ["stream-next-offset", "stream-epoch", "x-stream-state"] {
        assert!(answer.header(header).is_some(), "{header}: {answer:?}");
    }
}

#[test]
fn a_plain_get_begins_at_the_first_byte_that_is_there_and_says_where_that_is() {
    let mut daemon = Setup::default().start();
    let mut content = bytes_of(1, 300_000);
    let (mut producer, first) = trimmed(&mut daemon, "live", &content);
    // What is there.
    let answer = daemon.get("/stream/live?notail").expect(200);
    assert_eq!(number(&answer, "stream-first-offset"), Some(first));
    assert_eq!(number(&answer, "stream-offset"), Some(first));
    assert_eq!(number(&answer, "stream-next-offset"), Some(300_000));
    assert_eq!((answer.end, number(&answer, "content-length")), (End::Length, Some(300_000 - first)));
    assert!(answer.body == content[first as usize..]);
    // And what comes.
    let mut live = Live::get(daemon.loom(), "/stream/live");
    assert_eq!(number(live.so_far(), "stream-first-offset"), Some(first));
    live.wait_len(content.len() - first as usize);
    let more = bytes_of(2, 50_000);
    producer.chunk(&more);
    content.extend(&more);
    producer.finish().whole();
    let answer = live.finish();
    assert!(answer.body == content[first as usize..]);
    assert_eq!(answer.trailer("stream-next-offset"), Some("350000"));
    assert_eq!(answer.trailer("stream-closed"), Some("true"));
    // And ever after, a restart included.
    for restarts in [false, true] {
        if restarts {
            daemon.kill9();
            daemon.restart();
        }
        let answer = daemon.get("/stream/live").expect(200);
        assert_eq!((answer.end, number(&answer, "content-length")), (End::Length, Some(350_000 - first)));
        assert_eq!(number(&answer, "stream-first-offset"), Some(first));
        assert!(answer.body == content[first as usize..]);
    }
}

#[test]
fn an_offset_that_is_gone_is_410_with_the_first_that_is_not() {
    let mut daemon = Setup::default().start();
    let content = bytes_of(3, 300_000);
    let (producer, first) = trimmed(&mut daemon, "live", &content);
    let check = |daemon: &Daemon| {
        let get = |offset: u64| daemon.get(&format!("/stream/live?offset={offset}&notail"));
        for gone in [0, 1, first - 1] {
            assert_is_gone(get(gone), first);
            assert_is_gone(ranged(daemon, "live", &format!("bytes={gone}-")), first);
            assert_is_gone(ranged(daemon, "live", &format!("bytes={gone}-{}", first + 10)), first);
        }
        for there in [first, first + 1, 299_999, 300_000] {
            let answer = get(there).expect(200);
            assert_eq!(number(&answer, "stream-first-offset"), Some(first));
            assert!(answer.body == content[there as usize..], "from {there}");
        }
        get(300_001).expect(416);
        let part = ranged(daemon, "live", &format!("bytes={first}-{}", first + 9)).expect(206);
        assert!(part.body == content[first as usize..][..10]);
        assert!(
            part.header("content-range").is_some_and(|range| range.starts_with(&format!("bytes {first}-")))
        );
        assert!(ranged(daemon, "live", "bytes=-10").expect(206).body == content[299_990..]);
        // As many of the last bytes as there are.
        assert!(ranged(daemon, "live", "bytes=-300000").expect(206).body == content[first as usize..]);
        let gone = head(daemon.loom(), "/stream/live?offset=0").expect(410);
        assert_eq!(number(&gone, "stream-first-offset"), Some(first));
        // Another history comes before the place in it.
        let epoch = number(&get(first), "stream-epoch").expect("an epoch");
        assert_is_gone(daemon.get(&format!("/stream/live?offset=0&epoch={epoch}")), first);
        daemon.get(&format!("/stream/live?offset=0&epoch={}", epoch + 7)).expect(412);
    };
    check(&daemon);
    producer.finish().whole();
    check(&daemon);
    daemon.restart();
    check(&daemon);
}

#[test]
fn a_stream_that_is_whole_says_nothing_of_it() {
    let daemon = kept("max_bytes = \"1GiB\", max_age = \"1h\"").start();
    common::post(daemon.loom(), "whole", b"all of it").expect(201).whole();
    let answer = daemon.get("/stream/whole").expect(200);
    assert_eq!((answer.header("stream-first-offset"), answer.header("stream-offset")), (None, None));
    assert_eq!(json_of(&daemon.get("/streams"))["streams"][0].get("first"), None);
}

#[test]
fn a_head_and_the_list_show_where_a_stream_begins() {
    let mut daemon = Setup::default().start();
    let (producer, first) = trimmed(&mut daemon, "live", &bytes_of(4, 300_000));
    let answer = head(daemon.loom(), "/stream/live").expect(200);
    assert_eq!(number(&answer, "stream-first-offset"), Some(first));
    assert_eq!(answer.header("x-stream-state"), Some("open"));
    let listed = json_of(&daemon.get("/streams"));
    assert_eq!(
        (&listed["streams"][0]["first"], &listed["streams"][0]["length"]),
        (&first.into(), &300_000.into())
    );
    producer.finish().whole();
    let answer = head(daemon.loom(), "/stream/live").expect(200);
    assert_eq!(number(&answer, "content-length"), Some(300_000 - first));
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("millpond_stream_bytes"), (300_000 - first) as f64);
    assert_eq!(metrics.sum("millpond_reaped_bytes_total"), first as f64);
    assert_eq!(metrics.sum("millpond_reaped_streams_total"), 0.0);
    assert!(
        daemon.own_log().lines().any(|line| line.contains("streams reaped") && line.contains("beginnings=1"))
    );
}

#[test]
fn a_reader_that_is_overtaken_is_cut_and_not_deceived() {
    let mut daemon = Setup::default().shards(1).start();
    let content = bytes_of(5, 40 << 20);
    let mut producer = Producer::begin(daemon.loom(), "live");
    producer.chunk(&content);
    let conn = Conn::open(daemon.loom());
    conn.small_receive_buffer(64 << 10);
    let mut reader = Live::with(conn, &common::http::request_bytes("GET", "/stream/live", &[], b""));
    reader.wait_len(100_000);
    daemon.reload_with(kept("max_bytes = \"5MiB\"").shards(1));
    eventually("its beginning goes", || (first(&daemon, "live") > 30 << 20).then_some(()));
    let answer = reader.finish();
    assert_eq!(answer.end, End::Cut, "{} bytes came", answer.body.len());
    assert!(content.starts_with(&answer.body), "and what came is a prefix");
    assert!((answer.body.len() as u64) < first(&daemon, "live"));
    // Who keeps up is not concerned.
    let within = |bytes: f64| bytes <= (5 << 20) as f64;
    daemon.wait_metric("millpond_stream_bytes", within);
    let mut reader = Live::get(daemon.loom(), "/stream/live");
    let from = number(reader.so_far(), "stream-first-offset").expect("it is trimmed");
    reader.wait_len(content.len() - from as usize);
    producer.chunk("the end");
    producer.finish().whole();
    let answer = reader.finish().whole();
    assert!(answer.body == [&content[from as usize..], b"the end"].concat());
}

#[test]
fn what_is_too_old_goes_and_the_run_that_is_being_filled_stays() {
    let daemon = kept("max_age = \"3s\"").start();
    let content = bytes_of(6, 100_000);
    let mut producer = Producer::begin(daemon.loom(), "live");
    let begun = Instant::now();
    producer.chunk(&content[..60_000]);
    eventually("what is too old is gone", || (first(&daemon, "live") > 0).then_some(()));
    assert!(begun.elapsed() >= Duration::from_secs(3), "gone after {:?}", begun.elapsed());
    let gone = first(&daemon, "live");
    assert!(gone < 60_000);
    producer.chunk(&content[60_000..]);
    has_come(&daemon, "live", content.len());
    let answer = daemon.get("/stream/live?notail").expect(200);
    assert!(content.ends_with(&answer.body) && !answer.body.is_empty());
    // The stream goes whole once it has ended that long ago.
    producer.finish().whole();
    eventually("it is gone", || (daemon.get("/stream/live").status == 404).then_some(()));
}

#[test]
fn the_disk_and_the_quota_get_their_room_back() {
    let setup = |retention: &str| kept(retention).shards(1).loom("quota = \"50MiB\"");
    let mut daemon = setup("").start();
    let mut producer = Producer::begin(daemon.loom(), "live");
    // Segments of 16 MiB.
    producer.chunk(bytes_of(7, 49 << 20));
    eventually("all came", || {
        (number(&head(daemon.loom(), "/stream/live"), "stream-durable-offset") == Some(49 << 20))
            .then_some(())
    });
    let files = |daemon: &Daemon| std::fs::read_dir(daemon.data_dir().join("bulk-0")).expect("a log").count();
    let before = files(&daemon);
    request(daemon.loom(), "POST", "/stream/other", &[], &bytes_of(8, 2 << 20)).expect(201);
    daemon.reload_with(setup("max_bytes = \"8MiB\""));
    eventually("its files are gone", || (files(&daemon) + 2 <= before).then_some(()));
    eventually("there is room", || {
        let posted = request(daemon.loom(), "POST", "/stream/new?force=true", &[], &bytes_of(9, 2 << 20));
        (posted.status == 201 && posted.end != End::Cut).then_some(())
    });
    // However much goes through it.
    for round in 0..6 {
        producer.chunk(bytes_of(10 + round, 16 << 20));
        eventually("it is within bounds", || {
            (daemon.metrics().sum("millpond_stream_bytes") <= (8 << 20) as f64 + (4 << 20) as f64)
                .then_some(())
        });
    }
    assert!(files(&daemon) <= before, "{} files, {before} before", files(&daemon));
    producer.finish().whole();
}

#[test]
fn a_resumption_goes_on_where_the_stream_is_whatever_is_gone() {
    let mut daemon = Setup::default().start();
    let content = bytes_of(11, 300_000);
    let (producer, first) = trimmed(&mut daemon, "live", &content);
    producer.reset();
    let at = eventually("it is interrupted", || {
        let answer = head(daemon.loom(), "/stream/live");
        (answer.header("x-stream-state") == Some("interrupted")).then(|| number(&answer, "stream-epoch"))
    });
    let epoch = at.expect("an epoch");
    // The first bytes are there already, and some of those are gone.
    let target = format!("/stream/live?resume=0&epoch={epoch}");
    let whole = [&content[..], b"and more"].concat();
    let answer = request(daemon.loom(), "POST", &target, &[], &whole).expect(201).whole();
    assert_eq!(number(&answer, "stream-next-offset"), Some(300_000));
    let answer = daemon.get("/stream/live").expect(200);
    assert_eq!(number(&answer, "stream-first-offset"), Some(first));
    assert!(answer.body == whole[first as usize..]);
    assert_eq!(answer.header("stream-closed"), Some("true"));
}

/// Kills fall anywhere: between a record and its sync, between the sync and the files.
#[test]
fn over_kills_a_beginning_that_was_told_is_never_taken_back() {
    for durability in ["sync", "cache"] {
        let setup = || kept("max_bytes = \"1500KiB\"").shards(2).durability(durability);
        let mut daemon = setup().start();
        let content = bytes_of(14, 8 << 20);
        post_nothing(&daemon, "live");
        let mut rng = common::content::Rng::new(15);
        let (mut told, mut at) = (0, 0);
        for _ in 0..7 {
            let state = head(daemon.loom(), "/stream/live").expect(200);
            let epoch = number(&state, "stream-epoch").expect("an epoch");
            let target = format!("/stream/live?resume={at}&epoch={epoch}");
            let mut producer = Producer::begin_at(daemon.loom(), &target, &[]);
            assert_eq!(producer.head.status, 201, "{:?}", producer.head);
            let goal = (at + 300_000 + rng.below(700_000) as usize).min(content.len());
            while at < goal {
                let piece = (1 + rng.below(30_000) as usize).min(goal - at);
                producer.chunk(&content[at..at + piece]);
                at += piece;
                if rng.below(4) == 0 {
                    told = told.max(first(&daemon, "live"));
                }
            }
            if at > 2 << 20 {
                eventually("its beginning goes", || (first(&daemon, "live") > told).then_some(()));
            }
            told = told.max(first(&daemon, "live"));
            daemon.kill9();
            daemon.restart();
            // Its beginning may overtake whoever reads it from there.
            let answer = eventually("it is read whole", || {
                let answer = daemon.get("/stream/live").expect(200);
                (answer.end == End::Length).then_some(answer)
            });
            let (first, next) = (
                number(&answer, "stream-first-offset").unwrap_or(0),
                number(&answer, "stream-next-offset").expect("its length") as usize,
            );
            assert!(first >= told, "{told} bytes were gone, and {first} are");
            assert!(answer.body == content[first as usize..next], "from {first} to {next}");
            (told, at) = (first, next);
        }
        assert!(told > 1 << 20, "{told}");
    }
}

/// A stream that its producer left at once.
fn post_nothing(daemon: &Daemon, id: &str) {
    Producer::begin(daemon.loom(), id).reset();
    eventually("it is interrupted", || {
        let state = head(daemon.loom(), &format!("/stream/{id}"));
        (state.header("x-stream-state") == Some("interrupted")).then_some(())
    });
}

#[test]
fn a_spy_begins_where_the_stream_does() {
    let mut daemon = Setup::default().start();
    let content: Vec<u8> = (0..30_000).flat_map(|line: u32| format!("line {line}\n").into_bytes()).collect();
    let (mut producer, first) = trimmed(&mut daemon, "live", &content);
    let mut spy = Live::get(daemon.loom(), "/spy");
    spy.wait_for(b"line 29999\n");
    let expected = [b"START: live\nlive:\n", &content[first as usize..]].concat();
    assert!(spy.seen() == expected);
    producer.chunk("more\n");
    spy.wait_for(b"more\n");
    producer.finish().whole();
    spy.wait_for(b"END: live\n");
}

#[test]
fn tail_says_what_is_gone_and_begins_where_the_stream_does() {
    let mut daemon = Setup::default().start();
    let content = bytes_of(12, 300_000);
    let (producer, first) = trimmed(&mut daemon, "live", &content);
    producer.finish().whole();
    let tail = |more: &[&str]| {
        let url = format!("http://{}", daemon.loom());
        let output = std::process::Command::new(MILLPOND).args(["tail", &url, "live"]).args(more).output();
        let output = output.expect("it runs");
        (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, printed, said) = tail(&[]);
    assert!(code == Some(0) && printed == content[first as usize..], "{code:?}: {said}");
    assert!(said.contains(&format!("the first {first} bytes are gone")), "{said}");
    let (code, printed, said) = tail(&["--offset", &(first + 5).to_string()]);
    assert!(
        code == Some(0) && printed == content[first as usize + 5..] && said.is_empty(),
        "{code:?}: {said}"
    );
    let (code, printed, said) = tail(&["--offset", "7"]);
    assert!(code == Some(1) && printed.is_empty(), "{code:?}");
    assert!(said.contains("byte 7 is gone") && said.contains(&format!("--offset {first}")), "{said}");
}

#[test]
fn verify_calls_nothing_damaged_that_retention_took() {
    let mut daemon = Setup::default().start();
    let content = bytes_of(13, 300_000);
    let (producer, first) = trimmed(&mut daemon, "live", &content);
    producer.finish().whole();
    daemon.kill9();
    let output = std::process::Command::new(MILLPOND).arg("verify").arg(daemon.data_dir()).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("{} bytes", 300_000 - first)), "{said}");
}

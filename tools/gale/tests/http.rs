//! `gale http`: what is right passes, what is wrong is found and named, and a stall cannot hide.

mod common;

use std::{fs, io::Write, sync::mpsc, time::Duration};

use common::{Server, gale, http_peer, ok, peer, request};

#[test]
fn every_way_of_asking_a_right_server_passes() {
    let server = Server::start("serve-http --body-size 3000");
    let chunked = Server::start("serve-http --body-size 3000 --chunked");
    let url = |server: &Server| format!("http://{}/a", server.address);
    for (url, words) in [
        (url(&server), "--connections 1"),
        (url(&server), "--connections 8 --pipeline 16 --expect-seeded 3000 --check full"),
        (url(&server), "--connections 8 --threads 2 --check crc32"),
        (url(&server), "--connections 3 --method HEAD --expect-length 3000"),
        (url(&server), "--connections 3 --method PUT --body-size 2000 --expect-seeded 3000"),
        (url(&server), "--connections 3 --pipeline 2 --method POST --body-size 300KiB --expect-seeded 3000"),
        (url(&server), "--connections 4 --rate 20k --pipeline 2"),
        (url(&server), "--connections 4 --discard"),
        (url(&server) + "{key}", "--keys 100 --key-order zipf --expect-seeded 3000 --pipeline 3"),
        (url(&chunked), "--connections 4 --pipeline 8 --expect-seeded 3000 --check full"),
        (url(&chunked), "--connections 4 --check crc32 --expect-length 3000"),
    ] {
        let ended = gale(&format!("http {url} --requests 400 {words}")).passed();
        assert_eq!(ended.measure("operations"), 400.0, "{words}");
        assert!(ended.measure("p50") > 0.0 && ended.measure("max") >= ended.measure("p99"), "{words}");
    }
}

#[test]
fn a_body_larger_than_any_buffer_is_checked_as_a_stream() {
    let server = Server::start("serve-http --body-size 9MiB");
    let url = format!("http://{}/", server.address);
    for words in
        ["--expect-seeded 9MiB --check full", "--expect-seeded 9MiB", "--discard --expect-length 9MiB"]
    {
        let ended = gale(&format!("http {url} --requests 6 --connections 2 {words}")).passed();
        let payload = ended.measure("payload_per_s") * ended.measure("window");
        assert_eq!(payload.round(), f64::from((6 * 9) << 20), "{words}");
    }
    gale(&format!("http {url} --requests 3 --connections 1 --discard --expect-length 9000001"))
        .failed("length", "9437184 bytes instead of 9000001");
    gale(&format!("http {url} --requests 3 --connections 1 --expect-seeded 9MiB --check full --seed 2"))
        .failed("bytes", "byte 0 is not the expected one");
}

#[test]
fn one_wrong_answer_among_many_is_found() {
    type Answer = fn(u64) -> Option<Vec<u8>>;
    let wrong: [(Answer, &str, &str, &str); 8] = [
        (|_| Some(ok("Hello")), "--expect-body FILE", "bytes", "answer 30 of connection 0"),
        (|_| Some(ok("Hello")), "--expect-body FILE --check full", "bytes", "byte 0 is not the expected one"),
        (|_| Some(ok("hello!")), "--expect-length 5", "length", "6 bytes instead of 5"),
        (|_| Some(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()), "", "status 503", "503 Busy"),
        (|_| Some(ok("hello")[..20].to_vec()), "--timeout 200ms", "unanswered", "without an answer"),
        (|_| Some([ok("hello"), ok("hello")].concat()), "", "surplus", "nobody asked for"),
        (|_| Some(b"hello\r\n\r\n".to_vec()), "", "malformed", "begins with \"hello"),
        (|_| None, "", "closed early", "connection 0 ended"),
    ];
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("body");
    fs::write(&file, "hello").expect("a file");
    for (wrong, words, kind, says) in wrong {
        let address = http_peer(move |number| if number == 30 { wrong(number) } else { Some(ok("hello")) });
        let words = words.replace("FILE", &file.display().to_string());
        let ended = gale(&format!("http http://{address}/ --connections 1 --requests 60 {words}"));
        let ended = ended.failed(kind, says);
        assert_eq!(ended.faults(kind), 1, "{ended:#?}");
    }
}

#[test]
fn a_sha256_finds_what_its_crc_then_finds_in_all_others() {
    // Of "hello".
    let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let wrong = |number| Some(ok(if number >= 7 { "hellO" } else { "hello" }));
    for check in ["crc32", "full"] {
        let words = format!("--connections 1 --requests 10 --expect-sha256 {sha} --check {check}");
        gale(&format!("http http://{}/ {words}", http_peer(|_| Some(ok("hello"))))).passed();
        let ended = gale(&format!("http http://{}/ {words}", http_peer(wrong)));
        assert_eq!(ended.failed("bytes", "answer 7").faults("bytes"), 3);
    }
}

/// The server answers at once, but for one pause of 400 ms. Asking in turn, one request of hundreds is slow; what
/// fell due meanwhile was never asked and does not show. At a fixed rate all that fell due is measured from then.
#[test]
fn a_stall_shows_in_the_percentiles_of_a_fixed_rate() {
    let stalling = || {
        http_peer(|number| {
            if number == 100 {
                pause(Duration::from_millis(400));
            }
            Some(ok("hello"))
        })
    };
    let words = "--connections 1 --duration 1s";
    let paced = gale(&format!("http http://{}/ {words} --rate 500", stalling())).passed();
    // 200 of 500 fell due in the pause, evenly between 0 and 400 ms before its end.
    assert!(paced.measure("p90") > 200_000.0, "{paced:#?}");
    assert!(paced.measure("p99") > 300_000.0, "{paced:#?}");
    let asked_in_turn = gale(&format!("http http://{}/ {words}", stalling())).passed();
    assert!(asked_in_turn.measure("max") > 400_000.0, "{asked_in_turn:#?}");
    assert!(asked_in_turn.measure("p90") < 100_000.0, "{asked_in_turn:#?}");
}

/// Waits for what never comes.
fn pause(time: Duration) {
    let (_sender, nothing) = mpsc::sync_channel::<()>(0);
    assert_eq!(nothing.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout));
}

#[test]
fn what_fell_due_and_was_never_sent_counts_as_waiting() {
    // Nothing is answered after the tenth request; whatever is due later can never be sent.
    let address = http_peer(|number| if number < 10 { Some(ok("hello")) } else { Some(Vec::new()) });
    let ended =
        gale(&format!("http http://{address}/ --connections 1 --rate 1000 --duration 500ms --timeout 100ms"));
    let ended = ended.failed("unanswered", "without an answer");
    assert!((450.0..=495.0).contains(&ended.measure("unsent")), "{ended:#?}");
    assert!(ended.measure("p50") > 200_000.0, "{ended:#?}");
}

#[test]
fn a_rate_is_kept() {
    let server = Server::start("serve-http");
    for threads in [1, 2] {
        let words =
            format!("http http://{}/ --connections 4 --threads {threads} --rate 2000", server.address);
        let ended = gale(&format!("{words} --duration 300ms")).passed();
        // A machine with other things to do leaves some unsent, but none is forgotten, and none is too many; up to
        // one on each connection is under way at the end.
        let due = ended.measure("operations") + ended.measure("unsent");
        assert!((596.0..=600.0).contains(&due), "{ended:#?}");
        // The first is due when the window opens, the last 399 steps later.
        let ended = gale(&format!("{words} --requests 400")).passed();
        assert!(ended.measure("window") >= 399.0 / 2000.0, "{ended:#?}");
    }
}

#[test]
fn a_server_may_end_connections_between_answers() {
    let address = http_peer(|number| {
        let close = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        if number == 4 { Some(close.to_vec()) } else { Some(ok("hi")) }
    });
    let ended =
        gale(&format!("http http://{address}/ --connections 2 --requests 40 --expect-length 2")).passed();
    assert!(ended.measure("reconnects") >= 6.0, "{ended:#?}");
    let unframed = peer(|mut stream| {
        _ = request(&mut stream, &mut Vec::new());
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhi");
    });
    let ended = gale(&format!("http http://{unframed}/ --connections 1 --requests 5 --expect-length 2"));
    assert_eq!(ended.passed().measure("reconnects"), 5.0);
}

#[test]
fn the_server_s_time_and_our_own_are_told() {
    let server = Server::start("serve-http");
    let words = format!("--requests 20000 --connections 4 --server-pid {}", server.pid());
    let ended = gale(&format!("http http://{}/ {words}", server.address)).passed();
    for name in ["server_cpu_per_operation", "gale_cpu_per_operation"] {
        assert!((0.1..200.0).contains(&ended.measure(name)), "{name} in {ended:#?}");
    }
    let ended = gale(&format!("http http://{}/ --requests 1 --server-pid 4194305", server.address));
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("/proc/4194305/task"), "{ended:#?}");
}

#[test]
fn rows_are_collected_under_one_header() {
    let server = Server::start("serve-http");
    let folder = tempfile::tempdir().expect("a directory");
    let csv = folder.path().join("runs.csv");
    for label in ["one", "two"] {
        let words = format!("--requests 50 --connections 2 --label {label} --csv {}", csv.display());
        gale(&format!("http http://{}/ {words}", server.address)).passed();
    }
    let text = fs::read_to_string(&csv).expect("the rows");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("label,mode,target,seed,settings,window,operations,operations_per_s,"));
    assert!(lines[1].starts_with("one,http,") && lines[2].starts_with("two,http,"), "{text}");
    // Between quotes a comma parts nothing.
    let columns =
        |line: &str| line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>();
    assert!(lines[1..].iter().all(|line| columns(line) == columns(lines[0])), "{text}");
}

#[test]
fn mistakes_in_the_arguments_are_2_and_an_absent_server_is_1() {
    for (words, says) in [
        ("http ftp://x/", "http://host:port/path"),
        ("http http://127.0.0.1:1/{key}", "--keys N"),
        ("http http://127.0.0.1:1/ --duration 5", "5s"),
        ("http http://127.0.0.1:1/ --threads 0", "from 1 to 256"),
        ("nonsense", "unrecognized subcommand"),
    ] {
        let ended = gale(words);
        assert!(ended.code == Some(2) && ended.err.contains(says), "{words}: {ended:#?}");
    }
    let ended = gale("http http://127.0.0.1:1/ --connections 1");
    assert!(ended.code == Some(1) && ended.err.contains("cannot connect to 127.0.0.1:1"), "{ended:#?}");
}

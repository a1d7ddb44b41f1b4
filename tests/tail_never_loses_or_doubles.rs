//! `millpond tail`: stdout is one contiguous piece of one history, and the exit code tells how it
//! ended.

mod fake_loom;

use std::process::{Command, Stdio};

use fake_loom::{Client, DEADLINE, Fake, end_of, pattern};

fn tail(fake: &Fake, more: &[&str]) -> Client {
    let url = fake.url();
    Client::start(&[&["tail", &url, "a"], more].concat()).0
}

#[test]
fn a_complete_stream_is_printed_whole() {
    let fake = Fake::start();
    let bytes = pattern(700_000);
    let client = tail(&fake, &["--token", "t"]);
    let mut get = fake.exchange();
    assert_eq!(get.asks(), "GET /stream/a");
    assert!(get.has_line("Authorization: Bearer t"));
    get.streaming(1, "open");
    for piece in bytes.chunks(1777) {
        get.chunk(piece);
    }
    get.send("0\r\nX-Stream-State: complete\r\n\r\n");
    let outcome = client.outcome();
    outcome.expect(0, "");
    assert!(outcome.stdout == bytes);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn offset_and_notail_are_asked_for() {
    let fake = Fake::start();
    let client = tail(&fake, &["--notail", "--offset", "7"]);
    let mut get = fake.exchange();
    assert_eq!(get.asks(), "GET /stream/a?notail&offset=7");
    get.send("HTTP/1.1 200 OK\r\nStream-Epoch: 1\r\nX-Stream-State: open\r\nContent-Length: 3\r\n\r\nnow");
    let outcome = client.outcome();
    outcome.expect(0, "");
    assert_eq!(outcome.stdout, b"now");
}

#[test]
fn a_cut_at_any_byte_goes_on_behind_the_last_one_printed() {
    let bytes = pattern(100_000);
    for (from, cut, reset) in [(0, 1, false), (0, 70_000, true), (500, 1000, false), (500, 501, true)] {
        let mut fake = Fake::start();
        let start = from.to_string();
        let offset = ["--offset", &start];
        let mut client = tail(&fake, if from == 0 { &[] } else { &offset });
        let mut get = fake.exchange();
        get.streaming(4, "open");
        // The chunk is announced longer than it comes, so the cut falls inside it.
        get.send(&format!("{:x}\r\n", cut - from + 10));
        get.send_bytes(&bytes[from..cut]);
        client.await_stdout(&bytes[from..cut]);
        fake.stop();
        if reset {
            get.reset()
        } else {
            get.close()
        }
        fake.start_again();
        let mut get = fake.exchange();
        assert_eq!(get.asks(), format!("GET /stream/a?offset={cut}&epoch=4"));
        get.streaming(5, "open");
        get.chunk(&bytes[cut..]);
        get.send("0\r\nX-Stream-State: complete\r\n\r\n");
        let outcome = client.outcome();
        outcome.expect(0, "trying again");
        assert!(outcome.stdout == bytes[from..], "from {from}, cut at {cut}");
    }
}

#[test]
fn offsets_count_from_where_the_stream_begins() {
    let bytes = pattern(1000);
    let mut fake = Fake::start();
    let mut client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.send(
        "HTTP/1.1 200 OK\r\nStream-Epoch: 4\r\nX-Stream-State: open\r\nStream-Offset: 5000\r\n\
         Stream-First-Offset: 5000\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    get.chunk(&bytes[..700]);
    client.await_stdout(&bytes[..700]);
    fake.stop();
    get.reset();
    fake.start_again();
    let mut get = fake.exchange();
    assert_eq!(get.asks(), "GET /stream/a?offset=5700&epoch=4");
    get.streaming(4, "open");
    get.chunk(&bytes[700..]);
    get.send("0\r\nX-Stream-State: complete\r\n\r\n");
    let outcome = client.outcome();
    outcome.expect(0, "the first 5000 bytes are gone");
    assert!(outcome.stdout == bytes);
}

#[test]
fn who_is_overtaken_is_told_what_is_gone() {
    let mut fake = Fake::start();
    let mut client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.streaming(4, "open");
    get.chunk(b"one");
    client.await_stdout(b"one");
    fake.stop();
    get.reset();
    fake.start_again();
    let mut get = fake.exchange();
    assert_eq!(get.asks(), "GET /stream/a?offset=3&epoch=4");
    get.refuse("410 Gone", "Stream-First-Offset: 800\r\n", "{\"error\":\"gone\"}");
    let outcome = client.outcome();
    outcome.expect(1, "byte 3 is gone: the server keeps the stream from byte 800 on");
    assert_eq!(outcome.stdout, b"one");
}

#[test]
fn an_interrupted_stream_ends_with_3_after_its_last_byte() {
    let fake = Fake::start();
    fake.declare(3, 3, 2, "interrupted");
    let client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.streaming(1, "open");
    get.chunk(b"one");
    get.send("0\r\nX-Stream-State: interrupted\r\n\r\n");
    let outcome = client.outcome();
    outcome.expect(3, "interrupted at byte 3");
    assert_eq!(outcome.stdout, b"one");
}

#[test]
fn after_a_restart_the_producer_is_waited_for() {
    let mut fake = Fake::start();
    let mut client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.streaming(1, "open");
    get.chunk(b"one ");
    client.await_stdout(b"one ");
    fake.stop();
    get.reset();
    fake.declare(8, 8, 2, "interrupted");
    fake.start_again();
    let mut get = fake.exchange();
    assert_eq!(get.asks(), "GET /stream/a?offset=4&epoch=1");
    get.send(
        "HTTP/1.1 200 OK\r\nStream-Epoch: 2\r\nX-Stream-State: interrupted\r\nContent-Length: 4\r\n\r\ntwo ",
    );
    client.await_stdout(b"one two ");
    fake.await_heads(1);
    assert!(!fake.is_asked(), "nothing new to get yet");
    fake.declare(8, 8, 2, "open");
    let mut get = fake.exchange();
    assert_eq!(get.asks(), "GET /stream/a?offset=8&epoch=2");
    get.streaming(2, "open");
    get.chunk(b"three");
    get.send("0\r\nX-Stream-State: complete\r\n\r\n");
    let outcome = client.outcome();
    outcome.expect(0, "");
    assert_eq!(outcome.stdout, b"one two three");
}

#[test]
fn once_the_producer_was_back_its_second_end_is_final() {
    let fake = Fake::start();
    fake.declare(6, 6, 3, "interrupted");
    let mut client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.streaming(1, "open");
    get.chunk(b"one");
    client.await_stdout(b"one");
    get.reset();
    let mut get = fake.exchange();
    get.streaming(2, "open");
    get.chunk(b"two");
    get.send("0\r\nX-Stream-State: interrupted\r\n\r\n");
    client.outcome().expect(3, "interrupted at byte 6");
}

#[test]
fn trailers_that_a_proxy_dropped_are_asked_for() {
    let fake = Fake::start();
    fake.declare(3, 3, 1, "interrupted");
    let client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.streaming(1, "open");
    get.chunk(b"one");
    get.end();
    client.outcome().expect(3, "interrupted at byte 3");
}

#[test]
fn another_history_is_never_spliced_on() {
    for (status, words) in [
        ("412 Precondition Failed", "no longer the one that was printed"),
        ("416 Range Not Satisfiable", "416"),
    ] {
        let fake = Fake::start();
        let mut client = tail(&fake, &[]);
        let mut get = fake.exchange();
        get.streaming(1, "open");
        get.chunk(b"one");
        client.await_stdout(b"one");
        get.reset();
        let mut get = fake.exchange();
        assert_eq!(get.asks(), "GET /stream/a?offset=3&epoch=1");
        get.refuse(status, "Stream-Epoch: 2\r\n", "");
        let outcome = client.outcome();
        outcome.expect(1, words);
        assert_eq!(outcome.stdout, b"one");
    }
}

#[test]
fn a_server_without_offsets_is_read_once_and_never_doubled() {
    let plain = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
    let fake = Fake::start();
    let client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.send(plain);
    get.end();
    client.outcome().expect(0, "");

    let mut client = tail(&fake, &[]);
    let mut get = fake.exchange();
    get.send(plain);
    client.await_stdout(b"one");
    get.reset();
    fake.exchange().send(plain);
    let outcome = client.outcome();
    outcome.expect(1, "Stream-Epoch");
    assert_eq!(outcome.stdout, b"one");
}

#[test]
fn what_is_not_there_is_an_error_at_once() {
    let mut fake = Fake::start();
    let client = tail(&fake, &[]);
    let missing = r#"{"error":"The stream with ID a does not exist"}"#;
    fake.exchange().refuse("404 Not Found", "", missing);
    client.outcome().expect(1, missing);
    fake.stop();
    tail(&fake, &[]).outcome().expect(1, "cannot connect");
}

#[test]
fn a_reader_of_stdout_that_leaves_is_an_ordinary_end_even_while_the_stream_is_silent() {
    let fake = Fake::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(["tail", &fake.url(), "a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the program starts");
    let mut get = fake.exchange();
    get.streaming(1, "open");
    drop(child.stdout.take());
    assert_eq!(end_of(child).recv_timeout(DEADLINE), Ok(Some(0)));
}

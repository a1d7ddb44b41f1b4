//! `millpond pipe`: whatever happens to the connection, the stream holds each byte of stdin once and
//! in order, or the exit code says that it does not.

mod fake_loom;

use std::io::Write;
use std::os::fd::AsFd;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fake_loom::{Client, Exchange, Fake, pattern};

fn pipe(fake: &Fake, more: &[&str]) -> (Client, ChildStdin) {
    let url = fake.url();
    Client::start(&[&["pipe", &url, "a b"], more].concat())
}

/// Writes all of it and closes stdin, from a thread: the client may hold us back.
fn write_all(mut stdin: ChildStdin, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    // A client that gives up closes the pipe; its exit code is what the test looks at.
    std::thread::spawn(move || stdin.write_all(&bytes));
}

#[test]
fn each_write_leaves_at_once_and_success_is_silent() {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &["--force", "--metadata", "{\n\"k\": 1}", "--token", "secret"]);
    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b?force=true");
    assert!(post.has_line("Authorization: Bearer secret") && post.has_line("X-Stream-Metadata: { \"k\": 1}"));
    fake.declare(0, 0, 1, "open");
    post.created(0, 1);
    for line in ["one\n", "two", "\n"] {
        stdin.write_all(line.as_bytes()).expect("the client reads");
        assert_eq!(post.read_chunk().expect("a chunk"), line.as_bytes());
    }
    drop(stdin);
    assert_eq!(post.read_chunk(), Some(Vec::new()));
    post.end();
    client.outcome().expect_silence();
}

#[test]
fn the_exit_waits_for_the_end_of_the_answer() {
    let fake = Fake::start();
    let (client, stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    post.created(0, 1);
    drop(stdin);
    assert!(post.read_to_end().is_empty());
    // The end in two pieces: half a promise is none.
    post.send("0\r\n");
    assert!(!client.has_ended());
    post.send("\r\n");
    client.outcome().expect_silence();
}

#[test]
fn a_cut_at_any_byte_goes_on_from_the_servers_end() {
    let bytes = pattern(200_000);
    for (cut, stored, reset) in [
        (0, 0, true),
        (1, 1, false),
        (1, 0, true),
        (4097, 4096, false),
        (150_000, 70_001, true),
        (200_000, 200_000, false),
    ] {
        let fake = Fake::start();
        let (client, stdin) = pipe(&fake, &[]);
        let mut post = fake.exchange();
        assert_eq!(post.asks(), "POST /stream/a%20b");
        fake.declare(0, 0, 1, "open");
        post.created(0, 1);
        write_all(stdin, &bytes);
        let mut have = post.read_at_least(cut);
        have.truncate(stored);
        fake.declare(stored as u64, stored as u64 / 2, 2, "interrupted");
        if reset {
            post.reset()
        } else {
            post.close()
        }

        let mut post = fake.exchange();
        assert_eq!(post.asks(), format!("POST /stream/a%20b?resume={stored}&epoch=2"));
        fake.declare(stored as u64, stored as u64 / 2, 3, "open");
        post.created(stored as u64, 3);
        have.extend(post.read_to_end());
        assert!(have == bytes, "cut at {cut}: {} bytes differ from {}", have.len(), bytes.len());
        post.end();
        client.outcome().expect(0, "trying again");
    }
}

/// Catches a chunked body where nothing is left: a server whose stream has no room left could not let it go on.
#[test]
fn a_resumption_with_nothing_left_to_send_says_so_in_its_head() {
    let fake = Fake::start();
    let (client, stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    fake.declare(0, 0, 1, "open");
    post.created(0, 1);
    write_all(stdin, b"all of it");
    assert_eq!(post.read_to_end(), b"all of it");
    fake.declare(9, 9, 2, "interrupted");
    post.close();

    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b?resume=9&epoch=2");
    assert!(post.has_line("Content-Length: 0"));
    post.created(9, 3);
    assert!(post.is_quiet());
    post.end();
    client.outcome().expect(0, "trying again");
}

#[test]
fn many_cuts_and_lost_answers_in_a_row_are_one_outage_to_the_reader() {
    let fake = Fake::start();
    let bytes = pattern(5_000);
    let (client, stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    fake.declare(0, 0, 1, "open");
    post.created(0, 1);
    write_all(stdin, &bytes);
    let mut have = post.read_to_end();
    assert!(have == bytes);
    have.truncate(1000);
    fake.declare(1000, 0, 2, "interrupted");
    post.reset();
    // Carried out, but the client never learns: the server counts the producer as attached.
    let post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b?resume=1000&epoch=2");
    fake.declare(1000, 0, 3, "open");
    post.close();
    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b?resume=1000&epoch=3");
    post.created(1000, 4);
    have.extend(post.read_to_end());
    assert!(have == bytes);
    post.end();
    let outcome = client.outcome();
    outcome.expect(0, "");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}

#[test]
fn a_refused_resume_takes_the_true_offset() {
    let bytes = pattern(1000);
    for epoch in [1, 2] {
        let fake = Fake::start();
        let (client, stdin) = pipe(&fake, &[]);
        let mut post = fake.exchange();
        post.created(0, 1);
        fake.declare(0, 0, 1, "open");
        write_all(stdin, &bytes);
        let mut have = post.read_at_least(600);
        have.truncate(150);
        fake.declare(100, 0, 1, "open");
        post.close();
        let mut post = fake.exchange();
        assert_eq!(post.asks(), "POST /stream/a%20b?resume=100&epoch=1");
        fake.declare(150, 0, epoch, "interrupted");
        post.refuse(
            "412 Precondition Failed",
            &format!("Stream-Next-Offset: 150\r\nStream-Epoch: {epoch}\r\n"),
            "{\"error\":\"epoch\"}",
        );
        let mut post = fake.exchange();
        assert_eq!(post.asks(), format!("POST /stream/a%20b?resume=150&epoch={epoch}"));
        post.created(150, epoch);
        have.extend(post.read_to_end());
        assert!(have == bytes);
        post.end();
        client.outcome().expect(0, "");
    }
}

#[test]
fn a_restarted_server_gets_the_rest() {
    let mut fake = Fake::start();
    let bytes = pattern(300_000);
    let (client, mut stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    fake.declare(0, 0, 1, "open");
    post.created(0, 1);
    stdin.write_all(&bytes[..50_000]).expect("the client reads");
    let mut have = post.read_at_least(50_000);
    fake.stop();
    post.reset();
    // Read while the server is away: it fits the ring, so the writer is not held up.
    stdin.write_all(&bytes[50_000..]).expect("the client reads on");
    drop(stdin);
    have.truncate(40_000);
    fake.declare(40_000, 40_000, 2, "interrupted");
    fake.start_again();
    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b?resume=40000&epoch=2");
    post.created(40_000, 3);
    have.extend(post.read_to_end());
    assert!(have == bytes);
    post.end();
    client.outcome().expect(0, "trying again for up to 5 minutes");
}

const RING: usize = 4 << 20;

#[test]
fn a_slow_disk_holds_stdin_back_at_the_size_of_the_ring() {
    let fake = Fake::start();
    let bytes = pattern(RING + (2 << 20));
    let (client, stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    fake.declare(0, 0, 1, "open");
    post.created(0, 1);
    // The pipe's own buffer is made as small as it gets, so what left it was taken by the client.
    rustix::pipe::fcntl_setpipe_size(stdin.as_fd(), 4096).expect("a pipe");
    let written = Arc::new(AtomicUsize::new(0));
    let (input, count) = (bytes.clone(), Arc::clone(&written));
    std::thread::spawn(move || {
        let mut stdin = stdin;
        for page in input.chunks(4096) {
            stdin.write_all(page).expect("the client reads");
            count.fetch_add(page.len(), Ordering::SeqCst);
        }
    });
    let mut have = post.read_at_least(RING);
    fake.await_heads(3);
    assert_eq!(have.len(), RING, "more was sent than the ring holds");
    assert!(post.is_quiet());
    assert!(written.load(Ordering::SeqCst) <= RING + 4096, "stdin was read although the ring is full");

    fake.declare(RING as u64, 1 << 20, 1, "open");
    have.extend(post.read_at_least(1 << 20));
    fake.await_heads(3);
    assert_eq!(have.len(), RING + (1 << 20));
    assert!(post.is_quiet());

    fake.declare(have.len() as u64, have.len() as u64, 1, "open");
    have.extend(post.read_to_end());
    assert!(have == bytes);
    post.end();
    client.outcome().expect_silence();
}

#[test]
fn a_server_is_not_asked_while_everything_is_durable() {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    post.created(0, 1);
    fake.declare(3, 3, 1, "open");
    stdin.write_all(b"one").expect("the client reads");
    assert_eq!(post.read_chunk().expect("a chunk"), b"one");
    assert!(fake.is_looked_at_within(fake_loom::DEADLINE));
    // Five times the interval at which it asks while something is in doubt.
    assert!(!fake.is_looked_at_within(Duration::from_secs(1)));
    drop(stdin);
    assert!(post.read_to_end().is_empty());
    post.end();
    client.outcome().expect_silence();
}

#[test]
fn an_answer_that_ends_early_or_for_less_is_no_promise() {
    for end in
        ["0\r\n\r\n", "0\r\nStream-Next-Offset: 999\r\n\r\n", "0\r\nX-Stream-State: interrupted\r\n\r\n"]
    {
        let fake = Fake::start();
        let bytes = pattern(1000);
        let (client, mut stdin) = pipe(&fake, &[]);
        let mut post = fake.exchange();
        post.created(0, 1);
        fake.declare(0, 0, 1, "open");
        stdin.write_all(&bytes).expect("the client reads");
        let mut have = post.read_at_least(1000);
        have.truncate(999);
        // Without trailers the answer would be a promise, had stdin ended.
        let stdin = (end == "0\r\n\r\n").then_some(stdin);
        if stdin.is_none() {
            assert!(post.read_to_end().is_empty());
        }
        fake.declare(999, 0, 2, "interrupted");
        post.send(end);
        let mut post = fake.exchange();
        assert_eq!(post.asks(), "POST /stream/a%20b?resume=999&epoch=2");
        post.created(999, 3);
        fake.declare(1000, 0, 3, "open");
        drop(stdin);
        have.extend(post.read_to_end());
        assert!(have == bytes);
        post.end();
        client.outcome().expect(0, "trying again");
    }
}

#[test]
fn a_lost_last_answer_is_found_out_and_is_success() {
    let fake = Fake::start();
    let bytes = pattern(10_000);
    let (client, stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    post.created(0, 1);
    write_all(stdin, &bytes);
    assert!(post.read_to_end() == bytes);
    // Complete, but not durable yet: that is not enough.
    fake.declare(10_000, 9_999, 1, "complete");
    post.reset();
    fake.await_heads(2);
    fake.declare(10_000, 10_000, 1, "complete");
    client.outcome().expect(0, "trying again");
    assert!(!fake.is_asked(), "nothing was left to send");
}

fn refused(more: &[&str], answer: impl FnOnce(&mut Exchange)) -> fake_loom::Outcome {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, more);
    // It may be gone before it reads; it must not have read before it is accepted.
    let _ = stdin.write_all(b"kept");
    answer(&mut fake.exchange());
    let outcome = client.outcome();
    assert_eq!(outcome.stdout, b"");
    outcome
}

#[test]
fn a_refusal_is_told_in_the_servers_words() {
    let taken =
        r#"{"error":"The stream with ID a b already exists. Specify force=true query param to override."}"#;
    refused(&[], |post| post.refuse("409 Conflict", "", taken)).expect(1, &format!("409 Conflict: {taken}"));
    let who = r#"{"message":"Unauthorized"}"#;
    refused(&["--token", "x"], |post| post.refuse("401 Unauthorized", "", who)).expect(1, who);
    refused(&[], |post| post.refuse("507 Insufficient Storage", "", "full"))
        .expect(1, "507 Insufficient Storage: full");
    refused(&[], |post| post.send("SSH-2.0-x\r\n")).expect(1, "not HTTP");
    refused(&[], |post| post.send("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"))
        .expect(1, "millpond stream");
}

#[test]
fn a_server_that_was_never_there_is_an_error_at_once() {
    let mut fake = Fake::start();
    fake.stop();
    let (client, _stdin) = pipe(&fake, &[]);
    let outcome = client.outcome();
    outcome.expect(1, "cannot connect to 127.0.0.1:");
    assert_eq!(outcome.stderr.lines().count(), 1);
}

#[test]
fn a_busy_server_is_asked_again() {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &[]);
    fake.exchange().refuse("503 Service Unavailable", "", "starting");
    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b");
    post.created(0, 1);
    stdin.write_all(b"one").expect("the client reads");
    drop(stdin);
    assert_eq!(post.read_to_end(), b"one");
    post.end();
    client.outcome().expect(0, "503 Service Unavailable: starting; trying again");
}

#[test]
fn a_lost_answer_to_the_creation_is_not_a_conflict_with_oneself() {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &[]);
    fake.exchange().reset();
    fake.declare(0, 0, 2, "interrupted");
    fake.exchange().refuse("409 Conflict", "", "exists");
    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b?resume=0&epoch=2");
    post.created(0, 3);
    stdin.write_all(b"one").expect("the client reads");
    drop(stdin);
    assert_eq!(post.read_to_end(), b"one");
    post.end();
    client.outcome().expect(0, "");
}

#[test]
fn but_a_stream_with_bytes_is_somebody_elses() {
    let fake = Fake::start();
    let (client, _stdin) = pipe(&fake, &[]);
    fake.exchange().reset();
    fake.declare(1, 1, 2, "interrupted");
    fake.exchange().refuse("409 Conflict", "", "exists");
    client.outcome().expect(1, "409 Conflict: exists");
}

/// Sends 1000 bytes, lets the client learn that 400 are durable, then breaks the connection.
fn broken_after_400_durable(declare: impl FnOnce(&Fake)) -> (fake_loom::Outcome, bool) {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    fake.declare(1000, 400, 5, "open");
    post.created(0, 5);
    stdin.write_all(&pattern(1000)).expect("the client reads");
    post.read_at_least(1000);
    fake.await_heads(1);
    declare(&fake);
    post.reset();
    let outcome = client.outcome();
    (outcome, fake.is_asked())
}

#[test]
fn what_cannot_be_continued_without_damage_is_an_error_and_nothing_is_sent() {
    type Case = (fn(&Fake), &'static str);
    let cases: [Case; 6] = [
        (|fake| fake.declare(399, 399, 6, "interrupted"), "ends at 399, and nothing below 400"),
        (|fake| fake.declare(1001, 400, 6, "interrupted"), "ends at 1001, but only 1000 bytes"),
        (|fake| fake.declare(1000, 400, 6, "open"), "its epoch is 6, this producer's was 5"),
        (|fake| fake.declare(1000, 400, 4, "interrupted"), "its epoch is 4"),
        (|fake| fake.declare(1000, 1000, 5, "complete"), "completed at 1000 bytes without this producer"),
        (|fake| fake.declare_head("404 Not Found\r\n"), "deleted on the server after 400 bytes"),
    ];
    for (declare, words) in cases {
        let (outcome, asked) = broken_after_400_durable(declare);
        outcome.expect(1, words);
        assert!(!asked, "sent although {words}");
    }
}

#[test]
fn a_stream_that_is_gone_before_anything_was_durable_is_created_again() {
    let fake = Fake::start();
    let bytes = pattern(1000);
    let (client, stdin) = pipe(&fake, &["--metadata", "{}"]);
    let mut post = fake.exchange();
    fake.declare(1000, 0, 1, "open");
    post.created(0, 1);
    write_all(stdin, &bytes);
    post.read_at_least(1000);
    fake.declare_head("404 Not Found\r\n");
    post.reset();
    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b");
    assert!(post.has_line("X-Stream-Metadata: {}"));
    post.created(0, 1);
    assert!(post.read_to_end() == bytes);
    post.end();
    client.outcome().expect(0, "");
}

#[test]
fn a_takeover_is_noticed_while_the_connection_still_stands() {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    fake.declare(0, 0, 2, "open");
    post.created(0, 1);
    stdin.write_all(b"one").expect("the client reads");
    client.outcome().expect(1, "another producer has taken over");
}

#[test]
fn bytes_of_others_that_the_resume_reveals_are_an_error() {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    post.created(0, 1);
    stdin.write_all(b"one").expect("the client reads");
    assert_eq!(post.read_chunk().expect("a chunk"), b"one");
    fake.declare(3, 0, 2, "interrupted");
    post.close();
    fake.exchange().created(4, 3);
    client.outcome().expect(1, "ends at 4, but only 3 bytes");
}

#[test]
fn a_full_server_at_the_resume_is_told_and_is_an_error() {
    let fake = Fake::start();
    let (client, mut stdin) = pipe(&fake, &[]);
    let mut post = fake.exchange();
    post.created(0, 1);
    stdin.write_all(b"one").expect("the client reads");
    assert_eq!(post.read_chunk().expect("a chunk"), b"one");
    fake.declare(3, 0, 2, "interrupted");
    post.close();
    fake.exchange().refuse("507 Insufficient Storage", "", "full");
    client.outcome().expect(1, "507 Insufficient Storage: full");
}

#[test]
fn bad_arguments_are_told_without_a_connection() {
    for (args, words) in [
        (["pipe", "https://h", "a"].as_slice(), "https is not spoken here"),
        (&["pipe", "http://h", ""], "id is empty"),
        (&["pipe", "http://h", "a", "--metadata", "{"], "--metadata is not JSON"),
    ] {
        Client::start(args).0.outcome().expect(1, words);
    }
}

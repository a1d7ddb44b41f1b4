//! micro: topics that are kept. Replay and live are one sequence, a name goes on where it was, and what was answered
//! survives a kill.

mod common;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use common::micro::Socket;
use common::sidecar::{Sidecar, client};
use common::{Daemon, Setup, Shared, eventually, fresh_id, request};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().micro("").share(&DAEMON)
}

#[track_caller]
fn publish(addr: &str, topic: &str, body: &str) {
    request(addr, "POST", &format!("/broker?topic={topic}"), &[], body.as_bytes()).expect(200);
}

/// Makes a topic one that is kept.
#[track_caller]
fn keep(addr: &str, topic: &str) {
    Socket::open(addr, &format!("/broker?topic={topic}&from=start")).close();
}

/// Body, and where the next message begins.
#[track_caller]
fn next(socket: &mut Socket) -> (String, u64) {
    let message = socket.json();
    let body =
        data_encoding::BASE64.decode(message["Body"].as_str().expect("a body").as_bytes()).expect("base64");
    (String::from_utf8(body).expect("text"), message["Next"].as_u64().expect("where the next one begins"))
}

#[test]
fn replay_goes_on_live_without_a_gap_and_nothing_twice() {
    let (daemon, topic) = (daemon(), fresh_id("replay"));
    publish(daemon.micro(), &topic, "before it is kept");
    keep(daemon.micro(), &topic);
    const COUNT: usize = 300;
    let started = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for number in 0..COUNT {
                publish(daemon.micro(), &topic, &number.to_string());
                started.store(number > COUNT / 4, Ordering::SeqCst);
            }
        });
        eventually("a part is there", || started.load(Ordering::SeqCst).then_some(()));
        // In the middle of it, from the start, and from a message in between.
        let mut all = Socket::open(daemon.micro(), &format!("/broker?topic={topic}&from=start"));
        let mut at = 0;
        for expected in 0..COUNT {
            let (body, next) = next(&mut all);
            assert_eq!(body, expected.to_string());
            if expected == 10 {
                at = next;
            }
        }
        publisher.join().expect("the publisher");
        let mut rest = Socket::open(daemon.micro(), &format!("/broker?topic={topic}&from={at}"));
        for expected in 11..COUNT {
            assert_eq!(next(&mut rest).0, expected.to_string());
        }
        publish(daemon.micro(), &topic, "live");
        assert_eq!((next(&mut all).0, next(&mut rest).0), ("live".to_owned(), "live".to_owned()));
    });
}

#[test]
fn a_time_ago_an_end_and_offsets_that_are_none() {
    let (daemon, topic) = (daemon(), fresh_id("ago"));
    keep(daemon.micro(), &topic);
    // More than is looked through one by one, so that the search has something to search in.
    let large = "x".repeat(8 * 1024);
    (0..30).for_each(|_| publish(daemon.micro(), &topic, &large));
    let mut first = Socket::open(daemon.micro(), &format!("/broker?topic={topic}&from=-1h"));
    let (body, second) = next(&mut first);
    assert_eq!(body, large, "an hour ago nothing was there");
    let then = std::time::Instant::now();
    publish(daemon.micro(), &topic, "young");
    // It takes a while until the question is asked.
    let age = then.elapsed().as_millis() + 5000;
    let mut young = Socket::open(daemon.micro(), &format!("/broker?topic={topic}&from=-{age}ms"));
    let mut body = next(&mut young).0;
    // Others that are as young may come before it.
    while body != "young" {
        assert_eq!(body, large);
        body = next(&mut young).0;
    }
    for (query, status) in [
        (format!("from={}", second - 1), 400),
        ("from=100000000".to_owned(), 416),
        ("from=yesterday".to_owned(), 400),
        ("from=start&queue=q".to_owned(), 400),
        ("durable=a%0Ab".to_owned(), 400),
    ] {
        let refused = Socket::try_open(daemon.micro(), &format!("/broker?topic={topic}&{query}"), &[]);
        assert_eq!(refused.err(), Some(status), "{query}");
    }
    assert_eq!(Socket::try_open(daemon.micro(), "/broker?topic=a%3Fb&from=start", &[]).err(), Some(400));
}

#[test]
fn a_name_goes_on_where_it_was_and_has_one_subscriber() {
    let (daemon, topic) = (daemon(), fresh_id("durable"));
    let target = format!("/broker?topic={topic}&durable=worker");
    let mut socket = Socket::open(daemon.micro(), &target);
    publish(daemon.micro(), &topic, "1");
    publish(daemon.micro(), &topic, "2");
    assert_eq!((socket.body(), socket.body()), ("1".to_owned(), "2".to_owned()));
    // What is read is acknowledged by the pongs of the client, which it sends while it reads.
    eventually("it has acknowledged", || {
        socket.is_silent_for(std::time::Duration::from_millis(600)).then_some(())
    });
    socket.close();
    publish(daemon.micro(), &topic, "3");
    let mut again = Socket::open(daemon.micro(), &target);
    assert_eq!(again.body(), "3");
    let mut heir = Socket::open(daemon.micro(), &target);
    assert_eq!(again.close_code(), Some(1001), "the name has another subscriber");
    publish(daemon.micro(), &topic, "4");
    let body = heir.body();
    assert!(body == "4" || (body == "3" && heir.body() == "4"), "not acknowledged, so perhaps again: {body}");
    // Another name begins with what comes, and plain subscribers get it as well.
    let mut other = Socket::open(daemon.micro(), &format!("/broker?topic={topic}&durable=other"));
    let mut plain = Socket::open(daemon.micro(), &format!("/broker?topic={topic}"));
    publish(daemon.micro(), &topic, "5");
    assert_eq!((other.body(), plain.body(), heir.body()), ("5".to_owned(), "5".to_owned(), "5".to_owned()));
}

#[test]
fn what_was_answered_survives_a_kill_and_topics_stay_kept() {
    let mut daemon = Setup::default().micro("").start();
    let target = "/broker?topic=log&durable=reader&from=start";
    let mut socket = Socket::open(daemon.micro(), target);
    for number in 0..20 {
        publish(daemon.micro(), "log", &number.to_string());
    }
    for number in 0..10 {
        assert_eq!(socket.body(), number.to_string());
    }
    daemon.kill9();
    daemon.restart();
    publish(daemon.micro(), "log", "20");
    let mut all = Socket::open(daemon.micro(), "/broker?topic=log&from=start");
    for number in 0..=20 {
        assert_eq!(all.body(), number.to_string());
    }
    let mut socket = Socket::open(daemon.micro(), target);
    let first: u32 = socket.body().parse().expect("a number");
    assert!(first <= 10, "nothing was passed over that the subscriber had not read: {first}");
    for number in first + 1..=20 {
        assert_eq!(socket.body(), number.to_string());
    }
}

#[test]
fn beyond_its_quota_nothing_is_taken_and_the_publisher_is_told() {
    let daemon = Setup::default().micro("quota = \"1KiB\"").start();
    let addr = daemon.micro();
    keep(addr, "small");
    let post = |body: &str| request(addr, "POST", "/broker?topic=small", &[], body.as_bytes()).status;
    assert_eq!(post("x"), 200);
    assert_eq!(post(&"y".repeat(1024)), 507);
    assert_eq!(post("z"), 200, "what fits is taken");
    let mut all = Socket::open(addr, "/broker?topic=small&from=start");
    assert_eq!((all.body(), all.body()), ("x".to_owned(), "z".to_owned()));
    // What is not kept has no quota.
    let large = "y".repeat(2048);
    request(addr, "POST", "/broker?topic=other", &[], large.as_bytes()).expect(200);
}

#[test]
fn a_sidecar_opens_its_store_with_the_first_topic_that_is_kept() {
    let dir = common::daemon::scratch();
    let data = format!("--data_dir={}", dir.path().join("data").display());
    let words = ["sidecar", "--address=127.0.0.1:0", &data, "--shards=2"];
    let sidecar = Sidecar::start(&words);
    publish(sidecar.micro(), "log", "lost");
    assert!(!dir.path().join("data").exists(), "nothing is stored yet");
    keep(sidecar.micro(), "log");
    publish(sidecar.micro(), "log", "1");
    drop(sidecar);
    let sidecar = Sidecar::start(&words);
    publish(sidecar.micro(), "log", "2");
    let (code, out, said) = client(sidecar.micro(), &["stream", "log", "--from=start", "--count=2"]);
    assert_eq!(code, Some(0), "{said}");
    let bodies: Vec<_> = out.lines().map(|line| line.contains("\"Body\":\"MQ==\"")).collect();
    assert_eq!(bodies, [true, false], "{out}");
    // Another one cannot have the same directory; what is not kept works all the same.
    let other = Sidecar::start(&words);
    publish(other.micro(), "log", "3");
    let refused = Socket::try_open(other.micro(), "/broker?topic=log&from=start", &[]);
    assert_eq!(refused.err(), Some(503));
    let mut plain = Socket::open(other.micro(), "/broker?topic=log");
    publish(other.micro(), "log", "4");
    assert_eq!(plain.body(), "4");
}

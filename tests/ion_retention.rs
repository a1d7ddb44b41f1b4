//! Events give way when they are too old or too much, by `ion.retention` and by nothing else.

mod common;

use common::ion::{ask, module};
use common::{Answer, Daemon, End, Setup, eventually};

fn kept(retention: &str) -> Setup {
    Setup::default().ion(&format!("retention = {{ {retention} }}\n{}", module("m", "")))
}

fn publish(daemon: &Daemon, number: usize, len: usize) {
    let padding = "x".repeat(len);
    let body = format!("{{\"eventType\":\"t\",\"number\":\"{number}\",\"padding\":\"{padding}\"}}");
    ask(daemon.ion(), "m", "POST", "/events", body.as_bytes()).expect(201);
}

/// The numbers of the events that are there; every line is one.
#[track_caller]
fn numbers(daemon: &Daemon) -> Vec<usize> {
    numbers_of(&ask(daemon.ion(), "m", "GET", "/events", b"").expect(200).whole())
}

/// The same while retention may overtake the reader, whose answer is cut then.
fn numbers_unless_cut(daemon: &Daemon) -> Option<Vec<usize>> {
    let answer = ask(daemon.ion(), "m", "GET", "/events", b"").expect(200);
    (answer.end != End::Cut).then(|| numbers_of(&answer))
}

fn numbers_of(answer: &Answer) -> Vec<usize> {
    let number = |line: &str| {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no event: {line:.80}"));
        event["data"]["number"].as_str().expect("it has a number").parse().expect("a number")
    };
    answer.text().lines().map(number).collect()
}

#[test]
fn what_is_too_much_goes_from_the_beginning_and_the_rest_is_whole() {
    let daemon = kept("max_bytes = \"4MiB\"").start();
    for number in 0..60 {
        publish(&daemon, number, 300_000);
    }
    let left =
        eventually("the oldest are gone", || numbers_unless_cut(&daemon).filter(|left| left.len() < 40));
    assert_eq!(left, (60 - left.len()..60).collect::<Vec<_>>(), "the newest, without a gap");
    publish(&daemon, 60, 10);
    assert_eq!(numbers(&daemon).last(), Some(&60));
}

#[test]
fn a_topic_at_rest_goes_when_it_is_too_old_and_begins_anew() {
    let mut daemon = kept("max_age = \"1s\"").start();
    publish(&daemon, 0, 10);
    daemon.restart();
    eventually("it is gone", || numbers(&daemon).is_empty().then_some(()));
    publish(&daemon, 1, 10);
    assert_eq!(numbers(&daemon), [1]);
}

#[test]
fn what_is_said_of_other_streams_says_nothing_of_events() {
    let setup = Setup::default().loom("retention = { max_age = \"1s\", max_bytes = \"1KiB\" }");
    let mut daemon = setup.ion(&module("m", "")).start();
    publish(&daemon, 0, 5_000);
    daemon.restart();
    common::post(daemon.loom(), "gone", &[b'x'; 5_000]).expect(201).whole();
    eventually("the other one is gone", || (daemon.get("/stream/gone?notail").status == 404).then_some(()));
    assert_eq!(numbers(&daemon), [0]);
}

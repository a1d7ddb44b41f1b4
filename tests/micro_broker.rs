//! micro: what topics promise to publishers and subscribers.

mod common;

use std::io::{Read, Write};
use std::sync::OnceLock;
use std::time::Duration;

use common::micro::Socket;
use common::{Answer, Daemon, Setup, Shared, fresh_id, get, request};
use tungstenite::Message;

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().micro("").share(&DAEMON)
}

fn publish(topic: &str, body: &str) -> Answer {
    request(daemon().micro(), "POST", &format!("/broker?topic={topic}"), &[], body.as_bytes())
}

fn subscribe(topic: &str) -> Socket {
    Socket::open(daemon().micro(), &format!("/broker?topic={topic}"))
}

#[test]
fn what_is_posted_reaches_every_subscriber_with_its_fields() {
    let topic = fresh_id("fields");
    let mut subscribers = [subscribe(&topic), subscribe(&topic), subscribe(&topic)];
    let fields =
        [("content-type", "application/x-www-form-urlencoded"), ("x-micro-id", "1"), ("X-Micro-Id", "2")];
    let answer =
        request(daemon().micro(), "POST", &format!("/broker?topic={topic}"), &fields, b"hello").expect(200);
    assert_eq!((answer.body.len(), answer.header("content-type")), (0, None));
    for subscriber in &mut subscribers {
        let text = subscriber.text();
        let expected = r#"{"Header":{"Content-Length":"5","Content-Type":"application/x-www-form-urlencoded","X-Micro-Id":"1, 2"},"Body":"aGVsbG8="}"#;
        assert_eq!(text, expected);
    }
}

#[test]
fn a_subscriber_publishes_by_text_or_bytes_and_hears_itself() {
    let topic = fresh_id("self");
    let mut socket = subscribe(&topic);
    socket.send("hello world");
    assert_eq!(socket.text(), r#"{"Header":{"Content-Type":"text/plain"},"Body":"aGVsbG8gd29ybGQ="}"#);
    socket.send_message(Message::binary(&b"\xff\0"[..]));
    assert_eq!(socket.text(), r#"{"Header":{"Content-Type":"text/plain"},"Body":"/wA="}"#);
    let target = format!("/broker?topic={topic}");
    let mut typed = Socket::try_open(daemon().micro(), &target, &[("Content-Type", "application/json")])
        .expect("a websocket");
    typed.send("{}");
    assert_eq!(typed.json()["Header"]["Content-Type"], "application/json");
}

#[test]
fn a_subscription_holds_from_its_101_on() {
    for round in 0..50 {
        let topic = fresh_id("live");
        let mut socket = subscribe(&topic);
        publish(&topic, &round.to_string()).expect(200);
        assert_eq!(socket.body(), round.to_string());
    }
}

#[test]
fn a_publishers_messages_come_in_its_order() {
    let topic = fresh_id("order");
    let mut subscribers = [subscribe(&topic), subscribe(&topic)];
    let mut publisher = subscribe(&topic);
    let count = 2000;
    for number in 0..count {
        publisher.send(&number.to_string());
    }
    for subscriber in subscribers.iter_mut().chain([&mut publisher]) {
        for number in 0..count {
            assert_eq!(subscriber.body(), number.to_string());
        }
    }
}

#[test]
fn each_group_and_each_plain_subscriber_gets_a_copy_and_members_take_turns() {
    let topic = fresh_id("groups");
    let group = |queue: &str| Socket::open(daemon().micro(), &format!("/broker?topic={topic}&queue={queue}"));
    let mut plain = subscribe(&topic);
    let (mut first, mut second, mut other) = (group("a"), group("a"), group("b"));
    for number in 0..6 {
        publish(&topic, &number.to_string()).expect(200);
    }
    let bodies =
        |socket: &mut Socket, count: usize| -> Vec<String> { (0..count).map(|_| socket.body()).collect() };
    let all = ["0", "1", "2", "3", "4", "5"];
    assert_eq!(bodies(&mut plain, 6), all);
    assert_eq!(bodies(&mut other, 6), all);
    let (mut one, two) = (bodies(&mut first, 3), bodies(&mut second, 3));
    one.extend(two);
    one.sort();
    assert_eq!(one, all, "each message went to one member, three to each");
    assert!(
        first.is_silent_for(Duration::from_millis(30)) && second.is_silent_for(Duration::from_millis(30))
    );
}

#[test]
fn what_a_member_that_leaves_was_not_sent_goes_to_another() {
    let topic = fresh_id("returned");
    let target = format!("/broker?topic={topic}&queue=q");
    let stuck = Socket::open(daemon().micro(), &target);
    let mut heir = Socket::open(daemon().micro(), &target);
    // More than the kernel's buffers hold, to a member that reads nothing, so that some of it waits at the daemon.
    let (body, count) = ("x".repeat(512 * 1024), 40);
    let redelivered = daemon().metrics().sum("millpond_broker_redelivered_total");
    let reader = std::thread::spawn(move || {
        let mut missing: std::collections::BTreeSet<usize> = [count - 2, count - 1].into();
        while !missing.is_empty() {
            missing.remove(&heir.body()[..2].parse().expect("a number"));
        }
    });
    for number in 0..count {
        publish(&topic, &format!("{number:02}{body}")).expect(200);
    }
    drop(stuck);
    // Of the last two, each member was given one.
    reader.join().expect("the last two arrive, both");
    daemon().wait_metric("millpond_broker_redelivered_total", |now| now > redelivered);
}

#[test]
fn a_slow_subscriber_is_told_to_come_back_and_holds_nobody_up() {
    let topic = fresh_id("slow");
    let slow = subscribe(&topic);
    let mut quick = subscribe(&topic);
    let body = "x".repeat(512 * 1024);
    let mut slow_read = slow;
    for number in 0..40 {
        publish(&topic, &format!("{number:02}{body}")).expect(200);
        assert_eq!(quick.body()[..2], format!("{number:02}"));
    }
    assert_eq!(slow_read.close_code(), Some(1013));
    daemon().wait_metric("millpond_broker_slow_subscribers_total", |count| count >= 1.0);
}

#[test]
fn what_is_no_subscription_is_refused() {
    let daemon = daemon();
    for target in ["/broker", "/broker?topic="] {
        assert_eq!(get(daemon.micro(), target).expect(400).text(), "Topic not specified\n");
        assert_eq!(Socket::try_open(daemon.micro(), target, &[]).err(), Some(400));
    }
    get(daemon.micro(), "/broker?topic=a").expect(400);
    request(daemon.micro(), "PUT", "/broker?topic=a", &[], b"").expect(405);
    let old = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "8")];
    let answer = request(daemon.micro(), "GET", "/broker?topic=a", &old, b"").expect(426);
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
}

#[test]
fn a_message_beyond_16_kib_ends_the_connection_with_1009() {
    let topic = fresh_id("long");
    let mut socket = subscribe(&topic);
    socket.send(&"x".repeat(16 * 1024));
    assert_eq!(socket.body().len(), 16 * 1024);
    socket.send(&"x".repeat(16 * 1024 + 1));
    assert_eq!(socket.close_code(), Some(1009));
}

#[test]
fn pings_are_answered_and_closes_given_back() {
    let mut socket = subscribe(&fresh_id("ping"));
    socket.send_message(Message::Ping("there?".into()));
    socket.close();
}

#[test]
fn text_that_is_none_ends_the_connection_with_1007_and_a_broken_frame_with_1002() {
    for (frame, code) in
        [(&b"\x81\x81\0\0\0\0\xff"[..], 1007u16), (b"\xf1\x80\0\0\0\0", 1002), (b"\x81\x01a", 1002)]
    {
        let socket = subscribe(&fresh_id("broken"));
        let mut stream = socket.stream();
        stream.write_all(frame).expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it ends");
        assert_eq!(answer[0], 0x88, "{answer:?}");
        assert_eq!(answer[2..4], code.to_be_bytes());
    }
}

#[test]
fn subscribers_are_told_when_the_daemon_ends() {
    let mut daemon = Setup::default().micro("").start();
    let mut socket = Socket::open(daemon.micro(), "/broker?topic=a");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(socket.close_code(), Some(1001));
    assert!(daemon.wait_exit().success());
}

//! Kind 0 and `[[proxy]]`: what goes in at one side comes out at the other, whole, in order, and with its end behind it.

mod common;

use common::serpentine::{LONG, MAGIC, ask, backend, connect, echo, ends_silently, exactly, reset, rest};
use common::{Daemon, Setup, bytes_of, sha256};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A daemon whose containerd is a socket in its own directory, with `serve` behind it, and that directory.
fn daemon_before(
    lines: &str,
    serve: impl Fn(UnixStream) + Clone + Send + 'static,
) -> (Daemon, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("backend.sock");
    backend(&socket, serve);
    let lines = format!("containerd_socket = \"{}\"\n{lines}", socket.display());
    (Setup::default().serpentine(&lines).start(), dir)
}

/// A daemon with a `[[proxy]]` before a TCP listener of this test.
fn daemon_before_tcp() -> (Daemon, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("an address");
    let table = format!("[[proxy]]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"");
    (Setup::default().further(&table).start(), listener)
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("the daemon connects");
    stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
    stream
}

/// Sends in pieces of odd sizes while it receives, and compares.
#[track_caller]
fn there_and_back(stream: TcpStream, seed: u64, len: usize) {
    let sent = bytes_of(seed, len);
    let mut writer = stream.try_clone().expect("a second handle");
    let sending = std::thread::spawn({
        let sent = sent.clone();
        move || {
            let (mut rest, mut size) = (&sent[..], 1);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(size.min(rest.len()));
                writer.write_all(now).expect("it is taken");
                rest = later;
                size = (size * 5 + 1) % 200_003;
            }
            writer.shutdown(Shutdown::Write).expect("an end can be sent");
        }
    });
    let received = rest(stream).expect("it comes back");
    sending.join().expect("sent");
    assert_eq!((received.len(), sha256(&received)), (sent.len(), sha256(&sent)));
}

#[test]
fn bytes_come_back_as_they_went_whatever_their_number_and_pieces() {
    let (daemon, _dir) = daemon_before("", echo);
    for (seed, len) in [(1, 0), (2, 1), (3, 16 * 1024), (4, 16 * 1024 + 1), (5, 5_000_000), (6, 40_000_000)] {
        there_and_back(ask(daemon.serpentine(), 0), seed, len);
    }
    let counted = 13_000_000.0;
    daemon.wait_metric("millpond_received_bytes_total", |bytes| bytes > counted);
    daemon.wait_metric("millpond_joined_open", |open| open == 0.0);
}

#[test]
fn bytes_behind_the_preamble_in_the_same_segment_are_the_backends() {
    let (daemon, _dir) = daemon_before("", echo);
    let mut stream = connect(daemon.serpentine());
    stream.write_all(&[MAGIC, b"\0PRI * HTTP/2.0"].concat()).expect("sent");
    assert_eq!(exactly(&mut stream, 14), b"PRI * HTTP/2.0");
    // And a preamble that comes byte by byte is one.
    let mut stream = connect(daemon.serpentine());
    for byte in [MAGIC, b"\0x"].concat() {
        stream.write_all(&[byte]).expect("sent");
    }
    assert_eq!(exactly(&mut stream, 1), b"x");
}

#[test]
fn many_connections_do_not_mix() {
    let (daemon, _dir) = daemon_before("", echo);
    let threads: Vec<_> = (0..16)
        .map(|seed| {
            let stream = ask(daemon.serpentine(), 0);
            std::thread::spawn(move || there_and_back(stream, 100 + seed, 3_000_000))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("whole"));
}

#[test]
fn garbage_is_closed_without_a_byte_and_without_a_backend() {
    let (told, asked) = mpsc::sync_channel(1);
    let (daemon, _dir) = daemon_before("", move |_| told.send(()).expect("the test listens"));
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"danger noodlf\0",
        b"D",
        b"danger noodle\x02",
    ] {
        let mut stream = connect(daemon.serpentine());
        stream.write_all(garbage).expect("sent");
        assert!(ends_silently(stream), "{}", garbage.escape_ascii());
    }
    for end in 0..=MAGIC.len() {
        let mut stream = connect(daemon.serpentine());
        stream.write_all(&MAGIC[..end]).expect("sent");
        stream.shutdown(Shutdown::Write).expect("an end can be sent");
        assert!(ends_silently(stream), "an end after {end} bytes");
    }
    assert!(asked.try_recv().is_err(), "the backend was connected");
    let refused = daemon.metrics().sum("millpond_handshakes_refused_total");
    assert_eq!(refused, 4.0 + 14.0);
}

#[test]
fn a_preamble_that_does_not_come_is_not_waited_for() {
    let (daemon, _dir) = daemon_before("handshake_timeout = \"300ms\"", echo);
    let begun = Instant::now();
    let mut late = connect(daemon.serpentine());
    late.write_all(b"danger").expect("sent");
    assert!(ends_silently(late));
    assert!(begun.elapsed() >= Duration::from_millis(250), "closed too early");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // What is through the preamble has all the time there is.
    let mut resting = ask(daemon.serpentine(), 0);
    assert!(ends_silently(connect(daemon.serpentine())));
    resting.write_all(b"still here").expect("sent");
    assert_eq!(exactly(&mut resting, 10), b"still here");
}

#[test]
fn nobody_behind_closes_and_the_next_one_is_served_once_somebody_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("late.sock");
    let lines = format!("containerd_socket = \"{}\"", socket.display());
    let daemon = Setup::default().serpentine(&lines).start();
    assert!(ends_silently(ask(daemon.serpentine(), 0)));
    assert_eq!(daemon.metrics().sum("millpond_dials_failed_total"), 1.0);
    backend(&socket, echo);
    there_and_back(ask(daemon.serpentine(), 0), 7, 1000);
}

/// The end of the client's bytes must reach the backend, behind all of them, and the answer must still come through.
#[test]
fn an_end_never_overtakes_bytes_and_the_other_direction_goes_on() {
    for len in [10, 100_000, 9_000_000] {
        let (daemon, listener) = daemon_before_tcp();
        let mut client = connect(daemon.proxy());
        let server = accepted(&listener);
        let sent = bytes_of(len as u64, len);
        let reading = std::thread::spawn(move || {
            // Nothing is read at first, so the end waits in the daemon behind what does not fit.
            let mut server = server;
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(100) {
                std::thread::yield_now();
            }
            let received = rest(&mut server).expect("all of it, and the end");
            server.write_all(&received).expect("the answer is taken");
        });
        client.write_all(&sent).expect("sent");
        client.shutdown(Shutdown::Write).expect("an end can be sent");
        let back = rest(&mut client);
        assert_eq!(sha256(&back.unwrap_or_default()), sha256(&sent), "{len} bytes");
        reading.join().expect("read");
    }
}

#[test]
fn a_side_that_does_not_read_stops_the_other_and_nobody_else() {
    let (daemon, listener) = daemon_before_tcp();
    let mut stuck = connect(daemon.proxy());
    let mut server = accepted(&listener);
    stuck.set_nonblocking(true).expect("non-blocking");
    let sent = bytes_of(9, 64 << 20);
    let mut taken = 0;
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(400) {
        match stuck.write(&sent[taken..]) {
            Ok(len) => {
                taken += len;
                quiet_since = Instant::now();
            }
            Err(_) => std::thread::yield_now(),
        }
        assert!(taken < sent.len(), "64 MiB went somewhere");
    }
    // Another one passes by.
    let mut other = connect(daemon.proxy());
    let mut behind = accepted(&listener);
    other.write_all(b"hello").expect("sent");
    assert_eq!(exactly(&mut behind, 5), b"hello");
    // And what waited comes out whole.
    stuck.set_nonblocking(false).expect("blocking");
    stuck.shutdown(Shutdown::Write).expect("an end can be sent");
    let received = rest(&mut server).expect("all of it");
    assert_eq!((received.len(), sha256(&received)), (taken, sha256(&sent[..taken])));
}

#[test]
fn a_reset_is_passed_on_as_one_behind_the_bytes_before_it() {
    let (daemon, listener) = daemon_before_tcp();
    let mut client = connect(daemon.proxy());
    let mut server = accepted(&listener);
    let sent = bytes_of(11, 300_000);
    server.write_all(&sent).expect("taken");
    assert_eq!(exactly(&mut client, 1), sent[..1]);
    reset(server);
    let mut received = vec![sent[0]];
    let ended = client.read_to_end(&mut received).expect_err("a reset is no end");
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(sent.starts_with(&received));
    // The other way round.
    let client = connect(daemon.proxy());
    let server = accepted(&listener);
    reset(client);
    let ended = rest(server).expect_err("a reset is no end");
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    daemon.wait_metric("millpond_joined_open", |open| open == 0.0);
}

/// A server that answers without reading everything and closes: the answer must not be lost to the reset that follows.
#[test]
fn the_tail_of_an_answer_survives_what_its_sender_did_not_read() {
    let (daemon, listener) = daemon_before_tcp();
    for round in 0..10 {
        let client = connect(daemon.proxy());
        let mut server = accepted(&listener);
        // Less than what the kernel takes at once: what it has not taken, the server itself throws away.
        let answer = bytes_of(round, 50_000);
        let mut asking = client.try_clone().expect("a second handle");
        let asked = std::thread::spawn(move || {
            let _ = asking.write_all(&vec![b'q'; 2_000_000]);
        });
        exactly(&mut server, 1000);
        server.write_all(&answer).expect("taken");
        server.shutdown(Shutdown::Write).expect("an end can be sent");
        drop(server);
        let mut received = Vec::new();
        let _ = (&client).read_to_end(&mut received);
        assert_eq!((received.len(), sha256(&received)), (answer.len(), sha256(&answer)), "round {round}");
        drop(client);
        asked.join().expect("asked");
    }
}

/// Both had said that they send no more, or one did and then went away: nothing may stay behind.
#[test]
fn a_client_that_ended_and_then_goes_away_leaves_nothing_behind() {
    let (daemon, listener) = daemon_before_tcp();
    let client = connect(daemon.proxy());
    let server = accepted(&listener);
    client.shutdown(Shutdown::Write).expect("an end can be sent");
    assert_eq!(rest(server.try_clone().expect("a second handle")).expect("an end"), b"");
    assert_eq!(daemon.metrics().sum("millpond_joined_open"), 1.0, "half of it is still wanted");
    reset(client);
    daemon.wait_metric("millpond_joined_open", |open| open == 0.0);
    drop(server);
}

#[test]
fn linger_ends_the_other_half_once_it_rests() {
    let (stay, _held) = mpsc::sync_channel::<UnixStream>(1);
    let (daemon, _dir) = daemon_before("linger = \"300ms\"", move |stream| drop(stay.send(stream)));
    let client = ask(daemon.serpentine(), 0);
    // At rest without an end it stays.
    daemon.wait_metric("millpond_joined_open", |open| open == 1.0);
    client.shutdown(Shutdown::Write).expect("an end can be sent");
    assert_eq!(rest(client).expect("an end"), b"");
    daemon.wait_metric("millpond_joined_open", |open| open == 0.0);
}

#[test]
fn a_unix_listener_is_for_its_user_and_for_those_who_may() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, ours) = (dir.path().join("backend.sock"), dir.path().join("ours.sock"));
    backend(&socket, echo);
    let me = rustix::process::getuid().as_raw();
    let lines = |allowed: u32| {
        format!(
            "containerd_socket = \"{}\"\nallow_uids = [{allowed}]\n[[serpentine.listener]]\nlisten = \"unix:{}\"",
            socket.display(),
            ours.display()
        )
    };
    for (allowed, served) in [(me, true), (me + 1, false)] {
        let daemon = Setup::default().serpentine(&lines(allowed)).start();
        let mode = std::fs::metadata(&ours).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut stream = UnixStream::connect(&ours).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
        let said = stream.write_all(&[MAGIC, b"\0hello"].concat());
        let mut answer = Vec::new();
        if served {
            said.expect("taken");
            answer = exactly(&mut stream, 5);
        } else {
            let _ = stream.read_to_end(&mut answer);
        }
        assert_eq!(answer == b"hello", served, "{allowed}");
        drop(daemon);
    }
}

#[test]
fn a_further_listener_has_kinds_and_a_backend_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (dir.path().join("one.sock"), dir.path().join("two.sock"));
    backend(&one, |mut stream| drop(stream.write_all(b"one")));
    backend(&two, |mut stream| drop(stream.write_all(b"two")));
    let lines = format!(
        "containerd_socket = \"{}\"\nbackends = {{ docker = \"{}\" }}\n\
         [[serpentine.listener]]\nlisten = \"127.0.0.1:0\"\nbackend = \"docker\"\n\
         [[serpentine.listener]]\nlisten = \"127.0.0.1:0\"\nkinds = [1]",
        one.display(),
        two.display()
    );
    let daemon = Setup::default().serpentine(&lines).start();
    let addresses: Vec<&str> = daemon.ready()["serpentine"]
        .as_array()
        .expect("three listeners")
        .iter()
        .map(|address| address.as_str().expect("an address"))
        .collect();
    assert_eq!(rest(ask(addresses[0], 0)).expect("an answer"), b"one");
    assert_eq!(rest(ask(addresses[1], 0)).expect("an answer"), b"two");
    assert!(ends_silently(ask(addresses[2], 0)), "kind 0 is not served there");
}

//! `gale topic`: every message reaches every websocket once, or the run says which did not.

mod common;

use std::io::{Read, Write};

use common::{
    gale,
    loom::Mangle,
    peer, request,
    topics::{Tongue, topics},
};

const RIGHT: Mangle = |_, record| record;
const TONGUES: [(Tongue, &str); 3] =
    [(Tongue::Micro, "micro"), (Tongue::Nchan, "nchan"), (Tongue::Nats, "nats")];

#[test]
fn a_server_passes_if_it_loses_nothing() {
    for (tongue, name) in TONGUES {
        for words in [
            "--rate 1000 --readers 5",
            "--rate 1000 --readers 6 --topics 3 --threads 2",
            "--rate 1000 --readers 2 --write-size 1000",
            "--window 8 --readers 4 --warmup 50ms",
            "--window 32 --readers 6 --topics 2 --write-size 800",
        ] {
            let ended =
                gale(&format!("topic {} --speaks {name} --duration 200ms {words}", topics(tongue, RIGHT)));
            let ended = ended.passed();
            assert!(ended.measure("operations") > 0.0 && ended.measure("p50") > 0.0, "{name} {words}");
            if words == "--rate 1000 --readers 5" {
                // Those of the last moment may come behind the window; none is forgotten.
                let due = ended.measure("operations") + 5.0 * ended.measure("unsent");
                assert!((500.0..=1000.0).contains(&due), "{ended:#?}");
            }
        }
    }
}

/// With a window of one, a record is made when every reader has the one before: what is under way is one record.
#[test]
fn a_window_keeps_a_producer_to_its_readers() {
    let address = topics(Tongue::Nchan, RIGHT);
    let one =
        gale(&format!("topic {address} --speaks nchan --duration 200ms --readers 3 --window 1")).passed();
    assert!(one.measure("operations") > 30.0, "{one:#?}");
    assert!(one.measure("p50") < 100_000.0, "{one:#?}");
}

#[test]
fn a_server_that_loses_doubles_or_changes_is_found() {
    let cases: [(Mangle, &str, &str); 3] = [
        (|n, record| if n == 30 { Vec::new() } else { record }, "gap", "record 31 where 30 was next"),
        (|n, record| if n == 30 { record.repeat(2) } else { record }, "duplicate", "record 30 after 31"),
        (|n, record| if n == 30 { vec![7; record.len()] } else { record }, "bytes", "in place of record 30"),
    ];
    for (tongue, name) in TONGUES {
        for (mangle, kind, says) in cases {
            let words = format!("topic {} --speaks {name} --readers 2", topics(tongue, mangle));
            let ended = gale(&format!("{words} --rate 1000 --duration 100ms")).failed(kind, says);
            assert_eq!(ended.faults(kind), 2, "{ended:#?}");
        }
        let last: Mangle = |n, record| if n == 99 { Vec::new() } else { record };
        let words = format!("topic {} --speaks {name} --timeout 200ms", topics(tongue, last));
        gale(&format!("{words} --rate 1000 --duration 100ms")).failed("unanswered", "has 99 of 100 records");
    }
}

#[test]
fn a_handshake_that_is_none_ends_the_run() {
    for (answer, says) in [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone",
            "status 404 instead of 101: Not Found none",
        ),
        (
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "Sec-WebSocket-Accept is Some(\"x\")",
        ),
    ] {
        let address = peer(move |mut stream| {
            _ = request(&mut stream, &mut Vec::new());
            _ = stream.write_all(answer.as_bytes());
            // The end is the client's to make: what it has not read would be lost to it.
            _ = stream.read(&mut [0]);
        });
        let ended = gale(&format!("topic {address} --speaks micro --rate 10"));
        assert!(ended.code == Some(1) && ended.err.contains(says), "{ended:#?}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (words, says) in [
        ("--speaks micro", "--rate N, or --window N"),
        ("--speaks micro --rate 1 --window 1", "cannot be used"),
        ("--speaks micro --window 1 --threads 2", "--threads 1"),
        ("--speaks micro --window 4 --write-size 1000", "no room for the 10 records"),
        ("--speaks micro --rate 1 --topics 2", "too few"),
        ("--speaks redis --rate 1", "micro, nchan, nats"),
        ("--speaks micro --rate 1 --requests 5", "--duration"),
    ] {
        let ended = gale(&format!("topic 127.0.0.1:1 {words}"));
        assert!(ended.code == Some(2) && ended.err.contains(says), "{words}: {ended:#?}");
    }
}

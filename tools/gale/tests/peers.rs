//! `gale tcp`, `redis` and `nats`: their servers are held to their word like the daemon.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use common::{
    Server, gale,
    loom::Mangle,
    nats::{Answer, acknowledged, nats},
    peer,
};

#[test]
fn our_own_servers_pass() {
    let (echo, sink, source) =
        (Server::start("serve-echo"), Server::start("serve-sink"), Server::start("serve-source"));
    for words in [
        "--requests 500",
        "--requests 500 --connections 4 --pipeline 8 --threads 2",
        "--size 200KiB --requests 40",
    ] {
        let ended = gale(&format!("tcp ping {} {words}", echo.address)).passed();
        assert!(ended.measure("operations") > 30.0 && ended.measure("p50") > 0.0, "{words}");
    }
    let ended = gale(&format!("tcp ping {} --rate 1000 --duration 100ms", echo.address)).passed();
    assert!(ended.measure("operations") + ended.measure("unsent") >= 99.0, "{ended:#?}");
    for (mode, server) in [("sink", &sink), ("source", &source)] {
        for words in ["", "--connections 3 --threads 2"] {
            let ended = gale(&format!("tcp {mode} {} --duration 100ms {words}", server.address)).passed();
            assert!(ended.measure("operations") > 0.0, "{mode} {words}");
        }
    }
    // Other seeds make other records.
    gale(&format!("tcp source {} --duration 100ms --seed 2", source.address)).failed("bytes", "the stamp of");
}

#[test]
fn an_echo_that_changes_a_byte_is_found() {
    let address = peer(|mut stream| {
        let (mut total, mut buffer) = (0, [0; 512]);
        while let Some(len) = stream.read(&mut buffer).ok().filter(|len| *len > 0) {
            if (total..total + len).contains(&1000) {
                buffer[1000 - total] ^= 1;
            }
            total += len;
            if stream.write_all(&buffer[..len]).is_err() {
                return;
            }
        }
    });
    let ended = gale(&format!("tcp ping {address} --requests 100")).failed("bytes", "not what was sent");
    assert_eq!(ended.faults("bytes"), 1);
}

type Id = fn(u64) -> Option<String>;
type Keeps = fn(u64) -> bool;

fn good_id(number: u64) -> Option<String> {
    let id = format!("1700000000000-{number}");
    Some(format!("${}\r\n{id}\r\n", id.len()))
}

/// A Redis server that knows XADD and what is asked before and after; `keeps` says whether it keeps a record.
fn redis(id: Id, keeps: Keeps) -> String {
    let kept = Arc::new(AtomicU64::new(0));
    peer(move |stream| _ = serve_redis(stream, &kept, id, keeps))
}

fn serve_redis(mut stream: TcpStream, kept: &AtomicU64, id: Id, keeps: Keeps) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut number = 0;
    let count = |lines: &mut BufReader<TcpStream>| -> Option<usize> {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse().ok()
    };
    loop {
        let mut words = Vec::new();
        for _ in 0..count(&mut lines)? {
            let mut word = vec![0; count(&mut lines)? + 2];
            lines.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            words.push(word);
        }
        let reply = match words[0].as_slice() {
            b"XADD" => {
                number += 1;
                kept.fetch_add(u64::from(keeps(number - 1)), Ordering::Relaxed);
                id(number - 1)?
            }
            b"XLEN" => format!(":{}\r\n", kept.swap(0, Ordering::Relaxed)),
            b"DEL" => ":0\r\n".into(),
            _ => "*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n".into(),
        };
        stream.write_all(reply.as_bytes()).ok()?;
    }
}

#[test]
fn redis_is_believed_record_by_record_and_counted_in_the_end() {
    let always = |_| true;
    for words in ["--producers 3", "--producers 2 --pipeline 16 --threads 2", "--rate 2000"] {
        let ended = gale(&format!("redis xadd {} --requests 300 {words}", redis(good_id, always))).passed();
        assert_eq!(ended.measure("operations"), 300.0);
        assert!(ended.out.contains("appendonly yes"), "{ended:#?}");
    }
    let cases: [(Id, Keeps, &str, &str); 5] = [
        (
            |n| good_id(if n == 30 { 29 } else { n }),
            always,
            "duplicate",
            "1700000000000-29 after 1700000000000-29",
        ),
        (
            |n| if n == 30 { Some("-OOM no memory\r\n".into()) } else { good_id(n) },
            always,
            "refused",
            "OOM no memory",
        ),
        (|n| if n == 30 { Some("+OK\r\n".into()) } else { good_id(n) }, always, "malformed", "+OK"),
        (|n| if n == 30 { None } else { good_id(n) }, always, "closed early", "unanswered"),
        (good_id, |n| n != 30, "gap", "100 records were answered, and XLEN tells 99"),
    ];
    for (id, keeps, kind, says) in cases {
        gale(&format!("redis xadd {} --requests 100", redis(id, keeps))).failed(kind, says);
    }
}

const RIGHT: Mangle = |_, record| record;

#[test]
fn a_nats_server_passes_if_it_loses_nothing() {
    for words in ["--readers 5", "--readers 6 --subjects 3 --threads 2", "--readers 2 --write-size 1000"] {
        let words = format!("{} --rate 1000 --duration 200ms {words}", nats(RIGHT, acknowledged));
        let ended = gale(&format!("nats fanout {words}")).passed();
        assert!(ended.measure("operations") > 0.0, "{words}");
    }
    gale(&format!("nats publish {} --producers 2 --duration 100ms", nats(RIGHT, acknowledged))).passed();
    for words in ["", "--producers 3 --window 20 --threads 2", "--window 4 --rate 2000"] {
        let words = format!("{} --requests 300 {words}", nats(RIGHT, acknowledged));
        assert_eq!(gale(&format!("nats jetstream {words}")).passed().measure("operations"), 300.0);
    }
}

#[test]
fn a_nats_server_that_loses_doubles_changes_or_refuses_is_found() {
    let cases: [(Mangle, &str, &str); 3] = [
        (|n, record| if n == 30 { Vec::new() } else { record }, "gap", "record 31 where 30 was next"),
        (|n, record| if n == 30 { record.repeat(2) } else { record }, "duplicate", "record 30 after 31"),
        (|n, record| if n == 30 { vec![7; record.len()] } else { record }, "bytes", "in place of record 30"),
    ];
    for (mangle, kind, says) in cases {
        let words = format!("{} --readers 2 --rate 1000 --duration 100ms", nats(mangle, acknowledged));
        let ended = gale(&format!("nats fanout {words}")).failed(kind, says);
        assert_eq!(ended.faults(kind), 2, "{ended:#?}");
    }
    // The last one never comes, and plain subjects have no end that would tell.
    let last: Mangle = |n, record| if n == 99 { Vec::new() } else { record };
    let words = format!("{} --rate 1000 --duration 100ms --timeout 200ms", nats(last, acknowledged));
    gale(&format!("nats fanout {words}")).failed("unanswered", "has 99 of 100 records");

    let cases: [(Answer, &str, &str); 3] = [
        (
            |n| if n == 30 { Some("{\"error\":{\"code\":503}}".into()) } else { acknowledged(n) },
            "refused",
            "503",
        ),
        (|n| if n == 30 { None } else { acknowledged(n) }, "gap", "31 where number 30 was next"),
        (|n| if n == 99 { None } else { acknowledged(n) }, "unanswered", "without an answer"),
    ];
    for (answer, kind, says) in cases {
        let words = format!("{} --requests 100 --window 8 --timeout 200ms", nats(RIGHT, answer));
        gale(&format!("nats jetstream {words}")).failed(kind, says);
    }
}

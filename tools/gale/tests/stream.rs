//! `gale stream`: every record is accounted for, and a server that loses, doubles or changes one is found out.

mod common;

use common::{
    gale,
    loom::{Mangle, Sin, loom},
};

const SIZE: usize = 80;
const RIGHT: Mangle = |_, record| record;

fn wrong(number: u64, mut record: Vec<u8>) -> Vec<u8> {
    if number == 30 {
        record[SIZE - 1] ^= 1;
    }
    record
}

fn lost(number: u64, record: Vec<u8>) -> Vec<u8> {
    if number == 30 { Vec::new() } else { record }
}

fn doubled(number: u64, record: Vec<u8>) -> Vec<u8> {
    if number == 30 { record.repeat(2) } else { record }
}

/// The end of a stream hides nothing either.
fn lost_at_the_end(number: u64, record: Vec<u8>) -> Vec<u8> {
    if number >= 98 { Vec::new() } else { record }
}

#[test]
fn a_right_server_passes_in_every_way_of_writing() {
    for words in [
        "--bytes 160000 --producers 3 --read-back",
        "--bytes 160000 --framing length --read-back --threads 2 --producers 2",
        "--bytes 16000 --write-size 200 --poll-durable 1ms",
        "--duration 200ms --rate 1000 --producers 2 --read-back",
        "--duration 200ms --rate 2000 --write-size 400 --poll-durable 1ms",
        "--duration 100ms --warmup 50ms --producers 2 --read-back",
        "--requests 60 --synced streams --producers 3 --read-back",
        "--duration 100ms --synced durable --producers 2 --read-back",
    ] {
        let address = loom(SIZE, RIGHT, Sin::None);
        let ended = gale(&format!("stream append http://{address} --record-size {SIZE} {words}")).passed();
        // A busy machine may take nothing more in so short a time than what filled the socket before it.
        assert!(ended.measure("operations") > 0.0 || words.contains("--warmup"), "{words}");
        if words.contains("--bytes 160000") {
            assert_eq!(ended.measure("operations"), 2000.0, "{words}");
        }
        if words.contains("--rate 1000") {
            assert_eq!(ended.measure("operations") + ended.measure("unsent"), 200.0, "{words}");
        }
        let measures_commits = words.contains("synced") || words.contains("poll");
        assert_eq!(ended.json["measures"]["p50"].is_number(), measures_commits, "{words}");
    }
}

#[test]
fn a_right_server_passes_whoever_reads() {
    for words in ["--readers 20", "--readers 7 --streams 3 --threads 2", "--readers 2 --write-size 400"] {
        let address = loom(SIZE, RIGHT, Sin::None);
        let words = format!("--record-size {SIZE} --rate 900 --duration 300ms {words}");
        let ended = gale(&format!("stream tail http://{address} {words}")).passed();
        assert!(ended.measure("operations") > 0.0 && ended.measure("p50") > 0.0, "{words}");
        assert!(ended.measure("since_it_was_made_p50") <= ended.measure("p50"), "{words}");
    }
}

#[test]
fn a_record_that_a_reader_does_not_get_right_is_found() {
    for (mangle, kind, says) in [
        (wrong as Mangle, "bytes", "in place of record 30"),
        (lost, "gap", "record 31 where 30 was next"),
        (doubled, "duplicate", "record 30 after 31"),
        (lost_at_the_end, "gap", "has 98 of 100 records"),
    ] {
        let address = loom(SIZE, mangle, Sin::None);
        let words = format!("--record-size {SIZE} --rate 1000 --duration 100ms --readers 3");
        let ended = gale(&format!("stream tail http://{address} {words}")).failed(kind, says);
        let each = if says.contains("98 of") { 2 } else { 1 };
        assert_eq!(ended.faults(kind), 3 * each, "{ended:#?}");

        let address = loom(SIZE, mangle, Sin::None);
        let words = format!("--record-size {SIZE} --bytes 8000 --write-size 80");
        let keeps_length = kind == "bytes";
        let append = format!("stream append http://{address} {words}");
        match keeps_length {
            true => drop(gale(&format!("{append} --read-back")).failed(kind, says)),
            false => drop(gale(&append).failed("length", "instead of 8000")),
        }
    }
}

#[test]
fn a_stream_that_is_not_acknowledged_to_its_end_counts_for_nothing() {
    for (sin, kind, says) in [
        (Sin::Silence, "unanswered", "not acknowledged after 200 ms"),
        (Sin::Cut, "closed early", "before everything was acknowledged"),
        (Sin::Volatile, "length", "0 of them durable"),
    ] {
        let address = loom(SIZE, RIGHT, sin);
        let words = format!("--record-size {SIZE} --bytes 8000 --timeout 200ms");
        let ended = gale(&format!("stream append http://{address} {words}")).failed(kind, says);
        let counted = if sin == Sin::Volatile { 100.0 } else { 0.0 };
        assert_eq!(ended.measure("operations"), counted, "{ended:#?}");
    }
    let address = loom(SIZE, RIGHT, Sin::Haste);
    gale(&format!("stream append http://{address} --record-size {SIZE} --rate 100 --duration 100ms"))
        .failed("closed early", "ended the stream before we did");
    let address = loom(SIZE, RIGHT, Sin::Interrupted);
    gale(&format!("stream tail http://{address} --record-size {SIZE} --duration 50ms"))
        .failed("refused", "ended as \"interrupted\"");
    let address = loom(SIZE, RIGHT, Sin::Volatile);
    let words = format!("--record-size {SIZE} --synced durable --duration 100ms --timeout 200ms");
    gale(&format!("stream append http://{address} {words}")).failed("length", "0 of them durable");
}

#[test]
fn mistakes_in_the_arguments_say_what_would_do() {
    for (words, says) in [
        ("append http://127.0.0.1:1 --record-size 31", "32 to"),
        ("append http://127.0.0.1:1/x", "write http://host:port"),
        ("append http://127.0.0.1:1 --framing length", "needs --bytes"),
        ("append http://127.0.0.1:1 --requests 5", "--bytes"),
        ("append http://127.0.0.1:1 --name a/b", "letters, digits"),
        ("append http://127.0.0.1:1 --bytes 50", "no room"),
        ("append http://127.0.0.1:1 --synced streams --bytes 500", "--requests or --duration"),
        ("tail http://127.0.0.1:1 --streams 2", "too few"),
    ] {
        let ended = gale(&format!("stream {words}"));
        assert!(ended.code == Some(2) && ended.err.contains(says), "{words}: {ended:#?}");
    }
}

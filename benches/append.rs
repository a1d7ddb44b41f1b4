//! What one append costs, its checksum alone, and what the end of a turn does.
//!
//! Expected: an append is a checksum and one positioned write, and allocates nothing while its run lasts (asserted
//! on the first of them); a checksum is a tenth of it or less; a turn's end is one positioned write however many
//! streams advanced, so the share of each falls with their number. Not measured: the disk, which is synced in the
//! background, and sockets.

mod meter;

use meter::store::Bench;
use meter::{Tally, count, measure};
use millpond::storage::{Appender, Key, LogId};

fn main() {
    allocates_nothing();
    for len in [128, 4096, 65_536, 262_144] {
        checksums(len);
        appends(len);
    }
    for streams in [1, 16, 256] {
        turns(streams);
    }
}

/// As many appends as a run of 4 MiB takes, one byte each.
fn allocates_nothing() {
    let bench = Bench::new();
    let mut appender = appender(&bench, 0);
    // Runs double: this one is as long as they get, and has just begun. So has what gathers until writeback begins.
    append(&bench, &mut appender, &vec![7; (8 << 20) - (16 << 10)]);
    append(&bench, &mut appender, &[7; 32 << 10]);
    bench.turn();
    measure("append 1 B", || append(&bench, &mut appender, &[7]));
}

/// The checksum of one append, as a run computes it: folded into the one of its window.
fn checksums(len: usize) {
    let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
    let whole = crc32fast::hash(&bytes);
    let rounds = count((1 << 30) / len, 4);
    let tally = Tally::begin();
    for _ in 0..rounds {
        let mut window = crc32fast::Hasher::new();
        window.update(std::hint::black_box(&bytes));
        assert_eq!(window.finalize(), whole, "a fast wrong answer does not count");
    }
    let total = tally.end(rounds);
    assert_eq!(total.allocations, 0, "a checksum allocates nothing");
    total.report(&format!("crc {len} B"), &format!("{:.1} GiB/s", total.rate((rounds * len) as u64)));
}

/// Appends to one stream, with a turn's end after every 64.
fn appends(len: usize) {
    let bench = Bench::new();
    let mut appender = appender(&bench, 0);
    let bytes = vec![7; len];
    let appends = count((256 << 20) / len, 128);
    let tally = Tally::begin();
    for number in 1..=appends {
        append(&bench, &mut appender, &bytes);
        if number.is_multiple_of(64) {
            bench.turn();
        }
    }
    bench.turn();
    tally.end(appends).report(&format!("append {len} B"), "");
    assert_eq!(appender.tail().published(), (appends * len) as u64, "a fast wrong answer does not count");
}

/// Turns in which every stream advances by 128 bytes.
fn turns(streams: u64) {
    let bench = Bench::new();
    let mut appenders: Vec<_> = (0..streams).map(|number| appender(&bench, number)).collect();
    let turns = count(200_000 / streams as usize, 10);
    let tally = Tally::begin();
    for _ in 0..turns {
        appenders.iter_mut().for_each(|appender| append(&bench, appender, &[7; 128]));
        bench.turn();
    }
    tally.end(turns * streams as usize).report(&format!("append 128 B in turns of {streams} streams"), "");
    assert!(appenders.iter().all(|appender| appender.tail().published() == turns as u64 * 128));
}

fn appender(bench: &Bench, number: u64) -> Appender {
    let key = Key::new(1, &number.to_le_bytes());
    let (entry, _) = bench.store.names().put(key, LogId(0), "".into()).expect("put");
    bench.store.appender(&entry.tail).expect("attach")
}

fn append(bench: &Bench, appender: &mut Appender, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = bench.block_on(appender.reserve(bytes.len())).expect("room");
        appender.append(&bytes[..room]).expect("append");
        bytes = &bytes[room..];
    }
}

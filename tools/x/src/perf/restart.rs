//! How soon a daemon serves that has very many names: after an orderly stop, and after SIGKILL.
//!
//! Invariant: after each start, names from all over the range are asked for and are there.

use std::{io, path::Path, time::Instant};

use super::{
    fill::{Kind, SIZE, create, fill},
    options::Options,
    record::Record,
};
use crate::{
    cpu::Memory,
    daemon::{Daemon, Scratch, Setup},
    http::ask,
};

const SHARDS: usize = 2;
/// What comes between two kills, beside what no checkpoint covers yet.
const MORE: u64 = 50_000;
const CONTAINER: &str = "photos";

/// Streams, then small files.
pub fn run(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "restart",
        "Starting with very many names",
        "Shows how long it takes from the start of the process to the first 200 of `/readyz`.",
    );
    let names = options.names.unwrap_or(1_000_000);
    record.remark(format!(
        "{names} things of {SIZE} bytes, {SHARDS} shards, not pinned, files in the page cache. They are put with \
         `durability = \"cache\"`, which changes how fast they are taken and not what is stored."
    ));
    record.remark(format!(
        "SIGKILL, round 0: right after the last one was taken, with all that no checkpoint covers by then; later \
         rounds: after {MORE} more. Clean stop: SIGTERM, waited for."
    ));
    let rounds = options.rounds(4, 2);
    for (case, kind) in [("finished streams", Kind::Streams), ("small files", Kind::Files(CONTAINER))] {
        measure(&mut record, root, case, kind, names, rounds)?;
    }
    record.checked("after every start, first, middle and last name are there with their length");
    record.median_at_most("finished streams, clean stop", "ready", 1.0);
    record.median_at_most("finished streams, SIGKILL", "ready", 3.0);
    Ok(record)
}

fn measure(
    record: &mut Record,
    root: &Path,
    case: &str,
    kind: Kind,
    names: u64,
    rounds: u32,
) -> io::Result<()> {
    let scratch = Scratch::new()?;
    let setup = Setup {
        shards: SHARDS,
        durability: "cache",
        dialects: &["vblob"],
        ..Setup::new(&root.join("target/release/millpond"), &scratch.data())
    };
    let mut daemon = setup.start()?;
    if let Kind::Files(container) = kind {
        create(address(&daemon, kind), container)?;
    }
    let mut count = names;
    fill(address(&daemon, kind), kind, 0..names)?;
    for round in 0..rounds {
        if round > 0 {
            fill(address(&daemon, kind), kind, count..count + MORE)?;
            count += MORE;
        }
        daemon.kill()?;
        daemon = start(record, &format!("{case}, SIGKILL"), round, &setup, kind, count)?;
        daemon.stop()?;
        daemon = start(record, &format!("{case}, clean stop"), round, &setup, kind, count)?;
    }
    daemon.stop()
}

fn start(
    record: &mut Record,
    case: &str,
    round: u32,
    setup: &Setup,
    kind: Kind,
    count: u64,
) -> io::Result<Daemon> {
    let begun = Instant::now();
    let daemon = setup.start()?;
    let admin = daemon.address("admin").expect("it listens");
    let (status, page) = ask(admin, "GET /readyz", b"")?;
    let ready = begun.elapsed();
    if status != 200 {
        return Err(io::Error::other(format!("/readyz is {status}: {}", String::from_utf8_lossy(&page))));
    }
    for number in [0, count / 2, count - 1] {
        let (status, body) = ask(address(&daemon, kind), &kind.get(number), b"")?;
        if status != 200 || body.len() != SIZE {
            return Err(io::Error::other(format!(
                "{} is {status} with {} bytes",
                kind.get(number),
                body.len()
            )));
        }
    }
    let memory = Memory::of(daemon.pid())?.anon;
    record.round(
        case,
        round,
        &[
            ("ready", "s", ready.as_secs_f64()),
            ("names", "", count as f64),
            ("RssAnon per name", "bytes", memory as f64 / count as f64),
        ],
    );
    Ok(daemon)
}

fn address(daemon: &Daemon, kind: Kind) -> &str {
    match kind {
        Kind::Streams => daemon.loom(),
        Kind::Files(_) => daemon.address("vblob").expect("it listens"),
    }
}

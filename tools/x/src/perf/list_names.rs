//! What a page of a listing costs the daemon: in a container of very many names, and in one of a thousand.
//!
//! Invariant: each page is whole and has what it should have; CPU is the daemon's alone, by the scheduler's books.

use std::{
    io::{self, Write},
    path::Path,
    time::Instant,
};

use super::{
    fill::{Connection, Kind, create, fill},
    options::Options,
    record::Record,
};
use crate::{
    cpu::Usage,
    daemon::{Daemon, Scratch, Setup},
};

const SHARDS: usize = 2;
const LARGE: &str = "large";
const SMALL: &str = "small";
/// Pages of each kind in a round.
const PAGES: u32 = 200;

/// Pages in two dialects.
pub fn run(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "list-names",
        "Pages of a listing",
        "Shows what a page of 1,000 entries costs the daemon, however many names there are.",
    );
    let names = options.names.unwrap_or(1_000_000);
    record.remark(format!(
        "{names} names in one container, a thousand in each folder, and 1,000 in another; {SHARDS} shards, one \
         connection, {PAGES} pages for each figure. CPU: all threads of the daemon, by schedstat."
    ));
    let scratch = Scratch::new()?;
    let setup = Setup {
        shards: SHARDS,
        durability: "cache",
        dialects: &["vblob", "s3"],
        ..Setup::new(&root.join("target/release/millpond"), &scratch.data())
    };
    let daemon = setup.start()?;
    let vblob = daemon.address("vblob").expect("it listens");
    for (container, count) in [(LARGE, names), (SMALL, 1000)] {
        create(vblob, container)?;
        fill(vblob, Kind::Files(container), 0..count)?;
    }
    let folder = names / 1000 / 2;
    for round in 0..options.rounds(5, 1) {
        for (dialect, more) in [("vblob", ""), ("s3", "&list-type=2&encoding-type=url")] {
            let keys = format!("prefix=2026%2F{folder:04}%2F&delimiter=%2F{more}");
            let last = format!("2026/{folder:04}/picture-999.jpg");
            page(&mut record, &daemon, dialect, "keys, prefix and delimiter", round, LARGE, &keys, &last)?;
            let folders = format!("prefix=2026%2F&delimiter=%2F{more}");
            let last = format!("2026/{:04}/", (names / 1000).min(1000) - 1);
            page(
                &mut record,
                &daemon,
                dialect,
                "folders, prefix and delimiter",
                round,
                LARGE,
                &folders,
                &last,
            )?;
            let last = "2026/0000/picture-999.jpg";
            let first = more.trim_start_matches('&');
            page(&mut record, &daemon, dialect, "first page", round, LARGE, first, last)?;
            page(&mut record, &daemon, dialect, "first page of 1,000 names", round, SMALL, first, last)?;
        }
    }
    daemon.stop()?;
    record.checked("every page was answered 200 and has the entry that belongs at its end");
    for dialect in ["vblob", "s3"] {
        record.median_at_most(&format!("{dialect}, keys"), "CPU per page", 2.0);
        record.median_at_most(&format!("{dialect}, folders"), "CPU per page", 2.0);
    }
    Ok(record)
}

#[expect(clippy::too_many_arguments, reason = "a case is all of them")]
fn page(
    record: &mut Record,
    daemon: &Daemon,
    dialect: &str,
    case: &str,
    round: u32,
    container: &str,
    query: &str,
    last: &str,
) -> io::Result<()> {
    let address = daemon.address(dialect).expect("it listens");
    let mut connection = Connection::open(address)?;
    let request = format!("GET /{container}?{query} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut ask = || {
        connection.socket.write_all(request.as_bytes())?;
        connection.answer(&[200])
    };
    let body = ask()?;
    if !String::from_utf8_lossy(&body).contains(last) {
        return Err(io::Error::other(format!("GET /{container}?{query}: {last} is missing")));
    }
    let (before, begun) = (Usage::of(daemon.pid())?, Instant::now());
    for _ in 0..PAGES {
        ask()?;
    }
    let (took, used) = (begun.elapsed(), Usage::of(daemon.pid())?.since(before));
    record.round(
        &format!("{dialect}, {case}"),
        round,
        &[
            ("CPU per page", "ms", used.nanos as f64 / 1e6 / f64::from(PAGES)),
            ("time per page", "ms", 1e3 * took.as_secs_f64() / f64::from(PAGES)),
            ("bytes", "bytes", body.len() as f64),
        ],
    );
    Ok(())
}

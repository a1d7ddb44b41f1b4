//! How long a message between two shards takes, at rest and under load: the law that it stays below 200 us.
//!
//! Runs `benches/mailbox_hop.rs`, whose shards have no daemon around them, and reads what it prints.
//! Invariant: a line that is not understood fails the run, so nothing is left out silently.

use std::{io, path::Path, process::Command};

use super::{options::Options, record::Record};
use crate::command;

/// What is run.
const BENCH: [&str; 4] = ["bench", "--quiet", "--bench", "mailbox_hop"];
/// What the law names.
const LOADED: &str = "loaded";
const HOP_MAX_US: f64 = 200.0;

/// Runs the bench as often as there are rounds.
pub fn run(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "hop",
        "A message between two shards",
        "Shows how long a message takes from the task that sends it to its handler on the other shard, and how long \
         the answer takes back to the task, between shards that rest, sleep and work.",
    );
    record
        .remark("Two shards pinned to a core each, by `benches/mailbox_hop.rs`; nothing else runs in them.");
    record.remark(
        "At real-time priority, because a shard that another process keeps from its core for a tick of the scheduler \
         shows that tick and nothing else.",
    );
    record.remark(
        "idle: a question follows each answer; asleep: a pause of 1 ms, so that both shards sleep; loaded: both \
         shards are never idle, and questions come at random moments.",
    );
    for round in 0..options.rounds(5, 1) {
        for hop in hops(root, options.short)? {
            record.round(
                &hop.case,
                round,
                &[
                    ("p50", "us", hop.p50),
                    ("p99", "us", hop.p99),
                    ("p99.9", "us", hop.p999),
                    ("longest", "us", hop.longest),
                ],
            );
        }
    }
    record.checked("every question was answered once, and no answer was older than its question");
    let loaded: Vec<String> = record.cases().into_iter().filter(|case| case.starts_with(LOADED)).collect();
    // The few hops of a short run are those of a shard that has just begun.
    for case in loaded.iter().filter(|_| !options.short) {
        record.median_at_most(case, "p99", HOP_MAX_US);
    }
    match loaded.is_empty() {
        true => Err(io::Error::other("the bench has no loaded case")),
        false => Ok(record),
    }
}

fn hops(root: &Path, short: bool) -> io::Result<Vec<Hop>> {
    command("cargo", &[&BENCH[..], &["--no-run"]].concat()).map_err(io::Error::other)?;
    let mut bench = Command::new("chrt");
    bench.args(["--fifo", "1", "cargo"]).args(BENCH).current_dir(root);
    if short {
        bench.env("MILLPOND_BENCH_SMOKE", "1");
    }
    let output = bench.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("the bench failed: {said}")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| Hop::read(line).ok_or_else(|| io::Error::other(format!("the bench said {line:?}"))))
        .collect()
}

/// One line of the bench.
#[derive(Debug, PartialEq)]
struct Hop {
    case: String,
    p50: f64,
    p99: f64,
    p999: f64,
    longest: f64,
}

impl Hop {
    fn read(line: &str) -> Option<Self> {
        let (name, values) = line.strip_prefix("mailbox hop, ")?.split_once(": ")?;
        let value = |key: &str| {
            let word = values.split(", ").find_map(|part| part.strip_prefix(key)?.strip_prefix(' '))?;
            word.strip_suffix(" us")?.parse().ok()
        };
        Some(Self {
            case: name.replace(',', ""),
            p50: value("p50")?,
            p99: value("p99")?,
            p999: value("p99.9")?,
            longest: value("max")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_bench_is_read_whole_or_not_at_all() {
        let line = "mailbox hop, loaded with 64 connections, there: p50 1.5 us, p99 20.0 us, p99.9 30.1 us, max 40.0 us, \
                    count 10, 1.000 allocations/op";
        let case = "loaded with 64 connections there".to_owned();
        assert_eq!(Hop::read(line), Some(Hop { case, p50: 1.5, p99: 20.0, p999: 30.1, longest: 40.0 }));
        assert_eq!(Hop::read(&line.replace("p99.9", "p99.8")), None);
        assert_eq!(Hop::read("something else: p50 1.5 us"), None);
    }
}

//! `cargo x soak chaos`: the test of what micro does when nodes of a service are slow, go and come back, over a release
//! daemon at 2,000 requests a second, for as many turns as told, and its record.
//!
//! Invariant: what is recorded is what the test printed; whether it passed is its exit code.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    built, numbers,
    perf::{
        machine::Machine,
        record::{Bound, Record},
    },
};

/// Turns unless told.
const TURNS: u64 = 30;
/// How long the slow node takes, in milliseconds: no turn's p99 may be as long.
const SLOW_MS: f64 = 500.0;

const USAGE: &str = "\
usage: cargo x soak chaos [--turns N] [--record]
  --turns N    in each another node is slow, and another one goes and comes back; 30 unless told
  --record     keep the run in perf/runs instead of target/perf";

/// Runs the test and keeps what it said.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let ([turns], record) = numbers::read(words, [("--turns", TURNS)], USAGE)?;
    let command_line = format!("cargo x soak chaos {}", words.join(" "));
    let told = |why: io::Error| format!("soak chaos: {why}");
    let binary = built::test(root, "release", "micro_stands_chaos").map_err(told)?;
    let machine = Machine::prepare(false).map_err(told)?;
    let kept = turn_by_turn(root, &binary, turns).map_err(told)?;
    kept.keep(root, record, command_line.trim_end(), &machine).map_err(told)
}

fn turn_by_turn(root: &Path, binary: &Path, turns: u64) -> io::Result<Record> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let output = Command::new(binary)
        .arg("--nocapture")
        .env("MILLPOND_CHAOS_TURNS", turns.to_string())
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let took = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() - began;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let sum = numbers_of(&said, "chaos: ").next();
    let sum = sum.ok_or_else(|| io::Error::other("the test told no result"))?;
    let of = |name: &str| sum.iter().find(|(key, _)| *key == name).map_or(f64::NAN, |(_, value)| *value);
    let mut record = Record::new(
        "soak-chaos",
        "Nodes that are slow, go and come back",
        "Shows that no request to a service of three nodes fails that could be made again, and that few wait for a slow \
         node, while nodes are killed and started again in turn under a fixed rate of requests.",
    );
    record.remark(
        "2,000 requests a second at their times, whatever became of those before, over 48 connections; half are passed on \
         (`GET`), half are calls. In each turn one node takes 500 ms, and another one is killed, and started again. A call \
         that is lost had been sent on a connection that broke: nobody can know what became of it.",
    );
    record.round(
        "all",
        0,
        &[
            ("requests", "requests", of("requests")),
            ("calls lost with their connection", "requests", of("lost")),
            ("retries", "requests", of("retries")),
            ("rests", "nodes", of("rests")),
            ("time", "s", took.as_secs_f64()),
        ],
    );
    for (turn, numbers) in numbers_of(&said, "turn ").enumerate() {
        let of =
            |name: &str| numbers.iter().find(|(key, _)| *key == name).map_or(f64::NAN, |(_, value)| *value);
        record.round(
            "turn",
            turn as u32,
            &[
                ("requests", "requests", of("requests")),
                ("requests to the slow node", "requests", of("slow")),
                ("p50", "ms", of("p50") / 1e3),
                ("p99", "ms", of("p99") / 1e3),
                ("p99.9", "ms", of("p999") / 1e3),
            ],
        );
    }
    record.checked(
        "of each request, that its answer is the node's; of each that was passed on, that it did not fail",
    );
    record.checked("of each call that failed, that it had been sent, and its connection broke");
    record.largest_at_most("turn", "p99", SLOW_MS);
    let failed = if output.status.success() { 0.0 } else { 1.0 };
    record.hold_value("tests failed".into(), failed, Bound::AtMost(0.0), "tests");
    Ok(record)
}

/// The numbers of each line that begins so, as in `turn 0: requests 5, slow 1`.
fn numbers_of<'s>(said: &'s str, begin: &str) -> impl Iterator<Item = Vec<(&'s str, f64)>> {
    let lines = said.lines().filter(move |line| line.starts_with(begin));
    let parts = lines.filter_map(|line| Some(line.split_once(": ")?.1.split(", ")));
    parts.map(|parts| {
        let number =
            |part: &'s str| part.split_once(' ').and_then(|(name, value)| Some((name, value.parse().ok()?)));
        parts.filter_map(number).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_what_the_test_says() {
        let said = "running 1 test\nchaos: requests 20, lost 1\nturn 0: requests 9, p50 700\nturn 1: requests 8\nok\n";
        assert_eq!(numbers_of(said, "chaos: ").collect::<Vec<_>>(), [[("requests", 20.0), ("lost", 1.0)]]);
        let turns: Vec<_> = numbers_of(said, "turn ").collect();
        assert_eq!(turns, [vec![("requests", 9.0), ("p50", 700.0)], vec![("requests", 8.0)]]);
    }
}

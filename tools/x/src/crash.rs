//! `cargo x soak crash`, `soak blobs`, `soak ion` and `soak output`: a crash test over an optimised daemon with all its assertions, for as many kills as told, and its record.
//!
//! Invariant: what is recorded is what the test printed; whether it passed is its exit code.

use std::{
    io,
    path::Path,
    process::Stdio,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    numbers,
    perf::{machine::Machine, record::Record},
};

/// A crash test.
pub struct Soak {
    /// What the task is called.
    name: &'static str,
    /// What its record is.
    record: &'static str,
    /// The binaries of its tests.
    tests: &'static [&'static str],
    /// What the names of those tests begin with that are meant.
    filter: &'static str,
    /// The variable that tells them how often to kill.
    variable: &'static str,
    /// How the kills are spread, for the record.
    spread: &'static str,
    about: &'static str,
    checked: &'static str,
    /// Kills unless told.
    cycles: u64,
}

/// Streams.
pub const STREAMS: Soak = Soak {
    name: "crash",
    record: "soak-crash",
    tests: &["crash"],
    filter: "",
    variable: "MILLPOND_CRASH_CYCLES",
    spread: "half with `durability = \"sync\"` and half with `\"cache\"`, both at the same time",
    about: "Shows that nothing that was acknowledged is lost or changed when the daemon is killed at random moments \
        under load, with either durability class.",
    checked: "after every kill, each stream against the books of who wrote it: acknowledged bytes are there \
        and right, bytes that a reader saw are there, nothing else appears",
    cycles: 2_000,
};

/// Files and objects.
pub const BLOBS: Soak = Soak {
    name: "blobs",
    record: "soak-blobs",
    tests: &["crash_blobs"],
    filter: "",
    variable: "MILLPOND_CRASH_CYCLES",
    spread: "half with `durability = \"sync\"` and half with `\"cache\"`, both at the same time",
    about: "Shows that objects are whole when the daemon is killed at random moments while they are put, replaced, \
        copied, deleted and composed from parts, with either durability class.",
    checked: "after every kill, each object against the books of who wrote it: what was acknowledged is there with its \
        entity tag, what was not is there or absent as a whole, and acknowledged parts can still be composed",
    cycles: 1_000,
};

/// What modules commit together.
pub const COMMITS: Soak = Soak {
    name: "ion",
    record: "soak-ion",
    tests: &["ion_commits_survive_kills"],
    filter: "",
    variable: "MILLPOND_CRASH_CYCLES",
    spread: "half with `durability = \"sync\"` and half with `\"cache\"`, both at the same time",
    about: "Shows that what a module commits together is there together or not at all when the daemon is killed at random \
        moments while modules commit, with either durability class.",
    checked: "after every kill, each module's blobs, document and events: a blob is there exactly if the event is that was \
        committed with it, once, the document is that of the last commit that is there, and what was answered is there",
    cycles: 200,
};

/// Output of processes.
pub const OUTPUT: Soak = Soak {
    name: "output",
    record: "soak-output",
    tests: &["serpentine_output", "serpentine_framed"],
    filter: "kills_",
    variable: "MILLPOND_KILLS",
    spread: "as many for output of kind 1 and for output of kind 65, with `output = \"spool\"`",
    about: "Shows that the output of a process is kept without a gap and nothing twice when the daemon is killed at \
        random moments while the process writes, and that it never finds nobody reading.",
    checked: "one sequence of lines per stream: after all kills, each line once and in order, and after each kill no byte \
        fewer than before it",
    cycles: 200,
};

const USAGE: &str = "\
usage: cargo x soak crash|blobs|ion|output [--cycles N] [--seed N] [--record]
  --cycles N   kills; 2000, 1000 or 200 unless told
  --seed N     as printed by an earlier run, decimal
  --record     keep the run in perf/runs instead of target/perf";

/// Runs the test and keeps what it said.
pub fn run(root: &Path, soak: &Soak, words: &[&str]) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unless_told = [("--cycles", soak.cycles), ("--seed", now.as_millis() as u64)];
    let ([cycles, seed], record) = numbers::read(words, unless_told, USAGE)?;
    let command_line = format!("cargo x soak {} {}", soak.name, words.join(" "));
    let told = |why: io::Error| format!("soak {}: {why}", soak.name);
    crate::command("cargo", &[&soak.cargo()[..], &["--no-run"]].concat())?;
    let machine = Machine::prepare(false).map_err(told)?;
    let kept = kill_again_and_again(root, soak, cycles, seed).map_err(told)?;
    kept.keep(root, record, command_line.trim_end(), &machine).map_err(told)
}

impl Soak {
    /// How its tests are built and run.
    fn cargo(&self) -> Vec<&'static str> {
        let tests = self.tests.iter().flat_map(|test| ["--test", test]);
        ["test", "--profile", "soak"].into_iter().chain(tests).collect()
    }
}

fn kill_again_and_again(root: &Path, soak: &Soak, cycles: u64, seed: u64) -> io::Result<Record> {
    println!("{cycles} kills, seed {seed}");
    let started = Instant::now();
    let output = crate::apart("cargo")
        .args(soak.cargo())
        .arg(soak.filter)
        .env(soak.variable, cycles.to_string())
        .env("MILLPOND_SEED", seed.to_string())
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let took = started.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let (passed, failed) = results(&said).ok_or_else(|| io::Error::other("the test told no result"))?;
    if !output.status.success() && failed == 0 {
        return Err(io::Error::other(format!("the test ended with {}", output.status)));
    }
    let mut record = Record::new(soak.record, "SIGKILL, again and again", soak.about);
    record.remark(format!("{cycles} kills, {}; seed {seed}.", soak.spread));
    record.round(
        "all",
        0,
        &[
            ("kills", "kills", cycles as f64),
            ("tests passed", "tests", passed as f64),
            ("tests failed", "tests", failed as f64),
            ("time", "s", took),
            ("kills per second", "1/s", cycles as f64 / took),
        ],
    );
    record.checked(soak.checked);
    record.largest_at_most("", "tests failed", 0.0);
    Ok(record)
}

/// Passed and failed, of all lines `test result: ok. 2 passed; 0 failed; …`.
pub fn results(said: &str) -> Option<(u64, u64)> {
    let before = |line: &str, word: &str| -> Option<u64> {
        let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        words[words.iter().position(|it| *it == word)?.checked_sub(1)?].parse().ok()
    };
    let lines = said.lines().filter(|line| line.starts_with("test result:"));
    let results = lines.map(|line| Some((before(line, "passed")?, before(line, "failed")?)));
    results.reduce(|sum, more| sum.zip(more).map(|((p, f), (q, g))| (p + q, f + g)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_read_from_what_the_test_says() {
        let said = "running 2 tests\ntest a ... ok\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n";
        assert_eq!(results(said), Some((1, 1)));
        let said = format!("{said}\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\n");
        assert_eq!(results(&said), Some((4, 1)));
        assert_eq!(results("error: no such test"), None);
    }
}

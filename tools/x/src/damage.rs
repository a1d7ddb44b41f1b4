//! `cargo x soak damage`: the test of damaged files, with as many damages as told, and its record.
//!
//! Works in chunks of a few damages, each with a seed of its own: a directory is written anew for each, and a chunk that
//! fails is repeated by its line. Invariant: what is recorded is what the chunks printed.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use crate::{
    built,
    crash::results,
    numbers,
    perf::{machine::Machine, record::Record},
};

/// Flipped bits unless told; a fifth as many files are cut.
const FLIPS: u64 = 500;
/// Flipped bits in a chunk.
const CHUNK: u64 = 25;

const USAGE: &str = "\
usage: cargo x soak damage [--flips N] [--seed N] [--record]
  --flips N   flipped bits that verify names; a fifth as many files are cut short; 500 unless told
  --seed N    of the first chunk, decimal; the others follow it; 1 unless told
  --record    keep the run in perf/runs instead of target/perf";

/// Runs the test and keeps what it said.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let ([flips, seed], record) = numbers::read(words, [("--flips", FLIPS), ("--seed", 1)], USAGE)?;
    let command_line = format!("cargo x soak damage {}", words.join(" "));
    let told = |why: io::Error| format!("soak damage: {why}");
    let test = built::test(root, "dev", "damage_stays_with_its_record").map_err(told)?;
    let machine = Machine::prepare(false).map_err(told)?;
    let kept = damage_again_and_again(root, &test, flips, seed).map_err(told)?;
    kept.keep(root, record, command_line.trim_end(), &machine).map_err(told)
}

fn damage_again_and_again(root: &Path, test: &Path, flips: u64, seed: u64) -> io::Result<Record> {
    let mut record = Record::new(
        "soak-damage",
        "Flipped bits and files cut short",
        "Shows that damage to files at rest is named by verify, served to nobody, stays with the names that verify \
         named, and that a repair, also one after a repair that was killed, makes the rest whole.",
    );
    for chunk in 0..flips.div_ceil(CHUNK) {
        let (seed, wanted) = (seed + chunk, CHUNK.min(flips - chunk * CHUNK));
        let started = Instant::now();
        let output = Command::new(test)
            .arg("--nocapture")
            .env("MILLPOND_DAMAGES", wanted.to_string())
            .env("MILLPOND_SEED", seed.to_string())
            .current_dir(root)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let (_, failed) = results(&said).ok_or_else(|| io::Error::other("the test told no result"))?;
        if failed > 0 {
            println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let count = |what: &str| counted(&said, what).unwrap_or(0) as f64;
        record.round(
            "all",
            chunk as u32,
            &[
                ("seed", "", seed as f64),
                ("flips named", "flips", count("flips named")),
                ("flips of nothing", "flips", count("flips nowhere")),
                ("cuts named", "cuts", count("cuts named")),
                ("cuts of nothing", "cuts", count("cuts nowhere")),
                ("answers missing", "answers", count("answers missing")),
                ("tests failed", "tests", failed as f64),
                ("time", "s", started.elapsed().as_secs_f64()),
            ],
        );
    }
    record.remark(
        "A directory with a checkpoint and the journals of two shards, streams and files of 1 B to 700 kB, some \
         replaced and deleted. Each damage is one flipped bit, or one file cut short, at a random place where something \
         was written; one that hits what nothing stands for (padding, free space, dead bytes) is counted apart.",
    );
    record.checked("verify names the file that was hit");
    record.checked("the daemon starts; every answer is what was written, or an error, or breaks off");
    record.checked("what is missing is named by verify, or verify says that it cannot know the name");
    record.checked(
        "after a repair that is killed at a random moment, and one to the end: verify finds the directory \
                    whole, the daemon starts, nothing more is missing, nothing deleted is back",
    );
    record.largest_at_most("", "tests failed", 0.0);
    Ok(record)
}

/// The number behind a word in the line that the test prints.
fn counted(said: &str, what: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("MILLPOND_SEED=") && line.contains("flips named"))?;
    // The list of cuts does not repeat its word.
    let (flips, cuts) = line.split_once(", cuts ")?;
    let (part, word) = match what.split_once(' ')? {
        ("flips", word) => (flips, word),
        ("cuts", word) => (cuts, word),
        _ => (cuts, what),
    };
    let behind = &part[part.find(word)? + word.len()..];
    behind.trim_start().split([',', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read_from_what_the_test_says() {
        let said =
            "x\nMILLPOND_SEED=7: flips named 25, nowhere 3, cuts named 5, nowhere 1, answers missing 9\n";
        let of = |what| counted(said, what);
        assert_eq!([of("flips named"), of("flips nowhere")], [Some(25), Some(3)]);
        assert_eq!(
            [of("cuts named"), of("cuts nowhere"), of("answers missing")],
            [Some(5), Some(1), Some(9)]
        );
        assert_eq!(counted("nothing", "cuts named"), None);
    }
}

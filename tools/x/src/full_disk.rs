//! `cargo x soak full-disk`: a disk that runs full at random places, and one that fails behind its file system, as often
//! as told, and their record.
//!
//! Invariant: what is recorded is what the tests printed; whether they passed is their exit code.

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

/// Places at which the disk runs full unless told; a fifth as many at which it fails.
const OFFSETS: u64 = 200;
/// Places of one run of a test, which has a seed of its own.
const CHUNK: u64 = 20;

const USAGE: &str = "\
usage: cargo x soak full-disk [--offsets N] [--seed N] [--record]
  --offsets N   places at which the disk runs full; a fifth as many at which syncs fail; 200 unless told
  --seed N      of the first twenty places, decimal; those behind follow it; 1 unless told
  --record      keep the run in perf/runs instead of target/perf";

/// One of the two tests.
struct Soak {
    /// The test's file.
    file: &'static str,
    test: &'static str,
    case: &'static str,
    /// Of all places, one in so many.
    one_in: u64,
    /// What its line counts, beside the offsets.
    counts: [(&'static str, &'static str); 4],
}

const SOAKS: [Soak; 2] = [
    Soak {
        file: "disk_full_is_507",
        test: "space_runs_out_anywhere_and_nothing_acknowledged_is_lost",
        case: "ENOSPC",
        one_in: 1,
        counts: [
            ("acknowledged", "streams"),
            ("refused", "streams"),
            ("deleted", "streams"),
            ("restarts", "restarts"),
        ],
    },
    Soak {
        file: "failed_sync_acknowledges_nothing",
        test: "what_a_failing_disk_did_not_take_is_not_acknowledged",
        case: "failing syncs",
        one_in: 5,
        counts: [
            ("acknowledged", "streams"),
            ("refused", "streams"),
            ("deleted", "streams"),
            ("given up", "disks"),
        ],
    },
];

/// Runs the tests and keeps what they said.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let ([offsets, seed], record) = numbers::read(words, [("--offsets", OFFSETS), ("--seed", 1)], USAGE)?;
    let command_line = format!("cargo x soak full-disk {}", words.join(" "));
    let told = |why: io::Error| format!("soak full-disk: {why}");
    let tests = [built::test(root, "dev", SOAKS[0].file), built::test(root, "dev", SOAKS[1].file)];
    let machine = Machine::prepare(false).map_err(told)?;
    let mut kept = Record::new(
        "soak-full-disk",
        "A disk that runs full, and one that fails",
        "Shows that nothing is acknowledged falsely or lost, wherever room runs out and whenever a sync fails, that the \
         daemon lives, and that all is well once there is room again.",
    );
    for (soak, test) in SOAKS.iter().zip(tests) {
        let test = test.map_err(told)?;
        again_and_again(root, soak, &test, offsets.div_ceil(soak.one_in), seed, &mut kept).map_err(told)?;
    }
    kept.remark(
        "ENOSPC: the data directory is a tmpfs of 160 MiB, of which all but a random part is taken at a time, so that room \
         runs out at any byte of any file; half of the rounds go on with the same process, half with a start.",
    );
    kept.remark(
        "Failing syncs: the data directory lies in a thin image of ext4, served by fuse2fs, on a tmpfs that runs full \
         behind it: writes and fdatasync of room that the file system gave away fail. Where it turns read-only itself, it \
         is given up, and no start on it is looked at.",
    );
    kept.checked("every acknowledged stream is read back byte by byte, then and after a start");
    kept.checked("what was refused never passes for complete; what was deleted stays deleted");
    kept.checked("deletions are answered 204 on a full disk; on a failing one 204, which then holds, or 503");
    kept.checked("the daemon lives, is not ready after a failed sync, and takes streams once there is room");
    kept.largest_at_most("", "tests failed", 0.0);
    kept.keep(root, record, command_line.trim_end(), &machine).map_err(told)
}

fn again_and_again(
    root: &Path,
    soak: &Soak,
    test: &Path,
    offsets: u64,
    seed: u64,
    record: &mut Record,
) -> io::Result<()> {
    for chunk in 0..offsets.div_ceil(CHUNK) {
        let (seed, wanted) = (seed + chunk, CHUNK.min(offsets - chunk * CHUNK));
        let started = Instant::now();
        let output = Command::new(test)
            .args(["--exact", soak.test, "--nocapture"])
            .env("MILLPOND_OFFSETS", wanted.to_string())
            .env("MILLPOND_SEED", seed.to_string())
            .current_dir(root)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let (passed, failed) = results(&said).ok_or_else(|| io::Error::other("the test told no result"))?;
        if failed > 0 || passed != 1 {
            println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let count = |what: &str| counted(&said, what).unwrap_or(0) as f64;
        let mut measures = vec![("seed", "", seed as f64), ("offsets", "offsets", count("offsets"))];
        measures.extend(soak.counts.map(|(what, unit)| (what, unit, count(what))));
        measures.push(("tests failed", "tests", (1 - passed.min(1)) as f64));
        measures.push(("time", "s", started.elapsed().as_secs_f64()));
        record.round(soak.case, chunk as u32, &measures);
    }
    Ok(())
}

/// The number behind a word in the line that the test prints.
fn counted(said: &str, what: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("MILLPOND_SEED=") && line.contains("offsets "))?;
    let (_, counts) = line.split_once(": ")?;
    let part = counts.split(", ").find_map(|part| part.strip_prefix(what))?;
    part.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read_from_what_the_test_says() {
        let said = "running 1 test\nMILLPOND_SEED=7: offsets 20, acknowledged 310, refused 20, broke off 3\n";
        let of = |what| counted(said, what);
        assert_eq!([of("offsets"), of("acknowledged"), of("broke off")], [Some(20), Some(310), Some(3)]);
        assert_eq!([of("restarts"), counted("nothing", "offsets")], [None, None]);
    }
}

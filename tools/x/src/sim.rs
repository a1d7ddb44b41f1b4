//! `cargo x soak sim`: thousands of simulated histories of the store, of every class, and their record.
//!
//! Runs the test of the store's simulation, a few dozen histories at a time on every core, over places in the one row
//! of seeds that its tests draw from. Invariant: what is recorded is what the tests printed; each history that went
//! wrong leaves a line that repeats it.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use crate::{
    built, numbers,
    perf::{
        machine::Machine,
        record::{Bound, Record},
    },
};

/// Histories unless told.
const HISTORIES: u64 = 20_000;
/// Seeds that one run of the test takes.
const CHUNK: u64 = 50;
/// The test that breaks rules on purpose.
const PLANTED: &str = "a_broken_rule_is_noticed";
/// Rules that it breaks.
const PLANTED_COUNT: usize = 3;

/// A test of one class of histories.
struct Class {
    test: &'static str,
    /// Histories that it makes of a seed.
    per_seed: u64,
    /// Of all histories, in twentieths.
    share: u64,
}

const CLASSES: [Class; 7] = [
    Class { test: "what_was_acknowledged_survives_any_crash", per_seed: 1, share: 4 },
    Class { test: "what_was_acknowledged_survives_crashes_beside_failing_disks", per_seed: 1, share: 4 },
    Class { test: "what_was_acknowledged_survives_disks_that_err", per_seed: 1, share: 3 },
    Class { test: "the_cache_class_survives_kills_whole", per_seed: 1, share: 2 },
    Class { test: "streams_lose_their_beginnings_and_nothing_else", per_seed: 4, share: 4 },
    Class { test: "a_full_disk_costs_nothing_that_was_acknowledged", per_seed: 1, share: 2 },
    Class { test: "segments_come_and_go_under_late_readers", per_seed: 1, share: 1 },
];

const USAGE: &str = "\
usage: cargo x soak sim [--histories N] [--from SEED] [--record]
  --histories N   over all classes; 20000 unless told
  --from SEED     the place in the row of seeds to begin at; 0 unless told
  --record        keep the run in perf/runs instead of target/perf";

/// Runs the histories and keeps what came of them.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let ([wanted, from], record) = numbers::read(words, [("--histories", HISTORIES), ("--from", 0)], USAGE)?;
    let command_line = format!("cargo x soak sim {}", words.join(" "));
    let told = |why: io::Error| format!("soak sim: {why}");
    let binary = built::test(root, "soak", "store_sim").map_err(told)?;
    let machine = Machine::prepare(false).map_err(told)?;
    let kept = histories(root, &binary, wanted, from).map_err(told)?;
    kept.keep(root, record, command_line.trim_end(), &machine).map_err(told)
}

/// One run of the test.
struct Job {
    test: &'static str,
    /// Places in the row of seeds.
    from: u64,
    to: u64,
}

/// What it printed.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    histories: u64,
    events: u64,
    kills: u64,
    power_losses: u64,
    violations: u64,
}

fn jobs(wanted: u64, from: u64) -> Vec<Job> {
    let of_class = |class: &Class| {
        let to = from + (wanted * class.share).div_ceil(20 * class.per_seed);
        let test = class.test;
        let starts = (from..to).step_by(CHUNK as usize);
        starts.map(move |from| Job { test, from, to: to.min(from + CHUNK) }).collect::<Vec<_>>()
    };
    // Rules are broken first: a net without fish in it is known at once. It takes as many seeds as it needs.
    let planted = Job { test: PLANTED, from, to: from + 200 };
    std::iter::once(planted).chain(CLASSES.iter().flat_map(of_class)).collect()
}

fn histories(root: &Path, binary: &Path, wanted: u64, from: u64) -> io::Result<Record> {
    let (jobs, next) = (jobs(wanted, from), AtomicUsize::new(0));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let (done, finished) = sync_channel(workers);
    let mut all: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut planted = Vec::new();
    thread::scope(|scope| {
        for _ in 0..workers {
            let (done, jobs, next) = (done.clone(), &jobs, &next);
            scope.spawn(move || {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Nobody listens once one of them could not be run.
                    _ = done.send((job, made(root, binary, job)));
                }
            });
        }
        drop(done);
        for (number, (job, outcome)) in finished.iter().enumerate() {
            let (said, complained) = outcome?;
            if job.test == PLANTED {
                planted = noticed(&said);
                println!("planted bugs: {planted:?}");
                continue;
            }
            let counts = counted(&said).ok_or_else(|| {
                io::Error::other(format!(
                    "{} of {}..{} told no counts\n{complained}",
                    job.test, job.from, job.to
                ))
            })?;
            for seed in repeats(&complained) {
                println!("MILLPOND_SEED={seed} cargo test --test store_sim {}", job.test);
            }
            if counts.violations > 0 {
                println!("{complained}");
            }
            let of_class = all.entry(job.test).or_default();
            of_class.histories += counts.histories;
            of_class.events += counts.events;
            of_class.kills += counts.kills;
            of_class.power_losses += counts.power_losses;
            of_class.violations += counts.violations;
            if number % 20 == 0 {
                let histories: u64 = all.values().map(|counts| counts.histories).sum();
                let violations: u64 = all.values().map(|counts| counts.violations).sum();
                println!("{histories} histories, {violations} violations");
            }
        }
        Ok::<_, io::Error>(())
    })?;
    Ok(recorded(&all, &planted, from))
}

/// What the test said, and what it complained of.
fn made(root: &Path, binary: &Path, job: &Job) -> io::Result<(String, String)> {
    let output = Command::new(binary)
        .args(["--exact", job.test, "--nocapture"])
        .env("MILLPOND_SEEDS", format!("{}..{}", job.from, job.to))
        .env_remove("MILLPOND_SEED")
        .current_dir(root)
        .stdin(Stdio::null())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&output.stdout), text(&output.stderr)))
}

/// The sum over the lines that a test printed, one for each setting of its class.
fn counted(said: &str) -> Option<Counts> {
    let mut all: Option<Counts> = None;
    for line in said.lines() {
        let Some(at) = line.find("histories ") else { continue };
        let number = |what: &str| {
            let part = line[at..].split(", ").find_map(|part| part.strip_prefix(what))?;
            part.trim().parse::<u64>().ok()
        };
        let counts = all.get_or_insert_default();
        counts.histories += number("histories")?;
        counts.events += number("events")?;
        counts.kills += number("kills")?;
        counts.power_losses += number("power losses")?;
        counts.violations += number("violations")?;
    }
    all
}

/// The seeds of histories that went wrong.
fn repeats(complained: &str) -> impl Iterator<Item = &str> {
    let lines = complained.lines().filter_map(|line| line.strip_prefix("MILLPOND_SEED="));
    lines.filter_map(|line| line.split(' ').next())
}

/// The broken rules that were noticed, each with the history that did.
fn noticed(said: &str) -> Vec<(String, u64)> {
    let of_line = |line: &str| {
        let (rule, history) = line.split_once(" is noticed by history Some(")?;
        Some((rule.split(' ').next_back()?.to_owned(), history.strip_suffix(')')?.parse().ok()?))
    };
    said.lines().filter_map(of_line).collect()
}

fn recorded(all: &BTreeMap<&str, Counts>, planted: &[(String, u64)], from: u64) -> Record {
    let mut record = Record::new(
        "soak-sim",
        "Simulated histories",
        "Shows that the store keeps what it acknowledged, and serves nothing else, through thousands of random \
         histories on a simulated disk that writes short, tears, reorders, forgets, errs and runs full.",
    );
    for (test, counts) in all {
        record.round(
            &test.replace('_', " "),
            0,
            &[
                ("histories", "histories", counts.histories as f64),
                ("violations", "histories", counts.violations as f64),
                ("events", "events", counts.events as f64),
                ("kills", "crashes", counts.kills as f64),
                ("power losses", "crashes", counts.power_losses as f64),
            ],
        );
    }
    for (rule, history) in planted {
        record.round(
            &format!("planted: {rule}"),
            0,
            &[("noticed by history number", "", *history as f64 + 1.0)],
        );
    }
    let total: u64 = all.values().map(|counts| counts.histories).sum();
    record.remark(format!(
        "{total} histories, those of the row of seeds from place {from} on in every class. A history is four lives of \
         a data directory with 1 to 3 shards: four users, two late readers, checkpoints; each life ends by a kill or a \
         power loss at a random event."
    ));
    record.remark(
        "An event is one thing that the seed chose among all that could happen: a poll of a task, a turn, a timer, a \
         job, a sync that completes. Built with optimization and with every assertion.",
    );
    record.checked(
        "after every crash: each name stands for what was acknowledged or may have been decided, its bytes are those \
         that its epochs appended, from a beginning that was asked for, with the end that was acknowledged",
    );
    record.checked("late readers got the bytes that were there when they were sent");
    record.checked("of planted bugs, that a history notices each");
    record.largest_at_most("", "violations", 0.0);
    let missed = PLANTED_COUNT.saturating_sub(planted.len());
    record.hold_value("planted bugs that nothing noticed".into(), missed as f64, Bound::AtMost(0.0), "bugs");
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_histories_are_shared_out() {
        assert_eq!(CLASSES.iter().map(|class| class.share).sum::<u64>(), 20);
        let jobs = jobs(20_000, 7);
        let per_seed = |job: &Job| CLASSES.iter().find(|class| class.test == job.test).map(|it| it.per_seed);
        let sum: u64 = jobs.iter().filter_map(|job| Some((job.to - job.from) * per_seed(job)?)).sum();
        assert_eq!(sum, 20_000);
        assert!(jobs.iter().all(|job| job.from >= 7 && job.from < job.to));
    }

    #[test]
    fn counts_are_those_of_all_lines() {
        let said = "running 1 test\ntest a ... histories 2, events 30, kills 4, power losses 5, violations 0\n\
                    histories 1, events 2, kills 3, power losses 4, violations 1\nok\n";
        let sum = Counts { histories: 3, events: 32, kills: 7, power_losses: 9, violations: 1 };
        assert_eq!(counted(said), Some(sum));
        assert_eq!(counted("running 0 tests\n"), None);
    }

    #[test]
    fn what_was_noticed_and_what_repeats_it_are_read() {
        let said = "running 1 test\nA is noticed by history Some(3)\nB is noticed by history None\n\
                    test x ... C is noticed by history Some(0)\n";
        assert_eq!(noticed(said), [("A".to_owned(), 3), ("C".to_owned(), 0)]);
        let complained = "panicked\nMILLPOND_SEED=0x12 cargo test main\nnote\n";
        assert_eq!(repeats(complained).collect::<Vec<_>>(), ["0x12"]);
    }
}

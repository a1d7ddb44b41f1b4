//! `cargo x soak fuzz`: every fuzz target, millions of inputs each, one after the other, and their record.
//!
//! Targets are built once, optimized, with AddressSanitizer and all assertions, and then run directly. What they learn
//! stays in `fuzz/corpus`, so that the next soak goes on from there; what they find in `fuzz/artifacts`. Invariant: a
//! target that ended in any other way than by its number of executions counts as a finding.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use crate::perf::{
    machine::Machine,
    record::{Bound, Record},
};

/// Executions of each target unless told.
const EXECUTIONS: u64 = 10_000_000;

const USAGE: &str = "\
usage: cargo x soak fuzz [--executions N] [--target T]... [--record]
  --executions N   of each target; 10000000 unless told
  --target T       one of `cargo +nightly fuzz list`; all of them unless told
  --record         keep the run in perf/runs instead of target/perf";

/// Runs the targets and keeps what they said.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let Options { executions, targets, record } = read(words)?;
    let command_line = format!("cargo x soak fuzz {}", words.join(" "));
    let told = |why: io::Error| format!("soak fuzz: {why}");
    let targets = if targets.is_empty() { list(root).map_err(told)? } else { targets };
    match &targets[..] {
        [one] => crate::command("cargo", &["+nightly", "fuzz", "build", one])?,
        _ => crate::command("cargo", &["+nightly", "fuzz", "build"])?,
    }
    let machine = Machine::prepare(false).map_err(told)?;
    let kept = fuzz(root, executions, &targets).map_err(told)?;
    kept.keep(root, record, command_line.trim_end(), &machine).map_err(told)
}

#[derive(Debug, PartialEq)]
struct Options {
    executions: u64,
    targets: Vec<String>,
    record: bool,
}

fn read(words: &[&str]) -> Result<Options, String> {
    let mut options = Options { executions: EXECUTIONS, targets: Vec::new(), record: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--executions" => {
                options.executions = words.next().and_then(|value| value.parse().ok()).ok_or(USAGE)?;
            }
            "--target" => options.targets.push((*words.next().ok_or(USAGE)?).to_owned()),
            "--record" => options.record = true,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn list(root: &Path) -> io::Result<Vec<String>> {
    let output = crate::apart("cargo").args(["+nightly", "fuzz", "list"]).current_dir(root).output()?;
    let targets: Vec<String> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect();
    if targets.is_empty() { Err(io::Error::other("cargo-fuzz listed no target")) } else { Ok(targets) }
}

fn fuzz(root: &Path, executions: u64, targets: &[String]) -> io::Result<Record> {
    let mut record = Record::new(
        "soak-fuzz",
        "Fuzz targets",
        "Shows that parsers and decoders keep their promises for millions of inputs each, with AddressSanitizer.",
    );
    let mut findings = 0;
    for target in targets {
        let started = Instant::now();
        let (done, said) = run_one(root, target, executions)?;
        let told = told(&said).filter(|told| done && told.executions >= executions);
        let Some(told) = told else {
            findings += 1;
            println!("{said}");
            record.remark(format!("{target} ended early: `fuzz/artifacts/{target}` has its input."));
            continue;
        };
        let took = started.elapsed().as_secs_f64();
        record.round(
            target,
            0,
            &[
                ("executions", "executions", told.executions as f64),
                ("executions per second", "1/s", told.executions as f64 / took),
                ("coverage", "edges", told.edges as f64),
                ("features", "features", told.features as f64),
                ("inputs kept", "inputs", told.corpus as f64),
                ("peak memory", "MiB", told.peak_mib as f64),
                ("time", "s", took),
            ],
        );
    }
    record.remark(format!(
        "{executions} executions of each target on one core, from the seeds in `fuzz/seeds` and what earlier runs kept in \
         `fuzz/corpus`; with AddressSanitizer, debug assertions and overflow checks."
    ));
    record
        .checked("what each target asserts, and that no memory error, leak, timeout or exhaustion ended it");
    record.hold_value("findings".into(), f64::from(findings), Bound::AtMost(0.0), "findings");
    Ok(record)
}

/// Whether the target went to its end, and what it said.
fn run_one(root: &Path, target: &str, executions: u64) -> io::Result<(bool, String)> {
    let fuzz = root.join("fuzz");
    let (corpus, artifacts) = (fuzz.join("corpus").join(target), fuzz.join("artifacts").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let binary = fuzz.join("target").join(host()?).join("release").join(target);
    let output = Command::new(binary)
        .args([&corpus, &fuzz.join("seeds").join(target)])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-runs={executions}"))
        .args(["-print_final_stats=1", "-timeout=10"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// The target triple that cargo-fuzz builds for unless told.
fn host() -> io::Result<String> {
    let output = Command::new("rustc").args(["+nightly", "-vV"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| io::Error::other("rustc does not say its host"))
}

/// What a target says at its end.
#[derive(Debug, PartialEq)]
struct Told {
    executions: u64,
    edges: u64,
    features: u64,
    corpus: u64,
    peak_mib: u64,
}

fn told(said: &str) -> Option<Told> {
    let stat = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse().ok()
    };
    let last = said.lines().rfind(|line| line.starts_with('#') && line.contains("DONE"))?;
    let of_last = |name: &str| {
        let mut words = last.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()?.split('/').next()?.parse().ok()
    };
    Some(Told {
        executions: stat("number_of_executed_units")?,
        edges: of_last("cov:")?,
        features: of_last("ft:")?,
        corpus: of_last("corp:")?,
        peak_mib: stat("peak_rss_mb")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_says_at_its_end_is_read() {
        let said = "#2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                    #1000\tDONE   cov: 120 ft: 340 corp: 56/789b lim: 4096 exec/s: 500 rss: 61Mb\nDone 1000 runs\n\
                    stat::number_of_executed_units: 1000\nstat::average_exec_per_sec:     500\n\
                    stat::peak_rss_mb:              61\n";
        let end = Told { executions: 1000, edges: 120, features: 340, corpus: 56, peak_mib: 61 };
        assert_eq!(told(said), Some(end));
        assert_eq!(told("SUMMARY: AddressSanitizer: heap-buffer-overflow"), None);
    }

    #[test]
    fn targets_are_those_that_are_named() {
        let options = read(&["--target", "range", "--executions", "5", "--target", "chunked"]);
        let targets = vec!["range".to_owned(), "chunked".to_owned()];
        assert_eq!(options, Ok(Options { executions: 5, targets, record: false }));
        assert!(read(&["--target"]).is_err() && read(&["fast"]).is_err());
    }
}

//! The task runner: `cargo x TASK`. Each task is a few commands, so that people and CI run the same ones.

mod bodies;
mod built;
mod chaos;
mod churn;
mod cpu;
mod crash;
mod daemon;
mod damage;
mod full_disk;
mod fuzz;
mod http;
mod numbers;
mod perf;
mod sim;
mod soak;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

const USAGE: &str = "\
usage: cargo x TASK
  ci [STEP...]      everything that must hold before a change lands, or these steps of it
  test              the whole test suite
  tidy              format, lints and the rules of the tree
  smoke             one round over a release daemon: write, read, kill -9, start again, read again
  soak [MINUTES]    the same under random sizes and kills, 10 minutes unless told
  soak crash        the crash test with 2,000 kills, and its record
  soak churn [GIB]  streams that come and go, many times what may be there at once, and its record
  soak blobs        the one of objects, with 1,000
  soak output       the ones of process output, with 200
  soak sim          20,000 simulated histories of the store, and their record
  soak ion          the one of commits of modules, with 200
  soak chaos        nodes of a service that are slow, go and come back, 30 turns, and its record
  soak bodies       bodies of many GiB, and the memory that they take, and its record
  soak damage       500 flipped bits and 100 cut files, each verified, served and repaired, and its record
  soak fuzz         10,000,000 inputs for each fuzz target, and their record
  soak full-disk    a disk that runs full at 200 places, and one that fails at 40, and their record
  perf list         the measured scenarios and their options
  perf SCENARIO     measures one over a release daemon";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    match words {
        ["ci", steps @ ..] => command(".ci/run", steps),
        ["test"] => command("cargo", &["test"]),
        ["tidy"] => {
            command("cargo", &["fmt", "--all", "--check"])?;
            command("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
            command("cargo", &["test", "--test", "tidy"])
        }
        ["smoke"] => {
            command("cargo", &["build", "--release"])?;
            soak::rounds(&root(), Duration::ZERO).map_err(|why| why.to_string())
        }
        ["soak"] => run(&["soak", "10"]),
        ["soak", "churn", words @ ..] => churn::run(&root(), words),
        ["soak", "crash", words @ ..] => crash::run(&root(), &crash::STREAMS, words),
        ["soak", "blobs", words @ ..] => crash::run(&root(), &crash::BLOBS, words),
        ["soak", "output", words @ ..] => crash::run(&root(), &crash::OUTPUT, words),
        ["soak", "sim", words @ ..] => sim::run(&root(), words),
        ["soak", "fuzz", words @ ..] => fuzz::run(&root(), words),
        ["soak", "full-disk", words @ ..] => full_disk::run(&root(), words),
        ["soak", "ion", words @ ..] => crash::run(&root(), &crash::COMMITS, words),
        ["soak", "chaos", words @ ..] => chaos::run(&root(), words),
        ["soak", "bodies", words @ ..] => bodies::run(&root(), words),
        ["soak", "damage", words @ ..] => damage::run(&root(), words),
        ["soak", minutes] => {
            let minutes: u64 = minutes.parse().map_err(|_| format!("{minutes:?} is no number of minutes"))?;
            command("cargo", &["build", "--release"])?;
            soak::rounds(&root(), Duration::from_secs(60 * minutes)).map_err(|why| why.to_string())
        }
        ["perf", "list"] => {
            perf::list();
            Ok(())
        }
        ["perf", name, words @ ..] => perf::measure(&root(), name, words),
        _ => Err(USAGE.into()),
    }
}

fn command(program: &str, words: &[&str]) -> Result<(), String> {
    let status = apart(program).args(words).current_dir(root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` ended with {status}", words.join(" "))),
        Err(why) => Err(format!("`{program}` did not start: {why}")),
    }
}

/// A command that knows nothing of the package that cargo runs here. Build scripts look at what cargo says of itself:
/// told of this package they would run again, and all that depends on them be built again, in turn with builds from a shell.
fn apart(program: &str) -> Command {
    let mut command = Command::new(program);
    let of_cargo = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(of_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}

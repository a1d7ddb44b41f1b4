//! The task runner: `cargo x TASK`. Each task is a few commands, so that people and CI run the same ones.

mod daemon;
mod soak;

use std::{
    env, fs, io,
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
  perf list         the measured scenarios";

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
        ["soak", minutes] => {
            let minutes: u64 = minutes.parse().map_err(|_| format!("{minutes:?} is no number of minutes"))?;
            command("cargo", &["build", "--release"])?;
            soak::rounds(&root(), Duration::from_secs(60 * minutes)).map_err(|why| why.to_string())
        }
        ["perf", "list"] => perf_list(&root().join("perf/scenarios")).map_err(|why| why.to_string()),
        _ => Err(USAGE.into()),
    }
}

fn command(program: &str, words: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(words).current_dir(root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` ended with {status}", words.join(" "))),
        Err(why) => Err(format!("`{program}` did not start: {why}")),
    }
}

/// One line per scenario: its file name and the first line of its text.
fn perf_list(folder: &Path) -> io::Result<()> {
    let mut scenarios: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(why) => return Err(why),
    };
    scenarios.sort();
    for scenario in &scenarios {
        let text = fs::read_to_string(scenario)?;
        let title = text.lines().find(|line| line.starts_with("# ")).unwrap_or_default();
        println!(
            "{:24} {}",
            scenario.file_stem().unwrap_or_default().display(),
            title.trim_start_matches("# ")
        );
    }
    println!("{} scenarios in {}", scenarios.len(), folder.display());
    Ok(())
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}

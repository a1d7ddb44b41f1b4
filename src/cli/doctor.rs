//! `millpond doctor`: whether `serve` would start here and be well, and what to do where not.
//!
//! A *fail* is what `serve` refuses or what would break a promise, a *warn* what works less well or less safely
//! than it could. Invariant: binds nothing; what is written to try the disk has no name or is gone before the
//! report, and the data directory is not made. Exit code 0 when nothing failed, 1 when something did, 78 for a
//! bad configuration. Runs on the main thread.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::DoctorArgs;
use crate::codec::time::Rfc3339;
use crate::config::{Config, Diagnostics, Sources};

mod data_dir;
mod file_system;
mod host;

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; a sentence without its full stop. None when all is well.
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Check { name, verdict: Verdict::Ok, found: found.into(), fix: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Check { name, verdict: Verdict::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Check { name, verdict: Verdict::Fail, found: found.into(), fix: Some(fix.into()) }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        })
    }
}

/// Prints one line per check.
pub fn run(args: DoctorArgs) -> ExitCode {
    let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
    let sources = Sources::new(args.config)
        .with_env(std::env::vars_os())
        .with_flag("--data-dir", "data_dir", &one(&args.data_dir))
        .with_flag("--shards", "shards", &one(&args.shards));
    let loaded = match Config::load(&sources) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            eprintln!("{diagnostics}");
            return ExitCode::from(Diagnostics::EXIT_CODE);
        }
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let checks = examine(&loaded.config);
    let text = if args.json { json(&checks) } else { lines(&checks) };
    let written = io::stdout().write_all(text.as_bytes());
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    match failed || written.is_err() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn examine(config: &Config) -> Vec<Check> {
    let mut checks = host::examine(config);
    checks.extend(data_dir::examine(config));
    checks
}

fn lines(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, verdict, found, fix } in checks {
        let _ = write!(text, "{name:width$}  {verdict:4}  {found}");
        let _ = match fix {
            Some(fix) => writeln!(text, ": {fix}"),
            None => writeln!(text),
        };
    }
    text
}

/// `{"failed":0,"warnings":1,"checks":[{"name":"…","verdict":"ok","found":"…","fix":null},…]}`
fn json(checks: &[Check]) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let listed: Vec<_> = checks
        .iter()
        .map(|Check { name, verdict, found, fix }| {
            serde_json::json!({ "name": name, "verdict": verdict.to_string(), "found": found, "fix": fix })
        })
        .collect();
    let report = serde_json::json!({
        "failed": count(Verdict::Fail),
        "warnings": count(Verdict::Warn),
        "checks": listed,
    });
    format!("{report}\n")
}

/// A number of bytes for people: the largest unit of which there is at least one, with one decimal.
fn bytes(count: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / unit as f64),
        None => format!("{count} B"),
    }
}

/// A time of day in UTC, to the millisecond.
fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Rfc3339::at_ms(since.as_millis().try_into().unwrap_or(u64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_per_check_with_its_fix() {
        let checks = [Check::ok("kernel", "6.12"), Check::fail("open files", "too few", "raise them")];
        assert_eq!(lines(&checks), "kernel      ok    6.12\nopen files  fail  too few: raise them\n");
        let report: serde_json::Value = serde_json::from_str(&json(&checks)).expect("JSON");
        assert_eq!((&report["failed"], &report["warnings"]), (&1.into(), &0.into()));
        assert_eq!(report["checks"][0]["fix"], serde_json::Value::Null);
        assert_eq!(report["checks"][1]["verdict"], "fail");
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (320 << 20, "320.0 MiB"), (3 << 40, "3.0 TiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }
}

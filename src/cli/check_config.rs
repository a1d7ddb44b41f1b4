//! `millpond check-config`: what `serve` would say about file, environment and the certificates they name, without
//! serving; or what the configuration of another server is here.
//!
//! Invariant: binds nothing and writes nothing but its report.
//! Runs on the main thread.

use std::io::{self, Write};
use std::process::ExitCode;

use super::args::CheckConfigArgs;
use super::import;
use crate::config::{Config, Diagnostics, Loaded, Sources};
use crate::daemon::certificates::Keyring;

/// Prints `ok` and what is set where, or every mistake and exits with 78; or a translation.
pub fn run(args: CheckConfigArgs) -> ExitCode {
    if let Some(file) = &args.import_vblob {
        return import::vblob(file);
    }
    if let Some(file) = &args.import_loom {
        return import::loom(file);
    }
    let sources = Sources::new(args.config).with_env(std::env::vars_os());
    let checked =
        Config::load(&sources).and_then(|loaded| Keyring::load(&loaded.config).map(|_certificates| loaded));
    match checked {
        Ok(loaded) => match report(&loaded) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(diagnostics) => {
            eprintln!("{diagnostics}");
            ExitCode::from(Diagnostics::EXIT_CODE)
        }
    }
}

/// Names keys and places only: a value may be a secret.
fn report(loaded: &Loaded) -> io::Result<()> {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let mut out = io::stdout().lock();
    let settings = loaded.config.settings();
    match settings.len() {
        0 => writeln!(out, "ok, every value is the default")?,
        1 => writeln!(out, "ok, 1 value differs from the default")?,
        count => writeln!(out, "ok, {count} values differ from the defaults")?,
    }
    let width = settings.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, origin) in settings {
        writeln!(out, "  {key:width$}  {origin}")?;
    }
    out.flush()
}

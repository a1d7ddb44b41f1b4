//! `millpond completions SHELL`: a completion script on stdout.
//!
//! Invariant: generated from the same grammar that parses the arguments.
//! Runs on the main thread.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};

/// Prints the script.
pub fn run(args: CompletionsArgs) -> ExitCode {
    // Into memory first: the generator panics when stdout is closed early, as by `| head`.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "millpond", &mut script);
    match io::stdout().lock().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millpond completions: stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

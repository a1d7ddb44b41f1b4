//! `millpond tail`: Prints a stream to stdout.

use std::process::ExitCode;

use super::args::TailArgs;

/// Runs the command; this build has no client, and says so.
pub fn run(_args: TailArgs) -> ExitCode {
    eprintln!("millpond tail: this build has no stream client");
    ExitCode::FAILURE
}

//! `millpond pipe`: Sends stdin into a live stream, unbuffered.

use std::process::ExitCode;

use super::args::PipeArgs;

/// Runs the command; this build has no client, and says so.
pub fn run(_args: PipeArgs) -> ExitCode {
    eprintln!("millpond pipe: this build has no stream client");
    ExitCode::FAILURE
}

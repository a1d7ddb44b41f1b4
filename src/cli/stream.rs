//! `millpond stream`: Sends stdin into a live stream and prints the answer.

use std::process::ExitCode;

use super::args::StreamArgs;

/// Runs the command; this build has no client, and says so.
pub fn run(_args: StreamArgs) -> ExitCode {
    eprintln!("millpond stream: this build has no stream client");
    ExitCode::FAILURE
}

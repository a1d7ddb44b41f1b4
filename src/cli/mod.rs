//! The command line: parses the arguments and runs the one command they name.
//!
//! Invariant: exit code 2 is a mistake in the arguments, 78 one in the configuration, 1 anything else.
//! Runs on the main thread, before any shard exists.

use std::process::ExitCode;

use clap::Parser;

pub mod args;
mod pipe;
mod stream;
mod tail;

use args::{Cli, Command};

/// Parses the arguments and runs the command they name.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => crate::daemon::serve(crate::config::Config::default(), args.ready_fd),
        Command::CheckConfig(_) | Command::Completions(_) => {
            eprintln!("millpond: this build has only the stream commands");
            ExitCode::FAILURE
        }
        Command::Pipe(args) => pipe::run(args),
        Command::Stream(args) => stream::run(args),
        Command::Tail(args) => tail::run(args),
    }
}

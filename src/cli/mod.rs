//! The command line: parses the arguments and runs the one command they name.
//!
//! Invariant: exit code 2 is a mistake in the arguments (1 for `stream`, as its original does), 78 one in the
//! configuration, 1 anything else; `verify` has 2 for all that keeps it from checking.
//! Runs on the main thread, before any shard exists.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

pub mod args;
mod check_config;
mod client;
mod completions;
mod doctor;
mod import;
mod ion;
mod micro;
mod pipe;
mod serve;
mod sidecar;
mod stream;
mod subscribe;
mod tail;
mod verify;

use args::{Cli, Command, StreamCli};

/// Parses the arguments and runs the command they name.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if is_stream_tool(&args) {
        return match StreamCli::try_parse_from(args) {
            Ok(cli) => stream::run(cli.args),
            Err(error) => misused(&error, STREAM_MISUSED),
        };
    }
    let misuse = if args.get(1).is_some_and(|name| name == "stream") { STREAM_MISUSED } else { MISUSED };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return misused(&error, misuse),
    };
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Pipe(args) => pipe::run(args),
        Command::Stream(args) => stream::run(args),
        Command::Tail(args) => tail::run(args),
        Command::Ion(args) => ion::run(args),
        Command::Micro(args) => micro::run(&args),
        Command::Completions(args) => completions::run(args),
    }
}

/// A mistake in the arguments.
const MISUSED: u8 = 2;
/// The same for `stream`, whose original says so with 1; scripts may look for that.
const STREAM_MISUSED: u8 = 1;

/// Prints what clap has to say; help and version were asked for and are no mistake.
fn misused(error: &clap::Error, code: u8) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(code) } else { ExitCode::SUCCESS }
}

/// Whether we were started through a link named `stream`, which stands in for loom's own producer.
fn is_stream_tool(args: &[OsString]) -> bool {
    args.first().and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == "stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
        StreamCli::command().debug_assert();
    }

    #[test]
    fn only_the_file_name_makes_the_stream_tool() {
        for (name, expected) in
            [("stream", true), ("/usr/bin/stream", true), ("millpond", false), ("stream2", false)]
        {
            assert_eq!(is_stream_tool(&[OsString::from(name)]), expected, "{name}");
        }
        assert!(!is_stream_tool(&[]));
    }

    #[test]
    fn commands_that_are_not_built_are_not_offered() {
        let names: Vec<String> =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert_eq!(
            names,
            [
                "serve",
                "check-config",
                "doctor",
                "verify",
                "pipe",
                "stream",
                "tail",
                "ion",
                "micro",
                "completions",
            ]
        );
    }
}

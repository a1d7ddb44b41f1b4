//! Parses the command line, runs the mode and says how it went: exit code 0 if every check passed, 1 if one did not
//! or nothing could be measured, 2 for a mistake in the arguments.

use std::process::ExitCode;

use clap::Parser;
use gale::{
    cli::{Args, Command, Load, StreamCommand},
    http,
    report::Report,
    serve, stream,
};

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        Command::Http { load, args } => match args.plan(&load) {
            Ok(plan) => report(&load, http::run(&load, &args, &plan)),
            Err(why) => usage(&why),
        },
        Command::Stream(StreamCommand::Append { load, args }) => match args.plan(&load) {
            Ok(plan) => report(&load, stream::append::run(&load, &args, &plan)),
            Err(why) => usage(&why),
        },
        Command::Stream(StreamCommand::Tail { load, args }) => match args.plan(&load) {
            Ok(plan) => report(&load, stream::tail::run(&load, &args, &plan)),
            Err(why) => usage(&why),
        },
        Command::ServeHttp { serve, body_size, chunked } => {
            let service = serve::http::Http::new(serve.seed, body_size as usize, chunked);
            failure(serve::run(&serve, &service))
        }
    }
}

fn report(load: &Load, outcome: Result<Report, String>) -> ExitCode {
    failure(outcome.and_then(|report| {
        print!("{}", report.table());
        report.keep(load)?;
        match report.is_right() {
            true => Ok(()),
            false => Err("checks failed, see above".into()),
        }
    }))
}

fn failure(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("gale: {why}");
            ExitCode::FAILURE
        }
    }
}

fn usage(why: &str) -> ExitCode {
    eprintln!("gale: {why}");
    ExitCode::from(2)
}

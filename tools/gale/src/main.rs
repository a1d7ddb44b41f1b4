//! Parses the command line, runs the mode and says how it went: exit code 0 if every check passed, 1 if one did not
//! or nothing could be measured, 2 for a mistake in the arguments.

use std::process::ExitCode;

use clap::Parser;
use gale::{
    blob,
    cli::{Args, Command, Load, NatsCommand, Nothing, RedisCommand, StreamCommand, TcpCommand},
    http, nats, redis,
    report::Report,
    serve::{self, raw},
    stamp::Stamps,
    stream, tcp, topic,
};

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Http { load, args } => {
            measure(&load, args.plan(&load), |plan| http::run(&load, &args, plan))
        }
        Command::Blob { load, args } => {
            measure(&load, args.plan(&load), |plan| blob::run(&load, &args, plan))
        }
        Command::Stream(StreamCommand::Append { load, args }) => {
            measure(&load, args.plan(&load), |plan| stream::append::run(&load, &args, plan))
        }
        Command::Stream(StreamCommand::Tail { load, args }) => {
            measure(&load, args.plan(&load), |plan| stream::tail::run(&load, &args, plan))
        }
        Command::Topic { load, args } => {
            measure(&load, args.plan(&load), |plan| topic::run(&load, &args, plan))
        }
        Command::Tcp(TcpCommand::Ping { load, args }) => {
            measure(&load, args.plan(&load), |plan| tcp::ping(&load, &args, plan))
        }
        Command::Tcp(TcpCommand::Sink { load, args }) => {
            measure(&load, args.plan(&load), |plan| tcp::sink(&load, &args, plan))
        }
        Command::Tcp(TcpCommand::Source { load, args }) => {
            measure(&load, args.plan(&load), |plan| tcp::source(&load, &args, plan))
        }
        Command::Nats(NatsCommand::Fanout { load, args }) => {
            measure(&load, args.plan(&load), |plan| nats::core::fanout(&load, &args, plan))
        }
        Command::Nats(NatsCommand::Publish { load, args }) => {
            measure(&load, args.plan(&load), |plan| nats::core::publish(&load, &args, plan))
        }
        Command::Nats(NatsCommand::Jetstream { load, args }) => {
            measure(&load, args.plan(&load), |plan| nats::jetstream::run(&load, &args, plan))
        }
        Command::Redis(RedisCommand::Xadd { load, args }) => {
            measure(&load, args.plan(&load), |plan| redis::run(&load, &args, plan))
        }
        Command::ServeHttp { serve, body_size, chunked } => {
            let service = serve::http::Http::new(serve.seed, body_size as usize, chunked);
            failure(serve::run(&serve, &service))
        }
        Command::Nothing(Nothing::ServeEcho { serve }) => failure(serve::run(&serve, &raw::Echo::new())),
        Command::Nothing(Nothing::ServeSink { serve }) => failure(serve::run(&serve, &raw::Sink::new())),
        Command::Nothing(Nothing::ServeSource { serve, records }) => {
            match Stamps::new(serve.seed, records.record_size as usize) {
                Ok(stamps) => failure(serve::run(&serve, &raw::Source::new(stamps, records.group(false)))),
                Err(why) => usage(&why),
            }
        }
    }
}

/// What the arguments mean is known before anything is measured, so that a mistake in them is told apart.
fn measure<P>(
    load: &Load,
    plan: Result<P, String>,
    run: impl FnOnce(&P) -> Result<Report, String>,
) -> ExitCode {
    match plan {
        Ok(plan) => report(load, run(&plan)),
        Err(why) => usage(&why),
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

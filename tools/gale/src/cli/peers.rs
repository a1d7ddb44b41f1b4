//! The words of the modes for bare sockets and for other servers.
//!
//! Invariant: what contradicts itself is refused before anything is sent, with the words that would be accepted.

use clap::{Subcommand, ValueEnum};

use super::{Load, Serve};
use crate::{report::Report, rpc::Pattern, units};

/// What is done with bare sockets.
#[derive(Debug, Subcommand)]
pub enum TcpCommand {
    /// Send a message, wait for the same to come back
    Ping {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The messages.
        #[command(flatten)]
        args: PingArgs,
    },
    /// Send records as fast as they are taken; the end of the connection acknowledges them
    Sink {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The records.
        #[command(flatten)]
        args: BulkArgs,
    },
    /// Take records as fast as they come from `gale serve-source`, and check them
    Source {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The records.
        #[command(flatten)]
        args: BulkArgs,
    },
}

/// What is done with a NATS server.
#[derive(Debug, Subcommand)]
pub enum NatsCommand {
    /// Readers that follow producers, through plain subjects
    Fanout {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// Both.
        #[command(flatten)]
        args: FanoutArgs,
    },
    /// Producers that publish to plain subjects, acknowledged once at the end
    Publish {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The producers.
        #[command(flatten)]
        args: PublishArgs,
    },
    /// Producers that publish to a JetStream, each message acknowledged
    Jetstream {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The producers.
        #[command(flatten)]
        args: JetstreamArgs,
    },
}

/// What is done with a Redis server.
#[derive(Debug, Subcommand)]
pub enum RedisCommand {
    /// Producers that add to streams with XADD, each record answered
    Xadd {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The producers.
        #[command(flatten)]
        args: XaddArgs,
    },
}

/// The servers that do nothing.
#[derive(Debug, Subcommand)]
pub enum Nothing {
    /// Send everything back: what a round trip costs at least
    ServeEcho {
        /// Where and how long.
        #[command(flatten)]
        serve: Serve,
    },
    /// Take everything and forget it: what receiving costs at least
    ServeSink {
        /// Where and how long.
        #[command(flatten)]
        serve: Serve,
    },
    /// Send records without end: what sending costs at least
    ServeSource {
        /// Where and how long.
        #[command(flatten)]
        serve: Serve,
        /// The records.
        #[command(flatten)]
        records: Records,
    },
}

/// How records are made.
#[derive(Clone, Debug, clap::Args)]
pub struct Records {
    /// Bytes of a record, with its stamp of 32
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = units::size)]
    pub record_size: u64,
    /// Bytes of records that are written together [default: 64KiB, or one record if there is a rate]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub write_size: Option<u64>,
}

impl Records {
    /// How many are written together.
    pub fn group(&self, is_paced: bool) -> usize {
        let write_size = self.write_size.unwrap_or(if is_paced { self.record_size } else { 64 << 10 });
        (write_size / self.record_size).max(1) as usize
    }

    /// Tells how they were made.
    pub fn say(&self, report: &mut Report, rate: Option<u64>) {
        report.say("record", format!("{} B", self.record_size));
        report.say("records per write", self.group(rate.is_some()));
        report.say("rate", rate.map_or("as fast as taken".into(), |rate| format!("{rate}/s")));
    }
}

/// How requests are spread.
#[derive(Clone, Debug, clap::Args)]
pub struct Spread {
    /// Requests a second, each measured from the time it was due; without it, as fast as answers come
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub rate: Option<u64>,
}

impl Spread {
    /// Over these connections, with so many under way on each.
    pub fn pattern(&self, load: &Load, connections: u64, depth: u32) -> Result<Pattern, String> {
        if connections < load.threads as u64 {
            return Err(format!("{connections} connections are too few for {} threads", load.threads));
        }
        Ok(Pattern { connections, depth, rate: self.rate })
    }
}

/// The messages of `gale tcp ping`.
#[derive(Clone, Debug, clap::Args)]
pub struct PingArgs {
    /// host:port of a server that sends back what it gets, such as gale serve-echo
    pub address: String,
    /// Connections of all threads together
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub connections: u64,
    /// Messages under way on each connection
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub pipeline: u32,
    /// Bytes of a message
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = units::size)]
    pub size: u64,
    /// When.
    #[command(flatten)]
    pub spread: Spread,
}

/// The records of `gale tcp sink` and `source`.
#[derive(Clone, Debug, clap::Args)]
pub struct BulkArgs {
    /// host:port
    pub address: String,
    /// Connections of all threads together
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub connections: u64,
    /// What they carry.
    #[command(flatten)]
    pub records: Records,
}

/// The readers of `gale nats fanout`, and what they follow.
#[derive(Clone, Debug, clap::Args)]
pub struct FanoutArgs {
    /// host:port
    pub address: String,
    /// Readers of all subjects together
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub readers: u64,
    /// Subjects, each with a producer of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub subjects: u64,
    /// Records a second of all subjects together
    #[arg(long, value_name = "N", default_value = "1000", value_parser = units::count)]
    pub rate: u64,
    /// What they carry.
    #[command(flatten)]
    pub records: Records,
}

/// The producers of `gale nats publish`.
#[derive(Clone, Debug, clap::Args)]
pub struct PublishArgs {
    /// host:port
    pub address: String,
    /// Producers, each with a subject of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub producers: u64,
    /// Records a second of all together; without it, as fast as they are taken
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub rate: Option<u64>,
    /// What they carry.
    #[command(flatten)]
    pub records: Records,
}

/// The producers of `gale nats jetstream`.
#[derive(Clone, Debug, clap::Args)]
pub struct JetstreamArgs {
    /// host:port
    pub address: String,
    /// Producers, each with a subject of its own in one stream
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub producers: u64,
    /// Messages that wait for their acknowledgement, of each producer
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub window: u32,
    /// Where the server keeps the stream
    #[arg(long, value_enum, default_value = "file")]
    pub storage: Storage,
    /// Bytes of a record, with its stamp of 32
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = units::size)]
    pub record_size: u64,
    /// When.
    #[command(flatten)]
    pub spread: Spread,
}

/// Where a JetStream is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Storage {
    /// In files
    File,
    /// In memory
    Memory,
}

/// The producers of `gale redis xadd`.
#[derive(Clone, Debug, clap::Args)]
pub struct XaddArgs {
    /// host:port
    pub address: String,
    /// Producers, each with a stream of its own that is deleted before
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub producers: u64,
    /// Records under way of each producer
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub pipeline: u32,
    /// Streams are called NAME-0, NAME-1 and so on
    #[arg(long, value_name = "NAME", default_value = "gale")]
    pub name: String,
    /// Bytes of a record, with its stamp of 32
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = units::size)]
    pub record_size: u64,
    /// When.
    #[command(flatten)]
    pub spread: Spread,
}

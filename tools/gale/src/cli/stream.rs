//! The words of `gale stream`.
//!
//! Invariant: what contradicts itself is refused before anything is sent, with the words that would be accepted.

use std::time::Duration;

use clap::ValueEnum;

use super::peers::Records;
use crate::{stamp::Stamps, units};

/// What streams are made of.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Streams")]
pub struct StreamArgs {
    /// http://host:port
    pub url: String,
    /// Streams are called NAME-0, NAME-1 and so on, and replace those that are called so
    #[arg(long, value_name = "NAME", default_value = "gale")]
    pub name: String,
    /// What they carry.
    #[command(flatten)]
    pub records: Records,
    /// A bearer token
    #[arg(long, value_name = "TEXT")]
    pub token: Option<String>,
}

impl StreamArgs {
    /// The records.
    pub fn stamps(&self, seed: u64) -> Result<Stamps, String> {
        Stamps::new(seed, self.records.record_size as usize).map_err(|why| format!("--record-size: {why}"))
    }
}

/// The producers of `gale stream append`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Producers")]
pub struct AppendArgs {
    /// What they write.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// Producers, each with a stream of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub producers: u64,
    /// Records a second of all together; without it, as fast as they are taken
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub rate: Option<u64>,
    /// Bytes of records of all together, instead of --duration
    #[arg(long, value_name = "SIZE", value_parser = units::size, conflicts_with = "duration")]
    pub bytes: Option<u64>,
    /// How the length of a body is told
    #[arg(long, value_enum, default_value = "chunked")]
    pub framing: Framing,
    /// Each producer waits until a record is durable before it sends the next
    #[arg(long, value_name = "HOW", value_enum, conflicts_with_all = ["rate", "write_size"])]
    pub synced: Option<Synced>,
    /// Ask so often how much is durable, which measures the commit latency
    #[arg(long, value_name = "TIME", value_parser = units::period)]
    pub poll_durable: Option<Duration>,
    /// The server acknowledges from the page cache, so a stream may be complete before all of it is durable
    #[arg(long, conflicts_with_all = ["synced", "poll_durable"])]
    pub cached: bool,
    /// Afterwards read everything and check every record
    #[arg(long)]
    pub read_back: bool,
}

/// How the length of a body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Framing {
    /// Piece by piece
    Chunked,
    /// At the beginning; needs --bytes
    Length,
}

/// How a producer knows that its record is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Synced {
    /// Each record is a stream; the end of the answer is the promise
    Streams,
    /// All are one stream; a second connection asks for the durable offset
    Durable,
}

/// How often the durable offset is asked for if nobody says.
const POLL: Duration = Duration::from_micros(200);

impl AppendArgs {
    /// How often to ask what is durable, in nanoseconds.
    pub fn poll_nanos(&self) -> Option<u64> {
        let waits = self.synced == Some(Synced::Durable);
        self.poll_durable.or(waits.then_some(POLL)).map(|poll| poll.as_nanos() as u64)
    }

    /// How many records are written together.
    pub fn group(&self) -> usize {
        if self.synced.is_some() { 1 } else { self.stream.records.group(self.rate.is_some()) }
    }

    /// Refuses what contradicts itself.
    pub fn check(&self, requests: Option<u64>, threads: usize) -> Result<(), String> {
        let streams = self.synced == Some(Synced::Streams);
        if requests.is_some() && !streams {
            return Err("--requests counts answers; how much is written is said by --bytes".into());
        }
        if streams && (self.bytes.is_some() || self.poll_durable.is_some()) {
            return Err("with --synced streams say --requests or --duration; nothing is polled".into());
        }
        if streams && self.read_back && threads > 1 && requests.is_none() {
            return Err(
                "which streams several threads made in a time is not known: --read-back with --synced \
                        streams needs --requests or --threads 1"
                    .into(),
            );
        }
        if self.framing == Framing::Length && (self.bytes.is_none() || self.synced.is_some()) {
            return Err("--framing length needs --bytes and no --synced".into());
        }
        if self.bytes.is_some_and(|bytes| bytes < self.producers * self.stream.records.record_size) {
            return Err("--bytes has no room for a record of each producer".into());
        }
        Ok(())
    }
}

/// The readers of `gale stream tail`, and what they follow.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Readers")]
pub struct TailArgs {
    /// What they read.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// Readers of all streams together
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub readers: u64,
    /// Streams, each with a producer of its own
    #[arg(long, visible_alias = "producers", value_name = "N", default_value = "1", value_parser = units::count)]
    pub streams: u64,
    /// Records a second of all streams together
    #[arg(long, value_name = "N", default_value = "1000", value_parser = units::count)]
    pub rate: u64,
}

impl TailArgs {
    /// Refuses what contradicts itself.
    pub fn check(&self, requests: Option<u64>) -> Result<(), String> {
        if requests.is_some() {
            return Err("how long records are sent is said by --duration, not --requests".into());
        }
        if self.readers < self.streams {
            return Err(format!("{} readers are too few for {} streams", self.readers, self.streams));
        }
        Ok(())
    }
}

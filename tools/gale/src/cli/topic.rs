//! The words of `gale topic`.
//!
//! Invariant: what contradicts itself is refused before anything is sent, with the words that would be accepted.

use clap::ValueEnum;

use super::{Load, peers::Records};
use crate::units;

/// The readers of `gale topic`, and what they follow.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Topics")]
pub struct TopicArgs {
    /// host:port
    pub address: String,
    /// What the server is
    #[arg(long, value_enum)]
    pub speaks: Speaks,
    /// Readers of all topics together, each a websocket
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub readers: u64,
    /// Topics, each with a producer of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    pub topics: u64,
    /// Records a second of all topics together, whatever the readers do
    #[arg(long, value_name = "N", value_parser = units::count, conflicts_with = "window")]
    pub rate: Option<u64>,
    /// Records that a topic is ahead of the slowest of its readers at most, and as fast as that allows
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub window: Option<u64>,
    /// What they carry.
    #[command(flatten)]
    pub records: Records,
}

/// Servers that have topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Speaks {
    /// The broker of micro: POST and websocket at /broker?topic=NAME
    Micro,
    /// Nchan in nginx: POST to /pub/NAME, websocket at /sub/NAME
    Nchan,
    /// NATS: its protocol in websockets, for producers too
    Nats,
}

impl Speaks {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Speaks::Micro => "micro",
            Speaks::Nchan => "nchan",
            Speaks::Nats => "nats",
        }
    }

    /// When the server has everything.
    pub fn checked(self) -> &'static str {
        match self {
            Speaks::Micro | Speaks::Nchan => "every POST answered with 2xx",
            Speaks::Nats => "the PING behind the last record answered",
        }
    }
}

impl TopicArgs {
    /// How many records are written together.
    pub fn group(&self) -> usize {
        self.records.group(true)
    }

    /// Refuses what contradicts itself.
    pub fn check(&self, load: &Load) -> Result<(), String> {
        if load.requests.is_some() {
            return Err("how long records are sent is said by --duration, not --requests".into());
        }
        if self.readers < self.topics {
            return Err(format!("{} readers are too few for {} topics", self.readers, self.topics));
        }
        match self.window {
            None if self.rate.is_none() => {
                Err("say --rate N, or --window N for as fast as readers get them".into())
            }
            Some(_) if load.threads > 1 => Err("--window goes only with --threads 1".into()),
            Some(window) if window < self.group() as u64 => {
                Err(format!("--window {window} has no room for the {} records of a write", self.group()))
            }
            _ => Ok(()),
        }
    }
}

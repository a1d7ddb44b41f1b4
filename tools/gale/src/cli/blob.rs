//! The words of `gale blob`.
//!
//! Invariant: what contradicts itself is refused before anything is sent, with the words that would be accepted.

use std::{fmt, sync::Arc};

use clap::ValueEnum;

use super::{Load, http::KeyOrder};
use crate::{
    chance::{Chance, Zipf},
    http::request::Keys,
    units,
};

/// The exponent of `--key-order zipf`.
const EXPONENT: f64 = 0.99;

/// The reads and writes of `gale blob`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Blobs")]
pub struct BlobArgs {
    /// http://host:port/container; made first unless it is there
    pub url: String,
    /// Connections of all threads together
    #[arg(long, value_name = "N", default_value = "16", value_parser = units::count)]
    pub connections: u64,
    /// Operations a second, each measured from the time it was due; without it, as fast as answers come
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub rate: Option<u64>,
    /// How many keys there are
    #[arg(long, value_name = "N", default_value = "1000", value_parser = units::count)]
    pub keys: u64,
    /// How keys are chosen
    #[arg(long, value_enum, default_value = "uniform")]
    pub key_order: KeyOrder,
    /// How long blobs are: 64KiB, or 1KiB-1MiB for lengths in between, small ones more often
    #[arg(long, value_name = "SIZES", default_value = "1KiB", value_parser = sizes)]
    pub sizes: Sizes,
    /// Reads among a hundred operations; the others write
    #[arg(long, value_name = "N", default_value = "90", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub read_share: u64,
    /// The container and all keys are there, from an earlier run with the same seed and sizes
    #[arg(long)]
    pub filled: bool,
    /// The container is there
    #[arg(long)]
    pub exists: bool,
    /// Afterwards read every key and check every byte
    #[arg(long)]
    pub read_back: bool,
    /// Sign every request as S3 wants it, version 4, with this key's id
    #[arg(long, value_name = "ID", requires = "secret_key")]
    pub access_key: Option<String>,
    /// The secret of that key
    #[arg(long, value_name = "TEXT", requires = "access_key")]
    pub secret_key: Option<String>,
    /// The region that signatures name
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    pub region: String,
    /// Whether signatures cover bodies
    #[arg(long, value_enum, default_value = "unsigned")]
    pub payload: Payload,
    /// Upload what is longer in parts of this size
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub parts: Option<u64>,
}

/// From how long to how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes(pub (u64, u64));

/// Whether signatures cover bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Payload {
    /// They do not
    Unsigned,
    /// They cover the SHA-256 of each
    Signed,
}

impl Payload {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Payload::Unsigned => "bodies unsigned",
            Payload::Signed => "the SHA-256 of bodies signed",
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            (least, most) if least == most => write!(f, "{least} B"),
            (least, most) => write!(f, "{least} to {most} B"),
        }
    }
}

impl BlobArgs {
    /// How keys are chosen.
    pub fn keys(&self) -> Keys {
        // Each thread gets its own chance and its own place in the sequence.
        let chance = Chance::new(0, 0);
        match self.key_order {
            KeyOrder::Uniform => Keys::Uniform(self.keys, chance),
            KeyOrder::Sequence => Keys::Sequence(self.keys, 0, 1),
            KeyOrder::Zipf => Keys::Zipf(self.keys, Arc::new(Zipf::new(self.keys, EXPONENT)), chance),
        }
    }

    /// Refuses what contradicts itself.
    pub fn check(&self, load: &Load) -> Result<(), String> {
        if self.connections < load.threads as u64 {
            return Err(format!("{} connections are too few for {} threads", self.connections, load.threads));
        }
        if self.payload == Payload::Signed && self.access_key.is_none() {
            return Err("--payload signed needs --access-key and --secret-key".into());
        }
        if self.parts == Some(0) {
            return Err("--parts: write a size from 1 on".into());
        }
        Ok(())
    }
}

fn sizes(text: &str) -> Result<Sizes, String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let sizes = (units::size(least)?, units::size(most)?);
    match sizes {
        (1.., _) if sizes.0 <= sizes.1 => Ok(Sizes(sizes)),
        _ => Err("write a size from 1 on, such as 64KiB, or two such as 1KiB-1MiB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_or_two() {
        assert_eq!(sizes("64KiB"), Ok(Sizes((65_536, 65_536))));
        assert_eq!(sizes("1KiB-1MiB"), Ok(Sizes((1_024, 1 << 20))));
        for wrong in ["", "0", "2-1", "1-", "x-2", "1-2-3"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
    }
}

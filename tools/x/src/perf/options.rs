//! What may be said about a run on its command line.
//!
//! Invariant: a word that is not understood is refused, and the refusal says what would be.

use std::path::PathBuf;

/// The words that every run takes.
pub const USAGE: &str = "\
options of `cargo x perf SCENARIO`:
  --short         seconds instead of minutes: shows that the tool works, proves nothing
  --record        keep the run in perf/runs instead of target/perf; waits for a quiet machine
  --rounds N      rounds of each case
  --seconds N     length of a round (fanout, idle, paired scenarios)
  --case TEXT     only the cases whose names hold this (paired scenarios)
  --bytes SIZE    length of the stream, such as 1GiB (logpipe)
  --names N       how many names there are (restart, list-names)
  --log FILE      log text to send, instead of what the run collects (logpipe)";

/// How a run is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub short: bool,
    pub record: bool,
    pub rounds: Option<u32>,
    pub seconds: Option<u64>,
    pub bytes: Option<u64>,
    pub log: Option<PathBuf>,
    pub case: Option<String>,
    pub names: Option<u64>,
}

impl Options {
    /// Reads the words after the scenario's name.
    pub fn of(words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
            match *word {
                "--short" => options.short = true,
                "--record" => options.record = true,
                "--rounds" => options.rounds = Some(positive(value()?)?),
                "--seconds" => options.seconds = Some(positive(value()?)?.into()),
                "--bytes" => options.bytes = Some(size(value()?)?),
                "--names" => options.names = Some(positive(value()?)?.into()),
                "--log" => options.log = Some(value()?.into()),
                "--case" => options.case = Some(value()?.into()),
                _ => return Err(format!("{word:?} is not understood\n{USAGE}")),
            }
        }
        match options.short && options.record {
            true => Err("a short run is not worth keeping: --short or --record, not both".into()),
            false => Ok(options),
        }
    }

    /// How many rounds, unless told.
    pub fn rounds(&self, full: u32, short: u32) -> u32 {
        self.rounds.unwrap_or(if self.short { short } else { full })
    }

    /// How long a round takes, unless told.
    pub fn seconds(&self, full: u64, short: u64) -> u64 {
        self.seconds.unwrap_or(if self.short { short } else { full })
    }
}

fn positive(word: &str) -> Result<u32, String> {
    match word.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("{word:?} is no whole number above 0")),
    }
}

fn size(word: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let split = units.iter().find_map(|(unit, shift)| Some((word.strip_suffix(unit)?, shift)));
    let bytes = split.and_then(|(number, shift)| number.parse::<u32>().ok().map(|n| u64::from(n) << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("{word:?} is no size such as 64MiB or 1GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_unknown_ones_refused() {
        let options = Options::of(&["--bytes", "64MiB", "--rounds", "3", "--record"]).expect("options");
        assert_eq!((options.bytes, options.rounds, options.record), (Some(64 << 20), Some(3), true));
        for words in
            [&["--rounds"][..], &["--rounds", "0"], &["--bytes", "12"], &["--fast"], &["--short", "--record"]]
        {
            assert!(Options::of(words).is_err(), "{words:?}");
        }
    }
}

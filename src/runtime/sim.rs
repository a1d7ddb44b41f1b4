//! The seeded doubles: virtual shards, a virtual clock, a disk that forgets, a socket that reads late.
//!
//! A [`World`] runs any number of shards on one thread and decides by its seed what happens next; a [`SimDisk`]
//! outlives the worlds that run on it, through kills and power losses. The same seed gives the same history.
//!
//! ```
//! # use millpond::runtime::sim::{SimDisk, World, seeds};
//! # use std::path::Path;
//! for seed in seeds(3) {
//!     let disk = SimDisk::new(seed);
//!     let world = World::new(seed, 2, disk.clone());
//!     world.block_on(0, async {
//!         let disk = millpond::runtime::shard::current().disk().clone();
//!         let file = disk.create(Path::new("log"), 4096)?;
//!         file.write_at(b"kept", 0)?;
//!         file.sync_data().await?;
//!         disk.sync_dir(Path::new("."))
//!     }).unwrap();
//!     let disk = disk.power_loss(world.chance());
//!     assert_eq!(&disk.read(Path::new("log")).unwrap()[..4], b"kept");
//! #   use millpond::runtime::Disk;
//! }
//! ```
//!
//! Lives on: one thread, in tests.

mod content;
mod crash;
mod disk;
mod socket;
mod tree;
mod world;

pub use disk::{Faults, SimDisk};
pub use socket::SimSocket;
pub use world::World;

use super::entropy::Entropy;
use std::ops::Range;

/// The seeds of a test: the first `count` of a row that is always the same. In the environment, `MILLPOND_SEEDS=1000`
/// asks for more (or fewer) of it, `MILLPOND_SEEDS=1000..1100` for those behind the first thousand, and
/// `MILLPOND_SEED=0x5eed` for that one alone.
pub fn seeds(count: usize) -> Vec<u64> {
    if let Some(seed) = from_environment("MILLPOND_SEED", number) {
        return vec![seed];
    }
    let places = from_environment("MILLPOND_SEEDS", places).unwrap_or(0..count);
    let row = Entropy::from_seed(0x6d69_6c6c_706f_6e64);
    (0..places.end).map(|_| row.next()).skip(places.start).collect()
}

/// Places in the row: `100` are the first hundred, `100..200` those behind them.
fn places(text: &str) -> Option<Range<usize>> {
    match text.split_once("..") {
        Some((from, to)) => Some(number(from)? as usize..number(to)? as usize),
        None => Some(0..number(text)? as usize),
    }
}

fn from_environment<T>(key: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let value = std::env::var(key).ok()?;
    Some(
        read(&value)
            .unwrap_or_else(|| panic!("{key}={value} is not understood: 0x5eed and 24301 are numbers")),
    )
}

fn number(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Prints the line that repeats this run, should the test that holds it panic.
pub struct Reproduce(u64);

impl Reproduce {
    /// For a run under `seed`. A [`World`] holds one already.
    pub fn new(seed: u64) -> Self {
        Reproduce(seed)
    }
}

impl Drop for Reproduce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test harness names a test's thread after the test.
            let thread = std::thread::current();
            eprintln!("MILLPOND_SEED={:#x} cargo test {}", self.0, thread.name().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{number, places};

    #[test]
    fn seeds_are_read_as_they_are_printed() {
        assert_eq!(number("0x5eed_2f91"), Some(0x5eed_2f91));
        assert_eq!(number("12"), Some(12));
        assert_eq!(number("twelve"), None);
        assert_eq!((places("40"), places("40..0x30")), (Some(0..40), Some(40..48)));
        assert_eq!((places("40..many"), places("")), (None, None));
    }
}

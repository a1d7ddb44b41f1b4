//! Tables of a start by numbers: of streams, and placement hashes of names.
//!
//! A start looks up millions of them, and the standard hasher would be a good part of its time. Invariant: where a
//! number lies nobody outside can choose, as the seed is the process's own: names come from users, and so do their
//! hashes. Pure values.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// By number.
pub type Numbers<V> = HashMap<u64, V, Seeded>;
/// A set of them.
pub type NumberSet = HashSet<u64, Seeded>;

static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("numbers"));

/// Makes the hashers of this process.
#[derive(Clone, Copy)]
pub struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Seeded(*SEED)
    }
}

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

/// Mixes one number.
pub struct Mixer(u64);

impl Hasher for Mixer {
    fn write_u64(&mut self, number: u64) {
        // The upper half of a product depends on all of both factors, the seed among them.
        let product = u128::from(number ^ self.0) * u128::from(self.0 | 1);
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.0 = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a hasher that leaves numbers which follow each other in few places.
    #[test]
    fn numbers_that_follow_each_other_are_spread() {
        for step in [1u64, 1 << 10, 1 << 34, 1 << 44] {
            let mut low = HashSet::new();
            let mut high = HashSet::new();
            for number in 0..4096u64 {
                let hash = Seeded::default().hash_one(number * step);
                low.insert(hash & 0xfff);
                high.insert(hash >> 52);
            }
            // By chance it is about 2590 of 4096.
            assert!(low.len() > 2000 && high.len() > 2000, "{} and {} at {step}", low.len(), high.len());
        }
    }
}

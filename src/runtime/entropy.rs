//! Chance: seeded random numbers, one generator per shard.
//!
//! Invariant: the same seed gives the same numbers, so a simulated history repeats. Not for secrets, for which there is
//! [`secret`].

use std::cell::Cell;

/// A small fast generator (SplitMix64). Lives on one shard.
pub struct Entropy {
    state: Cell<u64>,
}

/// Bytes that nobody can guess, for keys that live as long as the process.
pub fn secret() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}

impl Entropy {
    /// A generator that repeats itself for the same `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Entropy { state: Cell::new(seed) }
    }

    /// A generator seeded by the operating system.
    pub fn from_system() -> Self {
        let mut seed = [0; 8];
        // A host without a random source still gets distinct streams: the address of a local and the
        // process id differ between shards and starts.
        if getrandom::fill(&mut seed).is_err() {
            seed = (std::process::id() as u64 ^ (&raw const seed as u64)).to_le_bytes();
        }
        Self::from_seed(u64::from_le_bytes(seed))
    }

    /// The next number, uniform over all of `u64`.
    pub fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no number");
        // The bias of multiply-shift is below 2^-32 for every bound used here.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `odds` draws on average.
    pub fn one_in(&self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Entropy;

    #[test]
    fn the_same_seed_repeats() {
        let (one, two) = (Entropy::from_seed(7), Entropy::from_seed(7));
        assert!((0..100).all(|_| one.next() == two.next()));
        assert_ne!(Entropy::from_seed(8).next(), Entropy::from_seed(7).next());
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let chance = Entropy::from_seed(1);
        let mut seen = [0; 6];
        for _ in 0..600 {
            seen[chance.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50));
    }
}

//! What blobs are: for each key a size and bytes, which the seed gives.
//!
//! Invariant: a key has the same bytes for ever, so whoever reads it knows what is right whoever wrote it last; keys of
//! the same size differ, but for a pair in some ten thousands.

use std::{ops::Range, sync::Arc};

use crate::chance::{Chance, mix};

/// Seeds the bytes apart from everything else.
const BYTES: u64 = u64::MAX - 2;
/// Contents begin at so many places of the pool, so many bytes apart.
const PLACES: u64 = 65_536;
const STRIDE: u64 = 8;

/// All blobs of a run.
#[derive(Clone, Debug)]
pub struct Shelf {
    seed: u64,
    sizes: (u64, u64),
    pool: Arc<[u8]>,
}

impl Shelf {
    /// With sizes from one to another, both included.
    pub fn new(seed: u64, sizes: (u64, u64)) -> Self {
        let len = sizes.1 + PLACES * STRIDE;
        Self { seed, sizes, pool: Chance::new(seed, BYTES).bytes(len as usize).into() }
    }

    /// How long a blob is: each power of two between the sizes is as likely as the others.
    pub fn size(&self, key: u64) -> u64 {
        let (least, most) = self.sizes;
        if least == most {
            return least;
        }
        let mut chance = Chance::new(self.seed ^ mix(key), 0);
        let octaves = (most as f64 / least as f64).log2();
        let size = least as f64 * (octaves * chance.unit()).exp2();
        (size as u64).clamp(least, most)
    }

    /// Where its bytes are in the pool.
    pub fn place(&self, key: u64) -> Range<usize> {
        let at = mix(self.seed ^ key) % PLACES * STRIDE;
        at as usize..(at + self.size(key)) as usize
    }

    /// Bytes of the pool.
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.pool[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_every_key_its_size_and_its_bytes() {
        let shelf = |seed| Shelf::new(seed, (1_000, 64_000));
        let content = |seed, key| {
            let shelf = shelf(seed);
            shelf.bytes(shelf.place(key)).to_vec()
        };
        assert_eq!(content(1, 5), content(1, 5));
        assert_ne!(content(1, 5), content(2, 5));
        let sizes: Vec<u64> = (0..6_000).map(|key| shelf(1).size(key)).collect();
        assert!(sizes.iter().all(|size| (1_000..=64_000).contains(size)));
        // Six powers of two, each about as often.
        let below = sizes.iter().filter(|size| **size < 8_000).count();
        assert!((2_800..3_200).contains(&below), "{below}");
    }

    #[test]
    fn keys_of_one_size_differ() {
        let shelf = Shelf::new(3, (40, 40));
        let contents: std::collections::BTreeSet<&[u8]> =
            (0..100).map(|key| shelf.bytes(shelf.place(key))).collect();
        assert!(contents.len() >= 98, "{}", contents.len());
        assert!(contents.iter().all(|content| content.len() == 40));
    }
}

//! How far a producer may be ahead of the slowest of its readers.
//!
//! Invariant: a record is not made before every reader has the one that comes `size` records before it; so what a
//! server holds for a slow reader is bounded by us, and the speed that is measured is the one at which all get all.

use std::ops::Range;

/// The readers of one stream.
#[derive(Clone, Debug)]
pub struct Ahead {
    readers: u64,
    /// How many readers got a record, by its number modulo the size: of all records that ever shared the place.
    got: Vec<u64>,
    /// The first record that somebody has not got.
    base: u64,
}

impl Ahead {
    /// So many records ahead of so many readers.
    pub fn new(size: u64, readers: u64) -> Self {
        assert!(size > 0 && readers > 0, "somebody gets something");
        Self { readers, got: vec![0; size as usize], base: 0 }
    }

    /// One reader got these records, or will never get them.
    pub fn got(&mut self, records: Range<u64>) {
        let size = self.got.len() as u64;
        // What a reader skips beyond that was never made, which is a fault that is known already.
        for record in records.start..records.end.min(self.base + size) {
            self.got[(record % size) as usize] += 1;
        }
        while self.got[(self.base % size) as usize] == self.readers * (self.base / size + 1) {
            self.base += 1;
        }
    }

    /// How many records may have been made.
    pub fn allowed(&self) -> u64 {
        self.base + self.got.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    #[test]
    fn the_slowest_reader_says_how_far() {
        let (mut ahead, mut chance) = (Ahead::new(4, 3), Chance::new(9, 0));
        let mut next = [0u64; 3];
        for _ in 0..10_000 {
            let reader = chance.below(3) as usize;
            let slowest = *next.iter().min().expect("readers");
            assert_eq!(ahead.allowed(), slowest + 4);
            let end = next[reader] + chance.below(ahead.allowed() - next[reader] + 1);
            ahead.got(next[reader]..end);
            next[reader] = end;
        }
        assert!(next.iter().all(|next| *next > 1_000));
    }

    #[test]
    fn what_was_never_made_moves_nothing() {
        let mut ahead = Ahead::new(2, 1);
        ahead.got(0..1_000);
        assert_eq!(ahead.allowed(), 4);
    }
}

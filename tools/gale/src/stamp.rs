//! Records that say when they were sent and that can be checked: what streams are filled with.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | number of the record in its stream, from 0 |
//! | 8–15 | when it was due, nanoseconds of the monotonic clock |
//! | 16–19 | how much later it was handed on, nanoseconds, at most 4.29 s |
//! | 20–23 | number of its producer |
//! | 24–31 | a checksum over all that and the filler |
//! | 32– | filler, which the seed and the number of the record give |
//!
//! All little endian. Invariant: a record that passes is, bit by bit, one that a producer with this seed and size made.

use std::ops::Range;

use crate::chance::{Chance, mix};

/// No record is smaller.
pub const SIZE_MIN: usize = 32;
/// No record is larger.
pub const SIZE_MAX: usize = 64 << 20;
/// Fillers repeat after so many records; each begins so many bytes behind the one before.
const FILLERS: usize = 64;
const STRIDE: usize = 24;
/// Seeds the filler apart from everything else.
const FILLER: u64 = u64::MAX - 1;

/// Makes and checks records of one size.
#[derive(Clone, Debug)]
pub struct Stamps {
    size: usize,
    pool: Vec<u8>,
    /// A checksum of each filler.
    sums: Vec<u64>,
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Its number in its stream.
    pub sequence: u64,
    /// When it was due.
    pub due: u64,
    /// How much later it was handed on.
    pub late: u32,
    /// Who made it.
    pub producer: u32,
}

impl Stamps {
    /// For records of `size` bytes.
    pub fn new(seed: u64, size: usize) -> Result<Self, String> {
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Err(format!("records have {SIZE_MIN} to {SIZE_MAX} bytes, not {size}"));
        }
        let len = size - SIZE_MIN;
        let pool = Chance::new(seed, FILLER).bytes(len + FILLERS * STRIDE);
        let sum = |filler: usize| {
            let bytes = &pool[filler * STRIDE..filler * STRIDE + len];
            mix(u64::from(crc32fast::hash(bytes)) << 32 ^ seed ^ len as u64)
        };
        Ok(Self { size, sums: (0..FILLERS).map(sum).collect(), pool })
    }

    /// The size of every record.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Puts a record at the end of `out`.
    pub fn write(&self, out: &mut Vec<u8>, stamp: Stamp) {
        let mut head = [0; SIZE_MIN];
        head[..8].copy_from_slice(&stamp.sequence.to_le_bytes());
        head[8..16].copy_from_slice(&stamp.due.to_le_bytes());
        head[16..20].copy_from_slice(&stamp.late.to_le_bytes());
        head[20..24].copy_from_slice(&stamp.producer.to_le_bytes());
        head[24..].copy_from_slice(&self.checksum(stamp).to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.pool[self.filler(stamp.sequence)]);
    }

    /// What `record` says, or where it is wrong.
    pub fn read(&self, record: &[u8]) -> Result<Stamp, String> {
        if record.len() != self.size {
            return Err(format!("a record of {} bytes instead of {}", record.len(), self.size));
        }
        let (head, filler) = record.split_at(SIZE_MIN);
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let rest = word(16);
        let stamp =
            Stamp { sequence: word(0), due: word(8), late: rest as u32, producer: (rest >> 32) as u32 };
        if word(24) != self.checksum(stamp) {
            return Err(format!("the stamp of a record that says it is number {}", stamp.sequence));
        }
        let expected = &self.pool[self.filler(stamp.sequence)];
        if filler != expected {
            let same = filler.iter().zip(expected).take_while(|(a, b)| a == b).count();
            return Err(format!("byte {} of record {}", SIZE_MIN + same, stamp.sequence));
        }
        Ok(stamp)
    }

    fn filler(&self, sequence: u64) -> Range<usize> {
        let at = (sequence as usize % FILLERS) * STRIDE;
        at..at + self.size - SIZE_MIN
    }

    fn checksum(&self, stamp: Stamp) -> u64 {
        let sum = self.sums[stamp.sequence as usize % FILLERS] ^ mix(stamp.sequence);
        mix(mix(sum ^ stamp.due) ^ (u64::from(stamp.late) << 32 | u64::from(stamp.producer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp { sequence, due: 77 + sequence, late: 5, producer: 3 }
    }

    fn record(stamps: &Stamps, stamp: Stamp) -> Vec<u8> {
        let mut out = Vec::new();
        stamps.write(&mut out, stamp);
        out
    }

    #[test]
    fn a_record_comes_back_as_it_went() {
        for size in [32, 33, 100, 5000] {
            let stamps = Stamps::new(7, size).expect("a size");
            for sequence in [0, 1, 63, 64, 1_000_000] {
                let record = record(&stamps, stamp(sequence));
                assert_eq!(record.len(), size);
                assert_eq!(stamps.read(&record), Ok(stamp(sequence)));
            }
        }
        assert!(Stamps::new(7, 31).is_err_and(|why| why.contains("32 to")));
    }

    #[test]
    fn every_bit_matters() {
        let stamps = Stamps::new(7, 50).expect("a size");
        let right = record(&stamps, stamp(9));
        for bit in 0..8 * right.len() {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(stamps.read(&wrong).is_err(), "bit {bit}");
        }
        assert!(stamps.read(&right[..49]).is_err());
    }

    #[test]
    fn another_seed_or_a_moved_record_is_found() {
        let stamps = Stamps::new(7, 50).expect("a size");
        assert!(Stamps::new(8, 50).expect("a size").read(&record(&stamps, stamp(9))).is_err());
        let (one, two) = (record(&stamps, stamp(1)), record(&stamps, stamp(2)));
        let crossed = [&one[..SIZE_MIN], &two[SIZE_MIN..]].concat();
        assert!(stamps.read(&crossed).is_err_and(|why| why.starts_with("byte")));
        let shifted = [&one[1..], &two[..1]].concat();
        assert!(stamps.read(&shifted).is_err_and(|why| why.starts_with("the stamp")));
    }
}

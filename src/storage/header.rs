//! The first 4 KiB of every segment file: whose it is, and the generation that its bytes belong to.
//!
//! Little-endian: `magic [8] | version u32 | log u32 | number u32 | generation u32 | crc u32`,
//! where the CRC-32 covers what stands before it. Then, where the file is made at its full length,
//! `len u64 | crc u32`, with a CRC-32 of all before it; zeros there tell no length. Written twice, at 0 and at 2048,
//! so that one bad sector does not cost a segment. Invariant: written once, before the first byte behind it. Pure; runs anywhere.

use super::extent::LogId;

/// Bytes in front of a segment's content.
pub const HEADER: u64 = 4096;

/// The newest format that this release reads and the one it writes. Format 2 knows checkpoints, so that a journal
/// may begin in the middle; format 3 knows streams whose beginning is gone; format 4 knows links;
/// format 5 knows links that hold together.
pub const VERSION: u32 = 5;
/// The oldest format that this release reads.
pub const VERSION_MIN: u32 = 1;

const COPY: usize = 2048;
const LEN: usize = 28;
const LEN_WITH_NOTE: usize = LEN + 12;

/// What a segment file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Records.
    Journal,
    /// Raw bytes.
    Bulk,
    /// Records of a checkpoint: one chunk of one shard's part.
    Checkpoint,
}

impl Kind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Journal => b"MPJRNL\r\n",
            Kind::Bulk => b"MPBULK\r\n",
            Kind::Checkpoint => b"MPCHKP\r\n",
        }
    }
}

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What it holds.
    pub kind: Kind,
    /// Whose it is.
    pub log: LogId,
    /// Its number within the log; never used twice.
    pub number: u32,
    /// Seeds every checksum in a journal segment, and is expected by every extent in a bulk segment. It comes
    /// from a secret of the data directory, so that nobody can send bytes which look like a record.
    pub generation: u32,
}

impl Header {
    /// The 4 KiB as written.
    pub fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(LEN);
        copy.extend_from_slice(self.kind.magic());
        for word in [VERSION, u32::from(self.log.0), self.number, self.generation] {
            copy.extend_from_slice(&word.to_le_bytes());
        }
        copy.extend_from_slice(&crc32fast::hash(&copy).to_le_bytes());
        assert_eq!(copy.len(), LEN);
        let mut page = vec![0; HEADER as usize];
        page[..LEN].copy_from_slice(&copy);
        page[COPY..COPY + LEN].copy_from_slice(&copy);
        page
    }

    /// The 4 KiB of a file that is made `len` bytes long.
    pub fn encode_for(&self, len: u64) -> Vec<u8> {
        let mut page = self.encode();
        for at in [0, COPY] {
            page[at + LEN..at + LEN + 8].copy_from_slice(&len.to_le_bytes());
            let crc = crc32fast::hash(&page[at..at + LEN + 8]);
            page[at + LEN + 8..at + LEN_WITH_NOTE].copy_from_slice(&crc.to_le_bytes());
        }
        page
    }

    /// Reads the first whole copy; `None` when there is none of this kind and version.
    pub fn decode(kind: Kind, page: &[u8]) -> Option<Header> {
        [0, COPY].into_iter().find_map(|at| decode_copy(kind, page.get(at..at + LEN)?))
    }
}

/// How long the file was made, if the first whole copy tells.
pub fn noted_len(page: &[u8]) -> Option<u64> {
    [0, COPY].into_iter().find_map(|at| noted_in(page.get(at..)?))
}

fn noted_in(copy: &[u8]) -> Option<u64> {
    let (told, crc) = copy.get(..LEN_WITH_NOTE)?.split_at(LEN + 8);
    let whole = crc == crc32fast::hash(told).to_le_bytes();
    let len = told[LEN..].try_into().map(u64::from_le_bytes);
    len.ok().filter(|&len| whole && len > 0)
}

/// Which of the two copies are as they were written, given what the header is.
pub fn whole_copies(header: &Header, page: &[u8]) -> [bool; 2] {
    let noted = noted_len(page);
    [0, COPY].map(|at| {
        let copy = page.get(at..).unwrap_or_default();
        let decoded = copy.get(..LEN).and_then(|copy| decode_copy(header.kind, copy));
        // A length that one copy notes, the other does as well.
        decoded.as_ref() == Some(header) && (noted.is_none() || noted_in(copy) == noted)
    })
}

fn decode_copy(kind: Kind, copy: &[u8]) -> Option<Header> {
    let word = |at: usize| Some(u32::from_le_bytes(copy.get(at..at + 4)?.try_into().ok()?));
    let whole = copy.starts_with(kind.magic()) && word(24)? == crc32fast::hash(&copy[..24]);
    if !whole || !(VERSION_MIN..=VERSION).contains(&word(8)?) {
        return None;
    }
    Some(Header {
        kind,
        log: LogId(u16::try_from(word(12)?).ok()?),
        number: word(16)?,
        generation: word(20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a missing second copy, a checksum that covers too little, and a kind that is not compared.
    #[test]
    fn one_flipped_byte_anywhere_costs_nothing_and_two_copies_are_not_mistaken() {
        let header = Header { kind: Kind::Journal, log: LogId(3), number: 7, generation: 99 };
        let page = header.encode();
        assert_eq!(page.len() as u64, HEADER);
        for at in 0..page.len() {
            let mut flipped = page.clone();
            flipped[at] ^= 0x10;
            assert_eq!(Header::decode(Kind::Journal, &flipped), Some(header), "byte {at}");
        }
        for at in 0..LEN {
            let mut flipped = page.clone();
            flipped[at] ^= 0x10;
            flipped[COPY + at] ^= 0x10;
            assert_eq!(Header::decode(Kind::Journal, &flipped), None, "byte {at} of both copies");
        }
        assert_eq!(noted_len(&page), None);
        assert_eq!(Header::decode(Kind::Bulk, &page), None);
        assert_eq!(Header::decode(Kind::Journal, &page[..20]), None);
    }

    /// Catches a length that is lost with one copy, and a flip in a copy that goes unnoticed.
    #[test]
    fn the_length_of_the_file_is_noted_twice_and_every_flip_is_seen() {
        let header = Header { kind: Kind::Bulk, log: LogId(0), number: 1, generation: 5 };
        for page in [header.encode(), header.encode_for(123 << 12)] {
            let len = noted_len(&page);
            assert_eq!(whole_copies(&header, &page), [true, true]);
            for at in 0..page.len() {
                let mut flipped = page.clone();
                flipped[at] ^= 0x02;
                assert_eq!((Header::decode(Kind::Bulk, &flipped), noted_len(&flipped)), (Some(header), len));
                let meant = if len.is_some() { LEN_WITH_NOTE } else { LEN };
                let hit = [0, COPY].map(|copy| !(copy..copy + meant).contains(&at));
                assert_eq!(whole_copies(&header, &flipped), hit, "byte {at}");
            }
        }
        assert_eq!(whole_copies(&header, &[]), [false, false]);
    }
}

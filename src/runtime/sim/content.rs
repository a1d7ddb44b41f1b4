//! The bytes of one simulated file: what readers see, what is on the platter, and what may be on its way there.
//!
//! Every write since the last successful sync leaves a version of each sector that it touched. A power loss
//! picks for each sector on its own: the durable bytes or any version since, in no order between sectors. A
//! failed sync forgets versions and keeps the cache, as the kernel does when it marks the pages clean.
//!
//! Invariant: a sector is dirty exactly when a power loss may still store one of its versions.

use crate::runtime::entropy::Entropy;
use std::collections::BTreeMap;

/// Bytes of a page, the unit in which the cache becomes dirty and a writeback fails.
pub const PAGE: usize = 4096;

/// Bytes of a sector, the unit that a power loss leaves whole.
pub const SECTOR: usize = 512;

const SECTORS: u64 = (PAGE / SECTOR) as u64;

type Page = Box<[u8; PAGE]>;
type Sector = [u8; SECTOR];

/// One file's content. Pages that are missing are zero.
pub struct Content {
    len: u64,
    len_durable: bool,
    cache: BTreeMap<u64, Page>,
    durable: BTreeMap<u64, Page>,
    dirty: BTreeMap<u64, Vec<Version>>,
    writes: u64,
}

/// A sector as one write left it.
struct Version {
    write: u64,
    bytes: Box<Sector>,
}

impl Content {
    /// A file of `len` zeros that no sync has covered yet.
    pub fn zeros(len: u64) -> Self {
        Content {
            len,
            len_durable: false,
            cache: BTreeMap::new(),
            durable: BTreeMap::new(),
            dirty: BTreeMap::new(),
            writes: 0,
        }
    }

    /// The length.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Writes into the cache. The range must lie within the file.
    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        assert!(offset + bytes.len() as u64 <= self.len, "a write beyond the end");
        self.writes += 1;
        for piece in pieces(offset, bytes.len()) {
            let page = self.cache.entry(piece.page).or_insert_with(|| Box::new([0; PAGE]));
            page[piece.within..piece.within + piece.len]
                .copy_from_slice(&bytes[piece.at..piece.at + piece.len]);
            self.dirty_page(piece.page, piece.within, piece.within + piece.len);
        }
    }

    /// A page becomes dirty as a whole: with it go neighbouring bytes that a failed sync had given up.
    fn dirty_page(&mut self, page: u64, from: usize, to: usize) {
        for number in 0..SECTORS {
            let sector = page * SECTORS + number;
            let begin = number as usize * SECTOR;
            let touched = from < begin + SECTOR && begin < to;
            let bytes = sector_of(&self.cache, sector);
            let given_up = !self.dirty.contains_key(&sector) && bytes != sector_of(&self.durable, sector);
            if touched || given_up {
                let version = Version { write: self.writes, bytes: Box::new(bytes) };
                self.dirty.entry(sector).or_default().push(version);
            }
        }
    }

    /// Reads from the cache; fewer bytes than asked only at the end.
    pub fn read(&self, into: &mut [u8], offset: u64) -> usize {
        let len = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        for piece in pieces(offset, len) {
            let into = &mut into[piece.at..piece.at + piece.len];
            match self.cache.get(&piece.page) {
                Some(page) => into.copy_from_slice(&page[piece.within..piece.within + piece.len]),
                None => into.fill(0),
            }
        }
        len
    }

    /// Flips the lowest bit of one byte, in the cache and wherever else it may be stored.
    pub fn damage(&mut self, offset: u64) {
        let (page, within) = (offset / PAGE as u64, offset as usize % PAGE);
        for copy in [&mut self.cache, &mut self.durable] {
            copy.entry(page).or_insert_with(|| Box::new([0; PAGE]))[within] ^= 1;
        }
        for version in self.dirty.get_mut(&(offset / SECTOR as u64)).into_iter().flatten() {
            version.bytes[within % SECTOR] ^= 1;
        }
    }

    /// How many writes there were: what a sync that begins now will cover.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// A sync that covers the first `writes` writes has succeeded.
    pub fn settle(&mut self, writes: u64) {
        self.len_durable = true;
        let sectors: Vec<u64> = self.dirty.keys().copied().collect();
        for sector in sectors {
            if let Some(version) = self.forget(sector, writes) {
                store(&mut self.durable, sector, &version.bytes);
            }
        }
    }

    /// A sync that covers the first `writes` writes has failed: its pages are clean now, and what they held may
    /// have been stored, page by page, or never will be. At least one page is given up.
    pub fn lose(&mut self, writes: u64, chance: &Entropy) {
        let mut pages: Vec<u64> = self.dirty.keys().map(|sector| sector / SECTORS).collect();
        pages.dedup();
        let victim = if pages.is_empty() { 0 } else { pages[chance.below(pages.len() as u64) as usize] };
        for page in pages {
            let stored = page != victim && chance.one_in(3);
            for sector in page * SECTORS..(page + 1) * SECTORS {
                if let Some(version) = self.forget(sector, writes)
                    && stored
                {
                    store(&mut self.durable, sector, &version.bytes);
                }
            }
        }
    }

    /// Takes out the versions of the first `writes` writes and returns the last of them.
    fn forget(&mut self, sector: u64, writes: u64) -> Option<Version> {
        let versions = self.dirty.get_mut(&sector)?;
        let covered = versions.partition_point(|version| version.write <= writes);
        let last = versions.drain(..covered).next_back();
        if versions.is_empty() {
            self.dirty.remove(&sector);
        }
        last
    }

    /// The power fails: of every dirty sector the old bytes or one of its versions remain. `odds` is how many
    /// draws in four keep a version. A file that no sync ever covered may also have lost its length.
    pub fn lose_power(&mut self, odds: u64, chance: &Entropy) {
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if chance.below(4) < odds {
                let version = &versions[chance.below(versions.len() as u64) as usize];
                store(&mut self.durable, sector, &version.bytes);
            }
        }
        if !self.len_durable && chance.one_in(4) {
            self.len = 0;
            self.durable.clear();
        }
        self.len_durable = true;
        self.cache = self.durable.clone();
    }
}

/// A part of a byte range that lies within one page.
struct Piece {
    page: u64,
    /// Where in the page.
    within: usize,
    /// Where in the range.
    at: usize,
    len: usize,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let position = offset + at as u64;
        let (page, within) = (position / PAGE as u64, (position % PAGE as u64) as usize);
        let piece = Piece { page, within, at, len: (PAGE - within).min(len - at) };
        at += piece.len;
        (piece.len > 0).then_some(piece)
    })
}

fn sector_of(pages: &BTreeMap<u64, Page>, sector: u64) -> Sector {
    let begin = (sector % SECTORS) as usize * SECTOR;
    match pages.get(&(sector / SECTORS)) {
        Some(page) => page[begin..begin + SECTOR].try_into().expect("a sector of a page"),
        None => [0; SECTOR],
    }
}

fn store(pages: &mut BTreeMap<u64, Page>, sector: u64, bytes: &Sector) {
    let begin = (sector % SECTORS) as usize * SECTOR;
    let page = pages.entry(sector / SECTORS).or_insert_with(|| Box::new([0; PAGE]));
    page[begin..begin + SECTOR].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::{Content, PAGE, SECTOR};
    use crate::runtime::entropy::Entropy;

    const NEVER: u64 = 0;
    const ALWAYS: u64 = 4;

    fn byte(content: &Content, offset: u64) -> u8 {
        let mut byte = [0];
        assert_eq!(content.read(&mut byte, offset), 1);
        byte[0]
    }

    fn settled(len: usize) -> Content {
        let mut content = Content::zeros(len as u64);
        content.settle(0);
        content
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_and_no_more() {
        let mut content = settled(PAGE);
        content.write(b"a", 0);
        let begun = content.writes();
        content.write(b"b", 0);
        content.write(b"c", SECTOR as u64);
        content.settle(begun);
        assert_eq!(byte(&content, 0), b'b', "readers see the cache");
        content.lose_power(NEVER, &Entropy::from_seed(1));
        assert_eq!((byte(&content, 0), byte(&content, SECTOR as u64)), (b'a', 0));
    }

    #[test]
    fn a_late_sync_does_not_undo_a_later_one() {
        let mut content = settled(PAGE);
        content.write(b"a", 0);
        let first = content.writes();
        content.write(b"b", 0);
        content.settle(content.writes());
        content.settle(first);
        content.lose_power(NEVER, &Entropy::from_seed(1));
        assert_eq!(byte(&content, 0), b'b');
    }

    #[test]
    fn sectors_survive_a_power_loss_each_on_its_own() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut content = settled(PAGE);
            content.write(&[1; 2 * SECTOR], 0);
            content.write(&[2; SECTOR], 0);
            content.lose_power(2, &Entropy::from_seed(seed));
            let (first, second) = (byte(&content, 0), byte(&content, SECTOR as u64));
            assert_eq!(first, byte(&content, SECTOR as u64 - 1), "a sector is never torn");
            outcomes.insert((first, second));
        }
        assert_eq!(outcomes.len(), 6, "old, between and new, times old and new: {outcomes:?}");
    }

    #[test]
    fn a_failed_sync_gives_up_what_readers_still_see() {
        let chance = Entropy::from_seed(1);
        let mut content = settled(2 * PAGE);
        content.write(b"a", 0);
        content.lose(content.writes(), &chance);
        assert_eq!(byte(&content, 0), b'a');
        // Asking again succeeds and stores nothing.
        content.settle(content.writes());
        content.write(b"b", PAGE as u64);
        content.lose_power(ALWAYS, &chance);
        assert_eq!((byte(&content, 0), byte(&content, PAGE as u64)), (0, b'b'));
    }

    #[test]
    fn a_page_dirtied_again_takes_given_up_neighbours_along() {
        let chance = Entropy::from_seed(1);
        let mut content = settled(PAGE);
        content.write(b"a", 0);
        content.lose(content.writes(), &chance);
        content.write(b"b", SECTOR as u64);
        content.settle(content.writes());
        content.lose_power(NEVER, &chance);
        assert_eq!((byte(&content, 0), byte(&content, SECTOR as u64)), (b'a', b'b'));
    }

    #[test]
    fn a_file_that_was_never_synced_may_come_back_empty() {
        let lens: std::collections::BTreeSet<u64> = (0..50)
            .map(|seed| {
                let mut content = Content::zeros(10);
                content.lose_power(ALWAYS, &Entropy::from_seed(seed));
                content.len()
            })
            .collect();
        assert!(lens.into_iter().eq([0, 10]));
    }
}

//! One run of a stream as readers see it: where its bytes lie, how far they go, what they must add up to.
//!
//! Invariant: the bytes of a run never change, only their place does: it moves when a segment is emptied, and is
//! given up when the stream's start passes the run. A reader takes the place and the file handle with it in one
//! step, so what it sends stays good whatever happens to the segment meanwhile.
//! Lives on: all shards; the appender's shard alone fills it, the owner's alone moves it.

use super::super::bulk::segment::Segment;
use super::super::extent::{Extent, WINDOW};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Where the bytes of a run lie.
#[derive(Clone)]
pub struct Place {
    /// The file.
    pub segment: Arc<Segment>,
    /// The file's position of the first byte.
    pub offset: u64,
}

/// A run. See the module.
pub struct Placed {
    /// The stream's position of its first byte.
    pub start: u64,
    /// The epoch it was written in.
    pub epoch: u64,
    place: ArcSwapOption<Place>,
    /// Bytes of it that hold stream bytes.
    len: AtomicU64,
    /// Bytes of the segment that it takes, slack included.
    pub claimed: AtomicU64,
    /// Odd while `len` and the checksums do not fit each other.
    changes: AtomicU64,
    windows: Box<[Window]>,
}

/// One checksum: its value in the low half, then the flags.
pub struct Window(AtomicU64);

const KNOWN: u64 = 1 << 32;
const VERIFIED: u64 = 1 << 33;

impl Placed {
    /// A run to be filled from now on: what is written needs no verifying.
    pub fn fresh(start: u64, offset: u64, epoch: u64, segment: Arc<Segment>, claimed: u64) -> Self {
        let windows = (0..claimed.div_ceil(WINDOW)).map(|_| Window(AtomicU64::new(VERIFIED))).collect();
        Self::new(start, epoch, Place { segment, offset }, 0, claimed, windows)
    }

    /// A run as recovery found it.
    pub fn recovered(
        start: u64,
        offset: u64,
        epoch: u64,
        segment: Arc<Segment>,
        len: u64,
        crcs: impl ExactSizeIterator<Item = u32>,
    ) -> Self {
        assert_eq!(crcs.len() as u64, len.div_ceil(WINDOW), "one checksum per window");
        let windows = crcs.map(|crc| Window(AtomicU64::new(KNOWN | u64::from(crc)))).collect();
        Self::new(start, epoch, Place { segment, offset }, len, len, windows)
    }

    fn new(start: u64, epoch: u64, place: Place, len: u64, claimed: u64, windows: Box<[Window]>) -> Self {
        let place = ArcSwapOption::from_pointee(place);
        let [len, claimed, changes] = [len, claimed, 0].map(AtomicU64::new);
        Placed { start, epoch, place, len, claimed, changes, windows }
    }

    /// Where it lies; `None` once the stream's start passed it.
    pub fn place(&self) -> Option<Arc<Place>> {
        self.place.load_full()
    }

    /// For the owner: it lies there from now on, or nowhere. Returns where it lay.
    #[allow(dead_code, reason = "for those who empty segments and trim streams")]
    pub fn move_to(&self, place: Option<Place>) -> Option<Arc<Place>> {
        self.place.swap(place.map(Arc::new))
    }

    /// Bytes that it has.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// The stream's position after its last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len()
    }

    /// Takes note of what is filled, with the checksum of every window.
    pub fn set_filled(&self, len: u64, crcs: &[u32]) {
        // Windows before the one that was the last have their final checksum already.
        let first = (self.len.load(Ordering::Relaxed) / WINDOW) as usize;
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (window, &crc) in self.windows.iter().zip(crcs).skip(first) {
            window.0.store(VERIFIED | KNOWN | u64::from(crc), Ordering::Release);
        }
        self.len.store(len, Ordering::Release);
        self.changes.store(changes + 2, Ordering::Release);
    }

    /// How far it is filled and the checksums of exactly that; `None` while the appender is changing them, which
    /// takes it a moment. Any shard may ask.
    pub fn filled(&self) -> Option<(u64, Vec<u32>)> {
        let changes = self.changes.load(Ordering::Acquire);
        let len = self.len();
        let crcs: Vec<u32> =
            self.windows.iter().take(Extent::window_count(len)).map_while(Window::crc).collect();
        fence(Ordering::Acquire);
        let whole = changes.is_multiple_of(2) && self.changes.load(Ordering::Relaxed) == changes;
        (whole && crcs.len() == Extent::window_count(len)).then_some((len, crcs))
    }

    /// One of its windows.
    pub fn window(&self, index: usize) -> &Window {
        &self.windows[index]
    }
}

impl Window {
    /// Whether its bytes were written, or matched their checksum, since the start of the process.
    pub fn is_verified(&self) -> bool {
        self.0.load(Ordering::Acquire) & VERIFIED != 0
    }

    /// The checksum that the bytes must have, if known.
    pub fn crc(&self) -> Option<u32> {
        let value = self.0.load(Ordering::Acquire);
        (value & KNOWN != 0).then_some(value as u32)
    }

    /// Takes note that the bytes matched.
    pub fn set_verified(&self) {
        self.0.fetch_or(VERIFIED, Ordering::AcqRel);
    }
}

//! One run of a stream as readers see it: where its bytes lie, how far they go, what they must add up to.
//!
//! Invariant: the published bytes of a run never change, only their place does: it moves when a segment is emptied, and
//! is given up when the stream's start passes the run. A reader takes the place and the file handle with it in one
//! step, so what it sends stays good whatever happens to the segment meanwhile.
//! Lives on: all shards; the appender's shard alone fills it, the owner's alone moves it.

use super::super::bulk::segment::Segment;
use super::super::extent::{Extent, WINDOW};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Where the bytes of a run lie.
pub struct Place {
    /// The file.
    pub segment: Arc<Segment>,
    /// The file's position of the first byte.
    pub offset: u64,
    /// Bytes of the segment that it takes, slack included, until they are counted as dead.
    claimed: AtomicU64,
}

/// A run. See the module.
pub struct Placed {
    start: AtomicU64,
    /// The epoch it was written in.
    pub epoch: u64,
    place: ArcSwapOption<Place>,
    /// Bytes of it that hold stream bytes.
    len: AtomicU64,
    /// Its bytes are dead wherever they lie.
    buried: AtomicBool,
    /// Damage was found where it lies: it stays there.
    stuck: AtomicBool,
    /// When it was last written to, in seconds since 1970, rounded up; 0 when that is not known.
    written_s: AtomicU32,
    /// Odd while `len` and the checksums do not fit each other.
    changes: AtomicU64,
    windows: Windows,
}

/// The checksums of a run, the first of which lies inside: most runs are short.
struct Windows {
    first: Window,
    more: Box<[Window]>,
}

impl Place {
    /// At `offset` of `segment`, of which it takes `claimed` bytes.
    pub fn new(segment: Arc<Segment>, offset: u64, claimed: u64) -> Self {
        Place { segment, offset, claimed: AtomicU64::new(claimed) }
    }

    /// For the appender when it lets go: it takes fewer bytes.
    pub fn set_claimed(&self, claimed: u64) {
        self.claimed.store(claimed, Ordering::SeqCst);
    }

    fn give_up(&self, mut count: impl FnMut(&Arc<Segment>, u64)) {
        let claimed = self.claimed.swap(0, Ordering::SeqCst);
        if claimed > 0 {
            count(&self.segment, claimed);
        }
    }
}

/// One checksum: its value in the low half, then the flags.
pub struct Window(AtomicU64);

const KNOWN: u64 = 1 << 32;
const VERIFIED: u64 = 1 << 33;

impl Placed {
    /// A run to be filled from now on: what is written needs no verifying.
    pub fn fresh(start: u64, offset: u64, epoch: u64, segment: Arc<Segment>, claimed: u64) -> Self {
        let windows = Windows::new((0..claimed.div_ceil(WINDOW)).map(|_| VERIFIED));
        Self::new(start, epoch, Place::new(segment, offset, claimed), 0, windows)
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
        let windows = Windows::new(crcs.map(|crc| KNOWN | u64::from(crc)));
        Self::new(start, epoch, Place::new(segment, offset, len), len, windows)
    }

    fn new(start: u64, epoch: u64, place: Place, len: u64, windows: Windows) -> Self {
        let place = ArcSwapOption::from_pointee(place);
        let [start, len, changes] = [start, len, 0].map(AtomicU64::new);
        let [buried, stuck] = [false; 2].map(AtomicBool::new);
        let written_s = AtomicU32::new(0);
        Placed { start, epoch, place, buried, stuck, written_s, len, changes, windows }
    }

    /// The stream's position of its first byte.
    pub fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// For the appender when it lets go, of a run of which nothing was published: it is an empty one where the stream
    /// ends, at `end`, and what was written stays in its place until the stream dies.
    pub fn withdraw_to(&self, end: u64) {
        self.set_filled(0, &[]);
        self.start.store(end, Ordering::Release);
    }

    /// Where it lies; `None` once the stream's start passed it.
    pub fn place(&self) -> Option<Arc<Place>> {
        self.place.load_full()
    }

    /// For the owner: it lies at `place` from now on. Calls `count` with what is dead by that: the place before; the
    /// new one if the run was given up, and stays so, or was buried meanwhile.
    pub fn move_to(&self, place: Place, mut count: impl FnMut(&Arc<Segment>, u64)) {
        let Some(before) = self.place() else { return place.give_up(&mut count) };
        self.place.store(Some(Arc::new(place)));
        before.give_up(&mut count);
        // Whoever buries says so first and looks for the place afterwards; here it is the other way round.
        if self.buried.load(Ordering::SeqCst)
            && let Some(place) = self.place()
        {
            place.give_up(&mut count);
        }
    }

    /// For the owner: its bytes are dead, and nobody finds them any more. Calls `count` as [`Placed::bury`] does.
    pub fn give_up(&self, mut count: impl FnMut(&Arc<Segment>, u64)) {
        if let Some(before) = self.place.swap(None) {
            before.give_up(&mut count);
        }
    }

    /// Damage was found: it is not moved.
    pub fn set_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
    }

    /// Whether it lies in a segment that is being emptied.
    pub fn is_to_move(&self) -> bool {
        !self.stuck.load(Ordering::Relaxed)
            && self.place.load().as_ref().is_some_and(|place| place.segment.is_emptying())
    }

    /// Its bytes are dead: calls `count` with the segment and how many, once for every place they lie in. Any shard
    /// may bury, also while the owner moves the run.
    pub fn bury(&self, mut count: impl FnMut(&Arc<Segment>, u64)) {
        self.buried.store(true, Ordering::SeqCst);
        if let Some(place) = self.place() {
            place.give_up(&mut count);
        }
    }

    /// When it was last written to, in milliseconds since 1970 and not before; `None` when that is not known.
    pub fn written_ms(&self) -> Option<u64> {
        let seconds = self.written_s.load(Ordering::Relaxed);
        (seconds > 0).then(|| u64::from(seconds) * 1000)
    }

    /// Takes note that it was written to until then. Seconds do: what is counted by them lasts for hours.
    pub fn set_written(&self, at_ms: u64) {
        let seconds = u32::try_from(at_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        self.written_s.store(seconds, Ordering::Relaxed);
    }

    /// Bytes that it has.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// The stream's position after its last byte.
    pub fn end(&self) -> u64 {
        self.start() + self.len()
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
        match index.checked_sub(1) {
            None => &self.windows.first,
            Some(behind) => &self.windows.more[behind],
        }
    }
}

impl Windows {
    fn new(values: impl Iterator<Item = u64>) -> Self {
        let mut windows = values.map(|value| Window(AtomicU64::new(value)));
        Windows { first: windows.next().expect("a run has a first byte"), more: windows.collect() }
    }

    fn iter(&self) -> impl Iterator<Item = &Window> {
        std::iter::once(&self.first).chain(&self.more)
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

    /// For a repair, where no name stands for the bytes: what is there counts.
    pub fn accept(&self, crc: u32) {
        self.0.store(KNOWN | u64::from(crc), Ordering::Release);
    }

    /// Takes note that the bytes do not match any more.
    pub fn set_unverified(&self) {
        self.0.fetch_and(!VERIFIED, Ordering::AcqRel);
    }

    /// Takes note that the bytes matched.
    pub fn set_verified(&self) {
        self.0.fetch_or(VERIFIED, Ordering::AcqRel);
    }
}

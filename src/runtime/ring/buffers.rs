//! The buffers that the kernel picks from when bytes arrive.
//!
//! One group of [`COUNT`] buffers of [`SIZE`] bytes per shard (1 MiB). A completion names the buffer it filled;
//! its bytes are copied out and the buffer goes back within the same delivery, so no buffer outlives a turn and
//! no slow reader can hold one. When all are in use the receive ends with ENOBUFS and is armed again.

use io_uring::{IoUring, cqueue, types::BufRingEntry};
use memmap2::MmapMut;
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// How many buffers a shard has; a power of two.
pub const COUNT: u16 = 256;
/// Bytes in each.
pub const SIZE: usize = 4096;
/// The group's number on its ring.
pub const GROUP: u16 = 0;

/// The registered buffers of one ring.
pub struct Buffers {
    entries: RefCell<MmapMut>,
    bytes: MmapMut,
    tail: Cell<u16>,
}

impl Buffers {
    /// Allocates the buffers and registers them with `ring`, all free.
    pub fn register(ring: &IoUring) -> io::Result<Self> {
        let entries = MmapMut::map_anon(usize::from(COUNT) * size_of::<BufRingEntry>())?;
        let bytes = MmapMut::map_anon(usize::from(COUNT) * SIZE)?;
        // SAFETY: the entries are a page-aligned mapping of exactly COUNT entries that `Buffers` owns; it lives
        // inside `Ring` beside the io_uring instance, whose drop ends the kernel's use before the fields drop
        // order matters (an unregistered ring never writes again).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, COUNT, GROUP, 0)?;
        }
        let buffers = Buffers { entries: RefCell::new(entries), bytes, tail: Cell::new(0) };
        for id in 0..COUNT {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    /// Calls `look` with the bytes of a completed receive and gives the buffer back.
    pub fn take(&self, flags: u32, len: usize, look: impl FnOnce(&[u8])) {
        let Some(id) = cqueue::buffer_select(flags) else { return };
        assert!(id < COUNT && len <= SIZE, "the kernel answers with a buffer of the group");
        let start = usize::from(id) * SIZE;
        look(&self.bytes[start..start + len]);
        self.give_back(id);
    }

    fn give_back(&self, id: u16) {
        let mut entries = self.entries.borrow_mut();
        let base = entries.as_mut_ptr().cast::<BufRingEntry>();
        let tail = self.tail.get();
        // SAFETY: `tail & (COUNT - 1)` is below COUNT, so the entry lies in the mapping, which is aligned to a
        // page. The kernel reads an entry only below the published tail, which is stored after it, with Release.
        unsafe {
            let entry = &mut *base.add(usize::from(tail & (COUNT - 1)));
            entry.set_addr(self.bytes.as_ptr().add(usize::from(id) * SIZE) as u64);
            entry.set_len(SIZE as u32);
            entry.set_bid(id);
            let shared_tail = BufRingEntry::tail(base).cast_mut().cast::<AtomicU16>();
            (*shared_tail).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
    }
}

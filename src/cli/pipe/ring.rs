//! The bytes that a producer has read but that the server has not yet made durable.
//!
//! Offsets are positions in the stream: `kept_from ≤ sent ≤ end`, and `end - kept_from` never passes
//! the capacity. Invariant: a byte leaves the ring only after it was sent and the server said it is
//! durable, so whatever the server lost in a crash can be sent again.
//!
//! Runs in: `millpond pipe`. Pure.

use std::io::{IoSlice, IoSliceMut};

/// A bounded window onto the stream's newest bytes.
pub struct Ring {
    bytes: Box<[u8]>,
    kept_from: u64,
    sent: u64,
    sent_most: u64,
    end: u64,
}

/// Why the ring cannot do as the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffRing {
    /// The offset lies below the first kept byte.
    Gone,
    /// The offset lies above everything that was ever sent.
    NeverSent,
}

impl Ring {
    /// An empty ring whose first byte will be the stream's byte `start`.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    #[must_use]
    pub fn new(start: u64, capacity: usize) -> Self {
        assert!(capacity > 0, "a ring holds at least one byte");
        let bytes = vec![0; capacity].into_boxed_slice();
        Self { bytes, kept_from: start, sent: start, sent_most: start, end: start }
    }

    /// First byte that can still be sent again.
    #[must_use]
    pub fn kept_from(&self) -> u64 {
        self.kept_from
    }

    /// Highest offset that any connection was ever sent up to.
    #[must_use]
    pub fn sent_most(&self) -> u64 {
        self.sent_most
    }

    /// Offset after the newest byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are not known to be durable.
    #[must_use]
    pub fn held(&self) -> usize {
        usize::try_from(self.end - self.kept_from).expect("the ring is smaller than memory")
    }

    /// Bytes that fit before the ring is full.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.len() - self.held()
    }

    /// Bytes that this connection has not been sent yet.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.end - self.sent
    }

    /// Free space for the next bytes, at most `len` of it, in order.
    pub fn vacant(&mut self, len: usize) -> [IoSliceMut<'_>; 2] {
        let len = len.min(self.room());
        let from = self.index(self.end);
        let straight = len.min(self.bytes.len() - from);
        let (low, high) = self.bytes.split_at_mut(from);
        [IoSliceMut::new(&mut high[..straight]), IoSliceMut::new(&mut low[..len - straight])]
    }

    /// Counts `len` bytes that were put into [`Ring::vacant`].
    pub fn filled(&mut self, len: usize) {
        assert!(len <= self.room(), "more was read than fits");
        self.end += len as u64;
    }

    /// The next `len` unsent bytes, in order.
    #[must_use]
    pub fn next(&self, len: u64) -> [IoSlice<'_>; 2] {
        assert!(len <= self.unsent(), "cannot send what was not read");
        let len = usize::try_from(len).expect("the ring is smaller than memory");
        let from = self.index(self.sent);
        let straight = len.min(self.bytes.len() - from);
        [IoSlice::new(&self.bytes[from..from + straight]), IoSlice::new(&self.bytes[..len - straight])]
    }

    /// Counts `len` bytes as handed to the connection.
    pub fn advance(&mut self, len: u64) {
        assert!(len <= self.unsent(), "more was sent than was read");
        self.sent += len;
        self.sent_most = self.sent_most.max(self.sent);
    }

    /// Frees everything below `offset`, which the server says is durable; true when that was news.
    ///
    /// After a rewind the server may know bytes that this connection still has to repeat: those stay,
    /// because a chunk that was begun must be finished.
    pub fn durable(&mut self, offset: u64) -> Result<bool, OffRing> {
        if offset > self.sent_most {
            return Err(OffRing::NeverSent);
        }
        let to = offset.min(self.sent);
        let news = to > self.kept_from;
        self.kept_from = self.kept_from.max(to);
        Ok(news)
    }

    /// Sends again from `offset` on.
    pub fn rewind(&mut self, offset: u64) -> Result<(), OffRing> {
        if offset < self.kept_from {
            return Err(OffRing::Gone);
        }
        if offset > self.sent_most {
            return Err(OffRing::NeverSent);
        }
        self.sent = offset;
        Ok(())
    }

    fn index(&self, offset: u64) -> usize {
        // The remainder is below a `usize`, so the conversion cannot lose anything.
        (offset % self.bytes.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(ring: &mut Ring, mut input: &[u8]) -> usize {
        let mut taken = 0;
        for mut space in ring.vacant(input.len()) {
            let len = space.len().min(input.len());
            space[..len].copy_from_slice(&input[..len]);
            input = &input[len..];
            taken += len;
        }
        ring.filled(taken);
        taken
    }

    fn send(ring: &mut Ring, len: u64) -> Vec<u8> {
        let bytes = ring.next(len).iter().flat_map(|slice| slice.to_vec()).collect();
        ring.advance(len);
        bytes
    }

    #[test]
    fn it_fills_to_its_capacity_and_no_further() {
        let mut ring = Ring::new(0, 8);
        assert_eq!(read(&mut ring, b"0123456789"), 8);
        assert_eq!((ring.room(), ring.held(), ring.unsent()), (0, 8, 8));
        assert_eq!(read(&mut ring, b"x"), 0);
        assert_eq!(send(&mut ring, 5), b"01234");
        assert_eq!(ring.room(), 0, "sent is not durable");
        assert_eq!(ring.durable(3), Ok(true));
        assert_eq!(ring.room(), 3);
        assert_eq!(read(&mut ring, b"89a"), 3);
        assert_eq!(send(&mut ring, 6), b"56789a", "across the seam");
    }

    #[test]
    fn durable_moves_forward_only_and_never_past_what_was_sent() {
        let mut ring = Ring::new(100, 8);
        read(&mut ring, b"abcdef");
        assert_eq!(ring.durable(101), Err(OffRing::NeverSent));
        send(&mut ring, 4);
        assert_eq!(ring.durable(103), Ok(true));
        assert_eq!(ring.durable(103), Ok(false));
        assert_eq!(ring.durable(7), Ok(false));
        assert_eq!(ring.kept_from(), 103);
        assert_eq!(ring.durable(105), Err(OffRing::NeverSent));
    }

    #[test]
    fn a_rewind_stays_between_what_is_kept_and_what_was_sent() {
        let mut ring = Ring::new(0, 8);
        read(&mut ring, b"abcdef");
        send(&mut ring, 5);
        ring.durable(2).expect("sent");
        assert_eq!(ring.rewind(1), Err(OffRing::Gone));
        assert_eq!(ring.rewind(6), Err(OffRing::NeverSent));
        assert_eq!(ring.rewind(2), Ok(()));
        assert_eq!(ring.durable(5), Ok(false), "what is being repeated stays");
        assert_eq!(ring.kept_from(), 2);
        assert_eq!(ring.rewind(5), Ok(()), "the other connection did send it");
        assert_eq!(ring.rewind(2), Ok(()));
        assert_eq!(send(&mut ring, 4), b"cdef");
    }

    #[derive(Clone, Debug)]
    enum Act {
        Read(usize),
        Send(u64),
        Durable(u64),
        Rewind(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0usize..20).prop_map(Act::Read),
            (0u64..20).prop_map(Act::Send),
            (0u64..200).prop_map(Act::Durable),
            (0u64..200).prop_map(Act::Rewind),
        ]
    }

    proptest! {
        /// The model is the whole stream: whatever is sent at an offset must be the stream's bytes there.
        #[test]
        fn what_is_sent_is_always_the_stream(start in 0u64..50, capacity in 1usize..16, acts in prop::collection::vec(act(), 0..120)) {
            let byte = |offset: u64| (offset.wrapping_mul(31) >> 2) as u8;
            let mut ring = Ring::new(start, capacity);
            let mut at = start;
            for act in acts {
                match act {
                    Act::Read(len) => {
                        let fresh = (ring.end()..ring.end() + len as u64).map(byte).collect::<Vec<_>>();
                        let room = ring.room();
                        prop_assert_eq!(read(&mut ring, &fresh), len.min(room));
                    }
                    Act::Send(len) => {
                        let len = len.min(ring.unsent());
                        let wanted = (at..at + len).map(byte).collect::<Vec<_>>();
                        prop_assert_eq!(send(&mut ring, len), wanted);
                        at += len;
                    }
                    Act::Durable(offset) => {
                        let before = ring.kept_from();
                        let known = offset <= ring.sent_most();
                        prop_assert_eq!(ring.durable(offset).is_ok(), known);
                        prop_assert!(ring.kept_from() >= before && ring.kept_from() <= at);
                    }
                    Act::Rewind(offset) => {
                        let holds = (ring.kept_from()..=ring.sent_most()).contains(&offset);
                        prop_assert_eq!(ring.rewind(offset).is_ok(), holds);
                        if holds {
                            at = offset;
                        }
                    }
                }
                prop_assert!(ring.held() <= capacity && at <= ring.end());
            }
        }
    }
}

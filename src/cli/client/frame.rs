//! One chunk of a request body on its way out, without a copy of its payload.
//!
//! A frame is `before`, then payload that lies elsewhere, then `after`; a partial write of any length
//! leaves it at the right byte. Invariant: payload is counted only when the kernel took it.
//!
//! Runs in: the command-line clients. Pure.

use std::io::IoSlice;

/// What is still to be written of one chunk.
#[derive(Debug, Default)]
pub struct Frame {
    before: Vec<u8>,
    payload: u64,
    after: &'static [u8],
}

impl Frame {
    /// A chunk with `len` bytes of payload.
    ///
    /// # Panics
    ///
    /// When `len` is zero: that would end the body.
    #[must_use]
    pub fn chunk(len: u64) -> Self {
        assert!(len > 0, "an empty chunk ends the body");
        Self { before: format!("{len:x}\r\n").into_bytes(), payload: len, after: b"\r\n" }
    }

    /// The end of a chunked body.
    #[must_use]
    pub fn last() -> Self {
        Self { before: Vec::new(), payload: 0, after: b"0\r\n\r\n" }
    }

    /// Whether everything was written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.before.is_empty() && self.payload == 0 && self.after.is_empty()
    }

    /// Payload bytes still to be written.
    #[must_use]
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// What to write next, given where the payload lies.
    #[must_use]
    pub fn slices<'a>(&'a self, payload: [IoSlice<'a>; 2]) -> [IoSlice<'a>; 4] {
        let [first, second] = payload;
        debug_assert_eq!((first.len() + second.len()) as u64, self.payload);
        [IoSlice::new(&self.before), first, second, IoSlice::new(self.after)]
    }

    /// Counts `len` written bytes; answers how many of them were payload.
    pub fn wrote(&mut self, len: usize) -> u64 {
        let before = len.min(self.before.len());
        self.before.drain(..before);
        let payload = ((len - before) as u64).min(self.payload);
        self.payload -= payload;
        let after = len - before - payload as usize;
        self.after = &self.after[after..];
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_a_frame_writes_the_same_bytes() {
        let (payload, wire) = (b"0123456789abcdefg", b"11\r\n0123456789abcdefg\r\n");
        for seam in 0..=payload.len() {
            for step in 1..=wire.len() {
                let mut frame = Frame::chunk(17);
                let (mut out, mut sent) = (Vec::new(), 0usize);
                while !frame.is_done() {
                    let (low, high) = (&payload[sent.min(seam)..seam], &payload[sent.max(seam)..]);
                    let whole = frame
                        .slices([IoSlice::new(low), IoSlice::new(high)])
                        .iter()
                        .flat_map(|s| s.to_vec())
                        .collect::<Vec<_>>();
                    let taken = step.min(whole.len());
                    out.extend_from_slice(&whole[..taken]);
                    sent += frame.wrote(taken) as usize;
                }
                assert_eq!(out, wire, "seam {seam}, step {step}");
                assert_eq!(sent, payload.len());
            }
        }
    }

    #[test]
    fn the_last_frame_is_the_empty_chunk() {
        let mut frame = Frame::last();
        assert_eq!(frame.wrote(2), 0);
        assert!(!frame.is_done());
        assert_eq!(frame.wrote(3), 0);
        assert!(frame.is_done() && Frame::default().is_done());
    }
}

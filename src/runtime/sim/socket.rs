//! A socket whose far side is slow: file bytes are read when they are delivered, not when they are sent.
//!
//! That is what sendfile does to a receiver on the same host, whose queue refers to the sender's page cache.
//! A page that is overwritten after it was sent shows its new bytes here, as it does there.
//!
//! Invariant: bytes are delivered in the order in which they were sent. Lives on: one test.

use crate::runtime::FileRange;
use std::collections::VecDeque;
use std::io;

/// The sending end and all that is on its way.
#[derive(Default)]
pub struct SimSocket {
    queue: VecDeque<Piece>,
}

enum Piece {
    Bytes(Vec<u8>),
    File(FileRange),
}

impl SimSocket {
    /// A connected socket with nothing on its way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a copy.
    pub fn send(&mut self, bytes: &[u8]) {
        self.queue.push_back(Piece::Bytes(bytes.to_vec()));
    }

    /// Sends a file's bytes from where they lie.
    pub fn send_file(&mut self, range: FileRange) {
        self.queue.push_back(Piece::File(range));
    }

    /// How many bytes are on their way.
    pub fn in_flight(&self) -> u64 {
        self.queue.iter().map(Piece::len).sum()
    }

    /// What the receiver gets next: up to `len_max` bytes, as they are now.
    pub fn deliver(&mut self, len_max: usize) -> io::Result<Vec<u8>> {
        let mut delivered = Vec::new();
        while delivered.len() < len_max
            && let Some(piece) = self.queue.front_mut()
        {
            piece.take(len_max - delivered.len(), &mut delivered)?;
            if piece.len() == 0 {
                self.queue.pop_front();
            }
        }
        Ok(delivered)
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(range) => range.len,
        }
    }

    fn take(&mut self, len_max: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let len = self.len().min(len_max as u64) as usize;
        match self {
            Piece::Bytes(bytes) => into.extend(bytes.drain(..len)),
            Piece::File(range) => {
                let begin = into.len();
                into.resize(begin + len, 0);
                range.file.read_exact_at(&mut into[begin..], range.offset)?;
                range.offset += len as u64;
                range.len -= len as u64;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::SimSocket;
    use crate::runtime::sim::SimDisk;
    use crate::runtime::{Disk, FileRange};
    use std::path::Path;

    #[test]
    fn an_overwritten_page_shows_at_delivery() {
        let disk = SimDisk::new(1);
        let file = disk.create(Path::new("f"), 8).unwrap();
        file.write_at(b"original", 0).unwrap();
        let mut socket = SimSocket::new();
        socket.send(b"head:");
        socket.send_file(FileRange { file: file.clone(), offset: 0, len: 8 });
        assert_eq!(socket.deliver(9).unwrap(), b"head:orig");
        assert_eq!(socket.in_flight(), 4);
        file.write_at(b"replaced", 0).unwrap();
        assert_eq!(socket.deliver(100).unwrap(), b"aced");
    }
}

//! One reader: every record of one stream, in order, each once, each checked.
//!
//! Invariant: whatever the pieces in which bytes come, the same records are seen, and a record that was not seen is
//! a fault by the time the reader is done.

use std::os::fd::OwnedFd;

use super::wire::{Downstream, Wrong};
use crate::{
    held::Held,
    stamp::{Stamp, Stamps},
    tally::{Faults, Kind},
};

/// What a reader is to do.
pub struct Task {
    /// Its number among all.
    pub number: usize,
    /// The stream that it reads.
    pub stream: usize,
    /// Its connection, greeted.
    pub socket: OwnedFd,
    /// What it speaks.
    pub wire: Box<dyn Downstream>,
    /// What came behind the greeting.
    pub early: Vec<u8>,
}

/// A reader at work.
pub struct Reader {
    /// What it is to do.
    pub task: Task,
    /// Records that came or are known to be missing: the number of the next one.
    pub next: u64,
    /// Whether its stream has ended, or cannot go on.
    pub is_over: bool,
    /// The beginning of a record.
    part: Vec<u8>,
    held: Held,
}

impl Reader {
    /// One that has seen nothing.
    pub fn new(task: Task) -> Self {
        Self { task, next: 0, is_over: false, part: Vec::new(), held: Held::default() }
    }

    /// Takes what came and gives every record in it that is right to `see`. What is to be said to the server is put
    /// at the end of `out`. Whether the stream has ended.
    pub fn hear(
        &mut self,
        input: &[u8],
        stamps: &Stamps,
        faults: &mut Faults,
        out: &mut Vec<u8>,
        see: &mut impl FnMut(Stamp),
    ) -> Result<bool, Wrong> {
        let Self { task, next, part, held, .. } = self;
        if input.is_empty() {
            task.wire.ended()?;
            return Ok(true);
        }
        let mut order = Order { next, number: task.number, stream: task.stream };
        held.take(input, |input| {
            let mut deliver = |bytes: &[u8]| {
                records(part, stamps.size(), bytes, |record| order.judge(stamps.read(record), faults, see));
            };
            match task.wire.hear(input, &mut deliver, out) {
                Ok((used, ended)) => (used, Ok(ended)),
                Err(wrong) => (input.len(), Err(wrong)),
            }
        })
    }

    /// The stream is over, with `total` records. What is missing is a fault of this kind.
    pub fn conclude(&mut self, total: u64, kind: Kind, faults: &mut Faults) {
        let (number, stream, next) = (self.task.number, self.task.stream, self.next);
        faults.note_many(kind, total.saturating_sub(next), || {
            format!("reader {number} of stream {stream} has {next} of {total} records")
        });
        let part = self.part.len();
        if part > 0 {
            faults.note(Kind::Bytes, || {
                format!("reader {number} of stream {stream}: {part} bytes of a record at the end")
            });
        }
        self.is_over = true;
    }
}

struct Order<'a> {
    next: &'a mut u64,
    number: usize,
    stream: usize,
}

impl Order<'_> {
    fn judge(&mut self, record: Result<Stamp, String>, faults: &mut Faults, see: &mut impl FnMut(Stamp)) {
        let (number, stream, next) = (self.number, self.stream, *self.next);
        let whose = || format!("reader {number} of stream {stream}");
        match record {
            Err(why) => {
                faults.note(Kind::Bytes, || format!("{}, in place of record {next}: {why}", whose()));
                *self.next += 1;
            }
            Ok(stamp) if stamp.producer as usize != stream => {
                faults.note(Kind::Bytes, || format!("{}: a record of stream {}", whose(), stamp.producer));
            }
            Ok(stamp) if stamp.sequence < next => {
                let sequence = stamp.sequence;
                faults.note(Kind::Duplicate, || format!("{}: record {sequence} after {next}", whose()));
            }
            Ok(stamp) => {
                let sequence = stamp.sequence;
                faults.note_many(Kind::Gap, sequence - next, || {
                    format!("{}: record {sequence} where {next} was next", whose())
                });
                *self.next = sequence + 1;
                see(stamp);
            }
        }
    }
}

/// Cuts `bytes`, which follow `part`, into records; what is left is the next `part`.
fn records(part: &mut Vec<u8>, size: usize, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
    if !part.is_empty() {
        let (head, rest) = bytes.split_at(bytes.len().min(size - part.len()));
        part.extend_from_slice(head);
        bytes = rest;
        if part.len() < size {
            return;
        }
        each(part);
        part.clear();
    }
    let whole = bytes.chunks_exact(size);
    part.extend_from_slice(whole.remainder());
    whole.for_each(each);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::wire::Raw;

    const SIZE: usize = 40;

    fn record(sequence: u64) -> Vec<u8> {
        let (stamps, mut out) = (Stamps::new(1, SIZE).expect("a size"), Vec::new());
        stamps.write(&mut out, Stamp { sequence, due: 5, late: 0, producer: 2 });
        out
    }

    /// What a reader sees of these bytes in pieces of `size`, and what it finds wrong.
    fn read(bytes: &[u8], size: usize, total: u64) -> (Vec<u64>, Vec<String>) {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let task =
            Task { number: 7, stream: 2, socket: socket.into(), wire: Box::new(Raw), early: Vec::new() };
        let (mut reader, mut faults, mut seen) = (Reader::new(task), Faults::default(), Vec::new());
        let stamps = Stamps::new(1, SIZE).expect("a size");
        for piece in bytes.chunks(size) {
            let mut see = |stamp: Stamp| seen.push(stamp.sequence);
            let ended = reader.hear(piece, &stamps, &mut faults, &mut Vec::new(), &mut see);
            assert_eq!(ended, Ok(false));
        }
        reader.conclude(total, Kind::Gap, &mut faults);
        (seen, faults.iter().map(|(kind, count, _)| format!("{count} {kind}")).collect())
    }

    #[test]
    fn records_are_seen_whatever_the_pieces() {
        let bytes: Vec<u8> = (0..5).flat_map(record).collect();
        for size in 1..=bytes.len() {
            assert_eq!(read(&bytes, size, 5), ((0..5).collect(), vec![]), "pieces of {size}");
        }
    }

    #[test]
    fn gaps_duplicates_and_wrong_bytes_are_told_apart() {
        let list = |numbers: &[u64]| numbers.iter().flat_map(|number| record(*number)).collect::<Vec<u8>>();
        assert_eq!(read(&list(&[0, 3, 4]), 64, 5), (vec![0, 3, 4], vec!["2 gap".into()]));
        assert_eq!(read(&list(&[0, 1, 0, 1, 2]), 64, 3), (vec![0, 1, 2], vec!["2 duplicate".into()]));
        assert_eq!(read(&list(&[0, 1]), 64, 4), (vec![0, 1], vec!["2 gap".into()]));
        let mut wrong = list(&[0, 1, 2]);
        wrong[SIZE + 35] ^= 4;
        assert_eq!(read(&wrong, 64, 3), (vec![0, 2], vec!["1 bytes".into()]));
        assert_eq!(read(&list(&[0])[..30], 64, 0), (vec![], vec!["1 bytes".into()]));
    }
}

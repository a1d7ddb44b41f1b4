//! The messages that are fanned out, and the reading of an endless chunked answer made of them.
//!
//! No I/O: bytes go in, messages come out. Invariant: a follower that meets no fault has seen every message
//! from its first on, once and in order.

use std::fmt;

use crate::http::Head;

/// Bytes of a message.
pub const MESSAGE: usize = 100;

const FILL: [u8; MESSAGE - 16] = {
    let mut fill = [b'.'; MESSAGE - 16];
    fill[MESSAGE - 17] = b'\n';
    fill
};

/// Appends a message as one chunk: its number, when it was sent, and what fills it up.
pub fn push(out: &mut Vec<u8>, number: u64, sent: u64) {
    const SIZE_LINE: &[u8] = b"64\r\n";
    const _: () = assert!(MESSAGE == 0x64);
    out.extend_from_slice(SIZE_LINE);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&sent.to_le_bytes());
    out.extend_from_slice(&FILL);
    out.extend_from_slice(b"\r\n");
}

/// What one reader has seen of the answer.
pub struct Follower {
    state: State,
    /// Bytes of the body before the first message.
    skip: u64,
    /// The number of the next message.
    next: u64,
    partial: Vec<u8>,
}

enum State {
    Head(Vec<u8>),
    /// Hexadecimal digits so far.
    Size(u64),
    /// From an extension or the carriage return to the end of the line.
    SizeRest(u64),
    Data(u64),
    DataEnd,
    Trailers(Vec<u8>),
    End,
}

/// Why an answer is wrong.
#[derive(Debug, PartialEq)]
pub enum Fault {
    Head(String),
    Chunk(u8),
    Order { expected: u64, got: u64 },
    Bytes { number: u64 },
    Ending(String),
    Surplus,
}

impl Follower {
    /// Has seen nothing; the body begins with so many bytes that are no messages.
    pub fn new(skip: u64) -> Self {
        Self { state: State::Head(Vec::new()), skip, next: 0, partial: Vec::with_capacity(MESSAGE) }
    }

    /// Whether everything before the first message has come.
    pub fn is_following(&self) -> bool {
        self.skip == 0
    }

    /// Whether the answer ended as a complete stream does.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// How many messages came.
    pub fn count(&self) -> u64 {
        self.next
    }

    /// Reads on; tells the number and the time of sending of each message.
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(u64, u64)) -> Result<(), Fault> {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(first);
                    bytes = rest;
                    if head.ends_with(b"\r\n\r\n") {
                        begins_well(head)?;
                        self.state = State::Size(0);
                    }
                }
                State::Size(size) => {
                    match char::from(first).to_digit(16) {
                        Some(digit) => *size = *size << 4 | u64::from(digit),
                        None if matches!(first, b'\r' | b';') => self.state = State::SizeRest(*size),
                        None => return Err(Fault::Chunk(first)),
                    }
                    bytes = rest;
                }
                State::SizeRest(size) => {
                    if first == b'\n' {
                        self.state = match *size {
                            0 => State::Trailers(b"\r\n".to_vec()),
                            size => State::Data(size),
                        };
                    }
                    bytes = rest;
                }
                State::Data(left) => {
                    let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= len as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    self.take(&bytes[..len], each)?;
                    bytes = &bytes[len..];
                }
                State::DataEnd => {
                    match first {
                        b'\r' => {}
                        b'\n' => self.state = State::Size(0),
                        other => return Err(Fault::Chunk(other)),
                    }
                    bytes = rest;
                }
                State::Trailers(lines) => {
                    lines.push(first);
                    bytes = rest;
                    if lines.ends_with(b"\r\n\r\n") {
                        ends_well(lines)?;
                        self.state = State::End;
                    }
                }
                State::End => return Err(Fault::Surplus),
            }
        }
        Ok(())
    }

    fn take(&mut self, mut body: &[u8], each: &mut impl FnMut(u64, u64)) -> Result<(), Fault> {
        let skipped = self.skip.min(body.len() as u64);
        self.skip -= skipped;
        body = &body[skipped as usize..];
        if !self.partial.is_empty() {
            let len = body.len().min(MESSAGE - self.partial.len());
            self.partial.extend_from_slice(&body[..len]);
            body = &body[len..];
            if self.partial.len() < MESSAGE {
                return Ok(());
            }
            let whole = std::mem::take(&mut self.partial);
            self.message(&whole, each)?;
            self.partial = whole;
            self.partial.clear();
        }
        let mut messages = body.chunks_exact(MESSAGE);
        for message in &mut messages {
            self.message(message, each)?;
        }
        self.partial.extend_from_slice(messages.remainder());
        Ok(())
    }

    fn message(&mut self, message: &[u8], each: &mut impl FnMut(u64, u64)) -> Result<(), Fault> {
        let number_at = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().expect("eight bytes"));
        let (number, sent) = (number_at(0), number_at(8));
        if number != self.next {
            return Err(Fault::Order { expected: self.next, got: number });
        }
        if message[16..] != FILL {
            return Err(Fault::Bytes { number });
        }
        self.next += 1;
        each(number, sent);
        Ok(())
    }
}

fn begins_well(head: &[u8]) -> Result<(), Fault> {
    let read = Head::read(head).map(|(head, _)| head);
    let chunked = |head: &Head| head.field("transfer-encoding") == Some("chunked");
    match read {
        Some(head) if matches!(head.status, 200 | 206) && chunked(&head) => Ok(()),
        _ => Err(Fault::Head(String::from_utf8_lossy(head).into_owned())),
    }
}

fn ends_well(lines: &[u8]) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(lines).to_ascii_lowercase();
    let complete = text
        .lines()
        .filter_map(|line| line.strip_prefix("x-stream-state:"))
        .any(|it| it.trim() == "complete");
    if complete { Ok(()) } else { Err(Fault::Ending(text.trim().to_owned())) }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(head) => write!(f, "the answer begins with {head:?} instead of a chunked 200"),
            Self::Chunk(byte) => write!(f, "the byte {byte:#04x} stands where chunks meet"),
            Self::Order { expected, got } => write!(f, "message {got} came where {expected} was due"),
            Self::Bytes { number } => write!(f, "message {number} came with wrong bytes"),
            Self::Ending(lines) => write!(f, "the trailers are {lines:?} and do not say `complete`"),
            Self::Surplus => f.write_str("bytes came after the end of the answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const END: &[u8] = b"0\r\nX-Stream-State: complete\r\nStream-Closed: true\r\n\r\n";

    fn answer(numbers: &[u64]) -> Vec<u8> {
        let mut answer = HEAD.to_vec();
        numbers.iter().for_each(|number| push(&mut answer, *number, 1_000 + number));
        answer.extend_from_slice(END);
        answer
    }

    fn feed(pieces: &[&[u8]], skip: u64) -> Result<Vec<(u64, u64)>, Fault> {
        let (mut follower, mut seen) = (Follower::new(skip), Vec::new());
        for piece in pieces {
            follower.feed(piece, &mut |number, sent| seen.push((number, sent)))?;
        }
        assert!(follower.has_ended() && follower.count() == seen.len() as u64);
        Ok(seen)
    }

    #[test]
    fn all_messages_are_seen_wherever_the_answer_is_split() {
        let whole = answer(&[0, 1, 2]);
        let expected = Ok(vec![(0, 1_000), (1, 1_001), (2, 1_002)]);
        for cut in 0..whole.len() {
            assert_eq!(feed(&[&whole[..cut], &whole[cut..]], 0), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(feed(&bytes, 0), expected);
    }

    #[test]
    fn chunks_need_not_meet_where_messages_do() {
        let (mut chunked, mut answer) = (Vec::new(), HEAD.to_vec());
        (0..5).for_each(|number| push(&mut chunked, number, number));
        let body: Vec<u8> =
            chunked.chunks(MESSAGE + 6).flat_map(|chunk| &chunk[4..4 + MESSAGE]).copied().collect();
        for piece in [&body[..30], &body[30..310], &body[310..]] {
            answer.extend_from_slice(format!("{:X};x=y\r\n", piece.len()).as_bytes());
            answer.extend_from_slice(piece);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(END);
        assert_eq!(feed(&[&answer], 0).map(|seen| seen.len()), Ok(5));
    }

    #[test]
    fn what_goes_before_the_messages_is_skipped() {
        let mut answer = HEAD.to_vec();
        answer.extend_from_slice(b"5\r\nabcde\r\n");
        push(&mut answer, 0, 9);
        answer.extend_from_slice(END);
        assert_eq!(feed(&[&answer], 5), Ok(vec![(0, 9)]));
    }

    #[test]
    fn gaps_duplicates_wrong_bytes_and_wrong_ends_are_faults() {
        assert_eq!(feed(&[&answer(&[0, 2])], 0), Err(Fault::Order { expected: 1, got: 2 }));
        assert_eq!(feed(&[&answer(&[0, 0])], 0), Err(Fault::Order { expected: 1, got: 0 }));
        let mut wrong = answer(&[0]);
        wrong[HEAD.len() + 60] ^= 1;
        assert_eq!(feed(&[&wrong], 0), Err(Fault::Bytes { number: 0 }));
        let cut =
            [&answer(&[0])[..HEAD.len() + MESSAGE + 6], b"0\r\nX-Stream-State: interrupted\r\n\r\n"].concat();
        assert!(matches!(feed(&[&cut], 0), Err(Fault::Ending(_))));
        assert_eq!(feed(&[&answer(&[0]), b"x"], 0), Err(Fault::Surplus));
        assert!(matches!(feed(&[b"HTTP/1.1 404 Not Found\r\n\r\n"], 0), Err(Fault::Head(_))));
    }
}

//! The output of a process with its two streams apart in one: what kind 65 sends, and what the store keeps of it.
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | who: 1 standard output, 2 standard error, 3 the daemon; 0 is filler of this one byte |
//! | 1 | flags: 1 [`PARTIAL`], 2 [`GAP`], 4 [`END`] |
//! | 8 | when the daemon took it, in nanoseconds since 1970, big-endian |
//! | 4 | bytes that follow, big-endian |
//!
//! | a frame of the daemon | what follows |
//! |---|---|
//! | no flag: how far it is | bytes of stdout, of stderr, and left out until here, each in 8 bytes |
//! | [`GAP`] | in 8 bytes, how many bytes of frames a slow client was not given here |
//! | [`END`] | as how far it is, and one byte: why it ended |
//!
//! Frames lie in blocks of [`BLOCK`] bytes of the stream: none crosses the beginning of one, and each begins with a frame
//! that says how far it is. So who has lost the beginning goes on at the next block.
//!
//! Invariant: a reader gives every byte of each stream once and in order, however its input is cut, and holds no more
//! than a header and a word of the daemon. Pure.

/// Bytes before those of a frame.
pub const HEADER: usize = 14;
/// Frames do not cross multiples of this.
pub const BLOCK: u64 = 16 * 1024;
/// The line that these bytes belong to goes on in the next frame of the same stream.
pub const PARTIAL: u8 = 1;
/// Something was left out here.
pub const GAP: u8 = 2;
/// Nothing follows: of this stream or, from the daemon, of either.
pub const END: u8 = 4;
/// Bytes of the longest word of the daemon.
pub const WORD_MAX: usize = 25;
const _: () = assert!(2 * HEADER + 24 + WORD_MAX < 4096, "together they lie in one page");

/// Whose bytes a frame has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// The daemon.
    Daemon = 3,
}

/// What stands before the bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whose they are.
    pub source: Source,
    /// [`PARTIAL`], [`GAP`], [`END`].
    pub flags: u8,
    /// When they were taken, in nanoseconds since 1970.
    pub at_ns: u64,
    /// How many follow.
    pub len: u32,
}

/// How many bytes there were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Written to standard output.
    pub stdout: u64,
    /// Written to standard error.
    pub stderr: u64,
    /// Of frames, that the reader was not given.
    pub left_out: u64,
}

/// Why an output ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Every writer has closed, and who asked for it was there.
    Closed = 1,
    /// Every writer has closed, and who asked for it was gone before.
    ClientGone = 2,
    /// Every writer has closed, and the daemon had been started anew in between.
    Restarted = 3,
}

/// What the daemon says in a frame of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// How far it is.
    SoFar(Totals),
    /// So many bytes of frames are not here.
    Gap(u64),
    /// All of it was there, and why no more comes.
    End(Totals, Reason),
}

/// What a reader finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Bytes of a frame: all of them, or the next ones.
    Bytes(Header, &'a [u8]),
    /// A frame of a stream is over.
    Over(Header),
    /// The daemon says something.
    Said(Header, Word),
}

/// Bytes that are no frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl Source {
    fn of(byte: u8) -> Option<Self> {
        [Source::Stdout, Source::Stderr, Source::Daemon].into_iter().find(|source| *source as u8 == byte)
    }

    /// As views call it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
            Source::Daemon => "daemon",
        }
    }
}

impl Reason {
    fn of(byte: u8) -> Option<Self> {
        [Reason::Closed, Reason::ClientGone, Reason::Restarted]
            .into_iter()
            .find(|reason| *reason as u8 == byte)
    }

    /// As views call it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Closed => "closed",
            Reason::ClientGone => "client gone",
            Reason::Restarted => "restarted",
        }
    }
}

impl Header {
    /// As it is sent.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.source as u8;
        bytes[1] = self.flags;
        bytes[2..10].copy_from_slice(&self.at_ns.to_be_bytes());
        bytes[10..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    /// The header that these bytes are.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, Malformed> {
        let source = Source::of(bytes[0]).ok_or(Malformed)?;
        let at_ns = u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes"));
        let len = u32::from_be_bytes(bytes[10..].try_into().expect("four bytes"));
        let header = Header { source, flags: bytes[1], at_ns, len };
        let longest = if source == Source::Daemon { WORD_MAX } else { BLOCK as usize };
        let is_known = bytes[1] & !(PARTIAL | GAP | END) == 0;
        (is_known && len as usize <= longest).then_some(header).ok_or(Malformed)
    }
}

impl Totals {
    /// These, with `len` more bytes of `source`.
    pub fn with(mut self, source: Source, len: u64) -> Self {
        match source {
            Source::Stdout => self.stdout += len,
            Source::Stderr => self.stderr += len,
            Source::Daemon => {}
        }
        self
    }
}

impl Word {
    /// The frame that says it.
    pub fn frame(&self, at_ns: u64) -> Vec<u8> {
        let (flags, said) = match self {
            Word::SoFar(totals) => (0, totals.encode().to_vec()),
            Word::Gap(len) => (GAP, len.to_be_bytes().to_vec()),
            Word::End(totals, reason) => (END, [&totals.encode()[..], &[*reason as u8]].concat()),
        };
        let header = Header { source: Source::Daemon, flags, at_ns, len: said.len() as u32 };
        [&header.encode()[..], &said].concat()
    }

    fn parse(flags: u8, said: &[u8]) -> Result<Self, Malformed> {
        let number = |at: usize| {
            said.get(at..at + 8).map(|part| u64::from_be_bytes(part.try_into().expect("eight bytes")))
        };
        let totals = || Some(Totals { stdout: number(0)?, stderr: number(8)?, left_out: number(16)? });
        let word = match (flags, said.len()) {
            (0, 24) => totals().map(Word::SoFar),
            (GAP, 8) => number(0).map(Word::Gap),
            (END, 25) => totals().zip(Reason::of(said[24])).map(|(totals, reason)| Word::End(totals, reason)),
            _ => None,
        };
        word.ok_or(Malformed)
    }
}

impl Totals {
    fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (place, number) in bytes.chunks_exact_mut(8).zip([self.stdout, self.stderr, self.left_out]) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }
}

/// Reads frames from bytes that are cut anywhere.
#[derive(Default)]
pub struct Reader {
    head: [u8; HEADER],
    head_len: usize,
    word: Vec<u8>,
    /// The frame that is being read, and how much of it is to come.
    frame: Option<(Header, usize)>,
}

impl Reader {
    /// Looks at more bytes.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event<'_>)) -> Result<(), Malformed> {
        loop {
            let Some((header, left)) = self.frame else {
                if bytes.is_empty() {
                    return Ok(());
                }
                bytes = self.take_head(bytes)?;
                continue;
            };
            let (part, rest) = bytes.split_at(left.min(bytes.len()));
            match header.source {
                Source::Daemon => self.word.extend_from_slice(part),
                _ if part.is_empty() => {}
                _ => each(Event::Bytes(header, part)),
            }
            if part.len() < left {
                self.frame = Some((header, left - part.len()));
                return Ok(());
            }
            bytes = rest;
            self.frame = None;
            match header.source {
                Source::Daemon => {
                    let word = Word::parse(header.flags, &self.word)?;
                    self.word.clear();
                    each(Event::Said(header, word));
                }
                _ => each(Event::Over(header)),
            }
        }
    }

    fn take_head<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Malformed> {
        if self.head_len == 0 && bytes[0] == 0 {
            let filler = bytes.iter().take_while(|byte| **byte == 0).count();
            return Ok(&bytes[filler..]);
        }
        let (part, rest) = bytes.split_at((HEADER - self.head_len).min(bytes.len()));
        self.head[self.head_len..self.head_len + part.len()].copy_from_slice(part);
        self.head_len += part.len();
        if self.head_len == HEADER {
            self.head_len = 0;
            let header = Header::parse(&self.head)?;
            self.frame = Some((header, header.len as usize));
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(source: Source, flags: u8, bytes: &[u8]) -> Vec<u8> {
        let header = Header { source, flags, at_ns: 7, len: bytes.len() as u32 };
        [&header.encode()[..], bytes].concat()
    }

    /// What there is of both streams, and what the daemon says.
    type All = (Vec<u8>, Vec<u8>, Vec<Word>);

    /// All there is in `bytes`, given in pieces of these lengths.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<All, Malformed> {
        let (mut reader, mut out, mut err, mut words) =
            (Reader::default(), Vec::new(), Vec::new(), Vec::new());
        let mut rest = bytes;
        for cut in cuts.iter().copied().cycle() {
            let (part, behind) = rest.split_at(cut.clamp(1, rest.len().max(1)).min(rest.len()));
            reader.take(part, |event| match event {
                Event::Bytes(Header { source: Source::Stdout, .. }, part) => out.extend_from_slice(part),
                Event::Bytes(_, part) => err.extend_from_slice(part),
                Event::Said(_, word) => words.push(word),
                Event::Over(_) => {}
            })?;
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        Ok((out, err, words))
    }

    #[test]
    fn the_layout_is_as_the_table_says() {
        let header = Header { source: Source::Stderr, flags: PARTIAL, at_ns: 0x0102_0304_0506_0708, len: 3 };
        assert_eq!(header.encode(), [2, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 3]);
        let totals = Totals { stdout: 1, stderr: 2, left_out: 3 };
        let frame = Word::End(totals, Reason::ClientGone).frame(9);
        assert_eq!(frame[..HEADER], [3, 4, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 25]);
        assert_eq!(frame[HEADER + 7], 1);
        assert_eq!(frame.last(), Some(&2));
        assert_eq!(Word::Gap(258).frame(0)[HEADER..], [0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let long = Header { source: Source::Stdout, flags: 0, at_ns: 0, len: BLOCK as u32 + 1 }.encode();
        let unknown = Header { source: Source::Daemon, flags: 0, at_ns: 0, len: 3 }.encode();
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &long,
            &[&unknown[..], b"abc"].concat(),
        ] {
            assert_eq!(read(bytes, &[5]), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        /// Catches a byte that is lost, doubled or given to the other stream where the input is cut.
        #[test]
        fn every_cut_gives_the_same(
            frames in proptest::collection::vec((0..4u8, proptest::collection::vec(any::<u8>(), 0..40), 0..5usize), 0..12),
            cuts in proptest::collection::vec(1..30usize, 1..6),
        ) {
            let (mut bytes, mut out, mut err, mut words) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for (kind, payload, filler) in &frames {
                match kind {
                    0 => { bytes.extend(data(Source::Stdout, 0, payload)); out.extend(payload); }
                    1 => { bytes.extend(data(Source::Stderr, END, payload)); err.extend(payload); }
                    2 => {
                        let word = Word::SoFar(Totals { stdout: payload.len() as u64, ..Totals::default() });
                        bytes.extend(word.frame(1));
                        words.push(word);
                    }
                    _ => {
                        let word = Word::End(Totals { stderr: 5, ..Totals::default() }, Reason::Restarted);
                        bytes.extend(word.frame(1));
                        words.push(word);
                    }
                }
                bytes.extend(vec![0; *filler]);
            }
            prop_assert_eq!(read(&bytes, &cuts), Ok((out, err, words)));
        }

        /// Whatever comes is read or refused.
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, cuts in proptest::collection::vec(1..30usize, 1..6)) {
            let _ = read(&bytes, &cuts);
        }
    }
}

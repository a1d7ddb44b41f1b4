//! What an output is written to: one FIFO whose bytes are the output, or one for each stream whose bytes are framed.
//!
//! Frames are made where bytes land, around them: first a header without a length, then the bytes by splice, then the
//! length. A header lies within one page, so a kill leaves it whole or not there, and the length of an unfinished frame
//! is told by that of the file. Whoever adopts it finishes that frame and goes on.
//!
//! Invariant: up to [`Inflow::landed`] the file has whole frames only, and what is read from a FIFO is in the file or
//! still in the FIFO. Lives on: the output's shard.

use super::frame::{
    BLOCK, END, Event, HEADER, Header, Malformed, PARTIAL, Reader, Reason, Source, Totals, Word,
};
use crate::runtime::ring::fifo::{Fifo, Landing, Take};
use crate::runtime::shard;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// What the kernel writes in one step.
const PAGE: u64 = 4096;

/// See the module.
pub struct Inflow {
    landing: Landing,
    channels: Vec<Channel>,
    /// There for framed output.
    frames: Option<Frames>,
    /// Which channel is looked at first; the others follow, so that none waits for a busy one for ever.
    next: Cell<usize>,
}

/// One FIFO.
struct Channel {
    fifo: Rc<Fifo>,
    source: Source,
    had_writer: Cell<bool>,
    has_ended: Cell<bool>,
}

/// What framing remembers.
struct Frames {
    totals: Cell<Totals>,
    /// Where the last frame begins, once it has landed.
    end_at: Cell<Option<u64>>,
    was_adopted: bool,
}

/// What a look at all FIFOs brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Bytes have landed.
    Bytes,
    /// The FIFO of this number is over; others may not be.
    Ended(usize),
    /// Nothing now, but somebody may write.
    Nothing,
    /// Nobody has opened any for writing.
    Unopened,
    /// Every writer has closed, and all that they wrote has landed.
    Over,
}

/// Which FIFOs an output of `stem` has, in the order of their paths.
pub fn fifos_of(stem: &Path, is_framed: bool) -> Vec<PathBuf> {
    let with = |suffix: &str| {
        let mut path = stem.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    if is_framed { FRAMED.iter().map(|(suffix, _)| with(suffix)).collect() } else { vec![stem.to_owned()] }
}

/// What the names of framed FIFOs end with.
pub const FRAMED: [(&str, Source); 2] = [(".out", Source::Stdout), (".err", Source::Stderr)];

impl Inflow {
    /// Of FIFOs that were just made.
    pub fn new(fifos: Vec<Rc<Fifo>>, landing: Landing) -> Self {
        Self::of(fifos, landing, false, Totals::default(), false)
    }

    /// Of FIFOs that an earlier daemon made. What it was about to frame is framed.
    pub fn adopted(fifos: Vec<Rc<Fifo>>, landing: Landing) -> io::Result<Self> {
        let is_framed = fifos.iter().any(|fifo| source_of(fifo.path()).is_some());
        let (totals, end_at) = if is_framed { finish(&landing)? } else { Default::default() };
        let inflow = Self::of(fifos, landing, true, totals, true);
        if let Some(frames) = &inflow.frames {
            frames.end_at.set(end_at);
        }
        Ok(inflow)
    }

    fn of(
        fifos: Vec<Rc<Fifo>>,
        landing: Landing,
        had_writer: bool,
        totals: Totals,
        was_adopted: bool,
    ) -> Self {
        let is_framed = fifos.iter().any(|fifo| source_of(fifo.path()).is_some());
        let channel = |fifo: Rc<Fifo>| Channel {
            source: source_of(fifo.path()).unwrap_or(Source::Stdout),
            fifo,
            had_writer: Cell::new(had_writer),
            has_ended: Cell::new(false),
        };
        let channels = fifos.into_iter().map(channel).collect();
        let frames =
            is_framed.then(|| Frames { totals: Cell::new(totals), end_at: Cell::default(), was_adopted });
        Inflow { landing, channels, frames, next: Cell::new(0) }
    }

    /// Where the bytes are.
    pub fn landing(&self) -> &Landing {
        &self.landing
    }

    /// Bytes that have landed.
    pub fn landed(&self) -> u64 {
        self.landing.len()
    }

    /// The paths, in their order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.channels.iter().map(|channel| channel.fifo.path().to_owned()).collect()
    }

    /// The path that all of them begin with, and the file's name too.
    pub fn stem(&self) -> PathBuf {
        let path = self.channels[0].fifo.path();
        if self.frames.is_some() { path.with_extension("") } else { path.to_owned() }
    }

    /// How many FIFOs there are that are not over.
    pub fn open_count(&self) -> usize {
        self.channels.iter().filter(|channel| !channel.has_ended.get()).count()
    }

    /// Whether somebody has one of them open for writing; what has been written so far lands.
    pub fn has_writer(&self) -> bool {
        loop {
            match self.take(true, false) {
                Ok(Found::Ended(_)) => {}
                Ok(Found::Bytes) => return self.end_at().is_none(),
                Ok(Found::Unopened | Found::Over) => return false,
                Ok(Found::Nothing) | Err(_) => return true,
            }
        }
    }

    /// Whether what lands is framed.
    pub fn is_framed(&self) -> bool {
        self.frames.is_some()
    }

    /// How much was written to framed FIFOs.
    pub fn totals(&self) -> Option<Totals> {
        self.frames.as_ref().map(|frames| frames.totals.get())
    }

    /// Where the frame begins that says that nothing follows, once it has landed.
    pub fn end_at(&self) -> Option<u64> {
        self.frames.as_ref()?.end_at.get()
    }

    /// Has what is there now land. With `is_last` nobody opens a FIFO any more that nobody has opened yet; `has_client`
    /// says whether who asked is still there.
    pub fn take(&self, is_last: bool, has_client: bool) -> io::Result<Found> {
        if self.end_at().is_some() {
            return Ok(Found::Over);
        }
        let (count, first) = (self.channels.len(), self.next.get());
        let mut is_open = false;
        for step in 0..count {
            let number = (first + step) % count;
            let channel = &self.channels[number];
            if channel.has_ended.get() {
                continue;
            }
            let taken = match &self.frames {
                None => self.take_plain(channel)?,
                Some(frames) => self.take_framed(frames, channel)?,
            };
            match taken {
                Take::Bytes(_) => {
                    channel.had_writer.set(true);
                    self.next.set((number + 1) % count);
                    return Ok(Found::Bytes);
                }
                Take::Nothing => {
                    channel.had_writer.set(true);
                    is_open = true;
                }
                Take::NoWriter if channel.had_writer.get() => {
                    channel.has_ended.set(true);
                    if let Some(frames) = &self.frames {
                        self.end_stream(frames, channel.source)?;
                        return Ok(Found::Ended(number));
                    }
                }
                Take::NoWriter => {}
            }
        }
        let (ended, had) =
            (self.count(|channel| channel.has_ended.get()), self.count(|channel| channel.had_writer.get()));
        if is_open {
            return Ok(Found::Nothing);
        }
        match &self.frames {
            _ if had == 0 => Ok(Found::Unopened),
            // One that nobody has opened may be opened yet, as long as somebody can tell who.
            _ if ended < count && !is_last => Ok(Found::Nothing),
            None => Ok(Found::Over),
            Some(frames) => {
                self.end(frames, has_client)?;
                Ok(Found::Bytes)
            }
        }
    }

    fn count(&self, is_counted: impl Fn(&Channel) -> bool) -> usize {
        self.channels.iter().filter(|channel| is_counted(channel)).count()
    }

    /// Resolves when one of the FIFOs is to be looked at.
    pub async fn readable(&self) {
        let look = |channel: &Channel| (!channel.has_ended.get()).then(|| channel.fifo.clone());
        let mut waits: Vec<_> =
            self.channels.iter().map(|channel| (channel, look(channel).map(wait))).collect();
        std::future::poll_fn(|cx| {
            for (channel, waiting) in &mut waits {
                if waiting.as_mut().is_some_and(|waiting| waiting.as_mut().poll(cx).is_ready()) {
                    // Silent until a first writer has come.
                    channel.had_writer.set(true);
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Takes what is there now and lets it go.
    pub fn discard(&self) -> io::Result<Take> {
        let mut all = Take::NoWriter;
        for channel in &self.channels {
            match channel.fifo.discard()? {
                Take::Bytes(len) => return Ok(Take::Bytes(len)),
                Take::Nothing => all = Take::Nothing,
                Take::NoWriter => channel.has_ended.set(true),
            }
        }
        Ok(all)
    }

    fn take_plain(&self, channel: &Channel) -> io::Result<Take> {
        let at = self.landing.len();
        let taken = channel.fifo.take_to(&self.landing, at, usize::MAX)?;
        if let Take::Bytes(len) = taken {
            self.landing.set_len(at + len as u64);
        }
        Ok(taken)
    }
}

/// Framing.
impl Inflow {
    fn take_framed(&self, frames: &Frames, channel: &Channel) -> io::Result<Take> {
        let (at, mark) = self.place(frames, HEADER + 1);
        let mut header = Header { source: channel.source, flags: 0, at_ns: now_ns(), len: 0 };
        self.landing.write(at, &[&mark[..], &header.encode()].concat())?;
        let (at, from) = (at + mark.len() as u64, at + (mark.len() + HEADER) as u64);
        let room = BLOCK - from % BLOCK;
        let taken = channel.fifo.take_to(&self.landing, from, room as usize)?;
        if let Take::Bytes(len) = taken {
            let mut last = [0];
            self.landing.read(from + len as u64 - 1, &mut last)?;
            header.len = len as u32;
            header.flags = partial(last[0]);
            self.landing.write(at, &header.encode())?;
            self.landing.set_len(from + len as u64);
            frames.totals.set(frames.totals.get().with(channel.source, len as u64));
        }
        Ok(taken)
    }

    fn end_stream(&self, frames: &Frames, source: Source) -> io::Result<()> {
        let header = Header { source, flags: END, at_ns: now_ns(), len: 0 };
        self.put(frames, &header.encode()).map(drop)
    }

    fn end(&self, frames: &Frames, has_client: bool) -> io::Result<()> {
        let word = Word::End(frames.totals.get(), frames.reason(has_client));
        let at = self.put(frames, &word.frame(now_ns()))?;
        frames.end_at.set(Some(at));
        Ok(())
    }

    /// Lands a frame that is whole, and returns where it is.
    fn put(&self, frames: &Frames, frame: &[u8]) -> io::Result<u64> {
        let (at, mark) = self.place(frames, frame.len());
        // A header that no bytes came behind may stand where filler is to be.
        let filler = vec![0; (at - self.landing.len()) as usize];
        if !filler.is_empty() {
            self.landing.write(self.landing.len(), &filler)?;
        }
        self.landing.write(at, &[&mark[..], frame].concat())?;
        let begin = at + mark.len() as u64;
        self.landing.set_len(begin + frame.len() as u64);
        Ok(begin)
    }

    /// Where a frame of which `len` bytes must not be divided goes, and what stands there before it. What lies between
    /// is filler, which a file has by itself.
    fn place(&self, frames: &Frames, len: usize) -> (u64, Vec<u8>) {
        let mut at = self.landing.len();
        if PAGE - at % PAGE < len as u64 {
            at = at.next_multiple_of(PAGE);
        }
        match at % BLOCK {
            0 => (at, Word::SoFar(frames.totals.get()).frame(now_ns())),
            _ => (at, Vec::new()),
        }
    }

    /// The last frame, for a client of which it is known how much it was not given.
    pub fn end_for_client(&self, left_out: u64) -> Vec<u8> {
        let frames = self.frames.as_ref().expect("it is framed");
        Word::End(Totals { left_out, ..frames.totals.get() }, frames.reason(true)).frame(now_ns())
    }
}

impl Frames {
    fn reason(&self, has_client: bool) -> Reason {
        match (self.was_adopted, has_client) {
            (true, _) => Reason::Restarted,
            (false, true) => Reason::Closed,
            (false, false) => Reason::ClientGone,
        }
    }
}

/// What the last byte of a frame says about the line that it ends with.
fn partial(last: u8) -> u8 {
    if last == b'\n' { 0 } else { PARTIAL }
}

fn source_of(path: &Path) -> Option<Source> {
    let name = path.file_name()?.to_str()?;
    FRAMED.into_iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, source)| source)
}

/// Finishes the frame that an earlier daemon was at, and counts what there is. Also where the last frame of all begins,
/// if it is there.
fn finish(landing: &Landing) -> io::Result<(Totals, Option<u64>)> {
    let len = landing.len();
    // A block that nothing is in yet has no count of what was before it.
    let block = len.saturating_sub(1) / BLOCK * BLOCK;
    let mut bytes = vec![0; (len - block) as usize];
    let read = landing.read(block, &mut bytes)?;
    bytes.truncate(read);
    let walked = walk(&bytes)
        .map_err(|Malformed| io::Error::new(io::ErrorKind::InvalidData, "what has landed is no frames"))?;
    match walked.unfinished {
        None => landing.set_len(block + walked.whole as u64),
        Some((header, 0)) => {
            let _ = header;
            landing.cut(block + walked.whole as u64)?;
        }
        Some((header, len)) => {
            let last = bytes.last().copied().unwrap_or_default();
            let header = Header { len: len as u32, flags: partial(last), ..header };
            landing.write(block + walked.whole as u64, &header.encode())?;
        }
    }
    let mut totals = walked.totals;
    if let Some((header, len)) = walked.unfinished {
        totals = totals.with(header.source, len as u64);
    }
    Ok((totals, walked.end_at.map(|at| block + at as u64)))
}

/// What is in a block.
#[derive(Default)]
struct Walked {
    totals: Totals,
    end_at: Option<usize>,
    /// Up to here it is whole frames.
    whole: usize,
    /// The frame behind those, and how many bytes of it there are.
    unfinished: Option<(Header, usize)>,
}

fn walk(bytes: &[u8]) -> Result<Walked, Malformed> {
    let (mut walked, mut at) = (Walked::default(), 0);
    while at < bytes.len() {
        if bytes[at] == 0 {
            at += 1;
            walked.whole = at;
            continue;
        }
        let Some(head) = bytes[at..].first_chunk::<HEADER>() else { break };
        let (header, left) = (Header::parse(head)?, bytes.len() - at - HEADER);
        if header.source != Source::Daemon && header.flags & END == 0 && header.len == 0 {
            walked.unfinished = Some((header, left));
            break;
        }
        let end = at + HEADER + header.len as usize;
        let frame = bytes.get(at..end).ok_or(Malformed)?;
        Reader::default().take(frame, |event| match event {
            Event::Said(_, Word::SoFar(totals)) => walked.totals = totals,
            Event::Said(_, Word::End(..)) => walked.end_at = Some(at),
            Event::Bytes(header, part) => {
                walked.totals = walked.totals.with(header.source, part.len() as u64)
            }
            Event::Said(_, Word::Gap(_)) | Event::Over(_) => {}
        })?;
        at = end;
        walked.whole = at;
    }
    Ok(walked)
}

fn wait(fifo: Rc<Fifo>) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move { fifo.readable().await })
}

fn now_ns() -> u64 {
    shard::current().wall().unix_nanos()
}

//! Lines of a topic's stream: reading them one by one, and finding where to begin.
//!
//! Invariant: a line is given once all of it is there; what is no message, because a crash cut it off, is passed over.
//! Lives on: the reader's shard.

use super::{KeptError, Topic};
use crate::runtime::WallTime;
use crate::service::stream::{Follower, Look, StoreError, Streams, Tail, load};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With the oldest message that is there.
    Start,
    /// With the message at this offset.
    Offset(u64),
    /// With the first message that is at most so old.
    Ago(Duration),
}

/// Below so many bytes lines are looked through one by one.
const LOOK_MAX: u64 = 64 * 1024;
/// A line that is longer than any message can be: the stream is damaged, or not ours.
const LINE_MAX: usize = 16 << 20;

/// A line of a topic.
pub struct Line {
    /// Where it begins.
    pub at: u64,
    /// Where the next one does.
    pub next: u64,
    text: Vec<u8>,
}

impl Line {
    /// The message up to its time, without the closing brace; and the time. `None` when it is no whole message.
    pub fn message(&self) -> Option<(&[u8], u64)> {
        const KEY: &[u8] = b",\"Time\":";
        let inner = self.text.strip_suffix(b"}")?;
        let at = memchr::memmem::rfind(inner, KEY)?;
        let digits = std::str::from_utf8(&inner[at + KEY.len()..]).ok()?;
        let time = digits.parse().ok().filter(|_| self.text.starts_with(b"{\"Header\":"))?;
        Some((inner, time))
    }
}

/// Reads lines.
pub struct Lines {
    follower: Follower,
    /// What was read and not given, from `at` on.
    read: Vec<u8>,
    used: usize,
    at: u64,
}

impl Lines {
    /// From `from` on, as they come.
    pub fn follow(streams: &Rc<Streams>, tail: Arc<Tail>, from: u64) -> Self {
        Self::over(streams.follow(tail, from), from)
    }

    fn until(streams: &Rc<Streams>, tail: Arc<Tail>, from: u64, end: u64) -> Self {
        Self::over(streams.read(tail, from, end), from)
    }

    fn over(follower: Follower, at: u64) -> Self {
        Lines { follower, read: Vec::new(), used: 0, at }
    }

    /// Where the next line begins.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// A line that has been read, without waiting.
    pub fn ready(&mut self) -> Option<Line> {
        let rest = &self.read[self.used..];
        let len = memchr::memchr(b'\n', rest)?;
        let line = Line { at: self.at, next: self.at + len as u64 + 1, text: rest[..len].to_vec() };
        self.used += len + 1;
        self.at = line.next;
        Some(line)
    }

    /// The next line; `None` when the stream ends, or is read as far as was asked for. Who drops this half-way reads on with
    /// other lines, or none.
    pub async fn next(&mut self) -> Result<Option<Line>, StoreError> {
        loop {
            if let Some(line) = self.ready() {
                return Ok(Some(line));
            }
            self.read.drain(..self.used);
            self.used = 0;
            if self.read.len() > LINE_MAX {
                return Err(StoreError::Gone);
            }
            match self.follower.next().await? {
                Look::End(_) => return Ok(None),
                Look::Ready(range) => self.read.extend(load(range).await?),
            }
        }
    }
}

/// The byte at an offset; `None` where there is none.
pub async fn byte_at(streams: &Rc<Streams>, tail: &Arc<Tail>, at: u64) -> Result<Option<u8>, StoreError> {
    match streams.read(tail.clone(), at, at + 1).next().await? {
        Look::Ready(range) => Ok(load(range).await?.first().copied()),
        Look::End(_) => Ok(None),
    }
}

/// Where a reader begins that asks for `since`.
pub async fn begin(
    streams: &Rc<Streams>,
    topic: &Topic,
    since: Since,
    now: WallTime,
) -> Result<u64, KeptError> {
    let Topic { tail, end } = topic;
    let first = first_line(streams, tail, *end).await?;
    match since {
        Since::Start => Ok(first),
        Since::Ago(age) => {
            let oldest = now.unix_millis().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            Ok(find(streams, tail, first, *end, oldest).await?)
        }
        Since::Offset(at) if at > *end => Err(KeptError::Beyond(*end)),
        Since::Offset(at) if at < first => Err(KeptError::Trimmed(first)),
        Since::Offset(at) if at == first || byte_at(streams, tail, at - 1).await? == Some(b'\n') => Ok(at),
        Since::Offset(at) => Err(KeptError::NoMessage(at)),
    }
}

/// Where the first whole line begins: retention takes beginnings by whole runs, wherever lines are.
async fn first_line(streams: &Rc<Streams>, tail: &Arc<Tail>, end: u64) -> Result<u64, StoreError> {
    match tail.first() {
        0 => Ok(0),
        first => {
            let mut lines = Lines::until(streams, tail.clone(), first, end);
            Ok(lines.next().await?.map_or(end, |line| line.next))
        }
    }
}

/// The first line from `first` on whose time is at least `oldest`.
async fn find(
    streams: &Rc<Streams>,
    tail: &Arc<Tail>,
    first: u64,
    end: u64,
    oldest: u64,
) -> Result<u64, StoreError> {
    // Every line before `low`, which begins one, is too old; `high` only says where looking is worth it.
    let (mut low, mut high) = (first, end);
    while high > low + LOOK_MAX {
        let middle = low + (high - low) / 2;
        let mut lines = Lines::until(streams, tail.clone(), middle, high);
        // The first one may have begun before the middle.
        let _ = lines.next().await?;
        let mut probe = lines.next().await?;
        while probe.as_ref().is_some_and(|line| line.message().is_none()) {
            probe = lines.next().await?;
        }
        match probe.as_ref().and_then(|line| Some((line.next, line.message()?.1))) {
            Some((next, time)) if time < oldest => low = next,
            _ => high = middle,
        }
    }
    let mut lines = Lines::until(streams, tail.clone(), low, end);
    while let Some(line) = lines.next().await? {
        if line.message().is_some_and(|(_, time)| time >= oldest) {
            return Ok(line.at);
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_cut_off_is_no_message() {
        let whole = r#"{"Header":{"a":"\",\"Time\":1}"},"Body":"eA==","Time":1700000000000}"#;
        let line = |text: &str| Line { at: 0, next: 0, text: text.as_bytes().to_vec() };
        let of = |text: &str| line(text).message().map(|(message, time)| (message.len(), time));
        assert_eq!(of(whole), Some((whole.len() - 1, 1_700_000_000_000)));
        for cut in 0..whole.len() {
            assert_eq!(of(&whole[..cut]), None, "{}", &whole[..cut]);
        }
        assert_eq!(of(&format!("{}{whole}", &whole[..30])).map(|(_, time)| time), Some(1_700_000_000_000));
    }
}

//! The runs that living names refer to, one by one, and the check of their windows.
//!
//! Runs on any thread but a shard's; blocks.

use super::super::body::BODIES;
use super::super::extent::{Extent, LogId, WINDOW};
use super::super::links::Link;
use super::super::names::Entry;
use super::super::placement::Key;
use super::super::tail::{Place, Placed, State};
use super::Inspection;
use super::damage::{Damage, Lost, Name, What};
use super::repair::LostWindow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A run of a stream.
pub struct LivingRun<'a> {
    /// Whose segment.
    pub log: LogId,
    /// Which.
    pub segment: u32,
    /// The file's position of its first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// The stream's position of its first byte.
    pub start: u64,
    /// The epoch it was written in.
    pub epoch: u64,
    entry: &'a Entry,
    links: &'a Links,
    placed: &'a Placed,
    place: Arc<Place>,
    file: PathBuf,
}

impl Inspection {
    /// Every run that a name refers to, whole or damaged, stream by stream.
    pub fn runs(&self) -> impl Iterator<Item = LivingRun<'_>> {
        let entries = self.look.iter().flat_map(|look| look.owned.names.iter().flatten());
        entries.flat_map(|entry| {
            entry.tail.runs().iter().filter_map(|placed| {
                let place = placed.place()?;
                let file = self.relative(&place.segment.path);
                Some(LivingRun {
                    links: &self.links,
                    log: place.segment.log,
                    segment: place.segment.number,
                    offset: place.offset,
                    len: placed.len(),
                    start: placed.start(),
                    epoch: placed.epoch,
                    entry,
                    placed,
                    place,
                    file,
                })
            })
        })
    }
}

/// Which names stand for which bytes of bodies.
#[derive(Default)]
pub struct Links(HashMap<u64, Vec<(Range<u64>, Key)>>);

impl Links {
    /// Those that are alive.
    pub fn of(links: &[Vec<Link>]) -> Self {
        let mut bodies: HashMap<u64, Vec<(Range<u64>, Key)>> = HashMap::new();
        for link in links.iter().flatten() {
            for part in link.parts.as_slice() {
                let bytes = part.from()..part.from() + part.len();
                bodies.entry(part.body().tail().uid()).or_default().push((bytes, link.key().to_key()));
            }
        }
        Links(bodies)
    }

    fn names_of(&self, uid: u64, range: Range<u64>) -> Vec<Name> {
        let parts = self.0.get(&uid).into_iter().flatten();
        let hit = parts.filter(|(bytes, _)| bytes.start < range.end && range.start < bytes.end);
        hit.map(|(_, key)| Name { key_hash: key.hash(), key: Some(key.clone()) }).collect()
    }
}

impl LivingRun<'_> {
    /// The stream's name.
    pub fn name(&self) -> Name {
        Name { key_hash: self.entry.tail.key_hash(), key: Some(self.entry.key().to_key()) }
    }

    /// The stream's number.
    pub fn uid(&self) -> u64 {
        self.entry.tail.uid()
    }

    /// How the stream stands.
    pub fn state(&self) -> State {
        self.entry.tail.state()
    }

    /// How many windows it has.
    pub fn windows(&self) -> u64 {
        Extent::window_count(self.len) as u64
    }

    /// The bytes of one of them.
    pub fn window_len(&self, window: u64) -> u64 {
        (self.len - window * WINDOW).min(WINDOW)
    }

    /// Reads one of its windows into `buffer` and compares; damage if that is not what was written.
    pub fn check(&self, window: u64, buffer: &mut Vec<u8>) -> Option<Damage> {
        let (at, len) = (window * WINDOW, self.window_len(window));
        buffer.resize(len as usize, 0);
        let read = self.place.segment.file.read_exact_at(buffer, self.offset + at);
        let unreadable = match read {
            Ok(()) if self.placed.window(window as usize).crc() == Some(crc32fast::hash(buffer)) => {
                return None;
            }
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        let from = self.start + at;
        Some(Damage {
            file: self.file.clone(),
            at: Some(self.offset + at),
            what: What::Window { len, unreadable },
            lost: match self.entry.key().space {
                BODIES => Lost::Linked(self.links.names_of(self.uid(), from..from + len)),
                _ => Lost::Bytes { name: self.name(), from, to: Some(from + len) },
            },
        })
    }

    /// What a repair has to know of a window that was just read into `buffer` and is damaged.
    pub(super) fn lost(&self, window: u64, buffer: &[u8], damage: &Damage) -> LostWindow {
        let from = self.start + window * WINDOW;
        LostWindow {
            uid: self.uid(),
            run: self.start,
            index: window as usize,
            bytes: from..from + self.window_len(window),
            crc: crc32fast::hash(buffer),
            unreadable: !matches!(damage.what, What::Window { unreadable: None, .. }),
        }
    }
}

//! Finding a blob and reading it from any shard.
//!
//! Invariant: whoever holds a [`Blob`] can read all of it, whatever becomes of its name.
//! Lives on: the reader's shard.

use super::message::{Answer, Ask, Found};
use super::remote::{Incoming, Object};
use super::{BlobError, Blobs, Look, Name, Properties, StoreError, ask};
use crate::runtime::{FileRange, shard};
use crate::service::outflow::{Piece, Source};
use crate::service::stream::Follower;
use crate::service::warm::{self, LARGE, PIECE_MAX};
use crate::storage::{Link, Parts, State, Tail};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

/// What a name stood for when it was looked up. Holds the bytes.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its name.
    pub name: Name,
    /// Its length.
    pub size: u64,
    /// When it was put, in milliseconds since 1970.
    pub created_ms: u64,
    /// Its version: greater than that of everything the name stood for before.
    pub version: u64,
    /// What is kept beside the bytes.
    pub properties: Arc<Properties>,
    pub(super) content: Content,
}

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// In parts of bodies.
    Link(Link),
    /// In a stream, from `first` on.
    Stream { tail: Arc<Tail>, first: u64 },
    /// In a store elsewhere.
    Remote(Object),
}

impl Blob {
    pub(in crate::service) fn new(name: Name, link: Link) -> Self {
        // What is not ours to read shows as nothing; the bytes are what they are.
        let properties = Arc::new(Properties::decode(link.attributes()).unwrap_or_default());
        let (size, created_ms, version) = (link.parts.len(), link.created_ms, link.version);
        Blob { name, size, created_ms, version, properties, content: Content::Link(link) }
    }

    /// The parts of bodies that it stands for; nothing for a stream.
    pub(super) fn parts(&self) -> Option<&Parts> {
        match &self.content {
            Content::Link(link) => Some(&link.parts),
            Content::Stream { .. } | Content::Remote(_) => None,
        }
    }

    /// What it is in a store elsewhere.
    pub(super) fn object(&self) -> Option<&Object> {
        match &self.content {
            Content::Remote(object) => Some(object),
            Content::Link(_) | Content::Stream { .. } => None,
        }
    }
}

impl Blobs {
    /// The blob that `name` stands for; `None` when there is none. Without the container it is an error.
    pub async fn find(self: &Rc<Self>, name: &Name) -> Result<Option<Blob>, BlobError> {
        self.admit(name)?;
        if name.needs_container()
            && let Some(door) = self.door_to(name.container())
        {
            return door.find(name).await;
        }
        let found = match self.owner_of(name) {
            // No message, and no task for its answer.
            owner if owner == shard::current().id() => self.look_up(name).await,
            owner => ask!(self, owner, Ask::Find(name.clone()), Answer::Found),
        };
        Ok(found?.map(|link| Blob::new(name.clone(), link)))
    }

    /// Reads bytes `from..to` of `blob`, which must be within it.
    pub fn read(self: &Rc<Self>, blob: &Blob, from: u64, to: u64) -> Reader {
        assert!(from <= to && to <= blob.size, "a blob has no other bytes");
        let link = match &blob.content {
            Content::Link(link) => link.clone(),
            Content::Stream { tail, first } => {
                let streams = self.door.get().expect("streams come through it").streams();
                return Reader::Stream(streams.read(tail.clone(), first + from, first + to), *first);
            }
            Content::Remote(_) => unreachable!("the driver reads what is elsewhere"),
        };
        let (blobs, position, until) = (self.clone(), from, to);
        let mut parted = Parted { blobs, link, part: 0, before: 0, position, until, owes_turn: false };
        parted.find_part();
        Reader::Put(parted)
    }

    /// All bytes of a blob that fits into memory.
    pub async fn read_whole(self: &Rc<Self>, blob: &Blob) -> Result<Vec<u8>, BlobError> {
        let mut reader = self.read(blob, 0, blob.size);
        let mut bytes = Vec::with_capacity(blob.size as usize);
        loop {
            match reader.next().await? {
                Piece::Stored(range) => bytes.extend(warm::load(range).await?),
                Piece::Loaded(piece) => bytes.extend(piece),
                Piece::End(_) => break,
            }
        }
        Ok(bytes)
    }

    pub(super) async fn look_up(&self, name: &Name) -> Result<Found, BlobError> {
        let links = self.store.links();
        let found = links.get(&name.store_key())?;
        links.committed(&found).await?;
        Ok(found.link)
    }
}

/// Reads one blob.
pub enum Reader {
    /// One that was put.
    Put(Parted),
    /// A view of a stream, which begins so many bytes behind the stream's own beginning.
    Stream(Follower, u64),
    /// One in a store elsewhere.
    Remote(Box<Incoming>),
}

impl Reader {
    /// The position of the next byte.
    pub fn position(&self) -> u64 {
        match self {
            Reader::Put(parted) => parted.position,
            Reader::Stream(follower, first) => follower.position() - first,
            Reader::Remote(incoming) => incoming.position(),
        }
    }

    /// What is there without waiting for the disk or for others' turns; [`Piece::End`] when all was given, or when a
    /// stream was deleted meanwhile.
    pub fn look(&mut self) -> Result<Option<Piece>, BlobError> {
        match self {
            Reader::Put(parted) => Ok(parted.look()?.map(Piece::from)),
            Reader::Stream(follower, _) => Ok(follower.look()?.map(Piece::from)),
            Reader::Remote(_) => Ok(None),
        }
    }

    /// Waits for the next piece, which is in memory and checked then.
    pub async fn next(&mut self) -> Result<Piece, BlobError> {
        match self {
            Reader::Put(parted) => Ok(parted.next().await?.into()),
            Reader::Stream(follower, _) => Ok(follower.next().await?.into()),
            Reader::Remote(incoming) => match incoming.next().await? {
                piece if piece.is_empty() => Ok(Piece::End(State::Complete)),
                piece => Ok(Piece::Loaded(piece)),
            },
        }
    }
}

impl Source for Reader {
    type Error = BlobError;

    fn look(&mut self) -> Result<Option<Piece>, BlobError> {
        Reader::look(self)
    }

    async fn next(&mut self) -> Result<Piece, BlobError> {
        Reader::next(self).await
    }
}

/// Reads the parts of a link one after the other.
pub struct Parted {
    blobs: Rc<Blobs>,
    link: Link,
    /// The part with the position in it, and how many bytes are before it.
    part: usize,
    before: u64,
    position: u64,
    until: u64,
    /// A large piece was given and nobody else had a turn since.
    owes_turn: bool,
}

/// A piece that comes next: where it lies in its body, and in the file.
struct Next {
    tail: Arc<Tail>,
    at: u64,
    range: FileRange,
}

impl Parted {
    fn look(&mut self) -> Result<Option<Look>, StoreError> {
        if self.owes_turn {
            return Ok(None);
        }
        match self.peek()? {
            None => Ok(Some(Look::End(State::Complete))),
            Some(next) if warm::is_warm_in_whole(&next.tail, next.at, &next.range) => {
                Ok(Some(self.give(next.range)))
            }
            Some(_) => Ok(None),
        }
    }

    async fn next(&mut self) -> Result<Look, StoreError> {
        if mem::take(&mut self.owes_turn) {
            shard::yield_now().await;
        }
        let Some(next) = self.peek()? else { return Ok(Look::End(State::Complete)) };
        if !warm::is_warm_in_whole(&next.tail, next.at, &next.range) {
            warm::warm(&self.blobs.store, &next.tail, next.at, &next.range).await?;
        }
        Ok(self.give(next.range))
    }

    fn peek(&self) -> Result<Option<Next>, StoreError> {
        if self.position == self.until {
            return Ok(None);
        }
        let part = &self.link.parts.as_slice()[self.part];
        let within = self.position - self.before;
        let (tail, at) = (part.body().tail(), part.from() + within);
        let len = (part.len() - within).min(self.until - self.position).min(PIECE_MAX);
        // Only a failed sync takes bytes away that a link stands for.
        let range = tail.range(at, len).ok_or(StoreError::SyncFailed)?;
        Ok(Some(Next { tail: tail.clone(), at, range }))
    }

    fn give(&mut self, range: FileRange) -> Look {
        self.position += range.len;
        self.owes_turn = range.len >= LARGE;
        self.blobs.metrics.blob_delivered_bytes.add(range.len);
        self.find_part();
        Look::Ready(range)
    }

    fn find_part(&mut self) {
        let parts = self.link.parts.as_slice();
        while let Some(part) = parts.get(self.part)
            && self.before + part.len() <= self.position
        {
            self.before += part.len();
            self.part += 1;
        }
    }
}

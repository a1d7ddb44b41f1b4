//! Putting a blob: bytes from a connection into the store, then one record at the owner of the name.
//!
//! What is small travels to the owner, who packs it; what is not gets a body of its own on this shard. Invariant:
//! nothing stands for bytes that are not all there. An upload that is dropped leaves nothing behind.
//! Lives on: the connection's shard; the decision on the owner's.

use super::message::{Answer, Ask, Content, Target};
use super::pack::PACKED_MAX;
use super::{Blob, BlobError, Blobs, Name, Properties, When, ask};
use crate::runtime::gate::Pass;
use crate::runtime::{notify, shard};
use crate::storage::{Appender, Body, GROUPED, Linked, Part, Parts, StoreError};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// Most bytes that one receive brings; room for so many is asked for ahead of it.
const RECEIVE_MAX: usize = 256 * 1024;
/// Pieces below this are gathered: a copy is cheaper than a write of their own.
const SMALL: usize = 16 * 1024;

/// A blob on its way in. Dropping it takes it back.
pub struct Upload {
    blobs: Rc<Blobs>,
    target: Target,
    /// Once there is more than goes into a pack.
    body: Option<(Arc<Body>, Appender)>,
    /// How many bytes can be appended at once.
    room: usize,
    /// Received and not appended: all of it while there is no body, then small pieces and what was beyond the room.
    spill: Vec<u8>,
    size: u64,
    /// More was received than the quota allows.
    over: Option<BlobError>,
    failed: Option<StoreError>,
    pass: Pass,
}

/// What was put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its length.
    pub size: u64,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// Its version: greater than that of everything the name stood for before.
    pub version: u64,
    /// Whether it took another one's place, if that is known.
    pub replaced: bool,
    /// The entity tag, where a store elsewhere has given one of its own.
    pub etag: Option<Box<str>>,
}

impl Blobs {
    /// Begins to put a blob whose bytes come now. `announced` is its length if that is known: what cannot fit is
    /// refused before a byte is taken.
    pub async fn put(self: &Rc<Self>, name: Name, announced: Option<u64>) -> Result<Upload, BlobError> {
        self.upload(Target::Blob(name), announced)
    }

    pub(super) fn upload(
        self: &Rc<Self>,
        target: Target,
        announced: Option<u64>,
    ) -> Result<Upload, BlobError> {
        self.demand_writable(target.name())?;
        let pass = self.putting.enter().ok_or(StoreError::Closing)?;
        self.limits.get().admit(self.bytes(), announced.unwrap_or(0))?;
        let body = match announced {
            Some(len) if len > PACKED_MAX as u64 => {
                let (body, mut appender) = self.store.new_body()?;
                appender.expect_end(len);
                Some((body, appender))
            }
            _ => None,
        };
        let (blobs, spill) = (self.clone(), Vec::new());
        Ok(Upload { blobs, target, body, room: 0, spill, size: 0, over: None, failed: None, pass })
    }

    /// Has `to` stand for the bytes of `from`, none of which is copied, with `properties`.
    pub async fn copy(
        self: &Rc<Self>,
        from: &Blob,
        to: Name,
        properties: Properties,
        when: When,
    ) -> Result<Stored, BlobError> {
        self.link(Target::Blob(to), from, 0..from.size, properties, when).await
    }

    /// Has `target` stand for some bytes of `source`.
    pub(super) async fn link(
        self: &Rc<Self>,
        target: Target,
        source: &Blob,
        range: Range<u64>,
        properties: Properties,
        when: When,
    ) -> Result<Stored, BlobError> {
        properties.check().map_err(BlobError::PropertiesTooLong)?;
        self.demand_writable(target.name())?;
        let content = Content::Parts(cut(source.parts().ok_or(BlobError::NotCopied)?, range));
        let _pass = self.putting.enter().ok_or(StoreError::Closing)?;
        self.ask_put(target, content, properties.encode(), when).await
    }

    async fn ask_put(
        self: &Rc<Self>,
        target: Target,
        content: Content,
        properties: Box<[u8]>,
        when: When,
    ) -> Result<Stored, BlobError> {
        let owner = self.owner_of(target.name());
        ask!(self, owner, Ask::Put { target, content, properties, when }, Answer::Stored)
    }
}

/// The bytes `range` of what `parts` hold.
fn cut(parts: &Parts, range: Range<u64>) -> Vec<Part> {
    let mut at = 0;
    let mut cut = Vec::new();
    for part in parts.as_slice() {
        let (first, end) = (at.max(range.start), (at + part.len()).min(range.end));
        if first < end {
            cut.push(Part::new(part.body().clone(), part.from() + (first - at), end - first));
        }
        at += part.len();
    }
    cut
}

impl Upload {
    /// Writes what the last receive brought, and waits for room for the next one. To be called before the first
    /// receive and after each one.
    pub async fn make_room(&mut self) -> Result<(), BlobError> {
        self.check()?;
        if self.body.is_none() {
            if self.spill.len() <= PACKED_MAX {
                return Ok(());
            }
            self.body = Some(self.blobs.store.new_body()?);
        }
        let Some((_, appender)) = &mut self.body else { unreachable!("there is one now") };
        write(&self.blobs, appender, &mut self.spill).await?;
        self.room = appender.reserve(RECEIVE_MAX).await?;
        Ok(())
    }

    /// Appends what a receive brought, without waiting. An error shows at the next [`Upload::make_room`] or
    /// [`Upload::commit`].
    pub fn take(&mut self, bytes: &[u8]) {
        if self.failed.is_some() || self.over.is_some() {
            return;
        }
        let more = (self.spill.len() + bytes.len()) as u64;
        if let Err(over) = self.blobs.limits.get().admit(self.blobs.bytes(), more) {
            self.over = Some(over);
            return;
        }
        self.size += bytes.len() as u64;
        let mut rest = bytes;
        if let Some((_, appender)) = &mut self.body
            && self.spill.is_empty()
            && bytes.len() >= SMALL
            && !appender.is_slow()
        {
            let (now, later) = bytes.split_at(self.room.min(bytes.len()));
            if !now.is_empty() {
                match appender.append(now) {
                    Ok(()) => self.blobs.metrics.blob_received_bytes.add(now.len() as u64),
                    Err(error) => self.failed = Some(error),
                }
                self.room -= now.len();
            }
            rest = later;
        }
        self.spill.extend_from_slice(rest);
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn check(&self) -> Result<(), BlobError> {
        match (&self.failed, &self.over) {
            (Some(error), _) => Err(error.clone().into()),
            (None, Some(over)) => Err(over.clone()),
            (None, None) => Ok(()),
        }
    }

    /// Has the name stand for the bytes, if `when` holds. Resolves once that is committed in the store's class; goes on
    /// once polled, whether or not anyone waits.
    pub async fn commit(self, properties: Properties, when: When) -> Result<Stored, BlobError> {
        properties.check().map_err(BlobError::PropertiesTooLong)?;
        self.check()?;
        let (answerer, answer) = notify::answer();
        shard::spawn("commit a blob", async move {
            answerer.give(self.commit_on_shard(properties.encode(), when).await);
        });
        answer.await.unwrap_or(Err(BlobError::Store(StoreError::Closing)))
    }

    async fn commit_on_shard(mut self, properties: Box<[u8]>, when: When) -> Result<Stored, BlobError> {
        if self.body.is_none() && self.spill.len() > PACKED_MAX {
            self.body = Some(self.blobs.store.new_body()?);
        }
        let content = match self.body {
            None => Content::Small(self.spill.into()),
            Some((body, mut appender)) => {
                write(&self.blobs, &mut appender, &mut self.spill).await?;
                let len = self.blobs.store.commit_body(&body, appender).await?;
                assert_eq!(len, self.size, "everything that was taken is there");
                Content::Parts(if len > 0 { vec![Part::new(body, 0, len)] } else { Vec::new() })
            }
        };
        let stored = self.blobs.ask_put(self.target, content, properties, when).await;
        drop(self.pass);
        stored
    }
}

/// Appends all that was gathered.
async fn write(blobs: &Blobs, appender: &mut Appender, spill: &mut Vec<u8>) -> Result<(), StoreError> {
    let mut written = 0;
    while written < spill.len() {
        let room = appender.reserve(spill.len() - written).await?;
        let piece = &spill[written..written + room];
        match appender.is_slow() {
            true => appender.append_in_worker(piece.to_vec()).await?,
            false => appender.append(piece)?,
        }
        blobs.metrics.blob_received_bytes.add(room as u64);
        written += room;
    }
    spill.clear();
    // A thousand slow uploads must not hold a thousand receives.
    spill.shrink_to(SMALL);
    Ok(())
}

/// For the owner's shard.
impl Blobs {
    /// Has a few bytes in this shard's pack, for a name that it owns and decides about next.
    pub(in crate::service) async fn pack(&self, bytes: &[u8]) -> Result<Parts, StoreError> {
        Ok(self.packer.append(&self.store, bytes).await?.into_iter().collect())
    }

    pub(super) async fn decide_put(
        self: Rc<Self>,
        target: Target,
        content: Content,
        properties: Box<[u8]>,
        when: When,
    ) -> Result<Stored, BlobError> {
        let parts: Parts = match content {
            Content::Parts(parts) => parts.into_iter().collect(),
            Content::Small(bytes) => self.packer.append(&self.store, &bytes).await?.into_iter().collect(),
        };
        self.enter(target.name()).await?;
        // From here to the decision nothing waits, so decisions about a name have an order.
        let key = match &target {
            Target::Blob(name) => {
                self.judge(name, &when).await?;
                name.store_key()
            }
            Target::Part(name, id, number) => {
                let upload = self.store.links().get(&id.key(name))?;
                if upload.link.is_none() {
                    self.store.links().committed(&upload).await?;
                    return Err(BlobError::NoSuchUpload);
                }
                id.part_key(name, *number)
            }
        };
        let stored = self.decide_link(key, parts, properties)?;
        self.store.links().committed(&stored.0).await?;
        Ok(stored.1)
    }

    /// Decides that `key` stands for `parts`. The one place where a blob begins to be.
    pub(super) fn decide_link(
        &self,
        key: crate::storage::Key,
        parts: Parts,
        properties: Box<[u8]>,
    ) -> Result<(Linked, Stored), BlobError> {
        let links = self.store.links();
        let replaced = links.look(&key).link.is_some();
        self.churned.set(self.churned.get() || replaced);
        // Groups are of dialects that have no such limit.
        let count_max = self.limits.get().blobs.filter(|_| key.space < GROUPED).unwrap_or(u64::MAX);
        let size = parts.len();
        let Some(put) = links.put(key, properties, parts, count_max)? else {
            return Err(BlobError::Count(count_max));
        };
        let link = put.link.as_ref().expect("just put");
        let stored =
            Stored { size, created_ms: link.created_ms, version: link.version, replaced, etag: None };
        Ok((put, stored))
    }

    /// Whether `when` holds for what `name` stands for. If it does this does not wait.
    pub(super) async fn judge(&self, name: &Name, when: &When) -> Result<(), BlobError> {
        if *when == When::default() {
            return Ok(());
        }
        let links = self.store.links();
        let found = links.get(&name.store_key())?;
        let etag =
            found.link.as_ref().map(|link| Properties::decode(link.attributes()).unwrap_or_default().etag);
        let refusal = match (&when.matches, &when.matches_none, &etag) {
            (Some(_), _, None) => BlobError::NoSuchBlob,
            (Some(tags), _, Some(etag)) if !tags.include(etag) => BlobError::Precondition,
            (_, Some(tags), Some(etag)) if tags.include(etag) => BlobError::Precondition,
            _ => return Ok(()),
        };
        // What it rests on may be taken back: nobody is refused for that.
        links.committed(&found).await?;
        Err(refusal)
    }

    /// Deletes what `name` stands for; false when there was nothing, which `when` may forbid.
    pub async fn delete(self: &Rc<Self>, name: &Name, when: When) -> Result<bool, BlobError> {
        self.demand_writable(name)?;
        ask!(self, self.owner_of(name), Ask::Delete(name.clone(), when), Answer::Changed)
    }

    pub(super) async fn decide_delete(self: Rc<Self>, name: Name, when: When) -> Result<bool, BlobError> {
        self.judge(&name, &when).await?;
        let (links, key) = (self.store.links(), name.store_key());
        let found = links.look(&key);
        match links.delete(&key)? {
            Some(ticket) => {
                self.churned.set(true);
                links.committed(&Linked { link: None, ticket }).await?;
                Ok(found.link.is_some())
            }
            None => {
                links.committed(&found).await?;
                Ok(false)
            }
        }
    }
}

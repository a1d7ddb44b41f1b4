//! Blobs that come in parts, in any order and over any connections, and are composed without a copy.
//!
//! An upload and its parts have names of their own that belong to the owner of the final name; completing is one record
//! there. Invariant: what belongs to an upload goes in the turn in which it is completed or aborted.
//! Lives on: any shard; decisions on the owner's.

use super::message::{Answer, Ask, Target};
use super::put::Upload;
use super::{Blob, BlobError, Blobs, Name, Properties, Stored, When, ask};
use crate::runtime::shard;
use crate::service::owner::space;
use crate::storage::{Key, KeyRef, Link, Linked, PARTS_MAX, StoreError};
use std::ops::{Bound, Range};
use std::rc::Rc;

/// Tells uploads of one name apart: 32 lower-case hexadecimal digits, by chance; or what another store has given.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UploadId(Box<str>);

impl UploadId {
    /// Digits of an id.
    const LEN: usize = 32;

    /// The longest one that another store may give.
    const LEN_MAX: usize = 1024;

    /// An id as somebody sent it, if it can be one.
    pub fn parse(text: &str) -> Option<Self> {
        let fits =
            (1..=Self::LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| UploadId(text.into()))
    }

    /// One behind all of ours.
    pub(super) fn last() -> Self {
        UploadId("f".repeat(Self::LEN).into())
    }

    /// Refuses what we have not given.
    fn demand_ours(&self) -> Result<(), BlobError> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match self.0.len() == Self::LEN && self.0.bytes().all(is_hex) {
            true => Ok(()),
            false => Err(BlobError::NoSuchUpload),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn generate() -> Self {
        let shard = shard::current();
        UploadId(format!("{:016x}{:016x}", shard.entropy().next(), shard.entropy().next()).into())
    }

    pub(super) fn key(&self, name: &Name) -> Key {
        name.companion(space::UPLOADS, self.0.as_bytes())
    }

    pub(super) fn part_key(&self, name: &Name, number: u16) -> Key {
        name.companion(space::PARTS, &[self.0.as_bytes(), &number.to_be_bytes()].concat())
    }
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug)]
pub struct Multipart {
    /// What will stand for the parts.
    pub name: Name,
    /// Which of the name's uploads.
    pub id: UploadId,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: u64,
    /// What the blob will have, as far as it is known; no entity tag.
    pub properties: Properties,
}

/// A part that is there.
#[derive(Clone, Debug)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u16,
    /// Its bytes, with its own properties.
    pub blob: Blob,
}

/// A part that is to be composed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartOf {
    /// Its number.
    pub number: u16,
    /// The entity tag that it must have.
    pub etag: Box<str>,
}

/// An upload and the parts of a page, one more than fits.
pub type PartsOf = (Link, Vec<(u16, Link)>);

/// One owner's uploads.
pub type Uploads = Vec<(Name, UploadId, Link)>;

impl Blobs {
    /// Begins an upload. `properties` are those of the final blob.
    pub async fn begin(self: &Rc<Self>, name: &Name, properties: Properties) -> Result<UploadId, BlobError> {
        self.demand_writable(name)?;
        properties.check().map_err(BlobError::PropertiesTooLong)?;
        ask!(self, self.owner_of(name), Ask::Begin(name.clone(), properties.encode()), Answer::Begun)
    }

    /// Begins to put a part, in place of one with that number; [`Upload::commit`] puts it.
    pub async fn put_part(
        self: &Rc<Self>,
        name: &Name,
        id: &UploadId,
        number: u16,
        announced: Option<u64>,
    ) -> Result<Upload, BlobError> {
        self.demand_writable(name)?;
        // Looked at before the bytes come, and again when they are there; an id that is not ours is found out here.
        self.parts(name, id, u16::MAX, 0).await?;
        self.upload(Target::Part(name.clone(), id.clone(), number), announced)
    }

    /// Puts bytes `range` of `source` as a part; none of them is copied.
    pub async fn copy_part(
        self: &Rc<Self>,
        source: &Blob,
        range: Range<u64>,
        name: &Name,
        id: &UploadId,
        number: u16,
        properties: Properties,
    ) -> Result<Stored, BlobError> {
        id.demand_ours()?;
        let target = Target::Part(name.clone(), id.clone(), number);
        self.link(target, source, range, properties, When::default()).await
    }

    /// The upload, and its parts above number `after`, at most `limit`, in order; and whether there are more.
    pub async fn parts(
        self: &Rc<Self>,
        name: &Name,
        id: &UploadId,
        after: u16,
        limit: usize,
    ) -> Result<(Multipart, Vec<Part>, bool), BlobError> {
        if self.container(name.container()).is_none() {
            return Err(BlobError::NoSuchContainer);
        }
        id.demand_ours()?;
        let question = Ask::Parts(name.clone(), id.clone(), after, limit);
        let found: Result<PartsOf, BlobError> = ask!(self, self.owner_of(name), question, Answer::Parts);
        let (upload, mut parts) = found?;
        let more = parts.len() > limit;
        parts.truncate(limit);
        let part = |(number, link)| Part { number, blob: Blob::new(name.clone(), link) };
        Ok((Multipart::new(name.clone(), id.clone(), &upload), parts.into_iter().map(part).collect(), more))
    }

    /// Has the name stand for `parts`, in that order, with `properties`; the upload is over then.
    pub async fn complete(
        self: &Rc<Self>,
        name: &Name,
        id: &UploadId,
        parts: Vec<PartOf>,
        properties: Properties,
        when: When,
    ) -> Result<Stored, BlobError> {
        self.demand_writable(name)?;
        properties.check().map_err(BlobError::PropertiesTooLong)?;
        id.demand_ours()?;
        let question = Ask::Complete(name.clone(), id.clone(), parts, properties.encode(), when);
        ask!(self, self.owner_of(name), question, Answer::Stored)
    }

    /// Takes an upload back with all its parts.
    pub async fn abort(self: &Rc<Self>, name: &Name, id: &UploadId) -> Result<(), BlobError> {
        self.demand_writable(name)?;
        id.demand_ours()?;
        ask!(self, self.owner_of(name), Ask::Abort(name.clone(), id.clone()), Answer::Done)
    }

    /// The uploads of a container whose names begin with `prefix`, by key and then by id, behind `after`, at most
    /// `limit`; and whether there are more.
    pub async fn uploads(
        self: &Rc<Self>,
        container: &str,
        prefix: &[u8],
        after: Option<(Box<[u8]>, UploadId)>,
        limit: usize,
    ) -> Result<(Vec<Multipart>, bool), BlobError> {
        if self.container(container).is_none() {
            return Err(BlobError::NoSuchContainer);
        }
        let mut all = Vec::new();
        for shard in self.shards() {
            let question = Ask::Uploads(container.into(), prefix.into(), after.clone(), limit);
            let owned: Result<Uploads, BlobError> = ask!(self, shard, question, Answer::Uploads);
            all.extend(owned?);
        }
        all.sort_by(|(a, a_id, _), (b, b_id, _)| (a.key(), a_id).cmp(&(b.key(), b_id)));
        let more = all.len() > limit;
        all.truncate(limit);
        Ok((all.into_iter().map(|(name, id, link)| Multipart::new(name, id, &link)).collect(), more))
    }
}

impl Multipart {
    fn new(name: Name, id: UploadId, link: &Link) -> Self {
        let properties = Properties::decode(link.attributes()).unwrap_or_default();
        Multipart { name, id, created_ms: link.created_ms, properties }
    }
}

/// For the owner's shard.
impl Blobs {
    pub(super) async fn decide_begin(
        self: Rc<Self>,
        name: Name,
        properties: Box<[u8]>,
    ) -> Result<UploadId, BlobError> {
        self.enter(&name).await?;
        let id = UploadId::generate();
        let put = self.decide_link(id.key(&name), Default::default(), properties)?.0;
        self.store.links().committed(&put).await?;
        Ok(id)
    }

    /// The upload, once it is committed.
    async fn upload_of(&self, name: &Name, id: &UploadId) -> Result<Link, BlobError> {
        let links = self.store.links();
        let found = links.get(&id.key(name))?;
        links.committed(&found).await?;
        found.link.ok_or(BlobError::NoSuchUpload)
    }

    pub(super) async fn parts_owned(
        self: Rc<Self>,
        name: Name,
        id: UploadId,
        after: u16,
        limit: usize,
    ) -> Result<PartsOf, BlobError> {
        let upload = self.upload_of(&name, &id).await?;
        let (mut parts, mut tickets) = (Vec::new(), Vec::new());
        self.each_part(&name, &id, after, |number, _, linked| {
            tickets.push(linked.clone());
            parts.extend(linked.link.clone().map(|link| (number, link)));
            parts.len() <= limit
        });
        for linked in &tickets {
            self.store.links().committed(linked).await?;
        }
        Ok((upload, parts))
    }

    /// Calls `each` with the upload's parts above number `after` until it says no.
    fn each_part(
        &self,
        name: &Name,
        id: &UploadId,
        after: u16,
        mut each: impl FnMut(u16, KeyRef<'_>, &Linked) -> bool,
    ) {
        let from = id.part_key(name, after);
        self.store.links().each(space::PARTS, Bound::Excluded(&from.bytes), |key, linked| {
            // Names may hold anything, so the ends of two may look alike.
            match Name::of_key(key) {
                Some((of, own)) if of == *name && own.len() == UploadId::LEN + 2 => {
                    let (of, number) = own.split_at(UploadId::LEN);
                    of == id.0.as_bytes() && each(u16::from_be_bytes([number[0], number[1]]), key, linked)
                }
                Some((of, _)) => of.store_key().bytes.starts_with(&name.store_key().bytes),
                None => true,
            }
        });
    }

    pub(super) async fn decide_complete(
        self: Rc<Self>,
        name: Name,
        id: UploadId,
        wanted: Vec<PartOf>,
        properties: Box<[u8]>,
        when: When,
    ) -> Result<Stored, BlobError> {
        self.upload_of(&name, &id).await?;
        let links = self.store.links();
        for part in &wanted {
            links.committed(&links.get(&id.part_key(&name, part.number))?).await?;
        }
        self.enter(&name).await?;
        self.judge(&name, &when).await?;
        // From here on nothing waits. What was looked at above may have changed meanwhile.
        if links.get(&id.key(&name))?.link.is_none() {
            return Err(BlobError::NoSuchUpload);
        }
        let mut pieces = Vec::new();
        for part in &wanted {
            let found = links.get(&id.part_key(&name, part.number))?.link;
            let link = found.ok_or(BlobError::InvalidPart(part.number))?;
            let etag = Properties::decode(link.attributes()).unwrap_or_default().etag;
            if etag != part.etag {
                return Err(BlobError::InvalidPart(part.number));
            }
            pieces.extend(link.parts.as_slice().iter().cloned());
        }
        if pieces.len() > PARTS_MAX {
            return Err(BlobError::TooManyPieces(pieces.len()));
        }
        let (put, stored) = self.decide_link(name.store_key(), pieces.into_iter().collect(), properties)?;
        let ended = self.end_upload(&name, &id);
        links.committed(&put).await?;
        for ticket in ended? {
            links.committed(&ticket).await?;
        }
        Ok(stored)
    }

    pub(super) async fn decide_abort(self: Rc<Self>, name: Name, id: UploadId) -> Result<(), BlobError> {
        self.upload_of(&name, &id).await?;
        for ticket in self.end_upload(&name, &id)? {
            self.store.links().committed(&ticket).await?;
        }
        Ok(())
    }

    /// Deletes the upload and its parts in this turn.
    fn end_upload(&self, name: &Name, id: &UploadId) -> Result<Vec<Linked>, StoreError> {
        let mut keys = vec![id.key(name)];
        self.each_part(name, id, 0, |_, key, linked| {
            keys.extend(linked.link.is_some().then(|| key.to_key()));
            true
        });
        let links = self.store.links();
        let mut tickets = Vec::new();
        for key in keys {
            tickets.extend(links.delete(&key)?.map(|ticket| Linked { link: None, ticket }));
        }
        Ok(tickets)
    }

    pub(super) async fn uploads_owned(
        self: Rc<Self>,
        container: Box<str>,
        prefix: Box<[u8]>,
        after: Option<(Box<[u8]>, UploadId)>,
        limit: usize,
    ) -> Result<Uploads, BlobError> {
        let inside = [container.as_bytes(), b"\0"].concat();
        let begins = [&*inside, &prefix].concat();
        let (mut uploads, mut tickets) = (Vec::new(), Vec::new());
        // In the order of keys and ids, up to keys that begin with another one: those are put in order afterwards, so
        // what comes behind a page may not be cut before all of them were seen. There are few uploads.
        self.store.links().each(space::UPLOADS, Bound::Included(&begins), |key, linked| {
            if !key.bytes.starts_with(&begins) {
                return false;
            }
            let Some((name, own)) = Name::of_key(key) else { return true };
            let Some(id) = std::str::from_utf8(own).ok().and_then(UploadId::parse) else { return true };
            let is_behind = after.as_ref().is_none_or(|(key, after)| (name.key(), &id) > (&**key, after));
            if is_behind {
                tickets.push(linked.clone());
                uploads.extend(linked.link.clone().map(|link| (name, id, link)));
            }
            true
        });
        for linked in &tickets {
            self.store.links().committed(linked).await?;
        }
        uploads.sort_by(|(a, a_id, _), (b, b_id, _)| (a.key(), a_id).cmp(&(b.key(), b_id)));
        uploads.truncate(limit + 1);
        Ok(uploads)
    }
}

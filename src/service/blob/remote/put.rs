//! Objects on their way there.
//!
//! | body | how it goes |
//! |---|---|
//! | up to 64 KiB | kept until it is whole, sent at once, tried again when that does no harm |
//! | announced | passed on as it comes, but for its last byte, which is sent once the body was compared |
//! | of unknown length | gathered into parts of an upload there, which is completed once the body was compared |
//! | longer than one request may be | the same, in larger parts |
//!
//! Invariant: what is dropped before its commit never becomes an object. Parts that were gathered have their room from
//! [`Remote::gather`], so that memory is bounded for all uploads of a shard together.
//! Lives on: the connection's shard.

use super::ask::Ask;
use super::containers::read;
use super::multipart::composition;
use super::{Gathering, Place, Remote, RemoteError, wire};
use crate::codec::xml_in::Seen;
use crate::net::http::client::Call;
use crate::runtime::shard;
use crate::service::blob::find::Content;
use crate::service::blob::{Blob, BlobError, Name, Properties, Stored, When};
use std::ops::Range;
use std::rc::Rc;

/// Up to here a body is kept.
const KEPT_MAX: usize = 64 << 10;
/// What one request may bring.
const REQUEST_MAX: u64 = 5 << 30;
/// Parts that are gathered have this length, and more where there would be too many.
const PART: u64 = 8 << 20;
/// The longest part that is gathered, and how many there may be.
const PART_MAX: u64 = 64 << 20;
const PARTS_MAX: u64 = 10_000;
/// The longest range that is copied by one request.
const COPY_MAX: u64 = 1 << 30;

/// What becomes of the bytes.
#[derive(Clone)]
pub(super) enum Target {
    /// An object.
    Object,
    /// Part of an upload there.
    Part(Box<str>, u16),
}

/// A body on its way.
pub struct RemoteUpload {
    remote: Rc<Remote>,
    place: Place,
    /// It is of a group, whose bucket is made where it is missing.
    is_grouped: bool,
    target: Target,
    announced: Option<u64>,
    fields: Vec<(String, Vec<u8>)>,
    when: When,
    /// Received and not sent.
    held: Vec<u8>,
    size: u64,
    way: Way,
}

enum Way {
    Kept,
    Stream(Box<Call>),
    Parts(Parts),
}

/// An upload in parts, taken back unless it is completed.
struct Parts {
    remote: Rc<Remote>,
    place: Place,
    id: Box<str>,
    etags: Vec<Box<str>>,
    part: usize,
    is_over: bool,
    _room: Gathering,
}

impl Remote {
    /// Begins to put an object with `properties` if `when` holds.
    pub fn put(
        self: &Rc<Self>,
        name: &Name,
        announced: Option<u64>,
        properties: &Properties,
        when: &When,
    ) -> Result<RemoteUpload, BlobError> {
        let place = self.place(name)?;
        let fields = wire::fields_of(properties, true);
        let upload = self.upload(place, Target::Object, announced, fields, when.clone())?;
        Ok(RemoteUpload { is_grouped: !name.is_in_container(), ..upload })
    }

    pub(super) fn upload(
        self: &Rc<Self>,
        place: Place,
        target: Target,
        announced: Option<u64>,
        fields: Vec<(String, Vec<u8>)>,
        when: When,
    ) -> Result<RemoteUpload, BlobError> {
        self.demand_ready()?;
        if announced.is_some_and(|len| len.div_ceil(PARTS_MAX) > PART_MAX) {
            return Err(RemoteError::NotOffered("an object of more than 625 GiB").into());
        }
        let (remote, held, way) = (self.clone(), Vec::new(), Way::Kept);
        let is_grouped = false;
        Ok(RemoteUpload { remote, place, is_grouped, target, announced, fields, when, held, size: 0, way })
    }

    /// Has `to` be what `source` is, with `properties`.
    pub async fn copy(
        self: &Rc<Self>,
        source: &Blob,
        to: &Name,
        properties: &Properties,
        when: &When,
    ) -> Result<Stored, BlobError> {
        let Content::Remote(object) = &source.content else { return Err(BlobError::NotCopied) };
        let place = self.place(to)?;
        self.demand(to, when).await?;
        let fields = wire::fields_of(properties, false);
        if source.size > REQUEST_MAX {
            return self.copy_in_parts(source, object.place(), place, fields).await;
        }
        let ask = Ask::object("PUT", &place)
            .fields(fields)
            .fields(wire::conditions(when))
            .fields(source_fields(source, object.place()))
            .field("x-amz-metadata-directive", "REPLACE");
        let document = self.document(&ask, b"").await?;
        let (etag, created_ms) = copied(&document, "CopyObjectResult")?;
        Ok(Stored { size: source.size, created_ms, version: 0, replaced: false, etag: Some(etag) })
    }

    async fn copy_in_parts(
        self: &Rc<Self>,
        source: &Blob,
        from: &Place,
        place: Place,
        fields: Vec<(String, Vec<u8>)>,
    ) -> Result<Stored, BlobError> {
        let mut parts = Parts::begin(self, place, fields, PART as usize).await?;
        let mut at = 0;
        while at < source.size {
            let end = (at + COPY_MAX).min(source.size);
            let number = parts.etags.len() as u16 + 1;
            let (etag, _) = self.copy_range(source, from, at..end, &parts.place, &parts.id, number).await?;
            parts.etags.push(etag);
            at = end;
        }
        let (etag, size) = (parts.complete(&When::default()).await?, source.size);
        Ok(Stored { size, created_ms: now_ms(), version: 0, replaced: false, etag: Some(etag) })
    }

    /// Copies a range into a part; its tag, and when.
    pub(super) async fn copy_range(
        self: &Rc<Self>,
        source: &Blob,
        from: &Place,
        range: Range<u64>,
        place: &Place,
        id: &str,
        number: u16,
    ) -> Result<(Box<str>, u64), BlobError> {
        let mut ask = Ask::object("PUT", place)
            .query("partNumber", number.to_string())
            .query("uploadId", id.as_bytes())
            .fields(source_fields(source, from));
        if range != (0..source.size) {
            ask = ask.field("x-amz-copy-source-range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        copied(&self.document(&ask, b"").await?, "CopyPartResult")
    }

    /// Looks at a condition that the store may not know.
    pub(super) async fn demand(self: &Rc<Self>, name: &Name, when: &When) -> Result<(), BlobError> {
        if *when == When::default() {
            return Ok(());
        }
        let there = self.look(name).await?;
        let etag = there.as_ref().map(|blob| &*blob.properties.etag);
        match (&when.matches, &when.matches_none, etag) {
            (Some(_), _, None) => Err(BlobError::NoSuchBlob),
            (Some(tags), _, Some(etag)) if !tags.include(etag) => Err(BlobError::Precondition),
            (_, Some(tags), Some(etag)) if tags.include(etag) => Err(BlobError::Precondition),
            _ => Ok(()),
        }
    }

    /// Deletes what `name` is there. Whether there was something is not told by such a store.
    pub async fn delete(self: &Rc<Self>, name: &Name, when: &When) -> Result<(), BlobError> {
        self.demand(name, when).await?;
        let ask = Ask::object("DELETE", &self.place(name)?).fields(wire::conditions(when));
        match self.ask(&ask, b"").await {
            Ok(_) | Err(BlobError::NoSuchBlob) => Ok(()),
            Err(BlobError::NoSuchContainer) if !name.is_in_container() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn source_fields(source: &Blob, from: &Place) -> Vec<(String, Vec<u8>)> {
    vec![
        ("x-amz-copy-source".to_owned(), wire::source(from).into_bytes()),
        ("x-amz-copy-source-if-match".to_owned(), format!("\"{}\"", source.properties.etag).into_bytes()),
    ]
}

/// The tag and the date of a copy. A copy may fail after its answer has begun with 200.
fn copied(document: &[u8], root: &str) -> Result<(Box<str>, u64), BlobError> {
    let code = super::ask::code_of(document);
    if !code.is_empty() {
        return Err(RemoteError::Refused(200, code.into()).into());
    }
    let (mut etag, mut moment) = (None, 0);
    read(document, root, |path, seen| match (path, seen) {
        (["ETag"], Seen::Text(text)) => etag = Some(wire::bare(text)),
        (["LastModified"], Seen::Text(text)) => moment = wire::moment(text),
        _ => {}
    })?;
    Ok((etag.ok_or(RemoteError::Malformed("a copy without a tag"))?, moment))
}

fn now_ms() -> u64 {
    shard::current().wall().unix_millis()
}

impl RemoteUpload {
    /// Passes on what the last receive brought.
    pub async fn make_room(&mut self) -> Result<(), BlobError> {
        if matches!(self.way, Way::Kept) {
            match self.announced {
                Some(len) if len > KEPT_MAX as u64 && len <= REQUEST_MAX => {
                    let mut call = self.remote.begin(&self.ask(), len).await?;
                    if self.is_grouped && call.is_refused() && self.remote.prepare().await {
                        call = self.remote.begin(&self.ask(), len).await?;
                    }
                    self.way = Way::Stream(Box::new(call));
                }
                None if self.held.len() <= KEPT_MAX => {}
                Some(len) if len <= KEPT_MAX as u64 => {}
                len => {
                    let Target::Object = self.target else {
                        return Err(RemoteError::NotOffered("a part whose length is not announced").into());
                    };
                    let part = len.unwrap_or(0).div_ceil(PARTS_MAX).max(PART) as usize;
                    let (place, fields) = (self.place.clone(), self.fields.clone());
                    self.remote.clone().demand_again(&self.place, &self.when).await?;
                    self.way = Way::Parts(Parts::begin(&self.remote, place, fields, part).await?);
                }
            }
        }
        match &mut self.way {
            Way::Kept => Ok(()),
            Way::Stream(call) => {
                let len = self.held.len().saturating_sub(1);
                let sent = call.send(&self.held[..len]).await;
                sent.map_err(|error| self.remote.lost(error))?;
                self.held.drain(..len);
                match call.is_refused() {
                    // It has answered before it had the body.
                    true => self.refused().await,
                    false => Ok(()),
                }
            }
            Way::Parts(parts) => {
                while self.held.len() >= parts.part {
                    parts.put(&self.held[..parts.part]).await?;
                    self.held.drain(..parts.part);
                }
                Ok(())
            }
        }
    }

    async fn refused(&mut self) -> Result<(), BlobError> {
        match std::mem::replace(&mut self.way, Way::Kept) {
            Way::Stream(call) => match self.remote.end(*call).await {
                Err(error) => Err(error),
                Ok(_) => Err(RemoteError::Malformed("an answer to half an object").into()),
            },
            _ => Ok(()),
        }
    }

    /// Takes what a receive brought.
    pub fn take(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.held.extend_from_slice(bytes);
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn ask(&self) -> Ask {
        let ask = Ask::object("PUT", &self.place).fields(self.fields.clone());
        match &self.target {
            Target::Object => ask.fields(wire::conditions(&self.when)),
            Target::Part(id, number) => {
                ask.query("partNumber", number.to_string()).query("uploadId", id.as_bytes())
            }
        }
    }

    /// Makes it an object.
    pub async fn commit(mut self) -> Result<Stored, BlobError> {
        let etag = match std::mem::replace(&mut self.way, Way::Kept) {
            Way::Kept => {
                // Done twice, a condition may not hold the second time because of the first.
                let ask = self.ask().repeatable(self.when == When::default());
                let call = match self.remote.ask(&ask, &self.held).await {
                    Err(BlobError::NoSuchContainer) if self.is_grouped && self.remote.prepare().await => {
                        self.remote.ask(&ask, &self.held).await
                    }
                    other => other,
                };
                wire::etag_of(call?.head())
            }
            Way::Stream(mut call) => {
                call.send(&self.held).await.map_err(|error| self.remote.lost(error))?;
                let call = self.remote.end(*call).await?;
                wire::etag_of(call.head())
            }
            Way::Parts(mut parts) => {
                if !self.held.is_empty() {
                    parts.put(&self.held).await?;
                }
                Some(parts.complete(&self.when).await?)
            }
        };
        let etag = etag.ok_or(RemoteError::Malformed("an object without a tag"))?;
        Ok(Stored { size: self.size, created_ms: now_ms(), version: 0, replaced: false, etag: Some(etag) })
    }
}

impl Remote {
    /// A condition is looked at before the first part goes; it goes along once more with the completion.
    async fn demand_again(self: Rc<Self>, place: &Place, when: &When) -> Result<(), BlobError> {
        if *when == When::default() {
            return Ok(());
        }
        match self.ask(&Ask::object("HEAD", place).fields(wire::conditions(when)), b"").await {
            Err(BlobError::Precondition) => Err(BlobError::Precondition),
            _ => Ok(()),
        }
    }
}

impl Parts {
    async fn begin(
        remote: &Rc<Remote>,
        place: Place,
        fields: Vec<(String, Vec<u8>)>,
        part: usize,
    ) -> Result<Self, BlobError> {
        let room = remote.gather(part).await;
        let fields = fields.into_iter().filter(|(name, _)| !name.starts_with("x-amz-checksum-")).collect();
        let id = remote.begin_at(&place, fields).await?;
        let (remote, etags) = (remote.clone(), Vec::new());
        Ok(Parts { remote, place, id, etags, part, is_over: false, _room: room })
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if self.etags.len() as u64 == PARTS_MAX {
            return Err(RemoteError::NotOffered(
                "an object of more than 78 GiB whose length is not announced",
            )
            .into());
        }
        let ask = Ask::object("PUT", &self.place)
            .query("partNumber", (self.etags.len() + 1).to_string())
            .query("uploadId", self.id.as_bytes());
        let call = self.remote.ask(&ask, bytes).await?;
        let etag = wire::etag_of(call.head()).ok_or(RemoteError::Malformed("a part without a tag"))?;
        self.etags.push(etag);
        Ok(())
    }

    async fn complete(mut self, when: &When) -> Result<Box<str>, BlobError> {
        let parts = self.etags.iter().zip(1..).map(|(etag, number)| (number, &**etag));
        let document = composition(parts);
        let etag = self.remote.complete_at(&self.place, &self.id, &document, when).await?;
        self.is_over = true;
        Ok(etag)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (remote, place, id) = (self.remote.clone(), self.place.clone(), self.id.clone());
        shard::spawn("take an upload back", async move {
            if let Err(error) = remote.abort_at(&place, &id).await {
                tracing::warn!(%error, "an upload stays begun in the remote store");
            }
        });
    }
}

//! Uploads in parts there, for dialects that have them, and for bodies whose length nobody told.
//!
//! The ids are those of that store. Lives on: the connection's shard.

use super::ask::Ask;
use super::containers::{XMLNS, read};
use super::put::Target;
use super::{Place, Remote, RemoteError, RemoteUpload, wire};
use crate::codec::text::decimal;
use crate::codec::xml::Xml;
use crate::codec::xml_in::Seen;
use crate::service::blob::find::Content;
use crate::service::blob::{
    Blob, BlobError, Multipart, Name, Part, PartOf, Properties, Stored, UploadId, When,
};
use std::mem::take;
use std::ops::Range;
use std::rc::Rc;

impl Remote {
    /// Begins an upload.
    pub async fn begin_upload(
        self: &Rc<Self>,
        name: &Name,
        properties: &Properties,
    ) -> Result<UploadId, BlobError> {
        let id = self.begin_at(&self.place(name)?, wire::fields_of(properties, false)).await?;
        Ok(UploadId::parse(&id).ok_or(RemoteError::Malformed("an id that is none"))?)
    }

    pub(super) async fn begin_at(
        self: &Rc<Self>,
        place: &Place,
        fields: Vec<(String, Vec<u8>)>,
    ) -> Result<Box<str>, BlobError> {
        let document =
            self.document(&Ask::object("POST", place).query("uploads", "").fields(fields), b"").await?;
        let mut id = String::new();
        read(&document, "InitiateMultipartUploadResult", |path, seen| {
            if let (["UploadId"], Seen::Text(text)) = (path, seen) {
                id = text.trim().to_owned();
            }
        })?;
        if id.is_empty() {
            Err(RemoteError::Malformed("an upload without an id").into())
        } else {
            Ok(id.into())
        }
    }

    /// Begins to put a part.
    pub fn put_part(
        self: &Rc<Self>,
        name: &Name,
        id: &UploadId,
        number: u16,
        announced: Option<u64>,
    ) -> Result<RemoteUpload, BlobError> {
        let target = Target::Part(id.as_str().into(), number);
        self.upload(self.place(name)?, target, announced, Vec::new(), When::default())
    }

    /// Copies a range of what was found into a part.
    pub async fn copy_part(
        self: &Rc<Self>,
        source: &Blob,
        range: Range<u64>,
        name: &Name,
        id: &UploadId,
        number: u16,
    ) -> Result<Stored, BlobError> {
        let Content::Remote(object) = &source.content else { return Err(BlobError::NotCopied) };
        let (size, place) = (range.end - range.start, self.place(name)?);
        let copied = self.copy_range(source, object.place(), range, &place, id.as_str(), number).await?;
        let (etag, created_ms) = copied;
        Ok(Stored { size, created_ms, version: 0, replaced: false, etag: Some(etag) })
    }

    /// The upload, and a page of its parts.
    pub async fn parts(
        self: &Rc<Self>,
        name: &Name,
        id: &UploadId,
        after: u16,
        limit: usize,
    ) -> Result<(Multipart, Vec<Part>, bool), BlobError> {
        let ask = Ask::object("GET", &self.place(name)?)
            .query("uploadId", id.as_str())
            .query("part-number-marker", after.min(10_000).to_string())
            // None at all is nothing that every store answers.
            .query("max-parts", limit.clamp(1, 1000).to_string());
        let document = self.document(&ask, b"").await?;
        let (mut parts, mut bad, mut more) = (Vec::new(), None, false);
        let (mut number, mut size, mut moment, mut properties) = (None, None, 0, Properties::default());
        read(&document, "ListPartsResult", |path, seen| match (path, seen) {
            (["IsTruncated"], Seen::Text(text)) => more = text.trim() == "true",
            (["Part", "PartNumber"], Seen::Text(text)) => number = decimal(text.trim().as_bytes()),
            (["Part", "Size"], Seen::Text(text)) => size = decimal(text.trim().as_bytes()),
            (["Part", "LastModified"], Seen::Text(text)) => moment = wire::moment(text),
            (["Part", "ETag"], Seen::Text(text)) => properties.etag = wire::bare(text),
            (["Part"], Seen::Close) => match (number.take().map(u16::try_from), size.take()) {
                (Some(Ok(number)), Some(size)) => {
                    match self.listed(name.clone(), size, moment, take(&mut properties).etag) {
                        Ok(blob) => parts.push(Part { number, blob }),
                        Err(error) => bad = Some(error),
                    }
                }
                _ => bad = Some(RemoteError::Malformed("a part without number or size").into()),
            },
            _ => {}
        })?;
        more |= parts.len() > limit;
        parts.truncate(limit);
        let upload = Multipart {
            name: name.clone(),
            id: id.clone(),
            created_ms: 0,
            properties: Properties::default(),
        };
        bad.map_or(Ok((upload, parts, more)), Err)
    }

    /// Composes the parts.
    pub async fn complete(
        self: &Rc<Self>,
        name: &Name,
        id: &UploadId,
        parts: &[PartOf],
        when: &When,
    ) -> Result<Stored, BlobError> {
        self.demand(name, when).await?;
        let document = composition(parts.iter().map(|part| (part.number, &*part.etag)));
        let etag = self.complete_at(&self.place(name)?, id.as_str(), &document, when).await?;
        Ok(Stored { size: 0, created_ms: 0, version: 0, replaced: false, etag: Some(etag) })
    }

    pub(super) async fn complete_at(
        self: &Rc<Self>,
        place: &Place,
        id: &str,
        document: &[u8],
        when: &When,
    ) -> Result<Box<str>, BlobError> {
        let ask = Ask::object("POST", place).query("uploadId", id.as_bytes()).fields(wire::conditions(when));
        let document = self.document(&ask, document).await?;
        let code = super::ask::code_of(&document);
        if !code.is_empty() {
            return Err(RemoteError::Refused(200, code.into()).into());
        }
        let mut etag = Box::default();
        read(&document, "CompleteMultipartUploadResult", |path, seen| {
            if let (["ETag"], Seen::Text(text)) = (path, seen) {
                etag = wire::bare(text);
            }
        })?;
        Ok(etag)
    }

    /// Takes an upload back.
    pub async fn abort(self: &Rc<Self>, name: &Name, id: &UploadId) -> Result<(), BlobError> {
        self.abort_at(&self.place(name)?, id.as_str()).await
    }

    pub(super) async fn abort_at(self: &Rc<Self>, place: &Place, id: &str) -> Result<(), BlobError> {
        self.ask(&Ask::object("DELETE", place).query("uploadId", id.as_bytes()), b"").await.map(drop)
    }

    /// Uploads of a container behind a key, or behind one of its uploads.
    pub async fn uploads(
        self: &Rc<Self>,
        container: &str,
        prefix: &[u8],
        after: Option<(Box<[u8]>, Option<UploadId>)>,
        limit: usize,
    ) -> Result<(Vec<Multipart>, bool), BlobError> {
        let mut ask = Ask::bucket("GET", &self.bucket(container))
            .query("uploads", "")
            .query("encoding-type", "url")
            .query("prefix", prefix)
            .query("max-uploads", limit.clamp(1, 1000).to_string());
        if let Some((key, id)) = after {
            ask = ask.query("key-marker", &*key);
            if let Some(id) = id {
                ask = ask.query("upload-id-marker", id.as_str());
            }
        }
        let document = self.document(&ask, b"").await?;
        let (mut uploads, mut more, mut is_encoded) = (Vec::new(), false, false);
        let (mut key, mut id, mut moment) = (String::new(), String::new(), 0);
        read(&document, "ListMultipartUploadsResult", |path, seen| match (path, seen) {
            (["EncodingType"], Seen::Text(text)) => is_encoded = text.trim() == "url",
            (["IsTruncated"], Seen::Text(text)) => more = text.trim() == "true",
            (["Upload", "Key"], Seen::Text(text)) => key = text.to_owned(),
            (["Upload", "UploadId"], Seen::Text(text)) => id = text.trim().to_owned(),
            (["Upload", "Initiated"], Seen::Text(text)) => moment = wire::moment(text),
            (["Upload"], Seen::Close) => uploads.push((take(&mut key), take(&mut id), moment)),
            _ => {}
        })?;
        let mut found = Vec::new();
        for (key, id, created_ms) in uploads {
            let key = if is_encoded { wire::decoded(&key) } else { Some(key.into_bytes().into()) };
            let key = key.ok_or(RemoteError::Malformed("a key that is none"))?;
            let id = UploadId::parse(&id).ok_or(RemoteError::Malformed("an id that is none"))?;
            let name = Name::new(container, &key)?;
            found.push(Multipart { name, id, created_ms, properties: Properties::default() });
        }
        more |= found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }
}

/// The document that names parts.
pub(super) fn composition<'p>(parts: impl Iterator<Item = (u16, &'p str)>) -> Vec<u8> {
    let mut xml = Xml::in_namespace("CompleteMultipartUpload", XMLNS);
    for (number, etag) in parts {
        xml.open("Part").number("PartNumber", number.into()).element("ETag", format!("\"{etag}\"")).close();
    }
    xml.finish()
}

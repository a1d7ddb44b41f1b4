//! `GET /b`, `?list-type=2` and `?versions`: pages of a bucket's objects in the order of their keys.
//!
//! A page begins behind the marker; the token of version 2 is the first key that did not fit, in base64, so a page
//! costs the same wherever it begins. There is one version of each object, called `null`.
//! Lives on: the connection's shard.

use super::bucket::{self, OWNER};
use super::fault::Fault;
use super::payload::Trouble;
use super::payload::checksum::Checksum;
use super::reply::{Call, XMLNS};
use super::{S3, param};
use crate::codec::text::percent_encode;
use crate::codec::time::Rfc3339;
use crate::codec::xml::Xml;
use crate::net::http::RequestHead;
use crate::service::blob::{Blob, Listed, Listing, Query, Start};
use data_encoding::BASE64URL_NOPAD;
use std::borrow::Cow;

/// Most entries of a page.
const KEYS_MAX: usize = 1000;

/// In which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// With markers.
    V1,
    /// With tokens.
    V2,
    /// With versions, of which there is one.
    Versions,
}

/// Answers.
pub async fn list(s3: &S3, call: &mut Call<'_>, bucket: &str, kind: Kind) -> Result<(), Trouble> {
    bucket::demand(s3, bucket).await?;
    let asked = Asked::of(call.exchange.head(), kind)?;
    let query = Query {
        prefix: asked.prefix.clone(),
        delimiter: asked.delimiter.clone(),
        start: asked.start.clone(),
        limit: asked.max,
    };
    let page = s3.driver.file_list(bucket, query).await?;
    call.xml(asked.document(bucket, &page)).await
}

/// What a request asks for.
struct Asked {
    kind: Kind,
    prefix: Box<[u8]>,
    delimiter: Box<[u8]>,
    /// `marker`, `key-marker` or `start-after`.
    marker: Option<Box<[u8]>>,
    /// As it was sent, be it empty: it is said again.
    token: Option<Box<[u8]>>,
    start: Start,
    max: usize,
    encodes: bool,
    with_owner: bool,
}

impl Asked {
    fn of(head: &RequestHead, kind: Kind) -> Result<Self, Fault> {
        let text = |key: &str| param::text(head, key);
        let marker = text(match kind {
            Kind::V1 => "marker",
            Kind::V2 => "start-after",
            Kind::Versions => "key-marker",
        });
        let token = (kind == Kind::V2 && param::is_present(head, "continuation-token"))
            .then(|| text("continuation-token").unwrap_or_default());
        let start = match (&token, &marker) {
            (Some(token), _) if !token.is_empty() => {
                let bad =
                    || Fault::argument("continuation-token", "The continuation token provided is incorrect");
                Start::At(BASE64URL_NOPAD.decode(token).map_err(|_| bad())?.into())
            }
            (_, Some(marker)) => Start::After(marker.clone()),
            (_, None) => Start::First,
        };
        Ok(Asked {
            kind,
            prefix: text("prefix").unwrap_or_default(),
            delimiter: text("delimiter").unwrap_or_default(),
            marker,
            token,
            start,
            max: param::number(head, "max-keys", KEYS_MAX, KEYS_MAX)?,
            encodes: param::encodes(head)?,
            with_owner: match kind {
                Kind::V2 => text("fetch-owner").is_some_and(|value| *value == *b"true"),
                Kind::V1 | Kind::Versions => true,
            },
        })
    }

    fn document(&self, bucket: &str, page: &Listing) -> Xml {
        let root = if self.kind == Kind::Versions { "ListVersionsResult" } else { "ListBucketResult" };
        let mut xml = Xml::in_namespace(root, XMLNS);
        xml.element("Name", bucket).element("Prefix", self.shown(&self.prefix));
        let marker = self.marker.as_deref().unwrap_or_default();
        match self.kind {
            Kind::V1 => _ = xml.element("Marker", self.shown(marker)),
            Kind::V2 => {
                xml.number("KeyCount", page.entries.len() as u64);
                if let Some(token) = &self.token {
                    xml.element("ContinuationToken", token);
                }
                if !marker.is_empty() {
                    xml.element("StartAfter", self.shown(marker));
                }
            }
            Kind::Versions => _ = xml.element("KeyMarker", self.shown(marker)).element("VersionIdMarker", ""),
        }
        xml.number("MaxKeys", self.max as u64);
        if !self.delimiter.is_empty() {
            xml.element("Delimiter", self.shown(&self.delimiter));
        }
        if self.encodes {
            xml.element("EncodingType", "url");
        }
        self.next(&mut xml, page);
        for entry in &page.entries {
            if let Listed::Blob(blob) = entry {
                self.entry(&mut xml, blob);
            }
        }
        for entry in &page.entries {
            if let Listed::Prefix(prefix) = entry {
                xml.open("CommonPrefixes").element("Prefix", self.shown(prefix)).close();
            }
        }
        xml
    }

    fn next(&self, xml: &mut Xml, page: &Listing) {
        let next = page.next.as_deref();
        xml.element("IsTruncated", if next.is_some() { "true" } else { "false" });
        let Some(next) = next else { return };
        let last = match page.entries.last() {
            Some(Listed::Blob(blob)) => blob.name.key(),
            Some(Listed::Prefix(prefix)) => prefix,
            None => return,
        };
        match self.kind {
            Kind::V1 => _ = xml.element("NextMarker", self.shown(last)),
            Kind::V2 => _ = xml.element("NextContinuationToken", BASE64URL_NOPAD.encode(next)),
            Kind::Versions => {
                xml.element("NextKeyMarker", self.shown(last)).element("NextVersionIdMarker", "null");
            }
        }
    }

    fn entry(&self, xml: &mut Xml, blob: &Blob) {
        xml.open(if self.kind == Kind::Versions { "Version" } else { "Contents" });
        xml.element("Key", self.shown(blob.name.key()));
        if self.kind == Kind::Versions {
            xml.element("VersionId", "null").element("IsLatest", "true");
        }
        xml.element("LastModified", Rfc3339::at_ms(blob.created_ms).as_str());
        xml.quoted("ETag", blob.properties.etag.as_bytes());
        if let Some(checksum) = Checksum::of(&blob.properties) {
            xml.element("ChecksumAlgorithm", checksum.algorithm.text());
            xml.element("ChecksumType", checksum.kind.text());
        }
        xml.number("Size", blob.size);
        if self.with_owner {
            xml.open("Owner").element("ID", OWNER).element("DisplayName", OWNER).close();
        }
        xml.element("StorageClass", "STANDARD").close();
    }

    fn shown<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if self.encodes { encoded(text).into() } else { text.into() }
    }
}

/// Percent-encoded but for slashes.
pub fn encoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (number, part) in text.split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            out.push(b'/');
        }
        percent_encode(part).for_each(|piece| out.extend_from_slice(piece.as_bytes()));
    }
    out
}

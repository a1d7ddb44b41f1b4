//! Uploads in parts: beginning one, putting parts, listing both, taking it back.
//!
//! The checksum that an upload was begun with is kept in its fields `~upload-algorithm` and `~upload-type`; each part
//! gets that checksum, computed if its sender has none. Lives on: the connection's shard.

use super::bucket::{self, OWNER};
use super::fault::{Code, Fault};
use super::list::encoded;
use super::payload::checksum::{Algorithm, Checksum, Kind};
use super::payload::{self, Plan, Sink, Trouble};
use super::reply::{Call, XMLNS};
use super::route::PartOf;
use super::sign::Chain;
use super::{S3, fields, param, put};
use crate::codec::time::Rfc3339;
use crate::codec::xml::Xml;
use crate::net::http::RequestHead;
use crate::net::http::Status;
use crate::service::blob::{Multipart, Name, Properties, UploadId, When};
use std::borrow::Cow;

/// Most parts or uploads of a page.
const PAGE_MAX: usize = 1000;
const ALGORITHM_FIELD: &str = "~upload-algorithm";
const KIND_FIELD: &str = "~upload-type";

/// Begins an upload.
pub async fn begin(s3: &S3, call: &mut Call<'_>, name: Name) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let mut properties = fields::kept(head)?;
    let checksum = wanted_checksum(head)?;
    if let Some((algorithm, kind)) = checksum {
        properties.fields.push((ALGORITHM_FIELD.into(), algorithm.text().as_bytes().into()));
        properties.fields.push((KIND_FIELD.into(), kind.text().as_bytes().into()));
    }
    let id = s3.driver.begin(&name, properties).await?;
    let mut xml = Xml::in_namespace("InitiateMultipartUploadResult", XMLNS);
    xml.element("Bucket", name.container()).element("Key", name.key()).element("UploadId", id.as_str());
    let shown = checksum.map(|(algorithm, kind)| {
        [("x-amz-checksum-algorithm", algorithm.text()), ("x-amz-checksum-type", kind.text())]
    });
    call.xml_with(xml, shown.as_ref().map_or(&[], |shown| &shown[..])).await
}

fn wanted_checksum(head: &RequestHead) -> Result<Option<(Algorithm, Kind)>, Fault> {
    let kind = head.header("x-amz-checksum-type");
    let Some(named) = head.header("x-amz-checksum-algorithm") else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(Fault::new(
                Code::InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = payload::algorithm(named)?;
    let kind = match kind {
        None => algorithm.usual_kind(),
        Some(kind) => Kind::parse(kind).filter(|kind| algorithm.allows(*kind)).ok_or_else(|| {
            let shown = String::from_utf8_lossy(kind);
            let sentence = format!(
                "The {shown} checksum type cannot be used with the {} checksum algorithm.",
                algorithm.text()
            );
            Fault::new(Code::InvalidRequest, sentence)
        })?,
    };
    Ok(Some((algorithm, kind)))
}

/// The checksum that an upload was begun with.
pub fn checksum_of(upload: &Multipart) -> Option<(Algorithm, Kind)> {
    let algorithm = upload.properties.field(ALGORITHM_FIELD).and_then(Algorithm::parse)?;
    let kind = upload.properties.field(KIND_FIELD).and_then(Kind::parse)?;
    Some((algorithm, kind))
}

/// What the object will have of what the upload has.
pub fn final_properties(upload: &Multipart) -> Properties {
    let of_upload = |name: &str| name == ALGORITHM_FIELD || name == KIND_FIELD;
    let fields = upload.properties.fields.iter().filter(|(name, _)| !of_upload(name)).cloned().collect();
    Properties { etag: Box::default(), fields }
}

/// Puts a part.
pub async fn put_part(
    s3: &S3,
    call: &mut Call<'_>,
    part: PartOf,
    chain: Option<Chain>,
) -> Result<(), Trouble> {
    let plan = Plan::of(call.exchange.head(), chain)?;
    plan.demand_length()?;
    let PartOf { name, id, number } = part;
    let (upload, _, _) = s3.driver.parts(&name, &id, u16::MAX, 0).await?;
    let wanted = checksum_of(&upload).map(|(algorithm, _)| algorithm);
    if let (Some(wanted), Some(sent)) = (wanted, plan.algorithm())
        && wanted != sent
    {
        let (wanted, sent) = (wanted.text().to_ascii_lowercase(), sent.text().to_ascii_lowercase());
        let sentence = format!(
            "Checksum Type mismatch occurred, expected checksum Type: {wanted}, actual checksum Type: {sent}"
        );
        return Err(Fault::new(Code::InvalidRequest, sentence).into());
    }
    let mut upload = s3.driver.put_part(&name, &id, number, plan.announced()).await?;
    let received = plan.receive(call.exchange, Sink::Upload(&mut upload), wanted).await?;
    let done = upload.commit(put::finished(Properties::default(), &received)?, When::default()).await?;
    put::stored(call, &received, &done).await
}

/// Takes an upload back.
pub async fn abort(s3: &S3, call: &mut Call<'_>, name: Name, id: UploadId) -> Result<(), Trouble> {
    s3.driver.abort(&name, &id).await?;
    call.empty(Status::NO_CONTENT, &[]).await
}

/// Lists the parts of an upload.
pub async fn parts(s3: &S3, call: &mut Call<'_>, name: Name, id: UploadId) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let max = param::number(head, "max-parts", PAGE_MAX, PAGE_MAX)?;
    let after = param::number(head, "part-number-marker", 0, usize::from(u16::MAX))? as u16;
    let encodes = param::encodes(head)?;
    let (upload, parts, more) = s3.driver.parts(&name, &id, after, max).await?;
    let mut xml = Xml::in_namespace("ListPartsResult", XMLNS);
    xml.element("Bucket", name.container()).element("Key", shown(name.key(), encodes));
    xml.element("UploadId", id.as_str());
    owners(&mut xml);
    xml.element("StorageClass", "STANDARD").number("PartNumberMarker", after.into());
    if let Some(last) = parts.last() {
        xml.number("NextPartNumberMarker", last.number.into());
    }
    xml.number("MaxParts", max as u64);
    xml.element("IsTruncated", if more && max > 0 { "true" } else { "false" });
    if let Some((algorithm, kind)) = checksum_of(&upload) {
        xml.element("ChecksumAlgorithm", algorithm.text()).element("ChecksumType", kind.text());
    }
    for part in &parts {
        xml.open("Part").number("PartNumber", part.number.into());
        xml.element("LastModified", Rfc3339::at_ms(part.blob.created_ms).as_str());
        xml.quoted("ETag", part.blob.properties.etag.as_bytes()).number("Size", part.blob.size);
        if let Some(checksum) = Checksum::of(&part.blob.properties) {
            xml.element(checksum.algorithm.element(), checksum.value.as_bytes());
        }
        xml.close();
    }
    call.xml(xml).await
}

/// Lists the uploads of a bucket.
pub async fn uploads(s3: &S3, call: &mut Call<'_>, bucket: &str) -> Result<(), Trouble> {
    bucket::demand(s3, bucket).await?;
    let head = call.exchange.head();
    let max = param::number(head, "max-uploads", PAGE_MAX, PAGE_MAX)?;
    let encodes = param::encodes(head)?;
    let text = |key: &str| param::text(head, key).unwrap_or_default();
    let (prefix, delimiter, key_marker) = (text("prefix"), text("delimiter"), text("key-marker"));
    let id_marker = text("upload-id-marker");
    let after = (!key_marker.is_empty()).then(|| {
        // Without an id the page begins behind all uploads of the key.
        (key_marker.clone(), std::str::from_utf8(&id_marker).ok().and_then(UploadId::parse))
    });
    let (found, more) = s3.driver.uploads(bucket, &prefix, after, max).await?;
    let mut xml = Xml::in_namespace("ListMultipartUploadsResult", XMLNS);
    xml.element("Bucket", bucket).element("KeyMarker", shown(&key_marker, encodes));
    xml.element("UploadIdMarker", &id_marker);
    if let Some(last) = found.last().filter(|_| more) {
        xml.element("NextKeyMarker", shown(last.name.key(), encodes));
        xml.element("NextUploadIdMarker", last.id.as_str());
    }
    if !prefix.is_empty() {
        xml.element("Prefix", shown(&prefix, encodes));
    }
    if !delimiter.is_empty() {
        xml.element("Delimiter", shown(&delimiter, encodes));
    }
    xml.number("MaxUploads", max as u64);
    if encodes {
        xml.element("EncodingType", "url");
    }
    xml.element("IsTruncated", if more && max > 0 { "true" } else { "false" });
    let mut folded: Vec<&[u8]> = Vec::new();
    for upload in &found {
        match folds_into(upload.name.key(), &prefix, &delimiter) {
            Some(into) if folded.last() == Some(&into) => {}
            Some(into) => folded.push(into),
            None => entry(&mut xml, upload, encodes),
        }
    }
    for prefix in folded {
        xml.open("CommonPrefixes").element("Prefix", shown(prefix, encodes)).close();
    }
    call.xml(xml).await
}

fn entry(xml: &mut Xml, upload: &Multipart, encodes: bool) {
    xml.open("Upload")
        .element("Key", shown(upload.name.key(), encodes))
        .element("UploadId", upload.id.as_str());
    owners(xml);
    xml.element("StorageClass", "STANDARD");
    xml.element("Initiated", Rfc3339::at_ms(upload.created_ms).as_str());
    if let Some((algorithm, kind)) = checksum_of(upload) {
        xml.element("ChecksumAlgorithm", algorithm.text()).element("ChecksumType", kind.text());
    }
    xml.close();
}

fn owners(xml: &mut Xml) {
    for role in ["Initiator", "Owner"] {
        xml.open(role).element("ID", OWNER).element("DisplayName", OWNER).close();
    }
}

/// What a key is listed under, if a delimiter stands in it behind the prefix.
fn folds_into<'k>(key: &'k [u8], prefix: &[u8], delimiter: &[u8]) -> Option<&'k [u8]> {
    if delimiter.is_empty() {
        return None;
    }
    let at = memchr::memmem::find(&key[prefix.len()..], delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

fn shown(text: &[u8], encodes: bool) -> Cow<'_, [u8]> {
    if encodes { encoded(text).into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fold_behind_the_prefix() {
        assert_eq!(folds_into(b"a/b/c", b"", b"/"), Some(&b"a/"[..]));
        assert_eq!(folds_into(b"a/b/c", b"a/", b"/"), Some(&b"a/b/"[..]));
        assert_eq!(folds_into(b"a/b", b"a/", b"/"), None);
        assert_eq!(folds_into(b"a--b", b"", b"--"), Some(&b"a--"[..]));
        assert_eq!(folds_into(b"a/b", b"", b""), None);
    }
}

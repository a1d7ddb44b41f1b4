//! `POST /b/k?uploadId=`: parts become an object.
//!
//! The parts are looked at here, to say what is wrong with which, and once more by the owner of the name when it
//! decides. The entity tag is the MD5 of the parts' MD5s, with their number behind a dash.
//! Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::checksum::{self, Checksum};
use super::payload::{Plan, Sink, Trouble};
use super::reply::{Call, XMLNS, quoted};
use super::sign::Chain;
use super::xml_in::{self, Named};
use super::{S3, fields, multipart, param, sizes};
use crate::codec::text::{hex, percent_encode, unhex};
use crate::codec::xml::Xml;
use crate::service::blob::{Blob, Multipart, Name, Part, PartOf, UploadId};
use md5::{Digest, Md5};
use std::collections::BTreeMap;

/// Every part but the last one has at least this.
const PART_MIN: u64 = 5 << 20;
/// How many parts are looked at in one question.
const PAGE: usize = 1000;

/// Answers.
pub async fn complete(
    s3: &S3,
    call: &mut Call<'_>,
    name: Name,
    id: UploadId,
    chain: Option<Chain>,
) -> Result<(), Trouble> {
    let head = call.exchange.head();
    // Checksum fields here are of the object, not of the document.
    let claimed = checksum::claimed_of_object(head)?;
    let plan = Plan::of_document(head, chain)?;
    let size = head.header("x-amz-mp-object-size").map(|value| {
        param::decimal(value).ok_or_else(|| Fault::argument("x-amz-mp-object-size", "not a number of bytes"))
    });
    let (size, when) = (size.transpose()?, fields::when(head));
    let mut body = Vec::new();
    plan.receive(call.exchange, Sink::Memory(&mut body, xml_in::COMPLETE_BYTES_MAX), None).await?;
    let wanted = xml_in::complete(&body)?;
    drop(body);
    let (upload, there) = match look(s3, &name, &id).await {
        Ok(found) => found,
        Err(fault) if fault.code == Code::NoSuchUpload => {
            return again(s3, call, &name, &wanted, fault).await;
        }
        Err(fault) => return Err(fault.into()),
    };
    let parts = choose(&wanted, &there)?;
    let total: u64 = parts.iter().map(|(_, blob)| blob.size).sum();
    if size.is_some_and(|size| size != total) {
        let sentence = format!("The parts have {total} bytes, not what x-amz-mp-object-size says");
        return Err(Fault::new(Code::InvalidRequest, sentence).into());
    }
    let checksum = whole_checksum(&upload, &parts);
    if let Some((algorithm, value)) = claimed
        && let Some(checksum) = &checksum
        && (checksum.algorithm != algorithm || !same_value(&checksum.value, &value))
    {
        let sentence =
            format!("The {} you specified did not match the calculated checksum.", algorithm.text());
        return Err(Fault::new(Code::BadDigest, sentence).into());
    }
    let mut properties = multipart::final_properties(&upload);
    properties.etag = etag_of(parts.iter().map(|(_, blob)| &*blob.properties.etag)).into();
    sizes::keep(&parts.iter().map(|(_, blob)| blob.size).collect::<Vec<_>>(), &mut properties);
    if let Some(checksum) = &checksum {
        checksum.keep(&mut properties);
    }
    let etag = properties.etag.clone();
    let chosen =
        parts.iter().map(|(number, blob)| PartOf { number: *number, etag: blob.properties.etag.clone() });
    let done = s3.driver.complete(&name, &id, chosen.collect(), properties, when).await?;
    let etag = done.etag.unwrap_or(etag);
    let host = call.exchange.head().host().to_owned();
    call.xml(document(&host, &name, &etag, checksum)).await
}

/// Whoever did not get the answer asks once more: an object that has exactly these parts is what was asked for.
async fn again(
    s3: &S3,
    call: &mut Call<'_>,
    name: &Name,
    wanted: &[Named],
    fault: Fault,
) -> Result<(), Trouble> {
    let etag = etag_of(wanted.iter().map(|named| &*named.etag));
    match s3.driver.file_head(name).await? {
        Some(blob) if *blob.properties.etag == *etag => {
            let host = call.exchange.head().host().to_owned();
            call.xml(document(&host, name, &etag, Checksum::of(&blob.properties))).await
        }
        _ => Err(fault.into()),
    }
}

fn document(host: &str, name: &Name, etag: &str, checksum: Option<Checksum>) -> Xml {
    let mut xml = Xml::in_namespace("CompleteMultipartUploadResult", XMLNS);
    let key = percent_encode(name.key()).to_string().replace("%2F", "/");
    xml.element("Location", format!("http://{host}/{}/{key}", name.container()));
    xml.element("Bucket", name.container()).element("Key", name.key()).element("ETag", quoted(etag));
    if let Some(checksum) = checksum {
        xml.element(checksum.algorithm.element(), checksum.value.as_bytes());
        xml.element("ChecksumType", checksum.kind.text());
    }
    xml
}

async fn look(s3: &S3, name: &Name, id: &UploadId) -> Result<(Multipart, BTreeMap<u16, Blob>), Fault> {
    let mut there = BTreeMap::new();
    let mut after = 0;
    loop {
        let (upload, parts, more) = s3.driver.parts(name, id, after, PAGE).await?;
        for Part { number, blob } in parts {
            after = number;
            there.insert(number, blob);
        }
        if !more {
            return Ok((upload, there));
        }
    }
}

/// The parts that are named, in order, if all of them are there and large enough.
fn choose<'t>(wanted: &[Named], there: &'t BTreeMap<u16, Blob>) -> Result<Vec<(u16, &'t Blob)>, Fault> {
    if !wanted.is_sorted_by(|one, other| one.number < other.number) {
        return Err(Code::InvalidPartOrder.into());
    }
    let mut chosen = Vec::with_capacity(wanted.len());
    for (at, named) in wanted.iter().enumerate() {
        let missing = || {
            Fault::from(Code::InvalidPart)
                .with("PartNumber", named.number.to_string())
                .with("ETag", named.etag.clone())
        };
        let number = u16::try_from(named.number).map_err(|_| missing())?;
        let blob = there.get(&number).ok_or_else(missing)?;
        if *blob.properties.etag != *named.etag.to_ascii_lowercase() {
            return Err(missing());
        }
        if let Some((algorithm, value)) = &named.checksum {
            let kept = Checksum::of(&blob.properties).filter(|kept| kept.algorithm == *algorithm);
            if kept.is_some_and(|kept| kept.value != *value) {
                return Err(missing());
            }
        }
        if blob.size < PART_MIN && at + 1 < wanted.len() {
            return Err(Fault::from(Code::EntityTooSmall)
                .with("ProposedSize", blob.size.to_string())
                .with("MinSizeAllowed", PART_MIN.to_string())
                .with("PartNumber", number.to_string()));
        }
        chosen.push((number, blob));
    }
    Ok(chosen)
}

/// The checksum that the upload was begun with, if every part has one.
fn whole_checksum(upload: &Multipart, parts: &[(u16, &Blob)]) -> Option<Checksum> {
    let (algorithm, kind) = multipart::checksum_of(upload)?;
    let of_part = |blob: &Blob| {
        let checksum = Checksum::of(&blob.properties).filter(|checksum| checksum.algorithm == algorithm)?;
        Some((checksum.digest()?, blob.size))
    };
    let digests: Option<Vec<_>> = parts.iter().map(|(_, blob)| of_part(blob)).collect();
    Checksum::of_parts(algorithm, kind, &digests?)
}

/// A composite checksum may be sent without the number of parts.
fn same_value(computed: &str, claimed: &str) -> bool {
    computed == claimed || computed.split_once('-').is_some_and(|(digest, _)| digest == claimed)
}

fn etag_of<'t>(etags: impl ExactSizeIterator<Item = &'t str>) -> String {
    let (mut md5, count) = (Md5::new(), etags.len());
    for etag in etags {
        // A tag that is no MD5 is nothing that this dialect puts, but any text gives one.
        match unhex(etag.as_bytes()) {
            Some(digest) => md5.update(digest),
            None => md5.update(etag),
        }
    }
    format!("{}-{count}", hex(&md5.finalize()))
}

//! `GET /b/k?attributes`: what is known of an object, without its bytes.
//!
//! Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::Trouble;
use super::payload::checksum::Checksum;
use super::reply::{Call, XMLNS};
use super::{S3, param, sizes};
use crate::codec::time::HttpDate;
use crate::codec::xml::Xml;
use crate::service::blob::Name;

/// What can be asked for.
const KNOWN: &[&str] = &["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];
/// Most parts of an answer.
const PARTS_MAX: usize = 1000;

/// Answers.
pub async fn attributes(s3: &S3, call: &mut Call<'_>, name: Name) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let mut wanted: Vec<String> = Vec::new();
    for value in head.headers("x-amz-object-attributes") {
        let names =
            value.split(|byte| *byte == b',').map(|name| String::from_utf8_lossy(name.trim_ascii()).into());
        wanted.extend(names);
    }
    if wanted.is_empty() || !wanted.iter().all(|name| KNOWN.contains(&name.as_str())) {
        let sentence = "Invalid attribute name specified. Known are ETag, Checksum, ObjectParts, StorageClass, ObjectSize";
        return Err(Fault::argument("x-amz-object-attributes", sentence).into());
    }
    let number = |name: &str, default: usize| match head.header(name) {
        None => Ok(default),
        Some(value) => param::decimal(value)
            .map(|number| usize::try_from(number).unwrap_or(usize::MAX))
            .ok_or_else(|| Fault::argument(name, "not a number")),
    };
    let (max, after) = (number("x-amz-max-parts", PARTS_MAX)?, number("x-amz-part-number-marker", 0)?);
    let blob = s3.driver.file_head(&name).await?.ok_or(Code::NoSuchKey)?;
    let wants = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let mut xml = Xml::in_namespace("GetObjectAttributesResponse", XMLNS);
    if wants("ETag") {
        xml.element("ETag", blob.properties.etag.as_bytes());
    }
    if let Some(checksum) = Checksum::of(&blob.properties).filter(|_| wants("Checksum")) {
        xml.open("Checksum").element(checksum.algorithm.element(), checksum.value.as_bytes());
        xml.element("ChecksumType", checksum.kind.text()).close();
    }
    if let Some(sizes) = sizes::of(&blob.properties).filter(|_| wants("ObjectParts")) {
        parts(&mut xml, &sizes, after, max.min(PARTS_MAX));
    }
    if wants("StorageClass") {
        xml.element("StorageClass", "STANDARD");
    }
    if wants("ObjectSize") {
        xml.number("ObjectSize", blob.size);
    }
    let date = HttpDate::at(blob.created_ms / 1000).to_string();
    call.xml_with(xml, &[("Last-Modified", &date)]).await
}

fn parts(xml: &mut Xml, sizes: &[u64], after: usize, max: usize) {
    let shown: Vec<(usize, u64)> =
        sizes.iter().enumerate().map(|(at, size)| (at + 1, *size)).skip(after).take(max).collect();
    let last = shown.last().map_or(after, |(number, _)| *number);
    xml.open("ObjectParts").number("PartsCount", sizes.len() as u64).number("PartNumberMarker", after as u64);
    xml.number("NextPartNumberMarker", last as u64).number("MaxParts", max as u64);
    xml.element("IsTruncated", if last < sizes.len() { "true" } else { "false" });
    for (number, size) in shown {
        xml.open("Part").number("PartNumber", number as u64).number("Size", size).close();
    }
    xml.close();
}

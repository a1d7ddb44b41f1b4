//! Signature version 2, in `Authorization` and in the query of a presigned request. Old, and what boto3 presigns
//! with unless told otherwise.
//!
//! It signs less than version 4: of the query only sub-resources, of the fields only `x-amz-` ones, the MD5, the
//! type and the date. Invariant: what else is in the query selects nothing that sub-resources do not.
//! Pure; runs on the connection's shard.

use super::keys::Keys;
use super::{Denied, SKEW_MAX_SECONDS, canonical, equal, v4};
use crate::codec::time::parse_http_date;
use crate::net::http::RequestHead;
use crate::net::http::target::{Param, query_pairs};
use data_encoding::BASE64;
use std::collections::BTreeMap;

/// Parameters that are part of what is signed.
const SUB_RESOURCES: &[&str] = &[
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// Judges `Authorization: AWS id:signature`; `rest` is what stands behind `AWS `.
pub fn judge_field(
    keys: &Keys,
    head: &RequestHead,
    rest: &[u8],
    bucket: Option<&str>,
    now: u64,
) -> Result<(), Denied> {
    let at = rest
        .iter()
        .rposition(|byte| *byte == b':')
        .ok_or(Denied::Malformed("AWS authorization header is invalid. Expected AwsAccessKeyId:signature"))?;
    let pair = keys.find(&rest[..at])?;
    let amz_date = head.header("x-amz-date");
    let date = head.header("date").filter(|_| amz_date.is_none()).unwrap_or_default();
    let then = amz_date.or(Some(date)).and_then(seconds_of).ok_or(Denied::NoDate)?;
    if now.abs_diff(then) > SKEW_MAX_SECONDS {
        return Err(Denied::RequestTimeTooSkewed);
    }
    let right = BASE64.encode(&keys.sign_v2(pair, &text(head, date, bucket)));
    if equal(right.as_bytes(), &rest[at + 1..]) { Ok(()) } else { Err(Denied::SignatureDoesNotMatch) }
}

/// Judges a presigned request.
pub fn judge_query(keys: &Keys, head: &RequestHead, bucket: Option<&str>, now: u64) -> Result<(), Denied> {
    let find = |key: &str| {
        Param::find(head.query(), key).value().ok_or(Denied::QueryMalformed(
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
        ))
    };
    let (id, expires, signature) = (find("AWSAccessKeyId")?, find("Expires")?, find("Signature")?);
    let pair = keys.find(&id)?;
    let until: u64 = std::str::from_utf8(&expires)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Denied::QueryMalformed("Expires must be a number of seconds since 1970"))?;
    if now > until {
        return Err(Denied::Expired);
    }
    let right = BASE64.encode(&keys.sign_v2(pair, &text(head, &expires, bucket)));
    if equal(right.as_bytes(), &signature) { Ok(()) } else { Err(Denied::SignatureDoesNotMatch) }
}

fn seconds_of(date: &[u8]) -> Option<u64> {
    parse_http_date(date).or_else(|| v4::seconds_of(date))
}

/// What is signed.
fn text(head: &RequestHead, date: &[u8], bucket: Option<&str>) -> Vec<u8> {
    let field = |name| head.header(name).unwrap_or_default();
    let lines = [head.method_text().as_bytes(), field("content-md5"), field("content-type"), date];
    let mut out = Vec::new();
    for line in lines {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    let names: BTreeMap<String, &str> = head
        .all()
        .map(|(name, _)| (name.to_ascii_lowercase(), name))
        .filter(|(lower, _)| lower.starts_with("x-amz-"))
        .collect();
    for (lower, name) in names {
        out.extend_from_slice(lower.as_bytes());
        out.push(b':');
        canonical::field(head, name, &mut out);
        out.push(b'\n');
    }
    resource(head, bucket, &mut out);
    out
}

/// The raw path, behind the bucket that the host names, and the sub-resources in order, their values decoded.
fn resource(head: &RequestHead, bucket: Option<&str>, out: &mut Vec<u8>) {
    if let Some(bucket) = bucket {
        out.push(b'/');
        out.extend_from_slice(bucket.as_bytes());
    }
    out.extend_from_slice(head.path().as_bytes());
    let mut found: Vec<_> = query_pairs(head.query().unwrap_or_default())
        .filter(|(key, _)| SUB_RESOURCES.iter().any(|known| known.as_bytes() == &**key))
        .collect();
    found.sort();
    for (index, (key, value)) in found.iter().enumerate() {
        out.push(if index == 0 { b'?' } else { b'&' });
        out.extend_from_slice(key);
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
}

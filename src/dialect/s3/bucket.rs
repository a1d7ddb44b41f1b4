//! Buckets: listing, creating, looking at and deleting them.
//!
//! Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::{Plan, Sink, Trouble};
use super::reply::{Call, XMLNS};
use super::sign::Chain;
use super::{S3, param, xml_in};
use crate::codec::time::Rfc3339;
use crate::codec::xml::Xml;
use crate::net::http::Status;
use crate::service::blob::{BlobError, STREAMS};
use data_encoding::BASE64URL_NOPAD;
use std::net::Ipv4Addr;

/// Who owns everything: there is one account.
pub const OWNER: &str = "millpond";
/// Most buckets of a page.
const BUCKETS_MAX: usize = 10_000;
/// The longest body of a request that creates a bucket.
const BODY_MAX: usize = 64 * 1024;

/// Lists buckets in the order of their names.
pub async fn list(s3: &S3, call: &mut Call<'_>) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let max = param::number(head, "max-buckets", BUCKETS_MAX, BUCKETS_MAX)?;
    let prefix = param::text(head, "prefix").unwrap_or_default();
    let after = match param::text(head, "continuation-token") {
        None => Vec::new(),
        Some(token) => BASE64URL_NOPAD.decode(&token).map_err(|_| {
            Fault::argument("continuation-token", "The continuation token provided is incorrect")
        })?,
    };
    let all = s3.driver.container_list().await?;
    let mut found: Vec<_> = all
        .into_iter()
        .filter(|known| known.name.as_bytes() > &after[..] && known.name.as_bytes().starts_with(&prefix))
        .collect();
    let more = found.len() > max;
    found.truncate(max);
    let mut xml = Xml::in_namespace("ListAllMyBucketsResult", XMLNS);
    xml.open("Owner").element("ID", OWNER).element("DisplayName", OWNER).close();
    xml.open("Buckets");
    for bucket in &found {
        xml.open("Bucket").element("Name", bucket.name.as_bytes());
        xml.element("CreationDate", Rfc3339::at_ms(bucket.created_ms).as_str()).close();
    }
    xml.close();
    if let Some(last) = found.last().filter(|_| more) {
        xml.element("ContinuationToken", BASE64URL_NOPAD.encode(last.name.as_bytes()));
    }
    if !prefix.is_empty() {
        xml.element("Prefix", &prefix);
    }
    call.xml(xml).await
}

/// Creates a bucket. The region that the body names is read and means nothing: there is one.
pub async fn create(s3: &S3, call: &mut Call<'_>, bucket: &str, chain: Option<Chain>) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let plan = Plan::of(head, chain)?;
    if !is_name(bucket) {
        return Err(Fault::from(Code::InvalidBucketName).with("BucketName", bucket).into());
    }
    if bucket == STREAMS {
        return Err(Code::BucketAlreadyExists.into());
    }
    let locks = head.header("x-amz-bucket-object-lock-enabled");
    if locks.is_some_and(|value| value.eq_ignore_ascii_case(b"true")) {
        return Err(Fault::new(Code::NotImplemented, "Object locks are not implemented").into());
    }
    let mut body = Vec::new();
    plan.receive(call.exchange, Sink::Memory(&mut body, BODY_MAX), None).await?;
    if !body.is_empty() {
        xml_in::location(&body)?;
    }
    if !s3.driver.container_create(bucket).await? {
        return Err(Fault::from(Code::BucketAlreadyOwnedByYou).with("BucketName", bucket).into());
    }
    tracing::info!(bucket, "bucket created");
    call.empty(Status::OK, &[("Location", &format!("/{bucket}"))]).await
}

/// Whether there is one, and where.
pub async fn head(s3: &S3, call: &mut Call<'_>, bucket: &str) -> Result<(), Trouble> {
    demand(s3, bucket).await?;
    let settings = s3.settings();
    call.empty(Status::OK, &[("x-amz-bucket-region", settings.keys.region())]).await
}

/// Deletes an empty one.
pub async fn delete(s3: &S3, call: &mut Call<'_>, bucket: &str) -> Result<(), Trouble> {
    s3.driver.container_delete(bucket).await?;
    tracing::info!(bucket, "bucket deleted");
    call.empty(Status::NO_CONTENT, &[]).await
}

/// The region; the first one of all has no name here.
pub async fn location(s3: &S3, call: &mut Call<'_>, bucket: &str) -> Result<(), Trouble> {
    demand(s3, bucket).await?;
    let settings = s3.settings();
    let region = Some(settings.keys.region()).filter(|region| *region != "us-east-1");
    let mut xml = Xml::in_namespace("LocationConstraint", XMLNS);
    xml.text(region.unwrap_or_default());
    call.xml(xml).await
}

/// There are no versions, and never were.
pub async fn versioning(s3: &S3, call: &mut Call<'_>, bucket: &str) -> Result<(), Trouble> {
    demand(s3, bucket).await?;
    call.xml(Xml::in_namespace("VersioningConfiguration", XMLNS)).await
}

/// The bucket must be there.
pub async fn demand(s3: &S3, bucket: &str) -> Result<(), Fault> {
    match s3.driver.demand_container(bucket).await {
        Err(BlobError::NoSuchContainer) => Err(Fault::from(Code::NoSuchBucket).with("BucketName", bucket)),
        other => Ok(other?),
    }
}

/// 3 to 63 of `a-z0-9.-`, no dot or dash at an end, no dot beside either, and no IPv4 address.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(*byte) || matches!(byte, b'.' | b'-'))
        && plain(bytes[0])
        && plain(bytes[bytes.len() - 1])
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
        && name.parse::<Ipv4Addr>().is_err()
        && !name.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()) && name.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_buckets() {
        for name in ["abc", "a-b", "a.b.c", "0ab", "123", &"x".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "ab",
            "A-b",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "a.-b",
            "a-.b",
            "192.168.5.123",
            "1.2.3",
            "a b",
            "a/b",
            "é-bucket",
            &"x".repeat(64),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}

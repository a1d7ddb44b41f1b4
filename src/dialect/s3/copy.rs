//! `PUT` with `x-amz-copy-source`: an object or a part that stands for bytes which are there already.
//!
//! Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::Trouble;
use super::payload::checksum::Checksum;
use super::reply::{Call, XMLNS, quoted};
use super::route::PartOf;
use super::{S3, fields};
use crate::codec::text::{hex, percent_decode};
use crate::codec::time::Rfc3339;
use crate::codec::xml::Xml;
use crate::net::http::RequestHead;
use crate::net::http::condition::{Conditions, Standing, Verdict};
use crate::net::http::range::{RangeSpec, parse_range};
use crate::runtime::shard;
use crate::service::blob::{Blob, Name, Properties};
use md5::{Digest, Md5};
use std::ops::Range;

/// Copies an object.
pub async fn copy(s3: &S3, call: &mut Call<'_>, name: Name) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let source_name = source_of(head)?;
    let replaces = match head.header("x-amz-metadata-directive") {
        None => false,
        Some(value) if value.eq_ignore_ascii_case(b"copy") => false,
        Some(value) if value.eq_ignore_ascii_case(b"replace") => true,
        Some(_) => {
            return Err(Fault::argument("x-amz-metadata-directive", "Unknown metadata directive.").into());
        }
    };
    if source_name == name && !replaces {
        return Err(Fault::new(
            Code::InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        )
        .into());
    }
    let kept = fields::kept(head)?;
    let when = fields::when(head);
    let source = find(s3, head, &source_name).await?;
    let properties = match replaces {
        true => fields::replaced(&source.properties, kept),
        false => fields::copied(&source.properties),
    };
    let stored = s3.driver.file_copy(&source, name, properties, when).await?;
    let result = "CopyObjectResult";
    let etag = stored.etag.as_ref().unwrap_or(&source.properties.etag);
    call.xml(document(result, stored.created_ms, etag, Checksum::of(&source.properties))).await
}

/// Makes a range of an object a part.
pub async fn copy_part(s3: &S3, call: &mut Call<'_>, part: PartOf) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let source_name = source_of(head)?;
    let range = head.header("x-amz-copy-source-range").map(<[u8]>::to_vec);
    let source = find(s3, head, &source_name).await?;
    let range = match range {
        None => 0..source.size,
        Some(value) => range_of(&value, source.size)?,
    };
    let is_whole = range == (0..source.size);
    // No byte is read, so the MD5 of a range is not known: what is told instead is the same for the same bytes.
    let etag = match is_whole && !source.properties.etag.contains('-') {
        true => source.properties.etag.clone(),
        false => {
            let text = format!("{}:{}-{}", source.properties.etag, range.start, range.end);
            hex(&Md5::digest(text)).into()
        }
    };
    let checksum =
        Checksum::of(&source.properties).filter(|checksum| is_whole && !checksum.value.contains('-'));
    let mut properties = Properties { etag: etag.clone(), ..Properties::default() };
    if let Some(checksum) = &checksum {
        checksum.keep(&mut properties);
    }
    let PartOf { name, id, number } = part;
    let stored = s3.driver.copy_part(&source, range, &name, &id, number, properties).await?;
    let etag = stored.etag.unwrap_or(etag);
    call.xml(document("CopyPartResult", stored.created_ms, &etag, checksum)).await
}

fn document(root: &'static str, created_ms: u64, etag: &str, checksum: Option<Checksum>) -> Xml {
    let mut xml = Xml::in_namespace(root, XMLNS);
    xml.element("LastModified", Rfc3339::at_ms(created_ms).as_str()).element("ETag", quoted(etag));
    if let Some(checksum) = checksum {
        xml.element(checksum.algorithm.element(), checksum.value.as_bytes());
        xml.element("ChecksumType", checksum.kind.text());
    }
    xml
}

/// `[/]bucket/key[?versionId=null]`, percent-encoded.
fn source_of(head: &RequestHead) -> Result<Name, Fault> {
    let bad = || {
        Fault::argument(
            "x-amz-copy-source",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
        )
    };
    let raw = head.header("x-amz-copy-source").ok_or_else(bad)?;
    // A `?` in a key is escaped.
    let (path, version) = match memchr::memchr(b'?', raw) {
        Some(at) => (&raw[..at], Some(&raw[at + 1..])),
        None => (raw, None),
    };
    match version {
        None | Some(b"" | b"versionId=" | b"versionId=null") => {}
        Some(_) => return Err(Code::NoSuchVersion.into()),
    }
    let path = percent_decode(path).map_err(|_| bad())?;
    let path = path.strip_prefix(b"/").unwrap_or(&path);
    let slash = memchr::memchr(b'/', path).ok_or_else(bad)?;
    let bucket = std::str::from_utf8(&path[..slash]).map_err(|_| bad())?;
    Name::new(bucket, &path[slash + 1..]).map_err(|_| bad())
}

async fn find(s3: &S3, head: &RequestHead, name: &Name) -> Result<Blob, Fault> {
    let conditions = Conditions::prefixed(head, "x-amz-copy-source-");
    let source = s3.driver.file_head(name).await?.ok_or(Fault::from(Code::NoSuchKey))?;
    let standing = Standing { etag: &source.properties.etag, modified_ms: source.created_ms };
    match conditions.judge(Some(standing), true, shard::current().wall().unix_seconds()) {
        Verdict::Proceed => Ok(source),
        Verdict::NotModified | Verdict::Failed => Err(Code::PreconditionFailed.into()),
    }
}

/// `bytes=first-last`, both within the source: nothing is cut to fit.
fn range_of(value: &[u8], size: u64) -> Result<Range<u64>, Fault> {
    let bad = || {
        Fault::argument(
            "x-amz-copy-source-range",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy",
        )
    };
    let parsed = parse_range(value).ok_or_else(bad)?;
    match parsed.specs() {
        [RangeSpec::Between { first, last }] if *last < size => Ok(*first..last + 1),
        [RangeSpec::Between { .. }] => Err(Fault::new(
            Code::InvalidRange,
            format!("Range specified is not valid for source object of size: {size}"),
        )),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn source(value: &str) -> Result<(String, Vec<u8>), Code> {
        let text = format!("PUT /b/k HTTP/1.1\r\nHost: h\r\nx-amz-copy-source: {value}\r\n\r\n");
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)), "{text}");
        let name = source_of(&head).map_err(|fault| fault.code)?;
        Ok((name.container().to_owned(), name.key().to_vec()))
    }

    #[test]
    fn sources_are_read_as_clients_write_them() {
        let named = |bucket: &str, key: &[u8]| Ok((bucket.to_owned(), key.to_vec()));
        assert_eq!(source("b/k"), named("b", b"k"));
        assert_eq!(source("/b/k/x"), named("b", b"k/x"));
        assert_eq!(source("b/a%20b%3Fc+d"), named("b", b"a b?c+d"));
        assert_eq!(source("b%2Fk"), named("b", b"k"));
        assert_eq!(source("b//k"), named("b", b"/k"));
        assert_eq!(source("b/k?versionId=null"), named("b", b"k"));
        assert_eq!(source("b/k?versionId=7"), Err(Code::NoSuchVersion));
        for value in ["", "b", "/b/", "/", "b/%zz"] {
            assert_eq!(source(value), Err(Code::InvalidArgument), "{value}");
        }
    }

    #[test]
    fn ranges_of_sources_are_exact() {
        let range = |value: &str| range_of(value.as_bytes(), 10).map_err(|fault| fault.code);
        assert_eq!(range("bytes=0-9"), Ok(0..10));
        assert_eq!(range("bytes=3-3"), Ok(3..4));
        assert_eq!(range("bytes=0-10"), Err(Code::InvalidRange));
        for value in ["bytes=5-", "bytes=-5", "0-5", "bytes=5-3", "bytes=0-1,3-4", "bytes=hello-world"] {
            assert_eq!(range(value), Err(Code::InvalidArgument), "{value}");
        }
    }
}

//! Fields of requests that are kept beside an object, and how they come back.
//!
//! Standard ones are kept under their name in lower case, `x-amz-meta-foo` as `meta-foo`, so that every dialect shows
//! the same. Invariant: what is kept can be sent: no control characters, no name that is no token.
//! Pure; runs on the connection's shard.

use super::fault::{Code, Fault};
use super::payload::checksum::Checksum;
use super::reply::quoted;
use super::sizes;
use crate::codec::time::HttpDate;
use crate::net::http::condition::Conditions;
use crate::net::http::{RequestHead, ResponseHead, is_token, is_value_byte};
use crate::service::blob::{Blob, Properties, When};

/// Names and values of all user metadata together.
const METADATA_BYTES_MAX: usize = 2048;
/// Kept as they are, and how they are written.
const STANDARD: &[(&str, &str)] = &[
    ("cache-control", "Cache-Control"),
    ("content-disposition", "Content-Disposition"),
    ("content-encoding", "Content-Encoding"),
    ("content-language", "Content-Language"),
    ("content-type", "Content-Type"),
    ("expires", "Expires"),
];
/// What an object is unless its sender says otherwise.
const TYPE: &str = "binary/octet-stream";

/// Fields that ask for something that would be missed if it were not done.
const NOT_BUILT: &[&str] = &[
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
];

/// What of a request is kept beside the object that it makes.
pub fn kept(head: &RequestHead) -> Result<Properties, Fault> {
    if let Some(name) = NOT_BUILT.iter().find(|name| head.header(name).is_some_and(|value| !value.is_empty()))
    {
        return Err(Fault::new(Code::NotImplemented, format!("The header {name} is not implemented")));
    }
    let mut properties = Properties::default();
    for (name, _) in STANDARD {
        let mut value = joined(head, name);
        if *name == "content-encoding" {
            value = without_chunked(&value);
        }
        if !value.is_empty() {
            properties.fields.push(((*name).into(), value.into()));
        }
    }
    let mut bytes = 0;
    for (name, value) in head.all() {
        let name = name.to_ascii_lowercase();
        let Some(user) = name.strip_prefix("x-amz-meta-").filter(|user| !user.is_empty()) else { continue };
        bytes += user.len() + value.len();
        let name = format!("meta-{user}");
        match properties.fields.iter_mut().find(|(known, _)| **known == name) {
            Some((_, known)) => *known = [known, &b","[..], value].concat().into(),
            None => properties.fields.push((name.into(), value.into())),
        }
    }
    if bytes > METADATA_BYTES_MAX {
        return Err(Fault::from(Code::MetadataTooLarge)
            .with("MaxSizeAllowed", METADATA_BYTES_MAX.to_string())
            .with("Size", bytes.to_string()));
    }
    Ok(properties)
}

fn joined(head: &RequestHead, name: &str) -> Vec<u8> {
    head.headers(name).collect::<Vec<_>>().join(&b", "[..])
}

/// How the body travelled is not what the object is.
fn without_chunked(value: &[u8]) -> Vec<u8> {
    let codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    codings.filter(|coding| !coding.eq_ignore_ascii_case(b"aws-chunked")).collect::<Vec<_>>().join(&b", "[..])
}

/// The properties of a copy that keeps what is kept beside its source.
pub fn copied(source: &Properties) -> Properties {
    source.clone()
}

/// The properties of a copy that takes `fields` instead: what belongs to the bytes stays.
pub fn replaced(source: &Properties, fields: Properties) -> Properties {
    let of_bytes = |name: &str| name.starts_with("~checksum-") || name == sizes::FIELD;
    let mut properties = Properties { etag: source.etag.clone(), ..fields };
    properties.fields.extend(source.fields.iter().filter(|(name, _)| of_bytes(name)).cloned());
    properties
}

/// The condition that guards a change.
pub fn when(head: &RequestHead) -> When {
    let Conditions { matches, matches_none, .. } = Conditions::of(head);
    When { matches, matches_none }
}

/// Whether the change could be made now; it is decided again when it is made.
pub fn judge(when: &When, there: Option<&Blob>) -> Result<(), Fault> {
    match (&when.matches, there) {
        (Some(_), None) => return Err(Code::NoSuchKey.into()),
        (Some(tags), Some(blob)) if !tags.include(&blob.properties.etag) => {
            return Err(Fault::from(Code::PreconditionFailed).with("Condition", "If-Match"));
        }
        _ => {}
    }
    match (&when.matches_none, there) {
        (Some(tags), Some(blob)) if tags.include(&blob.properties.etag) => {
            Err(Fault::from(Code::PreconditionFailed).with("Condition", "If-None-Match"))
        }
        _ => Ok(()),
    }
}

/// Writes what is kept beside an object. `overrides` are parameters `response-…` in the place of standard fields.
pub fn write<'b>(
    mut head: ResponseHead<'b>,
    blob: &Blob,
    overrides: &[(&'static str, Box<[u8]>)],
) -> ResponseHead<'b> {
    for (name, shown) in STANDARD {
        let default = (*name == "content-type").then_some(TYPE.as_bytes());
        let instead = overrides.iter().find(|(of, _)| of == name).map(|(_, value)| &**value);
        if let Some(value) = instead.or(blob.properties.field(name)).or(default) {
            head = put(head, shown, value);
        }
    }
    for (name, value) in &blob.properties.fields {
        if let Some(user) = name.strip_prefix("meta-") {
            head = put(head, &format!("x-amz-meta-{user}"), value);
        }
    }
    head
}

/// Writes entity tag and date, which every answer about an object has.
pub fn write_standing<'b>(head: ResponseHead<'b>, blob: &Blob) -> ResponseHead<'b> {
    let date = HttpDate::at(blob.created_ms / 1000);
    put(head, "ETag", quoted(&blob.properties.etag).as_bytes()).header("Last-Modified", date.as_bytes())
}

/// Writes a checksum.
pub fn write_checksum<'b>(head: ResponseHead<'b>, checksum: Option<&Checksum>) -> ResponseHead<'b> {
    match checksum {
        Some(checksum) => head
            .header(checksum.algorithm.field(), checksum.value.as_bytes())
            .header("x-amz-checksum-type", checksum.kind.text()),
        None => head,
    }
}

/// The parameters `response-…`.
pub fn overrides(head: &RequestHead) -> Vec<(&'static str, Box<[u8]>)> {
    let found = |name: &'static str| {
        let value = super::param::text(head, &format!("response-{name}"))?;
        Some((name, value))
    };
    STANDARD.iter().filter_map(|(name, _)| found(name)).collect()
}

/// What another dialect kept may be nothing that a field can hold.
fn put<'b>(head: ResponseHead<'b>, name: &str, value: &[u8]) -> ResponseHead<'b> {
    if is_token(name.as_bytes()) && value.iter().copied().all(is_value_byte) {
        head.header(name, value)
    } else {
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn kept_of(fields: &str) -> Result<Vec<(String, String)>, Code> {
        let text = format!("PUT /b/k HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)), "{text}");
        let shown = |(name, value): (Box<str>, Box<[u8]>)| {
            (name.into(), String::from_utf8_lossy(&value).into_owned())
        };
        let properties = kept(&head).map_err(|fault| fault.code)?;
        Ok(properties.fields.into_iter().map(shown).collect())
    }

    #[test]
    fn what_is_kept() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = "Content-Type: a/b\r\nX-Amz-Meta-Foo: 1\r\nx-amz-meta-foo: 2\r\nx-amz-acl: private\r\n\
                      Content-Encoding: aws-chunked,gzip\r\nUser-Agent: x\r\nx-amz-meta-: y\r\n";
        let expected =
            vec![pair("content-encoding", "gzip"), pair("content-type", "a/b"), pair("meta-foo", "1,2")];
        assert_eq!(kept_of(fields), Ok(expected));
        assert_eq!(kept_of("Content-Encoding: AWS-Chunked\r\n"), Ok(vec![]));
    }

    #[test]
    fn too_much_metadata_is_refused() {
        let of = |len: usize| kept_of(&format!("x-amz-meta-a: {}\r\n", "x".repeat(len)));
        assert!(of(2047).is_ok());
        assert_eq!(of(2048), Err(Code::MetadataTooLarge));
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        assert_eq!(kept_of("x-amz-server-side-encryption: AES256\r\n"), Err(Code::NotImplemented));
        assert_eq!(kept_of("x-amz-tagging: a=b\r\n"), Err(Code::NotImplemented));
        assert_eq!(kept_of("x-amz-storage-class: STANDARD\r\n"), Ok(vec![]));
    }
}

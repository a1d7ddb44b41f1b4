//! What is kept beside a blob, as header fields of S3 and back; and what documents of S3 have in common.
//!
//! Invariant: what goes there is what a field can hold, and what comes back is what was sent.
//! Pure; runs on the connection's shard.

use crate::codec::sigv4;
use crate::codec::text::percent_decode;
use crate::codec::time::{parse_http_date, parse_rfc3339_ms};
use crate::net::http::answer::AnswerHead;
use crate::net::http::condition::Tags;
use crate::net::http::{is_token, is_value_byte};
use crate::service::blob::{Properties, When};

/// Fields that are what they are on both sides.
const STANDARD: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];
/// What S3 says of an object whose sender gave no type: each dialect has its own word for that.
const NO_TYPE: &[u8] = b"binary/octet-stream";
const META: &str = "meta-";
const USER: &str = "x-amz-meta-";
/// What dialects note of a checksum, and the field that carries it.
const NOTED: &str = "~checksum-";
const CHECKSUM: &str = "x-amz-checksum-";

/// The fields that carry `properties`. Checksums go only where the store can compare them with bytes that follow.
pub fn fields_of(properties: &Properties, with_checksums: bool) -> Vec<(String, Vec<u8>)> {
    let fields = properties.fields.iter().filter_map(|(name, value)| {
        let name = match name.strip_prefix(META) {
            Some(user) => format!("{USER}{user}"),
            None if STANDARD.contains(&&**name) => name.to_string(),
            None => match name.strip_prefix(NOTED) {
                Some("type") | None => return None,
                Some(algorithm) if with_checksums => format!("{CHECKSUM}{algorithm}"),
                Some(_) => return None,
            },
        };
        let fits = is_token(name.as_bytes()) && value.iter().copied().all(is_value_byte);
        fits.then(|| (name, value.to_vec()))
    });
    fields.collect()
}

/// What the fields of an object say about it.
pub fn properties_of(head: &AnswerHead) -> Properties {
    let mut properties = Properties { etag: etag_of(head).unwrap_or_default(), ..Properties::default() };
    for (name, value) in head.all() {
        let name = name.to_ascii_lowercase();
        if name == "content-type" && value == NO_TYPE {
            continue;
        }
        let kept = match (name.strip_prefix(USER), name.strip_prefix(CHECKSUM)) {
            (Some(user), _) => format!("{META}{user}"),
            (_, Some(algorithm)) => format!("{NOTED}{algorithm}"),
            _ if STANDARD.contains(&&*name) => name,
            _ => continue,
        };
        if value.len() < 1 << 16 && kept.len() < 256 {
            properties.fields.push((kept.into(), value.into()));
        }
    }
    properties
}

/// The entity tag of an answer, without quotes.
pub fn etag_of(head: &AnswerHead) -> Option<Box<str>> {
    let text = std::str::from_utf8(head.header("etag")?).ok()?;
    Some(bare(text)).filter(|etag| !etag.is_empty() && etag.len() < 256)
}

/// A tag without quotes.
pub fn bare(text: &str) -> Box<str> {
    text.trim().trim_start_matches("W/").trim_matches('"').into()
}

/// When an object was changed, in milliseconds since 1970.
pub fn modified_ms(head: &AnswerHead) -> u64 {
    head.header("last-modified").and_then(parse_http_date).map_or(0, |seconds| seconds.saturating_mul(1000))
}

/// A moment as documents write it.
pub fn moment(text: &str) -> u64 {
    parse_rfc3339_ms(text.trim().as_bytes()).unwrap_or_default()
}

/// The fields that carry a condition, as far as S3 has one like it.
pub fn conditions(when: &When) -> Vec<(String, Vec<u8>)> {
    let mut fields = Vec::new();
    if let Some(Tags::Any) = &when.matches_none {
        fields.push(("if-none-match".to_owned(), b"*".to_vec()));
    }
    if let Some(Tags::Of(tags)) = &when.matches
        && let [tag] = &tags[..]
    {
        fields.push(("if-match".to_owned(), format!("\"{tag}\"").into_bytes()));
    }
    fields
}

/// A key or prefix as listings write it: percent-encoded, and perhaps with a plus for a space.
pub fn decoded(text: &str) -> Option<Box<[u8]>> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).ok().map(|bytes| bytes.into())
}

/// What names a source of a copy.
pub fn source(place: &super::Place) -> String {
    let path = super::ask::path_of(place);
    let mut canonical = String::new();
    sigv4::path(&path, &mut canonical);
    canonical
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn field(name: &str, value: &str) -> (Box<str>, Box<[u8]>) {
        (name.into(), value.as_bytes().into())
    }

    #[test]
    fn what_is_sent_comes_back() {
        let fields = vec![
            field("content-type", "a/b"),
            field("meta-one", "1, 2"),
            field("~checksum-crc32", "y/Q5Jg=="),
            field("~parts", "x"),
            field("meta-b\r\n", "2"),
            field("meta-c", "3\r\nX-Evil: 4"),
        ];
        let properties = Properties { etag: "e".into(), fields };
        let mut text = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\nServer: x\r\n".to_owned();
        for (name, value) in fields_of(&properties, true) {
            text += &format!("{name}: {}\r\n", String::from_utf8(value).unwrap());
        }
        let mut head = AnswerHead::default();
        text += "\r\n";
        assert_eq!(
            head.parse(text.as_bytes(), &HeadLimits::default(), true),
            Step::Done(text.len()),
            "{text}"
        );
        let back = properties_of(&head);
        assert_eq!(back, Properties { etag: "e".into(), fields: properties.fields[..3].to_vec() });
        assert!(fields_of(&properties, false).iter().all(|(name, _)| !name.contains("checksum")));
    }

    #[test]
    fn keys_of_listings_are_read_in_both_ways_of_writing() {
        assert_eq!(decoded("a+b%20c%2B/%C3%A9").as_deref(), Some("a b c+/\u{e9}".as_bytes()));
        assert_eq!(decoded("%zz"), None);
    }

    #[test]
    fn conditions_that_s3_has_go_along() {
        let of = |matches, matches_none| conditions(&When { matches, matches_none });
        assert_eq!(of(None, Some(Tags::Any)), [("if-none-match".to_owned(), b"*".to_vec())]);
        assert_eq!(of(Some(Tags::Of(vec!["e".into()])), None), [("if-match".to_owned(), b"\"e\"".to_vec())]);
        assert!(of(Some(Tags::Any), Some(Tags::Of(vec!["e".into()]))).is_empty());
    }
}

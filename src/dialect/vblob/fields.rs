//! Header fields that are kept beside a file, and given back with it.
//!
//! Invariant: what other dialects kept is told here as well, and what cannot stand in a field is left out rather than
//! breaking the answer. Pure; runs on the connection's shard.

use crate::net::http::{RequestHead, ResponseHead, is_token};
use crate::service::blob::Properties;

/// Standard fields that are kept from a request.
const KEPT: [&str; 5] =
    ["cache-control", "content-disposition", "content-encoding", "content-type", "expires"];
/// Standard fields that other dialects keep, too.
const TOLD: &str = "content-language";
/// What user metadata is called on the wire.
const USER: &str = "x-blb-meta-";
/// What it is called in the store.
const META: &str = "meta-";

/// What a file has that nobody gave a type.
const DEFAULT_TYPE: &str = "binary/octet-stream";

/// Names and values.
pub type Fields = Vec<(Box<str>, Box<[u8]>)>;

/// The fields of a request that are kept: names in lower case, values of repeated ones joined.
pub fn of_request(head: &RequestHead) -> Fields {
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, value) in head.all() {
        let name = name.to_ascii_lowercase();
        let kept = match name.strip_prefix(USER) {
            Some("") => continue,
            Some(user) => format!("{META}{user}"),
            None if KEPT.contains(&&*name) => name,
            None => continue,
        };
        match fields.iter_mut().find(|(known, _)| *known == kept) {
            // A type is no list.
            Some(_) if kept == "content-type" => {}
            Some((_, known)) => {
                known.extend_from_slice(b", ");
                known.extend_from_slice(value);
            }
            None => fields.push((kept, value.to_vec())),
        }
    }
    fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// What a dialect noted about the bytes themselves, which holds for every file with them.
pub fn of_bytes(properties: &Properties) -> impl Iterator<Item = (Box<str>, Box<[u8]>)> + '_ {
    properties.fields.iter().filter(|(name, _)| name.starts_with('~')).cloned()
}

/// Adds what is kept to the head of an answer.
pub fn tell<'b>(mut head: ResponseHead<'b>, properties: &Properties) -> ResponseHead<'b> {
    if properties.field("content-type").is_none_or(|value| !is_value(value)) {
        head = head.header("Content-Type", DEFAULT_TYPE);
    }
    for (name, value) in properties.fields.iter().filter(|(_, value)| is_value(value)) {
        head = match name.strip_prefix(META) {
            Some(user) if is_token(user.as_bytes()) => head.header(&format!("{USER}{user}"), value),
            None if KEPT.contains(&&**name) || **name == *TOLD => head.header(name, value),
            _ => head,
        };
    }
    head
}

fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::time::HttpDate;
    use crate::net::http::{HeadLimits, Status, Step};

    fn head(fields: &str) -> RequestHead {
        let text = format!("PUT /c/k HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(text.len()));
        head
    }

    fn told(fields: Fields) -> String {
        let mut out = Vec::new();
        let properties = Properties { etag: "e".into(), fields };
        tell(ResponseHead::start(&mut out, Status::OK, &HttpDate::at(0)), &properties).close().finish();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn standard_fields_and_user_metadata_are_kept_and_nothing_else() {
        let head = head(
            "X-Blb-Meta-A: 1\r\nx-blb-meta-a: 2\r\nContent-Type: a/b\r\ncontent-type: c/d\r\nExpires: soon\r\n\
             X-Other: 3\r\nx-blb-meta-: 4\r\nCache-Control: no-cache\r\nCache-Control: private\r\nx-amz-meta-b: 5\r\n",
        );
        let kept = of_request(&head);
        let shown: Vec<_> = kept.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected: [(&str, &[u8]); 4] = [
            ("meta-a", b"1, 2"),
            ("content-type", b"a/b"),
            ("expires", b"soon"),
            ("cache-control", b"no-cache, private"),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_was_kept_is_told() {
        let field = |name: &str, value: &[u8]| (name.into(), value.into());
        let text = told(vec![
            field("meta-a", b"1"),
            field("meta-b\r\n", b"2"),
            field("meta-c", b"3\r\nX-Evil: 4"),
            field("~note", b"5"),
            field("content-language", b"la"),
            field("host", b"6"),
        ]);
        assert!(text.contains("\r\nContent-Type: binary/octet-stream\r\n"), "{text}");
        assert!(
            text.contains("\r\nx-blb-meta-a: 1\r\n") && text.contains("\r\ncontent-language: la\r\n"),
            "{text}"
        );
        assert!(!["note", "Evil", "host", "meta-b"].iter().any(|word| text.contains(word)), "{text}");
        assert!(told(vec![field("content-type", b"a/b")]).contains("\r\ncontent-type: a/b\r\n"));
    }
}

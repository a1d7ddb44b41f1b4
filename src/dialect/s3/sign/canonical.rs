//! The parts of a request in the one form in which both sides sign them.
//!
//! Invariant: what two servers could read differently has two forms here. Pure; runs anywhere.

use crate::codec::text::{percent_decode, percent_encode};
use crate::net::http::RequestHead;
use crate::net::http::target::query_pairs;
use std::fmt::Write;

/// A raw path, decoded and encoded again once; slashes stay. No dots or slashes are folded: they are bytes of a key.
/// A `%` without two digits is what it is; routing refuses it.
pub fn path(raw: &str, out: &mut String) {
    for (index, segment) in raw.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        match percent_decode(segment.as_bytes()) {
            Ok(bytes) => write_to(out, &bytes),
            Err(_) => write_to(out, segment.as_bytes()),
        }
    }
    if raw.is_empty() {
        out.push('/');
    }
}

/// A raw query, decoded, encoded again and sorted, without the parameter `except`.
pub fn query(raw: Option<&str>, except: &str, out: &mut String) {
    let mut pairs: Vec<(String, String)> = query_pairs(raw.unwrap_or_default())
        .filter(|(key, _)| **key != *except.as_bytes())
        .map(|(key, value)| {
            let value = value.as_deref().unwrap_or_default();
            (percent_encode(&key).to_string(), percent_encode(value).to_string())
        })
        .collect();
    pairs.sort();
    for (index, (key, value)) in pairs.iter().enumerate() {
        let _ = write!(out, "{}{key}={value}", if index > 0 { "&" } else { "" });
    }
}

/// The value of a field as it is signed: several joined by commas, spaces around and in a row folded. One that is not
/// there is empty.
pub fn field(head: &RequestHead, name: &str, out: &mut Vec<u8>) {
    for (index, value) in head.headers(name).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        fold_spaces(value, out);
    }
}

fn fold_spaces(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

fn write_to(out: &mut String, bytes: &[u8]) {
    let _ = write!(out, "{}", percent_encode(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path_of(raw: &str) -> String {
        let mut out = String::new();
        path(raw, &mut out);
        out
    }

    fn query_of(raw: &str) -> String {
        let mut out = String::new();
        query(Some(raw), "X-Amz-Signature", &mut out);
        out
    }

    #[test]
    fn a_path_is_decoded_and_encoded_once() {
        for (raw, form) in [
            ("/", "/"),
            ("/b/a b", "/b/a%20b"),
            ("/b/a%20b", "/b/a%20b"),
            ("/b/a+b", "/b/a%2Bb"),
            ("/b/%2f", "/b/%2F"),
            ("/b/a%2541", "/b/a%2541"),
            ("/b//../.", "/b//../."),
            ("/b/~(!)", "/b/~%28%21%29"),
            ("/b/%zz", "/b/%25zz"),
        ] {
            assert_eq!(path_of(raw), form, "{raw}");
        }
    }

    #[test]
    fn a_query_is_sorted_in_its_encoded_form() {
        for (raw, form) in [
            ("", ""),
            ("delete", "delete="),
            ("delete=", "delete="),
            ("b=2&a=1", "a=1&b=2"),
            ("prefix=a/b&delimiter=/", "delimiter=%2F&prefix=a%2Fb"),
            ("prefix=a%2Fb c+d", "prefix=a%2Fb%20c%20d"),
            ("a=2&a=1&a", "a=&a=1&a=2"),
            ("X-Amz-Signature=x&z=%7e", "z=~"),
            ("a=b=c&&", "a=b%3Dc"),
        ] {
            assert_eq!(query_of(raw), form, "{raw}");
        }
    }

    #[test]
    fn spaces_are_folded() {
        let folded = |value: &[u8]| {
            let mut out = Vec::new();
            fold_spaces(value, &mut out);
            out
        };
        assert_eq!(folded(b"  a   b c  "), b"a b c");
        assert_eq!(folded(b""), b"");
    }

    proptest! {
        /// Bytes of a key have one form, however much of them was escaped by the sender.
        #[test]
        fn escapes_do_not_matter(key in proptest::collection::vec(any::<u8>(), 0..24), all: bool) {
            let plain: String = key.iter().map(|byte| match byte {
                b'a'..=b'z' | b'/' if !all => char::from(*byte).to_string(),
                byte => format!("%{byte:02x}"),
            }).collect();
            let slashed = key.split(|byte| *byte == b'/').map(|part| percent_encode(part).to_string());
            let expected = match all {
                true => percent_encode(&key).to_string(),
                false => slashed.collect::<Vec<_>>().join("/"),
            };
            prop_assert_eq!(path_of(&format!("/b/{plain}")), format!("/b/{expected}"));
        }
    }
}

//! The parts of a request in the one form in which both sides sign them.
//!
//! Invariant: what two servers could read differently has two forms here. Pure; runs anywhere.

use crate::codec::sigv4;
use crate::net::http::RequestHead;
use crate::net::http::target::query_pairs;

pub use crate::codec::sigv4::path;

/// A raw query, decoded, encoded again and sorted, without the parameter `except`.
pub fn query(raw: Option<&str>, except: &str, out: &mut String) {
    let pairs = query_pairs(raw.unwrap_or_default()).filter(|(key, _)| **key != *except.as_bytes());
    sigv4::query(pairs.map(|(key, value)| (key, value.unwrap_or_default())), out);
}

/// The value of a field as it is signed. One that is not there is empty.
pub fn field(head: &RequestHead, name: &str, out: &mut Vec<u8>) {
    sigv4::field(head.headers(name), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::text::percent_encode;
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

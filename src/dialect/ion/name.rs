//! Names of blobs, from the query.
//!
//! Invariant: whatever passes is one name, and comes back from a listing as it went in; none is ever part of a path of
//! the file system. Pure; runs on the connection's shard.

use crate::codec::text::percent_decode;
use crate::service::blob::Name;

/// The first `res` of a query, decoded as forms are: `+` is a space.
pub fn of_query(query: Option<&str>) -> Result<Vec<u8>, String> {
    let value = query.unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("res="));
    let value = value.ok_or("the name of the blob is missing: send it as ?res=NAME")?.replace('+', " ");
    let name = percent_decode(value.as_bytes()).map_err(|bad| format!("res: {bad}"))?;
    check(&name)
}

/// A name as it is kept: without one slash in front.
pub fn check(name: &[u8]) -> Result<Vec<u8>, String> {
    let name = name.strip_prefix(b"/").unwrap_or(name);
    if name.is_empty() {
        return Err("the name of the blob is empty: send it as ?res=NAME".into());
    }
    if name.len() > Name::KEY_MAX {
        return Err(format!(
            "the name of the blob has {} bytes; up to {} are possible",
            name.len(),
            Name::KEY_MAX
        ));
    }
    let text = std::str::from_utf8(name).map_err(|_| "the name of the blob is not UTF-8")?;
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("the name of the blob has a control character in it".into());
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("the name of the blob has a segment . or .. in it".into());
    }
    Ok(name.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::text::percent_encode;
    use proptest::prelude::*;

    #[test]
    fn names_are_decoded_once_and_as_forms() {
        for (query, name) in [
            ("res=a", "a"),
            ("file=x&res=a&res=b", "a"),
            ("res=a+b%2Bc", "a b+c"),
            ("res=%2Fa//b/", "a//b/"),
            ("res=//a", "/a"),
            ("res=a%252e", "a%2e"),
            ("res=a=b", "a=b"),
            ("res=...", "..."),
            ("res=%C3%BC", "\u{fc}"),
        ] {
            assert_eq!(of_query(Some(query)), Ok(name.as_bytes().to_vec()), "{query}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for query in [
            "",
            "res",
            "res=",
            "res=/",
            "Res=a",
            "xres=a",
            "res=..",
            "res=a/../b",
            "res=%2e%2e/a",
            "res=./a",
            "res=a/.",
            "res=%2F..",
            "res=a%00",
            "res=a%0a",
            "res=%7f",
            "res=%",
            "res=%zz",
            "res=%ff",
            "&res=",
        ] {
            assert!(of_query(Some(query)).is_err(), "{query}");
        }
        assert!(of_query(None).is_err());
        assert!(of_query(Some(&format!("res={}", "a".repeat(1025)))).is_err());
        assert!(of_query(Some(&format!("res={}", "a".repeat(1024)))).is_ok());
    }

    proptest! {
        #[test]
        fn what_passes_is_what_was_sent(name in "[^\\x00-\\x1f\\x7f/]{1,40}(/[^\\x00-\\x1f\\x7f/]{0,10}){0,3}") {
            let query = format!("res={}", percent_encode(name.as_bytes()));
            if let Ok(found) = of_query(Some(&query)) {
                prop_assert_eq!(found, name.into_bytes());
            }
        }
    }
}

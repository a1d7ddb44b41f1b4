//! JSON that is kept as it came: whether it may be kept, and what is taken off its texts on the way out.
//!
//! Invariant: what is not a text value comes out as it went in, byte for byte. Pure; runs on the connection's shard.

use serde_json::value::RawValue;

/// Arrays and objects within each other, at most.
pub const DEPTH_MAX: usize = 64;

/// Refuses what is no object or array, is followed by something, or is nested too deeply.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    // Before it is parsed: how deep it is bounds what that takes.
    if depth(bytes) > DEPTH_MAX {
        return Err(format!("the document is nested deeper than {DEPTH_MAX} levels"));
    }
    let value: &RawValue =
        serde_json::from_slice(bytes).map_err(|error| format!("the document is no JSON: {error}"))?;
    match value.get().as_bytes().first() {
        Some(b'{' | b'[') => Ok(()),
        _ => Err("a document is a JSON object or array".into()),
    }
}

fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at) - 1,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Behind the text that begins at `at`; the end of all where it does not end.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'\\' => end += 2,
            b'"' => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// The document with `prefix` taken off each text value that begins with it. Keys stay.
pub fn strip(bytes: Vec<u8>, prefix: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(quote) = memchr::memchr(b'"', &bytes[at..]).map(|found| at + found) {
        let end = string_end(&bytes, quote);
        let is_key = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        if let Some(len) = escaped_len(&bytes[quote + 1..end], prefix).filter(|_| !is_key) {
            out.extend_from_slice(&bytes[copied..=quote]);
            copied = quote + 1 + len;
        }
        at = end;
    }
    if copied == 0 {
        return bytes;
    }
    out.extend_from_slice(&bytes[copied..]);
    out
}

/// How many bytes of the escaped `text` say `prefix`, if it begins so.
fn escaped_len(text: &[u8], prefix: &str) -> Option<usize> {
    let mut at = 0;
    for wanted in prefix.chars() {
        let (found, len) = match text.get(at..)? {
            [b'\\', b'u', digits @ ..] => {
                let digits = std::str::from_utf8(digits.get(..4)?).ok()?;
                (char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, 6)
            }
            [b'\\', escaped, ..] => (
                match escaped {
                    b'n' => '\n',
                    b't' => '\t',
                    b'r' => '\r',
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    other => char::from(*other),
                },
                2,
            ),
            rest => {
                let len = wanted.len_utf8();
                let found = std::str::from_utf8(rest.get(..len)?).ok()?.chars().next()?;
                (found, len)
            }
        };
        if found != wanted {
            return None;
        }
        at += len;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn objects_and_arrays_are_documents() {
        for good in ["{}", "[]", " {\"a\": 1e400} \n", "[[{}]]", "{\"a\":\"]]]]\"}"] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            "null",
            "1",
            "\"a\"",
            "{} {}",
            "{}x",
            "{",
            "[1,]",
            "{\"a\"}",
            "\u{feff}{}",
            "{'a':1}",
            "[\"\\\"]",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check(b"[\"\xff\"]").is_err());
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(()));
        assert!(check(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(check("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn a_location_is_read_as_a_name() {
        let strip = |text: &str| String::from_utf8(strip(text.into(), "ion/e-1/")).unwrap();
        assert_eq!(strip(r#"{"image": "ion/e-1/a/b.png"}"#), r#"{"image": "a/b.png"}"#);
        assert_eq!(strip(r#"["ion\/e-1\/a", "\u0069on/e-1/b"]"#), r#"["a", "b"]"#);
        for verbatim in [
            r#"{"ion/e-1/key": 1}"#,
            r#"{"a":"ion/e-2/a", "b":"x ion/e-1/a", "c" : 1.50, "d":"2018/04/05"}"#,
            r#"["ion/e-1"]"#,
            r#"{"ion/e-1/k" : "\\ion/e-1/"}"#,
        ] {
            assert_eq!(strip(verbatim), verbatim);
        }
    }

    proptest! {
        #[test]
        fn anything_may_be_fed(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = check(&bytes);
            let stripped = strip(bytes.clone(), "a/");
            prop_assert!(stripped.len() <= bytes.len());
        }

        #[test]
        fn what_is_stripped_is_json_still(texts in proptest::collection::vec("(ion/e/)?[a\"\\\\/é]{0,5}", 0..5)) {
            let document = serde_json::to_vec(&texts).unwrap();
            let stripped: Vec<String> = serde_json::from_slice(&strip(document, "ion/e/")).unwrap();
            let wanted: Vec<&str> = texts.iter().map(|text| text.strip_prefix("ion/e/").unwrap_or(text)).collect();
            prop_assert_eq!(stripped, wanted);
        }
    }
}

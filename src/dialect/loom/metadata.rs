//! Metadata: JSON in a header field, kept as it was written but for insignificant space.
//!
//! Escapes stay escapes and numbers keep their digits: what is un-escaped might not fit into a field any more,
//! and a number may mean more than a double can hold. What is no JSON is kept as a JSON string of itself.
//!
//! Invariant: what comes out is a field value: no control characters, no space at its ends.
//! Pure; runs on the connection's shard.

use serde::de::IgnoredAny;

/// Metadata as it is kept and sent back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The field value for readers; empty when there is none.
    pub value: Vec<u8>,
    /// What is wrong with what was sent, if so.
    pub warning: Option<String>,
}

impl Metadata {
    /// From the fields of a request; several are one list, as everywhere in HTTP.
    pub fn of<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Self {
        let raw = fields.collect::<Vec<_>>().join(&b", "[..]);
        if raw.is_empty() {
            return Metadata { value: raw, warning: None };
        }
        match serde_json::from_slice::<IgnoredAny>(&raw) {
            Ok(_) => Metadata { value: minified(&raw), warning: None },
            Err(error) => {
                let warning = format!("kept as a string, because it is not JSON: {error}");
                Metadata { value: quoted(&raw), warning: Some(warning) }
            }
        }
    }
}

/// Valid JSON without the space between its tokens.
fn minified(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}

/// A JSON string of the text of a field. Bytes from 0x80 stay as they are, whatever they encode.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            // The one control character that a field value may hold.
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn of(text: &[u8]) -> Metadata {
        Metadata::of([text].into_iter())
    }

    #[test]
    fn space_goes_and_nothing_else_changes() {
        for (sent, kept) in [
            (r#"{ "meta" : true }"#, r#"{"meta":true}"#),
            (
                r#"{"b": 2.50, "a": [1e3,  12345678901234567890123]}"#,
                r#"{"b":2.50,"a":[1e3,12345678901234567890123]}"#,
            ),
            (r#""\u20ac \" : , \\" "#, r#""\u20ac \" : , \\""#),
            (r#"{"lone": "\ud800"}"#, r#"{"lone":"\ud800"}"#),
            ("\"gr\u{fc}n\" ", "\"gr\u{fc}n\""),
            ("null", "null"),
            ("", ""),
        ] {
            assert_eq!(of(sent.as_bytes()), Metadata { value: kept.into(), warning: None }, "{sent}");
        }
    }

    #[test]
    fn what_is_no_json_is_kept_as_a_string() {
        for (sent, kept) in [
            ("{not json", r#""{not json""#),
            (r#"a "b" \c"#, r#""a \"b\" \\c""#),
            ("\"a\tb\"", r#""\"a\tb\"""#),
            ("1 2", r#""1 2""#),
        ] {
            let kept_as = of(sent.as_bytes());
            assert_eq!(String::from_utf8_lossy(&kept_as.value), kept);
            assert!(kept_as.warning.is_some());
        }
        let twice = Metadata::of([&b"1"[..], b"2"].into_iter());
        assert_eq!((twice.value, twice.warning.is_some()), (b"\"1, 2\"".to_vec(), true));
    }

    /// Deep nesting is text like any other: it must not cost stack.
    #[test]
    fn nesting_is_not_recursion() {
        let deep = [vec![b'['; 30_000], vec![b']'; 30_000]].concat();
        assert_eq!(of(&deep), Metadata { value: deep, warning: None });
    }

    proptest! {
        /// Whatever a field can hold comes out as one that a field can hold, means the same, and stays as it is
        /// when it comes in again.
        #[test]
        fn any_field_value_becomes_a_field_value(
            sent in proptest::collection::vec(prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xffu8], 0..60)
        ) {
            let kept = of(&sent);
            prop_assert!(kept.value.iter().all(|byte| matches!(byte, b' '..=b'~' | 0x80..=0xff)));
            prop_assert!(!kept.value.starts_with(b" ") && !kept.value.ends_with(b" "));
            prop_assert_eq!(of(&kept.value), Metadata { value: kept.value.clone(), warning: None });
            if let Ok(text) = std::str::from_utf8(&sent)
                && let Ok(value) = serde_json::from_slice::<Value>(&kept.value)
            {
                let meant = serde_json::from_str::<Value>(text).unwrap_or(Value::String(text.into()));
                prop_assert_eq!(value, meant);
            }
        }

        #[test]
        fn json_keeps_its_meaning(value in proptest::collection::vec(("[a-z\" \\\\:,]{0,6}", any::<f64>()), 0..6)) {
            let value: Value = value.into_iter().map(|(key, number)| (key, Value::from(number))).collect();
            let kept = of(serde_json::to_string_pretty(&value).unwrap().replace('\n', " ").as_bytes());
            prop_assert_eq!(kept.value, serde_json::to_vec(&value).unwrap());
        }
    }
}

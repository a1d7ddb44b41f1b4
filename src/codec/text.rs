//! Percent, hex and base64: the ways in which bytes travel as text.
//!
//! Invariant: decoding never guesses; a `%` without two hex digits is an error, not a literal.
//! Lives on: whichever shard calls.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// A `%` that two hex digits do not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPercent {
    /// Offset of the `%` in the text.
    pub offset: usize,
}

impl fmt::Display for BadPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the % at offset {} needs two hex digits after it (a plain % is written %25)", self.offset)
    }
}

impl std::error::Error for BadPercent {}

/// Undoes percent-encoding; borrows when there is nothing to undo.
pub fn percent_decode(text: &[u8]) -> Result<Cow<'_, [u8]>, BadPercent> {
    let Some(first) = memchr::memchr(b'%', text) else { return Ok(Cow::Borrowed(text)) };
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(&text[..first]);
    let mut offset = first;
    while let Some(&byte) = text.get(offset) {
        if byte == b'%' {
            decoded.push(escaped_byte(text, offset)?);
            offset += 3;
        } else {
            decoded.push(byte);
            offset += 1;
        }
    }
    Ok(Cow::Owned(decoded))
}

/// What a path segment or a query value may hold as it is (RFC 3986 section 2.3).
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes all but letters, digits and `-._~`, so that the result fits any part of a URI.
pub fn percent_encode(bytes: &[u8]) -> impl fmt::Display + Iterator<Item = &str> {
    percent_encoding::percent_encode(bytes, &RESERVED)
}

/// The value of one hex digit in either case.
pub const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Lower-case hex of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(HEX_LOWER[usize::from(byte >> 4)] as char);
        text.push(HEX_LOWER[usize::from(byte & 15)] as char);
    }
    text
}

/// Bytes from hex in either case; `None` for an odd length or another character.
pub fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some((hex_value(pair[0])? << 4) | hex_value(pair[1])?)).collect()
}

/// Base64 of `bytes` with its padding (RFC 4648 section 4).
pub fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

/// Bytes from base64; `None` for anything that [`base64`] would not have written.
pub fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    // Two texts in a row would be taken for one.
    let ends_once = text.iter().skip_while(|byte| **byte != b'=').all(|byte| *byte == b'=');
    data_encoding::BASE64.decode(text).ok().filter(|_| ends_once)
}

/// The sixteen lower-case digits.
pub const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";

fn escaped_byte(text: &[u8], offset: usize) -> Result<u8, BadPercent> {
    let digit = |at: usize| text.get(at).copied().and_then(hex_value).ok_or(BadPercent { offset });
    Ok((digit(offset + 1)? << 4) | digit(offset + 2)?)
}

/// A number of digits and nothing else, below 2^64: `+1` is a mistake in a query, where `+` is a space, and in a document.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decoding_borrows_when_nothing_is_escaped() {
        assert!(matches!(percent_decode(b"a+b/c"), Ok(Cow::Borrowed(b"a+b/c"))));
        assert_eq!(percent_decode(b"").unwrap().as_ref(), b"");
    }

    #[test]
    fn decoding_takes_both_cases_and_any_byte() {
        assert_eq!(percent_decode(b"%2f%2F%00%ff!").unwrap().as_ref(), b"//\0\xff!");
    }

    #[test]
    fn decoding_refuses_half_an_escape() {
        for (text, offset) in [(&b"%"[..], 0), (b"a%4", 1), (b"%zz", 0), (b"%41%4g", 3), (b"%%41", 0)] {
            assert_eq!(percent_decode(text), Err(BadPercent { offset }));
        }
    }

    #[test]
    fn hex_refuses_odd_lengths_and_strangers() {
        assert_eq!(unhex(b"0aFF"), Some(vec![10, 255]));
        assert_eq!(unhex(b"0aF"), None);
        assert_eq!(unhex(b"0x"), None);
    }

    #[test]
    fn base64_has_one_text_for_all_bytes() {
        assert_eq!(base64(b"\0\xff"), "AP8=");
        for text in [&b"AP8"[..], b"AP9=", b"AP8=\n", b" AP8=", b"A_8=", b"AP8=AP8="] {
            assert_eq!(unbase64(text), None, "{}", text.escape_ascii());
        }
        assert_eq!(unbase64(b""), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn base64_round_trip(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(unbase64(base64(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn percent_round_trip(bytes in any::<Vec<u8>>()) {
            let text = percent_encode(&bytes).to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            let decoded = percent_decode(text.as_bytes()).unwrap();
            prop_assert_eq!(decoded.as_ref(), &bytes[..]);
        }

        #[test]
        fn hex_round_trip(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(unhex(hex(&bytes).as_bytes()), Some(bytes));
        }
    }

    #[test]
    fn a_number_is_digits() {
        assert_eq!((decimal(b"0"), decimal(b"007")), (Some(0), Some(7)));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b""[..], b"-1", b"+1", b" 1", b"1.5", b"0x10", b"18446744073709551616", b"\xff"] {
            assert_eq!(decimal(text), None, "{}", text.escape_ascii());
        }
    }
}

//! Signature version 4: the one form of a request that both sides sign, and the keys that sign it.
//!
//! Invariant: what two programs could read differently has two forms here, whether we judge a signature or make one.
//! Pure: a request is text and bytes. Lives on: whichever shard calls.

use super::text::{hex, percent_decode, percent_encode};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};

/// What signatures of this kind call themselves.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Stands for the digest of a body that is not signed.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// A raw path, decoded and encoded again once; slashes stay. No dots or slashes are folded: they are bytes of a key.
/// A `%` without two digits is what it is.
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

/// A query, of decoded keys and values: encoded and sorted.
pub fn query<K: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl Iterator<Item = (K, V)>, out: &mut String) {
    let encoded = |(key, value): (K, V)| {
        (percent_encode(key.as_ref()).to_string(), percent_encode(value.as_ref()).to_string())
    };
    let mut pairs: Vec<(String, String)> = pairs.map(encoded).collect();
    pairs.sort();
    for (index, (key, value)) in pairs.iter().enumerate() {
        let _ = write!(out, "{}{key}={value}", if index > 0 { "&" } else { "" });
    }
}

/// The values of a field as they are signed: joined by commas, spaces around and in a row folded.
pub fn field<'v>(values: impl Iterator<Item = &'v [u8]>, out: &mut Vec<u8>) {
    for (index, value) in values.enumerate() {
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

/// The text that a signature is of: when, for what, and the digest of the canonical request.
pub fn text_to_sign(timestamp: &str, scope: &str, canonical: &[u8]) -> String {
    format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)))
}

/// The key of a pair for one day and region, ready to sign.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Derives it; `day` is `YYYYMMDD`.
    pub fn derive(secret: &str, day: &[u8; 8], region: &str) -> Self {
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), day);
        for part in [region.as_bytes(), b"s3", b"aws4_request"] {
            key = hmac(&key, part);
        }
        SigningKey(keyed(&key))
    }

    /// The HMAC-SHA256 of `text`.
    pub fn sign(&self, text: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("any length is a key")
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = keyed(key);
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_agrees_with_the_published_example() {
        let mut key = hmac(b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", b"20150830");
        for part in [&b"us-east-1"[..], b"iam", b"aws4_request"] {
            key = hmac(&key, part);
        }
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
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
}

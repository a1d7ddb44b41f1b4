//! Signatures of version 4 for S3, in the head of a request.
//!
//! Invariant: host, date, the digest of the body, method, path and query are signed, and nothing else is sent that a
//! server would act on. Paths and values of queries come here as they are signed: see [`escaped`].

use std::{fmt::Write, time::SystemTime};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Stands for the digest of a body that is not signed.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// The digest of no body.
pub const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Whoever signs.
#[derive(Clone, Debug)]
pub struct Signer {
    id: String,
    secret: String,
    region: String,
    /// Of the last second in which something was signed.
    moment: Moment,
    /// Of the day of that second.
    key: [u8; 32],
    canonical: String,
}

/// A time as signatures write it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Moment {
    second: u64,
    /// `YYYYMMDDTHHMMSSZ`
    text: String,
}

/// What is signed of one request.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, escaped.
    pub path: &'a str,
    /// The query, escaped and sorted, each key with a `=`.
    pub query: &'a str,
    /// The host.
    pub host: &'a str,
    /// The SHA-256 of the body, or [`UNSIGNED`].
    pub digest: &'a str,
}

impl Signer {
    /// With this pair, for this region.
    pub fn new(id: &str, secret: &str, region: &str) -> Self {
        let (id, secret, region) = (id.to_owned(), secret.to_owned(), region.to_owned());
        Self { id, secret, region, moment: Moment::default(), key: [0; 32], canonical: String::new() }
    }

    /// Puts the fields that sign the request at the end of `out`.
    pub fn sign(&mut self, out: &mut Vec<u8>, signed: Signed<'_>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.sign_at(now, out, signed);
    }

    fn sign_at(&mut self, second: u64, out: &mut Vec<u8>, signed: Signed<'_>) {
        if self.moment.second != second || self.moment.text.is_empty() {
            let moment = Moment::of(second);
            if moment.day() != self.moment.day() {
                self.key = key(&self.secret, moment.day(), &self.region);
            }
            self.moment = moment;
        }
        let Signed { method, path, query, host, digest } = signed;
        let (time, day, region) = (&self.moment.text, self.moment.day(), &self.region);
        let names = "host;x-amz-content-sha256;x-amz-date";
        self.canonical.clear();
        _ = write!(
            self.canonical,
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{digest}\nx-amz-date:{time}\n\n{names}\n{digest}"
        );
        let scope = format!("{day}/{region}/s3/aws4_request");
        let request = hex(&Sha256::digest(&self.canonical));
        let signature = hmac(&self.key, format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{request}").as_bytes());
        let fields = format!(
            "x-amz-date: {time}\r\nx-amz-content-sha256: {digest}\r\nAuthorization: AWS4-HMAC-SHA256 \
             Credential={}/{scope}, SignedHeaders={names}, Signature={}\r\n",
            self.id,
            hex(&signature)
        );
        out.extend_from_slice(fields.as_bytes());
    }
}

impl Moment {
    /// By the civil calendar; the days before a year are counted from a March on, so that a leap day is a year's last.
    fn of(second: u64) -> Self {
        let (day, rest) = (second / 86_400, second % 86_400);
        let from = day + 719_468;
        let (era, day) = (from / 146_097, from % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + turn;
        let (hour, minute, rest) = (rest / 3_600, rest / 60 % 60, rest % 60);
        Self { second, text: format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{rest:02}Z") }
    }

    /// `YYYYMMDD`
    fn day(&self) -> &str {
        self.text.get(..8).unwrap_or_default()
    }
}

fn key(secret: &str, day: &str, region: &str) -> [u8; 32] {
    let key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    [region, "s3", "aws4_request"].iter().fold(key, |key, part| hmac(&key, part.as_bytes()))
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256>>::new_from_slice(key).expect("any length is a key");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A value of a query, or with `/` a path, as it is sent and signed.
pub fn escaped(text: &str, keeps_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keeps_slashes => out.push('/'),
            byte => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The service's documentation has an example of 24 May 2013, whose listing signs just these three fields.
    #[test]
    fn the_published_example() {
        let mut signer =
            Signer::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1");
        let signed = Signed {
            method: "GET",
            path: "/",
            query: "max-keys=2&prefix=J",
            host: "examplebucket.s3.amazonaws.com",
            digest: EMPTY,
        };
        let mut out = Vec::new();
        signer.sign_at(1_369_353_600, &mut out, signed);
        let text = String::from_utf8(out).expect("text");
        assert!(text.starts_with("x-amz-date: 20130524T000000Z\r\n"), "{text}");
        assert!(
            text.contains("Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"),
            "{text}"
        );
        let signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert!(text.ends_with(&format!("Signature={signature}\r\n")), "{text}");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_709_210_096, "20240229T123456Z"),
            (1_767_225_599, "20251231T235959Z"),
            (1_767_225_600, "20260101T000000Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(Moment::of(second).text, text);
        }
    }

    #[test]
    fn values_are_escaped_once() {
        assert_eq!(escaped("a b/~c+%", true), "a%20b/~c%2B%25");
        assert_eq!(escaped("a/b", false), "a%2Fb");
        assert_eq!(hex(&Sha256::digest(b"")), EMPTY);
    }
}

//! Signature version 4, in `Authorization` and in the query of a presigned request.
//!
//! Invariant: every `x-amz-` field and the host are among the signed ones. Pure; runs on the connection's shard.

use super::keys::Keys;
use super::{Chain, Denied, SKEW_MAX_SECONDS, canonical, equal};
use crate::codec::sigv4::{ALGORITHM, UNSIGNED, text_to_sign};
use crate::codec::text::hex;
use crate::codec::time::parse_http_date;
use crate::net::http::RequestHead;
use crate::net::http::target::Param;
use std::borrow::Cow;

pub use crate::codec::time::parse_basic_time as seconds_of;

/// The longest that a presigned request may be valid: a week.
const EXPIRES_MAX: u64 = 7 * 24 * 3600;

/// Judges `Authorization: AWS4-HMAC-SHA256 …`; the chain begins with its signature.
pub fn judge_field(keys: &Keys, head: &RequestHead, value: &[u8], now: u64) -> Result<Chain, Denied> {
    let parts = Parts::of_field(value)?;
    let credential = Credential::of(parts.credential, keys)
        .map_err(|wrong| wrong.unwrap_or(Denied::Malformed(CREDENTIAL)))?;
    let timestamp = timestamp_of(head)?;
    let then = seconds_of(timestamp.as_bytes()).ok_or(Denied::NoDate)?;
    if timestamp.as_bytes()[..8] != credential.day {
        return Err(Denied::Malformed("The date in the credential scope does not match the request's date"));
    }
    if now.abs_diff(then) > SKEW_MAX_SECONDS {
        return Err(Denied::RequestTimeTooSkewed);
    }
    let payload = head.header("x-amz-content-sha256").ok_or(Denied::NoPayloadHash)?;
    let request = Request { head, signed_headers: parts.signed_headers, payload, except: "" };
    let (key, signature) = request.sign(keys, &credential, &timestamp)?;
    if !equal(signature.as_bytes(), parts.signature) {
        return Err(Denied::SignatureDoesNotMatch);
    }
    Ok(Chain::new(key, &timestamp, &credential.scope, signature))
}

/// Judges a presigned request.
pub fn judge_query(keys: &Keys, head: &RequestHead, now: u64) -> Result<(), Denied> {
    const MISSING: Denied = Denied::QueryMalformed(
        "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, \
         X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
    );
    let find = |key: &str| Param::find(head.query(), key).value().ok_or(MISSING);
    if *find("X-Amz-Algorithm")? != *ALGORITHM.as_bytes() {
        return Err(Denied::QueryMalformed("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
    }
    let (credential, signature) = (find("X-Amz-Credential")?, find("X-Amz-Signature")?);
    let (timestamp, expires) = (find("X-Amz-Date")?, find("X-Amz-Expires")?);
    let signed_headers = find("X-Amz-SignedHeaders")?;
    let credential = Credential::of(&credential, keys).map_err(|wrong| {
        wrong.unwrap_or(Denied::QueryMalformed("Error parsing the X-Amz-Credential parameter"))
    })?;
    let date = "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"";
    let then = seconds_of(&timestamp).ok_or(Denied::QueryMalformed(date))?;
    let expires: u64 = std::str::from_utf8(&expires)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|expires| (1..=EXPIRES_MAX).contains(expires))
        .ok_or(Denied::QueryMalformed("X-Amz-Expires must be a number of seconds from 1 to 604800"))?;
    if timestamp[..8] != credential.day {
        return Err(Denied::QueryMalformed("The date in X-Amz-Credential is not that of X-Amz-Date"));
    }
    if then > now + SKEW_MAX_SECONDS {
        return Err(Denied::NotYet);
    }
    if now > then + expires {
        return Err(Denied::Expired);
    }
    let timestamp = std::str::from_utf8(&timestamp).map_err(|_| Denied::QueryMalformed(date))?;
    let hash = Param::find(head.query(), "X-Amz-Content-Sha256").value();
    let payload: Cow<'_, [u8]> = match (hash, head.header("x-amz-content-sha256")) {
        (Some(hash), _) => hash,
        (None, Some(hash)) => hash.into(),
        (None, None) => UNSIGNED.as_bytes().into(),
    };
    let request =
        Request { head, signed_headers: &signed_headers, payload: &payload, except: "X-Amz-Signature" };
    let (_, right) = request.sign(keys, &credential, timestamp)?;
    if equal(right.as_bytes(), &signature) { Ok(()) } else { Err(Denied::SignatureDoesNotMatch) }
}

const CREDENTIAL: &str = "The authorization header is malformed; the Credential is mal-formed; expecting \
     \"<YOUR-AKID>/YYYYMMDD/REGION/s3/aws4_request\".";

/// What `Authorization` holds.
struct Parts<'a> {
    credential: &'a [u8],
    signed_headers: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of_field(value: &'a [u8]) -> Result<Self, Denied> {
        let Some(rest) = value.strip_prefix(ALGORITHM.as_bytes()).and_then(|rest| rest.strip_prefix(b" "))
        else {
            return Err(Denied::Malformed("The authorization mechanism you have provided is not supported"));
        };
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            let slots = [
                (&b"Credential="[..], &mut credential),
                (b"SignedHeaders=", &mut signed_headers),
                (b"Signature=", &mut signature),
            ];
            for (name, slot) in slots {
                if let Some(value) = part.strip_prefix(name) {
                    *slot = Some(value);
                }
            }
        }
        match (credential, signed_headers, signature) {
            (Some(credential), Some(signed_headers), Some(signature)) => {
                Ok(Parts { credential, signed_headers, signature })
            }
            _ => Err(Denied::Malformed(
                "The authorization header is malformed; it requires Credential, SignedHeaders and Signature",
            )),
        }
    }
}

struct Credential {
    pair: super::keys::Pair,
    day: [u8; 8],
    /// `day/region/s3/aws4_request`
    scope: String,
}

impl Credential {
    /// An id may hold slashes, so the scope is read from the end. `Err(None)` for what is no credential at all.
    fn of(text: &[u8], keys: &Keys) -> Result<Self, Option<Denied>> {
        let text = std::str::from_utf8(text).map_err(|_| None)?;
        let mut parts = text.rsplitn(5, '/');
        let (Some("aws4_request"), Some("s3"), Some(region), Some(day), Some(id)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(None);
        };
        let Ok(day) = <[u8; 8]>::try_from(day.as_bytes()) else { return Err(None) };
        let pair = keys.find(id.as_bytes())?;
        if region != keys.region() {
            return Err(Some(Denied::WrongRegion(keys.region().into())));
        }
        Ok(Credential { pair, day, scope: text[id.len() + 1..].to_owned() })
    }
}

struct Request<'a> {
    head: &'a RequestHead,
    signed_headers: &'a [u8],
    payload: &'a [u8],
    /// The parameter that holds the signature itself.
    except: &'a str,
}

impl Request<'_> {
    /// The key, and the signature in hex.
    fn sign(
        &self,
        keys: &Keys,
        credential: &Credential,
        timestamp: &str,
    ) -> Result<(super::keys::SigningKey, String), Denied> {
        let canonical = self.canonical()?;
        let text = text_to_sign(timestamp, &credential.scope, &canonical);
        let key = keys.signing_key(credential.pair, credential.day);
        let signature = hex(&key.sign(text.as_bytes()));
        Ok((key, signature))
    }

    fn canonical(&self) -> Result<Vec<u8>, Denied> {
        self.demand_signed()?;
        let mut text = format!("{}\n", self.head.method_text());
        canonical::path(self.head.path(), &mut text);
        text.push('\n');
        canonical::query(self.head.query(), self.except, &mut text);
        text.push('\n');
        let mut out = text.into_bytes();
        for name in self.names() {
            let text = std::str::from_utf8(name).map_err(|_| Denied::SignatureDoesNotMatch)?;
            out.extend_from_slice(name);
            out.push(b':');
            canonical::field(self.head, text, &mut out);
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(self.signed_headers);
        out.push(b'\n');
        out.extend_from_slice(self.payload);
        Ok(out)
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.signed_headers.split(|byte| *byte == b';')
    }

    /// What is acted on is signed: an intermediary must not be able to add metadata or a copy's source.
    fn demand_signed(&self) -> Result<(), Denied> {
        let is_signed = |name: &str| self.names().any(|signed| signed.eq_ignore_ascii_case(name.as_bytes()));
        if !is_signed("host") {
            return Err(Denied::HeadersNotSigned("host".into()));
        }
        for (name, value) in self.head.all() {
            let acts = name.len() > 6 && name.as_bytes()[..6].eq_ignore_ascii_case(b"x-amz-");
            // It enters the signature by itself; presigned requests come with it unsigned.
            let is_payload = name.eq_ignore_ascii_case("x-amz-content-sha256") && value == self.payload;
            if acts && !is_payload && !is_signed(name) {
                return Err(Denied::HeadersNotSigned(name.to_ascii_lowercase()));
            }
        }
        Ok(())
    }
}

/// `x-amz-date`, or else `Date`, in the form that is signed.
fn timestamp_of(head: &RequestHead) -> Result<String, Denied> {
    let value = head.header("x-amz-date").or_else(|| head.header("date")).ok_or(Denied::NoDate)?;
    if seconds_of(value).is_some() {
        return Ok(String::from_utf8_lossy(value).into_owned());
    }
    let seconds = parse_http_date(value).ok_or(Denied::NoDate)?;
    let text = crate::codec::time::Rfc3339::at_ms(seconds.saturating_mul(1000));
    Ok(format!("{}Z", text.as_str()[..19].replace(['-', ':'], "")))
}

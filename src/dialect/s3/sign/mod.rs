//! Who sent a request: signatures of version 4 and 2, in the head and in the query.
//!
//! | sent as | judged in |
//! |---|---|
//! | `Authorization: AWS4-HMAC-SHA256 …` | [`v4`] |
//! | `?X-Amz-Algorithm=…&X-Amz-Signature=…` | [`v4`] |
//! | `Authorization: AWS id:signature` | [`v2`] |
//! | `?AWSAccessKeyId=…&Expires=…&Signature=…` | [`v2`] |
//!
//! What is signed is read from the raw target: decoded and encoded again once, never tidied. Signatures are compared
//! in time that depends on lengths alone, and no error tells what would have been right.
//!
//! Invariant: a request is granted only if everything that it acts on is signed: method, path, query, host, each
//! `x-amz-` field, and the body as far as the payload mode goes. Pure; runs on the connection's shard.

pub mod canonical;
pub mod chain;
pub mod keys;
pub mod v2;
pub mod v4;

#[cfg(test)]
mod tests;

pub use chain::Chain;
pub use keys::Keys;

use crate::net::http::RequestHead;
use crate::net::http::target::Param;
use std::fmt;

/// How far a clock may be away from ours.
pub const SKEW_MAX_SECONDS: u64 = 15 * 60;

/// A request that may go on.
#[derive(Debug)]
pub struct Granted {
    /// What its body is signed with, in modes whose chunks are signed.
    pub chain: Option<Chain>,
}

/// Why a request may not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Denied {
    /// It is not signed.
    Anonymous,
    /// It is signed in two ways.
    Twice,
    /// No pair has this id.
    InvalidAccessKeyId,
    /// Signed by somebody else, or changed since.
    SignatureDoesNotMatch,
    /// The clocks are more than [`SKEW_MAX_SECONDS`] apart.
    RequestTimeTooSkewed,
    /// A presigned request after its time.
    Expired,
    /// A presigned request before its time.
    NotYet,
    /// No date, or none that can be read.
    NoDate,
    /// A field that the request acts on is not signed.
    HeadersNotSigned(String),
    /// The field `Authorization` is not what it should be.
    Malformed(&'static str),
    /// The parameters of a presigned request are not what they should be.
    QueryMalformed(&'static str),
    /// Signed for another region than this one.
    WrongRegion(Box<str>),
    /// The field that says what of the body is signed is missing.
    NoPayloadHash,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::Anonymous => "Access Denied",
            Denied::Twice => {
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query \
                 string parameter or the Authorization header should be specified"
            }
            Denied::InvalidAccessKeyId => "The AWS Access Key Id you provided does not exist in our records.",
            Denied::SignatureDoesNotMatch => {
                "The request signature we calculated does not match the signature you provided. Check your key \
                 and signing method."
            }
            Denied::RequestTimeTooSkewed => {
                "The difference between the request time and the current time is too large."
            }
            Denied::Expired => "Request has expired",
            Denied::NotYet => "Request is not valid yet",
            Denied::NoDate => "AWS authentication requires a valid Date or x-amz-date header",
            Denied::HeadersNotSigned(name) => {
                return write!(f, "There were headers present in the request which were not signed: {name}");
            }
            Denied::Malformed(sentence) | Denied::QueryMalformed(sentence) => sentence,
            Denied::WrongRegion(region) => {
                return write!(f, "The authorization header is malformed; the region is wrong; expecting '{region}'");
            }
            Denied::NoPayloadHash => "Missing required header for this request: x-amz-content-sha256",
        })
    }
}

/// Judges a request. `bucket` is the one that its host names, if it does; `now` is in seconds since 1970. Without
/// keys everything is granted, and signatures mean nothing.
pub fn judge(keys: &Keys, head: &RequestHead, bucket: Option<&str>, now: u64) -> Result<Granted, Denied> {
    if keys.is_empty() {
        return Ok(Granted { chain: None });
    }
    let field = head.header("authorization");
    let is_present = |key: &str| Param::find(head.query(), key).is_present();
    let by_query_4 = is_present("X-Amz-Algorithm") || is_present("X-Amz-Signature");
    let by_query_2 = is_present("AWSAccessKeyId") || is_present("Signature");
    let ways = usize::from(field.is_some()) + usize::from(by_query_4) + usize::from(by_query_2);
    match field {
        _ if ways > 1 || head.headers("authorization").count() > 1 => Err(Denied::Twice),
        None if by_query_4 => v4::judge_query(keys, head, now).map(|()| Granted { chain: None }),
        None if by_query_2 => v2::judge_query(keys, head, bucket, now).map(|()| Granted { chain: None }),
        None => Err(Denied::Anonymous),
        Some(value) => match value.strip_prefix(b"AWS ") {
            Some(rest) => v2::judge_field(keys, head, rest, bucket, now).map(|()| Granted { chain: None }),
            None => v4::judge_field(keys, head, value, now).map(|chain| Granted { chain: Some(chain) }),
        },
    }
}

/// Whether a request carries a signature of any kind, right or wrong.
pub fn is_signed(head: &RequestHead) -> bool {
    let is_present = |key: &str| Param::find(head.query(), key).is_present();
    head.header("authorization").is_some() || is_present("X-Amz-Signature") || is_present("Signature")
}

/// Whether two texts are the same, in time that depends on their lengths alone.
fn equal(left: &[u8], right: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(left, right).into()
}

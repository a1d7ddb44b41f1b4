//! Numbers and texts from queries, or the fault that says what would be accepted.
//!
//! Pure; runs on the connection's shard.

use super::fault::Fault;
pub use crate::codec::text::decimal;
use crate::net::http::RequestHead;
use crate::net::http::target::Param;

/// The value that `key` has in the query; an empty one is as if it were not there.
pub fn text(head: &RequestHead, key: &str) -> Option<Box<[u8]>> {
    let value = Param::find(head.query(), key).value()?;
    (!value.is_empty()).then(|| value.into_owned().into())
}

/// Whether `key` stands in the query.
pub fn is_present(head: &RequestHead, key: &str) -> bool {
    Param::find(head.query(), key).is_present()
}

/// The number that `key` has in the query; `default` without one, and never more than `max`.
pub fn number(head: &RequestHead, key: &str, default: usize, max: usize) -> Result<usize, Fault> {
    match text(head, key) {
        None => Ok(default),
        Some(value) => {
            decimal(&value).map(|value| usize::try_from(value).unwrap_or(max).min(max)).ok_or_else(|| {
                Fault::argument(key, format!("Provided {key} not an integer or within integer range"))
            })
        }
    }
}

/// Whether keys are to be percent-encoded in documents.
pub fn encodes(head: &RequestHead) -> Result<bool, Fault> {
    match text(head, "encoding-type").as_deref() {
        None => Ok(false),
        Some(b"url") => Ok(true),
        Some(_) => Err(Fault::argument("encoding-type", "Invalid Encoding Method specified in Request")),
    }
}

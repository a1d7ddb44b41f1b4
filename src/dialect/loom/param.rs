//! Ids from paths and numbers from queries, or the sentence that says what would be accepted.
//!
//! Pure; runs on the connection's shard.

use crate::codec::text::decimal;
use crate::net::http::RequestHead;
use crate::net::http::target::{Param, percent_decode_segment};
use crate::service::stream::Id;

/// The id in a path segment, decoded once.
pub fn id(segment: &str) -> Result<Id, String> {
    let bytes = percent_decode_segment(segment).map_err(|bad| format!("the stream ID: {bad}"))?;
    Id::new(&bytes).map_err(|bad| bad.to_string())
}

/// The number that `key` has in the query, if it is there.
pub fn number(head: &RequestHead, key: &str) -> Result<Option<u64>, String> {
    let refuse = || format!("{key} is not a decimal number below 2^64");
    match Param::find(head.query(), key) {
        Param::Absent => Ok(None),
        Param::Bare => Err(refuse()),
        Param::Value(text) => decimal(&text).map(Some).ok_or_else(refuse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_decoded_once() {
        assert_eq!(id("a%2541").unwrap().as_bytes(), b"a%41");
        assert_eq!(id("a+b").unwrap().as_bytes(), b"a+b");
        assert_eq!(id("%2e%2e%2Fx%00").unwrap().as_bytes(), b"../x\0");
        assert!(id("%zz").unwrap_err().contains("%25"), "says how a % is written");
        assert!(id(&"x".repeat(1025)).unwrap_err().contains("1024"));
    }
}

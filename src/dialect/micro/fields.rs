//! Fields of a request on their way to somebody else: to subscribers, to services.
//!
//! Invariant: what speaks of the connection stays with it (RFC 9110 section 7.6.1), and so does our own token.
//! Pure; runs on the connection's shard.

use super::Settings;
use crate::net::http::{RequestHead, list_elements};
use std::collections::BTreeMap;

/// Of the connection, or of where the request went.
const OF_THE_CONNECTION: &[&str] = &[
    "host",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// What a call says itself, and what would change how its answer is written.
const OF_THE_CALL: &[&str] = &["content-length", "content-type", "accept", "accept-encoding", "timeout"];

/// What a call without one says that it is.
const AGENT: &str = "Go-http-client/1.1";

/// Fields that may go on, as they came.
pub fn passing<'h>(head: &'h RequestHead, settings: &Settings) -> impl Iterator<Item = (&'h str, &'h [u8])> {
    let named: Vec<&[u8]> = head.headers("connection").flat_map(list_elements).collect();
    let has_tokens = !settings.tokens.is_empty();
    head.all().filter(move |(name, _)| {
        let is_ours = has_tokens && name.eq_ignore_ascii_case("authorization");
        let is_named = named.iter().any(|element| element.eq_ignore_ascii_case(name.as_bytes()));
        !is_ours && !is_named && !is_of(name, OF_THE_CONNECTION)
    })
}

/// Whether a field of an answer stays with the connection that it came on.
pub fn stays(name: &str) -> bool {
    is_of(name, OF_THE_CONNECTION)
}

/// The header of a message: named as Go does, what is there twice joined.
pub fn header(head: &RequestHead, settings: &Settings) -> BTreeMap<String, String> {
    joined(passing(head, settings), ", ")
}

/// What goes along with a call.
pub fn metadata(head: &RequestHead, settings: &Settings) -> Vec<(String, String)> {
    let passing = passing(head, settings).filter(|(name, _)| !is_of(name, OF_THE_CALL));
    let mut metadata = joined(passing, ",");
    metadata.entry("User-Agent".to_owned()).or_insert_with(|| AGENT.to_owned());
    metadata.into_iter().collect()
}

fn joined<'h>(fields: impl Iterator<Item = (&'h str, &'h [u8])>, between: &str) -> BTreeMap<String, String> {
    let mut header: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in fields {
        let value = String::from_utf8_lossy(value);
        header
            .entry(canonical(name))
            .and_modify(|all| {
                all.push_str(between);
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    header
}

fn is_of(name: &str, list: &[&str]) -> bool {
    list.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// `content-type` as `Content-Type`.
fn canonical(name: &str) -> String {
    let mut begins = true;
    name.chars()
        .map(|char| {
            let shown = if begins { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() };
            begins = char == '-';
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn head() -> RequestHead {
        let mut head = RequestHead::new();
        let text = "POST /broker?topic=a HTTP/1.1\r\nHost: a\r\nfoo: 1\r\nFOO: 2\r\nx-micro-id: 7\r\nTE: trailers\r\n\
                    Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nContent-Length: 0\r\nAuthorization: Bearer t\r\n\
                    Accept: */*\r\nTimeout: 5\r\ntraceparent: 00-a-b-01\r\n\r\n";
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)));
        head
    }

    fn shown<'p>(pairs: impl IntoIterator<Item = (&'p String, &'p String)>) -> Vec<String> {
        pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn fields_become_the_header_and_the_connections_stay_behind() {
        let open = Settings::default();
        let expected = [
            "Accept=*/*",
            "Authorization=Bearer t",
            "Content-Length=0",
            "Foo=1, 2",
            "Timeout=5",
            "Traceparent=00-a-b-01",
            "X-Micro-Id=7",
        ];
        assert_eq!(shown(&header(&head(), &open)), expected);
        let closed = Settings { tokens: vec![crate::config::Secret::new("t")], ..open };
        assert!(!header(&head(), &closed).contains_key("Authorization"), "our token is not for subscribers");
    }

    #[test]
    fn calls_carry_what_they_do_not_say_themselves() {
        let metadata = metadata(&head(), &Settings::default());
        let shown: Vec<String> = metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let expected = [
            "Authorization=Bearer t",
            "Foo=1,2",
            "Traceparent=00-a-b-01",
            "User-Agent=Go-http-client/1.1",
            "X-Micro-Id=7",
        ];
        assert_eq!(shown, expected);
    }
}

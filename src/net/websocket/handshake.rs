//! The handshake (RFC 6455 section 4): a request that asks for a websocket, and its answer.
//!
//! Invariant: nothing is switched that was not asked for in the one way there is. Pure; runs on the connection's
//! shard.

use crate::codec::text::{base64, unbase64};
use crate::net::http::{Method, RequestHead, Status, list_elements};
use sha1::{Digest, Sha1};

/// What the accept field is made of, beside the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether the request asks to become a websocket, rightly or wrongly.
pub fn is_wanted(head: &RequestHead) -> bool {
    head.method() == Method::Get
        && head.upgrade().is_some_and(|protocols| {
            list_elements(protocols).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        })
}

/// Why a request cannot become one: the status, and a sentence.
pub type Refused = (Status, &'static str);

/// The value of `Sec-WebSocket-Accept` for a request that [`is_wanted`].
pub fn accept(head: &RequestHead) -> Result<String, Refused> {
    let one = |name: &str| {
        let mut values = head.headers(name);
        values.next().filter(|_| values.next().is_none())
    };
    if one("sec-websocket-version") != Some(b"13") {
        return Err((Status::UPGRADE_REQUIRED, "Sec-WebSocket-Version is not 13"));
    }
    match one("sec-websocket-key") {
        Some(key) if unbase64(key).is_some_and(|bytes| bytes.len() == 16) => Ok(accept_of(key)),
        _ => Err((Status::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

/// What a server that understood answers to `key`.
pub fn accept_of(key: &[u8]) -> String {
    base64(&Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// A client's request for a websocket at `target`, with further `fields`, each ending with CRLF.
pub fn request(host: &str, target: &str, key: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{fields}\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn head_of(text: &str) -> RequestHead {
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)), "{text}");
        head
    }

    #[test]
    fn the_example_of_the_rfc() {
        let head = head_of(&request("a", "/chat", "dGhlIHNhbXBsZSBub25jZQ==", "Origin: http://a\r\n"));
        assert!(is_wanted(&head));
        assert_eq!(accept(&head).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn what_is_no_websocket() {
        let good = request("a", "/", "dGhlIHNhbXBsZSBub25jZQ==", "");
        for (from, to) in
            [("GET", "POST"), ("Upgrade: websocket", "Upgrade: h2c"), ("Connection: Upgrade", "X: y")]
        {
            assert!(!is_wanted(&head_of(&good.replacen(from, to, 1))), "{to}");
        }
        for (from, to, status) in [
            ("Version: 13", "Version: 8", Status::UPGRADE_REQUIRED),
            ("Sec-WebSocket-Version: 13\r\n", "", Status::UPGRADE_REQUIRED),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", Status::BAD_REQUEST),
            ("Host: a", "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", Status::BAD_REQUEST),
        ] {
            let head = head_of(&good.replacen(from, to, 1));
            assert_eq!(accept(&head).expect_err(to).0, status, "{to}");
        }
    }
}

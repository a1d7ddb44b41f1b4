//! `/broker`: a websocket is a subscriber and a publisher at once; a POST publishes.
//!
//! A message is made into JSON and framed once, on the publisher's shard. Invariant: a subscriber whose 101 was sent
//! gets what is published from then on. Lives on: the connection's shard.

use super::answer::{self, Reply};
use super::registry::param;
use super::{MESSAGE_MAX, Micro, Settings, json};
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::{Method, RequestHead, Status, list_elements};
use crate::net::websocket::session::{Session, encode};
use crate::net::websocket::{CloseCode, Opcode, handshake};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Answers any request for `/broker`.
pub async fn answer(micro: &Micro, settings: &Settings, exchange: &mut Exchange) -> Result<Reply, Gone> {
    let Some(topic) = param(exchange.head(), "topic") else {
        exchange.skip_body().await?;
        return Ok(Reply::text(Status::BAD_REQUEST, "Topic not specified"));
    };
    match exchange.head().method() {
        Method::Get => subscribe(micro, exchange, &topic).await,
        Method::Post => publish(micro, settings, exchange, &topic).await,
        _ => {
            exchange.skip_body().await?;
            Ok(Reply::method_not_allowed("GET, POST"))
        }
    }
}

async fn publish(
    micro: &Micro,
    settings: &Settings,
    exchange: &mut Exchange,
    topic: &str,
) -> Result<Reply, Gone> {
    let header = header_of(exchange.head(), settings);
    let body = match answer::body(exchange).await? {
        Ok(body) => body,
        Err(reply) => return Ok(reply),
    };
    Ok(match micro.broker.publish(topic, vec![frame(&header, &body)]).await {
        Ok(()) => Reply::empty(),
        Err(closing) => Reply::text(Status::SERVICE_UNAVAILABLE, &closing.to_string()),
    })
}

async fn subscribe(micro: &Micro, exchange: &mut Exchange, topic: &str) -> Result<Reply, Gone> {
    if !handshake::is_wanted(exchange.head()) {
        exchange.skip_body().await?;
        return Ok(Reply::text(Status::BAD_REQUEST, "subscribing takes a websocket, publishing a POST"));
    }
    let accept = match handshake::accept(exchange.head()) {
        Ok(accept) => accept,
        Err((status, text)) => return Ok(Reply::text(status, text).with("Sec-WebSocket-Version", "13")),
    };
    if exchange.is_draining() {
        return Ok(Reply::text(Status::SERVICE_UNAVAILABLE, "the daemon is ending"));
    }
    let content_type = exchange.head().header("content-type").unwrap_or(b"text/plain");
    let content_type = String::from_utf8_lossy(content_type).into_owned();
    let header = BTreeMap::from([("Content-Type".to_owned(), content_type)]);
    let queue = param(exchange.head(), "queue");
    let subscription = match micro.broker.subscribe(topic, queue.as_deref()).await {
        Ok(subscription) => subscription,
        Err(closing) => return Ok(Reply::text(Status::SERVICE_UNAVAILABLE, &closing.to_string())),
    };
    let session = Session::begin(exchange, &accept, MESSAGE_MAX).await?;
    let outbox = subscription.outbox();
    let publish = async |messages: Vec<Vec<u8>>| {
        let frames = messages.iter().map(|message| frame(&header, message)).collect();
        if micro.broker.publish(topic, frames).await.is_err() {
            outbox.end(CloseCode::INTERNAL, "the daemon is ending");
        }
    };
    session.run(outbox, publish).await?;
    Ok(Reply::Said)
}

fn frame(header: &BTreeMap<String, String>, body: &[u8]) -> Bytes {
    encode(Opcode::Text, json::message(header, body).as_bytes())
}

/// Fields that speak of the connection and not of the message (RFC 9110 section 7.6.1), and where it went.
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

/// The fields of a request as the header of a message: named as Go does, what is there twice joined.
fn header_of(head: &RequestHead, settings: &Settings) -> BTreeMap<String, String> {
    let named: Vec<&[u8]> = head.headers("connection").flat_map(list_elements).collect();
    let mut header: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in head.all() {
        let is_ours = name.eq_ignore_ascii_case("authorization") && !settings.tokens.is_empty();
        let is_named = named.iter().any(|element| element.eq_ignore_ascii_case(name.as_bytes()));
        if is_ours || is_named || OF_THE_CONNECTION.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            continue;
        }
        let value = String::from_utf8_lossy(value);
        header
            .entry(canonical(name))
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    header
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

    #[test]
    fn fields_become_the_header_and_the_connections_stay_behind() {
        let mut head = RequestHead::new();
        let text = "POST /broker?topic=a HTTP/1.1\r\nHost: a\r\nfoo: 1\r\nFOO: 2\r\nx-micro-id: 7\r\nTE: trailers\r\n\
                    Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nContent-Length: 0\r\nAuthorization: Bearer t\r\n\r\n";
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)));
        let open = Settings { tokens: Vec::new(), cors: Vec::new() };
        let header = header_of(&head, &open);
        let shown: Vec<_> = header.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["Authorization=Bearer t", "Content-Length=0", "Foo=1, 2", "X-Micro-Id=7"]);
        let closed = Settings { tokens: vec![crate::config::Secret::new("t")], ..open };
        assert!(!header_of(&head, &closed).contains_key("Authorization"), "our token is not for subscribers");
    }
}

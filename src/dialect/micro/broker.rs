//! `/broker`: a websocket is a subscriber and a publisher at once; a POST publishes.
//!
//! A message is made into JSON and framed once, on the publisher's shard. Invariant: a subscriber whose 101 was sent
//! gets what is published from then on. Lives on: the connection's shard.

use super::answer::{self, Reply};
use super::registry::param;
use super::{MESSAGE_MAX, Micro, Settings, fields, json};
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::{Method, Status};
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
    let header = fields::header(exchange.head(), settings);
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

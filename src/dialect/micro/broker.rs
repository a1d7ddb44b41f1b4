//! `/broker`: a websocket is a subscriber and a publisher at once; a POST publishes.
//!
//! A message is made into JSON and framed once, on the publisher's shard. With `from` or `durable` the topic is kept, and a
//! subscriber reads it as a stream instead. Invariant: a subscriber whose 101 was sent
//! gets what is published from then on. Lives on: the connection's shard.

use super::answer::{self, Reply};
use super::registry::param;
use super::{MESSAGE_MAX, Micro, Settings, fields, json};
use crate::codec::time::parse_go_duration;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::{Method, Status};
use crate::net::websocket::session::{Message, Outbox, Session, encode};
use crate::net::websocket::{CloseCode, Opcode, handshake};
use crate::service::kept::{KeptError, Since};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::rc::Rc;

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
    Ok(match given(micro, topic, vec![json::message(&header, &body)]).await {
        Ok(()) => Reply::empty(),
        Err(reply) => reply,
    })
}

/// Publishes messages: kept first, if the topic is, then to those who subscribe now.
async fn given(micro: &Micro, topic: &str, messages: Vec<String>) -> Result<(), Reply> {
    let messages: Vec<Bytes> = messages.into_iter().map(Bytes::from).collect();
    micro.kept.publish(topic, messages.clone()).await.map_err(|error| refusal(&error))?;
    let frames = messages.iter().map(|message| encode(Opcode::Text, message)).collect();
    let published = micro.broker.publish(topic, frames).await;
    published.map_err(|closing| Reply::text(Status::SERVICE_UNAVAILABLE, &closing.to_string()))
}

fn refusal(error: &KeptError) -> Reply {
    let status = match error {
        KeptError::Name(_) | KeptError::NoMessage(_) => Status::BAD_REQUEST,
        KeptError::Beyond(_) => Status::RANGE_NOT_SATISFIABLE,
        KeptError::Trimmed(_) => Status::GONE,
        KeptError::Full => Status::INSUFFICIENT_STORAGE,
        KeptError::Unavailable(_) => Status::SERVICE_UNAVAILABLE,
    };
    Reply::text(status, &error.to_string())
}

/// Where a subscriber wants to begin: an offset, a time ago, or the start.
fn since(text: &str) -> Result<Since, Reply> {
    let ago = |text: &str| text.strip_prefix('-').and_then(|ago| parse_go_duration(ago).ok()).map(Since::Ago);
    match text {
        "start" => Ok(Since::Start),
        text => text.parse().ok().map(Since::Offset).or_else(|| ago(text)).ok_or_else(|| {
            let sentence = "from must be the offset of a message, a time ago such as -5m, or start";
            Reply::text(Status::BAD_REQUEST, sentence)
        }),
    }
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
    let durable = param(exchange.head(), "durable");
    let since = match param(exchange.head(), "from").map(|text| since(&text)).transpose() {
        Ok(since) => since,
        Err(reply) => return Ok(reply),
    };
    if since.is_some() || durable.is_some() {
        if queue.is_some() {
            return Ok(Reply::text(Status::BAD_REQUEST, "a group has no from and no durable"));
        }
        let outbox = Rc::new(Outbox::default());
        let reader = micro.kept.subscribe(topic, since, durable.as_deref(), &outbox).await;
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => return Ok(refusal(&error)),
        };
        let session = Session::begin(exchange, &accept, MESSAGE_MAX).await?;
        let talk = session
            .run(&outbox, async |messages| publish_all(micro, topic, &header, messages, &outbox).await);
        let outcome = reader.beside(&outbox, talk).await;
        reader.leave(&outbox);
        return outcome.map(|()| Reply::Said);
    }
    let subscription = match micro.broker.subscribe(topic, queue.as_deref()).await {
        Ok(subscription) => subscription,
        Err(closing) => return Ok(Reply::text(Status::SERVICE_UNAVAILABLE, &closing.to_string())),
    };
    let session = Session::begin(exchange, &accept, MESSAGE_MAX).await?;
    let outbox = subscription.outbox();
    session.run(outbox, async |messages| publish_all(micro, topic, &header, messages, outbox).await).await?;
    Ok(Reply::Said)
}

/// Publishes what a websocket sent; it ends when that is not possible.
async fn publish_all(
    micro: &Micro,
    topic: &str,
    header: &BTreeMap<String, String>,
    messages: Vec<Message>,
    outbox: &Outbox,
) {
    let messages = messages.iter().map(|message| json::message(header, &message.payload)).collect();
    if given(micro, topic, messages).await.is_err() {
        outbox.end(CloseCode::TRY_AGAIN, "the message was not taken");
    }
}

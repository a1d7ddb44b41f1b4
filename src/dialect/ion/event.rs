//! `POST /events`: an event in, durable before it is answered.
//!
//! Lives on: the connection's shard.

use super::answer::{Halt, Refusal};
use super::{Ion, body};
use crate::net::http::exchange::{Exchange, Framing};
use crate::net::http::{RequestHead, Status};
use crate::runtime::shard;
use crate::service::chain::{Commit, Committed, Key, Module};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The longest `Idempotency-Key`.
const KEY_MAX: usize = 255;

/// The longest answer that is kept.
const TOLD_MAX: usize = 60_000;

/// An event in the form in which it is published.
pub struct Envelope {
    /// Its id.
    pub id: String,
    /// One line of JSON, without its end.
    pub line: Bytes,
}

/// Publishes one event.
pub async fn post(ion: &Ion, exchange: &mut Exchange, module: &Module) -> Result<(), Halt> {
    let body = body::whole(exchange, ion.settings().meta_max).await?;
    let event = serde_json::from_slice(&body)
        .map_err(|error| Refusal::Bad(format!("an event is a JSON object of texts: {error}")))?;
    let Envelope { id, line } = Envelope::of(module, event).map_err(Refusal::Bad)?;
    let key = key_of(exchange.head(), &body, id.as_bytes()).map_err(Refusal::Bad)?;
    let commit = Commit { events: vec![line], key, ..Commit::default() };
    let id = match ion.chain.commit(&module.identity, commit).await? {
        Committed::Now => id.into_bytes(),
        Committed::Before(told) => told.into_vec(),
    };
    exchange.begin(Status::CREATED, Framing::Empty).header("X-Event-Id", id).finish();
    Ok(exchange.finish(&[]).await?)
}

/// What tells a repetition of this request from another one, if its sender wants that.
pub fn key_of(head: &RequestHead, body: &[u8], told: &[u8]) -> Result<Option<Key>, String> {
    let Some(key) = head.header("idempotency-key") else { return Ok(None) };
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(format!("an Idempotency-Key has 1 to {KEY_MAX} bytes"));
    }
    if told.len() > TOLD_MAX {
        return Err(format!(
            "what this answers is longer than the {TOLD_MAX} bytes that are kept for a repetition"
        ));
    }
    let digest = Sha256::digest([head.path().as_bytes(), b"\n", body].concat());
    Ok(Some(Key { key: key.into(), digest: Box::from(&digest[..]), told: told.into() }))
}

impl Envelope {
    /// What `event` is published as by `module`; a sentence when it may not be.
    pub fn of(module: &Module, mut event: BTreeMap<String, String>) -> Result<Self, String> {
        let kind = event.remove("eventType").filter(|kind| !kind.is_empty());
        let kind = kind.ok_or("an event has its type in eventType, a text that is not empty")?;
        let types = &module.event_types;
        if !types.is_empty() && !types.iter().any(|known| **known == *kind) {
            return Err(format!("eventType {kind:?} is none of this module's: {}", types.join(", ")));
        }
        let id = new_id();
        let identity = &module.identity;
        let text = |text: &str| Value::from(text).to_string();
        let line = format!(
            r#"{{"id":"{id}","type":{},"previousStages":[],"parentId":{},"correlationId":{},"data":{}}}"#,
            text(&kind),
            text(&identity.event),
            text(&identity.correlation),
            json!(event),
        );
        Ok(Envelope { id, line: line.into() })
    }
}

/// A UUID of version 7 (RFC 9562): in the order of the time.
fn new_id() -> String {
    let shard = shard::current();
    let (time, chance) = (shard.wall().unix_millis(), [shard.entropy().next(), shard.entropy().next()]);
    format!(
        "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
        (time >> 16) & 0xffff_ffff,
        time & 0xffff,
        chance[0] & 0xfff,
        0x8000 | ((chance[0] >> 12) & 0x3fff),
        chance[1] & 0xffff_ffff_ffff,
    )
}

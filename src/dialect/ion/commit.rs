//! `POST /self/commit`: staged blobs, a document and events become visible together, or none of them does.
//!
//! `{"blobs":["a.png"],"document":{…},"events":[{"eventType":"…"}]}`; each may be missing, not all of them. The answer is
//! 201 with where the blobs are and the ids of the events. 409 names a blob that is not staged, 422 a key that was used
//! for another request. Lives on: the connection's shard.

use super::answer::{Halt, JSON, Refusal};
use super::event::{Envelope, key_of};
use super::{Ion, body, json, name};
use crate::net::http::Status;
use crate::net::http::exchange::Exchange;
use crate::service::chain::{Commit, Committed, Module};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(default)]
    blobs: Vec<String>,
    #[serde(default, borrow)]
    document: Option<&'a RawValue>,
    #[serde(default)]
    events: Vec<BTreeMap<String, String>>,
}

/// Commits what the body names.
pub async fn commit(ion: &Ion, exchange: &mut Exchange, module: &Module) -> Result<(), Halt> {
    let body = body::whole(exchange, ion.settings().meta_max).await?;
    let request: Request<'_> = serde_json::from_slice(&body).map_err(|error| {
        Refusal::Bad(format!("a commit is a JSON object with blobs, document or events: {error}"))
    })?;
    let mut blobs = BTreeSet::new();
    for blob in &request.blobs {
        let name = name::check(blob.as_bytes()).map_err(|error| Refusal::Bad(format!("blobs: {error}")))?;
        blobs.insert(name.into_boxed_slice());
    }
    if !blobs.is_empty() && ion.driver.is_remote() {
        return Err(Refusal::Elsewhere("a commit of blobs").into());
    }
    if let Some(document) = request.document {
        json::check(document.get().as_bytes()).map_err(Refusal::Bad)?;
    }
    let events = request.events.into_iter().map(|event| Envelope::of(module, event));
    let events: Vec<Envelope> =
        events.collect::<Result<_, _>>().map_err(|error| Refusal::Bad(format!("events: {error}")))?;
    if blobs.is_empty() && request.document.is_none() && events.is_empty() {
        return Err(
            Refusal::Bad("there is nothing to commit: name blobs, a document or events".into()).into()
        );
    }
    let location = ion.location(&module.identity.event);
    let place = |name: &[u8]| {
        let name = String::from_utf8_lossy(name);
        (name.to_string(), format!("{location}{name}"))
    };
    let places: BTreeMap<String, String> = blobs.iter().map(|name| place(name)).collect();
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let told = json!({ "blobs": places, "events": ids }).to_string() + "\n";
    let commit = Commit {
        blobs: blobs.into_iter().collect(),
        document: request.document.map(|document| document.get().to_owned().into()),
        key: key_of(exchange.head(), &body, told.as_bytes()).map_err(Refusal::Bad)?,
        events: events.into_iter().map(|event| event.line).collect(),
    };
    let told = match ion.chain.commit(&module.identity, commit).await? {
        Committed::Now => told.into_bytes(),
        Committed::Before(told) => told.into_vec(),
    };
    Ok(exchange.reply(Status::CREATED, JSON, &told).await?)
}

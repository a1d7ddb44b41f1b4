//! Documents: `/parent/meta`, `/self/meta`, `/meta`.
//!
//! Lives on: the connection's shard.

use super::answer::{self, Halt, JSON, Refusal};
use super::{Ion, body, json};
use crate::net::http::Status;
use crate::net::http::exchange::{Exchange, Framing};
use crate::service::chain::{Commit, Document, Identity};
use serde_json::Value;

/// `PUT /self/meta`: replaces the document whole.
pub async fn put(ion: &Ion, exchange: &mut Exchange, identity: &Identity) -> Result<(), Halt> {
    let document = body::whole(exchange, ion.settings().meta_max).await?;
    json::check(&document).map_err(Refusal::Bad)?;
    let commit = Commit { document: Some(document.into()), ..Commit::default() };
    ion.chain.commit(identity, commit).await?;
    Ok(answer::empty(exchange, Status::OK).await?)
}

/// The document of the module that handles `event`.
pub async fn read(ion: &Ion, exchange: &mut Exchange, event: &str) -> Result<(), Halt> {
    let found = ion.chain.document(event).await?;
    let blob = found.ok_or_else(|| Refusal::NoDocument(event.into()))?;
    let document = json::strip(ion.blobs.read_whole(&blob).await?, &ion.location(event));
    Ok(exchange.reply(Status::OK, JSON, &document).await?)
}

/// `GET /meta`: the documents of the chain, each with whose it is.
pub async fn of_chain(ion: &Ion, exchange: &mut Exchange, correlation: &str) -> Result<(), Halt> {
    let documents = ion.chain.documents(correlation).await?;
    exchange.begin(Status::OK, Framing::Live).header("Content-Type", JSON).finish();
    exchange.send(b"[").await?;
    for (number, Document { event, parent, blob, .. }) in documents.iter().enumerate() {
        let whole = match ion.blobs.read_whole(blob).await {
            Ok(whole) => json::strip(whole, &ion.location(event)),
            Err(error) => {
                tracing::error!(%error, "a document is not readable");
                exchange.abandon();
                return Ok(());
            }
        };
        let text = |text: &str| Value::from(text).to_string();
        let (comma, id, parent) = (if number > 0 { "," } else { "" }, text(event), text(parent));
        let correlation = text(correlation);
        let head =
            format!(r#"{comma}{{"id":{id},"correlationId":{correlation},"parentId":{parent},"metadata":"#);
        exchange.send(head.as_bytes()).await?;
        exchange.send(&whole).await?;
        exchange.send(b"}").await?;
    }
    exchange.send(b"]\n").await?;
    Ok(exchange.finish(&[]).await?)
}

//! `POST /stream[/:id][?force=true | ?resume=N&epoch=E]`: bytes in as they come.
//!
//! The head of the answer goes out at once, before the first byte of the body; its end goes out when every byte
//! is stored as durably as the store is told to. An answer without an end means: not all is well; why, its last
//! chunk says where that can be told.
//!
//! Lives on: the connection's shard, which becomes the stream's home.

use super::metadata::Metadata;
use super::{Loom, answer, param};
use crate::net::http::exchange::{BodyStep, Exchange, Framing, Gone};
use crate::net::http::target::Param;
use crate::net::http::{BodyLength, RequestHead, Status};
use crate::service::stream::{Id, Keeper, Open, ProduceError, Producer, Resume};

/// A stream under a new id.
pub async fn create(loom: &Loom, exchange: &mut Exchange) -> Result<(), Gone> {
    match Request::of(exchange.head()) {
        Ok(Request { resume: Some(_), .. }) => {
            answer::bad_request(exchange, "resume needs the ID of a stream in the path").await
        }
        Ok(request) => open(loom, exchange, Id::generate(), request).await,
        Err(sentence) => answer::bad_request(exchange, &sentence).await,
    }
}

/// A stream under the id in `segment`, or one that goes on.
pub async fn produce(loom: &Loom, exchange: &mut Exchange, segment: String) -> Result<(), Gone> {
    let request = param::id(&segment).and_then(|id| Ok((id, Request::of(exchange.head())?)));
    match request {
        Ok((id, request)) => open(loom, exchange, id, request).await,
        Err(sentence) => answer::bad_request(exchange, &sentence).await,
    }
}

struct Request {
    /// The body's length, if the head tells it.
    announced: Option<u64>,
    force: bool,
    resume: Option<Resume>,
    metadata: Metadata,
}

impl Request {
    fn of(head: &RequestHead) -> Result<Self, String> {
        let announced = match head.body() {
            BodyLength::None => Some(0),
            BodyLength::Exact(len) => Some(len),
            BodyLength::Chunked => None,
        };
        // The word alone, as ever: `?force` and `?force=1` do not destroy anything.
        let force = Param::find(head.query(), "force").value().is_some_and(|value| *value == *b"true");
        let resume = match (param::number(head, "resume")?, param::number(head, "epoch")?) {
            (None, _) => None,
            (Some(_), _) if force => {
                return Err("resume goes on with a stream and force replaces it; send one of them".into());
            }
            (Some(_), None) => {
                return Err("resume needs epoch=E beside it, as HEAD tells it in Stream-Epoch".into());
            }
            (Some(offset), Some(epoch)) => Some(Resume { offset, epoch, announced }),
        };
        Ok(Request { announced, force, resume, metadata: Metadata::of(head.headers("x-stream-metadata")) })
    }
}

async fn open(loom: &Loom, exchange: &mut Exchange, id: Id, request: Request) -> Result<(), Gone> {
    if Keeper::of(&id) != Keeper::Loom {
        return answer::kept_by_another(exchange, &id).await;
    }
    let Request { announced, force, resume, metadata } = request;
    let opened = match resume {
        Some(resume) => loom.streams.resume(id.clone(), resume).await,
        None => {
            let metadata = metadata.value.into();
            loom.streams.open(id.clone(), Open { force, metadata, announced }).await
        }
    };
    let producer = match opened {
        Ok(producer) => producer,
        Err(refusal) => return answer::not_opened(exchange, &id, &refusal).await,
    };
    // What was created with the stream stays: a resumption changes no metadata, so it cannot be wrong either.
    let warning = metadata.warning.filter(|_| resume.is_none());
    greet(exchange, &producer, warning.as_deref());
    exchange.flush().await?;
    receive(exchange, producer).await
}

fn greet(exchange: &mut Exchange, producer: &Producer, warning: Option<&str>) {
    exchange.expect_body();
    let mut head = answer::named(exchange.begin(Status::CREATED, Framing::Live), producer.id())
        .header_u64("Stream-Epoch", producer.epoch())
        .header_u64("Stream-Next-Offset", producer.start());
    if producer.has_replaced() {
        head = head.header("X-Stream-Replaced", "true");
    }
    if let Some(warning) = warning {
        head = head.header("X-Stream-Metadata-Warning", warning);
    }
    head.finish();
}

async fn receive(exchange: &mut Exchange, mut producer: Producer) -> Result<(), Gone> {
    loop {
        if let Err(error) = producer.make_room().await {
            return refused(exchange, producer, &error).await;
        }
        match exchange.read_body(|bytes| producer.take(bytes)).await {
            Ok(BodyStep::Bytes(_)) => {}
            Ok(BodyStep::End) => break,
            // Half a body, or none that can be read on: dropping the producer interrupts the stream.
            Err(_) => {
                exchange.abandon();
                return Err(Gone);
            }
        }
    }
    let id = producer.id().clone();
    match producer.end().await {
        Ok(bytes) => {
            tracing::info!(stream = %id, bytes, "stream complete");
            exchange.finish(&[]).await
        }
        Err(error) => {
            tracing::warn!(stream = %id, %error, "stream not stored");
            exchange.abandon_saying(answer::cut_reason(&error).as_bytes());
            Ok(())
        }
    }
}

/// The stream takes no more. One that was replaced, deleted or taken over lets its producer talk on; for all else
/// the reason comes before the break. Either way the answer never ends.
async fn refused(exchange: &mut Exchange, producer: Producer, error: &ProduceError) -> Result<(), Gone> {
    let (id, fenced) = (producer.id().clone(), producer.is_fenced());
    drop(producer);
    if fenced {
        tracing::info!(stream = %id, "stream taken from its producer");
        while let Ok(BodyStep::Bytes(_)) = exchange.read_body(|_| {}).await {}
        exchange.abandon();
    } else {
        tracing::warn!(stream = %id, %error, "stream not stored");
        exchange.abandon_saying(answer::cut_reason(error).as_bytes());
    }
    Ok(())
}

//! `GET /events`: the envelopes of the chain, from the first, from an offset, and as they come.
//!
//! An envelope is a line of the chain's stream, so a line's place is an offset there, and lines leave as they lie. As
//! server-sent events each carries the offset behind it, so that a browser goes on by itself where it was.
//! Lives on: the reader's shard.

use super::Ion;
use super::answer::{Halt, Refusal};
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::target::Param;
use crate::net::http::{Method, RequestHead, Status};
use crate::runtime::{shard, timer};
use crate::service::chain::Topic;
use crate::service::stream::{Follower, Look, StoreError, load};
use std::time::Duration;

const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// Between two events nothing is sent for at most so long: what stands between us and a browser may think it gone.
const QUIET_MAX: Duration = Duration::from_secs(15);

struct Wish {
    from: Option<u64>,
    follows: bool,
    as_events: bool,
}

impl Wish {
    fn of(head: &RequestHead) -> Result<Self, String> {
        let decimal = |text: &[u8]| {
            let text = std::str::from_utf8(text).ok()?;
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
        };
        let from = match Param::find(head.query(), "from") {
            Param::Absent => None,
            Param::Bare => Some(None),
            Param::Value(text) => Some(decimal(&text)),
        };
        // Who comes back knows better than the address that it began with.
        let from = match head.header("last-event-id") {
            Some(id) if !id.is_empty() => Some(decimal(id)),
            _ => from,
        };
        let accepts = |field: &[u8]| memchr::memmem::find(field, EVENTS.as_bytes()).is_some();
        Ok(Wish {
            from: match from {
                None => None,
                Some(from) => Some(from.ok_or("from is not the decimal number of an offset")?),
            },
            follows: Param::find(head.query(), "follow").is_present(),
            as_events: head.headers("accept").any(accepts),
        })
    }
}

/// Shows what there is of the chain's events, and what comes if that is wanted.
pub async fn events(ion: &Ion, exchange: &mut Exchange, correlation: &str) -> Result<(), Halt> {
    let wish = Wish::of(exchange.head()).map_err(Refusal::Bad)?;
    let topic = ion.chain.events(correlation, wish.follows).await?;
    let end = topic.as_ref().map_or(0, |topic| topic.end);
    let from = match &topic {
        Some(topic) => beginning(ion, topic, wish.from).await??,
        None if wish.from.is_some_and(|from| from > 0) => return Err(Refusal::Range(0).into()),
        None => 0,
    };
    let framing = if wish.follows || wish.as_events { Framing::Live } else { Framing::Length(end - from) };
    let head = exchange.begin(Status::OK, framing);
    head.header("Content-Type", if wish.as_events { EVENTS } else { LINES })
        .header("Cache-Control", "no-store")
        .header_u64("Stream-Next-Offset", end)
        .finish();
    let Some(topic) = topic.filter(|_| exchange.head().method() == Method::Get) else {
        return Ok(exchange.finish(&[]).await?);
    };
    let until = if wish.follows { u64::MAX } else { end };
    let follower = ion.streams.read(topic.tail, from, until);
    let sent = match wish.as_events {
        true => send_events(exchange, follower).await?,
        false => send_lines(exchange, follower).await?,
    };
    match sent {
        Ok(()) => Ok(exchange.finish(&[]).await?),
        Err(error) => {
            match error {
                StoreError::Trimmed(_) => tracing::debug!(%error, "retention overtook a reader of events"),
                _ => tracing::error!(%error, "events are not readable"),
            }
            exchange.abandon();
            Ok(())
        }
    }
}

/// Where an answer begins: at the wished offset, or at the first whole event if that is behind it. Retention may take
/// more while this looks; then it looks again.
async fn beginning(
    ion: &Ion,
    topic: &Topic,
    wished: Option<u64>,
) -> Result<Result<u64, Refusal>, StoreError> {
    loop {
        match beginning_now(ion, topic, wished).await {
            Err(StoreError::Trimmed(_)) => {}
            found => return found,
        }
    }
}

async fn beginning_now(
    ion: &Ion,
    topic: &Topic,
    wished: Option<u64>,
) -> Result<Result<u64, Refusal>, StoreError> {
    let first = first_line(ion, topic).await?;
    let from = wished.map_or(first, |from| from.max(first));
    if from > topic.end {
        return Ok(Err(Refusal::Range(topic.end)));
    }
    if from > first && !is_a_beginning(ion, topic, from).await? {
        return Ok(Err(Refusal::Bad(format!("no event begins at offset {from}"))));
    }
    Ok(Ok(from))
}

/// Where the first whole line begins: retention takes runs, and may cut one.
async fn first_line(ion: &Ion, topic: &Topic) -> Result<u64, StoreError> {
    let first = topic.tail.first();
    if first == 0 || first >= topic.end {
        return Ok(first.min(topic.end));
    }
    let mut follower = ion.streams.read(topic.tail.clone(), first, topic.end);
    loop {
        let at = follower.position();
        match follower.next().await? {
            Look::Ready(range) => {
                if let Some(end) = memchr::memchr(b'\n', &load(range).await?) {
                    return Ok(at + end as u64 + 1);
                }
            }
            Look::End(_) => return Ok(topic.end),
        }
    }
}

/// Whether a line ends right before `from`.
async fn is_a_beginning(ion: &Ion, topic: &Topic, from: u64) -> Result<bool, StoreError> {
    let mut follower = ion.streams.read(topic.tail.clone(), from - 1, from);
    match follower.next().await? {
        Look::Ready(range) => Ok(load(range).await? == b"\n"),
        Look::End(_) => Ok(false),
    }
}

async fn send_lines(exchange: &mut Exchange, mut follower: Follower) -> Result<Result<(), StoreError>, Gone> {
    // A reader that waits sees that it is connected.
    exchange.flush().await?;
    loop {
        let look = match follower.look() {
            Ok(Some(look)) => Ok(look),
            Ok(None) => {
                exchange.flush().await?;
                exchange.while_connected(follower.next()).await?
            }
            Err(error) => Err(error),
        };
        match look {
            Ok(Look::Ready(range)) => exchange.send_stored(range).await?,
            Ok(Look::End(_)) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

async fn send_events(
    exchange: &mut Exchange,
    mut follower: Follower,
) -> Result<Result<(), StoreError>, Gone> {
    exchange.flush().await?;
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let deadline = shard::now() + QUIET_MAX;
        let look = match exchange.while_connected(timer::until(deadline, follower.next())).await? {
            Some(look) => look,
            None => {
                exchange.send(b":\n\n").await?;
                exchange.flush().await?;
                continue;
            }
        };
        let range = match look {
            Ok(Look::Ready(range)) => range,
            Ok(Look::End(_)) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        match load(range).await {
            Ok(bytes) => kept.extend(bytes),
            Err(error) => return Ok(Err(error)),
        }
        let begins = follower.position() - kept.len() as u64;
        let mut sent = 0;
        while let Some(len) = memchr::memchr(b'\n', &kept[sent..]) {
            let line = &kept[sent..sent + len];
            sent += len + 1;
            let head = format!("id: {}\ndata: ", begins + sent as u64);
            exchange.send(head.as_bytes()).await?;
            exchange.send(line).await?;
            exchange.send(b"\n\n").await?;
        }
        kept.drain(..sent);
        exchange.flush().await?;
    }
}

//! `GET` and `HEAD /:container/:key`: bytes out from where they lie.
//!
//! Several ranges are answered with the whole, as RFC 9110 allows. Lives on: the reader's shard.

use super::answer::{Halt, Refusal};
use super::{Vblob, fields};
use crate::codec::time::HttpDate;
use crate::net::http::condition::{Conditions, Standing, Verdict, range_applies};
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::range::{Selection, parse_range};
use crate::net::http::{Method, RequestHead, ResponseHead, Status};
use crate::runtime::shard;
use crate::service::blob::{Blob, Look, Name, Reader};
use std::ops::Range;

/// Reads a file.
pub async fn read(vblob: &Vblob, exchange: &mut Exchange, name: &Name) -> Result<(), Halt> {
    let blob = vblob.find(name).await?;
    let there = Standing { etag: &blob.properties.etag, modified_ms: blob.created_ms };
    let now_seconds = shard::current().wall().unix_seconds();
    match Conditions::of(exchange.head()).judge(Some(there), true, now_seconds) {
        Verdict::Proceed => {}
        Verdict::Failed => return Err(Refusal::Precondition.into()),
        Verdict::NotModified => {
            validators(exchange.begin(Status::NOT_MODIFIED, Framing::Empty), &blob).finish();
            return Ok(exchange.finish(&[]).await?);
        }
    }
    let part = part(exchange.head(), there, blob.size)?;
    let Range { start, end } = part.clone().unwrap_or(0..blob.size);
    let is_wanted = exchange.head().method() == Method::Get && start < end;
    let mut reader = vblob.blobs.read(&blob, start, end);
    // Looked at before the head is written: what cannot be read at all is a 500, not a cut answer.
    let first = if is_wanted { Some(reader.next().await?) } else { None };
    greet(exchange, &blob, part);
    if exchange.head().method() == Method::Get && !send(exchange, &mut reader, first, end).await? {
        exchange.abandon();
        return Ok(());
    }
    Ok(exchange.finish(&[]).await?)
}

/// The part that is asked for; `None` for the whole. Ranges are for GET alone.
fn part(head: &RequestHead, there: Standing<'_>, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    if head.method() != Method::Get || !range_applies(head, there) {
        return Ok(None);
    }
    match head.header("range").and_then(parse_range).map(|range| range.resolve(size)) {
        None | Some(Selection::Whole | Selection::Several(_)) => Ok(None),
        Some(Selection::Satisfiable(part)) => Ok(Some(part)),
        Some(Selection::Unsatisfiable) => Err(Refusal::InvalidRange(size)),
    }
}

fn greet(exchange: &mut Exchange, blob: &Blob, part: Option<Range<u64>>) {
    let (status, len) = match &part {
        Some(part) => (Status::PARTIAL_CONTENT, part.end - part.start),
        None => (Status::OK, blob.size),
    };
    let head = exchange.begin(status, Framing::Length(len)).header("Accept-Ranges", "bytes");
    let mut head = fields::tell(validators(head, blob), &blob.properties);
    if let Some(part) = part {
        head = head.content_range(part, Some(blob.size));
    }
    head.finish();
}

/// The fields that every answer about a file has. The tag goes without quotes, which is how this dialect is spoken.
fn validators<'b>(head: ResponseHead<'b>, blob: &Blob) -> ResponseHead<'b> {
    head.header("ETag", &*blob.properties.etag)
        .header("Last-Modified", HttpDate::at(blob.created_ms / 1000).as_bytes())
}

/// Sends up to `end`; false when that could not be read. The length was promised: only breaking off tells the truth.
async fn send(
    exchange: &mut Exchange,
    reader: &mut Reader,
    first: Option<Look>,
    end: u64,
) -> Result<bool, Gone> {
    let mut next = first.map(Ok);
    while next.is_some() || reader.position() < end {
        let look = match next.take() {
            Some(look) => look,
            None => match reader.look() {
                Ok(Some(look)) => Ok(look),
                Ok(None) => {
                    exchange.flush().await?;
                    exchange.while_connected(reader.next()).await?
                }
                Err(error) => Err(error),
            },
        };
        match look {
            Ok(Look::Ready(range)) => exchange.send_stored(range).await?,
            Ok(Look::End(state)) => unreachable!("{state:?} at {} of {end}", reader.position()),
            Err(error) => {
                tracing::error!(offset = reader.position(), %error, "file not readable");
                return Ok(false);
            }
        }
    }
    Ok(true)
}

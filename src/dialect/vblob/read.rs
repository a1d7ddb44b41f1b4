//! `GET` and `HEAD /:container/:key`: bytes out from where they lie.
//!
//! Several ranges are answered with the whole, as RFC 9110 allows. Lives on: the reader's shard.

use super::answer::{Halt, Refusal};
use super::{Vblob, fields};
use crate::codec::time::HttpDate;
use crate::net::http::condition::{Conditions, Standing, Verdict, range_applies};
use crate::net::http::exchange::{Exchange, Framing};
use crate::net::http::range::{RangeHeader, RangeSpec, Selection, parse_range};
use crate::net::http::target::Param;
use crate::net::http::{Method, RequestHead, ResponseHead, Status};
use crate::runtime::shard;
use crate::service::blob::{Blob, Name};
use crate::service::outflow;
use crate::service::stream::Follower;
use std::ops::Range;

/// Reads a file.
pub async fn read(vblob: &Vblob, exchange: &mut Exchange, name: &Name) -> Result<(), Halt> {
    let conditions = Conditions::of(exchange.head());
    let head = exchange.head();
    // Who asks for the whole of a file is given it at once.
    let is_plain = conditions.is_empty() && head.method() == Method::Get && head.header("range").is_none();
    let (found, ahead) = vblob.driver.file_read(name, !is_plain).await?.ok_or(Refusal::NoSuchFile)?;
    let blob = found.as_of(conditions.matches.as_ref());
    let there = Standing { etag: &blob.properties.etag, modified_ms: blob.created_ms };
    let now_seconds = shard::current().wall().unix_seconds();
    match conditions.judge(Some(there), true, now_seconds) {
        Verdict::Proceed => {}
        Verdict::Failed => return Err(Refusal::Precondition.into()),
        Verdict::NotModified => {
            validators(exchange.begin(Status::NOT_MODIFIED, Framing::Empty), &blob).finish();
            return Ok(exchange.finish(&[]).await?);
        }
    }
    if Param::find(exchange.head().query(), "follow").is_present()
        && let Some(follower) = vblob.driver.follow(&blob, from(exchange.head(), blob.size)?)
    {
        return follow(exchange, &blob, follower).await;
    }
    let part = part(exchange.head(), there, blob.size)?;
    let Range { start, end } = part.clone().unwrap_or(0..blob.size);
    let is_wanted = exchange.head().method() == Method::Get && start < end;
    let mut reader = vblob.driver.stream(&blob, ahead, start, end);
    // Looked at before the head is written: what cannot be read at all is a 500, not a cut answer.
    let first = if is_wanted { Some(reader.next().await?) } else { None };
    greet(exchange, &blob, part);
    if exchange.head().method() == Method::Get {
        let sent = outflow::send(exchange, &mut reader, first).await?;
        if let Err(error) = &sent {
            tracing::error!(offset = reader.position(), %error, "file not readable");
        }
        // The length was promised: only breaking off tells the truth.
        if sent.is_err() || reader.position() < end {
            exchange.abandon();
            return Ok(());
        }
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

/// Where to begin to follow what has `size` bytes now.
fn from(head: &RequestHead, size: u64) -> Result<u64, Refusal> {
    let range = head.header("range").and_then(parse_range);
    match range.as_ref().map_or(&[][..], RangeHeader::specs) {
        [] => Ok(0),
        [RangeSpec::From(from)] if *from <= size => Ok(*from),
        [RangeSpec::From(_)] => Err(Refusal::InvalidRange(size)),
        _ => Err(Refusal::InvalidArgument("with follow the range is of the form bytes=N-".into())),
    }
}

/// A file that grows, to its end; how it stood then comes in the trailers.
async fn follow(exchange: &mut Exchange, blob: &Blob, mut follower: Follower) -> Result<(), Halt> {
    let head = exchange.begin(Status::OK, Framing::Live).header_u64("Stream-Offset", follower.position());
    let head = fields::tell(validators(head, blob), &blob.properties);
    head.header("Trailer", outflow::TRAILERS).finish();
    if exchange.head().method() == Method::Head {
        return Ok(exchange.finish(&[]).await?);
    }
    match outflow::send(exchange, &mut follower, None).await? {
        Ok(state) => Ok(outflow::finish_at_end(exchange, state, follower.position()).await?),
        Err(error) => {
            tracing::error!(offset = follower.position(), %error, "stream not readable");
            exchange.abandon();
            Ok(())
        }
    }
}

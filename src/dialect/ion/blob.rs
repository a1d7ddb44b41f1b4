//! Blobs: `/parent/blob`, `/self/blob`, `/self/blobs`.
//!
//! Several ranges are answered with the whole, as RFC 9110 allows. Lives on: the connection's shard.

use super::answer::{self, Halt, JSON, Refusal};
use super::{Ion, name};
use crate::codec::text::hex;
use crate::codec::time::HttpDate;
use crate::net::http::condition::{Conditions, Standing, Verdict, range_applies};
use crate::net::http::exchange::{BodyError, BodyStep, Exchange, Framing, Gone};
use crate::net::http::range::{Selection, parse_range};
use crate::net::http::target::Param;
use crate::net::http::{BodyLength, Method, RequestHead, ResponseHead, Status};
use crate::runtime::shard;
use crate::service::blob::digest::{Algorithm, Digests};
use crate::service::blob::{Blob, Listed, Name, Properties, Query, Reader, Start, Upload, When};
use crate::service::outflow::{self, Piece};
use crate::service::owner::space;
use std::ops::Range;

/// Names on one page of a listing, which is asked for page by page.
const PAGE: usize = 1000;
/// The longest type that is kept.
const TYPE_MAX: usize = 255;
/// What forms are sent as, which is what curl says of anything.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

fn name_in(space: u8, event: &str, head: &RequestHead) -> Result<Name, Refusal> {
    let key = name::of_query(head.query()).map_err(Refusal::Bad)?;
    Name::of_group(space, event, &key).map_err(|bad| Refusal::Bad(bad.to_string()))
}

/// `PUT`: bytes in, and the blob is there when all of them are.
pub async fn put(ion: &Ion, exchange: &mut Exchange, event: &str) -> Result<(), Halt> {
    let head = exchange.head();
    let space = match Param::find(head.query(), "stage").is_present() {
        true => space::STAGED,
        false => space::MODULE_BLOBS,
    };
    if space == space::STAGED && ion.driver.is_remote() {
        return Err(Refusal::Elsewhere("a staged blob").into());
    }
    let name = name_in(space, event, head)?;
    let announced = match head.body() {
        BodyLength::None => return Err(Refusal::NoLength.into()),
        BodyLength::Exact(len) => Some(len),
        BodyLength::Chunked => None,
    };
    let kind = head.header("content-type").filter(|kind| kind.len() <= TYPE_MAX && !kind.starts_with(FORM));
    let fields = kind.map(|kind| ("content-type".into(), kind.into())).into_iter().collect();
    let Conditions { matches, matches_none, .. } = Conditions::of(head);
    let location = format!("{}{}", ion.location(event), String::from_utf8_lossy(name.key()));
    let mut properties = Properties { etag: Box::default(), fields };
    let when = When { matches, matches_none };
    let upload = ion.driver.file_create(name, announced, &properties, &when).await?;
    let (upload, crc) = receive(exchange, upload).await?;
    // Not a digest alone: what is put again is another blob, whose bytes may lie elsewhere.
    let etag = format!("{crc}-{:x}-{:016x}", upload.size(), shard::current().entropy().next());
    properties.etag = etag.as_str().into();
    let stored = upload.commit(properties, when).await?;
    let etag = stored.etag.as_deref().unwrap_or(&etag);
    exchange
        .begin(Status::OK, Framing::Length(location.len() as u64))
        .header("Content-Type", "text/plain; charset=utf-8")
        .header("ETag", format!("\"{etag}\""))
        .finish();
    exchange.send(location.as_bytes()).await?;
    Ok(exchange.finish(&[]).await?)
}

/// The whole body, with its CRC-32 in hex.
async fn receive(exchange: &mut Exchange, mut upload: Upload) -> Result<(Upload, String), Halt> {
    let mut digests = Digests::new(&[Algorithm::Crc32]);
    loop {
        digests.ready().await;
        upload.make_room().await?;
        let took = exchange.read_body(|bytes| {
            digests.update(bytes);
            upload.take(bytes);
        });
        match took.await {
            Ok(BodyStep::Bytes(_)) => {}
            Ok(BodyStep::End) => break,
            Err(BodyError::Gone) => return Err(Halt::Gone),
            Err(BodyError::Refused(refusal)) => return Err(Refusal::BadBody(refusal).into()),
        }
    }
    let digested = digests.finish().await;
    Ok((upload, hex(digested.of(Algorithm::Crc32).expect("it was wanted"))))
}

/// `DELETE`: 404 for what is not there.
pub async fn delete(ion: &Ion, exchange: &mut Exchange, event: &str) -> Result<(), Halt> {
    let name = name_in(space::MODULE_BLOBS, event, exchange.head())?;
    let Conditions { matches, matches_none, .. } = Conditions::of(exchange.head());
    // A store elsewhere does not tell whether there was something.
    if ion.driver.is_remote() && ion.driver.file_head(&name).await?.is_none() {
        return Err(no_blob(&name).into());
    }
    match ion.driver.file_delete(&name, When { matches, matches_none }).await? {
        true => Ok(answer::empty(exchange, Status::OK).await?),
        false => Err(no_blob(&name).into()),
    }
}

/// `GET` and `HEAD`: bytes out from where they lie.
pub async fn read(ion: &Ion, exchange: &mut Exchange, event: &str) -> Result<(), Halt> {
    let name = name_in(space::MODULE_BLOBS, event, exchange.head())?;
    let (head, conditions) = (exchange.head(), Conditions::of(exchange.head()));
    // Who asks for the whole of a blob is given it at once.
    let is_plain = conditions.is_empty() && head.method() == Method::Get && head.header("range").is_none();
    let (blob, ahead) = ion.driver.file_read(&name, !is_plain).await?.ok_or_else(|| no_blob(&name))?;
    let there = Standing { etag: &blob.properties.etag, modified_ms: blob.created_ms };
    // Without conditions nobody looks at the clock.
    let judge = || conditions.judge(Some(there), true, shard::current().wall().unix_seconds());
    match if conditions.is_empty() { Verdict::Proceed } else { judge() } {
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
    let mut reader = ion.driver.stream(&blob, ahead, start, end);
    // Looked at before the head is written: what cannot be read at all is a 500, not a cut answer.
    let first = if is_wanted { Some(reader.next().await?) } else { None };
    greet(exchange, &blob, part);
    if is_wanted && !send(exchange, &mut reader, first, end).await? {
        exchange.abandon();
        return Ok(());
    }
    Ok(exchange.finish(&[]).await?)
}

fn no_blob(name: &Name) -> Refusal {
    Refusal::NoBlob(String::from_utf8_lossy(name.key()).into())
}

/// The part that is asked for; `None` for the whole. Ranges are for GET alone.
fn part(head: &RequestHead, there: Standing<'_>, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    if head.method() != Method::Get || !range_applies(head, there) {
        return Ok(None);
    }
    match head.header("range").and_then(parse_range).map(|range| range.resolve(size)) {
        None | Some(Selection::Whole | Selection::Several(_)) => Ok(None),
        Some(Selection::Satisfiable(part)) => Ok(Some(part)),
        Some(Selection::Unsatisfiable) => Err(Refusal::Range(size)),
    }
}

fn greet(exchange: &mut Exchange, blob: &Blob, part: Option<Range<u64>>) {
    let (status, len) = match &part {
        Some(part) => (Status::PARTIAL_CONTENT, part.end - part.start),
        None => (Status::OK, blob.size),
    };
    let kind = blob.properties.field("content-type").unwrap_or(b"application/octet-stream");
    let head = exchange
        .begin(status, Framing::Length(len))
        .header("Content-Type", kind)
        // Whatever a browser would take the bytes for: they are what they were put as.
        .header("X-Content-Type-Options", "nosniff")
        .header("Accept-Ranges", "bytes");
    let mut head = validators(head, blob);
    if let Some(part) = part {
        head = head.content_range(part, Some(blob.size));
    }
    head.finish();
}

fn validators<'b>(head: ResponseHead<'b>, blob: &Blob) -> ResponseHead<'b> {
    head.header("ETag", format!("\"{}\"", blob.properties.etag))
        .header("Last-Modified", HttpDate::at(blob.created_ms / 1000).as_bytes())
}

/// Sends up to `end`; false when that could not be read. The length was promised: only breaking off tells the truth.
async fn send(
    exchange: &mut Exchange,
    reader: &mut Reader,
    first: Option<Piece>,
    end: u64,
) -> Result<bool, Gone> {
    let sent = outflow::send(exchange, reader, first).await?;
    if let Err(error) = &sent {
        tracing::error!(offset = reader.position(), %error, "blob not readable");
    }
    Ok(sent.is_ok() && reader.position() == end)
}

/// `GET /self/blobs`: all names, page by page, in one array.
pub async fn list(ion: &Ion, exchange: &mut Exchange, event: &str) -> Result<(), Halt> {
    let mut query = Query { limit: PAGE, ..Query::default() };
    let mut page = ion.driver.group_list(space::MODULE_BLOBS, event, query.clone()).await?;
    exchange.begin(Status::OK, Framing::Live).header("Content-Type", JSON).finish();
    let mut begins = "[";
    loop {
        let mut text = String::new();
        for entry in &page.entries {
            let Listed::Blob(blob) = entry else { unreachable!("nothing is folded") };
            let name = String::from_utf8_lossy(blob.name.key());
            text += begins;
            text += &serde_json::Value::from(&*name).to_string();
            begins = ",";
        }
        exchange.send(text.as_bytes()).await?;
        let Some(next) = page.next.take() else { break };
        query.start = Start::At(next);
        page = match ion.driver.group_list(space::MODULE_BLOBS, event, query.clone()).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "a listing broke off");
                exchange.abandon();
                return Ok(());
            }
        };
    }
    exchange.send(if begins == "[" { b"[]\n" } else { b"]\n" }).await?;
    Ok(exchange.finish(&[]).await?)
}

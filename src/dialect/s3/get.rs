//! `GET` and `HEAD /b/k`: an object, a range of it, or one of the parts that it was composed of.
//!
//! Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::Trouble;
use super::payload::checksum::Checksum;
use super::reply::Call;
use super::{S3, fields, follow, param, sizes};
use crate::net::http::condition::{Conditions, Standing, Verdict, range_applies};
use crate::net::http::exchange::Framing;
use crate::net::http::range::{Selection, parse_range};
use crate::net::http::{Method, RequestHead, Status};
use crate::runtime::shard;
use crate::service::blob::{Blob, Name};
use crate::service::outflow;
use std::ops::Range;

/// Answers.
pub async fn get(s3: &S3, call: &mut Call<'_>, name: Name) -> Result<(), Trouble> {
    let conditions = Conditions::of(call.exchange.head());
    let head = call.exchange.head();
    // Who asks for the whole of an object is given it at once.
    let is_plain = conditions.is_empty()
        && head.method() == Method::Get
        && head.header("range").is_none()
        && !param::is_present(head, "partNumber");
    let (found, ahead) = s3.driver.file_read(&name, !is_plain).await?.ok_or(Code::NoSuchKey)?;
    let blob = found.as_of(conditions.matches.as_ref());
    let head = call.exchange.head();
    let standing = Standing { etag: &blob.properties.etag, modified_ms: blob.created_ms };
    let now = shard::current().wall().unix_seconds();
    match conditions.judge(Some(standing), true, now) {
        Verdict::Proceed => {}
        Verdict::Failed => return Err(Code::PreconditionFailed.into()),
        Verdict::NotModified => {
            let head = call.begin(Status::NOT_MODIFIED, Framing::Empty);
            fields::write_standing(head, &blob).finish();
            return Ok(call.exchange.finish(&[]).await?);
        }
    }
    if param::is_present(head, "follow")
        && let Some(follower) = s3.driver.follow(&blob, follow::from(head, blob.size)?)
    {
        return follow::follow(call, &blob, follower).await;
    }
    let part = select(head, &blob, standing)?;
    let overrides = fields::overrides(head);
    let wants_checksum =
        head.header("x-amz-checksum-mode").is_some_and(|mode| mode.eq_ignore_ascii_case(b"enabled"));
    let (from, to) = part.range.as_ref().map_or((0, blob.size), |range| (range.start, range.end));
    let mut reader = s3.driver.stream(&blob, ahead, from, to);
    // Looked at before the head is written: what cannot be read at all is an error, not a cut answer.
    let first = match call.exchange.head().method() {
        Method::Get if from < to => Some(reader.next().await?),
        _ => None,
    };
    let status = if part.range.is_some() { Status::PARTIAL_CONTENT } else { Status::OK };
    let head = call.begin(status, Framing::Length(to - from)).header("Accept-Ranges", "bytes");
    let mut head = fields::write(fields::write_standing(head, &blob), &blob, &overrides);
    if let Some(range) = part.range {
        // No Content-Range can say where nothing lies: a part of an empty object.
        head = if range.is_empty() { head } else { head.content_range(range, Some(blob.size)) };
    } else if wants_checksum {
        head = fields::write_checksum(head, Checksum::of(&blob.properties).as_ref());
    }
    if let Some(count) = part.count {
        head = head.header_u64("x-amz-mp-parts-count", count as u64);
    }
    head.finish();
    if call.exchange.head().method() == Method::Get {
        let sent = outflow::send(call.exchange, &mut reader, first).await?;
        if let Err(error) = &sent {
            tracing::error!(offset = reader.position(), %error, "object not readable");
        }
        // The head is out: all that is left to say is that this is no whole answer.
        if sent.is_err() || reader.position() < to {
            return Err(Trouble::Gone);
        }
    }
    Ok(call.exchange.finish(&[]).await?)
}

/// What of an object is asked for.
struct Part {
    range: Option<Range<u64>>,
    /// How many parts it has, if one was asked for.
    count: Option<usize>,
}

fn select(head: &RequestHead, blob: &Blob, standing: Standing<'_>) -> Result<Part, Fault> {
    let range = head.header("range").filter(|_| range_applies(head, standing));
    if let Some(number) = param::text(head, "partNumber") {
        if range.is_some() {
            let sentence = "Cannot specify both Range header and partNumber query parameter";
            return Err(Fault::new(Code::InvalidRequest, sentence));
        }
        return part_of(&number, blob);
    }
    let Some(parsed) = range.and_then(parse_range) else { return Ok(Part { range: None, count: None }) };
    match parsed.resolve(blob.size) {
        // Several ranges in one answer are nothing that S3 knows.
        Selection::Whole | Selection::Several(_) => Ok(Part { range: None, count: None }),
        Selection::Satisfiable(range) => Ok(Part { range: Some(range), count: None }),
        Selection::Unsatisfiable => Err(Fault::from(Code::InvalidRange)
            .with("RangeRequested", String::from_utf8_lossy(range.unwrap_or_default()))
            .with("ActualObjectSize", blob.size.to_string())),
    }
}

fn part_of(number: &[u8], blob: &Blob) -> Result<Part, Fault> {
    let number = param::decimal(number).filter(|number| (1..=10_000).contains(number)).ok_or_else(|| {
        Fault::argument("partNumber", "Part number must be an integer between 1 and 10000, inclusive")
    })?;
    let number = number as usize;
    match sizes::of(&blob.properties) {
        Some(sizes) => {
            let range = sizes::range(&sizes, number).ok_or(Fault::from(Code::InvalidPartNumber))?;
            Ok(Part { range: Some(range), count: Some(sizes.len()) })
        }
        // Where it was composed is known to the store elsewhere alone.
        None if blob.properties.etag.contains('-') => {
            Err(Fault::new(Code::NotImplemented, "The parts of this object are not known"))
        }
        // What was put at once is one part.
        None if number == 1 => Ok(Part { range: None, count: None }),
        None => Err(Code::InvalidPartNumber.into()),
    }
}

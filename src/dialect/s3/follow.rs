//! `GET /streams/k?follow`: an object that grows, to its end.
//!
//! 200 in chunks, from the first byte or from where `Range: bytes=N-` says; how the stream stood at its end comes in the
//! trailers. What does not grow is answered as without the word. Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::fields;
use super::payload::Trouble;
use super::reply::Call;
use crate::net::http::exchange::Framing;
use crate::net::http::range::{RangeHeader, RangeSpec, parse_range};
use crate::net::http::{Method, RequestHead, Status};
use crate::service::blob::Blob;
use crate::service::outflow;
use crate::service::stream::Follower;

/// Where to begin, of what has `size` bytes now.
pub fn from(head: &RequestHead, size: u64) -> Result<u64, Fault> {
    let range = head.header("range").and_then(parse_range);
    match range.as_ref().map_or(&[][..], RangeHeader::specs) {
        [] => Ok(0),
        [RangeSpec::From(from)] if *from <= size => Ok(*from),
        [RangeSpec::From(_)] => {
            Err(Fault::from(Code::InvalidRange).with("ActualObjectSize", size.to_string()))
        }
        _ => Err(Fault::argument("Range", "With follow the range is of the form bytes=N-")),
    }
}

/// Answers.
pub async fn follow(call: &mut Call<'_>, blob: &Blob, mut follower: Follower) -> Result<(), Trouble> {
    let offset = follower.position();
    let head = call.begin(Status::OK, Framing::Live).header_u64("Stream-Offset", offset);
    fields::write(fields::write_standing(head, blob), blob, &[])
        .header("Trailer", outflow::TRAILERS)
        .finish();
    if call.exchange.head().method() == Method::Head {
        return Ok(call.exchange.finish(&[]).await?);
    }
    match outflow::send(call.exchange, &mut follower, None).await? {
        Ok(state) => Ok(outflow::finish_at_end(call.exchange, state, follower.position()).await?),
        Err(error) => {
            tracing::error!(offset = follower.position(), %error, "stream not readable");
            Err(Trouble::Gone)
        }
    }
}

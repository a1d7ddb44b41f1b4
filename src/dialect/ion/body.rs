//! Bodies that are taken whole, up to a bound. Lives on: the connection's shard.

use super::answer::{Halt, Refusal};
use crate::net::http::BodyLength;
use crate::net::http::exchange::{BodyError, BodyStep, Exchange};

/// The whole body; refused before it is read where its head says that it is longer than `max`.
pub async fn whole(exchange: &mut Exchange, max: usize) -> Result<Vec<u8>, Halt> {
    if matches!(exchange.head().body(), BodyLength::Exact(len) if len > max as u64) {
        return Err(Refusal::TooLong(max).into());
    }
    let mut body = Vec::new();
    loop {
        let mut fits = true;
        let took = exchange.read_body(|bytes| {
            fits &= body.len() + bytes.len() <= max;
            if fits {
                body.extend_from_slice(bytes);
            }
        });
        match took.await {
            Ok(_) if !fits => return Err(Refusal::TooLong(max).into()),
            Ok(BodyStep::Bytes(_)) => {}
            Ok(BodyStep::End) => return Ok(body),
            Err(BodyError::Gone) => return Err(Halt::Gone),
            Err(BodyError::Refused(refusal)) => return Err(Refusal::BadBody(refusal).into()),
        }
    }
}

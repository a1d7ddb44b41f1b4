//! `DELETE /:container/:key`: 204, whether or not it was there.
//!
//! Lives on: the connection's shard.

use super::answer::{self, Halt};
use super::{Vblob, when};
use crate::net::http::Status;
use crate::net::http::condition::Conditions;
use crate::net::http::exchange::Exchange;
use crate::service::blob::Name;

/// Deletes a file.
pub async fn delete(vblob: &Vblob, exchange: &mut Exchange, name: &Name) -> Result<(), Halt> {
    let when = when(Conditions::of(exchange.head()));
    vblob.driver.file_delete(name, when).await?;
    Ok(answer::empty(exchange, Status::NO_CONTENT).await?)
}

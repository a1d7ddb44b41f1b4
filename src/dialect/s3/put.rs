//! `PUT /b/k`: an object, whole or not at all.
//!
//! Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::{Plan, Received, Sink, Trouble};
use super::reply::{Call, quoted};
use super::sign::Chain;
use super::{S3, fields};
use crate::codec::text::hex;
use crate::net::http::Status;
use crate::net::http::exchange::Framing;
use crate::service::blob::{Name, Properties, Stored, When};

/// Answers.
pub async fn put(s3: &S3, call: &mut Call<'_>, name: Name, chain: Option<Chain>) -> Result<(), Trouble> {
    let head = call.exchange.head();
    let plan = Plan::of(head, chain)?;
    plan.demand_length()?;
    let properties = fields::kept(head)?;
    let when = fields::when(head);
    // Who waits for 100 Continue is told before the body that it would be in vain.
    if when != When::default() {
        fields::judge(&when, s3.driver.file_head(&name).await?.as_ref())?;
    }
    let mut known = properties.clone();
    if let Some(checksum) = plan.claimed() {
        checksum.keep(&mut known);
    }
    let mut upload = s3.driver.file_create(name, plan.announced(), &known, &when).await?;
    let received = plan.receive(call.exchange, Sink::Upload(&mut upload), None).await?;
    let properties = finished(properties, &received)?;
    let done = upload.commit(properties, when).await?;
    stored(call, &received, &done).await
}

/// The properties of bytes that are there.
pub fn finished(mut properties: Properties, received: &Received) -> Result<Properties, Fault> {
    properties.etag = etag_of(received).into();
    if let Some(checksum) = &received.checksum {
        checksum.keep(&mut properties);
    }
    // Before the commit, where it would be the same: the answer names what is too long.
    match properties.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() {
        len if len > Properties::BYTES_MAX => Err(Code::MetadataTooLarge.into()),
        _ => Ok(properties),
    }
}

fn etag_of(received: &Received) -> String {
    hex(&received.md5.expect("computed for whatever is stored"))
}

/// 200 with the entity tag and the checksum.
pub async fn stored(call: &mut Call<'_>, received: &Received, done: &Stored) -> Result<(), Trouble> {
    let etag = done.etag.as_ref().map_or_else(|| etag_of(received), |etag| etag.to_string());
    let head = call.begin(Status::OK, Framing::Empty).header("ETag", quoted(&etag));
    fields::write_checksum(head, received.checksum.as_ref()).finish();
    Ok(call.exchange.finish(&[]).await?)
}

//! `PUT /:container/:key`: bytes in, and the file is there when all of them are.
//!
//! Lives on: the connection's shard.

use super::answer::{Halt, Refusal};
use super::{Vblob, fields, when};
use crate::codec::text::{hex, unbase64};
use crate::net::http::condition::{Conditions, Standing, Verdict};
use crate::net::http::exchange::{BodyError, BodyStep, Exchange, Framing};
use crate::net::http::{BodyLength, RequestHead, Status};
use crate::runtime::shard;
use crate::service::blob::digest::{Algorithm, Digests};
use crate::service::blob::{Name, Properties, Upload};

/// Stores what the body brings.
pub async fn put(vblob: &Vblob, exchange: &mut Exchange, name: Name) -> Result<(), Halt> {
    let Request { announced, md5, fields, conditions } = Request::of(exchange.head())?;
    expect(vblob, &name, &conditions).await?;
    let mut properties = Properties { etag: Box::default(), fields };
    let when = when(conditions);
    let upload = vblob.driver.file_create(name, announced, &properties, &when).await?;
    let (upload, found) = receive(exchange, upload).await?;
    if md5.is_some_and(|md5| md5 != found) {
        return Err(Refusal::InvalidDigest("Content-MD5 is not that of the bytes which came").into());
    }
    let etag = hex(&found);
    properties.etag = etag.as_str().into();
    let stored = upload.commit(properties, when).await?;
    let etag = stored.etag.as_deref().unwrap_or(&etag);
    exchange.begin(Status::OK, Framing::Empty).header("ETag", etag).finish();
    Ok(exchange.finish(&[]).await?)
}

struct Request {
    /// The body's length, if the head tells it.
    announced: Option<u64>,
    /// What the digest of the body must be.
    md5: Option<Vec<u8>>,
    fields: fields::Fields,
    conditions: Conditions,
}

impl Request {
    fn of(head: &RequestHead) -> Result<Self, Refusal> {
        let announced = match head.body() {
            BodyLength::None => return Err(Refusal::MissingContentLength),
            BodyLength::Exact(len) => Some(len),
            BodyLength::Chunked => None,
        };
        let md5 = head.header("content-md5").map(|text| {
            let md5 = unbase64(text).filter(|md5| md5.len() == MD5_LEN);
            md5.ok_or(Refusal::InvalidDigest("Content-MD5 is not the base64 of 16 bytes"))
        });
        Ok(Request {
            announced,
            md5: md5.transpose()?,
            fields: fields::of_request(head),
            conditions: Conditions::of(head),
        })
    }
}

/// Refuses what would be refused in the end, before the peer sends it all. Whether the condition holds then is decided
/// together with the change.
pub async fn expect(vblob: &Vblob, name: &Name, conditions: &Conditions) -> Result<(), Halt> {
    if conditions.matches.is_none() && conditions.matches_none.is_none() {
        return Ok(());
    }
    let there = vblob.driver.file_head(name).await?;
    let standing =
        there.as_ref().map(|blob| Standing { etag: &blob.properties.etag, modified_ms: blob.created_ms });
    match conditions.judge(standing, false, shard::current().wall().unix_seconds()) {
        Verdict::Proceed => Ok(()),
        Verdict::Failed | Verdict::NotModified => Err(Refusal::Precondition.into()),
    }
}

/// The whole body, with its MD5.
async fn receive(exchange: &mut Exchange, mut upload: Upload) -> Result<(Upload, Vec<u8>), Halt> {
    let mut digests = Digests::new(&[Algorithm::Md5]);
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
    Ok((upload, digested.of(Algorithm::Md5).expect("it was wanted").to_vec()))
}

const MD5_LEN: usize = 16;

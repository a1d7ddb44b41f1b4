//! `DELETE /b/k` and `POST /b?delete`.
//!
//! Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::{Plan, Sink, Trouble};
use super::reply::{Call, XMLNS};
use super::sign::Chain;
use super::xml_in::{self, Doomed};
use super::{S3, fields};
use crate::codec::xml::Xml;
use crate::net::http::Status;
use crate::service::blob::{Name, Tags, When};
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// How many objects of one request are deleted at the same time: their commits share syncs.
const TOGETHER_MAX: usize = 100;

/// Deletes one object; that there was none is no error.
pub async fn delete(s3: &S3, call: &mut Call<'_>, name: Name) -> Result<(), Trouble> {
    let head = call.exchange.head();
    // Conditions that other kinds of buckets have: a deletion that did not mind them would be one too many.
    for field in ["x-amz-if-match-last-modified-time", "x-amz-if-match-size"] {
        if head.header(field).is_some() {
            return Err(
                Fault::new(Code::NotImplemented, format!("The header {field} is not implemented")).into()
            );
        }
    }
    let when = When { matches_none: None, ..fields::when(head) };
    s3.driver.file_delete(&name, when).await?;
    call.empty(Status::NO_CONTENT, &[]).await
}

/// Deletes what the body names.
pub async fn delete_many(
    s3: &S3,
    call: &mut Call<'_>,
    bucket: &str,
    chain: Option<Chain>,
) -> Result<(), Trouble> {
    let plan = Plan::of(call.exchange.head(), chain)?;
    s3.driver.demand_container(bucket).await?;
    let mut body = Vec::new();
    plan.receive(call.exchange, Sink::Memory(&mut body, xml_in::DELETE_BYTES_MAX), None).await?;
    let wanted = xml_in::delete(&body)?;
    drop(body);
    let mut xml = Xml::in_namespace("DeleteResult", XMLNS);
    for some in wanted.objects.chunks(TOGETHER_MAX) {
        let deleted = all(some.iter().map(|doomed| delete_one(s3, bucket, doomed)).collect()).await;
        for (doomed, outcome) in some.iter().zip(deleted) {
            match outcome {
                Ok(()) if wanted.quiet => {}
                Ok(()) => {
                    xml.open("Deleted").element("Key", doomed.key.as_bytes());
                    if let Some(version) = &doomed.version {
                        xml.element("VersionId", version.as_bytes());
                    }
                    xml.close();
                }
                Err(fault) => {
                    xml.open("Error").element("Key", doomed.key.as_bytes());
                    xml.element("Code", fault.code.text())
                        .element("Message", fault.message.as_bytes())
                        .close();
                }
            }
        }
    }
    call.xml(xml).await
}

async fn delete_one(s3: &S3, bucket: &str, doomed: &Doomed) -> Result<(), Fault> {
    if doomed.version.as_deref().is_some_and(|version| !matches!(version, "" | "null")) {
        return Err(Code::NoSuchVersion.into());
    }
    if doomed.has_other_conditions {
        return Err(Fault::new(Code::NotImplemented, "Deletion by size or date is not implemented"));
    }
    let name = Name::new(bucket, doomed.key.as_bytes())?;
    let matches = doomed.etag.as_ref().map(|etag| match &**etag {
        "*" => Tags::Any,
        etag => Tags::Of(vec![etag.trim_matches('"').into()]),
    });
    s3.driver.file_delete(&name, When { matches, matches_none: None }).await?;
    Ok(())
}

/// Does all of `work` at the same time; the results in its order.
async fn all<T, F: Future<Output = T>>(work: Vec<F>) -> Vec<T> {
    let mut work: Vec<Pin<Box<F>>> = work.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in work.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

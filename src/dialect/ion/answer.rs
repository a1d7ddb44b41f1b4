//! What a refusal is: one shape of JSON, `{"statusCode":404,"message":"…"}` and a line end.
//!
//! Invariant: no message tells where our files lie, or anything of a secret. Lives on: the connection's shard.

use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::{self, Status};
use crate::service::blob::{BlobError, RemoteError, StoreError};
use crate::service::chain::CommitError;
use serde_json::json;

pub const JSON: &str = "application/json";

/// Why a request ends early.
pub enum Halt {
    /// The peer is gone.
    Gone,
    /// It is to be told this.
    Refused(Refusal),
}

/// Why something was not done.
#[derive(Debug)]
pub enum Refusal {
    /// No such path.
    NotFound,
    /// The methods that would do.
    MethodNotAllowed(&'static str),
    /// There is no secret in the request.
    NoSecret,
    /// It is nobody's, or not that of the module whose port this is.
    WrongSecret,
    /// A name, a parameter or a body that cannot be used.
    Bad(String),
    /// The body has more than so many bytes.
    TooLong(usize),
    /// Neither a length nor chunks.
    NoLength,
    /// The body's framing is broken.
    BadBody(http::Refusal),
    /// There is no such blob.
    NoBlob(Box<str>),
    /// It is done with blobs that are kept here, and these are elsewhere.
    Elsewhere(&'static str),
    /// The module has no document.
    NoDocument(Box<str>),
    /// A condition does not hold.
    Precondition,
    /// Nothing of something of so many bytes was asked for.
    Range(u64),
    /// The service refused.
    Commit(CommitError),
}

impl From<Gone> for Halt {
    fn from(Gone: Gone) -> Self {
        Halt::Gone
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Halt::Refused(refusal)
    }
}

impl From<CommitError> for Halt {
    fn from(error: CommitError) -> Self {
        Refusal::Commit(error).into()
    }
}

impl From<BlobError> for Halt {
    fn from(error: BlobError) -> Self {
        CommitError::Blob(error).into()
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        BlobError::Store(error).into()
    }
}

/// An answer without a body.
pub async fn empty(exchange: &mut Exchange, status: Status) -> Result<(), Gone> {
    exchange.begin(status, Framing::Empty).finish();
    exchange.finish(&[]).await
}

/// Tells why something was not done.
pub async fn refuse(exchange: &mut Exchange, refusal: &Refusal) -> Result<(), Gone> {
    let (status, message) = describe(refusal);
    if status == Status::INTERNAL_SERVER_ERROR {
        tracing::error!(path = exchange.head().path(), error = ?refusal, "not answered");
    }
    let body = json!({ "statusCode": status.code(), "message": message }).to_string() + "\n";
    let mut head = exchange.begin(status, Framing::Length(body.len() as u64)).header("Content-Type", JSON);
    match refusal {
        Refusal::MethodNotAllowed(allowed) => head = head.header("Allow", allowed),
        Refusal::Range(size) => head = head.content_range_unsatisfied(*size),
        _ => {}
    }
    head.finish();
    exchange.send(body.as_bytes()).await?;
    exchange.finish(&[]).await
}

/// The one place where causes become statuses.
fn describe(refusal: &Refusal) -> (Status, String) {
    match refusal {
        Refusal::NotFound => (Status::NOT_FOUND, "nothing is served at this path".into()),
        Refusal::MethodNotAllowed(allowed) => {
            (Status::METHOD_NOT_ALLOWED, format!("the method is not allowed here; there are {allowed}"))
        }
        Refusal::NoSecret => (Status::UNAUTHORIZED, "the header secret is missing".into()),
        Refusal::WrongSecret => (Status::UNAUTHORIZED, "the header secret is not right".into()),
        Refusal::Bad(message) => (Status::BAD_REQUEST, message.clone()),
        Refusal::TooLong(max) => {
            (Status::CONTENT_TOO_LARGE, format!("the body may have {max} bytes (ion.meta_limit)"))
        }
        Refusal::NoLength => {
            (Status::LENGTH_REQUIRED, "say Content-Length, or send the body in chunks".into())
        }
        Refusal::BadBody(refusal) => (refusal.status, refusal.reason.to_string()),
        Refusal::Elsewhere(what) => {
            (Status::NOT_IMPLEMENTED, format!("{what} needs blob_provider \"segments\""))
        }
        Refusal::NoBlob(name) => (Status::NOT_FOUND, format!("there is no blob {name}")),
        Refusal::NoDocument(event) => (Status::NOT_FOUND, format!("no document is there of event {event}")),
        Refusal::Precondition => {
            (Status::PRECONDITION_FAILED, "a condition of the request does not hold".into())
        }
        Refusal::Range(size) => (
            Status::RANGE_NOT_SATISFIABLE,
            format!("the range is not within the {size} bytes that are there"),
        ),
        Refusal::Commit(error) => (of_commit(error), error.to_string()),
    }
}

fn of_commit(error: &CommitError) -> Status {
    match error {
        CommitError::NotStaged(_) => Status::CONFLICT,
        CommitError::KeyReused => Status::UNPROCESSABLE_CONTENT,
        CommitError::TooMuch => Status::BAD_REQUEST,
        CommitError::Blob(error) => of_blob(error),
    }
}

fn of_blob(error: &BlobError) -> Status {
    match error {
        BlobError::NoSuchBlob | BlobError::Precondition => Status::PRECONDITION_FAILED,
        BlobError::Quota(_) | BlobError::Count(_) => Status::INSUFFICIENT_STORAGE,
        BlobError::PropertiesTooLong(_) => Status::BAD_REQUEST,
        // The bucket for modules in a store elsewhere has gone.
        BlobError::NoSuchContainer => Status::BAD_GATEWAY,
        // This dialect has no containers and composes nothing.
        BlobError::ContainerNotEmpty
        | BlobError::NoSuchUpload
        | BlobError::InvalidPart(_)
        | BlobError::TooManyPieces(_)
        | BlobError::Reserved
        | BlobError::NotCopied => Status::INTERNAL_SERVER_ERROR,
        BlobError::Remote(RemoteError::NotReady(_)) => Status::SERVICE_UNAVAILABLE,
        BlobError::Remote(RemoteError::Rejected(_)) => Status::BAD_REQUEST,
        // Whatever it is that failed there, it is not here.
        BlobError::Remote(_) => Status::BAD_GATEWAY,
        BlobError::Store(StoreError::NoSpace) => Status::INSUFFICIENT_STORAGE,
        BlobError::Store(StoreError::SyncFailed | StoreError::ReadOnly | StoreError::Closing) => {
            Status::SERVICE_UNAVAILABLE
        }
        BlobError::Store(_) => Status::INTERNAL_SERVER_ERROR,
    }
}

//! Answers in XML, and what a refusal is in statuses and codes.
//!
//! Invariant: every refusal is `<Error>` with a code that programs read and a message that people do; neither tells
//! where our files lie. Lives on: the connection's shard.

use super::name;
use crate::codec::xml::Xml;
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::{self, Status};
use crate::service::blob::{BlobError, Name, StoreError};

/// The namespace of every answer but errors.
pub const NAMESPACE: &str = "https://github.com/vmware-bdc/vblob/";

const XML: &str = "application/xml";

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
    /// The methods that would do.
    MethodNotAllowed(&'static str),
    /// The challenges, and what was wrong.
    Unauthorized(Vec<String>, &'static str),
    /// No container can be called so.
    InvalidContainerName,
    /// The path, or the source of a copy, cannot be read.
    InvalidUri(String),
    /// A key is too long.
    KeyTooLong,
    /// Neither a length nor chunks.
    MissingContentLength,
    /// `Content-MD5` is none, or is that of other bytes.
    InvalidDigest(&'static str),
    /// A parameter that cannot be used.
    InvalidArgument(String),
    /// A way to copy that there is not.
    NotImplemented(&'static str),
    /// There is no such file.
    NoSuchFile,
    /// A condition does not hold.
    Precondition,
    /// Nothing of a file of so many bytes was asked for.
    InvalidRange(u64),
    /// The body's framing is broken.
    BadBody(http::Refusal),
    /// The account is there already.
    KeyExists,
    /// The account is not there.
    NoSuchKey,
    /// The account is not told in JSON as it should be.
    BadJson,
    /// Too many bytes for an account.
    MessageTooLong,
    /// The file of accounts cannot be written.
    AccountFile,
    /// The service refused.
    Blob(BlobError),
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

impl From<BlobError> for Halt {
    fn from(error: BlobError) -> Self {
        Halt::Refused(Refusal::Blob(error))
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        BlobError::Store(error).into()
    }
}

/// A whole answer in XML.
pub async fn xml(exchange: &mut Exchange, document: Xml) -> Result<(), Gone> {
    exchange.reply(Status::OK, XML, &document.finish()).await
}

/// An answer without a body.
pub async fn empty(exchange: &mut Exchange, status: Status) -> Result<(), Gone> {
    exchange.begin(status, Framing::Empty).finish();
    exchange.finish(&[]).await
}

/// 200 with the methods that there are.
pub async fn options(exchange: &mut Exchange, allowed: &str) -> Result<(), Gone> {
    exchange.begin(Status::OK, Framing::Empty).header("Allow", allowed).finish();
    exchange.finish(&[]).await
}

/// Tells why something was not done.
pub async fn refuse(exchange: &mut Exchange, refusal: &Refusal) -> Result<(), Gone> {
    let Described { status, code, message } = describe(refusal);
    if status == Status::INTERNAL_SERVER_ERROR {
        tracing::error!(target = exchange.head().target(), error = ?refusal, "not answered");
    }
    let mut xml = Xml::new("Error");
    xml.element("Code", code).element("Message", message);
    let body = xml.finish();
    let mut head = exchange.begin(status, Framing::Length(body.len() as u64)).header("Content-Type", XML);
    match refusal {
        Refusal::MethodNotAllowed(allowed) => head = head.header("Allow", allowed),
        Refusal::Unauthorized(challenges, _) => {
            head = challenges.iter().fold(head, |head, challenge| head.header("WWW-Authenticate", challenge));
        }
        Refusal::InvalidRange(size) => head = head.content_range_unsatisfied(*size),
        _ => {}
    }
    head.finish();
    exchange.send(&body).await?;
    exchange.finish(&[]).await
}

struct Described {
    status: Status,
    code: &'static str,
    message: String,
}

/// The one place where causes become codes.
fn describe(refusal: &Refusal) -> Described {
    let told = |status, code, message: &str| Described { status, code, message: message.into() };
    let bad = |code, message: &str| told(Status::BAD_REQUEST, code, message);
    match refusal {
        Refusal::MethodNotAllowed(_) => {
            told(Status::METHOD_NOT_ALLOWED, "MethodNotAllowed", "The method is not allowed here")
        }
        Refusal::Unauthorized(_, message) => told(Status::UNAUTHORIZED, "Unauthorized", message),
        Refusal::InvalidContainerName => bad("InvalidContainerName", name::CONTAINER_NAMES),
        Refusal::InvalidUri(message) => bad("InvalidURI", message),
        Refusal::KeyTooLong => {
            bad("KeyTooLongError", &format!("A key has at most {} bytes, percent-decoded", Name::KEY_MAX))
        }
        Refusal::MissingContentLength => {
            let message = "Say Content-Length, or send the body in chunks";
            told(Status::LENGTH_REQUIRED, "MissingContentLength", message)
        }
        Refusal::InvalidDigest(message) => bad("InvalidDigest", message),
        Refusal::InvalidArgument(message) => bad("InvalidArgument", message),
        Refusal::NotImplemented(message) => bad("NotImplemented", message),
        Refusal::NoSuchFile => told(Status::NOT_FOUND, "NoSuchFile", "There is no such file"),
        Refusal::Precondition => told(
            Status::PRECONDITION_FAILED,
            "PreconditionFailed",
            "A condition of the request does not hold",
        ),
        Refusal::InvalidRange(size) => {
            let message = format!("The range is not within the file, which has {size} bytes");
            told(Status::RANGE_NOT_SATISFIABLE, "InvalidRange", &message)
        }
        Refusal::BadBody(refusal) => told(refusal.status, "IncompleteBody", &refusal.reason.to_string()),
        Refusal::KeyExists => {
            told(Status::CONFLICT, "KeyExists", "There is an account with this key already")
        }
        Refusal::NoSuchKey => told(Status::NOT_FOUND, "NoSuchKey", "There is no account with this key"),
        Refusal::BadJson => bad(
            "BadJSONFormat",
            r#"An account is one pair of strings in JSON, {"key":"secret"}, no colon in the key"#,
        ),
        Refusal::MessageTooLong => bad("MaxMessageLengthExceeded", "An account has at most 512 bytes"),
        Refusal::AccountFile => {
            let message = "The file of accounts cannot be read and written; the log says why";
            told(Status::INTERNAL_SERVER_ERROR, "InternalError", message)
        }
        Refusal::Blob(error) => blob(error),
    }
}

fn blob(error: &BlobError) -> Described {
    let told = |status, code| Described { status, code, message: error.to_string() };
    match error {
        BlobError::NoSuchContainer => told(Status::NOT_FOUND, "NoSuchContainer"),
        BlobError::ContainerNotEmpty => told(Status::CONFLICT, "ContainerNotEmpty"),
        BlobError::Reserved => told(Status::FORBIDDEN, "AccessDenied"),
        BlobError::NotCopied => told(Status::BAD_REQUEST, "NotImplemented"),
        // Only a condition asks for one that is there.
        BlobError::NoSuchBlob | BlobError::Precondition => describe(&Refusal::Precondition),
        BlobError::Quota(_) | BlobError::Count(_) => told(Status::INSUFFICIENT_STORAGE, "UsageExceeded"),
        BlobError::PropertiesTooLong(_) => told(Status::BAD_REQUEST, "MetadataTooLarge"),
        // This dialect composes nothing.
        BlobError::NoSuchUpload | BlobError::InvalidPart(_) | BlobError::TooManyPieces(_) => {
            told(Status::INTERNAL_SERVER_ERROR, "InternalError")
        }
        BlobError::Remote(error) => told(error.status(), error.code()),
        BlobError::Store(error) => store(error),
    }
}

fn store(error: &StoreError) -> Described {
    let (status, code) = match error {
        StoreError::NoSpace => (Status::INSUFFICIENT_STORAGE, "InsufficientStorage"),
        StoreError::SyncFailed | StoreError::ReadOnly | StoreError::Closing => {
            (Status::SERVICE_UNAVAILABLE, "ServiceUnavailable")
        }
        StoreError::Damaged(_)
        | StoreError::Trimmed(_)
        | StoreError::Gone
        | StoreError::Ended
        | StoreError::Attached
        | StoreError::Fenced
        | StoreError::Io(..) => (Status::INTERNAL_SERVER_ERROR, "InternalError"),
    };
    let message = match error {
        StoreError::Io(kind, _) => format!("the disk refused an operation: {kind}"),
        other => other.to_string(),
    };
    Described { status, code, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn no_message_tells_where_files_lie() {
        let path = Arc::new(PathBuf::from("/secret/place"));
        let error = BlobError::Store(StoreError::Io(std::io::ErrorKind::PermissionDenied, path));
        let described = describe(&Refusal::Blob(error));
        assert_eq!((described.status, described.code), (Status::INTERNAL_SERVER_ERROR, "InternalError"));
        assert!(!described.message.contains("place"), "{}", described.message);
    }

    #[test]
    fn limits_are_507_and_a_full_disk_has_a_code_of_its_own() {
        let of = |error| describe(&Refusal::Blob(error));
        for error in [BlobError::Quota(7), BlobError::Count(7)] {
            let described = of(error);
            assert_eq!((described.status.code(), described.code), (507, "UsageExceeded"));
        }
        assert_eq!(of(BlobError::Store(StoreError::NoSpace)).code, "InsufficientStorage");
    }
}

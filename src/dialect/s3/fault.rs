//! What goes wrong, in the codes of S3.
//!
//! Invariant: each code has one status, in one table; and a fault of the store is never told with our paths.
//! Pure, but for the log; runs on the connection's shard.

use super::payload::chunks::Bad;
use super::sign::Denied;
use crate::net::http::Status;
use crate::service::blob::{BadName, BlobError, RemoteError, StoreError};
use std::borrow::Cow;

macro_rules! codes {
    ($($name:ident $status:ident $message:literal;)*) => {
        /// The codes that we answer with.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "they are the codes of S3, and the message beside each says what it is")]
        pub enum Code { $($name),* }

        impl Code {
            /// The status that goes with it.
            pub const fn status(self) -> Status {
                match self { $(Code::$name => Status::$status),* }
            }

            /// The code as it is written.
            pub const fn text(self) -> &'static str {
                match self { $(Code::$name => stringify!($name)),* }
            }

            const fn message(self) -> &'static str {
                match self { $(Code::$name => $message),* }
            }
        }
    };
}

codes! {
    AccessDenied FORBIDDEN "Access Denied";
    AuthorizationHeaderMalformed BAD_REQUEST "The authorization header you provided is invalid.";
    AuthorizationQueryParametersError BAD_REQUEST "The query parameters of the signature are invalid.";
    BadGateway BAD_GATEWAY "The store behind this one failed.";
    BadDigest BAD_REQUEST "The Content-MD5 or checksum value that you specified did not match what the server received.";
    BucketAlreadyExists CONFLICT "The requested bucket name is not available. Please select a different name and try again.";
    BucketAlreadyOwnedByYou CONFLICT "Your previous request to create the named bucket succeeded and you already own it.";
    BucketNotEmpty CONFLICT "The bucket you tried to delete is not empty";
    EntityTooLarge BAD_REQUEST "Your proposed upload exceeds the maximum allowed object size.";
    EntityTooSmall BAD_REQUEST "Your proposed upload is smaller than the minimum allowed size";
    GatewayTimeout GATEWAY_TIMEOUT "The store behind this one did not answer in time.";
    IncompleteBody BAD_REQUEST "You did not provide the number of bytes specified by the Content-Length HTTP header";
    InsufficientStorage INSUFFICIENT_STORAGE "There is no room on the disk.";
    InternalError INTERNAL_SERVER_ERROR "We encountered an internal error. Please try again.";
    InvalidAccessKeyId FORBIDDEN "The AWS Access Key Id you provided does not exist in our records.";
    InvalidArgument BAD_REQUEST "Invalid Argument";
    InvalidBucketName BAD_REQUEST "The specified bucket is not valid.";
    InvalidDigest BAD_REQUEST "The Content-MD5 you specified was invalid.";
    InvalidPart BAD_REQUEST "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
    InvalidPartNumber RANGE_NOT_SATISFIABLE "The requested partnumber is not satisfiable";
    InvalidPartOrder BAD_REQUEST "The list of parts was not in ascending order. Parts must be ordered by part number.";
    InvalidRange RANGE_NOT_SATISFIABLE "The requested range is not satisfiable";
    InvalidRequest BAD_REQUEST "Invalid Request";
    InvalidURI BAD_REQUEST "Couldn't parse the specified URI.";
    KeyTooLongError BAD_REQUEST "Your key is too long";
    MalformedXML BAD_REQUEST "The XML you provided was not well-formed or did not validate against our published schema";
    MetadataTooLarge BAD_REQUEST "Your metadata headers exceed the maximum allowed metadata size";
    MethodNotAllowed METHOD_NOT_ALLOWED "The specified method is not allowed against this resource.";
    MissingContentLength LENGTH_REQUIRED "You must provide the Content-Length HTTP header.";
    NoSuchBucket NOT_FOUND "The specified bucket does not exist";
    NoSuchKey NOT_FOUND "The specified key does not exist.";
    NoSuchUpload NOT_FOUND "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    NoSuchVersion NOT_FOUND "The specified version does not exist.";
    NotImplemented NOT_IMPLEMENTED "A header or a sub-resource you provided implies functionality that is not implemented";
    PreconditionFailed PRECONDITION_FAILED "At least one of the pre-conditions you specified did not hold";
    QuotaExceeded INSUFFICIENT_STORAGE "The quota is used up.";
    RequestTimeTooSkewed FORBIDDEN "The difference between the request time and the current time is too large.";
    ServiceUnavailable SERVICE_UNAVAILABLE "Please reduce your request rate, or try again later.";
    SlowDown SERVICE_UNAVAILABLE "Please reduce your request rate.";
    SignatureDoesNotMatch FORBIDDEN "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
    XAmzContentSHA256Mismatch BAD_REQUEST "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

/// An answer that is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its code.
    pub code: Code,
    /// What is wrong, and what would be accepted.
    pub message: Cow<'static, str>,
    /// Further elements of its body.
    pub elements: Vec<(&'static str, Box<str>)>,
}

impl Fault {
    /// A fault with a sentence of its own.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Fault { code, message: message.into(), elements: Vec::new() }
    }

    /// The same with another element in its body.
    pub fn with(mut self, name: &'static str, value: impl Into<Box<str>>) -> Self {
        self.elements.push((name, value.into()));
        self
    }

    /// A value that cannot be used.
    pub fn argument(name: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Fault::new(Code::InvalidArgument, message).with("ArgumentName", name)
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Fault::new(code, code.message())
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        let message = denied.to_string();
        let code = match &denied {
            Denied::Anonymous | Denied::Expired | Denied::NotYet | Denied::NoDate => Code::AccessDenied,
            Denied::HeadersNotSigned(_) => Code::AccessDenied,
            Denied::Twice => Code::InvalidArgument,
            Denied::InvalidAccessKeyId => Code::InvalidAccessKeyId,
            Denied::SignatureDoesNotMatch => Code::SignatureDoesNotMatch,
            Denied::RequestTimeTooSkewed => Code::RequestTimeTooSkewed,
            Denied::Malformed(_) | Denied::WrongRegion(_) => Code::AuthorizationHeaderMalformed,
            Denied::QueryMalformed(_) => Code::AuthorizationQueryParametersError,
            Denied::NoPayloadHash => Code::InvalidRequest,
        };
        let fault = Fault::new(code, message);
        match denied {
            Denied::WrongRegion(region) => fault.with("Region", region),
            _ => fault,
        }
    }
}

impl From<Bad> for Fault {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Malformed(sentence) => Fault::new(Code::InvalidRequest, sentence),
            Bad::Length => Code::IncompleteBody.into(),
            Bad::Signature(denied) => denied.into(),
        }
    }
}

impl From<BadName> for Fault {
    fn from(bad: BadName) -> Self {
        match bad {
            BadName::Container => Code::InvalidBucketName.into(),
            BadName::EmptyKey => Code::InvalidURI.into(),
            BadName::LongKey => Fault::from(Code::KeyTooLongError).with("MaxSizeAllowed", "1024"),
        }
    }
}

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NoSuchContainer => Code::NoSuchBucket.into(),
            BlobError::ContainerNotEmpty => Code::BucketNotEmpty.into(),
            BlobError::Reserved => Fault::new(Code::AccessDenied, error.to_string()),
            BlobError::NotCopied => Fault::new(Code::NotImplemented, error.to_string()),
            BlobError::NoSuchBlob => Code::NoSuchKey.into(),
            BlobError::NoSuchUpload => Code::NoSuchUpload.into(),
            BlobError::InvalidPart(number) => {
                Fault::from(Code::InvalidPart).with("PartNumber", number.to_string())
            }
            BlobError::TooManyPieces(_) => Fault::new(Code::InvalidRequest, error.to_string()),
            BlobError::Precondition => Code::PreconditionFailed.into(),
            BlobError::Quota(_) | BlobError::Count(_) => Fault::new(
                Code::QuotaExceeded,
                format!("{error}; there is room again once enough are deleted"),
            ),
            BlobError::PropertiesTooLong(_) => Fault::new(Code::MetadataTooLarge, error.to_string()),
            BlobError::Remote(error) => error.into(),
            BlobError::Store(error) => error.into(),
        }
    }
}

impl From<RemoteError> for Fault {
    fn from(error: RemoteError) -> Self {
        let code = match &error {
            RemoteError::NotReady(_) => Code::ServiceUnavailable,
            RemoteError::Busy => Code::SlowDown,
            RemoteError::Unreachable(_)
            | RemoteError::Refused(..)
            | RemoteError::Absent
            | RemoteError::Malformed(_) => Code::BadGateway,
            RemoteError::Timeout => Code::GatewayTimeout,
            RemoteError::NotOffered(_) => Code::NotImplemented,
            RemoteError::Rejected(_) => Code::InvalidRequest,
        };
        Fault::new(code, error.to_string())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NoSpace => Code::InsufficientStorage,
            StoreError::SyncFailed | StoreError::ReadOnly | StoreError::Closing => Code::ServiceUnavailable,
            StoreError::Damaged(_) => Code::InternalError,
            StoreError::Trimmed(_) | StoreError::Gone => Code::NoSuchKey,
            StoreError::Ended | StoreError::Attached | StoreError::Fenced => Code::InternalError,
            // Where our files lie is nobody's business.
            StoreError::Io(kind, path) => {
                tracing::error!(path = %path.display(), %kind, "a file operation failed");
                return Code::InternalError.into();
            }
        };
        Fault::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_they_are_known() {
        assert_eq!(Code::XAmzContentSHA256Mismatch.text(), "XAmzContentSHA256Mismatch");
        assert_eq!(Code::InvalidRange.status().code(), 416);
        assert_eq!(Fault::from(Denied::InvalidAccessKeyId).code.status().code(), 403);
        let fault = Fault::from(Denied::WrongRegion("r".into()));
        assert_eq!(fault.elements, [("Region", "r".into())]);
    }

    #[test]
    fn no_path_is_told() {
        let error = StoreError::Io(std::io::ErrorKind::Other, std::sync::Arc::new("secret/path".into()));
        assert!(!Fault::from(error).message.contains("secret"));
    }
}

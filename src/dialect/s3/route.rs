//! What a request asks for: bucket and key from host and path, the task from method and sub-resource.
//!
//! Invariant: a sub-resource that is not built is refused, and so is any parameter without a value that nobody knows:
//! `PUT /b/k?retention` must not become an object, nor `GET /b?policy` a listing.
//! Pure; runs on the connection's shard.

use super::fault::{Code, Fault};
use super::list::Kind;
use super::param;
use crate::codec::text::percent_decode;
use crate::net::http::target::query_pairs;
use crate::net::http::{Method, RequestHead};
use crate::service::blob::{Name, UploadId};

/// A request as it was understood.
#[derive(Debug)]
pub struct Request {
    /// What is to be done.
    pub task: Task,
    /// The bucket, if the host names it.
    pub bucket_in_host: Option<String>,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are the operations of S3, and the table of the module has them")]
pub enum Task {
    ListBuckets,
    CreateBucket(Box<str>),
    HeadBucket(Box<str>),
    DeleteBucket(Box<str>),
    Location(Box<str>),
    Versioning(Box<str>),
    List(Box<str>, Kind),
    ListUploads(Box<str>),
    DeleteObjects(Box<str>),
    Put(Name),
    Copy(Name),
    Get(Name),
    Attributes(Name),
    Delete(Name),
    Begin(Name),
    PutPart(PartOf),
    CopyPart(PartOf),
    ListParts(Name, UploadId),
    Complete(Name, UploadId),
    Abort(Name, UploadId),
}

/// A part that is to be put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartOf {
    /// The object that it is for.
    pub name: Name,
    /// The upload.
    pub id: UploadId,
    /// Its number, from 1 to 10,000.
    pub number: u16,
}

impl Task {
    /// Whether its body means anything.
    pub fn takes_body(&self) -> bool {
        matches!(
            self,
            Task::CreateBucket(_)
                | Task::DeleteObjects(_)
                | Task::Put(_)
                | Task::PutPart(_)
                | Task::Complete(..)
        )
    }
}

/// Sub-resources that are not built.
const NOT_BUILT: &[&str] = &[
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "logging",
    "metadataConfiguration",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "select-type",
    "session",
    "tagging",
    "torrent",
    "website",
];

/// Parameters that are no sub-resource, so that they may be empty.
const PLAIN: &[&str] = &[
    "continuation-token",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "follow",
    "key-marker",
    "list-type",
    "marker",
    "max-buckets",
    "max-keys",
    "max-parts",
    "max-uploads",
    "part-number-marker",
    "prefix",
    "start-after",
    "upload-id-marker",
    "version-id-marker",
    "versionId",
    "x-id",
];

/// Sub-resources that are built.
const BUILT: &[&str] =
    &["attributes", "delete", "location", "partNumber", "uploadId", "uploads", "versioning", "versions"];

impl Request {
    /// Understands a request. `domains` are in lower case.
    pub fn of(head: &RequestHead, domains: &[Box<str>]) -> Result<Self, Fault> {
        let bucket_in_host = bucket_of(head.host(), domains);
        let place = Place::of(head.path(), bucket_in_host.as_deref())?;
        judge_parameters(head)?;
        Ok(Request { task: place.task(head)?, bucket_in_host })
    }
}

/// The bucket in `bucket.domain[:port]`, with the longest domain that fits.
fn bucket_of(host: &str, domains: &[Box<str>]) -> Option<String> {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    let host = host.to_ascii_lowercase();
    let before = |domain: &str| Some(host.strip_suffix(domain)?.strip_suffix('.')?.to_owned());
    let found = domains.iter().filter_map(|domain| Some((domain.len(), before(domain)?)));
    found.max().map(|(_, bucket)| bucket).filter(|bucket| !bucket.is_empty())
}

enum Place {
    Service,
    Bucket(Box<str>),
    Object(Name),
}

impl Place {
    fn of(path: &str, bucket_in_host: Option<&str>) -> Result<Self, Fault> {
        let rest = path.strip_prefix('/').ok_or(Fault::from(Code::InvalidURI))?;
        let (bucket, key) = match bucket_in_host {
            Some(bucket) => (bucket.to_owned(), rest),
            None => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                let bucket = percent_decode(bucket.as_bytes()).map_err(|_| Fault::from(Code::InvalidURI))?;
                let bucket = String::from_utf8(bucket.into_owned());
                (bucket.map_err(|_| Fault::from(Code::InvalidBucketName))?, key)
            }
        };
        if bucket.is_empty() {
            return if key.is_empty() { Ok(Place::Service) } else { Err(Code::InvalidBucketName.into()) };
        }
        if key.is_empty() {
            return Ok(Place::Bucket(bucket.into()));
        }
        let key =
            percent_decode(key.as_bytes()).map_err(|bad| Fault::new(Code::InvalidURI, bad.to_string()))?;
        Ok(Place::Object(Name::new(&bucket, &key)?))
    }

    fn task(self, head: &RequestHead) -> Result<Task, Fault> {
        let has = |key: &str| param::is_present(head, key);
        let method = head.method();
        match self {
            Place::Service => match method {
                Method::Get => Ok(Task::ListBuckets),
                _ => Err(Code::MethodNotAllowed.into()),
            },
            Place::Bucket(bucket) => {
                let read = method == Method::Get;
                let sub = ["location", "versioning", "versions", "uploads", "delete"];
                match (method, sub.into_iter().find(|key| has(key))) {
                    (Method::Get, Some("location")) => Ok(Task::Location(bucket)),
                    (Method::Get, Some("versioning")) => Ok(Task::Versioning(bucket)),
                    (Method::Get, Some("versions")) => Ok(Task::List(bucket, Kind::Versions)),
                    (Method::Get, Some("uploads")) => Ok(Task::ListUploads(bucket)),
                    (Method::Post, Some("delete")) => Ok(Task::DeleteObjects(bucket)),
                    (_, Some("versioning")) => Err(Code::NotImplemented.into()),
                    (_, Some(_)) => Err(Code::MethodNotAllowed.into()),
                    (_, None) if has("uploadId") || has("partNumber") || has("attributes") => {
                        Err(Code::MethodNotAllowed.into())
                    }
                    (_, None) if read => match param::text(head, "list-type").as_deref() {
                        None => Ok(Task::List(bucket, Kind::V1)),
                        Some(b"2") => Ok(Task::List(bucket, Kind::V2)),
                        Some(_) => Err(Fault::argument("list-type", "list-type is 2, or is not there")),
                    },
                    (Method::Head, None) => Ok(Task::HeadBucket(bucket)),
                    (Method::Put, None) => Ok(Task::CreateBucket(bucket)),
                    (Method::Delete, None) => Ok(Task::DeleteBucket(bucket)),
                    // A form that a browser posts.
                    (Method::Post, None) => Err(Code::NotImplemented.into()),
                    (_, None) => Err(Code::MethodNotAllowed.into()),
                }
            }
            Place::Object(name) => object_task(head, name),
        }
    }
}

fn object_task(head: &RequestHead, name: Name) -> Result<Task, Fault> {
    let has = |key: &str| param::is_present(head, key);
    if ["location", "versioning", "versions", "delete"].into_iter().any(has) {
        return Err(Code::MethodNotAllowed.into());
    }
    if let Some(version) = param::text(head, "versionId")
        && *version != *b"null"
    {
        return Err(Code::NoSuchVersion.into());
    }
    let copies = head.header("x-amz-copy-source").is_some();
    match (head.method(), has("uploads"), has("uploadId"), has("attributes")) {
        (Method::Post, true, false, false) => Ok(Task::Begin(name)),
        (Method::Put, false, true, false) => {
            let part = PartOf { number: part_number(head)?, id: upload_id(head)?, name };
            Ok(if copies { Task::CopyPart(part) } else { Task::PutPart(part) })
        }
        (Method::Get, false, true, false) => Ok(Task::ListParts(name, upload_id(head)?)),
        (Method::Post, false, true, false) => Ok(Task::Complete(name, upload_id(head)?)),
        (Method::Delete, false, true, false) => Ok(Task::Abort(name, upload_id(head)?)),
        (Method::Get, false, false, true) => Ok(Task::Attributes(name)),
        (Method::Get | Method::Head, false, false, false) => Ok(Task::Get(name)),
        (Method::Put, false, false, false) if has("partNumber") => {
            Err(Fault::argument("uploadId", "A part needs uploadId beside partNumber"))
        }
        (Method::Put, false, false, false) => Ok(if copies { Task::Copy(name) } else { Task::Put(name) }),
        (Method::Delete, false, false, false) => Ok(Task::Delete(name)),
        _ => Err(Code::MethodNotAllowed.into()),
    }
}

fn upload_id(head: &RequestHead) -> Result<UploadId, Fault> {
    let text = param::text(head, "uploadId").unwrap_or_default();
    std::str::from_utf8(&text).ok().and_then(UploadId::parse).ok_or(Code::NoSuchUpload.into())
}

fn part_number(head: &RequestHead) -> Result<u16, Fault> {
    let number = param::text(head, "partNumber").and_then(|text| param::decimal(&text));
    number.filter(|number| (1..=10_000).contains(number)).map(|number| number as u16).ok_or_else(|| {
        Fault::argument("partNumber", "Part number must be an integer between 1 and 10000, inclusive")
    })
}

fn judge_parameters(head: &RequestHead) -> Result<(), Fault> {
    for (key, value) in query_pairs(head.query().unwrap_or_default()) {
        let is_in = |list: &[&str]| list.iter().any(|known| known.as_bytes() == &*key);
        let is_empty = value.is_none_or(|value| value.is_empty());
        if is_in(NOT_BUILT) || (is_empty && !is_in(PLAIN) && !is_in(BUILT) && !key.starts_with(b"response-"))
        {
            let message = format!("The sub-resource {} is not implemented", key.escape_ascii());
            return Err(Fault::new(Code::NotImplemented, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn routed(host: &str, method: &str, target: &str, fields: &str) -> Result<Task, Code> {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)), "{text}");
        let domains = ["localhost".into(), "s3.example".into(), "eu.s3.example".into()];
        Request::of(&head, &domains).map(|request| request.task).map_err(|fault| fault.code)
    }

    fn plain(method: &str, target: &str) -> Result<Task, Code> {
        routed("127.0.0.1:9000", method, target, "")
    }

    fn name(key: &[u8]) -> Name {
        Name::new("b", key).unwrap()
    }

    #[test]
    fn the_table_is_kept() {
        let id = || UploadId::parse(ID).unwrap();
        let part = |number| PartOf { name: name(b"k"), id: id(), number };
        for (method, target, task) in [
            ("GET", "/", Ok(Task::ListBuckets)),
            ("GET", "/?x-id=ListBuckets", Ok(Task::ListBuckets)),
            ("PUT", "/b", Ok(Task::CreateBucket("b".into()))),
            ("PUT", "/b/", Ok(Task::CreateBucket("b".into()))),
            ("HEAD", "/b/", Ok(Task::HeadBucket("b".into()))),
            ("DELETE", "/b", Ok(Task::DeleteBucket("b".into()))),
            ("GET", "/b?location", Ok(Task::Location("b".into()))),
            ("GET", "/b/?location=", Ok(Task::Location("b".into()))),
            ("GET", "/b?versioning=", Ok(Task::Versioning("b".into()))),
            ("GET", "/b", Ok(Task::List("b".into(), Kind::V1))),
            ("GET", "/b/?prefix=&delimiter=/&marker", Ok(Task::List("b".into(), Kind::V1))),
            ("GET", "/b?list-type=2&prefix=", Ok(Task::List("b".into(), Kind::V2))),
            ("GET", "/b?versions=&max-keys=9", Ok(Task::List("b".into(), Kind::Versions))),
            ("GET", "/b?uploads", Ok(Task::ListUploads("b".into()))),
            ("POST", "/b/?delete", Ok(Task::DeleteObjects("b".into()))),
            ("PUT", "/b/k", Ok(Task::Put(name(b"k")))),
            ("PUT", "/b/k/?x-id=PutObject", Ok(Task::Put(name(b"k/")))),
            ("GET", "/b/k?versionId=null&partNumber=2", Ok(Task::Get(name(b"k")))),
            ("HEAD", "/b/%2F%00//..", Ok(Task::Get(name(b"/\0//..")))),
            ("GET", "/b//", Ok(Task::Get(name(b"/")))),
            ("GET", "/b/a+b", Ok(Task::Get(name(b"a+b")))),
            ("GET", "/b/k?attributes", Ok(Task::Attributes(name(b"k")))),
            ("GET", "/b/k?response-content-type=", Ok(Task::Get(name(b"k")))),
            ("DELETE", "/b/k", Ok(Task::Delete(name(b"k")))),
            ("POST", "/b/k?uploads=", Ok(Task::Begin(name(b"k")))),
            ("PUT", &format!("/b/k?partNumber=7&uploadId={ID}"), Ok(Task::PutPart(part(7)))),
            ("GET", &format!("/b/k?uploadId={ID}"), Ok(Task::ListParts(name(b"k"), id()))),
            ("POST", &format!("/b/k?uploadId={ID}"), Ok(Task::Complete(name(b"k"), id()))),
            ("DELETE", &format!("/b/k?uploadId={ID}"), Ok(Task::Abort(name(b"k"), id()))),
        ] {
            assert_eq!(plain(method, target), task, "{method} {target}");
        }
        let copy = "x-amz-copy-source: b/x\r\n";
        assert_eq!(routed("h", "PUT", "/b/k", copy), Ok(Task::Copy(name(b"k"))));
        let target = format!("/b/k?partNumber=10000&uploadId={ID}");
        assert_eq!(routed("h", "PUT", &target, copy), Ok(Task::CopyPart(part(10_000))));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for (method, target, code) in [
            ("PUT", "/", Code::MethodNotAllowed),
            ("POST", "/b", Code::NotImplemented),
            ("PUT", "/b?versioning", Code::NotImplemented),
            ("PUT", "/b?delete", Code::MethodNotAllowed),
            ("DELETE", "/b?uploads", Code::MethodNotAllowed),
            ("DELETE", &format!("/b?uploadId={ID}"), Code::MethodNotAllowed),
            ("GET", "/b?list-type=3", Code::InvalidArgument),
            ("GET", "/b?policy", Code::NotImplemented),
            ("PUT", "/b/k?retention", Code::NotImplemented),
            ("PUT", "/b/k?tagging=x", Code::NotImplemented),
            ("GET", "/b?somethingNew", Code::NotImplemented),
            ("PUT", "/b/k?somethingNew=", Code::NotImplemented),
            ("PUT", "/b/k?uploads", Code::MethodNotAllowed),
            ("PUT", "/b/k?attributes", Code::MethodNotAllowed),
            ("POST", "/b/k", Code::MethodNotAllowed),
            ("PATCH", "/b/k", Code::MethodNotAllowed),
            ("DELETE", "/b/k?versions", Code::MethodNotAllowed),
            ("PUT", "/b/k?partNumber=1", Code::InvalidArgument),
            ("PUT", &format!("/b/k?partNumber=0&uploadId={ID}"), Code::InvalidArgument),
            ("PUT", &format!("/b/k?partNumber=10001&uploadId={ID}"), Code::InvalidArgument),
            ("PUT", &format!("/b/k?uploadId={ID}"), Code::InvalidArgument),
            ("PUT", "/b/k?partNumber=1&uploadId=%20", Code::NoSuchUpload),
            ("GET", "/b/k?uploadId=", Code::NoSuchUpload),
            ("GET", "/b/k?versionId=1", Code::NoSuchVersion),
            ("GET", "/b/%zz", Code::InvalidURI),
            ("GET", "//k", Code::InvalidBucketName),
            ("GET", "/%ff/k", Code::InvalidBucketName),
            ("GET", &format!("/b/{}", "k".repeat(1025)), Code::KeyTooLongError),
        ] {
            assert_eq!(plain(method, target), Err(code), "{method} {target}");
        }
    }

    #[test]
    fn a_bucket_in_the_host_is_one_before_a_domain() {
        let got = |host: &str, target: &str| routed(host, "GET", target, "");
        let listed = |bucket: &str| Ok(Task::List(bucket.into(), Kind::V1));
        assert_eq!(got("photos.localhost:9000", "/"), listed("photos"));
        assert_eq!(got("PHOTOS.LOCALHOST", "/"), listed("photos"));
        assert_eq!(got("a.b.s3.example", "/"), listed("a.b"));
        assert_eq!(got("a.eu.s3.example", "/"), listed("a"));
        assert_eq!(got("b.localhost", "/k/x"), Ok(Task::Get(name(b"k/x"))));
        for host in [
            "localhost:9000",
            "127.0.0.1:9000",
            "[::1]:9000",
            "s3.example",
            "notlocalhost",
            "a.other",
            ".localhost",
        ] {
            assert_eq!(got(host, "/"), Ok(Task::ListBuckets), "{host}");
            assert_eq!(got(host, "/b/k"), Ok(Task::Get(name(b"k"))), "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_key_comes_back(key in proptest::collection::vec(any::<u8>(), 1..60)) {
            let escaped = crate::codec::text::percent_encode(&key).to_string();
            prop_assert_eq!(plain("GET", &format!("/b/{escaped}")), Ok(Task::Get(name(&key))));
        }

        #[test]
        fn no_target_makes_it_panic(target in "/[!-\"$-~]{0,60}") {
            for method in ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"] {
                let _ = plain(method, &target);
            }
        }
    }
}

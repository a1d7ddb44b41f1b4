//! S3: buckets and objects over HTTP, for those who speak to Amazon's.
//!
//! Buckets are containers of the blob service and objects its blobs, so that other dialects read and list what this one
//! put. Default port 9000.
//!
//! | request | what | in |
//! |---|---|---|
//! | `GET /` | list buckets | [`bucket`] |
//! | `PUT`, `HEAD`, `DELETE /b`; `GET /b?location`, `?versioning` | buckets | [`bucket`] |
//! | `GET /b`, `?list-type=2`, `?versions` | list objects | [`list`] |
//! | `POST /b?delete`, `DELETE /b/k` | delete objects | [`delete`] |
//! | `PUT /b/k`; with `x-amz-copy-source` a copy | put an object | [`put`], [`copy`] |
//! | `GET`, `HEAD /streams/k?follow` | an object that grows, to its end | [`follow`] |
//! | `GET`, `HEAD /b/k[?partNumber=]`, `GET /b/k?attributes` | read an object | [`get`], [`attributes`] |
//! | `POST /b/k?uploads`, `PUT ?partNumber=&uploadId=`, `GET`, `DELETE ?uploadId=`; `GET /b?uploads` | parts | [`multipart`] |
//! | `POST /b/k?uploadId=` | compose them | [`complete`] |
//!
//! Any other sub-resource is 501 NotImplemented; none is ever taken for a listing or an object. A bucket stands in the
//! path, or before one of the names in `s3.domains` in the host, and nowhere else: no host is guessed at.
//!
//! What is computed when: see [`payload`]. Without access keys (on loopback alone) everyone may do everything: a
//! signature is neither demanded nor looked at, of any kind, while bodies in chunks are decoded and digests compared.
//!
//! What differs from Amazon, and why:
//! * no versions, ACLs, tags, locks or encryption: asking for the last three is refused, ACLs are read and mean nothing;
//! * the entity tag of a copy is that of its source, and that of a part copied by range is no MD5: nothing is read to
//!   make a copy, so nothing is hashed;
//! * a checksum is kept if the client or the upload has one; none is computed unasked;
//! * `Transfer-Encoding: chunked` needs no length.
//!
//! Order of judging: route, signature, head, then 100 Continue and the body. Lives on: the connection's shard.

mod attributes;
mod bucket;
mod complete;
mod copy;
mod delete;
pub mod fault;
mod fields;
mod follow;
mod get;
mod list;
mod multipart;
mod param;
pub mod payload;
mod put;
mod reply;
mod route;
pub mod sign;
mod sizes;
pub mod xml_in;

use crate::config;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::server::Handler;
use crate::observe::metrics::Dialect;
use crate::runtime::shard;
use crate::service::blob::Driver;
use payload::Trouble;
use reply::Call;
use route::{Request, Task};
use sign::Keys;
use std::cell::RefCell;
use std::rc::Rc;

/// What the configuration says about this dialect.
pub struct Settings {
    /// Who may sign; none means that everyone may do everything.
    pub keys: Keys,
    /// What hosts end with that begin with a bucket.
    pub domains: Vec<Box<str>>,
}

impl Settings {
    /// The part of the configuration that matters here.
    pub fn of(config: &config::S3) -> Self {
        let pairs = config.access_keys.iter().map(|pair| (pair.id.as_str().into(), pair.secret.clone()));
        let domains = config.domains.iter().map(|domain| domain.to_ascii_lowercase().into()).collect();
        Settings { keys: Keys::new(&config.region, pairs), domains }
    }
}

/// The dialect on one shard.
pub struct S3 {
    driver: Driver,
    settings: RefCell<Rc<Settings>>,
}

impl S3 {
    /// Speaks over `driver`.
    pub fn new(driver: Driver, settings: Settings) -> Self {
        S3 { driver, settings: RefCell::new(Rc::new(settings)) }
    }

    /// Takes other settings, from the next request on. Where everyone may do everything depends on where we listen,
    /// which does not change: that takes a restart.
    pub fn reload(&self, settings: Settings) {
        if settings.keys.is_empty() == self.settings().keys.is_empty() {
            self.settings.replace(Rc::new(settings));
        }
    }

    fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    async fn answer(&self, call: &mut Call<'_>) -> Result<(), Trouble> {
        let settings = self.settings();
        let request = Request::of(call.exchange.head(), &settings.domains);
        // What is broken in a body that nobody wants is refused, and what follows it is the next request.
        if !request.as_ref().is_ok_and(|request| request.task.takes_body()) {
            call.exchange.skip_body().await?;
        }
        let Request { task, bucket_in_host } = request?;
        let now = shard::current().wall().unix_seconds();
        let granted = sign::judge(&settings.keys, call.exchange.head(), bucket_in_host.as_deref(), now)?;
        let chain = granted.chain;
        match task {
            Task::ListBuckets => bucket::list(self, call).await,
            Task::CreateBucket(bucket) => bucket::create(self, call, &bucket, chain).await,
            Task::HeadBucket(bucket) => bucket::head(self, call, &bucket).await,
            Task::DeleteBucket(bucket) => bucket::delete(self, call, &bucket).await,
            Task::Location(bucket) => bucket::location(self, call, &bucket).await,
            Task::Versioning(bucket) => bucket::versioning(self, call, &bucket).await,
            Task::List(bucket, kind) => list::list(self, call, &bucket, kind).await,
            Task::ListUploads(bucket) => multipart::uploads(self, call, &bucket).await,
            Task::DeleteObjects(bucket) => delete::delete_many(self, call, &bucket, chain).await,
            Task::Put(name) => put::put(self, call, name, chain).await,
            Task::Copy(name) => copy::copy(self, call, name).await,
            Task::Get(name) => get::get(self, call, name).await,
            Task::Attributes(name) => attributes::attributes(self, call, name).await,
            Task::Delete(name) => delete::delete(self, call, name).await,
            Task::Begin(name) => multipart::begin(self, call, name).await,
            Task::PutPart(part) => multipart::put_part(self, call, part, chain).await,
            Task::CopyPart(part) => copy::copy_part(self, call, part).await,
            Task::ListParts(name, id) => multipart::parts(self, call, name, id).await,
            Task::Complete(name, id) => complete::complete(self, call, name, id, chain).await,
            Task::Abort(name, id) => multipart::abort(self, call, name, id).await,
        }
    }
}

impl Handler for S3 {
    const DIALECT: Dialect = Dialect::S3;

    async fn handle(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        let mut call = Call::new(exchange);
        match self.answer(&mut call).await {
            Ok(()) => Ok(()),
            Err(Trouble::Fault(fault)) => call.fault(&fault).await,
            Err(Trouble::Gone) => {
                call.exchange.abandon();
                Err(Gone)
            }
        }
    }
}

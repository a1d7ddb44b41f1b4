//! The store elsewhere, if anything that is served keeps its blobs there.
//!
//! Lives on: the main thread makes it; each shard has its own [`Remote`] from it.

use crate::config::Config;
use crate::net::tls::Trust;
use crate::runtime::{ShardId, shard};
use crate::service::blob::remote::{Readiness, Settings};
use crate::service::blob::{Blobs, Driver, Remote};
use std::rc::Rc;
use std::sync::Arc;

/// What every shard needs to reach it.
#[derive(Clone)]
pub struct Elsewhere {
    settings: Settings,
    readiness: Arc<Readiness>,
    serves_blobs: bool,
    serves_modules: bool,
}

/// The drivers of one shard.
pub struct Drivers {
    /// Of vblob and s3.
    pub blobs: Driver,
    /// Of the modules of ion.
    pub modules: Driver,
}

impl Elsewhere {
    /// What the configuration says; `None` when everything is kept here.
    pub fn of(config: &Config, trust: Option<Trust>) -> Option<Self> {
        let (serves_blobs, serves_modules) = config.remote_users();
        let remote = &config.remote.s3;
        let place = remote.place().filter(|_| serves_blobs || serves_modules)?;
        let settings = Settings {
            host: place.host.into(),
            port: place.port,
            authority: place.authority.into(),
            trust,
            region: remote.region.as_str().into(),
            key_id: remote.access_key_id.as_deref()?.into(),
            secret: remote.secret_access_key.as_ref()?.expose().into(),
            bucket_prefix: remote.bucket_prefix.as_str().into(),
        };
        Some(Elsewhere { settings, readiness: Arc::default(), serves_blobs, serves_modules })
    }

    /// Whether it has answered.
    pub fn readiness(&self) -> Arc<Readiness> {
        self.readiness.clone()
    }
}

impl Drivers {
    /// The drivers of the current shard; the first one asks the store until it answers.
    pub fn of(blobs: &Rc<Blobs>, elsewhere: Option<Elsewhere>) -> Self {
        let here = Driver::Segments(blobs.clone());
        let Some(Elsewhere { settings, readiness, serves_blobs, serves_modules }) = elsewhere else {
            return Drivers { blobs: here.clone(), modules: here };
        };
        let remote = Remote::new(settings, readiness);
        if shard::current().id() == ShardId(0) {
            remote.watch(serves_modules);
        }
        let there = Driver::S3(remote, blobs.clone());
        let choose = |is_there: bool| if is_there { there.clone() } else { here.clone() };
        Drivers { blobs: choose(serves_blobs), modules: choose(serves_modules) }
    }
}

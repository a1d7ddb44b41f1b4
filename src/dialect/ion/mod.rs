//! ion: blobs, documents and events of the modules of a chain, beside each module.
//!
//! A module reads what its parent left, leaves its own, and publishes events, under one shared secret in the header
//! `secret`. Default port 8080; a module may have a port of its own, where only its secret is right.
//!
//! | request | answer | in |
//! |---|---|---|
//! | `GET`, `HEAD /parent/blob?res=` | 200, 206, 304, 404, 412, 416 | [`blob`] |
//! | `GET`, `HEAD`, `PUT`, `DELETE /self/blob?res=` | the same; 200 and where it is; 200, or 404 | [`blob`] |
//! | `PUT /self/blob?res=&stage` | 200: not to be seen before it is committed | [`blob`] |
//! | `GET /self/blobs` | 200 and all names in JSON, in the order of their bytes | [`blob`] |
//! | `GET /parent/meta`, `GET`, `PUT /self/meta` | 200, 404; 200, 400, 413 | [`meta`] |
//! | `GET /meta` | 200 and the documents of the chain in the order of their commits | [`meta`] |
//! | `POST /events` | 201 once it is stored, 400, 413, 422 | [`event`] |
//! | `GET /events[?from=][&follow]` | 200 and the envelopes of the chain, a line each, or as server-sent events | [`follow`] |
//! | `POST /self/commit` | 201: blobs, document and events, all or none | [`commit`] |
//!
//! What differs from the server that this dialect is of, and why:
//! * names of blobs are names, not paths: any depth, `a` beside `a/b`, and 400 for a segment `.` or `..`;
//! * a blob appears whole or not at all; ranges, conditions, `HEAD` and `Content-Length` are there;
//! * documents are any JSON object or array and come back as they were put, but that a text in one that begins with the
//!   location of a blob of its module is read as the blob's name;
//! * an event is stored before it is answered, has an id, and can be read again;
//! * every refusal is one JSON shape, 405 says what is allowed, and `HEAD` is answered wherever `GET` is.
//!
//! Paths and methods are judged before the secret, the secret before anything of the body is read. Lives on: the
//! connection's shard.

mod answer;
mod auth;
mod blob;
mod body;
mod commit;
mod event;
mod follow;
mod json;
mod meta;
mod name;
mod route;

use crate::config;
use crate::net::http::Method;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::server::Handler;
use crate::observe::metrics::Dialect;
use crate::service::blob::{Blobs, Driver};
use crate::service::chain::{Chain, Identity, Module, Modules, digest_of};
use crate::service::stream::Streams;
use answer::{Halt, Refusal};
use route::Resource;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// What the configuration says about this dialect, beside its modules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest document, event or commit, in bytes.
    pub meta_max: usize,
    /// What the locations of blobs begin with.
    pub location_prefix: Box<str>,
}

impl Settings {
    /// The part of the configuration that matters here.
    pub fn of(config: &config::Ion) -> Self {
        Settings {
            meta_max: config.meta_limit.bytes() as usize,
            location_prefix: config.location_prefix.as_str().into(),
        }
    }
}

/// The modules of the configuration, which has looked at their ids and secrets.
pub fn configured(config: &config::Ion) -> Vec<Module> {
    let text = |text: &String| Box::from(text.as_str());
    let of = |module: &config::IonModule| {
        Some(Module {
            name: text(&module.name),
            identity: Identity {
                event: text(&module.event_id),
                parent: text(&module.parent_event_id),
                correlation: text(&module.correlation_id),
            },
            digest: digest_of(module.secret.as_ref()?.expose().as_bytes()),
            has_port: !module.listen.is_empty(),
            event_types: module.valid_event_types.iter().map(text).collect(),
            is_registered: false,
        })
    };
    config.module.iter().filter_map(of).collect()
}

/// The dialect on one shard.
pub struct Ion {
    blobs: Rc<Blobs>,
    driver: Driver,
    chain: Rc<Chain>,
    streams: Rc<Streams>,
    modules: Arc<Modules>,
    settings: RefCell<Rc<Settings>>,
}

impl Ion {
    /// Speaks over the services of this shard; `driver` says where the modules' blobs are. All shards have the same `modules`.
    pub fn new(
        blobs: Rc<Blobs>,
        driver: Driver,
        chain: Rc<Chain>,
        streams: Rc<Streams>,
        modules: Arc<Modules>,
        settings: Settings,
    ) -> Self {
        Ion { blobs, driver, chain, streams, modules, settings: RefCell::new(Rc::new(settings)) }
    }

    /// Takes other settings, from the next request on.
    pub fn reload(&self, settings: Settings) {
        self.settings.replace(Rc::new(settings));
    }

    fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Where a module's blob is, for people and for documents.
    fn location(&self, event: &str) -> String {
        format!("{}{event}/", self.settings().location_prefix)
    }

    async fn answer(&self, exchange: &mut Exchange, port: &Port) -> Result<(), Halt> {
        let resource = Resource::of(exchange.head().path()).ok_or(Refusal::NotFound)?;
        let method = exchange.head().method();
        if !resource.allows(method) {
            return Err(Refusal::MethodNotAllowed(resource.allowed()).into());
        }
        let module = auth::judge(&self.modules, port.of.borrow().as_deref(), exchange.head())?;
        let module: &Module = &module;
        if !matches!(method, Method::Put | Method::Post) {
            exchange.skip_body().await?;
        }
        let identity = &module.identity;
        match (resource, method) {
            (Resource::ParentBlob, _) => blob::read(self, exchange, &identity.parent).await,
            (Resource::OwnBlob, Method::Put) => blob::put(self, exchange, &identity.event).await,
            (Resource::OwnBlob, Method::Delete) => blob::delete(self, exchange, &identity.event).await,
            (Resource::OwnBlob, _) => blob::read(self, exchange, &identity.event).await,
            (Resource::OwnBlobs, _) => blob::list(self, exchange, &identity.event).await,
            (Resource::ParentMeta, _) => meta::read(self, exchange, &identity.parent).await,
            (Resource::OwnMeta, Method::Put) => meta::put(self, exchange, identity).await,
            (Resource::OwnMeta, _) => meta::read(self, exchange, &identity.event).await,
            (Resource::Meta, _) => meta::of_chain(self, exchange, &identity.correlation).await,
            (Resource::Events, Method::Post) => event::post(self, exchange, module).await,
            (Resource::Events, _) => follow::events(self, exchange, &identity.correlation).await,
            (Resource::Commit, _) => commit::commit(self, exchange, module).await,
        }
    }
}

/// One listener of the dialect.
pub struct Port {
    ion: Rc<Ion>,
    /// The event of the one module that this port is of; `None` for the one that modules share.
    of: RefCell<Option<Box<str>>>,
}

impl Port {
    /// A port of `ion` that modules share, or that one module has.
    pub fn new(ion: Rc<Ion>, of: Option<Box<str>>) -> Self {
        Port { ion, of: RefCell::new(of) }
    }

    /// Is the port of the module of `event` from the next request on.
    pub fn belong_to(&self, event: &str) {
        if self.of.borrow().as_deref() != Some(event) {
            self.of.replace(Some(event.into()));
        }
    }
}

impl Handler for Port {
    const DIALECT: Dialect = Dialect::Ion;

    async fn handle(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        match self.ion.answer(exchange, self).await {
            Ok(()) => Ok(()),
            Err(Halt::Gone) => Err(Gone),
            Err(Halt::Refused(refusal)) => answer::refuse(exchange, &refusal).await,
        }
    }
}

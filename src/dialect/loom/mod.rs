//! Loom: live log streams over HTTP.
//!
//! A producer posts a stream and keeps pumping; consumers read it from the first byte, while it grows and after
//! it ended. Default port 3060.
//!
//! | request | answer | in |
//! |---|---|---|
//! | `POST /stream`, `POST /stream/` | 201 at once under a new id; the answer's end is the promise | [`produce`] |
//! | `POST /stream/:id[?force=true]` | 201, or 409 when the id is taken | [`produce`] |
//! | `POST /stream/:id?resume=N&epoch=E` | 201: goes on with a stream that was cut, or 412 with where it is | [`produce`] |
//! | either, beyond a limit of the configuration | 413: too long; 429: too many streams; 507: too much in all. Once the 201 is out, the answer breaks off behind `{"error":"…"}` | [`produce`] |
//! | `GET`, `HEAD /stream/:id[?notail][&offset=N][&epoch=E]` | 200, 206, 404, 410 (retention took it), 412 or 416 | [`consume`] |
//! | `GET`, `HEAD /stream/:id?view=V[&stream=S]` | 200: framed output of a process as raw bytes, or as docker or kubelet read it | [`view`] |
//! | `DELETE /stream/:id` | 204, or 404 | [`delete`] |
//! | `DELETE /stream/build/:buildId` | 200 and the ids of all `build-<buildId>-…` that are gone | [`delete`] |
//! | `GET`, `HEAD /streams[?prefix][&start_after][&limit][&state]` | 200 and a page of streams | [`list`] |
//! | `GET /spy[?color]` | 200 and every stream that has a producer, for ever | [`spy`] |
//!
//! What differs from the server that this dialect is of, and why:
//! * conflicts and unknown ids are 409 and 404 as its documentation says, not 200; the JSON bodies are the same;
//! * `POST /stream` works without the last slash, and the header `Authentication` like `Authorization`: both are
//!   documented;
//! * the end of a stream is known, not guessed from silence: readers end at once, and only then;
//! * a stream that has ended comes with `Content-Length`, and every stream takes offsets and ranges;
//! * a producer that vanished shows as `X-Stream-State: interrupted`, in the head or as a trailer;
//! * ids are bytes; one that a header field cannot hold is percent-encoded there, with
//!   `X-Stream-Id-Encoding: percent` beside it;
//! * a POST to a replaced stream reads on and ends without the last chunk, so that its producer can tell;
//! * `/spy` passes bytes as they are, and starts its colours anew for every spy.
//!
//! Routing comes before authentication, so 404 and 405 for paths need no token. Lives on: the connection's shard.

mod answer;
mod auth;
mod consume;
mod delete;
mod list;
mod metadata;
mod param;
mod produce;
mod route;
mod select;
mod spy;
mod view;

use crate::config;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::server::Handler;
use crate::observe::metrics::Dialect;
use crate::service::stream::{Keeper, Keepers, Streams};
use route::{Resource, Task};
use std::cell::RefCell;
use std::rc::Rc;

/// What the configuration says about this dialect.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who has one of these may do everything; none means that everyone may.
    pub tokens: Vec<config::Secret>,
    /// What attached readers get when a producer vanishes.
    pub interrupted: config::Interrupted,
    /// Whose streams can be read here: our own, and those that others share.
    pub shown: Keepers,
}

impl Settings {
    /// The part of the configuration that matters here. Streams of `shared` are seen by every dialect.
    pub fn of(config: &config::Loom, shared: Keepers) -> Self {
        let (tokens, interrupted) = (config.tokens.clone(), config.interrupted);
        Settings { tokens, interrupted, shown: shared.and(Keeper::Loom) }
    }
}

/// The dialect on one shard.
pub struct Loom {
    streams: Rc<Streams>,
    settings: RefCell<Rc<Settings>>,
}

impl Loom {
    /// Speaks over `streams`.
    pub fn new(streams: Rc<Streams>, settings: Settings) -> Self {
        Loom { streams, settings: RefCell::new(Rc::new(settings)) }
    }

    /// Takes other settings, from the next request on.
    pub fn reload(&self, settings: Settings) {
        self.settings.replace(Rc::new(settings));
    }

    fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }
}

impl Handler for Loom {
    const DIALECT: Dialect = Dialect::Loom;

    async fn handle(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        // Only a producer's body means anything, and its answer must not wait for it. Every other one is read first:
        // what is broken in it is refused, and what follows it is the next request.
        let head = exchange.head();
        let task = Resource::of(head.path()).and_then(|resource| resource.task(head.method()));
        if !matches!(task, Some(Task::Create | Task::Produce(_))) {
            exchange.skip_body().await?;
        }
        let head = exchange.head();
        let resource = Resource::of(head.path());
        let Some(resource) = resource else {
            return answer::no_such_path(exchange).await;
        };
        let Some(task) = resource.task(head.method()) else {
            let allowed = resource.allowed();
            return answer::method_not_allowed(exchange, allowed).await;
        };
        if let Err(denied) = auth::judge(&self.settings().tokens, head) {
            return answer::denied(exchange, denied).await;
        }
        match task {
            Task::Create => produce::create(self, exchange).await,
            Task::Produce(id) => {
                let id = id.to_owned();
                produce::produce(self, exchange, id).await
            }
            Task::Consume(id) => {
                let request = consume::Request::of(head, id);
                consume::consume(self, exchange, request).await
            }
            Task::Delete(id) => {
                let id = id.to_owned();
                delete::delete(self, exchange, id).await
            }
            Task::DeleteBuild(build) => {
                let build = build.to_owned();
                delete::delete_build(self, exchange, build).await
            }
            Task::List => list::list(self, exchange).await,
            Task::Spy => spy::spy(self, exchange).await,
        }
    }
}

//! Micro: any program becomes part of a mesh of services over HTTP. Default port 8081.
//!
//! | request | answer | in |
//! |---|---|---|
//! | `GET /registry` | 200 and the names of all services | [`registry`] |
//! | `GET /registry?service=X` | 200 and every version of X with its nodes, or 404 | [`registry`] |
//! | either, as a websocket | what there is and what happens, as it happens | [`registry`] |
//! | `POST /registry[?ttl=10s]` | 200: these nodes are there, on all shards | [`registry`] |
//! | `DELETE /registry` | 200: these ids are gone | [`registry`] |
//! | `GET /broker?topic=T[&queue=Q]`, a websocket | messages out and in | [`broker`] |
//! | `POST /broker?topic=T` | 200: published | [`broker`] |
//!
//! Keys, their order, texts and codes are those of the sidecar that this dialect is of, because programs compare them.
//! What differs, and why:
//! * all nodes of a registration count, not only the first, and metadata is kept; an id belongs to one node;
//! * a lease that ends takes the node out, and a service without nodes is not there: no `"nodes":null`;
//! * `ttl` that is not positive is 400; one that is no duration is ignored, as ever;
//! * `PUT /registry` is 405, and `null` or a service without a name is an error instead of the end of the process;
//! * a watch takes `?service=`; whoever watches everything is first told what there is;
//! * what is published by `curl -d` keeps its body; fields that belong to the connection are not passed on;
//! * messages of one publisher arrive in order, and a subscriber that is too slow is told to come back later (1013);
//! * browsers may come from the daemon's own origin and from those in `cors`, which is empty unless it is set: what
//!   another page posts, or a websocket that it opens, is 403.
//!
//! The token is looked at before anything else. Lives on: the connection's shard.

mod answer;
mod broker;
mod guard;
mod json;
mod registry;

use crate::config;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::server::Handler;
use crate::observe::metrics::Dialect;
use crate::service::broker::Broker;
use crate::service::registry::Registry;
use answer::Reply;
use guard::Cors;
use std::cell::RefCell;
use std::rc::Rc;

/// The longest body that is read as JSON.
const BODY_MAX: usize = 4 << 20;
/// The longest message that a websocket's peer may send.
const MESSAGE_MAX: usize = 16 * 1024;

/// What the configuration says about this dialect.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who has one of these may do everything; none means that everyone may.
    pub tokens: Vec<config::Secret>,
    /// Foreign origins that browsers may come from.
    pub cors: Vec<String>,
}

impl Settings {
    /// The part of the configuration that matters here.
    pub fn of(config: &config::Micro) -> Self {
        Settings { tokens: config.tokens.clone(), cors: config.cors.clone() }
    }
}

/// The dialect on one shard.
pub struct Micro {
    registry: Rc<Registry>,
    broker: Rc<Broker>,
    settings: RefCell<Rc<Settings>>,
}

impl Micro {
    /// Speaks over `registry` and `broker`.
    pub fn new(registry: Rc<Registry>, broker: Rc<Broker>, settings: Settings) -> Self {
        Micro { registry, broker, settings: RefCell::new(Rc::new(settings)) }
    }

    /// Takes other settings, from the next request on.
    pub fn reload(&self, settings: Settings) {
        self.settings.replace(Rc::new(settings));
    }

    async fn answer(&self, exchange: &mut Exchange, settings: &Settings, cors: &Cors) -> Result<Reply, Gone> {
        if cors.is_preflight(exchange.head()) {
            return Ok(Reply::empty());
        }
        if let Some(refusal) = guard::judge(settings, exchange.head()) {
            return Ok(refusal);
        }
        let path = exchange.head().path().to_owned();
        match path.as_str() {
            "/registry" => registry::answer(self, exchange).await,
            "/broker" => broker::answer(self, settings, exchange).await,
            _ => Ok(match answer::cleaned(&path) {
                Some(clean) => Reply::moved(clean, exchange.head().query()),
                None => Reply::no_such_page(),
            }),
        }
    }
}

impl Handler for Micro {
    const DIALECT: Dialect = Dialect::Micro;

    async fn handle(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        let settings = self.settings.borrow().clone();
        let cors = Cors::of(&settings, exchange.head());
        let reply = self.answer(exchange, &settings, &cors).await?;
        reply.write(exchange, &cors).await
    }
}

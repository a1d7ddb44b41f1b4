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
//! | the same with `from=` or `durable=` | what was published and kept, then what comes | [`broker`] |
//! | `POST /broker?topic=T` | 200: published | [`broker`] |
//! | `POST /rpc` | the result of a call, or an error as an object | [`rpc`] |
//! | `POST /{service}/{method}` | the same, by path; with `handler = "rpc"` | [`rpc`] |
//! | anything else | what a service answers; with `handler = "proxy"` | [`proxy`] |
//! | `POST /` | the daemon's own `Debug.Health` and `Debug.Stats`, as a node answers them | [`debug`] |
//! | any `/stats`, where it is enabled | how all of this does, as a page or as JSON | [`stats`] |
//! | any `/health` | 200 while the application beside the daemon is well | [`health`] |
//!
//! Keys, their order, texts and codes are those of the sidecar that this dialect is of, because programs compare them.
//! What differs, and why:
//! * all nodes of a registration count, not only the first, and metadata is kept; an id belongs to one node;
//! * a lease that ends takes the node out, and a service without nodes is not there: no `"nodes":null`;
//! * `ttl` that is not positive is 400; one that is no duration is ignored, as ever;
//! * `PUT /registry` is 405, and `null` or a service without a name is an error instead of the end of the process;
//! * a watch takes `?service=`; whoever watches everything is first told what there is;
//! * an unknown service is 404; a body that is no JSON is 400, an empty one is `{}`;
//! * what certainly was not sent is tried at another node, within a budget, and so is what is passed on without a body, by
//!   an idempotent method, and was not answered at all; nothing else is sent twice;
//! * `Timeout` of the caller is heard, and a call to an `address` has the same time as others;
//! * what is published by `curl -d` keeps its body; fields that belong to the connection are not passed on;
//! * messages of one publisher arrive in order, and a subscriber that is too slow is told to come back later (1013);
//! * browsers may come from the daemon's own origin and from those in `cors`, which is empty unless it is set: what
//!   another page posts, or a websocket that it opens, is 403.
//!
//! The token is looked at before anything else. Lives on: the connection's shard.

mod answer;
mod broker;
mod debug;
mod fault;
mod fields;
mod guard;
mod health;
mod json;
mod proxy;
mod registry;
mod rpc;
mod stats;

use crate::config;
use crate::net::http::Method;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::server::Handler;
use crate::observe::metrics::{Dialect, ShardMetrics};
use crate::runtime::shard;
use crate::service::app::{App, Check};
use crate::service::broker::Broker;
use crate::service::kept::Kept;
use crate::service::pulse::Pulse;
use crate::service::registry::Registry;
use crate::service::rpc::{Policy, Rpc};
use answer::Reply;
use guard::Cors;
use stats::Stats;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The longest body that is read as JSON.
const BODY_MAX: usize = 4 << 20;
/// The longest message that a websocket's peer may send.
const MESSAGE_MAX: usize = 16 * 1024;

/// What the configuration says about this dialect.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who has one of these may do everything; none means that everyone may.
    pub tokens: Vec<config::Secret>,
    /// Foreign origins that browsers may come from.
    pub cors: Vec<String>,
    /// What the names of services begin with.
    pub namespace: String,
    /// Whether paths are passed on instead of being calls.
    pub passes_on: bool,
    /// How long a call may take.
    pub timeout: Duration,
    /// The longest that a caller may ask for, if that is more.
    pub timeout_max: Duration,
    /// The application beside the daemon.
    pub app: Option<App>,
    /// The name of the daemon's own service; empty for none.
    pub own_name: String,
}

impl Settings {
    /// The part of the configuration that matters here.
    pub fn of(config: &config::Micro) -> Self {
        Settings {
            tokens: config.tokens.clone(),
            cors: config.cors.clone(),
            namespace: config.namespace.clone(),
            passes_on: config.handler == config::Handler::Proxy,
            timeout: config.client_request_timeout.into(),
            timeout_max: config.max_request_timeout.into(),
            app: app(config),
            own_name: config.sidecar_name.clone(),
        }
    }
}

fn app(config: &config::Micro) -> Option<App> {
    let (name, address) = config.server_name.clone().zip(config.server_address.clone())?;
    let check = config.healthcheck_url.clone().map(|url| Check {
        url,
        interval: config.healthcheck_interval.into(),
        timeout: config.healthcheck_timeout.into(),
        healthy_after: config.healthcheck_healthy_threshold,
        unhealthy_after: config.healthcheck_unhealthy_threshold,
    });
    Some(App { name, address, check })
}

/// How calls are made, by the configuration.
pub fn policy(config: &config::Micro) -> Policy {
    Policy {
        attempts: config.client_retries,
        idle_max: config.client_pool_size as usize,
        idle_timeout: config.client_pool_ttl.into(),
    }
}

/// The dialect on one shard.
pub struct Micro {
    registry: Rc<Registry>,
    broker: Rc<Broker>,
    kept: Rc<Kept>,
    rpc: Rc<Rpc>,
    settings: RefCell<Rc<Settings>>,
    /// When this shard began to serve, in seconds since 1970.
    started: u64,
    /// Set where `/stats` is served.
    stats: OnceCell<Rc<Stats>>,
}

impl Micro {
    /// Speaks over these.
    pub fn new(
        registry: Rc<Registry>,
        broker: Rc<Broker>,
        kept: Rc<Kept>,
        rpc: Rc<Rpc>,
        settings: Settings,
    ) -> Self {
        let started = shard::current().wall().unix_millis() / 1000;
        Micro {
            registry,
            broker,
            kept,
            rpc,
            settings: RefCell::new(Rc::new(settings)),
            started,
            stats: OnceCell::new(),
        }
    }

    /// Serves `/stats`, from now on.
    pub fn serve_stats(&self, metrics: Vec<Arc<ShardMetrics>>, pulse: Rc<Pulse>) {
        assert!(self.stats.set(Stats::start(metrics, pulse)).is_ok(), "served once");
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
            "/registry" => registry::answer(self, settings, exchange).await,
            "/broker" => broker::answer(self, settings, exchange).await,
            "/rpc" => rpc::rpc(self, settings, exchange).await,
            "/" if exchange.head().method() == Method::Post => debug::answer(self, exchange).await,
            "/health" => health::answer(self, settings, exchange).await,
            "/stats" if self.stats.get().is_some() => {
                stats::answer(self, self.stats.get().expect("just seen"), exchange).await
            }
            _ => match answer::cleaned(&path) {
                Some(clean) => Ok(Reply::moved(clean, exchange.head().query())),
                None if answer::is_reserved(&path) => Ok(Reply::no_such_page()),
                None if settings.passes_on => proxy::pass(self, settings, exchange).await,
                None => rpc::path(self, settings, exchange).await,
            },
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

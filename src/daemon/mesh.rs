//! What micro needs on one shard: registry, topics and calls, with the dialect over them.
//!
//! The same whether the daemon serves everything or micro alone. Lives on: its shard.

use crate::config::Config;
use crate::dialect::micro::{self, Micro};
use crate::observe::metrics::ShardMetrics;
use crate::runtime::gate::Gate;
use crate::runtime::park::Unpark;
use crate::runtime::{ShardId, shard};
use crate::service::app::{self, App};
use crate::service::broker::{self, Broker};
use crate::service::kept::{self, Kept};
use crate::service::pulse::{self, Pulse, Report};
use crate::service::registry::{self, Registry};
use crate::service::rpc::Rpc;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Micro's services, started.
pub struct Mesh {
    /// The dialect.
    pub micro: Rc<Micro>,
    /// Topics that are kept.
    pub kept: Rc<Kept>,
    registry: Rc<Registry>,
    rpc: Rc<Rpc>,
    app: Option<App>,
    /// Answers other shards as long as this one serves.
    _pulse: Rc<Pulse>,
}

impl Mesh {
    /// Starts them on the current shard.
    pub fn start(
        config: &Config,
        registry: registry::Mailbox,
        broker: broker::Mailbox,
        kept: (kept::Mailbox, Arc<kept::Shared>),
        pulse: pulse::Mailbox,
        unparks: Vec<Arc<Unpark>>,
        all_metrics: &[Arc<ShardMetrics>],
    ) -> Self {
        let metrics = &all_metrics[shard::current().id().index()];
        let registry = Registry::start(registry, unparks.clone());
        let broker = Broker::start(broker, unparks.clone(), metrics.clone());
        let kept = Kept::start(kept.0, unparks.clone(), kept.1);
        kept.set_quota(config.micro.quota.bytes());
        let rpc = Rpc::new(registry.clone(), micro::policy(&config.micro), metrics.clone());
        let settings = micro::Settings::of(&config.micro);
        let app = settings.app.clone();
        let micro =
            Rc::new(Micro::new(registry.clone(), broker.clone(), kept.clone(), rpc.clone(), settings));
        let (calls, topics, readers) = (rpc.clone(), broker, kept.clone());
        let pulse = Pulse::start(pulse, unparks, move || {
            let mut report = Report::default();
            calls.report(&mut report);
            topics.report(&mut report);
            readers.report(&mut report);
            report
        });
        if config.micro.enable_stats {
            micro.serve_stats(all_metrics.to_vec(), pulse.clone());
        }
        Mesh { micro, kept, registry, rpc, app, _pulse: pulse }
    }

    /// On the first shard: puts the daemon's own service and the application beside it into the registry, the latter
    /// for as long as it is well and `gate` is not closing.
    pub fn register(&self, config: &Config, at: Option<SocketAddr>, gate: &Gate) {
        if !config.micro.enabled || shard::current().id() != ShardId(0) {
            return;
        }
        let (name, registry) = (config.micro.sidecar_name.clone(), self.registry.clone());
        if let Some(at) = at.filter(|_| !name.is_empty()) {
            shard::spawn("own service", async move { app::register_self(&registry, &name, at).await });
        }
        if let Some(app) = self.app.clone() {
            shard::spawn("application", app.keep(self.registry.clone(), self.rpc.client(), gate.clone()));
        }
    }
}

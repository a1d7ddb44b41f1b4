//! `[[proxy]]`: every connection of a listener is joined to one address.
//!
//! There is no syntax: not a byte is looked at. Lives on: the connection's shard.

use crate::config::Listen;
use crate::observe::metrics::{Dialect, ShardMetrics};
use crate::service::proxy::{self, Flow, Socket, Target};
use std::rc::Rc;
use std::sync::Arc;

/// One `[[proxy]]` on one shard.
pub struct Forward {
    to: Target,
    congestion: String,
    flow: Flow,
}

impl Forward {
    /// Joins to `to`.
    pub fn new(to: &Listen, congestion: &str, metrics: Arc<ShardMetrics>) -> Self {
        let to = match to {
            Listen::Tcp(addr) => Target::Tcp(*addr),
            Listen::Unix(path) => Target::Unix(path.clone()),
        };
        let flow = Flow { dialect: Dialect::Proxy, metrics, linger: None };
        Forward { to, congestion: congestion.to_owned(), flow }
    }

    /// Serves one connection until both directions have ended.
    pub async fn serve(self: Rc<Self>, client: Rc<Socket>) {
        proxy::forward(&client, &self.to, &self.congestion, &self.flow).await;
    }
}

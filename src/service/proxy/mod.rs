//! Joining two sockets.
//!
//! A proxied connection is one task with two directions ([`duplex`]); nothing about it is known to other shards.

mod duplex;

pub use duplex::{Flow, join, part};

/// What is joined, in the words of the ring.
pub use crate::runtime::ring::{dial::Target, socket::Socket};

use crate::runtime::ring::dial;
use crate::runtime::shard;
use std::rc::Rc;
use std::time::Duration;

/// How long whoever stands behind us may take to accept.
const DIAL: Duration = Duration::from_secs(10);

/// Connects to `target` and joins `client` to it. A target that cannot be reached closes the connection without a byte;
/// the next one tries again.
pub async fn forward(client: &Rc<Socket>, target: &Target, congestion: &str, flow: &Flow) {
    let backend = match Box::pin(dial::dial(target, congestion, shard::now() + DIAL)).await {
        Ok(backend) => backend,
        Err(error) => {
            flow.metrics.dials_failed.of(flow.dialect).inc();
            tracing::warn!(dialect = ?flow.dialect, %target, %error, "nobody answers behind us");
            return Box::pin(part(client)).await;
        }
    };
    let open = flow.metrics.joined_open.of(flow.dialect);
    open.inc();
    join(client, &backend, &[], flow).await;
    open.dec();
}

//! Serpentine: another daemon's socket, and the output of processes, behind one framed port.
//!
//! Who connects says `danger noodle` and one byte, the kind; what follows depends on it. Default port 8000.
//!
//! | kind | what follows | in |
//! |---|---|---|
//! | 0 | everything to and from the socket behind us, containerd's by default | [`crate::service::proxy`] |
//! | 1 | one byte of length and the path of a FIFO; then what processes write to it, until all have closed it | [`output`] |
//! | 65 | the same with two paths, for standard output and standard error; then frames that tell the two apart | [`output`] |
//! | anything else | the connection is closed | |
//!
//! Whoever speaks to containerd is root on its host: the preamble keeps out browsers and strays, nobody else. Hence
//! loopback by default, and unix sockets of mode 0600 with a list of users.
//!
//! What differs from the sidecar that this dialect is of, and why:
//! * a beginning that is wrong closes the connection at its first wrong byte, and one that never becomes whole after
//!   `handshake_timeout`: it waited for 13 bytes, for ever;
//! * a reset on one side is passed on as a reset, behind the bytes that came before it;
//! * the FIFO has mode 0600, in a directory of mode 0700, is open before its path is told, and never stays behind;
//! * output is kept: it is the stream `serpentine/<file>` as well, and the client that asked for it is one reader of it;
//! * a client that is gone, by a reset, a failed write or dead keepalives, holds nobody up: what comes then goes into the
//!   stream alone. One that merely says nothing more goes on receiving, as it did;
//! * what a client sends is read and dropped, so that the end of the output is not lost to a reset;
//! * descriptors that run out pause accepting: it ended.
//!
//! Lives on: the connection's shard.

mod output;

use crate::config::{self, Config};
use crate::net::frame;
use crate::observe::metrics::{Dialect, ShardMetrics};
use crate::runtime::shard;
use crate::service::output::{Outputs, Policy};
use crate::service::proxy::{self, Flow, Socket, Target};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The kind that leads to the socket behind us.
const PROXY: u8 = 0;
/// The kind that gets the output of processes.
const OUTPUT: u8 = 1;
/// The kind that gets it with standard output and standard error apart.
const FRAMED: u8 = 65;

/// What the configuration says about one listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kinds that are served.
    pub kinds: Vec<config::Kind>,
    /// What kind 0 leads to.
    pub backend: Target,
    /// Who may connect to a unix listener; none is whoever the file mode lets in.
    pub allow_uids: Vec<u32>,
    /// What happens while a client of an output is slow.
    pub output: Policy,
    /// How long the preamble may take.
    pub handshake_timeout: Duration,
    /// How long one direction outlives the other at rest; `None` is for ever.
    pub linger: Option<Duration>,
    /// Congestion control towards peers on loopback.
    pub congestion: String,
}

impl Settings {
    /// For the section's own listener, and for the further ones in their order.
    pub fn of_all(config: &Config) -> Vec<Self> {
        let section = &config.serpentine;
        let of = |kinds: &[config::Kind], backend: &Path| Settings {
            kinds: kinds.to_owned(),
            backend: Target::Unix(backend.to_owned()),
            allow_uids: section.allow_uids.clone(),
            output: match section.output {
                config::Output::Block => Policy::Block,
                config::Output::Spool => Policy::Spool,
                config::Output::DropOldest => Policy::DropOldest,
            },
            handshake_timeout: section.handshake_timeout.into(),
            linger: Some(section.linger.into()).filter(|linger: &Duration| !linger.is_zero()),
            congestion: config.net.loopback_congestion.clone(),
        };
        let further = section.listener.iter().map(|listener| {
            let kinds = if listener.kinds.is_empty() { &section.kinds } else { &listener.kinds };
            let named = listener.backend.as_ref().and_then(|name| section.backends.get(name));
            of(kinds, named.unwrap_or(&section.containerd_socket))
        });
        std::iter::once(of(&section.kinds, &section.containerd_socket)).chain(further).collect()
    }
}

/// The dialect at one listener of one shard.
pub struct Serpentine {
    outputs: Rc<Outputs>,
    settings: Settings,
    flow: Flow,
}

impl Serpentine {
    /// Serves as `settings` say.
    pub fn new(outputs: Rc<Outputs>, settings: Settings, metrics: Arc<ShardMetrics>) -> Self {
        let flow = Flow { dialect: Dialect::Serpentine, metrics, linger: settings.linger };
        Serpentine { outputs, settings, flow }
    }

    /// Serves one connection until it ends.
    pub async fn serve(self: Rc<Self>, client: Rc<Socket>) {
        if !self.is_allowed(&client) {
            return;
        }
        let deadline = shard::now() + self.settings.handshake_timeout;
        match frame::hello(&client, deadline).await {
            Ok(PROXY) if self.serves(PROXY) => {
                proxy::forward(&client, &self.settings.backend, &self.settings.congestion, &self.flow).await;
            }
            Ok(kind @ (OUTPUT | FRAMED)) if self.serves(kind) => {
                output::output(&self, &client, kind == FRAMED).await;
            }
            Ok(kind) => tracing::info!(kind, "a kind that is not served here"),
            Err(refused) => {
                self.flow.metrics.handshakes_refused.inc();
                tracing::debug!(?refused, "not one of ours");
            }
        }
    }

    fn serves(&self, kind: u8) -> bool {
        self.settings.kinds.contains(&config::Kind(kind))
    }

    fn is_allowed(&self, client: &Socket) -> bool {
        let Settings { allow_uids, .. } = &self.settings;
        match client.peer_uid() {
            Some(uid) if !allow_uids.is_empty() && !allow_uids.contains(&uid) => {
                tracing::warn!(uid, "this user may not connect; serpentine.allow_uids says who may");
                false
            }
            _ => true,
        }
    }
}

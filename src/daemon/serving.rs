//! One shard of the daemon: from its image to its end.
//!
//! Invariant: the shard reports ready only when its store, services and listeners stand, and lets go of the data
//! directory only when everything that was acknowledged is in it. Lives on: its shard.

use super::certificates::Keyring;
use super::control::{Control, Phase};
use super::late::Late;
use super::listen::Bound;
use super::ports::{Opened, Ports};
use super::remote::{Drivers, Elsewhere};
use super::{alone, mesh};
use crate::config::{self, Config, Listen, Share};
use crate::dialect::admin::{Admin, ModulePorts as _, Registrar, Stage, StoreState, Vitals};
use crate::dialect::forward::Forward;
use crate::dialect::ion::{self, Ion, Port};
use crate::dialect::loom::{Loom, Settings};
use crate::dialect::micro;
use crate::dialect::s3::{self, S3};
use crate::dialect::serpentine::{self, Serpentine};
use crate::dialect::vblob::accounts::Accounts;
use crate::dialect::vblob::{self, Vblob};
use crate::net::http::HeadLimits;
use crate::net::http::server::{self, Handler, Service};
use crate::net::listener::{self, Connections, Door};
use crate::observe::metrics::{Dialect, Label, ShardMetrics};
use crate::runtime::gate::Gate;
use crate::runtime::mailbox::Mesh;
use crate::runtime::park::Unpark;
use crate::runtime::ring::{self, socket::Socket};
use crate::runtime::{Shard, ShardId, blocking, preflight, shard, timer};
use crate::service::blob::{self, Blobs};
use crate::service::broker;
use crate::service::chain::{self, Chain, Module, Modules, Stamps};
use crate::service::kept;
use crate::service::output::Outputs;
use crate::service::pulse;
use crate::service::registry;
use crate::service::stream::{self, Keeper, Keepers, Retention, Streams};
use crate::storage::{Health, ShardImage, Store};
use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// Descriptors that are not connections: segments, rings, pipes, logs. Half of a limit that is smaller.
pub const DESCRIPTORS_RESERVED: u64 = 512;

/// How long a shard that has drained waits for a last checkpoint with the others, beyond their time to drain.
pub(super) const LAST_CHECKPOINT: Duration = Duration::from_secs(20);

/// Admin connections of one shard; beside the cap of the dialects.
const ADMIN_CONNECTIONS_MAX: usize = 128;

/// What one shard gets.
pub struct Parts {
    /// Its part of the store; none where nothing is stored from the start.
    pub image: Option<ShardImage>,
    /// Its ends of the meshes.
    pub mailboxes: Mailboxes,
    /// Its listening sockets, by section.
    pub sockets: Vec<(&'static str, Vec<Socket>)>,
    /// Orders from the main thread.
    pub control: Arc<Control>,
    /// The accounts of vblob.
    pub accounts: Arc<Accounts>,
    /// What listeners that speak TLS show.
    pub keyring: Arc<Keyring>,
    /// The store elsewhere, if one is used.
    pub elsewhere: Option<Elsewhere>,
    /// Where FIFOs of process output are made.
    pub fifo_dir: PathBuf,
    /// The modules of ion.
    pub modules: Arc<Modules>,
    /// Where those of them are served that have ports of their own.
    pub ports: Arc<Ports>,
    /// What orders commits of all shards.
    pub stamps: Stamps,
    /// Where micro listens, for who wants to find the daemon in the registry.
    pub micro_at: Option<SocketAddr>,
    /// What all shards share about topics that are kept.
    pub kept_shared: Arc<kept::Shared>,
    /// Opens the store where none was opened at the start.
    pub late: Option<Arc<Late>>,
    /// All shards' metrics.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// All shards' vitals.
    pub vitals: Vec<Arc<Vitals>>,
    /// Told once the shard accepts.
    pub serves: SyncSender<()>,
}

/// One shard's mailbox of each service.
pub struct Mailboxes {
    /// Of streams.
    pub streams: stream::Mailbox,
    /// Of blobs.
    pub blobs: blob::Mailbox,
    /// Of chains.
    pub chains: chain::Mailbox,
    /// Of the registry.
    pub registry: registry::Mailbox,
    /// Of topics.
    pub broker: broker::Mailbox,
    /// Of topics that are kept.
    pub kept: kept::Mailbox,
    /// Of what is shown of them.
    pub pulse: pulse::Mailbox,
}

impl Mailboxes {
    /// Those of every shard.
    pub fn of(shards: usize) -> Vec<Self> {
        let stored = Mesh::new(shards).into_iter().zip(Mesh::new(shards));
        let stored = stored.zip(Mesh::new(shards));
        let known = Mesh::new(shards).into_iter().zip(Mesh::new(shards));
        let known = known.zip(Mesh::new(shards).into_iter().zip(Mesh::new(shards)));
        let all = stored.zip(known);
        all.map(|(((streams, blobs), chains), ((registry, broker), (kept, pulse)))| Mailboxes {
            streams,
            blobs,
            chains,
            registry,
            broker,
            kept,
            pulse,
        })
        .collect()
    }
}

/// Hands each shard its parts, once.
#[derive(Clone)]
pub struct Handout {
    #[allow(clippy::disallowed_types, reason = "each shard takes its parts once, before it serves")]
    parts: Arc<std::sync::Mutex<Vec<Option<Parts>>>>,
}

impl Handout {
    /// Cuts everything into one piece per shard.
    pub fn new(
        images: Vec<Option<ShardImage>>,
        mailboxes: Vec<Mailboxes>,
        bound: Vec<Bound>,
        make: impl Fn(Option<ShardImage>, Mailboxes, Vec<(&'static str, Vec<Socket>)>) -> Parts,
    ) -> Self {
        assert_eq!(images.len(), mailboxes.len());
        let mut sockets: Vec<Vec<(&'static str, Vec<Socket>)>> = images.iter().map(|_| Vec::new()).collect();
        for section in bound {
            for (of_shard, listening) in sockets.iter_mut().zip(section.sockets) {
                of_shard.push((section.name, listening));
            }
        }
        let pieces = images.into_iter().zip(mailboxes).zip(sockets);
        let parts: Vec<_> =
            pieces.map(|((image, mailboxes), sockets)| Some(make(image, mailboxes, sockets))).collect();
        Handout { parts: Arc::new(parts.into()) }
    }

    /// The parts of shard `id`.
    pub fn take(&self, id: ShardId) -> Parts {
        let mut parts = self.parts.lock().expect("nothing panics under this lock");
        parts[id.index()].take().expect("each shard starts once")
    }
}

/// Serves until the daemon ends.
pub async fn serve(mut parts: Parts, unparks: Vec<Arc<Unpark>>) {
    match parts.image.take() {
        Some(image) => serve_all(parts, image, unparks).await,
        None => alone::serve(parts, unparks).await,
    }
}

async fn serve_all(parts: Parts, image: ShardImage, unparks: Vec<Arc<Unpark>>) {
    let shard = shard::current();
    let metrics = parts.metrics[shard.id().index()].clone();
    let vitals = parts.vitals[shard.id().index()].clone();
    let config = parts.control.config();
    let store = Store::start(image, metrics.clone());
    let peers = unparks.clone();
    store.keep_scrubbed();
    store.on_peer(Box::new(move |shard| peers[shard.index()].nudge()));
    let Mailboxes { streams, blobs, chains, registry, broker, kept, pulse } = parts.mailboxes;
    let streams = Streams::start(store.clone(), streams, unparks.clone(), metrics.clone());
    let blobs = Blobs::start(store.clone(), blobs, unparks.clone(), metrics.clone());
    let (of_blobs, of_streams) = (blobs.clone(), streams.clone());
    let chain = Chain::start(of_blobs, of_streams, store.clone(), parts.stamps, chains, unparks.clone());
    let mesh = mesh::Mesh::start(
        &config,
        registry,
        broker,
        (kept, parts.kept_shared),
        pulse,
        unparks,
        &parts.metrics,
    );
    if let Err(error) = blobs.load().await {
        // A shard that ends while others start: nobody serves then.
        tracing::error!(%error, "the containers could not be read");
        return;
    }
    bound_streams(&streams, &config);
    if let Err(error) = mesh.kept.opened(streams.clone()).await {
        tracing::error!(%error, "the topics could not be read");
        return;
    }
    let loom = Rc::new(Loom::new(streams.clone(), Settings::of(&config.loom, shared(&config))));
    let remote = parts.elsewhere.as_ref().map(Elsewhere::readiness);
    let drivers = Drivers::of(&blobs, parts.elsewhere);
    let s3 = Rc::new(S3::new(drivers.blobs.clone(), s3::Settings::of(&config.s3)));
    blobs.set_limits(blob_limits(&config));
    blobs.open_door(streams.clone(), shared(&config));
    let vblob = Vblob::new(drivers.blobs, vblob::Settings::of(&config.vblob), parts.accounts);
    let vblob = Rc::new(vblob);
    take_in_registered(&chain, &parts.modules, &parts.ports).await;
    let modules = parts.modules.clone();
    let ion = Ion::new(
        blobs.clone(),
        drivers.modules,
        chain.clone(),
        streams.clone(),
        parts.modules,
        ion::Settings::of(&config.ion),
    );
    let ion = Rc::new(ion);
    let admin = Registrar::new(chain.clone(), modules, parts.ports.clone(), &config.admin.tokens);
    let admin = Rc::new(Admin::new(parts.metrics, parts.vitals).with_modules(admin).with_remote(remote));
    let health = admin.clone();
    let doors = Doors::new(&config, &shard, metrics.clone(), parts.keyring.clone());
    // Health is asked for above all when the dialects are full or draining: it has doors of its own.
    let side_doors = Doors::for_admin(&config, metrics.clone(), parts.keyring);
    let outputs = Outputs::start(streams.clone(), parts.fifo_dir, metrics.clone());
    if config.serpentine.enabled {
        outputs.adopt().await;
    }
    let serpentine: Vec<_> = serpentine::Settings::of_all(&config)
        .into_iter()
        .map(|settings| Rc::new(Serpentine::new(outputs.clone(), settings, metrics.clone())))
        .collect();
    let proxies: Vec<_> = forwards(&config, &metrics);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (section, sockets) in parts.sockets {
        // Sections that come several times come in the order of the configuration.
        let index = *seen.entry(section).and_modify(|index| *index += 1).or_insert(0);
        for socket in sockets {
            match section {
                "admin" => side_doors.open(socket, admin.clone()),
                "loom" => doors.open(socket, loom.clone()),
                "micro" => doors.open(socket, mesh.micro.clone()),
                "s3" => doors.open(socket, s3.clone()),
                "ion" => doors.open(socket, Rc::new(Port::new(ion.clone(), None))),
                "vblob" => doors.open(socket, vblob.clone()),
                "serpentine" => {
                    let serpentine = serpentine[index].clone();
                    doors.open_joined(socket, Dialect::Serpentine, move |socket| {
                        serpentine.clone().serve(socket)
                    });
                }
                "proxy" => {
                    let forward = proxies[index].clone();
                    doors.open_joined(socket, Dialect::Proxy, move |socket| forward.clone().serve(socket));
                }
                other => unreachable!("{other} is bound but not built"),
            }
        }
    }
    let of_modules = Opened::new(parts.ports);
    of_modules.follow(&doors, &ion);
    let (behind, served) = (doors.clone(), ion.clone());
    let (put, bounded, micro) = (blobs.clone(), streams.clone(), mesh.micro.clone());
    let (seen, counted, of_shard) = (vitals.clone(), streams.clone(), store.clone());
    let beside = move || {
        seen.set_store(state_of(&of_shard));
        counted.count_messages();
        of_modules.follow(&behind, &served);
    };
    watch(&parts.control, &doors, &metrics, beside, move |config| {
        bound_streams(&bounded, config);
        loom.reload(Settings::of(&config.loom, shared(config)));
        micro.reload(micro::Settings::of(&config.micro));
        s3.reload(s3::Settings::of(&config.s3));
        put.set_limits(blob_limits(config));
        put.share(shared(config));
        vblob.reload(vblob::Settings::of(&config.vblob));
        ion.reload(ion::Settings::of(&config.ion));
        health.reload(config);
    });
    mesh.register(&config, parts.micro_at, &doors.gate);
    vitals.set_stage(Stage::Serving);
    let _ = parts.serves.send(());
    drop(parts.serves);

    doors.gate.closing().await;
    vitals.set_stage(Stage::Draining);
    streams.end_spies();
    doors.drain(config.drain_timeout.into()).await;
    chain.drain().await;
    mesh.kept.close(config.drain_timeout.into()).await;
    outputs.stop().await;
    streams.drain().await;
    blobs.drain().await;
    store.finish(Duration::from(config.drain_timeout) + LAST_CHECKPOINT).await;
    if let Err(error) = store.close().await {
        tracing::error!(%error, "the store did not close cleanly; recovery will settle it");
    }
    side_doors.gate.close();
    side_doors.cut.close();
    side_doors.gate.closed().await;
}

/// Has the modules served that were registered here before this start, at the ports that they asked for.
async fn take_in_registered(chain: &Chain, modules: &Modules, ports: &Arc<Ports>) {
    for (event, kept) in chain.registered_here() {
        let module = Module::registered(&event, &kept);
        if let Some(Err(taken)) = module.map(|module| modules.take_in(module)) {
            tracing::warn!(event = &*event, ?taken, "a registered module is not served");
            continue;
        }
        let listen: Vec<_> = kept.listen.iter().filter_map(|text| Listen::parse(text).ok()).collect();
        if listen.is_empty() {
            continue;
        }
        let (ports, of) = (ports.clone(), event.clone());
        let opened = blocking::run(move || ports.open(&of, &listen)).await;
        if let Err(error) = opened.unwrap_or_else(|error| Err(error.to_string())) {
            tracing::error!(event = &*event, "a registered module is not served: {error}");
        }
    }
}

/// What `[[proxy]]` joins, in its order.
fn forwards(config: &Config, metrics: &Arc<ShardMetrics>) -> Vec<Rc<Forward>> {
    let congestion = &config.net.loopback_congestion;
    let forward = |proxy: &config::Proxy| Forward::new(&proxy.to, congestion, metrics.clone());
    config.proxy.iter().map(|proxy| Rc::new(forward(proxy))).collect()
}

/// Whose streams are read through other dialects.
fn shared(config: &Config) -> Keepers {
    Keepers::of(config.doors.share.iter().map(|share| match share {
        Share::Loom => Keeper::Loom,
        Share::Serpentine => Keeper::Serpentine,
        Share::Ion => Keeper::Ion,
        Share::Micro => Keeper::Micro,
    }))
}

/// Has the streams of each dialect bounded and kept as its own section says.
fn bound_streams(streams: &Streams, config: &Config) {
    let some = |value: u64| Some(value).filter(|value| *value > 0);
    let (loom, serpentine) = (&config.loom, &config.serpentine);
    let limits = stream::Limits {
        stream_bytes: some(loom.max_stream_bytes.bytes()),
        streams: some(loom.max_streams),
        bytes: some(loom.quota.bytes()),
    };
    streams.set_limits(Keeper::Loom, limits);
    let limits = stream::Limits { bytes: some(serpentine.quota.bytes()), ..stream::Limits::default() };
    streams.set_limits(Keeper::Serpentine, limits);
    for (keeper, enabled, kept) in [
        (Keeper::Loom, loom.enabled, &loom.retention),
        (Keeper::Serpentine, serpentine.enabled, &serpentine.retention),
        (Keeper::Ion, config.ion.enabled, &config.ion.retention),
    ] {
        let rule = Retention {
            age_max: Some(kept.max_age.into()).filter(|age: &Duration| !age.is_zero()),
            bytes_max: some(kept.max_bytes.bytes()),
        };
        // A dialect that is not served deletes nothing.
        streams.retain(keeper, if enabled { rule } else { Retention::default() });
    }
}

/// What the doors to blobs allow them together: there is one store behind all of them, so the narrowest counts.
fn blob_limits(config: &Config) -> blob::Limits {
    let some = |value: u64| Some(value).filter(|value| *value > 0);
    let (vblob, s3, ion) = (&config.vblob, &config.s3, &config.ion);
    let quotas = [(vblob.enabled, vblob.quota), (s3.enabled, s3.quota), (ion.enabled, ion.quota)];
    blob::Limits {
        bytes: quotas.iter().filter(|(served, _)| *served).filter_map(|(_, quota)| some(quota.bytes())).min(),
        blobs: some(vblob.object_limit).filter(|_| vblob.enabled),
    }
}

/// The listeners of a shard and what bounds them.
pub(super) struct Doors {
    /// Closed when the daemon drains; every connection holds a pass.
    pub(super) gate: Gate,
    /// Closed when connections are cut.
    pub(super) cut: Gate,
    connections: Rc<Connections>,
    limits: HeadLimits,
    timeouts: (Duration, Duration),
    keyring: Arc<Keyring>,
    metrics: Arc<ShardMetrics>,
}

impl Doors {
    pub(super) fn new(
        config: &Config,
        shard: &Shard,
        metrics: Arc<ShardMetrics>,
        keyring: Arc<Keyring>,
    ) -> Rc<Self> {
        let limit = preflight::open_files_max();
        let descriptors = limit - DESCRIPTORS_RESERVED.min(limit / 2);
        let wanted = u64::from(config.limits.max_connections);
        let share = wanted.min(descriptors).div_ceil(shard.count() as u64);
        Self::with_room(share as usize, config, metrics, keyring)
    }

    pub(super) fn for_admin(config: &Config, metrics: Arc<ShardMetrics>, keyring: Arc<Keyring>) -> Rc<Self> {
        Self::with_room(ADMIN_CONNECTIONS_MAX, config, metrics, keyring)
    }

    fn with_room(
        connections_max: usize,
        config: &Config,
        metrics: Arc<ShardMetrics>,
        keyring: Arc<Keyring>,
    ) -> Rc<Self> {
        let limits = &config.limits;
        Rc::new(Doors {
            gate: Gate::new(),
            cut: Gate::new(),
            connections: Connections::new(connections_max),
            limits: HeadLimits {
                bytes_max: limits.max_header_bytes.bytes() as usize,
                ..HeadLimits::default()
            },
            timeouts: (limits.header_timeout.into(), limits.idle_timeout.into()),
            keyring,
            metrics,
        })
    }

    /// For requests.
    pub(super) fn open<H: Handler>(&self, socket: Socket, handler: Rc<H>) {
        shard::spawn("accept", self.accept(socket, handler));
    }

    /// For requests, until `gone` is closed. Connections that were accepted by then go on.
    pub(super) fn open_until<H: Handler>(&self, socket: Socket, handler: Rc<H>, gone: Gate) {
        let accept = self.accept(socket, handler);
        shard::spawn("accept", async move {
            let _ = listener::unless_closing(&gone, accept).await;
        });
    }

    fn accept<H: Handler>(&self, socket: Socket, handler: Rc<H>) -> impl Future<Output = ()> + use<H> {
        let (gate, metrics) = (self.gate.clone(), self.metrics.clone());
        let certificates = self.keyring.of(Dialect::VALUES[H::DIALECT.index()]);
        let service = Service::new(
            H::DIALECT,
            gate,
            self.cut.clone(),
            self.limits,
            self.timeouts,
            certificates,
            metrics,
        );
        let serve = move |socket| server::serve(socket, service.clone(), handler.clone());
        listener::accept(socket, self.door(H::DIALECT, 1), serve)
    }

    /// For connections that are joined to another descriptor.
    fn open_joined<F>(&self, socket: Socket, dialect: Dialect, serve: impl Fn(Rc<Socket>) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let serve = move |socket| serve(Rc::new(socket));
        shard::spawn("accept", listener::accept(socket, self.door(dialect, 2), serve));
    }

    fn door(&self, dialect: Dialect, descriptors: usize) -> Door {
        Door {
            dialect,
            gate: self.gate.clone(),
            cut: self.cut.clone(),
            connections: self.connections.clone(),
            descriptors,
            metrics: self.metrics.clone(),
        }
    }

    /// Lets connections finish for so long, then cuts them; resolves when all have ended.
    pub(super) async fn drain(&self, patience: Duration) {
        if timer::until(shard::now() + patience, self.finished()).await.is_none() {
            tracing::info!(descriptors = self.connections.taken(), "cutting what did not finish");
        }
        self.cut.close();
        self.gate.closed().await;
    }

    /// Resolves when every connection has ended or connections are to be cut.
    async fn finished(&self) {
        listener::unless_closing(&self.cut, self.gate.closed()).await;
    }
}

/// Looks once per turn for orders from the main thread, and keeps the vitals and counters that others read.
pub(super) fn watch(
    control: &Arc<Control>,
    doors: &Rc<Doors>,
    metrics: &Arc<ShardMetrics>,
    beside: impl Fn() + 'static,
    reconfigure: impl Fn(&Config) + 'static,
) {
    let (control, doors, metrics, ring) = (control.clone(), doors.clone(), metrics.clone(), ring::current());
    let generation = Cell::new(control.generation());
    let shard = shard::current();
    let seen = Rc::downgrade(&shard);
    shard.at_turn_start(Box::new(move || {
        let phase = control.phase();
        let moved = (phase >= Phase::Drain && !doors.gate.is_closing())
            || (phase == Phase::Stop && !doors.cut.is_closing());
        if phase >= Phase::Drain && !doors.gate.is_closing() {
            doors.gate.close();
        }
        if phase == Phase::Stop && !doors.cut.is_closing() {
            doors.cut.close();
        }
        if generation.replace(control.generation()) != control.generation() {
            reconfigure(&control.config());
        }
        beside();
        metrics.turns.inc();
        metrics.ring_sqes.add(ring.submitted() - metrics.ring_sqes.value());
        if let Some(shard) = seen.upgrade() {
            count_panics(&shard, &metrics);
        }
        moved
    }));
}

/// What the store of a shard can do now.
pub(super) fn state_of(store: &Store) -> StoreState {
    match store.health() {
        Health::Serving => StoreState::Serving,
        Health::Degraded => StoreState::Degraded,
        Health::ReadOnly => StoreState::ReadOnly,
    }
}

fn count_panics(shard: &Shard, metrics: &ShardMetrics) {
    let counted = metrics.panics_contained.value();
    metrics.panics_contained.add(shard.executor().panic_count() - counted);
}

//! Process output: FIFOs that somebody writes to, a stream of the store that keeps it, and one reader who asked for it.
//!
//! | who | has | decides |
//! |---|---|---|
//! | pump | the FIFOs and the stream's producer, in a task of the shard | when the output is over |
//! | client | a position in the stream | nothing; with [`Policy::Block`] the pump waits for it while it is there |
//! | anyone else | the stream, by its id `serpentine/<file>` | nothing |
//!
//! There is one FIFO, and the stream has its bytes; or one for standard output and one for standard error, and the stream
//! has frames that tell them apart ([`frame`], [`view`]).
//!
//! Bytes are copied into the store, not tee'd and spliced: their checksums have to see them, and a splice into a file
//! that grows costs more than the copy.
//!
//! Invariant: whoever writes to the FIFO never waits for somebody who is gone. A client that resets its connection, or
//! takes no more, lets the pump drain into the store until the last writer has closed; then, and only then, the FIFOs
//! go. FIFOs that are there when the daemon starts are read on, from where the store has them. Lives on: the shard that
//! accepted the client, or the one that a name falls to at the start.

mod client;
pub mod frame;
mod inflow;
mod pump;
pub mod view;

pub use client::Client;

use crate::observe::metrics::ShardMetrics;
use crate::runtime::gate::{Gate, Pass};
use crate::runtime::notify::{self, Notify};
use crate::runtime::ring::fifo::{self, Opened};
use crate::runtime::{blocking, shard};
use crate::service::stream::{
    Found, Id, Keeper, Open, OpenError, Producer, Resume, State, StoreError, Streams, Tail,
};
use bytes::Bytes;
use inflow::Inflow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What the ids of outputs begin with.
const PREFIX: &str = "serpentine/";
/// Digits of a FIFO's name. All of them say nothing, so nobody can tell one from another.
pub const NAME: usize = 32;
/// The same where the names of two FIFOs differ in what follows.
const FRAMED_NAME: usize = NAME - 4;
/// What is kept beside a stream of frames, and beside no other of ours.
const FRAMED: &[u8] = br#"{"output":"framed"}"#;

/// Whether the bytes of a stream are frames of an output.
pub fn is_framed(found: &Found) -> bool {
    Keeper::of(&found.id) == Keeper::Serpentine && found.metadata == FRAMED
}

/// What happens while a client is connected and slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The writer waits once the client is [`BEHIND_MAX`] behind.
    Block,
    /// Nobody waits: the client has what is in the store, at its own speed.
    Spool,
    /// Nobody waits, and a client that is further behind than [`BEHIND_MAX`] is given the newest bytes next.
    DropOldest,
}

/// How far a client may be behind before its policy says what happens.
pub const BEHIND_MAX: u64 = 1 << 20;

/// The outputs of one shard.
pub struct Outputs {
    streams: Rc<Streams>,
    dir: PathBuf,
    metrics: Arc<ShardMetrics>,
    /// One pass per pump.
    pumping: Gate,
    /// Whether it was said that the directory is on a disk.
    has_warned: Cell<bool>,
}

/// One output, as its pump and its client share it.
struct Output {
    id: Id,
    inflow: Inflow,
    tail: Arc<Tail>,
    policy: Policy,
    /// How far the client has come; nothing once it is gone.
    client_at: Cell<Option<u64>>,
    /// Whether it has said that it sends no more: then nobody opens what nobody has opened yet.
    client_ended: Cell<bool>,
    over: Cell<Option<Over>>,
    changed: Notify,
}

/// How an output ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// All of it is in the store.
    Whole,
    /// The store took no more, or the daemon ends.
    Cut,
}

/// Why there is no output.
#[derive(Debug)]
pub enum BeginError {
    /// The FIFOs could not be made.
    Fifo(PathBuf, io::Error),
    /// The stream could not be opened.
    Stream(OpenError),
}

impl Outputs {
    /// Makes FIFOs in `dir`, which is made when the first one is.
    pub fn start(streams: Rc<Streams>, dir: PathBuf, metrics: Arc<ShardMetrics>) -> Rc<Self> {
        Rc::new(Outputs { streams, dir, metrics, pumping: Gate::new(), has_warned: Cell::new(false) })
    }

    /// Begins an output: when this resolves, its FIFOs are open for reading and have a stream. With `is_framed` there are
    /// two, for standard output and standard error.
    pub async fn begin(self: &Rc<Self>, policy: Policy, is_framed: bool) -> Result<Client, BeginError> {
        let (answerer, answer) = notify::answer();
        let outputs = self.clone();
        // In a task of the shard: a client that goes away on the way leaves no FIFO behind.
        shard::spawn("begin an output", async move {
            answerer.give(outputs.begin_here(policy, is_framed).await);
        });
        answer.await.unwrap_or(Err(BeginError::Stream(StoreError::Closing.into())))
    }

    async fn begin_here(self: &Rc<Self>, policy: Policy, is_framed: bool) -> Result<Client, BeginError> {
        let pass = self.pumping.enter().ok_or(BeginError::Stream(StoreError::Closing.into()))?;
        let shard = shard::current();
        let mut name = format!("{:016x}{:016x}", shard.entropy().next(), shard.entropy().next());
        if is_framed {
            // What tells the FIFOs apart is part of the same length.
            name.truncate(FRAMED_NAME);
        }
        let (dir, stem) = (self.dir.clone(), self.dir.join(&name));
        let (made, fifos) = (stem.clone(), inflow::fifos_of(&stem, is_framed));
        let opened = blocking::run(move || {
            fifo::make_dir(&dir)?;
            Ok((Opened::make(&made, &fifos)?, fifo::is_in_memory(&dir)?))
        });
        let opened: io::Result<(Opened, bool)> = opened.await.and_then(|made| made);
        let (opened, is_in_memory) = opened.map_err(|error| BeginError::Fifo(stem.clone(), error))?;
        if !is_in_memory && !self.has_warned.replace(true) {
            tracing::warn!(
                dir = %self.dir.display(),
                "serpentine.fifo_dir lies on a disk: output that is on its way may hold shards up there; a directory in memory does not, such as one below /run"
            );
        }
        let metadata = Bytes::from_static(if is_framed { FRAMED } else { b"" });
        match self.streams.open(id_of(&name), Open { metadata, ..Open::default() }).await {
            Ok(producer) => {
                let (fifos, landing) = opened.here();
                let output = self.run(Inflow::new(fifos, landing), producer, policy, Some(0), pass);
                Ok(Client::new(self.streams.clone(), output))
            }
            Err(error) => {
                drop(opened);
                self.remove(stem.clone(), inflow::fifos_of(&stem, is_framed)).await;
                Err(BeginError::Stream(error))
            }
        }
    }

    /// Takes over the FIFOs that an earlier daemon left, as far as they fall to this shard. Resolves once their read
    /// ends are open.
    pub async fn adopt(self: &Rc<Self>) {
        let dir = self.dir.clone();
        let listed = blocking::run(move || fifo::list(&dir, names_of)).await.and_then(|listed| listed);
        let names = match listed {
            Ok(names) => names,
            Err(error) => {
                return tracing::warn!(dir = %self.dir.display(), %error, "FIFOs cannot be looked for");
            }
        };
        let mut stems: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for name in names {
            stems.entry(stem_of(&name).to_owned()).or_default().push(self.dir.join(name));
        }
        for (stem, mut fifos) in stems.into_iter().filter(|(stem, _)| self.falls_here(stem)) {
            // As they were told: standard output first.
            fifos.sort_by_key(|path| path.extension().is_some_and(|suffix| suffix == "err"));
            let adopted = self.dir.join(&stem);
            match blocking::run(move || Opened::adopt(&adopted, &fifos)).await.and_then(|opened| opened) {
                Ok(opened) => self.go_on(&stem, opened).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => tracing::warn!(fifo = %stem, %error, "a FIFO cannot be read on"),
            }
        }
    }

    fn falls_here(&self, name: &str) -> bool {
        let shard = shard::current();
        let is_ours = matches!(name.len(), NAME | FRAMED_NAME);
        let number = u128::from_str_radix(name, 16).ok().filter(|_| is_ours);
        number.is_some_and(|number| number % shard.count() as u128 == shard.id().index() as u128)
    }

    /// Nobody can have waited for this output since the crash, so there is no client. One of which our store knows nothing
    /// is another daemon's, which is not running, unless nothing was ever done with it.
    async fn go_on(self: &Rc<Self>, name: &str, opened: Opened) {
        let Some(pass) = self.pumping.enter() else { return };
        let (fifos, landing) = opened.here();
        let inflow = match Inflow::adopted(fifos, landing) {
            Ok(inflow) => inflow,
            Err(error) => return tracing::warn!(%name, %error, "an output cannot be gone on with"),
        };
        let found = match self.streams.find(&id_of(name)).await {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%name, %error, "an output cannot be gone on with"),
        };
        let producer = match found {
            Some(found) if found.tail.state() != State::Complete => {
                let (offset, epoch) = (found.tail.published(), found.tail.epoch());
                self.streams.resume(found.id, Resume { offset, epoch, announced: None }).await
            }
            None if inflow.landed() > 0 || inflow.has_writer() => return,
            _ => return self.remove(inflow.stem(), inflow.paths()).await,
        };
        match producer {
            Ok(producer) => {
                let (from, landed) = (producer.start(), inflow.landed());
                tracing::info!(id = %producer.id(), from, landed, "output goes on");
                self.metrics.outputs_adopted.inc();
                self.run(inflow, producer, Policy::Spool, None, pass);
            }
            Err(error) => tracing::warn!(%name, %error, "an output cannot be gone on with"),
        }
    }

    fn run(
        self: &Rc<Self>,
        inflow: Inflow,
        producer: Producer,
        policy: Policy,
        client_at: Option<u64>,
        pass: Pass,
    ) -> Rc<Output> {
        let output = Rc::new(Output {
            id: producer.id().clone(),
            inflow,
            tail: producer.tail().clone(),
            policy,
            client_at: Cell::new(client_at),
            client_ended: Cell::new(false),
            over: Cell::new(None),
            changed: Notify::new(),
        });
        shard::spawn("pump", self.clone().pump(output.clone(), producer, pass));
        output
    }

    /// Takes no new outputs and lets the FIFOs be; resolves once no pump runs. The next daemon reads on.
    pub async fn stop(&self) {
        self.pumping.close();
        self.pumping.closed().await;
    }

    async fn remove(&self, stem: PathBuf, fifos: Vec<PathBuf>) {
        let removed = stem.clone();
        let removed = blocking::run(move || fifo::remove(&removed, &fifos)).await.and_then(|removed| removed);
        note_unremoved(&stem, removed);
    }

    /// Removes the FIFO of one stream while the other one goes on.
    async fn unlink(&self, path: PathBuf) {
        let unlinked = path.clone();
        let unlinked = blocking::run(move || fifo::unlink(&unlinked)).await.and_then(|unlinked| unlinked);
        note_unremoved(&path, unlinked);
    }
}

fn note_unremoved(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(fifo = %path.display(), %error, "a FIFO cannot be removed");
    }
}

/// What the name of a FIFO and of its file begin with.
fn stem_of(name: &str) -> &str {
    let suffix = inflow::FRAMED.iter().find_map(|(suffix, _)| name.strip_suffix(suffix));
    suffix.unwrap_or(name)
}

/// Which FIFOs a file of this stem may belong to.
fn names_of(stem: &str) -> Vec<String> {
    let framed = inflow::FRAMED.iter().map(|(suffix, _)| format!("{stem}{suffix}"));
    framed.chain([stem.to_owned()]).collect()
}

fn id_of(name: &str) -> Id {
    Id::new(format!("{PREFIX}{name}").as_bytes()).expect("short enough")
}

impl Output {
    /// Whether the writer has to wait for the client.
    fn holds_back(&self) -> bool {
        let behind = |at: u64| self.tail.published().saturating_sub(at) >= BEHIND_MAX;
        self.policy == Policy::Block && self.client_at.get().is_some_and(behind)
    }
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BeginError::Fifo(path, error) => {
                write!(f, "the FIFOs of {} cannot be made: {error}", path.display())
            }
            BeginError::Stream(error) => write!(f, "its stream cannot be opened: {error}"),
        }
    }
}

impl std::error::Error for BeginError {}

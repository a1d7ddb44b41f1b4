//! Process output: a FIFO that somebody writes to, a stream of the store that keeps it, and one reader who asked for it.
//!
//! | who | has | decides |
//! |---|---|---|
//! | pump | the FIFO and the stream's producer, in a task of the shard | when the output is over |
//! | client | a position in the stream | nothing; with [`Policy::Block`] the pump waits for it while it is there |
//! | anyone else | the stream, by its id `serpentine/<file>` | nothing |
//!
//! Bytes are copied into the store, not tee'd and spliced: their checksums have to see them, and a splice into a file
//! that grows costs more than the copy.
//!
//! Invariant: whoever writes to the FIFO never waits for somebody who is gone. A client that resets its connection, or
//! takes no more, lets the pump drain into the store until the last writer has closed; then, and only then, the FIFO
//! goes. A FIFO that is there when the daemon starts is read on, from where the store has it. Lives on: the shard that
//! accepted the client, or the one that a name falls to at the start.

mod client;
mod pump;

pub use client::Client;

use crate::observe::metrics::ShardMetrics;
use crate::runtime::gate::{Gate, Pass};
use crate::runtime::notify::{self, Notify};
use crate::runtime::ring::fifo::{self, Fifo, Opened, Take};
use crate::runtime::{blocking, shard};
use crate::service::stream::{Id, Open, OpenError, Producer, Resume, State, StoreError, Streams, Tail};
use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// What the ids of outputs begin with.
const PREFIX: &str = "serpentine/";
/// Digits of a FIFO's name. All of them say nothing, so nobody can tell one from another.
pub const NAME: usize = 32;

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
}

/// One output, as its pump and its client share it.
struct Output {
    id: Id,
    fifo: Rc<Fifo>,
    tail: Arc<Tail>,
    policy: Policy,
    /// How far the client has come; nothing once it is gone.
    client_at: Cell<Option<u64>>,
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
    /// The FIFO could not be made.
    Fifo(PathBuf, io::Error),
    /// The stream could not be opened.
    Stream(OpenError),
}

impl Outputs {
    /// Makes FIFOs in `dir`, which is made when the first one is.
    pub fn start(streams: Rc<Streams>, dir: PathBuf, metrics: Arc<ShardMetrics>) -> Rc<Self> {
        Rc::new(Outputs { streams, dir, metrics, pumping: Gate::new() })
    }

    /// Begins an output: when this resolves, its FIFO is open for reading and has a stream.
    pub async fn begin(self: &Rc<Self>, policy: Policy) -> Result<Client, BeginError> {
        let (answerer, answer) = notify::answer();
        let outputs = self.clone();
        // In a task of the shard: a client that goes away on the way leaves no FIFO behind.
        shard::spawn("begin an output", async move { answerer.give(outputs.begin_here(policy).await) });
        answer.await.unwrap_or(Err(BeginError::Stream(StoreError::Closing.into())))
    }

    async fn begin_here(self: &Rc<Self>, policy: Policy) -> Result<Client, BeginError> {
        let pass = self.pumping.enter().ok_or(BeginError::Stream(StoreError::Closing.into()))?;
        let shard = shard::current();
        let name = format!("{:016x}{:016x}", shard.entropy().next(), shard.entropy().next());
        let (dir, path) = (self.dir.clone(), self.dir.join(&name));
        let made = path.clone();
        let opened = blocking::run(move || fifo::make_dir(&dir).and_then(|()| Opened::make(&made))).await;
        let opened = opened.and_then(|made| made).map_err(|error| BeginError::Fifo(path.clone(), error))?;
        match self.streams.open(id_of(&name), Open::default()).await {
            Ok(producer) => {
                let output = self.run(opened.here(), producer, policy, Some(0), pass);
                Ok(Client::new(self.streams.clone(), output))
            }
            Err(error) => {
                drop(opened);
                self.remove(path).await;
                Err(BeginError::Stream(error))
            }
        }
    }

    /// Takes over the FIFOs that an earlier daemon left, as far as they fall to this shard. Resolves once their read
    /// ends are open.
    pub async fn adopt(self: &Rc<Self>) {
        let dir = self.dir.clone();
        let names = match blocking::run(move || fifo::list(&dir)).await.and_then(|listed| listed) {
            Ok(names) => names,
            Err(error) => {
                return tracing::warn!(dir = %self.dir.display(), %error, "FIFOs cannot be looked for");
            }
        };
        for name in names.into_iter().filter(|name| self.falls_here(name)) {
            let path = self.dir.join(&name);
            let adopted = path.clone();
            match blocking::run(move || Opened::adopt(&adopted)).await.and_then(|opened| opened) {
                Ok(opened) => self.go_on(&name, opened.here()).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => tracing::warn!(fifo = %path.display(), %error, "a FIFO cannot be read on"),
            }
        }
    }

    fn falls_here(&self, name: &str) -> bool {
        let shard = shard::current();
        let number = u128::from_str_radix(name, 16).ok().filter(|_| name.len() == NAME);
        number.is_some_and(|number| number % shard.count() as u128 == shard.id().index() as u128)
    }

    /// Nobody can have waited for this output since the crash, so there is no client. One of which our store knows nothing
    /// is another daemon's, which is not running, unless nothing was ever done with it.
    async fn go_on(self: &Rc<Self>, name: &str, fifo: Rc<Fifo>) {
        let Some(pass) = self.pumping.enter() else { return };
        let found = match self.streams.find(id_of(name)).await {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%name, %error, "an output cannot be gone on with"),
        };
        let producer = match found {
            Some(found) if found.tail.state() != State::Complete => {
                let (offset, epoch) = (found.tail.published(), found.tail.epoch());
                self.streams.resume(found.id, Resume { offset, epoch, announced: None }).await
            }
            None if fifo.taken() > 0 || !matches!(fifo.take(), Ok(Take::NoWriter)) => return,
            _ => return self.remove(fifo.path().to_owned()).await,
        };
        match producer {
            Ok(producer) => {
                tracing::info!(id = %producer.id(), from = producer.start(), taken = fifo.taken(), "output goes on");
                self.metrics.outputs_adopted.inc();
                self.run(fifo, producer, Policy::Spool, None, pass);
            }
            Err(error) => tracing::warn!(%name, %error, "an output cannot be gone on with"),
        }
    }

    fn run(
        self: &Rc<Self>,
        fifo: Rc<Fifo>,
        producer: Producer,
        policy: Policy,
        client_at: Option<u64>,
        pass: Pass,
    ) -> Rc<Output> {
        let output = Rc::new(Output {
            id: producer.id().clone(),
            fifo,
            tail: producer.tail().clone(),
            policy,
            client_at: Cell::new(client_at),
            over: Cell::new(None),
            changed: Notify::new(),
        });
        shard::spawn("pump", self.clone().pump(output.clone(), producer, client_at.is_none(), pass));
        output
    }

    /// Takes no new outputs and lets the FIFOs be; resolves once no pump runs. The next daemon reads on.
    pub async fn stop(&self) {
        self.pumping.close();
        self.pumping.closed().await;
    }

    async fn remove(&self, path: PathBuf) {
        let removed = path.clone();
        if let Err(error) = blocking::run(move || fifo::remove(&removed)).await.and_then(|removed| removed) {
            tracing::warn!(fifo = %path.display(), %error, "a FIFO cannot be removed");
        }
    }
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
            BeginError::Fifo(path, error) => write!(f, "the FIFO {} cannot be made: {error}", path.display()),
            BeginError::Stream(error) => write!(f, "its stream cannot be opened: {error}"),
        }
    }
}

impl std::error::Error for BeginError {}

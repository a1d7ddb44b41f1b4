//! A store that is opened when it is needed: by the first topic that is to be kept, where micro is served alone.
//!
//! One shard opens it, in a worker; then every shard starts its part, and whoever waits goes on once all have. What
//! cannot be opened is tried again by the next who needs it.
//! Invariant: a shard starts its part once. Lives on: shared by all shards; [`Depot`] on each.

use crate::config::Config;
use crate::observe::metrics::ShardMetrics;
use crate::runtime::notify::Notify;
use crate::runtime::park::Unpark;
use crate::runtime::{Disk, blocking, shard};
use crate::service::kept::{Kept, Later, Opening};
use crate::service::stream::{self, Streams};
use crate::storage::{self, ShardImage, Store};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The store of a daemon that began without one.
pub struct Late {
    disk: Arc<dyn Disk>,
    config: Arc<Config>,
    options: storage::Options,
    /// Counts what happened to `state`.
    generation: AtomicU64,
    #[allow(clippy::disallowed_types, reason = "taken a few times in the life of the daemon")]
    state: std::sync::Mutex<State>,
    /// Shards that serve from it.
    started: AtomicUsize,
}

enum State {
    Closed,
    Opening,
    /// Each shard takes its part.
    Open(Vec<Option<ShardImage>>),
    /// Why it could not be opened.
    Failed(String),
}

impl Late {
    /// Nothing is opened yet.
    pub fn new(disk: Arc<dyn Disk>, config: Arc<Config>, options: storage::Options) -> Self {
        Late {
            disk,
            config,
            options,
            generation: AtomicU64::new(0),
            state: State::Closed.into(),
            started: AtomicUsize::new(0),
        }
    }

    fn was_there(&self) -> bool {
        self.config.data_dir.join(storage::LOCK).exists()
    }

    /// Whether the caller is to open it.
    fn claim(&self) -> bool {
        let mut state = self.state.lock().expect("nothing panics under this lock");
        let is_free = matches!(*state, State::Closed | State::Failed(_));
        if is_free {
            *state = State::Opening;
        }
        is_free
    }

    fn set(&self, new: State, unparks: &[Arc<Unpark>]) {
        *self.state.lock().expect("nothing panics under this lock") = new;
        self.moved(unparks);
    }

    fn moved(&self, unparks: &[Arc<Unpark>]) {
        self.generation.fetch_add(1, Ordering::Release);
        unparks.iter().for_each(|unpark| unpark.nudge());
    }

    fn take(&self, shard: usize) -> Option<ShardImage> {
        match &mut *self.state.lock().expect("nothing panics under this lock") {
            State::Open(images) => images[shard].take(),
            _ => None,
        }
    }

    fn failure(&self) -> Option<String> {
        match &*self.state.lock().expect("nothing panics under this lock") {
            State::Failed(why) => Some(why.clone()),
            _ => None,
        }
    }
}

/// One shard's part of it.
pub struct Depot {
    late: Arc<Late>,
    unparks: Vec<Arc<Unpark>>,
    metrics: Arc<ShardMetrics>,
    kept: Rc<Kept>,
    mailbox: RefCell<Option<stream::Mailbox>>,
    stored: OnceCell<(Rc<Store>, Rc<Streams>)>,
    seen: Cell<u64>,
    moved: Notify,
}

impl Depot {
    /// Has `kept` find its streams here.
    pub fn start(
        late: Arc<Late>,
        unparks: Vec<Arc<Unpark>>,
        metrics: Arc<ShardMetrics>,
        kept: Rc<Kept>,
        mailbox: stream::Mailbox,
    ) -> Rc<Self> {
        let was_there = late.was_there();
        let depot = Rc::new(Depot {
            late,
            unparks,
            metrics,
            kept,
            mailbox: RefCell::new(Some(mailbox)),
            stored: OnceCell::new(),
            seen: Cell::new(0),
            moved: Notify::new(),
        });
        let opens = depot.clone();
        let open = Box::new(move || -> Opening { Box::pin(opens.clone().open()) });
        depot.kept.set_later(Later { was_there, open });
        let looks = depot.clone();
        shard::current().at_turn_start(Box::new(move || looks.look()));
        depot
    }

    /// The store and the streams, once they are opened.
    pub fn stored(&self) -> Option<&(Rc<Store>, Rc<Streams>)> {
        self.stored.get()
    }

    /// Once per turn, one load when nothing changed.
    fn look(self: &Rc<Self>) -> bool {
        let generation = self.late.generation.load(Ordering::Acquire);
        if self.seen.replace(generation) == generation {
            return false;
        }
        if let Some(image) = self.late.take(shard::current().id().index()) {
            shard::spawn("late store", self.clone().serve(image));
        }
        self.moved.notify_all();
        true
    }

    async fn serve(self: Rc<Self>, image: ShardImage) {
        let mailbox = self.mailbox.take().expect("a shard starts its part once");
        let store = Store::start(image, self.metrics.clone());
        let peers = self.unparks.clone();
        store.keep_scrubbed();
        store.on_peer(Box::new(move |shard| peers[shard.index()].nudge()));
        let streams = Streams::start(store.clone(), mailbox, self.unparks.clone(), self.metrics.clone());
        assert!(self.stored.set((store, streams.clone())).is_ok(), "a shard starts its part once");
        if let Err(error) = self.kept.opened(streams).await {
            tracing::error!(%error, "the topics could not be read");
            self.late.set(State::Failed(format!("the topics could not be read: {error}")), &self.unparks);
            return;
        }
        self.late.started.fetch_add(1, Ordering::Release);
        self.late.moved(&self.unparks);
    }

    async fn open(self: Rc<Self>) -> Result<(), String> {
        let shards = self.unparks.len();
        if self.late.started.load(Ordering::Acquire) == shards {
            return Ok(());
        }
        if self.late.claim() {
            let late = self.late.clone();
            tracing::info!(data_dir = %late.config.data_dir.display(), "opening, for topics that are kept");
            let opened = blocking::run(move || {
                Store::open_all(&late.disk, &late.config.data_dir, &late.options)
                    .map_err(|error| super::explain(&late.config, &error))
            });
            let state = match opened.await {
                Ok(Ok(images)) => State::Open(images.into_iter().map(Some).collect()),
                Ok(Err(why)) => State::Failed(why),
                Err(error) => State::Failed(error.to_string()),
            };
            self.late.set(state, &self.unparks);
        }
        loop {
            let moved = self.moved.wait();
            if self.late.started.load(Ordering::Acquire) == shards {
                return Ok(());
            }
            if let Some(why) = self.late.failure() {
                return Err(why);
            }
            moved.await;
        }
    }
}

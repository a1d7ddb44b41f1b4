//! Who is there: services and their nodes, on every shard at once.
//!
//! One shard, the writer, decides; every shard has the whole table and answers questions from it without asking
//! anyone. The writer tells all shards of each change, in order, and answers whoever asked for it once all of them
//! have it: whoever registered is found, whichever shard is asked next. The registry lives in memory alone.
//!
//! Invariants: every shard makes the same changes in the same order, which a version counts; a registration with a
//! lease is gone when it ends. Bounds: [`NODES_MAX`] nodes; a change waits for the shards, so those under way are
//! bounded by the questions a shard may have open. Lives on: one [`Registry`] per shard, the writer's on the first.

mod lease;
mod table;

pub use table::{Action, Change, Endpoint, Event, Metadata, Node, Service, Table, Value};

use crate::runtime::mailbox::{self, Post, Reply};
use crate::runtime::notify::Notify;
use crate::runtime::park::Unpark;
use crate::runtime::{ShardId, shard, timer};
use lease::Leases;
use slab::Slab;
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Most nodes of all services together.
pub const NODES_MAX: usize = 100_000;

/// The shard that decides.
const WRITER: ShardId = ShardId(0);

/// One shard's mailbox of this service.
pub type Mailbox = mailbox::Mailbox<Ask, Answer>;

/// What shards say to each other.
#[derive(Debug)]
pub enum Ask {
    /// To the writer: these nodes are there, for so long or until they are taken out.
    Register(Arc<Service>, Option<Duration>),
    /// To the writer: these ids are gone.
    Deregister(Arc<[String]>),
    /// From the writer, not answered: the change that makes this version.
    Apply(u64, Change),
    /// From the writer: answered once everything before it was applied, which is at once.
    Reached,
}

/// The answer to any of them.
pub type Answer = Result<(), RegistryError>;

/// Why nothing was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// There are [`NODES_MAX`] nodes.
    Full,
    /// The daemon ends.
    Closing,
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::Full => write!(f, "the registry has {NODES_MAX} nodes; deregister some first"),
            RegistryError::Closing => f.write_str("the daemon is ending"),
        }
    }
}

impl std::error::Error for RegistryError {}

/// Sees what happens.
pub type Watcher = Rc<dyn Fn(&Event)>;

/// The registry as one shard sees it.
pub struct Registry {
    me: ShardId,
    shards: usize,
    table: RefCell<Table>,
    version: Cell<u64>,
    watchers: RefCell<Slab<Watcher>>,
    post: OnceCell<Rc<Post<Ask, Answer>>>,
    /// The writer's.
    leases: RefCell<Leases>,
    /// The first lease to end may be another one.
    leases_changed: Notify,
}

impl Registry {
    /// Starts the service on the current shard.
    pub fn start(mailbox: Mailbox, unparks: Vec<Arc<Unpark>>) -> Rc<Self> {
        let shard = shard::current();
        let registry = Rc::new(Registry {
            me: shard.id(),
            shards: shard.count(),
            table: RefCell::default(),
            version: Cell::new(0),
            watchers: RefCell::default(),
            post: OnceCell::new(),
            leases: RefCell::default(),
            leases_changed: Notify::new(),
        });
        let answers = Rc::downgrade(&registry);
        let post = mailbox.open(unparks, move |_, question, reply| {
            if let Some(registry) = answers.upgrade() {
                registry.answer(question, reply);
            }
        });
        assert!(registry.post.set(post).is_ok(), "a service starts once");
        if registry.me == WRITER {
            let expires = Rc::downgrade(&registry);
            shard::spawn("leases", async move {
                while let Some(registry) = expires.upgrade() {
                    registry.expire().await;
                }
            });
        }
        registry
    }

    /// What is registered.
    pub fn table(&self) -> Ref<'_, Table> {
        self.table.borrow()
    }

    /// How often it changed.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Registers nodes, for `lease` or until they are deregistered. Once this resolves every shard has them.
    pub async fn register(&self, service: Service, lease: Option<Duration>) -> Answer {
        self.ask(Ask::Register(Arc::new(service), lease)).await
    }

    /// Takes nodes out by their ids; those that are not there are not missed.
    pub async fn deregister(&self, ids: Vec<String>) -> Answer {
        self.ask(Ask::Deregister(ids.into())).await
    }

    /// Calls `watcher` for everything that happens on from here, as long as the guard lives.
    pub fn watch(self: &Rc<Self>, watcher: Watcher) -> Watching {
        let key = self.watchers.borrow_mut().insert(watcher);
        Watching { registry: self.clone(), key }
    }

    async fn ask(&self, question: Ask) -> Answer {
        self.post().ask(WRITER, question).await.unwrap_or(Err(RegistryError::Closing))
    }

    fn post(&self) -> &Rc<Post<Ask, Answer>> {
        self.post.get().expect("set at the start")
    }

    fn answer(self: Rc<Self>, question: Ask, reply: Option<Reply<Answer>>) {
        let decided = match question {
            Ask::Register(service, lease) => self.decide_register(&service, lease),
            Ask::Deregister(ids) => Ok(self.decide_deregister(ids)),
            Ask::Apply(version, change) => {
                self.apply(version, &change);
                return;
            }
            Ask::Reached => Ok(false),
        };
        let Some(reply) = reply else { return };
        match decided {
            Ok(true) => shard::spawn("registry answer", async move { reply.give(self.reach_all().await) }),
            Ok(false) => reply.give(Ok(())),
            Err(error) => reply.give(Err(error)),
        }
    }

    /// Whether anything changed that others have to learn.
    fn decide_register(
        &self,
        service: &Arc<Service>,
        lease: Option<Duration>,
    ) -> Result<bool, RegistryError> {
        let fresh = service.nodes.iter().filter(|node| !self.table().has(&node.id)).count();
        if fresh > 0 && self.table().nodes() + fresh > NODES_MAX {
            return Err(RegistryError::Full);
        }
        let end = lease.map(|lease| shard::now() + lease);
        for node in &service.nodes {
            self.leases.borrow_mut().set(&node.id, end);
        }
        self.leases_changed.notify_all();
        let changes = self.table().would_change(service);
        if changes {
            self.commit(Change::Put(service.clone()));
        }
        Ok(changes)
    }

    fn decide_deregister(&self, ids: Arc<[String]>) -> bool {
        for id in ids.iter() {
            self.leases.borrow_mut().remove(id);
        }
        let changes = ids.iter().any(|id| self.table().has(id));
        if changes {
            self.commit(Change::Remove(ids));
        }
        changes
    }

    /// Makes a change here, and lets the others make it: in the order of the lanes, which is that of the versions.
    fn commit(&self, change: Change) {
        debug_assert_eq!(self.me, WRITER);
        let version = self.version.get() + 1;
        for other in self.others() {
            self.post().tell(other, Ask::Apply(version, change.clone()));
        }
        self.apply(version, &change);
    }

    fn apply(&self, version: u64, change: &Change) {
        assert_eq!(self.version.replace(version) + 1, version, "changes come in order, each once");
        let events = self.table.borrow_mut().apply(change);
        let watchers: Vec<Watcher> =
            self.watchers.borrow().iter().map(|(_, watcher)| watcher.clone()).collect();
        for event in &events {
            watchers.iter().for_each(|watcher| watcher(event));
        }
    }

    /// Resolves once all shards have what was told to them. A shard that has ended misses nothing.
    async fn reach_all(&self) -> Answer {
        for other in self.others() {
            let _ = self.post().ask(other, Ask::Reached).await;
        }
        Ok(())
    }

    fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.me;
        (0..self.shards).map(|index| ShardId(index as u16)).filter(move |shard| *shard != me)
    }

    /// Takes out what has ended, then waits until something ends or the order changes.
    async fn expire(&self) {
        let due = self.leases.borrow_mut().take_due(shard::now());
        if !due.is_empty() {
            tracing::debug!(nodes = due.len(), "leases ended");
            self.decide_deregister(due.into());
        }
        let changed = self.leases_changed.wait();
        let next = self.leases.borrow().next();
        match next {
            Some(end) => drop(timer::until(end, changed).await),
            None => changed.await,
        }
    }
}

/// Ends a watch when dropped.
pub struct Watching {
    registry: Rc<Registry>,
    key: usize,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.registry.watchers.borrow_mut().remove(self.key);
    }
}

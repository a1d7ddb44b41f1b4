//! The modules that there are: from the configuration, and registered while the daemon runs.
//!
//! All shards look at one immutable table that a change replaces. Of a secret only its digest is kept. Invariant: on the
//! port that modules share no two have one secret, and what is configured stands before what is registered.
//! Lives on: all shards.

use super::{Identity, Registration};
use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The SHA-256 of a secret.
pub type Digest = [u8; 32];

/// What is kept of a secret.
pub fn digest_of(secret: &[u8]) -> Digest {
    Sha256::digest(secret).into()
}

/// One module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// What people call it.
    pub name: Box<str>,
    /// Who it is.
    pub identity: Identity,
    /// Of its secret.
    pub digest: Digest,
    /// Whether it has a port of its own, where it alone is served.
    pub has_port: bool,
    /// The only types of events that it may publish; empty for any.
    pub event_types: Vec<Box<str>>,
    /// Whether it was registered, and not configured.
    pub is_registered: bool,
}

impl Module {
    /// One that was registered; `None` when its digest is none.
    pub fn registered(event: &str, kept: &Registration) -> Option<Self> {
        let digest = crate::codec::text::unhex(kept.digest.as_bytes())?;
        Some(Module {
            name: kept.name.clone(),
            identity: kept.identity(event),
            digest: digest.try_into().ok()?,
            has_port: !kept.listen.is_empty(),
            event_types: kept.event_types.clone(),
            is_registered: true,
        })
    }
}

/// Why a module is not taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// The configuration has a module for this event.
    Event,
    /// Another module on the shared port has this secret.
    Secret,
}

/// All of them.
#[derive(Default)]
pub struct Modules(ArcSwap<Table>);

/// The modules at some time.
#[derive(Clone, Default)]
pub struct Table {
    by_event: BTreeMap<Box<str>, Arc<Module>>,
    by_secret: HashMap<Digest, Arc<Module>>,
}

impl Modules {
    /// Takes the place of all that were configured.
    pub fn configure(&self, modules: Vec<Module>) {
        self.0.rcu(|old| {
            let mut table = Table::default();
            modules.iter().for_each(|module| table.insert(module.clone()));
            for module in old.by_event.values().filter(|module| module.is_registered) {
                match table.admits(module) {
                    Ok(()) => table.insert(Module::clone(module)),
                    Err(taken) => tracing::warn!(
                        event = &*module.identity.event,
                        ?taken,
                        "a registered module is hidden"
                    ),
                }
            }
            table
        });
    }

    /// Whether a module may be registered now.
    pub fn admits(&self, module: &Module) -> Result<(), Taken> {
        self.0.load().admits(module)
    }

    /// Takes a registered module in, in the place of the one that handled its event.
    pub fn take_in(&self, module: Module) -> Result<(), Taken> {
        let mut outcome = Ok(());
        self.0.rcu(|old| {
            let mut table = Table::clone(old);
            outcome = table.admits(&module);
            if outcome.is_ok() {
                table.remove(&module.identity.event);
                table.insert(module.clone());
            }
            table
        });
        outcome
    }

    /// Takes a registered module out.
    pub fn take_out(&self, event: &str) {
        self.0.rcu(|old| {
            let mut table = Table::clone(old);
            if table.by_event.get(event).is_some_and(|module| module.is_registered) {
                table.remove(event);
            }
            table
        });
    }

    /// Those that there are now.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.0.load()
    }
}

impl Table {
    fn insert(&mut self, module: Module) {
        let module = Arc::new(module);
        if !module.has_port {
            self.by_secret.insert(module.digest, module.clone());
        }
        self.by_event.insert(module.identity.event.clone(), module);
    }

    fn remove(&mut self, event: &str) {
        if let Some(module) = self.by_event.remove(event)
            && !module.has_port
        {
            self.by_secret.remove(&module.digest);
        }
    }

    fn admits(&self, module: &Module) -> Result<(), Taken> {
        if self.by_event.get(&module.identity.event).is_some_and(|known| !known.is_registered) {
            return Err(Taken::Event);
        }
        match self.by_secret.get(&module.digest) {
            _ if module.has_port => Ok(()),
            Some(known) if known.identity.event != module.identity.event => Err(Taken::Secret),
            _ => Ok(()),
        }
    }

    /// The module on the shared port whose secret has this digest.
    pub fn of_secret(&self, digest: &Digest) -> Option<&Arc<Module>> {
        self.by_secret.get(digest)
    }

    /// The module that handles `event`, whose port was asked.
    pub fn of_port(&self, event: &str) -> Option<&Arc<Module>> {
        self.by_event.get(event).filter(|module| module.has_port)
    }

    /// All, in the order of their events.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Module>> {
        self.by_event.values()
    }
}

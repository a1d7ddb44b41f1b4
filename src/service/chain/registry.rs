//! Modules that come and go while the daemon runs, and what becomes of what they left.
//!
//! A registration is a link of the module's group without bytes, so it is there after a crash. Whoever registers a module
//! says how long what it leaves is kept once it is taken out: until then its children read it. Then its owner deletes all
//! of the group, but what the chain's stream has of its events.
//! Invariant: a registration that was answered is known to every shard. Lives on: the module's owner decides, and
//! sleeps until something is due; all shards look at one table.

use super::message::{Answer, Ask};
use super::{Chain, Identity, ask, name_of};
use crate::runtime::{shard, timer};
use crate::service::blob::{BlobError, Name, When};
use crate::service::owner::space;
use crate::storage::{Key, Parts};
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

/// How soon is looked again at what is due soon, or could not be deleted.
const LOOK: Duration = Duration::from_secs(1);
/// How late at most, since the clock of the wall may be set.
const REST: Duration = Duration::from_secs(60);
/// Names that are deleted between two chances for everything else on the shard.
const STEP: usize = 256;

/// A module as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// What people call it.
    pub name: Box<str>,
    /// The event that caused the one that it handles.
    pub parent: Box<str>,
    /// What ties its chain together.
    pub correlation: Box<str>,
    /// Of its secret, in hex.
    pub digest: Box<str>,
    /// The only types of events that it may publish; empty for any.
    pub event_types: Vec<Box<str>>,
    /// Addresses of its own; empty where it is served on the port that modules share.
    #[serde(default)]
    pub listen: Vec<Box<str>>,
    /// How long what it leaves is kept once it is taken out, in milliseconds; `None` for ever.
    pub keep_ms: Option<u64>,
    /// When it was taken out, in milliseconds since 1970.
    pub removed_ms: Option<u64>,
}

impl Registration {
    /// Who it is.
    pub fn identity(&self, event: &str) -> Identity {
        Identity { event: event.into(), parent: self.parent.clone(), correlation: self.correlation.clone() }
    }

    /// When everything of it is due to go.
    fn due_ms(&self) -> Option<u64> {
        Some(self.removed_ms?.saturating_add(self.keep_ms?))
    }
}

/// For any shard.
impl Chain {
    /// Keeps a registration, in the place of one that there may be. Resolves once it is committed.
    pub async fn register(self: &Rc<Self>, event: &str, module: Registration) -> Result<(), BlobError> {
        let owner = self.owner_of_module(event);
        ask!(self, owner, Ask::Register(event.into(), module), Answer::Done)
    }

    /// Takes out the module that handles `event`; false when there is none.
    pub async fn take_out(self: &Rc<Self>, event: &str) -> Result<bool, BlobError> {
        let owner = self.owner_of_module(event);
        ask!(self, owner, Ask::TakeOut(event.into()), Answer::Changed)
    }

    /// The modules that this shard owns and that were not taken out, with their events.
    pub fn registered_here(&self) -> Vec<(Box<str>, Registration)> {
        let mut found = Vec::new();
        self.each_registration(|name, module| {
            if module.removed_ms.is_none() {
                found.push((name.container().into(), module));
            }
        });
        found
    }

    fn each_registration(&self, mut each: impl FnMut(Name, Registration)) {
        self.store.links().each(space::MODULES, Bound::Unbounded, |key, linked| {
            if let (Some((name, _)), Some(link)) = (Name::of_key(key), &linked.link)
                && let Ok(module) = serde_json::from_slice(link.attributes())
            {
                each(name, module);
            }
            true
        });
    }
}

fn name_of_module(event: &str) -> Name {
    name_of(space::MODULES, event, b"module")
}

/// For the owner's shard.
impl Chain {
    pub(super) async fn decide_register(
        self: Rc<Self>,
        event: Box<str>,
        module: Registration,
    ) -> Result<(), BlobError> {
        let text = serde_json::to_vec(&module).expect("texts and numbers");
        let key = name_of_module(&event).store_key();
        let put = self.store.links().put(key, text.into(), Parts::None, u64::MAX)?;
        self.registrations.notify_all();
        Ok(self.store.links().committed(&put.expect("without a bound there is room")).await?)
    }

    pub(super) async fn decide_take_out(self: Rc<Self>, event: Box<str>) -> Result<bool, BlobError> {
        let found = self.store.links().get(&name_of_module(&event).store_key())?;
        let module = found.link.as_ref().and_then(|link| serde_json::from_slice(link.attributes()).ok());
        match module {
            Some(module @ Registration { removed_ms: None, .. }) => {
                let removed_ms = Some(shard::current().wall().unix_millis());
                self.decide_register(event, Registration { removed_ms, ..module }).await?;
                Ok(true)
            }
            _ => {
                self.store.links().committed(&found).await?;
                Ok(false)
            }
        }
    }

    pub(super) fn start_clearing(self: &Rc<Self>) {
        shard::spawn("clear modules", self.clone().clear_what_is_due());
    }

    /// Sleeps until something is due: a shard whose modules are all there is not woken.
    async fn clear_what_is_due(self: Rc<Self>) {
        loop {
            let changed = self.registrations.wait();
            if self.committing.is_closing() {
                return;
            }
            match self.clear_due().await {
                None => changed.await,
                Some(rest) => {
                    timer::until(shard::now() + rest.clamp(LOOK, REST), changed).await;
                }
            }
        }
    }

    /// Deletes what is due; says in how long something else is, `None` for never.
    async fn clear_due(self: &Rc<Self>) -> Option<Duration> {
        let now_ms = shard::current().wall().unix_millis();
        let (mut due, mut next_ms) = (Vec::<Box<str>>::new(), None);
        self.each_registration(|name, module| match module.due_ms() {
            Some(due_ms) if due_ms <= now_ms => due.push(name.container().into()),
            Some(due_ms) => next_ms = Some(next_ms.map_or(due_ms, |next: u64| next.min(due_ms))),
            None => {}
        });
        for event in due {
            match self.clear(&event).await {
                Ok(()) => tracing::info!(event = &*event, "a module that was taken out is cleared"),
                Err(error) => {
                    tracing::warn!(event = &*event, %error, "a module is not cleared yet");
                    next_ms = Some(now_ms);
                }
            }
        }
        next_ms.map(|next_ms| Duration::from_millis(next_ms - now_ms))
    }

    /// Deletes all of a module, the registration last: what a crash leaves of it is due still.
    async fn clear(self: &Rc<Self>, event: &str) -> Result<(), BlobError> {
        let begins = [event.as_bytes(), b"\0"].concat();
        for space in [space::MODULE_BLOBS, space::STAGED, space::DOCUMENTS, space::KEYS, space::MODULES] {
            loop {
                let mut names: Vec<Key> = Vec::new();
                self.store.links().each(space, Bound::Included(&begins), |key, linked| {
                    let inside = key.bytes.starts_with(&begins);
                    if inside && linked.link.is_some() {
                        names.push(key.to_key());
                    }
                    inside && names.len() < STEP
                });
                if names.is_empty() {
                    break;
                }
                for key in names {
                    match Name::of_key(key.as_ref()) {
                        Some((name, _)) => drop(self.blobs.delete(&name, When::default()).await?),
                        None => unreachable!("it begins with a group"),
                    }
                }
                shard::yield_now().await;
            }
        }
        Ok(())
    }
}

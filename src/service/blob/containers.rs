//! Containers: each has an owner that decides whether it exists, and is known to all shards.
//!
//! Creating one is a record of the owner, then word to every shard. Deleting one has to see that nobody has anything in
//! it while others put things there: every shard first bars the container and says whether its part is empty, and only
//! when all are is the record written. Invariant: a shard puts nothing into a container that is barred or that it does
//! not know, and knows every container whose creation was answered.
//! Lives on: every shard, with a copy of the table; changes of one container run one after the other on its owner.

use super::message::{Answer, Ask};
use super::{BlobError, Blobs, Container, Name, STREAMS, ask};
use crate::runtime::ShardId;
use crate::runtime::notify::Notify;
use crate::service::owner::{self, space};
use crate::storage::{Key, Linked, Parts, StoreError};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

/// What one shard knows of containers.
#[derive(Default)]
pub(super) struct Table {
    known: RefCell<BTreeMap<Box<str>, Known>>,
    /// As the owner: containers that are being created or deleted.
    changing: RefCell<BTreeSet<Box<str>>>,
    changed: Notify,
}

struct Known {
    created_ms: u64,
    barred: bool,
}

impl Table {
    fn find(&self, name: &str) -> Option<Container> {
        let known = self.known.borrow();
        known.get(name).map(|known| Container { name: name.into(), created_ms: known.created_ms })
    }

    fn insert(&self, container: Container) {
        let known = Known { created_ms: container.created_ms, barred: false };
        self.known.borrow_mut().insert(container.name, known);
        self.changed.notify_all();
    }

    fn bar(&self, name: &str, barred: bool) {
        if let Some(known) = self.known.borrow_mut().get_mut(name) {
            known.barred = barred;
        }
        self.changed.notify_all();
    }

    fn remove(&self, name: &str) {
        self.known.borrow_mut().remove(name);
        self.changed.notify_all();
    }
}

/// For any shard.
impl Blobs {
    /// Creates a container; false when it is there already. Durable when this resolves, and known to every shard.
    pub async fn create_container(self: &Rc<Self>, name: &str) -> Result<bool, BlobError> {
        if name == STREAMS {
            return Err(BlobError::Reserved);
        }
        super::ask!(self, self.owner_of_container(name), Ask::CreateContainer(name.into()), Answer::Changed)
    }

    /// What is known of a container.
    pub fn container(&self, name: &str) -> Option<Container> {
        match name {
            STREAMS => self.door_container(),
            name => self.containers.find(name),
        }
    }

    /// Refuses a name whose container is not there.
    pub(super) fn admit(&self, name: &Name) -> Result<(), BlobError> {
        match !name.needs_container() || self.container(name.container()).is_some() {
            true => Ok(()),
            false => Err(BlobError::NoSuchContainer),
        }
    }

    /// All containers in the order of their names.
    pub fn containers(&self) -> Vec<Container> {
        let known = self.containers.known.borrow();
        let mut all: Vec<Container> = known
            .iter()
            .map(|(name, known)| Container { name: name.clone(), created_ms: known.created_ms })
            .chain(self.door_container())
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Deletes an empty container, and what was begun in it.
    pub async fn delete_container(self: &Rc<Self>, name: &str) -> Result<(), BlobError> {
        if name == STREAMS {
            return Err(BlobError::Reserved);
        }
        super::ask!(self, self.owner_of_container(name), Ask::DeleteContainer(name.into()), Answer::Done)
    }

    /// Learns of all containers. Once, before anything is served.
    pub async fn load(self: &Rc<Self>) -> Result<(), BlobError> {
        for shard in self.shards() {
            let owned: Result<Vec<Container>, BlobError> = match self.post().ask(shard, Ask::Containers).await
            {
                Ok(Answer::Containers(owned)) => owned.map_err(BlobError::from),
                Ok(_) => unreachable!("every question has its own kind of answer"),
                Err(_) => Err(StoreError::Closing.into()),
            };
            owned?.into_iter().for_each(|container| self.containers.insert(container));
        }
        Ok(())
    }

    /// Waits while the name's container is barred. Whoever puts something decides without another wait.
    pub(super) async fn enter(&self, name: &Name) -> Result<(), BlobError> {
        while name.needs_container() {
            let changed = self.containers.changed.wait();
            match self.containers.known.borrow().get(name.container()) {
                None => return Err(BlobError::NoSuchContainer),
                Some(known) if !known.barred => return Ok(()),
                Some(_) => {}
            }
            changed.await;
        }
        Ok(())
    }

    fn owner_of_container(&self, name: &str) -> ShardId {
        owner::of(&self.store, &key_of(name))
    }
}

fn key_of(name: &str) -> Key {
    Key::new(space::CONTAINERS, name.as_bytes())
}

/// For every shard.
impl Blobs {
    /// The containers that this shard owns.
    pub(super) fn owned_containers(&self) -> Vec<Container> {
        let mut owned = Vec::new();
        self.store.links().each(space::CONTAINERS, Bound::Unbounded, |key, linked| {
            if let (Ok(name), Some(link)) = (std::str::from_utf8(key.bytes), &linked.link) {
                owned.push(Container { name: name.into(), created_ms: link.created_ms });
            }
            true
        });
        owned
    }

    pub(super) fn note_created(&self, container: Container) {
        self.containers.insert(container);
    }

    pub(super) fn note_kept(&self, name: &str) {
        self.containers.bar(name, false);
    }

    /// The container is gone; what was begun in it goes too.
    pub(super) fn note_deleted(&self, name: &str) {
        self.containers.remove(name);
        for space in [space::UPLOADS, space::PARTS] {
            for key in self.owned_in(name, space).0 {
                if let Err(error) = self.store.links().delete(&key) {
                    tracing::warn!(container = name, %error, "an upload in a deleted container stays");
                }
            }
        }
    }

    /// Bars the container; whether this shard has nothing in it.
    pub(super) async fn bar(self: Rc<Self>, name: Box<str>) -> Result<bool, StoreError> {
        self.containers.bar(&name, true);
        loop {
            let (names, leaving) = self.owned_in(&name, space::BLOBS);
            match leaving {
                _ if !names.is_empty() => return Ok(false),
                None => return Ok(true),
                // A deletion that is not committed may be taken back.
                Some(linked) => self.store.links().committed(&linked).await?,
            }
            crate::runtime::shard::yield_now().await;
        }
    }

    /// Names in the container that stand for something, and one whose deletion is not committed.
    fn owned_in(&self, name: &str, space: u8) -> (Vec<Key>, Option<Linked>) {
        let prefix = [name.as_bytes(), b"\0"].concat();
        let (mut names, mut leaving) = (Vec::new(), None);
        let links = self.store.links();
        links.each(space, Bound::Included(&prefix), |key, linked| {
            let inside = key.bytes.starts_with(&prefix);
            match &linked.link {
                _ if !inside => {}
                Some(_) => names.push(key.to_key()),
                None if !links.is_committed(linked) => leaving = Some(linked.clone()),
                None => {}
            }
            // One blob is enough to know.
            inside && (space != space::BLOBS || names.is_empty())
        });
        (names, leaving)
    }
}

/// For the owner's shard.
impl Blobs {
    pub(super) async fn decide_create(self: Rc<Self>, name: Box<str>) -> Result<bool, BlobError> {
        let _turn = self.take_turn(&name).await;
        let (links, key) = (self.store.links(), key_of(&name));
        let found = links.get(&key)?;
        if found.link.is_some() {
            links.committed(&found).await?;
            return Ok(false);
        }
        let put = links.put(key, [].into(), Parts::None, u64::MAX)?.expect("without a bound there is room");
        links.committed(&put).await?;
        let created_ms = put.link.as_ref().map_or(0, |link| link.created_ms);
        for shard in self.shards() {
            let container = Container { name: name.clone(), created_ms };
            let noted: Result<(), BlobError> =
                ask!(self, shard, Ask::Created(container), Answer::Noted, BlobError::from);
            noted?;
        }
        Ok(true)
    }

    pub(super) async fn decide_delete_container(self: Rc<Self>, name: Box<str>) -> Result<(), BlobError> {
        let _turn = self.take_turn(&name).await;
        let (links, key) = (self.store.links(), key_of(&name));
        let found = links.look(&key);
        if found.link.is_none() && links.get(&key).is_ok() {
            links.committed(&found).await?;
            return Err(BlobError::NoSuchContainer);
        }
        let deleted = self.delete_if_empty(&name, &key).await;
        let word = |name: Box<str>| if deleted.is_ok() { Ask::Deleted(name) } else { Ask::Unbar(name) };
        for shard in self.shards() {
            let noted: Result<(), BlobError> =
                ask!(self, shard, word(name.clone()), Answer::Noted, BlobError::from);
            noted?;
        }
        deleted
    }

    async fn delete_if_empty(self: &Rc<Self>, name: &str, key: &Key) -> Result<(), BlobError> {
        for shard in self.shards() {
            let empty: Result<bool, BlobError> =
                ask!(self, shard, Ask::Bar(name.into()), Answer::Empty, BlobError::from);
            if !empty? {
                return Err(BlobError::ContainerNotEmpty);
            }
        }
        let links = self.store.links();
        if let Some(ticket) = links.delete(key)? {
            links.committed(&Linked { link: None, ticket }).await?;
        }
        Ok(())
    }

    /// Waits until nobody else changes the container.
    async fn take_turn(self: &Rc<Self>, name: &str) -> Turn {
        loop {
            let changed = self.containers.changed.wait();
            if self.containers.changing.borrow_mut().insert(name.into()) {
                return Turn { blobs: self.clone(), name: name.into() };
            }
            changed.await;
        }
    }
}

/// The right to change a container.
struct Turn {
    blobs: Rc<Blobs>,
    name: Box<str>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.blobs.containers.changing.borrow_mut().remove(&self.name);
        self.blobs.containers.changed.notify_all();
    }
}

//! Documents: one per module, replaced whole, found by its event or with all others of its chain.
//!
//! A document is a small blob of the module's group, so it is stored, checked, moved and recovered as blobs are, and a
//! commit can name it beside them. Which documents a chain has is kept in memory by the owner of each: an entry per
//! document, read from the links at the start. Invariant: documents of a chain come in the order of their commits,
//! whichever shards own them. Lives on: the owner's shard.

use super::message::{Answer, Ask};
use super::{Chain, Identity, Stamps, ask, name_of};
use crate::service::blob::{Blob, BlobError, Name, Properties};
use crate::service::owner::space;
use crate::storage::{Parts, Put, Store, StoreError};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::rc::Rc;

/// A document that stands.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its place among all commits.
    pub stamp: u64,
    /// The module's event.
    pub event: Box<str>,
    /// The event that caused it.
    pub parent: Box<str>,
    /// Its bytes, as they were put.
    pub blob: Blob,
}

/// The documents that a shard owns, by chain and commit.
pub(super) struct Index(RefCell<HashMap<Box<str>, ByStamp>>);

/// Events by the stamps of their documents.
type ByStamp = BTreeMap<u64, Box<str>>;

impl Index {
    /// From what is stored.
    pub fn read(store: &Store, stamps: &Stamps) -> Self {
        let index = Index(RefCell::default());
        store.links().each(space::DOCUMENTS, Bound::Unbounded, |key, linked| {
            if let (Some((name, _)), Some(link)) = (Name::of_key(key), &linked.link) {
                let (stamp, identity) =
                    identity_of(&name, &Properties::decode(link.attributes()).unwrap_or_default());
                stamps.note(stamp);
                index.note(&identity, stamp);
            }
            true
        });
        index
    }

    /// What puts a document.
    pub fn put(&self, identity: &Identity, stamp: u64, parts: Parts) -> Put {
        let text = |text: &str| Box::from(text.as_bytes());
        let fields = vec![
            ("correlation".into(), text(&identity.correlation)),
            ("parent".into(), text(&identity.parent)),
            ("stamp".into(), Box::from(stamp.to_le_bytes())),
        ];
        let attributes = Properties { etag: format!("{stamp:x}").into(), fields }.encode();
        Put { key: name_of_document(&identity.event).store_key(), attributes, parts }
    }

    /// A document was decided. What it replaces is found out of date when it is looked for.
    pub fn note(&self, identity: &Identity, stamp: u64) {
        let mut chains = self.0.borrow_mut();
        let chain = chains.entry(identity.correlation.clone()).or_default();
        chain.retain(|_, event| *event != identity.event);
        chain.insert(stamp, identity.event.clone());
    }

    fn of(&self, correlation: &str) -> Vec<Box<str>> {
        self.0.borrow().get(correlation).map(|chain| chain.values().cloned().collect()).unwrap_or_default()
    }
}

fn name_of_document(event: &str) -> Name {
    name_of(space::DOCUMENTS, event, b"document")
}

fn identity_of(name: &Name, properties: &Properties) -> (u64, Identity) {
    let text = |field| String::from_utf8_lossy(properties.field(field).unwrap_or_default()).into();
    let stamp =
        properties.field("stamp").and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let event = name.container().into();
    (stamp, Identity { event, parent: text("parent"), correlation: text("correlation") })
}

impl Chain {
    /// The document of the module that handles `event`.
    pub async fn document(self: &Rc<Self>, event: &str) -> Result<Option<Blob>, BlobError> {
        self.blobs.find(&name_of_document(event)).await
    }

    /// All documents of a chain in the order of their commits.
    pub async fn documents(self: &Rc<Self>, correlation: &str) -> Result<Vec<Document>, StoreError> {
        let mut documents = Vec::new();
        for shard in crate::runtime::shard::current().all() {
            let owned: Result<Vec<Document>, StoreError> =
                ask!(self, shard, Ask::Chain(correlation.into()), Answer::Chain);
            documents.extend(owned?);
        }
        documents.sort_by_key(|document| document.stamp);
        Ok(documents)
    }

    pub(super) async fn documents_owned(
        self: Rc<Self>,
        correlation: Box<str>,
    ) -> Result<Vec<Document>, StoreError> {
        let mut documents = Vec::new();
        for event in self.documents.of(&correlation) {
            let name = name_of_document(&event);
            let found = self.store.links().get(&name.store_key())?;
            self.store.links().committed(&found).await?;
            let Some(link) = found.link else { continue };
            let blob = Blob::new(name.clone(), link);
            let (stamp, identity) = identity_of(&name, &blob.properties);
            if identity.correlation == correlation {
                documents.push(Document { stamp, event, parent: identity.parent, blob });
            }
        }
        Ok(documents)
    }
}

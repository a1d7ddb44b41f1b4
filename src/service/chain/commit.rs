//! Committing what a module has: blobs that were uploaded aside, a document, events, in one record or none.
//!
//! The bytes come first: staged blobs are there, the document and the events go into the owner's pack. Then nothing waits
//! between the look at what is staged and at the key, and the decision. What one record says of several names may be
//! believed only as a whole, so in the sync class all bytes are durable before it is written; a change of one name needs
//! no such wait. Invariant: an answer leaves once the record is committed and its events are in their stream.
//! Lives on: the asking half on the connection's shard, the deciding half on the module's owner.

use super::message::{Answer, Ask};
use super::outbox::Waiting;
use super::{Chain, Identity, ask, name_of, topic_of};
use crate::runtime::gate::Pass;
use crate::runtime::{notify, shard};
use crate::service::blob::{BlobError, Properties, When};
use crate::service::owner::space;
use crate::storage::{Durability, Linked, Parts, Put, StoreError};
use bytes::Bytes;
use std::fmt;
use std::rc::Rc;

/// The most blobs and events of one commit: all of them have to fit into one record of the store.
pub const RECORDS_MAX: usize = 256;

/// What is to be committed.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Names under which blobs are staged, and will be found.
    pub blobs: Vec<Box<[u8]>>,
    /// The document that replaces the module's.
    pub document: Option<Bytes>,
    /// Envelopes, each without a line end in it.
    pub events: Vec<Bytes>,
    /// What tells a repetition of this commit from another one.
    pub key: Option<Key>,
}

/// A key that its sender uses for one request alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// The key.
    pub key: Box<[u8]>,
    /// A digest of what was asked for with it.
    pub digest: Box<[u8]>,
    /// What the answer to a repetition tells of this.
    pub told: Box<[u8]>,
}

/// What became of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Committed {
    /// It was done.
    Now,
    /// It had been done before, and then this was told.
    Before(Box<[u8]>),
}

/// Why nothing was committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitError {
    /// No blob is staged under this name.
    NotStaged(Box<[u8]>),
    /// The key was used for something else.
    KeyReused,
    /// More than one record can say.
    TooMuch,
    /// The service of blobs or the store refused.
    Blob(BlobError),
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        CommitError::Blob(error.into())
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::NotStaged(name) => write!(f, "no blob is staged as {}", name.escape_ascii()),
            CommitError::KeyReused => f.write_str("the idempotency key was used for another request"),
            CommitError::TooMuch => write!(f, "a commit has at most {RECORDS_MAX} blobs and events"),
            CommitError::Blob(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {}

impl Chain {
    /// Commits all of it or nothing. Goes on once polled, whether or not anyone waits.
    pub async fn commit(
        self: &Rc<Self>,
        identity: &Identity,
        commit: Commit,
    ) -> Result<Committed, CommitError> {
        if commit.blobs.len() + commit.events.len() > RECORDS_MAX {
            return Err(CommitError::TooMuch);
        }
        if let Some(event) = alone(&commit) {
            return self.publish(identity, event).await.map(|()| Committed::Now).map_err(CommitError::from);
        }
        let owner = self.owner_of_module(&identity.event);
        ask!(self, owner, Ask::Commit(identity.clone(), commit), Answer::Committed)
    }
}

/// The one event that is all of it: there is nothing to keep together, so it goes straight into its stream.
fn alone(commit: &Commit) -> Option<Bytes> {
    match commit {
        Commit { blobs, document: None, events, key: None } if blobs.is_empty() => match &events[..] {
            [event] => Some(event.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// For the owner's shard.
impl Chain {
    pub(super) async fn decide_commit(
        self: Rc<Self>,
        identity: Identity,
        commit: Commit,
    ) -> Result<Committed, CommitError> {
        let pass = self.committing.enter().ok_or(StoreError::Closing)?;
        let (answerer, answer) = notify::answer();
        shard::spawn("commit of a module", async move {
            answerer.give(self.commit_here(&identity, commit, pass).await);
        });
        answer.await.unwrap_or(Err(StoreError::Closing.into()))
    }

    async fn commit_here(
        self: &Rc<Self>,
        identity: &Identity,
        commit: Commit,
        pass: Pass,
    ) -> Result<Committed, CommitError> {
        let topic = topic_of(&identity.correlation);
        // Before it is decided: where a repetition of what follows would have to be looked for.
        let from = match commit.events.is_empty() {
            true => 0,
            false => self.topic(&identity.correlation, false).await?.map_or(0, |topic| topic.end),
        };
        let document = match &commit.document {
            Some(bytes) => Some(self.blobs.pack(bytes).await?),
            None => None,
        };
        let mut events = Vec::with_capacity(commit.events.len());
        for event in &commit.events {
            events.push((event.clone(), self.blobs.pack(event).await?));
        }
        let count = commit.blobs.len() + usize::from(document.is_some()) + events.len();
        if count + usize::from(commit.key.is_some()) > 1 && self.store.durability() == Durability::Sync {
            for part in document.iter().chain(events.iter().map(|(_, parts)| parts)).flat_map(Parts::as_slice)
            {
                self.store.durable(part.body().tail(), part.from() + part.len()).await?;
            }
        }
        // From here to the decision nothing waits but for what leads to a refusal.
        if let Some(key) = &commit.key {
            let found =
                self.store.links().get(&name_of(space::KEYS, &identity.event, &key.key).store_key())?;
            if let Some(link) = &found.link {
                let known = Properties::decode(link.attributes()).unwrap_or_default();
                self.store.links().committed(&found).await?;
                let is_same = known.field("digest") == Some(&key.digest);
                // Whoever repeats it while it is under way hears of it once its events are there, too.
                self.outbox.settle(&identity.correlation).await?;
                return match is_same {
                    true => Ok(Committed::Before(known.field("told").unwrap_or_default().into())),
                    false => Err(CommitError::KeyReused),
                };
            }
        }
        let mut puts = Vec::with_capacity(count + 1);
        for res in &commit.blobs {
            let staged = self.store.links().get(&name_of(space::STAGED, &identity.event, res).store_key())?;
            let Some(link) = &staged.link else {
                self.store.links().committed(&staged).await?;
                return Err(CommitError::NotStaged(res.clone()));
            };
            puts.push(Put {
                key: name_of(space::MODULE_BLOBS, &identity.event, res).store_key(),
                attributes: link.attributes().into(),
                parts: link.parts.clone(),
            });
        }
        let stamp = self.stamps.next();
        if let Some(parts) = document {
            puts.push(self.documents.put(identity, stamp, parts));
        }
        let mut waiting = Vec::with_capacity(events.len());
        for (event, parts) in events {
            let one = Waiting::new(identity, self.stamps.next(), topic.clone(), from, event);
            puts.push(one.put(parts));
            waiting.push(one);
        }
        if let Some(Key { key, digest, told }) = commit.key {
            let fields = vec![("digest".into(), digest), ("told".into(), told)];
            let attributes = Properties { etag: "".into(), fields }.encode();
            let key = name_of(space::KEYS, &identity.event, &key).store_key();
            puts.push(Put { key, attributes, parts: Parts::None });
        }
        let decided = self.decide(puts)?;
        if commit.document.is_some() {
            self.documents.note(identity, stamp);
        }
        let told = self.outbox.enter(waiting);
        for linked in &decided {
            if let Err(error) = self.store.links().committed(linked).await {
                self.outbox.withdraw(&told);
                return Err(error.into());
            }
        }
        self.outbox.deliver(&told).await?;
        self.forget_staged(identity, commit.blobs, pass);
        Ok(Committed::Now)
    }

    /// One record for all.
    fn decide(&self, mut puts: Vec<Put>) -> Result<Vec<Linked>, CommitError> {
        match puts.len() {
            1 => {
                let Put { key, attributes, parts } = puts.remove(0);
                let put = self.store.links().put(key, attributes, parts, u64::MAX)?;
                Ok(put.into_iter().collect())
            }
            _ => self.store.links().put_together(puts)?.ok_or(CommitError::TooMuch),
        }
    }

    /// What was staged is found under its name now. A crash before this leaves it staged as well, which costs no room.
    fn forget_staged(self: &Rc<Self>, identity: &Identity, blobs: Vec<Box<[u8]>>, pass: Pass) {
        let (chain, event) = (self.clone(), identity.event.clone());
        shard::spawn("forget what was staged", async move {
            for res in blobs {
                let name = name_of(space::STAGED, &event, &res);
                if let Err(error) = chain.blobs.delete(&name, When::default()).await {
                    tracing::debug!(%error, "a blob that was committed stays staged");
                }
            }
            drop(pass);
        });
    }
}

//! Bodies: bytes without a name of their own, which links share.
//!
//! In the store a body is a stream in a space that no service names: its home owns it, its bytes are marked,
//! checkpointed, compacted and scrubbed like any other's. What is special is how it ends: nobody deletes it. It goes
//! when the last link to it is durably superseded and the last reader has let go, which is when the last [`Body`] is
//! dropped, on whatever shard; its owner then deletes it. What no link stands for after a crash was never committed,
//! or is not wanted any more, and recovery leaves it out.
//!
//! Invariant: the bytes that a link stands for live as long as the link could be what recovery finds.
//! Lives on: all shards; each owner takes in what was let go of at the start of its turns.

use super::append::Appender;
use super::core::Core;
use super::error::StoreError;
use super::names::Ticket;
use super::placement::{Key, owner_of};
use super::tail::{State, Tail};
use bytes::Bytes;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The space of bodies. No service has names in it.
pub const BODIES: u8 = 2;

/// Bytes that links share. Whoever has one can read them.
pub struct Body {
    tail: Arc<Tail>,
    key: Key,
    /// For the owner: what makes it known to the next start.
    ticket: Ticket,
    /// Bytes of it that parts have, those counted twice that two have.
    linked: AtomicU64,
    /// To the owner, when nobody has it any more. Unbounded, and holds at most every body once.
    let_go: Sender<Key>,
}

impl Body {
    pub(super) fn new(tail: Arc<Tail>, key: Key, ticket: Ticket, let_go: Sender<Key>) -> Arc<Self> {
        Arc::new(Body { tail, key, ticket, linked: AtomicU64::new(0), let_go })
    }

    /// The bytes.
    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// Whether it grows no more, and less than half of it is part of anything.
    pub fn is_sparse(&self) -> bool {
        self.tail.state() != State::Open && self.linked.load(Ordering::Relaxed) < self.tail.published() / 2
    }

    pub(super) fn note_linked(&self, len: u64) {
        self.linked.fetch_add(len, Ordering::Relaxed);
    }

    pub(super) fn note_unlinked(&self, len: u64) {
        let before = self.linked.fetch_sub(len, Ordering::Relaxed);
        debug_assert!(before >= len, "only what was linked is unlinked");
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // An owner that has ended needs to know nothing: the next start finds the body without a link.
        let _ = self.let_go.send(self.key.clone());
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tail.fmt(f)
    }
}

/// One shard's side: makes bodies, and deletes those of its own that were let go of.
pub struct Bodies {
    let_go: Receiver<Key>,
    own: Sender<Key>,
    made: Cell<u64>,
}

/// The ends of each shard: where others tell it what they let go of.
pub struct Ends {
    senders: Vec<Sender<Key>>,
    receivers: Vec<Option<Receiver<Key>>>,
}

impl Ends {
    /// For `shards` shards.
    pub fn new(shards: usize) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever drops a body cannot wait, and each body is told once"
        )]
        let (senders, receivers) = (0..shards).map(|_| channel()).map(|(to, from)| (to, Some(from))).unzip();
        Ends { senders, receivers }
    }

    /// To the owner of `key`.
    pub fn of(&self, key: &Key) -> Sender<Key> {
        self.senders[owner_of(key.hash(), self.senders.len()).index()].clone()
    }

    /// The side of `shard`, once.
    pub fn take(&mut self, shard: usize) -> Bodies {
        let let_go = self.receivers[shard].take().expect("each shard takes its side once");
        Bodies { let_go, own: self.senders[shard].clone(), made: Cell::new(0) }
    }
}

impl Core {
    /// A new body, empty and open, with its appender on this shard.
    pub(super) fn new_body(self: &Rc<Self>) -> Result<(Arc<Body>, Appender), StoreError> {
        let names = super::Names::new(self.clone());
        let (entry, ticket) = names.put(self.next_body_key(), self.log, Bytes::new())?;
        let appender = Appender::attach(self, &entry.tail)?;
        let (tail, key) = (entry.tail.clone(), entry.key().to_key());
        Ok((Body::new(tail, key, ticket, self.bodies.own.clone()), appender))
    }

    /// Resolves once all of a body is committed in the store's class, with its length. A sync that failed may have
    /// taken the body back while its bytes were written again, so both are waited for.
    pub(super) async fn commit_body(&self, body: &Body, appender: Appender) -> Result<u64, StoreError> {
        let len = appender.commit().await?;
        self.committed(body.ticket.0).await?;
        match body.tail.state() {
            State::Gone => Err(StoreError::SyncFailed),
            _ => Ok(len),
        }
    }

    /// A key that never was, and that this shard owns.
    fn next_body_key(&self) -> Key {
        let count = self.bodies.made.get();
        self.bodies.made.set(count + 1);
        let boot = self.journal.borrow().boot();
        let name = |salt: u32| {
            let mut bytes = [0; 18];
            bytes[..2].copy_from_slice(&self.log.0.to_le_bytes());
            bytes[2..6].copy_from_slice(&boot.to_le_bytes());
            bytes[6..14].copy_from_slice(&count.to_le_bytes());
            bytes[14..].copy_from_slice(&salt.to_le_bytes());
            Key::new(BODIES, &bytes)
        };
        let own = |key: &Key| owner_of(key.hash(), self.shards) == self.shard;
        (0..).map(name).find(own).expect("every shard owns some of 2^32 hashes")
    }

    /// The start of a turn: deletes what was let go of; whether there was anything. What cannot be deleted now is
    /// garbage of the next start.
    pub(super) fn take_in_let_go(self: &Rc<Self>) -> bool {
        let mut any = false;
        while let Ok(key) = self.bodies.let_go.try_recv() {
            any = true;
            if let Err(error) = super::Names::new(self.clone()).delete(&key) {
                tracing::debug!(%error, "a body that nobody wants stays for the time being");
            }
        }
        any
    }
}

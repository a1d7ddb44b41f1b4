//! A card: a name, what is kept beside it and what it stands for, in one allocation that all who need it share.
//!
//! There is one for every name, so it is small: a pointer's width wherever it is held, and beside the bytes of the name
//! a few words. Invariant: a card never changes, but for the ticket of the latest decision about what it says, which
//! the owner alone moves. Lives on: anywhere; made by the owner, or by recovery.

use super::Ticket;
use crate::storage::placement::{Key, KeyRef};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use triomphe::ThinArc;

/// See the module. What is handed out stands for something, which is what it dereferences to.
pub struct Card<T>(ThinArc<Face<T>, u8>);

struct Face<T> {
    ticket: AtomicU64,
    /// The name's bytes come first, then the attributes.
    key_len: u16,
    space: u8,
    /// Nothing when the name is gone.
    what: Option<T>,
}

const _: () = assert!(Key::BYTES_MAX <= u16::MAX as usize);

impl<T> Card<T> {
    /// Says that `key` stands for `what`.
    pub(in super::super) fn new(key: KeyRef<'_>, attributes: &[u8], what: T) -> Self {
        Self::with(key, attributes, Some(what))
    }

    /// Says that `key` is gone.
    pub(in super::super) fn gone(key: KeyRef<'_>) -> Self {
        Self::with(key, &[], None)
    }

    fn with(key: KeyRef<'_>, attributes: &[u8], what: Option<T>) -> Self {
        let key_len = u16::try_from(key.bytes.len()).expect("a key is at most Key::BYTES_MAX bytes long");
        let face = Face { ticket: AtomicU64::new(0), key_len, space: key.space, what };
        match attributes {
            [] => Card(ThinArc::from_header_and_slice(face, key.bytes)),
            _ => Card(ThinArc::from_header_and_slice(face, &[key.bytes, attributes].concat())),
        }
    }

    /// The name.
    pub fn key(&self) -> KeyRef<'_> {
        let face = &self.0.header.header;
        KeyRef { space: face.space, bytes: &self.0.slice[..usize::from(face.key_len)] }
    }

    /// What the service keeps beside it, opaque here.
    pub fn attributes(&self) -> &[u8] {
        &self.0.slice[usize::from(self.0.header.header.key_len)..]
    }

    /// Whether the name stands for something.
    pub(in super::super) fn stands(&self) -> bool {
        self.0.header.header.what.is_some()
    }

    /// The card, if the name stands for something.
    pub(in super::super) fn standing(&self) -> Option<Self> {
        self.stands().then(|| self.clone())
    }

    /// Where the latest decision about what it says stands in the owner's journal.
    pub(in super::super) fn ticket(&self) -> Ticket {
        Ticket(self.0.header.header.ticket.load(Ordering::Relaxed))
    }

    /// For the owner.
    pub(in super::super) fn set_ticket(&self, ticket: Ticket) {
        self.0.header.header.ticket.store(ticket.0, Ordering::Relaxed);
    }

    /// Whether both are one card.
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::addr_eq(&raw const *self.0, &raw const *other.0)
    }
}

impl<T> Clone for Card<T> {
    fn clone(&self) -> Self {
        Card(self.0.clone())
    }
}

impl<T> Deref for Card<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.header.header.what.as_ref().expect("what is handed out stands for something")
    }
}

impl<T: fmt::Debug> fmt::Debug for Card<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.key(), self.0.header.header.what)
    }
}

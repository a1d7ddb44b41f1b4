//! Listing a container: every owner's names, merged in order, folded at a delimiter.
//!
//! Invariant: the cost of a page depends on the page, not on how many names there are before, behind or folded.
//! Lives on: the shard that lists; each owner does its part.

use super::message::{Answer, Ask};
use super::{Blob, BlobError, Blobs, Name, ask};
use crate::service::owner::space;
use crate::storage::{Link, Linked, placement_hash};
use std::ops::Bound;
use std::rc::Rc;

/// Where a page begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// At the first name.
    #[default]
    First,
    /// At this name or the first one above.
    At(Box<[u8]>),
    /// Behind this name; and behind all that fold into it, if it is what keys fold into.
    After(Box<[u8]>),
}

/// What to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// Only keys that begin so.
    pub prefix: Box<[u8]>,
    /// Keys that have this behind the prefix are folded into one entry that ends with it; empty for none.
    pub delimiter: Box<[u8]>,
    /// Where to begin.
    pub start: Start,
    /// The most entries, folded ones included. With 0 the page is empty and has no next.
    pub limit: usize,
}

/// An entry of a page.
#[derive(Clone, Debug)]
pub enum Listed {
    /// A blob.
    Blob(Blob),
    /// What all keys that are folded here begin with.
    Prefix(Box<[u8]>),
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// In the order of their bytes.
    pub entries: Vec<Listed>,
    /// The first entry (key or folded prefix) that did not fit; `None` when all did.
    pub next: Option<Box<[u8]>>,
}

/// One owner's entries, in order.
pub type Share = Vec<Row>;

/// An entry as its owner tells it. Nothing of a blob is copied.
#[derive(Debug)]
pub enum Row {
    /// A blob.
    Link(Link),
    /// What keys fold into, with the container's name in front.
    Prefix(Box<[u8]>),
}

impl Row {
    /// The name in the store that it is listed at.
    fn name(&self) -> &[u8] {
        match self {
            Row::Link(link) => link.key().bytes,
            Row::Prefix(prefix) => prefix,
        }
    }
}

impl Blobs {
    /// A page of a container's names in the order of their bytes.
    pub async fn list(self: &Rc<Self>, container: &str, query: Query) -> Result<Listing, BlobError> {
        if self.container(container).is_none() {
            return Err(BlobError::NoSuchContainer);
        }
        if query.limit == 0 {
            return Ok(Listing::default());
        }
        if let Some(door) = self.door_to(container) {
            return door.list(&query).await;
        }
        let mut rows = Share::new();
        for shard in self.shards() {
            let question = Ask::List(space::BLOBS, container.into(), query.clone());
            let share: Result<Share, BlobError> = ask!(self, shard, question, Answer::Listed);
            rows.extend(share?);
        }
        // Each owner's are in order, which this sort takes for what it is: a merge.
        rows.sort_by(|a, b| a.name().cmp(b.name()));
        // Several owners may have keys that fold into the same.
        rows.dedup_by(|a, b| a.name() == b.name());
        Ok(page(container, &query, rows))
    }

    /// The same of a group, all of which one shard has.
    pub async fn list_group(
        self: &Rc<Self>,
        space: u8,
        group: &str,
        query: Query,
    ) -> Result<Listing, BlobError> {
        let owner = self.store.owner_of_hash(placement_hash(space, group.as_bytes()));
        let question = Ask::List(space, group.into(), query.clone());
        let share: Result<Share, BlobError> = ask!(self, owner, question, Answer::Listed);
        Ok(page(group, &query, share?))
    }

    /// This owner's first entries of a page, one more than fits, once they are committed.
    pub(super) async fn list_owned(
        self: Rc<Self>,
        space: u8,
        container: Box<str>,
        query: Query,
    ) -> Result<Share, BlobError> {
        let links = self.store.links();
        loop {
            let mut pending = Vec::new();
            let share = self.look_through(space, &container, &query, |linked| {
                if !links.is_committed(linked) {
                    pending.push(linked.clone());
                }
            });
            if pending.is_empty() {
                return Ok(share);
            }
            // One that is taken back is not there when looked for again.
            for linked in pending {
                let _ = links.committed(&linked).await;
            }
        }
    }

    fn look_through(
        &self,
        space: u8,
        container: &str,
        query: &Query,
        mut seen: impl FnMut(&Linked),
    ) -> Share {
        let inside = [container.as_bytes(), b"\0"].concat();
        let full = |key: &[u8]| [&*inside, key].concat();
        let prefix = full(&query.prefix);
        let mut from = match &query.start {
            Start::First => Bound::Included(prefix.clone()),
            Start::At(key) => Bound::Included(full(key).max(prefix.clone())),
            Start::After(key) if query.folds_to(key) => match behind(&full(key)) {
                Some(next) => Bound::Included(next),
                None => return Share::new(),
            },
            Start::After(key) if full(key) >= prefix => Bound::Excluded(full(key)),
            Start::After(_) => Bound::Included(prefix.clone()),
        };
        let mut share = Share::new();
        loop {
            let mut skip = None;
            let place = from.as_ref().map(Vec::as_slice);
            self.store.links().each(space, place, |key, linked| {
                if share.len() > query.limit || !key.bytes.starts_with(&prefix) {
                    return false;
                }
                seen(linked);
                let Some(link) = &linked.link else { return true };
                let rest = &key.bytes[prefix.len()..];
                match find(rest, &query.delimiter) {
                    Some(at) => {
                        let folded = &key.bytes[..prefix.len() + at + query.delimiter.len()];
                        share.push(Row::Prefix(folded.into()));
                        skip = Some(folded.to_vec());
                        false
                    }
                    None => {
                        share.push(Row::Link(link.clone()));
                        true
                    }
                }
            });
            match skip.and_then(|folded| behind(&folded)) {
                Some(next) => from = Bound::Included(next),
                None => return share,
            }
        }
    }
}

/// The first entries of what owners told.
fn page(container: &str, query: &Query, rows: Share) -> Listing {
    let inside = container.len() + 1;
    let mut rows = rows.into_iter();
    let page = rows.by_ref().take(query.limit);
    let page = page.map(|row| match row {
        Row::Link(link) => Listed::Blob(Blob::new(Name::of_link(&link, container.len()), link)),
        Row::Prefix(prefix) => Listed::Prefix(prefix[inside..].into()),
    });
    Listing { entries: page.collect(), next: rows.next().map(|row| row.name()[inside..].into()) }
}

impl Query {
    /// Whether keys fold into `key`.
    pub(super) fn folds_to(&self, key: &[u8]) -> bool {
        self.fold(key) == Some(key)
    }

    /// What `key` folds into, if it does.
    pub(super) fn fold<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let at = find(key.strip_prefix(&*self.prefix)?, &self.delimiter)?;
        Some(&key[..self.prefix.len() + at + self.delimiter.len()])
    }
}

impl Listed {
    /// The key, or what keys were folded into.
    pub fn key(&self) -> &[u8] {
        match self {
            Listed::Blob(blob) => blob.name.key(),
            Listed::Prefix(prefix) => prefix,
        }
    }
}

/// Where `delimiter` begins in `bytes`; nowhere when it is empty.
fn find(bytes: &[u8], delimiter: &[u8]) -> Option<usize> {
    match delimiter {
        [] => None,
        [byte] => bytes.iter().position(|at| at == byte),
        _ => bytes.windows(delimiter.len()).position(|at| at == delimiter),
    }
}

/// The first name that does not begin with `prefix` and is above all that do.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

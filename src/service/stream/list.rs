//! Many names: pages of a listing, and deletion by prefix.
//!
//! Names are placed by hash, so every shard is asked and the parts are merged. A page begins after a name, not
//! at a number, so no state is kept between two of them.
//!
//! Invariant: a page holds only what is committed; names come in the order of their bytes.
//! Lives on: the asking half on any shard, the answering half on every owner's.

use super::find::found_of;
use super::id::Id;
use super::keeper::{Keeper, Keepers};
use super::message::{Answer, Ask, Found};
use super::{Streams, ask};
use crate::runtime::shard;
use crate::service::owner::space;
use crate::storage::{Entry, Found as Decided, Key, State, StoreError, Ticket};
use bytes::Bytes;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Names handled between two looks at the rest of the shard's work.
const TURN: usize = 256;

/// Metadata on one owner's part of a page: behind so many bytes it ends, so that no page is without bound.
const METADATA_MAX: usize = 1 << 20;

/// Which names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// Those that begin so.
    pub prefix: Bytes,
    /// Those behind this name.
    pub after: Option<Bytes>,
    /// Those that stand so.
    pub state: Option<State>,
    /// At most so many.
    pub limit: usize,
}

/// Part of a listing.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of their names.
    pub streams: Vec<Found>,
    /// Whether there are more behind them.
    pub has_more: bool,
}

impl Streams {
    /// The first names that fit `query`; fewer than its limit where metadata is large.
    pub async fn list(&self, query: Query) -> Result<Page, StoreError> {
        let mut pages = Vec::new();
        for owner in shard::current().all() {
            let page: Result<Page, StoreError> = ask!(self, owner, Ask::List(query.clone()), Answer::Listed);
            pages.push(page?);
        }
        Ok(merge(pages, query.limit))
    }

    /// The same, of the streams that `keepers` keep. It has more only if there is one more of those, but for pages that
    /// end early.
    pub async fn list_of(&self, query: Query, keepers: Keepers) -> Result<Page, StoreError> {
        let limit = query.limit;
        let mut shown: Vec<Found> = Vec::new();
        let mut rest = query;
        loop {
            rest.limit = limit + 1 - shown.len();
            let page = self.list(rest.clone()).await?;
            let last = page.streams.last().map(|found| found.id.clone());
            let before = shown.len();
            let seen = page.streams.len();
            shown.extend(page.streams.into_iter().filter(|found| keepers.keep(&found.id)));
            let is_full = shown.len() > limit || seen == shown.len() - before;
            let Some(last) = last.filter(|_| page.has_more && !is_full) else {
                let has_more = page.has_more || shown.len() > limit;
                shown.truncate(limit);
                return Ok(Page { streams: shown, has_more });
            };
            // All that one keeps under a prefix of its own is passed over in one step.
            rest.after = Some(match Keeper::of(&last) {
                keeper if keeper != Keeper::Loom && !keepers.keep(&last) => {
                    Id::last_with(keeper.prefix().as_bytes())
                }
                _ => Bytes::copy_from_slice(last.as_bytes()),
            });
        }
    }

    /// Deletes every name that begins with `prefix`, and says which, in order. Not one change: names that appear
    /// meanwhile may stay.
    pub async fn delete_prefix(&self, prefix: &[u8]) -> Result<Vec<Id>, StoreError> {
        let prefix = Bytes::copy_from_slice(prefix);
        let mut deleted = Vec::new();
        for owner in shard::current().all() {
            let part: Result<Vec<Id>, StoreError> =
                ask!(self, owner, Ask::DeletePrefix(prefix.clone()), Answer::DeletedAll);
            deleted.extend(part?);
        }
        deleted.sort_unstable();
        Ok(deleted)
    }
}

/// For every owner.
impl Streams {
    pub(super) async fn list_owned(self: Rc<Self>, query: Query) -> Result<Page, StoreError> {
        let mut page = Page { streams: Vec::new(), has_more: false };
        let mut names = Walk::new(&self, query.prefix, query.after);
        let mut metadata = 0;
        while let Some(entry) = names.next().await {
            if query.state.is_some_and(|state| state != entry.tail.state()) {
                continue;
            }
            if page.streams.len() == query.limit || metadata > METADATA_MAX {
                page.has_more = true;
                break;
            }
            metadata += entry.attributes().len();
            page.streams.push(found_of(Id::of_key(entry.key()), &entry));
        }
        self.store.names().committed(names.depends_on).await?;
        Ok(page)
    }

    pub(super) async fn decide_delete_prefix(self: Rc<Self>, prefix: Bytes) -> Result<Vec<Id>, StoreError> {
        let mut deleted = Vec::new();
        let mut names = Walk::new(&self, prefix, None);
        while let Some(entry) = names.next().await {
            // Decided on what the walk saw: an entry that was replaced since is another stream.
            let key = entry.key().to_key();
            let is_same = |now: &Entry| now.is(&entry);
            if !self.store.names().look(&key).entry.as_ref().is_some_and(is_same) {
                continue;
            }
            let Some(ticket) = self.store.names().delete(&key)? else { continue };
            names.depends_on = names.depends_on.max(ticket);
            self.let_go(entry.tail.uid());
            deleted.push(Id::of_key(entry.key()));
        }
        self.store.names().committed(names.depends_on).await?;
        self.metrics.streams_deleted.add(deleted.len() as u64);
        Ok(deleted)
    }
}

/// Goes through an owner's names, some at a time, so that a long way does not hold up the shard.
pub(super) struct Walk<'a> {
    streams: &'a Streams,
    prefix: Bytes,
    after: Option<Arc<[u8]>>,
    taken: VecDeque<(Key, Decided)>,
    /// What whoever tells of the names has to wait for. A name that is missing because of a pending deletion
    /// counts as much as one that is there.
    depends_on: Ticket,
    is_first: bool,
    is_over: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(streams: &'a Streams, prefix: Bytes, after: Option<Bytes>) -> Self {
        let after = after.map(|after| after[..].into());
        let (taken, depends_on) = (VecDeque::new(), Ticket::default());
        Walk { streams, prefix, after, taken, depends_on, is_first: true, is_over: false }
    }

    pub(super) async fn next(&mut self) -> Option<Entry> {
        loop {
            while let Some((key, found)) = self.taken.pop_front() {
                self.depends_on = self.depends_on.max(found.ticket);
                self.after = Some(key.bytes);
                if found.entry.is_some() {
                    return found.entry;
                }
            }
            if self.is_over {
                return None;
            }
            if !std::mem::replace(&mut self.is_first, false) {
                shard::yield_now().await;
            }
            let names = self.streams.store.names();
            self.taken = names.iterate(space::STREAMS, &self.prefix, self.after.as_deref(), TURN).into();
            self.is_over = self.taken.len() < TURN;
        }
    }
}

/// The first `limit` of sorted parts. Behind the last name of a part that has more, nobody knows what comes first.
fn merge(pages: Vec<Page>, limit: usize) -> Page {
    let ends = pages.iter().filter(|page| page.has_more).filter_map(|page| page.streams.last());
    let horizon = ends.map(|last| last.id.clone()).min();
    let mut streams: Vec<Found> = pages.into_iter().flat_map(|page| page.streams).collect();
    // The sort finds the sorted parts by itself, and so merges them.
    streams.sort_by(|one, other| one.id.cmp(&other.id));
    let known =
        streams.iter().take_while(|found| horizon.as_ref().is_none_or(|end| found.id <= *end)).count();
    let has_more = horizon.is_some() || known > limit;
    streams.truncate(known.min(limit));
    Page { streams, has_more }
}

//! Telling the other shards of a store that there is something to look at, without saying what.
//!
//! What there is to see lies in atomics that all share; whoever changed them tells, and everybody looks at the start
//! of the next turn. Invariant: a shard that waits looks again after everything that was told.
//! Lives on: one per shard, around a counter that all share.

use super::OnPeer;
use crate::runtime::ShardId;
use crate::runtime::notify::{Notify, Waiting};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub struct Peers {
    shards: usize,
    /// Raised with everything that is told.
    news: Arc<AtomicU64>,
    seen: Cell<u64>,
    wake: Notify,
    on_peer: RefCell<Option<OnPeer>>,
}

impl Peers {
    /// One of `shards` shards that share `news`.
    pub fn new(shards: usize, news: Arc<AtomicU64>) -> Self {
        Peers { shards, news, seen: Cell::new(0), wake: Notify::new(), on_peer: RefCell::new(None) }
    }

    /// See [`super::Store::on_peer`].
    pub fn set_on_peer(&self, on_peer: OnPeer) {
        *self.on_peer.borrow_mut() = Some(on_peer);
    }

    /// Tells every shard, this one included.
    pub fn tell(&self) {
        self.news.fetch_add(1, Ordering::AcqRel);
        if let Some(on_peer) = &*self.on_peer.borrow() {
            (0..self.shards).for_each(|shard| on_peer(ShardId(shard as u16)));
        }
    }

    /// The start of a turn: whether something was told.
    pub fn look(&self) -> bool {
        let news = self.news.load(Ordering::Acquire);
        let is_news = self.seen.replace(news) != news;
        if is_news {
            self.wake.notify_all();
        }
        is_news
    }

    /// Has those who wait on this shard look again.
    pub fn look_again(&self) {
        self.wake.notify_all();
    }

    /// Resolves with the next thing that is told.
    pub fn told(&self) -> Waiting<'_> {
        self.wake.wait()
    }

    /// Waits until `reached`.
    pub async fn until(&self, reached: impl Fn() -> bool) {
        loop {
            let told = self.told();
            if reached() {
                return;
            }
            told.await;
        }
    }
}

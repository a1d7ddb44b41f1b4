//! Repacking: small blobs leave packs of which most is gone, so that the rest of those goes too.
//!
//! Now and then, if anything was replaced or deleted, each owner walks its links. A small blob in a pack of which less
//! than half is linked is read, checked, appended to the pack that is being filled, and its link says so from then on.
//! Readers keep the old bytes for as long as they have them. Invariant: a link that changed meanwhile is left alone.
//! Lives on: one task per shard, for the names that it owns.

use super::Blobs;
use super::pack::PACKED_MAX;
use crate::runtime::{shard, timer};
use crate::service::owner::space;
use crate::service::warm;
use crate::storage::{Key, Link, Parts, StoreError};
use std::ops::Bound;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How often packs are looked at.
const PAUSE: Duration = Duration::from_secs(20);
/// Links looked at between two chances for everything else on the shard.
const LINKS_PER_STEP: usize = 256;
/// Bytes moved per second: what is copied here competes with everything else.
const BUDGET: u64 = 32 << 20;

impl Blobs {
    pub(super) fn start_repacking(self: &Rc<Self>) {
        let blobs = Rc::downgrade(self);
        shard::spawn("repack", run(blobs));
    }

    async fn repack(self: &Rc<Self>) -> Result<(), StoreError> {
        for space in space::OF_BLOBS {
            let mut after: Option<Key> = None;
            loop {
                let (mut sparse, mut seen) = (Vec::new(), 0);
                let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&*key.bytes));
                let mut last = None;
                self.store.links().each(space, from, |key, linked| {
                    seen += 1;
                    last = Some(key.to_key());
                    if let Some(link) = linked.link.as_ref().filter(|link| lies_in_a_sparse_pack(link)) {
                        sparse.push((key.to_key(), link.clone()));
                    }
                    seen < LINKS_PER_STEP
                });
                for (key, link) in sparse {
                    self.move_one(&key, &link).await?;
                    timer::sleep(Duration::from_nanos(link.parts.len() * 1_000_000_000 / BUDGET)).await;
                }
                if seen < LINKS_PER_STEP {
                    break;
                }
                after = last;
                shard::yield_now().await;
            }
        }
        Ok(())
    }

    async fn move_one(self: &Rc<Self>, key: &Key, link: &Link) -> Result<(), StoreError> {
        if self.putting.is_closing() {
            return Err(StoreError::Closing);
        }
        let [part] = link.parts.as_slice() else { return Ok(()) };
        let (tail, mut bytes) = (part.body().tail(), Vec::with_capacity(part.len() as usize));
        while (bytes.len() as u64) < part.len() {
            let at = part.from() + bytes.len() as u64;
            let range = tail.range(at, part.len() - bytes.len() as u64).ok_or(StoreError::SyncFailed)?;
            match warm::warm(&self.store, tail, at, &range).await {
                // Damage stays where it is, with the one blob that it hit; others in the pack can leave.
                Err(StoreError::Damaged(_)) => return Ok(()),
                warmed => warmed?,
            }
            bytes.extend(warm::load(range).await?);
        }
        let parts: Parts = self.packer.append(&self.store, &bytes).await?.into_iter().collect();
        if let Some(moved) = self.store.links().relocate(key, link.version, parts)? {
            self.store.links().committed(&moved).await?;
            self.metrics.blobs_repacked.inc();
        }
        Ok(())
    }
}

async fn run(blobs: Weak<Blobs>) {
    loop {
        timer::sleep(PAUSE).await;
        let Some(blobs) = blobs.upgrade().filter(|blobs| !blobs.putting.is_closing()) else { return };
        if !blobs.churned.replace(false) {
            continue;
        }
        if let Err(error) = blobs.repack().await {
            tracing::info!(%error, "small blobs stay where they are for the time being");
            blobs.churned.set(true);
        }
    }
}

fn lies_in_a_sparse_pack(link: &Link) -> bool {
    match link.parts.as_slice() {
        [part] => part.len() <= PACKED_MAX as u64 && part.body().is_sparse(),
        _ => false,
    }
}

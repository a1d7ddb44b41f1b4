//! Taking the beginning of a stream: the record, the wait, and then the bytes.
//!
//! Like a deletion of the name, a trim is decided by the owner and written to its journal. Until that record is durable
//! nothing changes for anyone; a failed sync makes it void and nothing has happened. Then the start mark moves, and the
//! runs in front of it are dead.
//!
//! Invariant: bytes die only when the record that says so is durable, in both durability classes, and no checkpoint
//! covers it before the mark has moved. Lives on: the owner's shard.

use super::Store;
use super::checkpoint;
use super::core::Core;
use super::error::StoreError;
use super::journal::record::Record;
use super::names::Entry;
use super::reclaim;
use super::tail::{State, Tail};
use crate::runtime::executor::critical;
use crate::runtime::notify::{Answer, answer};
use crate::runtime::shard;

impl Store {
    /// Decides that the stream of `entry`, which this shard owns, begins at `to`, where one of [`Tail::old_runs`]
    /// ends; `None` when it cannot. The answer comes once the bytes before are dead, with how many that were. It
    /// happens also when nobody waits for that.
    pub fn trim(
        &self,
        entry: &Entry,
        to: u64,
    ) -> Result<Option<Answer<Result<u64, StoreError>>>, StoreError> {
        let core = &self.core;
        core.admit()?;
        let tail = &entry.tail;
        if !tail.may_begin_at(to) || tail.has_failed() || tail.state() == State::Gone {
            return Ok(None);
        }
        let seq = core.decide(&Record::Trim { uid: tail.uid(), first: to }, tail.key_hash());
        let untold = checkpoint::round::State::untold(core, seq);
        core.nudge();
        let (answerer, waiting) = answer();
        let (core, tail) = (core.clone(), tail.clone());
        shard::spawn("trim a stream", async move {
            let durable = core.reached(seq, |core| core.journal.borrow().synced_seq()).await;
            let trimmed = durable.map(|()| critical(|| begin_at(&core, &tail, to)));
            drop(untold);
            answerer.give(trimmed);
        });
        Ok(Some(waiting))
    }
}

/// How many bytes are dead by it.
fn begin_at(core: &Core, tail: &Tail, to: u64) -> u64 {
    // Deleted or replaced meanwhile: whoever reads it reads on, and all of it dies in a moment.
    if tail.state() == State::Gone {
        return 0;
    }
    let bytes = to.saturating_sub(tail.first());
    tail.begin_at(to, |segment, len| reclaim::count_dead(core, segment, len));
    core.discount_some(tail, bytes);
    bytes
}

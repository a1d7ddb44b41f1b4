//! Growing bytes with live readers.
//!
//! A stream has an owner (by its name), a home (the shard that has its producer) and readers anywhere:
//!
//! | who | has | decides |
//! |---|---|---|
//! | owner | the name's record, which shard has the producer | who may open, resume, delete |
//! | home | the appender, in a desk that outlives the connection | when bytes are published, how the stream ends |
//! | reader | a position in the shared tail | nothing; it never holds anyone up |
//!
//! Invariants: the owner decides at once on what is pending and answers conflicts, lookups and lists once they
//! are committed; what must finish (seal, sync, letting go) runs in tasks of the shard, so that a dropped
//! connection drops only its answer; a stream has at most one appender, and the next epoch begins after the one
//! before has let go. Lives on: one [`Streams`] per shard.

mod append;
mod find;
mod follow;
mod id;
mod keeper;
mod limits;
mod list;
mod message;
mod open;
mod retain;
mod spy;
#[cfg(test)]
mod tests;

pub use append::Producer;
pub use follow::{Follower, Look};
pub use id::{BadId, Id};
use keeper::Each;
pub use keeper::{Keeper, Keepers};
pub use limits::{Limit, Limits, ProduceError};
pub use list::{Page, Query};
pub use message::{Announced, Answer, Ask, Found, Mailbox};
pub use open::{Open, OpenError, Opened, Resume};
pub use retain::{Old, Oldest, Reaped, Reason, Retention};
pub use spy::{Sight, Spy, SpyError, What};

/// Reads bytes that a follower gave, for who has to look at them.
pub use crate::service::warm::load;
/// How streams stand and what disks do, in the words of the store.
pub use crate::storage::{Damage, End, State, StoreError, Tail};

use crate::observe::metrics::ShardMetrics;
use crate::runtime::gate::Gate;
use crate::runtime::mailbox::{Post, Reply};
use crate::runtime::park::Unpark;
use crate::runtime::{ShardId, shard};
use crate::service::owner;
use crate::storage::{Store, placement_hash};
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// The streams as one shard sees them.
pub struct Streams {
    me: ShardId,
    store: Rc<Store>,
    metrics: Arc<ShardMetrics>,
    limits: Cell<Each<Limits>>,
    post: OnceCell<Rc<Post<Ask, Answer>>>,
    /// One pass per producer, until its stream is sealed.
    producing: Gate,
    /// As the owner: where the appenders are.
    appenders: open::Appenders,
    /// As the home: the producers here.
    desks: append::Desks,
    /// As a reader's shard: who waits here, and whom to wake elsewhere.
    waits: follow::Waits,
    /// As a spy's shard, and as a home that spies watch.
    spies: spy::Spies,
    /// What of this shard's streams goes when.
    reaper: retain::Reaper,
}

/// Asks another shard and unwraps the kind of answer that the question has.
macro_rules! ask {
    ($streams:expr, $to:expr, $question:expr, $answer:path) => {
        match $streams.post().ask($to, $question).await {
            Ok($answer(answer)) => answer,
            Ok(_) => unreachable!("every question has its own kind of answer"),
            Err($crate::runtime::mailbox::Gone) => Err($crate::storage::StoreError::Closing.into()),
        }
    };
}
use ask;

impl Streams {
    /// Starts the service on the current shard. The store of this shard was started before, because what it
    /// publishes at the end of a turn is to be told to others at the end of the same turn.
    pub fn start(
        store: Rc<Store>,
        mailbox: Mailbox,
        unparks: Vec<Arc<Unpark>>,
        metrics: Arc<ShardMetrics>,
    ) -> Rc<Self> {
        let shard = shard::current();
        let streams = Rc::new(Streams {
            me: shard.id(),
            store,
            metrics,
            limits: Cell::default(),
            post: OnceCell::new(),
            producing: Gate::new(),
            appenders: open::Appenders::default(),
            desks: append::Desks::default(),
            waits: follow::Waits::new(shard.count()),
            spies: spy::Spies::default(),
            reaper: retain::Reaper::default(),
        });
        let (wakes, flushes, answers) =
            (Rc::downgrade(&streams), Rc::downgrade(&streams), Rc::downgrade(&streams));
        streams.store.on_wake(Box::new(move |shard, uid| {
            if let Some(streams) = wakes.upgrade() {
                streams.wake(shard, uid);
            }
        }));
        // Before the mailbox's own hook, so that wake-ups leave in the turn they belong to.
        shard.at_turn_end(Box::new(move || flushes.upgrade().is_some_and(|streams| streams.flush_wakes())));
        let post = mailbox.open(unparks, move |from, question, reply| {
            if let Some(streams) = answers.upgrade() {
                streams.answer(from, question, reply);
            }
        });
        assert!(streams.post.set(post).is_ok(), "a service starts once");
        streams.start_reapers();
        streams
    }

    /// Takes other limits for the streams of `keeper`: for what is opened, and for what is received, from now on.
    pub fn set_limits(&self, keeper: Keeper, limits: Limits) {
        self.limits.set(self.limits.get().with(keeper, limits));
    }

    /// Ends the spies: they would go on for ever, and nothing waits for an end of theirs.
    pub fn end_spies(&self) {
        self.spies.close();
    }

    /// Takes no new producers, and resolves once those that are there have sealed their streams; spies end then.
    pub async fn drain(&self) {
        self.end_retention();
        self.producing.close();
        self.producing.closed().await;
        self.spies.close();
    }

    /// Brings the counters of messages to other shards up to date.
    pub fn count_messages(&self) {
        let counts = self.post().counts();
        let sent = counts.asks.value() + counts.tells.value();
        self.metrics.mailbox_messages.add(sent - self.metrics.mailbox_messages.value());
        self.metrics.mailbox_lanes_full.add(counts.full.value() - self.metrics.mailbox_lanes_full.value());
    }

    /// The store under them.
    pub fn store(&self) -> &Rc<Store> {
        &self.store
    }

    /// The shard that decides about the stream of this id.
    pub fn owner_of_id(&self, id: &[u8]) -> ShardId {
        self.store.owner_of_hash(placement_hash(owner::space::STREAMS, id))
    }

    /// Where this shard counts.
    pub fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    fn post(&self) -> &Post<Ask, Answer> {
        self.post.get().expect("set at the start")
    }

    fn owner_of(&self, id: &Id) -> ShardId {
        owner::of(&self.store, id.key_ref())
    }

    /// What this shard does with a message. What can be said at once is said at once; the rest in a task.
    fn answer(self: Rc<Self>, from: ShardId, question: Ask, reply: Option<Reply<Answer>>) {
        match question {
            Ask::Open { id, home, force, metadata } => self.reply(reply, async move |streams| {
                Answer::Opened(streams.decide_open(from, id, home, force, metadata).await)
            }),
            Ask::Resume { id, offset, epoch } => self.reply(reply, async move |streams| {
                Answer::Opened(streams.decide_resume(from, id, offset, epoch).await)
            }),
            Ask::Withdraw { id, uid } => self
                .reply(reply, async move |streams| Answer::Settled(streams.decide_withdraw(id, uid).await)),
            Ask::Settle(ticket) => self.reply(reply, async move |streams| {
                Answer::Settled(streams.store.names().committed(ticket).await)
            }),
            Ask::Find(id) => {
                self.reply(reply, async move |streams| Answer::Found(streams.look_up(&id).await));
            }
            Ask::Delete(id) => {
                self.reply(reply, async move |streams| Answer::Deleted(streams.decide_delete(id).await))
            }
            Ask::DeletePrefix(prefix) => self.reply(reply, async move |streams| {
                Answer::DeletedAll(streams.decide_delete_prefix(prefix).await)
            }),
            Ask::List(query) => {
                self.reply(reply, async move |streams| Answer::Listed(streams.list_owned(query).await));
            }
            Ask::Fence { uid, epoch } => match self.fence(uid, epoch) {
                None => give(reply, Answer::Settled(Ok(()))),
                Some(desk) => self.reply(reply, async move |_| {
                    desk.closed().await;
                    Answer::Settled(Ok(()))
                }),
            },
            Ask::LetGo { uid, epoch } => self.appenders.remove(uid, from, epoch),
            Ask::Crowded => self.note_crowded(),
            Ask::Oldest(keeper, bytes) => self
                .reply(reply, async move |streams| Answer::Oldest(streams.oldest_owned(keeper, bytes).await)),
            Ask::Reap(chosen, reason) => {
                self.reply(reply, async move |streams| Answer::Reaped(streams.reap(chosen, reason).await))
            }
            Ask::Wake(uids) => uids.into_iter().for_each(|uid| self.wake_here(uid)),
            Ask::Watch => {
                self.spies.watched_by(from);
                give(reply, Answer::Active(Ok(self.desks.active())));
            }
            Ask::Unwatch => self.spies.unwatched_by(from),
            Ask::Announce(announced) => self.spies.announce(&announced),
        }
    }

    fn reply<F>(self: Rc<Self>, reply: Option<Reply<Answer>>, work: impl FnOnce(Rc<Self>) -> F)
    where
        F: Future<Output = Answer> + 'static,
    {
        let work = work(self);
        shard::spawn("stream answer", async move { give(reply, work.await) });
    }
}

/// How a stream stands, in a word. One that was deleted or replaced ends as if its producer had vanished.
pub fn state_text(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Complete => "complete",
        State::Interrupted | State::Gone => "interrupted",
    }
}

fn give(reply: Option<Reply<Answer>>, answer: Answer) {
    if let Some(reply) = reply {
        reply.give(answer);
    }
}

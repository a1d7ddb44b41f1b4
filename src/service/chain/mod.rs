//! What modules of a chain leave for each other: documents and events, and the change that commits both together with
//! blobs.
//!
//! Everything that a module leaves is of one group in the store, so one shard, its owner, decides about all of it, and a
//! change of several things is one record: a crash leaves all of it or nothing. The events of a chain are a stream of
//! their own, `ion/` and the correlation id, which another shard may own; what a record says of events waits in an outbox
//! beside it until it is in that stream, and is looked for there before it is appended a second time.
//!
//! | who | has | decides |
//! |---|---|---|
//! | owner of the module | its blobs, its document, its outbox, the keys of what it posted | what is committed, in which order |
//! | owner of the topic | the appender of the chain's stream | in which order events are in it |
//!
//! Invariants: who sees a blob of a commit and then asks for events is shown those of that commit; a topic has one
//! appender, and in it an event is one line that comes once.
//! Lives on: one [`Chain`] per shard.

mod commit;
mod document;
mod message;
mod modules;
mod outbox;
mod registry;
#[cfg(test)]
mod tests;
mod topic;

pub use commit::{Commit, CommitError, Committed, Key, RECORDS_MAX};
pub use document::Document;
pub use message::{Answer, Ask, Mailbox};
pub use modules::{Digest, Module, Modules, Table, Taken, digest_of};
pub use registry::Registration;
pub use topic::{Topic, topic_of};

use crate::runtime::gate::Gate;
use crate::runtime::mailbox::{Post, Reply};
use crate::runtime::notify::Notify;
use crate::runtime::park::Unpark;
use crate::runtime::{ShardId, shard};
use crate::service::blob::{Blobs, Name};
use crate::service::owner::space;
use crate::service::stream::Streams;
use crate::storage::{Store, StoreError, placement_hash};
use std::cell::OnceCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who a module is: what it reacts to, what caused that, and the chain that both belong to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The event that the module handles, under which all that it leaves is found.
    pub event: Box<str>,
    /// The event that caused it.
    pub parent: Box<str>,
    /// What ties the chain together.
    pub correlation: Box<str>,
}

impl Identity {
    /// The longest of the three ids, in bytes.
    pub const ID_MAX: usize = 255;

    /// Whether `text` can be one.
    pub fn is_id(text: &str) -> bool {
        (1..=Self::ID_MAX).contains(&text.len()) && !text.contains(char::is_control)
    }
}

/// The chains as one shard sees them.
pub struct Chain {
    store: Rc<Store>,
    blobs: Rc<Blobs>,
    streams: Rc<Streams>,
    post: OnceCell<Rc<Post<Ask, Answer>>>,
    stamps: Stamps,
    documents: document::Index,
    outbox: outbox::Outbox,
    topics: topic::Topics,
    /// One pass per commit, until its events are where they belong.
    committing: Gate,
    /// Told of every registration, and of the end.
    registrations: Notify,
}

/// Asks another shard and unwraps the kind of answer that the question has.
macro_rules! ask {
    ($chain:expr, $to:expr, $question:expr, $answer:path) => {
        match $chain.post().ask($to, $question).await {
            Ok($answer(answer)) => answer,
            Ok(_) => unreachable!("every question has its own kind of answer"),
            Err($crate::runtime::mailbox::Gone) => Err($crate::storage::StoreError::Closing.into()),
        }
    };
}
use ask;

impl Chain {
    /// Starts the service on the current shard, whose blobs and streams were started before. `stamps` are all shards'.
    pub fn start(
        blobs: Rc<Blobs>,
        streams: Rc<Streams>,
        store: Rc<Store>,
        stamps: Stamps,
        mailbox: Mailbox,
        unparks: Vec<Arc<Unpark>>,
    ) -> Rc<Self> {
        let chain = Rc::new(Chain {
            documents: document::Index::read(&store, &stamps),
            outbox: outbox::Outbox::read(&store, &stamps),
            store,
            blobs,
            streams,
            post: OnceCell::new(),
            stamps,
            topics: topic::Topics::default(),
            committing: Gate::new(),
            registrations: Notify::new(),
        });
        let answers = Rc::downgrade(&chain);
        let post = mailbox.open(unparks, move |_, question, reply| {
            if let Some(chain) = answers.upgrade() {
                chain.answer(question, reply);
            }
        });
        assert!(chain.post.set(post).is_ok(), "a service starts once");
        chain.start_delivering();
        chain.start_clearing();
        chain
    }

    /// Takes no new commits, and resolves once those that are there have their events in their streams; these are let
    /// go of then.
    pub async fn drain(&self) {
        self.committing.close();
        self.registrations.notify_all();
        self.committing.closed().await;
        self.topics.close();
    }

    fn post(&self) -> &Post<Ask, Answer> {
        self.post.get().expect("set at the start")
    }

    fn owner_of_module(&self, event: &str) -> ShardId {
        self.store.owner_of_hash(placement_hash(space::MODULE_BLOBS, event.as_bytes()))
    }

    fn answer(self: Rc<Self>, question: Ask, reply: Option<Reply<Answer>>) {
        match question {
            Ask::Commit(identity, commit) => self.reply(reply, async move |chain| {
                Answer::Committed(chain.decide_commit(identity, commit).await)
            }),
            Ask::Chain(correlation) => {
                self.reply(reply, async move |chain| Answer::Chain(chain.documents_owned(correlation).await))
            }
            Ask::Settle(correlation) => {
                self.reply(reply, async move |chain| Answer::Settled(chain.outbox.settle(&correlation).await))
            }
            Ask::Append(topic, events) => self.reply(reply, async move |chain| {
                Answer::Appended(chain.append_to_topic(topic, events).await)
            }),
            Ask::Register(event, module) => {
                self.reply(reply, async move |chain| Answer::Done(chain.decide_register(event, module).await))
            }
            Ask::TakeOut(event) => {
                self.reply(reply, async move |chain| Answer::Changed(chain.decide_take_out(event).await))
            }
            Ask::Topic(topic, open) => {
                self.reply(reply, async move |chain| Answer::Topic(chain.look_at_topic(topic, open).await))
            }
        }
    }

    fn reply<F>(self: Rc<Self>, reply: Option<Reply<Answer>>, work: impl FnOnce(Rc<Self>) -> F)
    where
        F: Future<Output = Answer> + 'static,
    {
        let work = work(self);
        shard::spawn("chain answer", async move {
            let answer = work.await;
            if let Some(reply) = reply {
                reply.give(answer);
            }
        });
    }
}

/// Numbers that order what all shards decide: greater than every one before, and about the time in microseconds.
#[derive(Clone, Default)]
pub struct Stamps(Arc<AtomicU64>);

impl Stamps {
    fn next(&self) -> u64 {
        let now = shard::current().wall().unix_millis() * 1000;
        let after = |last: u64| now.max(last + 1);
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(after(last)));
        after(last.unwrap_or_else(|last| last))
    }

    /// `stamp` was given before this start.
    fn note(&self, stamp: u64) {
        self.0.fetch_max(stamp, Ordering::SeqCst);
    }
}

/// The name of something of a module. Ids are looked at where they are configured.
fn name_of(space: u8, event: &str, key: &[u8]) -> Name {
    Name::of_group(space, event, key).expect("an id has 1 to 255 bytes and no NUL, a key 1 to 1024 bytes")
}

/// Whoever waits for the store of a shard that ends.
fn closing<T>() -> Result<T, StoreError> {
    Err(StoreError::Closing)
}

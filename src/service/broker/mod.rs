//! Topics: what is published reaches everyone who subscribes now, encoded once.
//!
//! A topic has an owner, found by its hash, which alone knows who subscribes. A publisher gives its messages to the
//! owner; the owner tells each shard that has subscribers, with one copy of the message however many there are; that
//! shard puts it into their outboxes. In a *queue group* one member gets each message, in turns. What a member that
//! leaves has not been sent goes to another one of its group, once.
//!
//! Invariants: what one publisher publishes arrives in its order; a subscription holds from the moment at which it was
//! answered; a slow subscriber loses its connection and holds nobody up. What when full? A publisher waits until the
//! shards that it reaches have its messages in their outboxes; an outbox that is full ends its session
//! ([`crate::net::websocket::session`]), and is counted. Nothing is stored: who is not there gets nothing.
//! Lives on: one [`Broker`] per shard.

mod topic;

use crate::net::websocket::session::{Outbox, Pushed};
use crate::observe::metrics::ShardMetrics;
use crate::runtime::mailbox::{self, Post, Reply};
use crate::runtime::park::Unpark;
use crate::runtime::{ShardId, shard};
use crate::service::owner;
use crate::service::pulse::Report;
use bytes::Bytes;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use topic::{Member, Topic};

/// One shard's mailbox of this service.
pub type Mailbox = mailbox::Mailbox<Ask, Answer>;

/// What shards say to each other.
#[derive(Debug)]
pub enum Ask {
    /// To the owner: your topic has a subscriber more.
    Subscribe {
        /// The topic.
        topic: Arc<str>,
        /// Its group.
        queue: Option<Arc<str>>,
        /// Its number at the asking shard.
        member: u64,
    },
    /// To the owner, not answered: one less. What was for it alone and did not reach it comes back.
    Unsubscribe {
        /// The topic.
        topic: Arc<str>,
        /// Its group.
        queue: Option<Arc<str>>,
        /// Its number at the telling shard.
        member: u64,
        /// What is to be given to another member.
        unsent: Vec<Bytes>,
    },
    /// To the owner: messages, in the order in which they are to arrive.
    Publish {
        /// The topic.
        topic: Arc<str>,
        /// Whole frames.
        frames: Vec<Bytes>,
    },
    /// From the owner, not answered: put these into outboxes.
    Deliver(Vec<Delivery>),
    /// From the owner: answered once everything before it was delivered, which is at once.
    Reached,
}

/// A message for subscribers of one shard.
#[derive(Clone, Debug)]
pub struct Delivery {
    topic: Arc<str>,
    frame: Bytes,
    /// For every plain subscriber; else for one member.
    to: Option<(Arc<str>, u64)>,
    /// It was for another member before.
    again: bool,
}

/// The answer to any of them.
pub type Answer = ();

/// The daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing;

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the daemon is ending")
    }
}

impl std::error::Error for Closing {}

/// The broker as one shard sees it.
pub struct Broker {
    me: ShardId,
    shards: usize,
    metrics: Arc<ShardMetrics>,
    post: OnceCell<Rc<Post<Ask, Answer>>>,
    /// As the owner.
    topics: RefCell<HashMap<Arc<str>, Topic>>,
    /// As the subscribers' shard.
    here: RefCell<HashMap<Arc<str>, Here>>,
    members: Cell<u64>,
}

/// The subscribers of a topic on this shard, by their numbers.
#[derive(Default)]
struct Here {
    plain: BTreeMap<u64, Rc<Outbox>>,
    grouped: HashMap<u64, Rc<Outbox>>,
}

impl Broker {
    /// Starts the service on the current shard.
    pub fn start(mailbox: Mailbox, unparks: Vec<Arc<Unpark>>, metrics: Arc<ShardMetrics>) -> Rc<Self> {
        let shard = shard::current();
        let broker = Rc::new(Broker {
            me: shard.id(),
            shards: shard.count(),
            metrics,
            post: OnceCell::new(),
            topics: RefCell::default(),
            here: RefCell::default(),
            members: Cell::new(0),
        });
        let answers = Rc::downgrade(&broker);
        let post = mailbox.open(unparks, move |from, question, reply| {
            if let Some(broker) = answers.upgrade() {
                broker.answer(from, question, reply);
            }
        });
        assert!(broker.post.set(post).is_ok(), "a service starts once");
        broker
    }

    /// Subscribes to `topic`, in a group or for oneself. What is published from here on is in the outbox.
    pub async fn subscribe(
        self: &Rc<Self>,
        topic: &str,
        queue: Option<&str>,
    ) -> Result<Subscription, Closing> {
        let member = self.members.get();
        self.members.set(member + 1);
        let (topic, queue): (Arc<str>, Option<Arc<str>>) = (topic.into(), queue.map(Into::into));
        let outbox = Rc::new(Outbox::default());
        self.settle_in(&topic, queue.is_some(), member, &outbox);
        self.metrics.broker_subscribers.inc();
        // Made before the question, so that a caller that is dropped while it waits leaves nothing behind.
        let (broker, asked) =
            (self.clone(), Ask::Subscribe { topic: topic.clone(), queue: queue.clone(), member });
        let subscription = Subscription { broker, topic, queue, member, outbox };
        self.post().ask(self.owner_of(&subscription.topic), asked).await.map_err(|_| Closing)?;
        Ok(subscription)
    }

    fn settle_in(&self, topic: &Arc<str>, in_group: bool, member: u64, outbox: &Rc<Outbox>) {
        let mut here = self.here.borrow_mut();
        let subscribers = here.entry(topic.clone()).or_default();
        match in_group {
            false => subscribers.plain.insert(member, outbox.clone()),
            true => subscribers.grouped.insert(member, outbox.clone()),
        };
    }

    /// Publishes frames, one behind the other. Resolves once they are in the outboxes of all who subscribe.
    pub async fn publish(&self, topic: &str, frames: Vec<Bytes>) -> Result<(), Closing> {
        let topic: Arc<str> = topic.into();
        self.post().ask(self.owner_of(&topic), Ask::Publish { topic, frames }).await.map_err(|_| Closing)
    }

    /// What this shard sees of topics: as the owner, and as the shard of subscribers.
    pub fn report(&self, report: &mut Report) {
        for (name, topic) in self.topics.borrow().iter() {
            let shown = report.topics.entry(name.to_string()).or_default();
            shown.subscribers = topic.subscribers() as u64;
            shown.published = topic.published;
        }
        for (name, here) in self.here.borrow().iter() {
            let outboxes = here.plain.values().chain(here.grouped.values());
            let waiting = outboxes.map(|outbox| outbox.waiting()).max().unwrap_or(0);
            report.topics.entry(name.to_string()).or_default().waiting = waiting as u64;
        }
    }

    fn owner_of(&self, topic: &str) -> ShardId {
        owner::of_topic(topic, self.shards)
    }

    fn post(&self) -> &Rc<Post<Ask, Answer>> {
        self.post.get().expect("set at the start")
    }

    fn answer(self: Rc<Self>, from: ShardId, question: Ask, reply: Option<Reply<Answer>>) {
        let waits_for = match question {
            Ask::Subscribe { topic, queue, member } => {
                let mut topics = self.topics.borrow_mut();
                topics.entry(topic).or_default().add(queue.as_ref(), (from, member));
                BTreeSet::new()
            }
            Ask::Unsubscribe { topic, queue, member, unsent } => {
                self.unsubscribe(&topic, queue.as_ref(), (from, member));
                if let Some(queue) = queue {
                    self.redeliver(&topic, &queue, unsent);
                }
                BTreeSet::new()
            }
            Ask::Publish { topic, frames } => self.fan_out(&topic, frames),
            Ask::Deliver(deliveries) => {
                deliveries.into_iter().for_each(|delivery| self.deliver(delivery));
                BTreeSet::new()
            }
            Ask::Reached => BTreeSet::new(),
        };
        let Some(reply) = reply else { return };
        if waits_for.is_empty() {
            return reply.give(());
        }
        shard::spawn("broker answer", async move {
            for shard in waits_for {
                // A shard that has ended has no subscribers.
                let _ = self.post().ask(shard, Ask::Reached).await;
            }
            reply.give(());
        });
    }

    fn unsubscribe(&self, name: &Arc<str>, queue: Option<&Arc<str>>, member: Member) {
        let mut topics = self.topics.borrow_mut();
        let Some(topic) = topics.get_mut(name) else { return };
        topic.remove(queue, member);
        if topic.is_empty() {
            topics.remove(name);
        }
    }

    /// As the owner: sends messages on their way. The shards, other than this one, that were told.
    fn fan_out(&self, name: &Arc<str>, frames: Vec<Bytes>) -> BTreeSet<ShardId> {
        self.metrics.broker_published.add(frames.len() as u64);
        let mut told: BTreeMap<ShardId, Vec<Delivery>> = BTreeMap::new();
        let mut topics = self.topics.borrow_mut();
        let Some(topic) = topics.get_mut(name) else { return BTreeSet::new() };
        topic.published += frames.len() as u64;
        for frame in frames {
            let to = |to| Delivery { topic: name.clone(), frame: frame.clone(), to, again: false };
            for shard in topic.plain() {
                told.entry(shard).or_default().push(to(None));
            }
            for (queue, (shard, member)) in topic.turns() {
                told.entry(shard).or_default().push(to(Some((queue.clone(), member))));
            }
        }
        drop(topics);
        self.tell(told)
    }

    /// As the owner: gives what one member of a group did not get to others.
    fn redeliver(&self, name: &Arc<str>, queue: &Arc<str>, frames: Vec<Bytes>) {
        let mut told: BTreeMap<ShardId, Vec<Delivery>> = BTreeMap::new();
        for frame in frames {
            let turn = self.topics.borrow_mut().get_mut(name).and_then(|topic| topic.turn_of(queue));
            let Some((shard, member)) = turn else { break };
            self.metrics.broker_redelivered.inc();
            let to = Some((queue.clone(), member));
            told.entry(shard).or_default().push(Delivery { topic: name.clone(), frame, to, again: true });
        }
        self.tell(told);
    }

    fn tell(&self, told: BTreeMap<ShardId, Vec<Delivery>>) -> BTreeSet<ShardId> {
        let others = told.keys().copied().filter(|shard| *shard != self.me).collect();
        for (shard, deliveries) in told {
            self.post().tell(shard, Ask::Deliver(deliveries));
        }
        others
    }

    /// As the subscribers' shard: puts a message into outboxes.
    fn deliver(&self, delivery: Delivery) {
        let Delivery { topic, frame, to, again } = delivery;
        let here = self.here.borrow();
        let here = here.get(&topic);
        match to {
            None => {
                for outbox in here.into_iter().flat_map(|here| here.plain.values()) {
                    self.push(outbox, &frame, false);
                }
            }
            Some((queue, member)) => {
                let outbox = here.and_then(|here| here.grouped.get(&member));
                let is_queued = outbox.is_some_and(|outbox| self.push(outbox, &frame, again));
                // It left while the message was on its way.
                if !is_queued && !again {
                    let statement = Ask::Unsubscribe {
                        topic: topic.clone(),
                        queue: Some(queue),
                        member,
                        unsent: vec![frame],
                    };
                    self.post().tell(self.owner_of(&topic), statement);
                }
            }
        }
    }

    fn push(&self, outbox: &Outbox, frame: &Bytes, again: bool) -> bool {
        let pushed = outbox.push(frame, again);
        match pushed {
            Pushed::Queued => self.metrics.broker_delivered.inc(),
            Pushed::Overflowed => self.metrics.broker_slow_subscribers.inc(),
            Pushed::Ended => {}
        }
        pushed == Pushed::Queued
    }
}

/// A subscription, as long as it lives.
pub struct Subscription {
    broker: Rc<Broker>,
    topic: Arc<str>,
    queue: Option<Arc<str>>,
    member: u64,
    outbox: Rc<Outbox>,
}

impl Subscription {
    /// Where its messages are.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (broker, member) = (&self.broker, self.member);
        let mut here = broker.here.borrow_mut();
        if let Some(subscribers) = here.get_mut(&self.topic) {
            subscribers.plain.remove(&member);
            subscribers.grouped.remove(&member);
            if subscribers.plain.is_empty() && subscribers.grouped.is_empty() {
                here.remove(&self.topic);
            }
        }
        drop(here);
        broker.metrics.broker_subscribers.dec();
        let unsent = match self.queue {
            None => Vec::new(),
            Some(_) => {
                let unsent = self.outbox.take_unsent().into_iter();
                unsent.filter(|frame| !frame.mark).map(|frame| frame.bytes).collect()
            }
        };
        let (topic, queue) = (self.topic.clone(), self.queue.clone());
        let owner = broker.owner_of(&topic);
        broker.post().tell(owner, Ask::Unsubscribe { topic, queue, member, unsent });
    }
}

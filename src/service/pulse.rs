//! How services, nodes and topics do now, over all shards: for who wants to see it on one page.
//!
//! Each shard keeps what it saw itself; whoever wants to know asks all of them. Latencies are those of the last one to
//! two minutes. Invariant: the numbers of a shard are its own, and adding them up counts nothing twice.
//! Bounds: [`SERVICES_MAX`] services are watched on a shard; what comes beyond is not. Lives on: every shard.

use crate::observe::histogram::{Histogram, Snapshot};
use crate::runtime::mailbox::{self, Post};
use crate::runtime::park::Unpark;
use crate::runtime::{Moment, shard};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One shard's mailbox of this service.
pub type Mailbox = mailbox::Mailbox<(), Box<Report>>;

/// Most services that are watched on a shard.
pub const SERVICES_MAX: usize = 1000;
/// How long latencies are gathered before older ones are put aside.
const WINDOW: Duration = Duration::from_secs(60);

/// What one shard saw, or several.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By name.
    pub services: BTreeMap<String, Service>,
    /// By address.
    pub nodes: BTreeMap<String, Node>,
    /// By name.
    pub topics: BTreeMap<String, Topic>,
}

/// Calls of a service.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Since the start.
    pub calls: u64,
    /// Of them, without a result.
    pub failed: u64,
    /// How long the latest took.
    pub latency: Snapshot,
}

/// A node, as callers see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Calls under way.
    pub in_flight: u64,
    /// Shards on which it rests after failures.
    pub resting: u64,
}

/// A topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Who subscribes now.
    pub subscribers: u64,
    /// Messages since somebody subscribes.
    pub published: u64,
    /// Messages that the slowest subscriber has not been sent.
    pub waiting: u64,
}

impl Report {
    /// Adds what another shard saw.
    pub fn add(&mut self, other: Report) {
        for (name, service) in other.services {
            let sum = self.services.entry(name).or_default();
            sum.calls += service.calls;
            sum.failed += service.failed;
            sum.latency.merge(&service.latency);
        }
        for (address, node) in other.nodes {
            let sum = self.nodes.entry(address).or_default();
            sum.in_flight += node.in_flight;
            sum.resting += node.resting;
        }
        for (name, topic) in other.topics {
            let sum = self.topics.entry(name).or_default();
            sum.subscribers += topic.subscribers;
            sum.published += topic.published;
            sum.waiting = sum.waiting.max(topic.waiting);
        }
    }
}

/// The calls that a shard makes, by service.
#[derive(Default)]
pub struct Calls(RefCell<BTreeMap<String, Watched>>);

struct Watched {
    calls: u64,
    failed: u64,
    since: Moment,
    now: Box<Histogram>,
    before: Snapshot,
}

impl Calls {
    /// Counts a call.
    pub fn note(&self, service: &str, took: Duration, is_good: bool) {
        let mut calls = self.0.borrow_mut();
        if !calls.contains_key(service) {
            if calls.len() >= SERVICES_MAX {
                return;
            }
            let (since, now, before) = (shard::recent(), Box::default(), Snapshot::default());
            calls.insert(service.to_owned(), Watched { calls: 0, failed: 0, since, now, before });
        }
        let Some(watched) = calls.get_mut(service) else { return };
        watched.turn(shard::recent());
        watched.calls += 1;
        watched.failed += u64::from(!is_good);
        watched.now.record(took);
    }

    /// What was counted.
    pub fn report(&self) -> BTreeMap<String, Service> {
        let mut calls = self.0.borrow_mut();
        let now = shard::recent();
        let shown = calls.iter_mut().map(|(name, watched)| {
            watched.turn(now);
            let mut latency = watched.now.snapshot();
            latency.merge(&watched.before);
            (name.clone(), Service { calls: watched.calls, failed: watched.failed, latency })
        });
        shown.collect()
    }
}

impl Watched {
    fn turn(&mut self, now: Moment) {
        let age = now.since(self.since);
        if age < WINDOW {
            return;
        }
        let last = std::mem::take(&mut *self.now).snapshot();
        self.before = if age < WINDOW * 2 { last } else { Snapshot::default() };
        self.since = now;
    }
}

/// Reports of all shards, from any.
pub struct Pulse {
    post: OnceCell<Rc<Post<(), Box<Report>>>>,
}

impl Pulse {
    /// Starts the service on the current shard, which says `report` about itself.
    pub fn start(
        mailbox: Mailbox,
        unparks: Vec<Arc<Unpark>>,
        report: impl Fn() -> Report + 'static,
    ) -> Rc<Self> {
        let pulse = Rc::new(Pulse { post: OnceCell::new() });
        let post = mailbox.open(unparks, move |_, (), reply| {
            if let Some(reply) = reply {
                reply.give(Box::new(report()));
            }
        });
        assert!(pulse.post.set(post).is_ok(), "a service starts once");
        pulse
    }

    /// What all shards see. One that ends sees nothing.
    pub async fn take(&self) -> Report {
        let post = self.post.get().expect("set at the start");
        let mut sum = Report::default();
        for shard in shard::current().all() {
            if let Ok(report) = post.ask(shard, ()).await {
                sum.add(*report);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shards_saw_adds_up() {
        let topic = |waiting| Topic { subscribers: 1, published: 2, waiting };
        let report = |waiting| Report {
            services: BTreeMap::from([(
                "a".to_owned(),
                Service { calls: 3, failed: 1, ..Service::default() },
            )]),
            nodes: BTreeMap::from([("n".to_owned(), Node { in_flight: 1, resting: 1 })]),
            topics: BTreeMap::from([("t".to_owned(), topic(waiting))]),
        };
        let mut sum = report(7);
        sum.add(report(4));
        assert_eq!((sum.services["a"].calls, sum.services["a"].failed), (6, 2));
        assert_eq!(sum.nodes["n"], Node { in_flight: 2, resting: 2 });
        assert_eq!(sum.topics["t"], Topic { subscribers: 2, published: 4, waiting: 7 });
    }
}

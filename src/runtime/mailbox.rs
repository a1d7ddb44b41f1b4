//! Typed messages between shards: questions that are answered, and statements that are not.
//!
//! A [`Mesh`] is one bounded lane from every shard to every other. A shard gathers what it has to say during a
//! turn and puts it into the lanes at the turn's end, with at most one wake-up per target; what arrived is
//! handled at the start of the next turn. A message to the shard itself is a direct call.
//!
//! What when full? Messages that find a lane full wait in the sender's outbox and are tried again every turn.
//! The outbox is bounded by protocol, not by blocking: of questions to one target at most [`ASKS`] are
//! unanswered at a time, further askers wait their turn in order, and the place for an answer is taken together
//! with the question. So no full lane ever waits for another one, and two shards that ask each other at once
//! cannot deadlock. Statements are bounded by whoever makes them.
//!
//! Invariant: every question is answered exactly once, with an answer or with [`Gone`]; messages from one shard
//! to one other arrive in the order in which they were put into the outbox. Lives on: one [`Post`] per shard;
//! only the lanes are shared.

use super::lane::{self, Receiver, Sender};
use super::notify::{Answerer, answer};
use super::park::Unpark;
use super::shard::{self, ShardId};
use crate::observe::counter::Counter;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};

/// How many questions of one shard to one other may be unanswered.
pub const ASKS: usize = 512;

/// Slots of one lane. A turn that has more to say needs several turns of the target.
const LANE_SLOTS: usize = 256;

/// Nobody will answer: the handler dropped its [`Reply`], or the shard has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard that was asked gave no answer")
    }
}

impl std::error::Error for Gone {}

/// All lanes of one kind of message.
pub struct Mesh<Q, R>(PhantomData<(Q, R)>);

impl<Q: Send + 'static, R: Send + 'static> Mesh<Q, R> {
    /// One mailbox for each of `shards` shards, in the order of their ids.
    #[allow(clippy::new_ret_no_self, reason = "a mesh exists only as the mailboxes that hang together")]
    pub fn new(shards: usize) -> Vec<Mailbox<Q, R>> {
        let mut mailboxes: Vec<_> =
            (0..shards).map(|me| Mailbox { me, ways: (0..shards).map(|_| None).collect() }).collect();
        for one in 0..shards {
            for other in 0..one {
                let (to_other, from_one) = lane::lane(LANE_SLOTS);
                let (to_one, from_other) = lane::lane(LANE_SLOTS);
                mailboxes[one].ways[other] = Some(Way { out: to_other, into: from_other });
                mailboxes[other].ways[one] = Some(Way { out: to_one, into: from_one });
            }
        }
        mailboxes
    }
}

/// One shard's ends of all its lanes, on the way to that shard's thread.
pub struct Mailbox<Q: Send, R: Send> {
    me: usize,
    /// By the other shard's id; nothing at our own.
    ways: Vec<Option<Way<Q, R>>>,
}

/// Both lanes between us and one other shard.
struct Way<Q: Send, R: Send> {
    out: Sender<Message<Q, R>>,
    into: Receiver<Message<Q, R>>,
}

/// What travels.
enum Message<Q, R> {
    /// To be answered into the asker's `slot`.
    Ask { slot: usize, question: Q },
    /// Not to be answered.
    Tell(Q),
    /// For the slot that came with the question; nothing when nobody will answer it.
    Answer { slot: usize, answer: Option<R> },
}

impl<Q: Send + 'static, R: Send + 'static> Mailbox<Q, R> {
    /// Begins to send and to receive on the current shard: what arrives is handled at the start of a turn, what
    /// was gathered leaves at its end. `unparks` holds every shard's, by id. `handle` gets the sender, the
    /// message, and for a question the [`Reply`], which it may keep; long work belongs into a task of its own.
    /// A panic in it is contained, and what it was asked is answered with [`Gone`].
    pub fn open(
        self,
        unparks: Vec<Arc<Unpark>>,
        handle: impl Fn(ShardId, Q, Option<Reply<R>>) + 'static,
    ) -> Rc<Post<Q, R>> {
        let shard = shard::current();
        assert_eq!(shard.id().index(), self.me, "a mailbox is opened on its own shard");
        assert_eq!(self.ways.len(), unparks.len(), "every shard has an unpark");
        let peer = |(way, unpark): (Option<Way<Q, R>>, Arc<Unpark>)| way.map(|way| Peer::new(way, unpark));
        let post = Rc::new(Post {
            me: shard.id(),
            peers: self.ways.into_iter().zip(unparks).map(peer).collect(),
            handle: Box::new(handle),
            counts: Counts::default(),
        });
        let (receives, sends) = (post.clone(), post.clone());
        shard.at_turn_start(Box::new(move || receives.receive()));
        shard.at_turn_end(Box::new(move || sends.flush()));
        post
    }
}

/// One shard's mailbox at work.
pub struct Post<Q: Send + 'static, R: Send + 'static> {
    me: ShardId,
    peers: Vec<Option<Peer<Q, R>>>,
    handle: Handle<Q, R>,
    counts: Counts,
}

/// What a shard does with a message: who sent it, what it says, and where its answer goes if it is a question.
type Handle<Q, R> = Box<dyn Fn(ShardId, Q, Option<Reply<R>>)>;

/// One other shard, as a [`Post`] sees it.
struct Peer<Q: Send, R: Send> {
    way: RefCell<Way<Q, R>>,
    outbox: RefCell<VecDeque<Message<Q, R>>>,
    asked: RefCell<Slab<Answerer<R>>>,
    turns: Turns,
    unpark: Arc<Unpark>,
    gone: Cell<bool>,
}

/// What a [`Post`] counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Questions to other shards.
    pub asks: Counter,
    /// Statements to other shards.
    pub tells: Counter,
    /// Turns that ended with a lane full and messages left in its outbox.
    pub full: Counter,
    /// Looks at another shard's sleeping flag.
    pub nudges: Counter,
    /// Panics of the handler.
    pub panics: Counter,
}

impl<Q: Send + 'static, R: Send + 'static> Post<Q, R> {
    /// Asks `to` and waits for the answer. Dropping the future drops the answer, not the question.
    pub async fn ask(&self, to: ShardId, question: Q) -> Result<R, Gone> {
        let (answerer, answer) = answer();
        match self.peer(to) {
            None => self.call(to, question, Some(Reply(Some(Asker::Here(answerer))))),
            Some(peer) => {
                peer.turns.take().await;
                if peer.gone.get() {
                    peer.turns.give_back();
                    return Err(Gone);
                }
                self.counts.asks.inc();
                let slot = peer.asked.borrow_mut().insert(answerer);
                peer.outbox.borrow_mut().push_back(Message::Ask { slot, question });
            }
        }
        answer.await.ok_or(Gone)
    }

    /// Tells `to` without waiting. Nothing here bounds how many statements wait for a slow shard: the caller's
    /// protocol must, for example by telling a shard again only after it answered.
    pub fn tell(&self, to: ShardId, statement: Q) {
        match self.peer(to) {
            None => self.call(to, statement, None),
            Some(peer) if peer.gone.get() => {}
            Some(peer) => {
                self.counts.tells.inc();
                peer.outbox.borrow_mut().push_back(Message::Tell(statement));
            }
        }
    }

    /// Whether messages wait for a turn's end, or for room in a lane. Such a shard must not sleep: it learns of
    /// room only by looking. The hook at a turn's end says so too, by returning true.
    pub fn has_outgoing(&self) -> bool {
        self.peers.iter().flatten().any(|peer| !peer.outbox.borrow().is_empty())
    }

    /// Whether messages have arrived that were not handled yet.
    pub fn has_incoming(&self) -> bool {
        self.peers.iter().flatten().any(|peer| !peer.way.borrow_mut().into.is_empty())
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn peer(&self, to: ShardId) -> Option<&Peer<Q, R>> {
        let peer = self.peers[to.index()].as_ref();
        debug_assert_eq!(peer.is_none(), to == self.me);
        peer
    }

    fn call(&self, from: ShardId, message: Q, reply: Option<Reply<R>>) {
        if catch_unwind(AssertUnwindSafe(|| (self.handle)(from, message, reply))).is_err() {
            self.counts.panics.inc();
            tracing::error!(from = from.0, "a message's handler panicked; its message alone is lost");
        }
    }

    /// A turn's start: handles what has arrived.
    fn receive(self: &Rc<Self>) -> bool {
        let mut did = false;
        for from in (0..self.peers.len()).map(|index| ShardId(index as u16)) {
            let Some(peer) = self.peer(from) else { continue };
            // Asked before the lane is emptied: what was put before the other side closed is still there.
            let closed = peer.way.borrow().into.is_closed();
            // At most one lane full, so that a busy sender cannot hold this shard's turn.
            for _ in 0..LANE_SLOTS {
                let Some(message) = peer.pop() else { break };
                did = true;
                match message {
                    Message::Ask { slot, question } => {
                        let asker = Asker::There {
                            post: Rc::downgrade(self) as Weak<dyn Answers<R>>,
                            shard: from,
                            slot,
                        };
                        self.call(from, question, Some(Reply(Some(asker))));
                    }
                    Message::Tell(statement) => self.call(from, statement, None),
                    Message::Answer { slot, answer } => peer.answered(slot, answer),
                }
            }
            if closed && !peer.gone.get() && peer.way.borrow_mut().into.is_empty() {
                peer.bury();
                did = true;
            }
        }
        did
    }

    /// A turn's end: puts into the lanes what they have room for. True as long as something moved or waits.
    fn flush(&self) -> bool {
        let mut busy = false;
        for peer in self.peers.iter().flatten() {
            let mut outbox = peer.outbox.borrow_mut();
            if outbox.is_empty() {
                continue;
            }
            busy = true;
            let mut pushed = 0;
            let out = &mut peer.way.borrow_mut().out;
            while out.has_room()
                && let Some(message) = outbox.pop_front()
            {
                let put = out.push(message);
                assert!(put.is_ok(), "a lane with room takes a message");
                pushed += 1;
            }
            if !outbox.is_empty() {
                self.counts.full.inc();
            }
            if pushed > 0 {
                self.counts.nudges.inc();
                peer.unpark.nudge();
            }
        }
        busy
    }
}

impl<Q: Send, R: Send> Peer<Q, R> {
    fn new(way: Way<Q, R>, unpark: Arc<Unpark>) -> Self {
        Peer {
            way: RefCell::new(way),
            outbox: RefCell::default(),
            asked: RefCell::default(),
            turns: Turns::new(ASKS),
            unpark,
            gone: Cell::new(false),
        }
    }

    fn pop(&self) -> Option<Message<Q, R>> {
        self.way.borrow_mut().into.pop()
    }

    fn answered(&self, slot: usize, answer: Option<R>) {
        let asker = self.asked.borrow_mut().remove(slot);
        if let Some(answer) = answer {
            asker.give(answer);
        }
        self.turns.give_back();
    }

    /// The other shard has ended: whoever waits for it learns so.
    fn bury(&self) {
        self.gone.set(true);
        drop(self.outbox.take());
        for asker in self.asked.take().drain() {
            drop(asker);
            self.turns.give_back();
        }
    }
}

impl<Q: Send + 'static, R: Send + 'static> Drop for Post<Q, R> {
    fn drop(&mut self) {
        for Peer { way, unpark, .. } in self.peers.drain(..).flatten() {
            // Closed first, then nudged, so that a sleeping asker wakes up and sees it.
            drop(way);
            unpark.nudge();
        }
    }
}

/// The place for one answer. Dropping it unanswered lets the asker know that nobody will answer.
pub struct Reply<R: 'static>(Option<Asker<R>>);

enum Asker<R> {
    Here(Answerer<R>),
    /// Weak, because handlers keep replies in the state that they own: a strong one would hold its shard's post
    /// open for ever.
    There {
        post: Weak<dyn Answers<R>>,
        shard: ShardId,
        slot: usize,
    },
}

/// A [`Post`] whatever its questions are.
trait Answers<R> {
    fn answer(&self, shard: ShardId, slot: usize, answer: Option<R>);
}

impl<Q: Send + 'static, R: Send + 'static> Answers<R> for Post<Q, R> {
    fn answer(&self, shard: ShardId, slot: usize, answer: Option<R>) {
        if let Some(peer) = self.peer(shard)
            && !peer.gone.get()
        {
            peer.outbox.borrow_mut().push_back(Message::Answer { slot, answer });
        }
    }
}

impl<R> Reply<R> {
    /// Answers.
    pub fn give(mut self, answer: R) {
        self.settle(Some(answer));
    }

    fn settle(&mut self, answer: Option<R>) {
        match (self.0.take(), answer) {
            (Some(Asker::Here(asker)), Some(answer)) => asker.give(answer),
            (Some(Asker::There { post, shard, slot }), answer) => {
                // When the post is gone its lanes are closed, and the asker learns of it by that.
                if let Some(post) = post.upgrade() {
                    post.answer(shard, slot, answer);
                }
            }
            // Nothing for an asker on this shard: it learns by the drop. Or settled before.
            (Some(Asker::Here(_)) | None, _) => {}
        }
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        self.settle(None);
    }
}

/// The turns to ask one shard: so many at a time, and who waits gets the next one in order.
struct Turns {
    free: Cell<usize>,
    issued: Cell<u64>,
    /// Waiters by ticket. One that is missing here without having left was given its turn.
    waiting: RefCell<BTreeMap<u64, Waker>>,
}

impl Turns {
    fn new(free: usize) -> Self {
        Turns { free: Cell::new(free), issued: Cell::new(0), waiting: RefCell::default() }
    }

    /// Resolves when a turn is ours, to be given back by hand.
    async fn take(&self) {
        let mut waiter = Waiter { turns: self, ticket: None };
        poll_fn(|cx| waiter.poll(cx.waker())).await;
    }

    fn give_back(&self) {
        let next = self.waiting.borrow_mut().pop_first();
        match next {
            Some((_, waker)) => waker.wake(),
            None => self.free.set(self.free.get() + 1),
        }
    }
}

struct Waiter<'a> {
    turns: &'a Turns,
    ticket: Option<u64>,
}

impl Waiter<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let turns = self.turns;
        let mut waiting = turns.waiting.borrow_mut();
        match self.ticket {
            None if turns.free.get() > 0 => {
                turns.free.set(turns.free.get() - 1);
                Poll::Ready(())
            }
            None => {
                let ticket = turns.issued.get();
                turns.issued.set(ticket + 1);
                waiting.insert(ticket, waker.clone());
                self.ticket = Some(ticket);
                Poll::Pending
            }
            Some(ticket) => match waiting.get_mut(&ticket) {
                Some(kept) => {
                    kept.clone_from(waker);
                    Poll::Pending
                }
                None => {
                    self.ticket = None;
                    Poll::Ready(())
                }
            },
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket
            && self.turns.waiting.borrow_mut().remove(&ticket).is_none()
        {
            // Our turn came, but we are leaving without having seen it.
            self.turns.give_back();
        }
    }
}

#[cfg(test)]
mod tests;

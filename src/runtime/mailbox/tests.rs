//! Mailboxes between real threads with the smallest of drivers.

use super::{ASKS, Gone, LANE_SLOTS, Mailbox, Mesh, Post, Reply};
use crate::runtime::clock::Clock;
use crate::runtime::entropy::Entropy;
use crate::runtime::file::os::OsDisk;
use crate::runtime::park::Unpark;
use crate::runtime::shard::{self, Parts, Shard, ShardId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

/// What the tests say to each other.
enum Say {
    /// Asked: answer with the number doubled.
    Double(u64),
    /// Asked: drop the reply.
    Silence,
    /// Asked: panic.
    Panic,
    /// Told: remember the number.
    Number(u64),
    /// Told: the sender needs nothing more from us.
    Bye,
}

/// One shard's side of a conversation.
struct Party {
    post: Rc<Post<Say, u64>>,
    heard: Rc<RefCell<Vec<(ShardId, u64)>>>,
    byes: Rc<Cell<usize>>,
}

fn party(mailbox: Mailbox<Say, u64>, unparks: Vec<Arc<Unpark>>) -> Party {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let byes = Rc::new(Cell::new(0));
    let (hears, counts) = (heard.clone(), byes.clone());
    let handle = move |from: ShardId, say: Say, reply: Option<Reply<u64>>| match say {
        Say::Double(number) => reply.expect("a question").give(2 * number),
        Say::Silence => drop(reply),
        Say::Panic => panic!("a planted panic"),
        Say::Number(number) => hears.borrow_mut().push((from, number)),
        Say::Bye => counts.set(counts.get() + 1),
    };
    Party { post: mailbox.open(unparks, handle), heard, byes }
}

/// A sleep that remembers a wake which came before it: a channel of one token.
fn sleeper() -> (Arc<Unpark>, mpsc::Receiver<()>) {
    let (wake, woken) = mpsc::sync_channel(1);
    (
        Arc::new(Unpark::new(move || {
            // A full channel holds a wake already.
            let _ = wake.try_send(());
        })),
        woken,
    )
}

/// Runs `talk` on every shard, each on a thread of its own that sleeps when idle, until all said [`Say::Bye`].
fn converse<F: Future<Output = ()> + 'static>(shards: usize, talk: fn(Rc<Party>) -> F) {
    let (unparks, sleeps): (Vec<_>, Vec<_>) = (0..shards).map(|_| sleeper()).unzip();
    let threads: Vec<_> = Mesh::new(shards)
        .into_iter()
        .zip(sleeps)
        .enumerate()
        .map(|(me, (mailbox, sleep))| {
            let unparks = unparks.clone();
            thread::spawn(move || run(ShardId(me as u16), mailbox, unparks, sleep, talk))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn run<F: Future<Output = ()> + 'static>(
    id: ShardId,
    mailbox: Mailbox<Say, u64>,
    unparks: Vec<Arc<Unpark>>,
    sleep: mpsc::Receiver<()>,
    talk: fn(Rc<Party>) -> F,
) {
    let unpark = unparks[id.index()].clone();
    let foreign = unpark.clone();
    let shard = Shard::new(Parts {
        id,
        count: unparks.len(),
        clock: Clock::machine(),
        entropy: Entropy::from_seed(1),
        disk: Arc::new(OsDisk),
        unpark: Box::new(move || foreign.nudge()),
    });
    shard::enter(Some(shard.clone()));
    let party = Rc::new(party(mailbox, unparks));
    let talker = party.clone();
    shard::spawn("talk", async move {
        talk(talker.clone()).await;
        shard::current().all().for_each(|to| talker.post.tell(to, Say::Bye));
    });
    while party.byes.get() < shard.count() || party.post.has_outgoing() {
        let mut did = shard.start_turn();
        did |= shard.executor().run_ready();
        did |= shard.end_turn();
        if !did {
            unpark.prepare_sleep();
            if !party.post.has_incoming() && !shard.executor().has_ready() {
                sleep.recv().unwrap();
            }
            unpark.awake();
        }
    }
    assert_eq!(shard.executor().panic_count(), 0, "an assertion of the conversation failed");
    shard.clear();
    shard::enter(None);
}

#[test]
fn questions_cross_threads_that_sleep_between_them() {
    converse(2, |party| async move {
        // One at a time: after each the other side has nothing to do and goes to sleep.
        for number in 0..2_000 {
            let to = ShardId((number % 2) as u16);
            assert_eq!(party.post.ask(to, Say::Double(number)).await, Ok(2 * number));
        }
    });
}

#[test]
fn a_burst_beyond_the_lane_arrives_in_order_though_the_target_sleeps() {
    const BURST: u64 = 10 * LANE_SLOTS as u64 + 3;
    converse(2, |party| async move {
        if shard::current().id() == ShardId(0) {
            (0..BURST).for_each(|number| party.post.tell(ShardId(1), Say::Number(number)));
            assert!(party.post.has_outgoing());
        }
        // The answer comes after every statement before it was handled.
        let _ = party.post.ask(ShardId(0), Say::Double(1)).await;
        if shard::current().id() == ShardId(0) {
            assert_eq!(party.post.ask(ShardId(1), Say::Double(1)).await, Ok(2));
            assert!(party.post.counts().full.value() > 0, "the lane was never full");
        } else {
            while party.heard.borrow().len() < BURST as usize {
                shard::yield_now().await;
            }
            let heard: Vec<u64> = party.heard.borrow().iter().map(|&(_, number)| number).collect();
            assert!(heard.into_iter().eq(0..BURST), "lost, doubled or out of order");
        }
    });
}

#[test]
fn more_askers_than_places_are_all_answered_in_both_directions_at_once() {
    converse(2, |party| async move {
        let other = ShardId(1 - shard::current().id().0);
        let answers = Rc::new(RefCell::new(Vec::new()));
        let askers = 3 * ASKS;
        for number in 0..askers as u64 {
            let (party, answers) = (party.clone(), answers.clone());
            shard::spawn("asker", async move {
                let answer = party.post.ask(other, Say::Double(number)).await;
                answers.borrow_mut().push((number, answer));
            });
        }
        while answers.borrow().len() < askers {
            shard::yield_now().await;
        }
        assert!(answers.borrow().iter().all(|&(number, answer)| answer == Ok(2 * number)));
        assert!(answers.borrow().is_sorted_by_key(|&(number, _)| number), "askers wait their turn in order");
    });
}

#[test]
fn silence_and_panics_cost_only_their_own_question() {
    converse(2, |party| async move {
        for to in shard::current().all() {
            assert_eq!(party.post.ask(to, Say::Silence).await, Err(Gone));
            assert_eq!(party.post.ask(to, Say::Panic).await, Err(Gone));
            assert_eq!(party.post.ask(to, Say::Double(4)).await, Ok(8));
        }
    });
}

//! Mailboxes between virtual shards in any order that a seed can think of, and between real threads that sleep.

use super::{ASKS, Gone, LANE_SLOTS, Mailbox, Mesh, Post, Reply};
use crate::runtime::clock::Clock;
use crate::runtime::entropy::Entropy;
use crate::runtime::file::os::OsDisk;
use crate::runtime::park::Unpark;
use crate::runtime::shard::{self, Parts, Shard, ShardId};
use crate::runtime::sim::{SimDisk, World, seeds};
use crate::runtime::timer;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Far beyond any wake-up's time; only a lost one takes longer.
const WAKE_MAX: Duration = Duration::from_secs(30);

/// What the tests say to each other.
enum Say {
    /// Asked: answer with the number doubled.
    Double(u64),
    /// Asked: drop the reply.
    Silence,
    /// Asked: panic.
    Panic,
    /// Asked: answer like `Double`, but from a task, after so many microseconds.
    Later(u64, u64),
    /// Asked: panic in a task that holds the reply.
    PanicLater,
    /// Asked: keep the reply until the test gives it.
    Hold,
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
    held: Rc<RefCell<VecDeque<Reply<u64>>>>,
}

fn party(mailbox: Mailbox<Say, u64>, unparks: Vec<Arc<Unpark>>) -> Party {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let byes = Rc::new(Cell::new(0));
    let held = Rc::new(RefCell::new(VecDeque::new()));
    let (hears, counts, holds) = (heard.clone(), byes.clone(), held.clone());
    let handle = move |from: ShardId, say: Say, reply: Option<Reply<u64>>| match say {
        Say::Double(number) => reply.expect("a question").give(2 * number),
        Say::Silence => drop(reply),
        Say::Panic => panic!("a planted panic"),
        Say::Later(number, micros) => shard::spawn("later", async move {
            timer::sleep(Duration::from_micros(micros)).await;
            reply.expect("a question").give(2 * number);
        }),
        Say::PanicLater => shard::spawn("panic", async move {
            let _reply = reply;
            shard::yield_now().await;
            panic!("a planted panic");
        }),
        Say::Hold => holds.borrow_mut().push_back(reply.expect("a question")),
        Say::Number(number) => hears.borrow_mut().push((from, number)),
        Say::Bye => counts.set(counts.get() + 1),
    };
    Party { post: mailbox.open(unparks, handle), heard, byes, held }
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
                sleep.recv_timeout(WAKE_MAX).expect("a wake-up was lost");
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

/// Virtual shards with a mailbox each.
fn parties(seed: u64, shards: usize) -> (World, Vec<Rc<Party>>) {
    let world = World::new(seed, shards, SimDisk::new(seed));
    let open = |(me, mailbox)| Rc::new(world.enter(me, |_| party(mailbox, world.unparks())));
    let parties = Mesh::new(shards).into_iter().enumerate().map(open).collect();
    (world, parties)
}

/// One question of a random conversation, and what must come of it.
fn question(chance: &Entropy) -> (Say, Result<u64, Gone>) {
    let number = chance.below(1000);
    match chance.below(8) {
        0 => (Say::Silence, Err(Gone)),
        1 => (Say::Panic, Err(Gone)),
        2 => (Say::PanicLater, Err(Gone)),
        3 | 4 => (Say::Later(number, chance.below(500)), Ok(2 * number)),
        _ => (Say::Double(number), Ok(2 * number)),
    }
}

/// Tells and asks the others at random; statements to each are numbered.
async fn talk(party: Rc<Party>, messages: usize, mismatches: Rc<Cell<usize>>, answered: Rc<Cell<usize>>) {
    let shard = shard::current();
    let mut told = vec![0; shard.count()];
    for _ in 0..messages {
        let to = ShardId(shard.entropy().below(shard.count() as u64) as u16);
        if shard.entropy().one_in(2) {
            party.post.tell(to, Say::Number(told[to.index()]));
            told[to.index()] += 1;
            continue;
        }
        let (say, expected) = question(shard.entropy());
        let (party, mismatches, answered) = (party.clone(), mismatches.clone(), answered.clone());
        let asking = async move {
            if party.post.ask(to, say).await != expected {
                mismatches.set(mismatches.get() + 1);
            }
            answered.set(answered.get() + 1);
        };
        match shard.entropy().one_in(3) {
            true => asking.await,
            false => shard::spawn("asker", asking),
        }
    }
    // How many statements each was told, so that the last one cannot be missing.
    for to in shard.all() {
        party.post.tell(to, Say::Number(u64::MAX - told[to.index()]));
    }
}

#[test]
fn every_question_is_answered_once_and_statements_keep_their_order() {
    for seed in seeds(40) {
        let (world, parties) = parties(seed, 3);
        let (mismatches, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let messages = 60;
        for (me, party) in parties.iter().enumerate() {
            let talking = talk(party.clone(), messages, mismatches.clone(), answered.clone());
            world.enter(me, |_| shard::spawn("talk", talking));
        }
        world.run_for(Duration::from_secs(1));
        assert_eq!(mismatches.get(), 0);
        let mut told = 0;
        for party in &parties {
            for from in 0..3 {
                let heard: Vec<u64> =
                    party.heard.borrow().iter().filter(|(whose, _)| whose.0 == from).map(|x| x.1).collect();
                let (last, numbers) = heard.split_last().expect("everyone says how many there were");
                assert!(numbers.iter().copied().eq(0..u64::MAX - last), "from {from}: {heard:?}");
                told += numbers.len();
            }
            assert!(!party.post.has_outgoing() && !party.post.has_incoming());
        }
        assert_eq!(told + answered.get(), 3 * messages, "a question was never answered");
    }
}

#[test]
fn a_full_lane_keeps_its_sender_from_sleep_until_there_is_room() {
    let (world, parties) = parties(1, 2);
    let burst = 2 * LANE_SLOTS as u64 + 1;
    world.enter(0, |shard| {
        (0..burst).for_each(|number| parties[0].post.tell(ShardId(1), Say::Number(number)));
        assert!(shard.end_turn(), "a lane full moved");
        assert!(shard.end_turn(), "nothing moved, but something waits");
        assert!(parties[0].post.has_outgoing());
    });
    for turn in 1..=2 {
        world.enter(1, |shard| assert!(shard.start_turn()));
        assert_eq!(parties[1].heard.borrow().len(), turn * LANE_SLOTS);
        world.enter(0, |shard| assert!(shard.end_turn()));
    }
    assert!(!parties[0].post.has_outgoing());
    world.enter(0, |shard| assert!(!shard.end_turn(), "nothing waits"));
    world.enter(1, |shard| assert!(shard.start_turn() && !shard.start_turn()));
    assert!(parties[1].heard.borrow().iter().map(|x| x.1).eq(0..burst));
    assert_eq!(parties[0].post.counts().full.value(), 3);
}

/// Catches a shard that stops listening while it has something to say: two that do so wait for each other for ever.
#[test]
fn lanes_that_are_full_both_ways_empty_in_a_few_turns() {
    let (world, parties) = parties(1, 2);
    let answered = Rc::new(Cell::new(0));
    for (me, party) in parties.iter().enumerate() {
        let other = ShardId(1 - me as u16);
        world.enter(me, |_| {
            for number in 0..ASKS as u64 {
                let (post, answered) = (party.post.clone(), answered.clone());
                shard::spawn("asker", async move {
                    assert_eq!(post.ask(other, Say::Double(number)).await, Ok(2 * number));
                    answered.set(answered.get() + 1);
                });
            }
            // More than the lane takes, so the answers have to queue behind these questions.
            (0..LANE_SLOTS as u64)
                .for_each(|n| parties[me].post.tell(ShardId(1 - me as u16), Say::Number(n)));
        });
    }
    // Questions, statements and answers: so many lanes full each way.
    let lanes = (2 * ASKS + LANE_SLOTS) / LANE_SLOTS;
    for _ in 0..=lanes {
        for me in 0..2 {
            world.enter(me, |shard| {
                shard.start_turn();
                shard.executor().run_ready();
                shard.end_turn();
            });
        }
    }
    assert_eq!((answered.get(), world.panics()), (2 * ASKS, 0));
    assert!(parties.iter().all(|party| party.post.counts().full.value() > 0), "the lanes were full");
    assert!(
        parties.iter().all(|party| !party.post.has_outgoing() && party.heard.borrow().len() == LANE_SLOTS)
    );
}

/// Starts to ask and leaves what comes of it in the returned cell.
fn ask(world: &World, party: &Rc<Party>, to: u16, say: Say) -> Rc<Cell<Option<Result<u64, Gone>>>> {
    let (outcome, party) = (Rc::new(Cell::new(None)), party.clone());
    let kept = outcome.clone();
    world.enter(0, |_| {
        shard::spawn("asker", async move { kept.set(Some(party.post.ask(ShardId(to), say).await)) });
    });
    outcome
}

#[test]
fn askers_beyond_the_bound_wait_in_order_and_may_leave() {
    let (world, parties) = parties(1, 2);
    let first: Vec<_> = (0..ASKS).map(|_| ask(&world, &parties[0], 1, Say::Hold)).collect();
    world.run_until_idle();
    assert_eq!(parties[1].held.borrow().len(), ASKS);
    // One that will give up while it waits, one that stays.
    let leaver = parties[0].clone();
    world.enter(0, |_| {
        shard::spawn("leaver", async move {
            let soon = shard::now() + Duration::from_secs(1);
            assert_eq!(timer::until(soon, leaver.post.ask(ShardId(1), Say::Hold)).await, None);
        });
    });
    world.run_until_idle();
    let last = ask(&world, &parties[0], 1, Say::Double(5));
    world.run_until_idle();
    assert_eq!((last.get(), parties[1].held.borrow().len()), (None, ASKS), "the bound does not hold");
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.panics(), 0);
    let reply = parties[1].held.borrow_mut().pop_front().unwrap();
    world.enter(1, |_| reply.give(1));
    world.run_until_idle();
    assert_eq!(first.iter().filter(|outcome| outcome.get() == Some(Ok(1))).count(), 1);
    assert_eq!(last.get(), Some(Ok(10)), "who left must not keep the turn");
}

#[test]
fn a_waiter_that_leaves_with_its_turn_passes_it_on() {
    let (world, parties) = parties(1, 2);
    world.enter(0, |_| {
        let (turns, noop) = (super::Turns::new(1), std::task::Waker::noop());
        let mut waiters = [0; 3].map(|_| super::Waiter { turns: &turns, ticket: None });
        assert!(waiters[0].poll(noop).is_ready());
        assert!(waiters[1].poll(noop).is_pending());
        assert!(waiters[2].poll(noop).is_pending());
        turns.give_back();
        let [_, second, mut third] = waiters;
        assert!(third.poll(noop).is_pending(), "the turn is the second one's");
        drop(second);
        assert!(third.poll(noop).is_ready());
        drop(third);
        assert_eq!(turns.free.get(), 0, "taken, and given back by hand alone");
    });
    drop(parties);
}

#[test]
fn an_abandoned_question_frees_its_place_when_it_is_answered() {
    let (world, parties) = parties(1, 2);
    for _ in 0..2 {
        for _ in 0..ASKS {
            let asker = parties[0].clone();
            world.block_on(0, async move {
                // Polled until the question is on its way, then dropped.
                let soon = shard::now() + Duration::from_nanos(1);
                let _ = timer::until(soon, asker.post.ask(ShardId(1), Say::Hold)).await;
            });
        }
        world.run_until_idle();
        let held = parties[1].held.take();
        assert_eq!(held.len(), ASKS, "a question that was sent arrives");
        world.enter(1, |_| held.into_iter().for_each(|reply| reply.give(0)));
        world.run_until_idle();
    }
    assert_eq!(ask(&world, &parties[0], 1, Say::Double(1)).get(), None);
    world.run_until_idle();
    assert!(parties[0].post.peers[1].as_ref().unwrap().asked.borrow().is_empty());
}

#[test]
fn a_shard_that_ends_answers_what_it_was_asked() {
    let (world, mut parties) = parties(1, 2);
    let answered = ask(&world, &parties[0], 1, Say::Double(1));
    let waiting: Vec<_> = (0..=ASKS).map(|_| ask(&world, &parties[0], 1, Say::Hold)).collect();
    world.run_until_idle();
    assert_eq!((answered.get(), waiting[0].get()), (Some(Ok(2)), None));
    // The last words: an answer that is in the lane when the shard ends still counts.
    world.enter(1, |shard| {
        let reply = parties[1].held.borrow_mut().pop_front();
        reply.unwrap().give(77);
        shard.end_turn();
        drop(parties.pop());
        shard.clear();
    });
    world.run_until_idle();
    let outcomes = |wanted| waiting.iter().filter(|outcome| outcome.get() == Some(wanted)).count();
    assert_eq!((outcomes(Ok(77)), outcomes(Err(Gone))), (1, ASKS));
    let later = ask(&world, &parties[0], 1, Say::Double(1));
    world.run_until_idle();
    assert_eq!(later.get(), Some(Err(Gone)));
    parties[0].post.tell(ShardId(1), Say::Number(1));
    assert!(!parties[0].post.has_outgoing(), "nobody would take it");
}

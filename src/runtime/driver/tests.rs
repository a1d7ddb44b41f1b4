//! What bounds the way of a message: how long a turn is, what it looks at, who goes first, and what ends its nap.
//!
//! Turns are made by hand, on virtual time that the tasks themselves let pass, over a real ring.

use super::*;
use crate::runtime::file::os::OsDisk;
use crate::runtime::mailbox::{Mesh, Post, Reply};
use crate::runtime::ring::send::{self, Outgoing};
use crate::runtime::ring::socket::Socket;
use std::os::unix::net::UnixStream;

/// What one poll of a busy task takes.
const POLL: Duration = Duration::from_micros(5);
const BUSY: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// Two shards on this thread, and the mailbox of each. Questions are answered with themselves.
struct Pair {
    shards: Vec<Rc<Shard>>,
    posts: Vec<Rc<Post<u64, u64>>>,
    ring: Rc<Ring>,
    /// Wakes the sleeper.
    wake: Arc<OwnedFd>,
    nanos: Rc<Cell<u64>>,
}

impl Pair {
    fn new() -> Self {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let ring = Ring::install(Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()), wake.clone()).unwrap();
        let nanos = Rc::new(Cell::new(0));
        let mut pair = Pair { shards: vec![], posts: vec![], ring, wake, nanos: nanos.clone() };
        for (index, mailbox) in Mesh::new(2).into_iter().enumerate() {
            let shard = Shard::new(Parts {
                id: ShardId(index as u16),
                count: 2,
                clock: Clock::Simulated { nanos: nanos.clone() },
                entropy: Entropy::from_seed(1),
                disk: Arc::new(OsDisk),
                unpark: Box::new(|| ()),
            });
            shard::enter(Some(shard.clone()));
            let unparks = (0..2).map(|_| Arc::new(Unpark::new(|| ()))).collect();
            let answer = |_, number: u64, reply: Option<Reply<u64>>| reply.unwrap().give(number);
            pair.posts.push(mailbox.open(unparks, answer));
            pair.shards.push(shard);
        }
        pair
    }

    fn enter(&self, index: usize) -> &Rc<Shard> {
        shard::enter(Some(self.shards[index].clone()));
        &self.shards[index]
    }

    /// One turn of a shard; how long it took.
    fn turn(&self, index: usize) -> Duration {
        let before = self.nanos.get();
        let shard = self.enter(index);
        turn(shard, &self.ring, shard.now(), None);
        Duration::from_nanos(self.nanos.get() - before)
    }

    /// A turn of shard 0 that may nap as long as a test has patience; whether it did.
    fn nap(&self) -> bool {
        let (shard, park) = (self.enter(0), Unpark::new(|| ()));
        turn(shard, &self.ring, shard.now(), Some((&park, PATIENCE))).napped.is_some()
    }

    /// A task that can always run; counts its polls.
    fn spawn_busy(&self, index: usize) -> Rc<Cell<usize>> {
        let (polls, nanos) = (Rc::new(Cell::new(0)), self.nanos.clone());
        let count = polls.clone();
        self.enter(index);
        shard::spawn("busy", async move {
            loop {
                count.set(count.get() + 1);
                nanos.set(nanos.get() + POLL.as_nanos() as u64);
                shard::yield_now().await;
            }
        });
        polls
    }

    /// A task of shard 0 that asks shard 1 again and again, each answer taking it one poll's time.
    fn spawn_asker(&self, turns: &Rc<Cell<u64>>) -> Rc<RefCell<Vec<u64>>> {
        let (post, nanos, turns) = (self.posts[0].clone(), self.nanos.clone(), turns.clone());
        let took = Rc::new(RefCell::new(Vec::new()));
        let note = took.clone();
        self.enter(0);
        shard::spawn("asker", async move {
            for number in 0.. {
                let asked = turns.get();
                assert_eq!(post.ask(ShardId(1), number).await, Ok(number));
                note.borrow_mut().push(turns.get() - asked);
                nanos.set(nanos.get() + POLL.as_nanos() as u64);
            }
        });
        took
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard::enter(Some(shard.clone()));
            shard.clear();
        }
        shard::enter(None);
        Ring::uninstall();
    }
}

/// Catches a turn that runs all that is ready, however long it takes, and one that forgets what it left.
#[test]
fn a_turn_is_short_however_many_tasks_are_ready_and_each_has_its_share() {
    let pair = Pair::new();
    let polls: Vec<_> = (0..BUSY).map(|_| pair.spawn_busy(0)).collect();
    for _ in 0..BUSY {
        assert!(pair.turn(0) <= TASKS_MAX + POLL);
    }
    let (least, most) =
        (polls.iter().map(|polls| polls.get()).min(), polls.iter().map(|polls| polls.get()).max());
    assert!(most.unwrap() - least.unwrap() <= 1 && least.unwrap() > 0, "{least:?} to {most:?}");
}

/// Catches a question that waits for the tasks of the shard that is asked, and an answer that waits for those of the
/// shard that asked.
#[test]
fn a_question_between_busy_shards_is_answered_in_the_next_turn_of_each() {
    let pair = Pair::new();
    (0..2).for_each(|index| (0..BUSY).for_each(|_| _ = pair.spawn_busy(index)));
    let turns = Rc::new(Cell::new(0));
    let took = pair.spawn_asker(&turns);
    for _ in 0..BUSY {
        turns.set(turns.get() + 1);
        pair.turn(0);
        pair.turn(1);
    }
    let took = took.borrow();
    assert!(took.len() >= BUSY / 2 && took.iter().all(|&turns| turns == 1), "{took:?}");
}

/// Catches overtaking without end: messages that wake as much as a turn has time for, turn after turn.
#[test]
fn who_is_overtaken_gets_a_turn_all_the_same() {
    let pair = Pair::new();
    let turns = Rc::new(Cell::new(0));
    let askers: Vec<_> = (0..48).map(|_| pair.spawn_asker(&turns)).collect();
    (0..20).for_each(|_| (0..2).for_each(|index| _ = pair.turn(index)));
    let polls = pair.spawn_busy(0);
    for _ in 0..20 * (askers.len() + 1) {
        assert!(pair.turn(0) <= TASKS_MAX + 2 * POLL);
        pair.turn(1);
    }
    // Half of each turn is the time of five polls, for fifty tasks at most.
    assert!(polls.get() >= 90, "{} polls", polls.get());
    assert!(askers.iter().all(|took| took.borrow().len() > 20));
}

/// Catches a turn that has the ring send as much as its tasks like to: the submission is part of the turn.
#[test]
fn a_turn_ends_when_its_tasks_gave_the_ring_enough_to_do() {
    let pair = Pair::new();
    pair.enter(0);
    let (len, begun) = (64 * 1024, Rc::new(Cell::new(0)));
    let peers: Vec<UnixStream> = (0..10)
        .map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let begun = begun.clone();
            shard::spawn("sender", async move {
                let mut message = Outgoing::new(Rc::new(Socket::from_fd(ours.into())));
                message.head.resize(len, 7);
                begun.set(begun.get() + 1);
                send::send(message).await.0.unwrap();
            });
            theirs
        })
        .collect();
    // An operation, and one more for every 4 KiB.
    let at_once = WORK_MAX.div_ceil(1 + len / 4096);
    for turn in 1..=3 {
        pair.turn(0);
        assert_eq!(begun.get(), turn * at_once);
    }
    (0..100).for_each(|_| _ = pair.turn(0));
    assert_eq!((begun.get(), pair.ring.in_flight()), (10, 0));
    drop(peers);
}

/// Catches a submission that waits although there is something to do, and one that does not wait although there is
/// nothing: each would cost a call more, or a delay.
#[test]
fn a_turn_naps_when_there_is_nothing_to_do_and_never_otherwise() {
    let pair = Pair::new();
    pair.enter(0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (socket, woken) = (Rc::new(Socket::from_fd(ours.into())), Rc::new(Cell::new(0)));
    let count = woken.clone();
    shard::spawn("waits", async move {
        loop {
            crate::runtime::ring::poll::readable(&socket).await;
            count.set(count.get() + 1);
            assert_eq!(socket.receive_now(&mut [0; 8]).unwrap(), Some(1));
        }
    });
    let clock = Clock::machine();
    let began = clock.now();
    for byte in 1..=3 {
        std::io::Write::write_all(&mut &theirs, &[byte]).unwrap();
        // What was written before completes the first poll when this turn submits it, and the others before it.
        assert_eq!(pair.nap(), byte == 1);
        pair.turn(0);
        assert_eq!(woken.get(), usize::from(byte));
    }
    // Before the nap or in it: either way it is over.
    let wake = pair.wake.clone();
    let waker = std::thread::spawn(move || rustix::io::write(&*wake, &1u64.to_ne_bytes()).unwrap());
    pair.nap();
    waker.join().unwrap();
    pair.turn(0);
    let looks = Rc::new(Cell::new(0));
    let count = looks.clone();
    pair.shards[0].at_turn_start(Box::new(move || count.replace(count.get() + 1) == 1));
    assert!(!pair.nap() && looks.get() == 2, "a message came after the first look");
    let is_full = Rc::new(Cell::new(true));
    let full = is_full.clone();
    pair.shards[0].at_turn_end(Box::new(move || full.get()));
    assert!(!pair.nap(), "a message waits for room");
    is_full.set(false);
    let polls = pair.spawn_busy(0);
    assert!(!pair.nap() && polls.get() == 1, "a task can run");
    assert!(clock.now().since(began) < PATIENCE, "naps end by what happens and not by their time");
}

/// Catches a nap through the end of a job: glommio alone hears of it.
#[test]
fn nobody_naps_while_a_job_is_under_way() {
    let pair = Pair::new();
    pair.enter(0);
    shard::spawn("asks", async { _ = crate::runtime::blocking::run(|| ()).await });
    assert!(!pair.nap());
    let job = pair.shards[0].jobs().take().unwrap();
    assert!(!pair.nap(), "it was taken, and has not ended");
    let (work, delivery) = job.split();
    delivery.deliver(work.run());
}

/// Catches a nap beyond a timer.
#[test]
fn a_nap_ends_when_a_timer_is_due() {
    let pair = Pair::new();
    pair.enter(0);
    shard::spawn("sleeps", async { crate::runtime::timer::sleep(Duration::from_millis(5)).await });
    pair.turn(0);
    let clock = Clock::machine();
    let began = clock.now();
    assert!(pair.nap());
    assert!(clock.now().since(began) < PATIENCE);
}

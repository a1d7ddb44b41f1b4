//! How long a message to another shard takes, and how long the way back, between shards that rest and that work.
//!
//! Expected: between shards that look for work, well under a microsecond and one turn of each; a shard that sleeps
//! adds its wake-up, which a virtual machine makes dear. Between loaded shards a message waits for the end of the
//! sender's turn and of the target's: `p99` of either way stays below 200 us, because a turn is short whatever
//! there is to do. An ask allocates the place of its answer, nothing else.
//! Not measured: a machine with fewer free cores than shards.

mod meter;

use meter::{Delays, Tally, count, shards};
use millpond::runtime::mailbox::{Mailbox, Mesh, Post, Reply};
use millpond::runtime::notify::answer;
use millpond::runtime::park::Unpark;
use millpond::runtime::ring::recv::Receiver;
use millpond::runtime::ring::send::{self, Outgoing};
use millpond::runtime::ring::socket::Socket;
use millpond::runtime::{Moment, ShardId, shard, timer};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() {
    for load in [Load::None, Load::Rest, Load::Work, Load::Traffic, Load::Bulk] {
        let mut results = shards::run(Mesh::new(2), move |mailbox, unparks| talk(load, mailbox, unparks));
        let (Some(mut outcome), None) = (results.swap_remove(0), results.pop().flatten()) else {
            panic!("the first shard asks, the second one answers");
        };
        assert_eq!(outcome.there.count(), load.hops(), "every question was answered");
        let allocations = format!("{:.3} allocations/op", outcome.allocations);
        outcome.there.report(&format!("mailbox hop, {}, there", load.name()), &allocations);
        outcome.back.report(&format!("mailbox hop, {}, back", load.name()), "");
    }
}

/// What the shards do besides.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    /// Nothing: each question follows the answer before it.
    None,
    /// Nothing, and questions are so far apart that both shards sleep.
    Rest,
    /// Tasks that can always run, each for some microseconds.
    Work,
    /// Connections over loopback that talk as fast as they can, both ends on the same shard.
    Traffic,
    /// The same with messages of 128 KiB.
    Bulk,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Load::None => "idle",
            Load::Rest => "asleep",
            Load::Work => "loaded with 64 tasks of 5 us",
            Load::Traffic => "loaded with 64 connections",
            Load::Bulk => "loaded with 16 connections of 128 KiB",
        }
    }

    fn hops(self) -> usize {
        match self {
            Load::None => count(100_000, 20),
            Load::Rest => count(2_000, 5),
            Load::Work | Load::Traffic | Load::Bulk => count(10_000, 20),
        }
    }

    fn begin(self) {
        match self {
            Load::None | Load::Rest => {}
            Load::Work => (0..64).for_each(|_| shard::spawn("work", work())),
            Load::Traffic => (0..64).for_each(|_| traffic(100)),
            Load::Bulk => (0..16).for_each(|_| traffic(128 * 1024)),
        }
    }

    /// Between two questions, so that they fall anywhere into the turns of both shards.
    async fn pause(self) {
        match self {
            Load::None => {}
            Load::Rest => timer::sleep(Duration::from_millis(1)).await,
            Load::Work | Load::Traffic | Load::Bulk => {
                let micros = shard::current().entropy().below(300);
                timer::sleep(Duration::from_micros(micros)).await;
            }
        }
    }
}

struct Outcome {
    there: Delays,
    back: Delays,
    allocations: f64,
}

enum Say {
    /// Asked: when did you hear it?
    When,
    /// Told: that was all.
    Bye,
}

async fn talk(load: Load, mailbox: Mailbox<Say, Moment>, unparks: Vec<Arc<Unpark>>) -> Option<Outcome> {
    let (bye, said) = answer();
    let bye = Cell::new(Some(bye));
    let post = mailbox.open(unparks, move |_, say, reply: Option<Reply<Moment>>| match say {
        Say::When => reply.expect("a question").give(shard::now()),
        Say::Bye => bye.take().expect("said once").give(()),
    });
    load.begin();
    match shard::current().id() {
        ShardId(0) => Some(ask(load, &post).await),
        _ => {
            said.await;
            None
        }
    }
}

async fn ask(load: Load, post: &Post<Say, Moment>) -> Outcome {
    let hops = load.hops();
    for _ in 0..hops / 10 {
        post.ask(ShardId(1), Say::When).await.expect("an answer");
        load.pause().await;
    }
    let (mut there, mut back) = (Delays::with_room(hops), Delays::with_room(hops));
    let tally = Tally::begin();
    for _ in 0..hops {
        let sent = shard::now();
        let heard = post.ask(ShardId(1), Say::When).await.expect("an answer");
        let answered = shard::now();
        assert!(sent <= heard && heard <= answered, "one clock for all shards");
        there.push(heard - sent);
        back.push(answered - heard);
        load.pause().await;
    }
    let allocations = tally.end(hops).allocations_per_op();
    post.tell(ShardId(1), Say::Bye);
    // Said once the turn ends, which must not be the last one.
    shard::yield_now().await;
    shard::yield_now().await;
    Outcome { there, back, allocations }
}

/// A task that can always run.
async fn work() {
    loop {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(5) {
            black_box(());
        }
        shard::yield_now().await;
    }
}

/// One connection whose ends answer each other for ever.
fn traffic(len: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    let (other, _) = listener.accept().expect("accepts");
    for (stream, begins) in [(one, true), (other, false)] {
        stream.set_nodelay(true).expect("an option");
        stream.set_nonblocking(true).expect("an option");
        let socket = Rc::new(Socket::from_fd(stream.into()));
        shard::spawn("end of a connection", end(socket, len, begins));
    }
}

async fn end(socket: Rc<Socket>, len: usize, begins: bool) {
    let receiver = Receiver::new(socket.clone());
    let mut message = Outgoing::new(socket);
    let mut due = begins;
    loop {
        if due {
            message.head.resize(len, 7);
            let (sent, back) = send::send(message).await;
            sent.expect("the other end takes it");
            message = back;
        }
        due = true;
        let mut left = len;
        while left > 0 {
            let taken = receiver.next_piece(left, |bytes| bytes.len()).await.expect("the other end is there");
            left -= taken.expect("the other end stays");
        }
    }
}

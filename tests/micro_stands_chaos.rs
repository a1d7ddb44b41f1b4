//! micro: of three nodes one is slow, one is killed and started again, in turn, under a fixed rate of requests. None fails
//! that could have been made again, and few wait for the slow node.
//!
//! Requests come at their times, whatever became of those before, and how long one took counts from its time on. Half of
//! them are passed on, of which none may fail; half are calls, which may be lost only with the connection that they had
//! been sent on. Phases end by what happened, not by the clock. `MILLPOND_CHAOS_TURNS` makes that many turns at 2,000
//! requests a second, of which the slow node may get less than one in a hundred, and p99 has to be below what it takes.
//! Else there are three turns at a rate for a debug build, whose machine may have delays of its own: there the slow node
//! gets less than half of its share, and no time is judged.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::content::number_from;
use common::http::request_bytes;
use common::node::{Node, SAYS};
use common::{Answer, Conn, Setup, eventually};

const SLOW: Duration = Duration::from_millis(500);
/// So many requests may be under way; a slow node takes few of them.
const CALLERS: usize = 48;
const SERVICE: &str = "go.micro.srv.web";

/// What is done.
#[derive(Clone, Copy)]
struct Plan {
    turns: usize,
    /// Requests a second.
    rate: usize,
    /// Requests in a turn, at least.
    per_turn: usize,
    /// Of a thousand requests the slow node may get fewer than that.
    slow_per_mille: usize,
    /// Whether the machine is ours.
    judges_time: bool,
}

impl Plan {
    fn told() -> Self {
        let turns = number_from("MILLPOND_CHAOS_TURNS");
        match turns {
            Some(turns) => Plan {
                turns: turns as usize,
                rate: 2000,
                per_turn: 12_000,
                slow_per_mille: 10,
                judges_time: true,
            },
            None => Plan { turns: 3, rate: 200, per_turn: 1000, slow_per_mille: 160, judges_time: false },
        }
    }
}

/// The load, as everybody sees it.
struct Load {
    plan: Plan,
    began: Instant,
    /// The number of the next request.
    next: AtomicUsize,
    answered: AtomicUsize,
    is_over: AtomicBool,
}

/// A request that was answered.
struct Made {
    number: usize,
    took: Duration,
    /// Why it failed.
    failure: Option<String>,
}

#[test]
fn nodes_that_fail_cost_no_request_and_a_slow_one_few_their_time() {
    let plan = Plan::told();
    let daemon = Setup::default().micro("handler = \"proxy\"").start();
    let mut nodes = [Node::start(), Node::start(), Node::start()];
    nodes.iter().for_each(|node| node.register(daemon.micro(), SERVICE));
    let load = Load {
        plan,
        began: Instant::now(),
        next: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    };
    let (mut starts, mut waited) = (vec![0], Vec::new());
    let mut made: Vec<Made> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| load.call(daemon.micro()))).collect();
        let over = Over(&load.is_over);
        load.goes_on(plan.rate / 2);
        starts.push(load.next.load(Ordering::SeqCst));
        for turn in 0..plan.turns {
            let (slow, gone) = (turn % 3, (turn + 1) % 3);
            let before = nodes[slow].asked();
            nodes[slow].takes(SLOW);
            load.goes_on(plan.per_turn / 4);
            nodes[gone].kill();
            load.goes_on(plan.per_turn / 4);
            let asked = nodes[gone].asked();
            nodes[gone].restart();
            eventually("it has its share again", || (nodes[gone].asked() > asked + 50).then_some(()));
            load.goes_on(plan.per_turn / 2);
            waited.push(nodes[slow].asked() - before);
            nodes[slow].takes(Duration::ZERO);
            starts.push(load.next.load(Ordering::SeqCst));
        }
        drop(over);
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller goes on to the end")).collect()
    });
    made.sort_unstable_by_key(|made| made.number);
    let failures: Vec<&str> = made.iter().filter_map(|made| made.failure.as_deref()).collect();
    let metrics = daemon.metrics();
    // The soak reads these lines.
    println!(
        "chaos: requests {}, lost {}, retries {}, rests {}",
        made.len(),
        failures.len(),
        metrics.sum("millpond_rpc_retries_total"),
        metrics.sum("millpond_rpc_ejections_total")
    );
    let mut slowest = Duration::ZERO;
    for (turn, ends) in starts[1..].windows(2).enumerate() {
        let mut took: Vec<Duration> = made[ends[0]..ends[1]].iter().map(|made| made.took).collect();
        took.sort_unstable();
        let at = |share: usize| took[took.len() * share / 1000];
        let [p50, p99, p999] = [500, 990, 999].map(|share| at(share).as_micros());
        let (requests, slow) = (took.len(), waited[turn]);
        println!("turn {turn}: requests {requests}, slow {slow}, p50 {p50}, p99 {p99}, p999 {p999}");
        slowest = slowest.max(at(990));
        assert!(slow * 1000 < requests * plan.slow_per_mille, "the slow node got {slow} of {requests}");
    }
    assert!(!plan.judges_time || slowest < SLOW, "p99 of a turn is {slowest:?}");
    // Of a call that had been sent when the node went nobody can know what became of it.
    let lost =
        failures.iter().filter(|failure| failure.contains(r#""id":"go.micro.client.transport""#)).count();
    assert_eq!(lost, failures.len(), "{failures:?}");
    assert!(lost <= plan.turns * CALLERS, "{lost} calls were under way");
}

/// Ends the load, also when the test fails.
struct Over<'l>(&'l AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Load {
    /// Waits until so many more requests were answered.
    #[track_caller]
    fn goes_on(&self, count: usize) {
        let wanted = self.answered.load(Ordering::SeqCst) + count;
        eventually("requests are answered", || {
            (self.answered.load(Ordering::SeqCst) >= wanted).then_some(())
        });
    }

    /// Makes the requests that nobody else makes, until the load is over.
    #[allow(clippy::disallowed_methods, reason = "the time of a request is the test's input")]
    fn call(&self, addr: &str) -> Vec<Made> {
        let (mut conn, mut made) = (Conn::open(addr), Vec::new());
        let passed_on = request_bytes("GET", "/web/page", &[], b"");
        let body = format!(r#"{{"service":"{SERVICE}","method":"E.C","request":1}}"#);
        let call = request_bytes("POST", "/rpc", &[("Content-Type", "application/json")], body.as_bytes());
        while !self.is_over.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let due = self.began + Duration::from_secs(1) * number as u32 / self.plan.rate as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let is_call = number.is_multiple_of(2);
            conn.send(if is_call { &call } else { &passed_on });
            let answer = conn.answer();
            let failure = failure(&answer, if is_call { "1" } else { SAYS });
            made.push(Made { number, took: due.elapsed(), failure });
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
        made
    }
}

fn failure(answer: &Answer, expected: &str) -> Option<String> {
    let is_good = answer.status == 200 && answer.text() == expected;
    (!is_good).then(|| format!("{}: {}", answer.status, answer.text()))
}

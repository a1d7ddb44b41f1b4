//! The habits of glommio 0.9 that would stop or kill a daemon, each met and survived.
//!
//! Runs real shards in this process; every wait has a deadline.

use millpond::runtime::driver::{self, Tuning};
use millpond::runtime::file::os::OsDisk;
use millpond::runtime::ring::{poll, socket::Socket};
use millpond::runtime::{blocking, shard, timer};
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `test` as the main task of one shard; the receiver gets what it returns, and nothing when it panicked.
fn on_a_shard<T: Send + 'static, F: Future<Output = T> + 'static>(
    tuning: Tuning,
    test: impl Fn() -> F + Clone + Send + 'static,
) -> (driver::Running, Receiver<T>) {
    let (done, result) = sync_channel(1);
    let running = driver::start_tuned(tuning, 1, Arc::new(OsDisk), move |_, _| {
        let (test, done) = (test.clone(), done.clone());
        Box::pin(async move {
            let value = test().await;
            let _ = done.send(value);
        })
    });
    (running.expect("shards start here"), result)
}

fn expect<T>((running, result): (driver::Running, Receiver<T>), what: &str) -> T {
    let value = result.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} within {PATIENCE:?}"));
    assert!(running.join(), "the shard ends in order");
    value
}

/// Every sleep is glommio's.
fn without_naps() -> Tuning {
    Tuning { nap: Duration::ZERO, ..Tuning::default() }
}

/// A socket that never becomes readable, polled: something is in flight.
fn waiting_socket() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    (Socket::from_fd(ours.into()), theirs)
}

/// The heartbeat beats while an operation waits for its peer although the shard sleeps, and only then. Without it
/// a shard that glommio parked at the wrong moment stays parked until something else happens.
#[test]
fn the_heart_beats_while_anything_is_in_flight_and_parks_otherwise() {
    let tuning = Tuning { heartbeat: Duration::from_millis(2), preempt: None, ..Tuning::default() };
    let (step, steps) = sync_channel(2);
    let (running, result) = on_a_shard(tuning, move || {
        let step = step.clone();
        async move {
            timer::sleep(Duration::from_millis(20)).await;
            step.send(()).expect("the test listens");
            timer::sleep(Duration::from_millis(200)).await;
            step.send(()).expect("the test listens");
            let (socket, _theirs) = waiting_socket();
            let socket = Rc::new(socket);
            shard::spawn("waits", async move { poll::readable(&socket).await });
            timer::sleep(Duration::from_millis(200)).await;
        }
    });
    steps.recv_timeout(PATIENCE).expect("the shard starts");
    let before_idling = running.heartbeats();
    steps.recv_timeout(PATIENCE).expect("the shard goes on");
    let idle = running.heartbeats() - before_idling;
    result.recv_timeout(PATIENCE).expect("the shard ends");
    let waiting = running.heartbeats() - before_idling - idle;
    assert!(running.join());
    assert!(idle <= 1, "{idle} beats with nothing in flight");
    assert!(waiting >= 5, "{waiting} beats in 200 ms with a socket waiting");
}

/// A preempt timer of 1 ms makes glommio park with the driver runnable every now and then, mostly on a busy
/// machine; each time the heartbeat has to end it.
#[test]
fn turns_go_on_although_glommio_parks_at_wrong_moments() {
    let tuning = Tuning {
        heartbeat: Duration::from_millis(5),
        preempt: Some(Duration::from_millis(1)),
        ..without_naps()
    };
    let turns = on_a_shard(tuning, || async {
        let (socket, _theirs) = waiting_socket();
        let socket = Rc::new(socket);
        shard::spawn("waits", async move { poll::readable(&socket).await });
        let began = shard::now();
        let mut turns = 0u32;
        while shard::now().since(began) < Duration::from_secs(1) {
            shard::yield_now().await;
            turns += 1;
        }
        turns
    });
    assert!(expect(turns, "a second of turns") > 0);
}

/// glommio counts the references of a task in 16 bits and adds one for every poll of a pending operation: more
/// than 32,767 polls of one operation kill its executor. The driver polls its eventfd read once per sleep, however
/// many turns and wake-ups lie in between.
#[test]
fn more_turns_and_sleeps_than_a_16_bit_count_holds() {
    let survived = on_a_shard(without_naps(), || async {
        for _ in 0..40_000 {
            shard::yield_now().await;
        }
        // Each of these is a sleep of the shard and a wake-up through the ring's timeout.
        for _ in 0..1_000 {
            timer::sleep(Duration::from_micros(10)).await;
        }
        true
    });
    assert!(expect(survived, "40,000 turns"));
}

#[test]
fn foreign_wake_ups_beyond_the_16_bit_count_are_survived() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while std::io::Read::read_exact(&mut theirs, &mut byte).is_ok() {
            if std::io::Write::write_all(&mut theirs, &byte).is_err() {
                break;
            }
        }
    });
    let fd: std::os::fd::OwnedFd = ours.into();
    let shared = Arc::new(fd);
    let survived = on_a_shard(without_naps(), move || {
        let fd = shared.try_clone().expect("a descriptor");
        async move {
            let socket = Rc::new(Socket::from_fd(fd));
            let mut byte = [7];
            for _ in 0..35_000 {
                rustix::io::write(&*socket, &byte).expect("the echo reads");
                while socket.receive_now(&mut byte).expect("the echo answers").is_none() {
                    poll::readable(&socket).await;
                }
            }
            true
        }
    });
    assert!(expect(survived, "35,000 round trips"));
    drop(echo);
}

#[test]
fn a_panicking_task_ends_alone() {
    let panics = on_a_shard(Tuning::default(), || async {
        for _ in 0..3 {
            shard::spawn("panics", async { panic!("on purpose") });
        }
        timer::sleep(Duration::from_millis(1)).await;
        shard::current().executor().panic_count()
    });
    assert_eq!(expect(panics, "life after three panics"), 3);
}

#[test]
fn a_panicking_job_is_an_error_and_the_pool_keeps_its_thread() {
    let answers = on_a_shard(Tuning::default(), || async {
        let mut failed = 0;
        for _ in 0..20 {
            failed += u32::from(blocking::run(|| -> u32 { panic!("on purpose") }).await.is_err());
        }
        (failed, blocking::run(|| 42).await.expect("the pool still works"))
    });
    assert_eq!(expect(answers, "answers of the pool"), (20, 42));
}

/// A wake-up that comes from another thread, through an ordinary waker.
#[test]
fn a_waker_may_leave_its_thread() {
    let woken = on_a_shard(Tuning::default(), || async {
        let mut thread = None;
        std::future::poll_fn(move |cx| match thread.take() {
            None => {
                let waker = cx.waker().clone();
                thread = Some(std::thread::spawn(move || waker.wake()));
                std::task::Poll::Pending
            }
            Some(thread) => {
                let _ = thread.join();
                std::task::Poll::Ready(true)
            }
        })
        .await
    });
    assert!(expect(woken, "the foreign wake-up"));
}

/// glommio delivers finished jobs and fires timers only when it gets the thread back. A shard that always has something
/// to run gives it back by the clock; one that did so only when idle would wait for this job for ever.
#[test]
fn a_busy_shard_lets_glommio_have_its_turn() {
    let answer = on_a_shard(Tuning::default(), || async {
        shard::spawn("busy", async {
            loop {
                shard::yield_now().await;
            }
        });
        blocking::run(|| 42).await.expect("the pool works")
    });
    assert_eq!(expect(answer, "the job's answer"), 42);
}

/// By the clock, not by turns: whatever the tasks do, one turn after the time is up glommio has had the thread. A stall
/// of the machine between two looks changes nothing about that order.
#[test]
fn a_busy_shard_yields_in_the_turn_after_a_millisecond_is_up() {
    static YIELDS: OnceLock<Arc<AtomicU64>> = OnceLock::new();
    let (running, result) = on_a_shard(Tuning::default(), || async {
        let yields = loop {
            match YIELDS.get() {
                Some(yields) => break yields,
                None => shard::yield_now().await,
            }
        };
        let first = yields.load(Ordering::Relaxed);
        let (mut seen, mut since, mut is_due) = (first, shard::now(), false);
        while seen < first + 50 {
            // One poll a turn.
            shard::yield_now().await;
            let now_seen = yields.load(Ordering::Relaxed);
            if now_seen != seen {
                (seen, since, is_due) = (now_seen, shard::now(), false);
                continue;
            }
            assert!(!is_due, "a turn went by, and no yield");
            is_due = shard::now().since(since) >= driver::YIELD_EVERY;
        }
    });
    YIELDS.set(running.yields()).expect("set once");
    expect((running, result), "fifty yields");
}

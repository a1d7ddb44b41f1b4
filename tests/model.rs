//! The lane and the sleep protocol hold in every interleaving and every reordering that the memory model allows.
//!
//! Compiles the product's own `lane.rs` and `park.rs` against a model checker's atomics. Each promise is checked
//! a second time with one planted fault, and the checker must find it: a net that catches no fish proves
//! nothing.

#![allow(
    clippy::duplicate_mod,
    reason = "the same files once with the right orders and once with each wrong one"
)]

use std::process::Command;

/// The product's files over the checker's types, with the given orders.
macro_rules! compiled_with {
    ($name:ident, publish: $publish:ident, observe: $observe:ident, total: $total:ident) => {
        #[path = "../src/runtime"]
        #[allow(dead_code, reason = "the models need only a part of either file")]
        mod $name {
            pub mod sync {
                pub use loom::cell::UnsafeCell;
                pub use loom::sync::Arc;
                pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
                pub const PUBLISH: Ordering = Ordering::$publish;
                pub const OBSERVE: Ordering = Ordering::$observe;
                pub const TOTAL: Ordering = Ordering::$total;
            }
            pub mod lane;
            pub mod park;
        }
    };
}

compiled_with!(product, publish: Release, observe: Acquire, total: SeqCst);
compiled_with!(weak_publish, publish: Relaxed, observe: Acquire, total: SeqCst);
compiled_with!(weak_observe, publish: Release, observe: Relaxed, total: SeqCst);
compiled_with!(weak_fence, publish: Release, observe: Acquire, total: AcqRel);

/// Runs `model` in every interleaving.
fn check(model: impl Fn() + Sync + Send + 'static) {
    loom::model::Builder::new().check(model);
}

/// A test whose model has a planted fault, which the checker must find and name so.
macro_rules! planted {
    ($test:ident, $finding:literal, $model:expr) => {
        #[test]
        fn $test() {
            must_catch(stringify!($test), $finding, $model);
        }
    };
}

/// Set in the process that runs a planted fault.
const PLANTED: &str = "MILLPOND_MODEL_PLANTED";

/// Runs `model` in a process of its own: a finding unwinds through the checker's own types, whose destructors
/// may then panic again and abort.
fn must_catch(test: &str, finding: &str, model: impl Fn() + Sync + Send + 'static) {
    if std::env::var_os(PLANTED).is_some() {
        return check(model);
    }
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(PLANTED, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success(), "the checker missed the planted fault");
    assert!(said.contains(finding), "expected {finding:?}, but the checker said {said}");
}

/// Three messages over a lane of two: it fills, and it wraps.
macro_rules! messages_cross_whole {
    ($product:ident) => {
        || {
            let (mut sender, mut receiver) = $product::lane::lane::<Parcel>(2);
            let producer = loom::thread::spawn(move || {
                for number in 1..=3 {
                    let mut parcel = Parcel::new(number);
                    while let Err(back) = sender.push(parcel) {
                        parcel = back;
                        loom::thread::yield_now();
                    }
                }
            });
            let mut expected = 1;
            while expected <= 3 {
                match receiver.pop() {
                    Some(parcel) => {
                        assert_eq!(parcel.open(), expected, "lost, doubled or out of order");
                        expected += 1;
                    }
                    None => loom::thread::yield_now(),
                }
            }
            producer.join().unwrap();
        }
    };
}

/// A message of two words that must agree, in memory that the checker watches for leaks and double drops.
struct Parcel {
    number: loom::alloc::Track<u64>,
    twice: u64,
}

impl Parcel {
    fn new(number: u64) -> Self {
        Parcel { number: loom::alloc::Track::new(number), twice: 2 * number }
    }

    fn open(&self) -> u64 {
        assert_eq!(self.twice, 2 * *self.number.get_ref(), "a torn message");
        *self.number.get_ref()
    }
}

#[test]
fn a_lane_neither_loses_nor_doubles_nor_tears_nor_reorders() {
    check(messages_cross_whole!(product));
}

planted!(
    the_checker_sees_a_lane_whose_stores_are_too_weak,
    "Causality violation",
    messages_cross_whole!(weak_publish)
);

planted!(
    the_checker_sees_a_lane_whose_loads_are_too_weak,
    "Causality violation",
    messages_cross_whole!(weak_observe)
);

#[test]
fn what_nobody_took_is_dropped_once_whoever_leaves_first() {
    check(|| {
        let (mut sender, mut receiver) = product::lane::lane::<Parcel>(2);
        let producer = loom::thread::spawn(move || {
            assert!(sender.push(Parcel::new(1)).is_ok());
            assert!(sender.push(Parcel::new(2)).is_ok());
        });
        if let Some(parcel) = receiver.pop() {
            assert_eq!(parcel.open(), 1);
        }
        drop(receiver);
        producer.join().unwrap();
    });
}

/// One message to a shard that goes to sleep when it finds nothing. A lost wake-up is a deadlock, which the
/// checker reports.
macro_rules! a_sleeper_is_woken {
    ($product:ident, look_again: $look_again:literal, nudge: $nudge:literal) => {
        || {
            use loom::sync::{Condvar, Mutex};
            use $product::sync::Arc;
            let (mut sender, mut receiver) = $product::lane::lane::<u64>(2);
            let eventfd = Arc::new((Mutex::new(false), Condvar::new()));
            let woken = eventfd.clone();
            let unpark = Arc::new($product::park::Unpark::new(move || {
                *woken.0.lock().unwrap() = true;
                woken.1.notify_one();
            }));
            let nudged = unpark.clone();
            let producer = loom::thread::spawn(move || {
                sender.push(7).unwrap();
                if $nudge {
                    nudged.nudge();
                }
                sender
            });
            let message = loop {
                if let Some(message) = receiver.pop() {
                    break message;
                }
                unpark.prepare_sleep();
                if !$look_again || receiver.is_empty() {
                    let mut written = eventfd.0.lock().unwrap();
                    while !*written {
                        written = eventfd.1.wait(written).unwrap();
                    }
                    *written = false;
                }
                unpark.awake();
            };
            assert_eq!(message, 7);
            producer.join().unwrap();
        }
    };
}

#[test]
fn no_wake_up_is_lost() {
    check(a_sleeper_is_woken!(product, look_again: true, nudge: true));
}

planted!(
    the_checker_sees_a_sleep_without_a_second_look,
    "deadlock",
    a_sleeper_is_woken!(product, look_again: false, nudge: true)
);

planted!(
    the_checker_sees_a_missing_nudge,
    "deadlock",
    a_sleeper_is_woken!(product, look_again: true, nudge: false)
);

planted!(
    the_checker_sees_fences_that_are_too_weak,
    "deadlock",
    a_sleeper_is_woken!(weak_fence, look_again: true, nudge: true)
);

#[test]
fn a_closed_lane_still_holds_what_was_put_before() {
    check(|| {
        let (mut sender, mut receiver) = product::lane::lane::<u64>(2);
        let producer = loom::thread::spawn(move || {
            sender.push(1).unwrap();
            drop(sender);
        });
        // The order in which a mailbox asks: closed first, then what is inside.
        let closed = receiver.is_closed();
        let first = receiver.pop();
        assert!(!closed || first == Some(1), "closed, and yet a message is missing");
        producer.join().unwrap();
    });
}

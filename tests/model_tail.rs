//! The wait-and-publish protocol of a tail under every order that the memory model allows.
//!
//! The file under test is compiled here against the model checker's atomics, as it is.

#[path = "../src/storage/tail/progress.rs"]
#[allow(dead_code, reason = "the model uses what it checks")]
mod progress;

mod sync {
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use progress::Progress;

/// Catches a missing or weaker fence on either side: a reader that announced itself and then saw nothing new is
/// woken, or the second look sees the bytes.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let progress = Arc::new(Progress::new(2, 0, 0));
        let woken = Arc::new(AtomicBool::new(false));
        let appender = {
            let (progress, woken) = (progress.clone(), woken.clone());
            thread::spawn(move || progress.publish(7, |_| woken.store(true, Ordering::Relaxed)))
        };
        progress.wait_from(1);
        let seen = progress.published();
        appender.join().unwrap();
        assert!(seen == 7 || woken.load(Ordering::Relaxed), "asleep for ever");
    });
}

/// The same for the end of a stream, which two shards may announce.
#[test]
fn no_end_is_missed_and_none_overwrites_another() {
    loom::model(|| {
        let progress = Arc::new(Progress::new(1, 0, 0));
        let woken = Arc::new(AtomicBool::new(false));
        let owner = {
            let (progress, woken) = (progress.clone(), woken.clone());
            thread::spawn(move || progress.change(0, 4, |_| woken.store(true, Ordering::Relaxed)))
        };
        progress.change(0, 1, |_| {});
        progress.wait_from(0);
        let seen = progress.state();
        owner.join().unwrap();
        assert!(seen & 4 != 0 || woken.load(Ordering::Relaxed), "asleep for ever");
        assert_eq!(progress.state(), 5, "both stay");
    });
}

/// Catches an end that becomes visible before the last bytes are.
#[test]
fn who_sees_the_end_sees_every_byte() {
    loom::model(|| {
        let progress = Arc::new(Progress::new(1, 0, 0));
        let appender = {
            let progress = progress.clone();
            thread::spawn(move || {
                progress.publish(9, |_| {});
                progress.change(0, 1, |_| {});
            })
        };
        if progress.state() == 1 {
            assert_eq!(progress.published(), 9);
        }
        appender.join().unwrap();
    });
}

//! Waiting on conditions.

use std::time::{Duration, Instant};

/// How long a test waits for something that normally takes milliseconds. Generous, because two cores are
/// shared by everything that runs beside the test; reaching it is always a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until the answer is there; past the deadline the test fails with `what`.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "a breath between two looks at the condition")]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "within {PATIENCE:?} it did not happen that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

//! Time: one monotonic clock for all threads, and the CPU time of this one. All in nanoseconds.
//!
//! Invariant: what two threads, or two processes of one machine, read can be subtracted.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// Now, by the monotonic clock of the machine.
pub fn now() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// What this thread has spent on a CPU so far.
pub fn thread_cpu() -> u64 {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

/// `nanos` as the kernel takes it.
pub fn timespec(nanos: u64) -> Timespec {
    Timespec { tv_sec: (nanos / SECOND) as i64, tv_nsec: (nanos % SECOND) as i64 }
}

fn nanos(time: Timespec) -> u64 {
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

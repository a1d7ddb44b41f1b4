//! Time: the only source of "now".
//!
//! Monotonic time is a [`Moment`], wall time a [`WallTime`]; both come from the current shard's clock,
//! which is the machine's or the simulation's. Lives on: every shard, each with its own.

use std::cell::Cell;
use std::ops::{Add, Sub};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in monotonic time, in nanoseconds since the clock was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the clock was made.
    pub const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    /// Nanoseconds since the clock was made.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Moment) -> Duration {
        self.since(earlier)
    }
}

/// A point in wall time, in nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct WallTime(u64);

impl WallTime {
    /// The wall time `nanos` nanoseconds after the Unix epoch.
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        WallTime(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn unix_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

/// Where a shard reads the time.
#[derive(Clone)]
pub enum Clock {
    /// The machine's clocks; moments count from `started`.
    Machine {
        /// When this process made its first clock, so that moments agree between shards.
        started: Instant,
    },
    /// A simulation's clock, moved by the simulation alone.
    Simulated {
        /// Nanoseconds since the simulation began; wall time starts in 2026 and runs alike.
        nanos: Rc<Cell<u64>>,
    },
}

/// 2026-01-01T00:00:00Z, where simulated wall time begins.
const SIMULATED_EPOCH_NANOS: u64 = 1_767_225_600_000_000_000;

impl Clock {
    /// The machine's clock, counting from now.
    pub fn machine() -> Self {
        Clock::Machine { started: Instant::now() }
    }

    /// Monotonic time.
    pub fn now(&self) -> Moment {
        match self {
            Clock::Machine { started } => {
                Moment(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
            }
            Clock::Simulated { nanos } => Moment(nanos.get()),
        }
    }

    /// Wall time; may jump when the host's clock is set.
    pub fn wall(&self) -> WallTime {
        match self {
            Clock::Machine { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
            }
            Clock::Simulated { nanos } => WallTime(SIMULATED_EPOCH_NANOS + nanos.get()),
        }
    }
}

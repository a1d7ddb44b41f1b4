//! A client's patience with a server that is away, from the first failure to the next success.
//!
//! Invariant: what is wrong is told once per outage, and the waits within it follow [`Outage`].
//!
//! Runs in: the command-line clients.

use std::fmt;
use std::time::{Duration, Instant};

use super::console;
use super::outage::{Outage, PATIENCE};

/// A connection that lived this long ends the trouble before it.
const STEADY: Duration = Duration::from_secs(2);

/// See the module.
pub struct Patience {
    /// As which command it speaks.
    command: &'static str,
    trouble: Option<(Outage, Instant)>,
}

/// It came to an end, with this for the last cause.
#[derive(Debug)]
pub struct Exhausted<C>(pub C);

impl Patience {
    /// With everything well so far.
    pub fn new(command: &'static str) -> Self {
        Patience { command, trouble: None }
    }

    /// Whether nothing is wrong.
    pub fn is_calm(&self) -> bool {
        self.trouble.is_none()
    }

    /// Something went well.
    pub fn restore(&mut self) {
        self.trouble = None;
    }

    /// A connection ended that began `since`.
    pub fn survived(&mut self, since: Instant) {
        if since.elapsed() >= STEADY {
            self.restore();
        }
    }

    /// Until when to wait before the next attempt.
    pub fn wait_after<C: fmt::Display>(&mut self, cause: C) -> Result<Instant, Exhausted<C>> {
        if self.is_calm() {
            let minutes = PATIENCE.as_secs() / 60;
            console::say(self.command, &format_args!("{cause}; trying again for up to {minutes} minutes"));
        }
        let now = console::now();
        let (outage, since) = self.trouble.get_or_insert((Outage::default(), now));
        match outage.wait(now - *since, console::dice()) {
            Some(wait) => Ok(now + wait),
            None => Err(Exhausted(cause)),
        }
    }
}

impl<C: fmt::Display> fmt::Display for Exhausted<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gave up after {} minutes: {}", PATIENCE.as_secs() / 60, self.0)
    }
}

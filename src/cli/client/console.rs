//! The process's own ends: standard input, output and error, and the clock.
//!
//! Standard streams are used as descriptors, without the buffers and locks of the standard library:
//! every read of stdin is one chunk, and what comes in goes out in one write.
//!
//! Runs in: the command-line clients.

use std::fmt::Display;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

// Only their descriptors are used; as statics these live as long as the process.
static STDIN: LazyLock<io::Stdin> = LazyLock::new(io::stdin);
static STDOUT: LazyLock<io::Stdout> = LazyLock::new(io::stdout);

/// The clock of the command-line clients.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// A random number to spread the return of many clients; zero where the system gives none.
#[must_use]
pub fn dice() -> u32 {
    getrandom::u32().unwrap_or(0)
}

/// One line to stderr; a closed stderr is no reason to stop.
pub fn say(command: &str, what: &dyn Display) {
    let _ = writeln!(io::stderr(), "millpond {command}: {what}");
}

/// Waits until one of `fds` is ready or `timeout` is over; a signal counts as ready.
pub fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up by the kernel's own clock, so a wake-up never comes before its time.
    let timeout = timeout
        .map(|t| Timespec { tv_sec: t.as_secs().min(1 << 30) as i64, tv_nsec: t.subsec_nanos().into() });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Standard input.
pub struct Input;

impl Input {
    /// Its descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'static> {
        STDIN.as_fd()
    }

    /// One read: `None` when there is nothing after all, 0 at the end.
    pub fn read(&self, spaces: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        match rustix::io::readv(self.fd(), spaces) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Standard output.
pub struct Output;

impl Output {
    /// Its descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'static> {
        STDOUT.as_fd()
    }

    /// Writes everything; also to an output that somebody made non-blocking.
    pub fn write_all(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match rustix::io::writev(self.fd(), slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => IoSlice::advance_slices(&mut slices, len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&mut [PollFd::new(&self.fd(), PollFlags::OUT)], None)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

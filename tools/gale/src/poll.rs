//! Readiness: one epoll of one thread, and where threads run.
//!
//! Invariant: level-triggered, so that what is left in a socket is told again and one receive per event is enough.

use std::{io, num::NonZeroU64, os::fd::OwnedFd};

use rustix::{
    buffer::spare_capacity,
    event::epoll,
    fd::AsFd,
    thread::{CpuSet, sched_setaffinity, set_current_timer_slack},
};

use crate::clock;

/// What one wait tells at most.
const EVENTS: usize = 256;

/// An epoll.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// What is to be told about a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// That there is something to read.
    Read,
    /// That there is room to write.
    Write,
    /// Both.
    ReadWrite,
}

/// What was told.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Whose socket.
    pub token: usize,
    /// There is something to read, or an end or an error that reading shows.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
}

impl Poll {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Begins to tell about a socket.
    pub fn add(&self, socket: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token as u64), interest.flags())?)
    }

    /// Tells something else about it from now on.
    pub fn change(&self, socket: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(token as u64), interest.flags())?)
    }

    /// Tells nothing about it any more.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits for at most so many nanoseconds and puts what is ready then in place of what `ready` held.
    pub fn wait(&mut self, nanos: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&clock::timespec(nanos))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let (token, flags) = (event.data.u64() as usize, event.flags);
            Ready {
                token,
                read: flags != epoll::EventFlags::OUT,
                write: flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Interest::Read => epoll::EventFlags::IN,
            Interest::Write => epoll::EventFlags::OUT,
            Interest::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// Keeps this thread on one core, and lets its timers be exact instead of the usual 50 µs late.
pub fn settle(core: Option<usize>) -> io::Result<()> {
    set_current_timer_slack(NonZeroU64::new(1))?;
    let Some(core) = core else { return Ok(()) };
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)
        .map_err(|why| io::Error::other(format!("core {core} is not ours to use: {why}")))
}

//! Bytes between two sockets that this process never sees: by splice through a pooled pipe.
//!
//! Readiness comes from the ring, the splice itself is the plain system call, non-blocking: the ring's own splice
//! always goes to a kernel worker, which costs more than the bytes do. A pipe is taken when there is something to
//! move and goes back once it is empty, so connections that rest hold none.
//!
//! Invariant: a pipe in the pool is empty; one that is let go of with bytes in it is closed. Bound: [`PIPES_MAX`]
//! pipes of a shard are out at a time, each with at most [`PIPE_BYTES`]; who gets none copies instead.

use super::socket::Socket;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How much a pipe holds, where the host allows as much.
pub const PIPE_BYTES: usize = 1 << 20;
/// Pipes of one shard that are in use at a time.
pub const PIPES_MAX: usize = 64;

/// The pipes of one shard.
#[derive(Default)]
pub struct Pipes {
    idle: RefCell<Vec<Ends>>,
    out: Cell<usize>,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// A pipe, and what is in it.
pub struct Pipe {
    pool: Rc<super::Ring>,
    /// There until it goes back.
    ends: Option<Ends>,
    held: usize,
}

impl Pipes {
    /// How many are in use.
    pub fn out(&self) -> usize {
        self.out.get()
    }
}

impl Pipe {
    /// An empty pipe of the shard's pool; `None` when [`PIPES_MAX`] are out or descriptors have run out.
    pub fn take() -> Option<Self> {
        let ring = super::current();
        if ring.pipes.out.get() == PIPES_MAX {
            return None;
        }
        let idle = ring.pipes.idle.borrow_mut().pop();
        let ends = match idle {
            Some(ends) => ends,
            None => Ends::open().ok()?,
        };
        ring.pipes.out.set(ring.pipes.out.get() + 1);
        Some(Pipe { pool: ring, ends: Some(ends), held: 0 })
    }

    /// How many bytes are in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves into the pipe what `from` has now, as far as it fits. `None` when there is nothing, or no room;
    /// `Some(0)` is the peer's end.
    pub fn fill(&mut self, from: &Socket) -> io::Result<Option<usize>> {
        let ends = self.ends();
        let room = ends.capacity - self.held;
        let moved = moved(splice(from, None, &ends.write, None, room, FLAGS))?;
        self.held += moved.unwrap_or(0);
        Ok(moved)
    }

    /// Moves out of the pipe what `to` takes now. `None` when it takes nothing.
    pub fn drain(&mut self, to: &Socket) -> io::Result<Option<usize>> {
        let moved = moved(splice(&self.ends().read, None, to, None, self.held, FLAGS))?;
        self.held -= moved.unwrap_or(0);
        Ok(moved)
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("there until it goes back")
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

fn moved(result: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A host may allow less: then each step moves less.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        let capacity = fcntl_getpipe_size(&write)?;
        Ok(Ends { read, write, capacity })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let pipes = &self.pool.pipes;
        pipes.out.set(pipes.out.get() - 1);
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0) {
            pipes.idle.borrow_mut().push(ends);
        }
    }
}

//! Accepting connections: one multishot operation per listener and shard.
//!
//! Bound: when [`WAITING_MAX`] accepted sockets wait for their task, or when the caller pauses, the operation is
//! cancelled and the kernel's backlog holds the rest.

use super::current;
use super::slot::{Completion, Handle, Keep, Multi, Sink};
use super::socket::Socket;
use io_uring::{opcode, types};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Sockets that may wait between the kernel and the accept loop.
pub const WAITING_MAX: usize = 256;

/// Accepts from one listening socket.
pub struct Acceptor {
    listener: Rc<Socket>,
    queue: Rc<Queue>,
    armed: RefCell<Option<Multi>>,
}

#[derive(Default)]
struct Queue {
    accepted: RefCell<VecDeque<io::Result<OwnedFd>>>,
    waker: Cell<Option<Waker>>,
}

impl Acceptor {
    /// An acceptor for `listener`; nothing is accepted before the first [`Acceptor::next`].
    pub fn new(listener: Socket) -> Self {
        Acceptor { listener: Rc::new(listener), queue: Rc::default(), armed: RefCell::new(None) }
    }

    /// The next connection, or the error that ended accepting for the moment (EMFILE and the like).
    pub async fn next(&self) -> io::Result<Socket> {
        std::future::poll_fn(|cx| {
            if let Some(accepted) = self.queue.accepted.borrow_mut().pop_front() {
                return Poll::Ready(accepted.map(Socket::from_fd));
            }
            self.queue.waker.set(Some(cx.waker().clone()));
            self.arm();
            Poll::Pending
        })
        .await
    }

    /// Stops accepting: what was accepted stays queued, everything else stays in the kernel's backlog. The next
    /// [`Acceptor::next`] that finds the queue empty begins again.
    pub fn pause(&self) {
        self.armed.take();
    }

    fn arm(&self) {
        let mut armed = self.armed.borrow_mut();
        if armed.as_ref().is_none_or(|multi| !multi.is_live()) {
            let entry = opcode::AcceptMulti::new(types::Fd(self.listener.raw_fd()))
                .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
                .build();
            let keep = Keep::Socket(self.listener.clone());
            let ring = current();
            *armed = Some(ring.start_multi(entry, keep, self.queue.clone()));
            ring.standing.set(ring.standing.get() + 1);
        }
    }
}

impl Sink for Queue {
    fn take(&self, completion: Completion, more: bool, from: Handle<'_>) {
        if !more {
            from.ring.standing.set(from.ring.standing.get() - 1);
        }
        let accepted = completion.into_result().map(|fd| {
            // SAFETY: a successful accept completion hands over a new descriptor that nobody else owns.
            unsafe { OwnedFd::from_raw_fd(fd as i32) }
        });
        let mut waiting = self.accepted.borrow_mut();
        // A cancelled accept is a pause of our own making, not news. Whoever waits is woken all the same: it may have
        // emptied the queue before the cancellation took effect, and only another look arms the operation again.
        if !accepted.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ECANCELED)) {
            waiting.push_back(accepted);
        }
        // What the kernel hands over before it sees the cancellation still finds a place.
        if more && waiting.len() == WAITING_MAX {
            from.cancel();
        }
        drop(waiting);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

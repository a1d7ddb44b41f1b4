//! Readiness of a socket, through the ring.

use super::slot::{Completion, Handle, Keep, Multi, Sink};
use super::socket::Socket;
use io_uring::{opcode, types};
use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Resolves when the socket has bytes to read, an end, or an error to report.
pub async fn readable(socket: &Rc<Socket>) {
    poll(socket, libc::POLLIN as u32).await;
}

/// The same in the midst of much: nobody is kept waiting by what comes a little later.
pub async fn more(socket: &Rc<Socket>) {
    let ring = super::current();
    let _patient = Patient::of(&ring);
    poll(socket, libc::POLLIN as u32).await;
}

/// Resolves when the socket takes bytes again, or has an error to report.
pub async fn writable(socket: &Rc<Socket>) {
    let ring = super::current();
    let _patient = Patient::of(&ring);
    poll(socket, libc::POLLOUT as u32).await;
}

async fn poll(socket: &Rc<Socket>, events: u32) {
    let entry = opcode::PollAdd::new(types::Fd(socket.raw_fd()), events).build();
    super::current().start(entry, Keep::Socket(socket.clone())).await;
}

/// Notices that a peer is gone: it reset the connection, or both directions have ended. That it merely ended its own
/// sending is no news here, and a poll that completes once cannot tell the two apart, because the ring always
/// asks for that one too.
pub struct HangUp {
    _armed: Multi,
    seen: Rc<Seen>,
}

#[derive(Default)]
struct Seen {
    gone: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl HangUp {
    /// Watches `socket` from now on.
    pub fn of(socket: &Rc<Socket>) -> Self {
        let entry = opcode::PollAdd::new(types::Fd(socket.raw_fd()), 0).multi(true).build();
        let seen = Rc::<Seen>::default();
        let armed = super::current().start_multi(entry, Keep::Socket(socket.clone()), seen.clone());
        HangUp { _armed: armed, seen }
    }

    /// Ready once the peer is gone.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.seen.gone.get() {
            return Poll::Ready(());
        }
        self.seen.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Sink for Seen {
    fn take(&self, completion: Completion, more: bool, _: Handle<'_>) {
        let gone = |events: usize| events as i32 & (libc::POLLHUP | libc::POLLERR) as i32 != 0;
        // A watch that the kernel gave up cannot be trusted to see anything: better to end than to hold on for ever.
        if completion.into_result().is_ok_and(gone) || !more {
            self.gone.set(true);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Counts as a wait with patience while it lives: a shard that waits for peers to take bytes, or to bring more of
/// many, must not spin.
pub(super) struct Patient(Rc<super::Ring>);

impl Patient {
    pub(super) fn of(ring: &Rc<super::Ring>) -> Self {
        ring.patient.set(ring.patient.get() + 1);
        Patient(ring.clone())
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.0.patient.set(self.0.patient.get() - 1);
    }
}

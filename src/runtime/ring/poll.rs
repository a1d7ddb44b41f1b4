//! Readiness of a socket, through the ring.

use super::slot::Keep;
use super::socket::Socket;
use io_uring::{opcode, types};
use std::rc::Rc;

/// Resolves when the socket has bytes to read, an end, or an error to report.
pub async fn readable(socket: &Rc<Socket>) {
    poll(socket, libc::POLLIN as u32).await;
}

/// Resolves when the socket takes bytes again, or has an error to report.
pub async fn writable(socket: &Rc<Socket>) {
    let ring = super::current();
    let _pending = PendingOutput::of(&ring);
    poll(socket, libc::POLLOUT as u32).await;
}

async fn poll(socket: &Rc<Socket>, events: u32) {
    let entry = opcode::PollAdd::new(types::Fd(socket.raw_fd()), events).build();
    super::current().start(entry, Keep::Socket(socket.clone())).await;
}

/// Counts as waiting output while it lives: a shard that waits only for peers to take bytes must not spin.
pub(super) struct PendingOutput(Rc<super::Ring>);

impl PendingOutput {
    pub(super) fn of(ring: &Rc<super::Ring>) -> Self {
        ring.outputs_pending.set(ring.outputs_pending.get() + 1);
        PendingOutput(ring.clone())
    }
}

impl Drop for PendingOutput {
    fn drop(&mut self) {
        self.0.outputs_pending.set(self.0.outputs_pending.get() - 1);
    }
}

//! Who asked for an output: one reader of its stream, whose going changes what the pump does.
//!
//! Invariant: dropping the client is its going, so no path forgets to tell the pump. The connection ends only after the
//! FIFO is gone, and ends like one that is whole only if the output is. Lives on: the connection's task.

use super::{BEHIND_MAX, Output, Over, Policy};
use crate::observe::metrics::Dialect;
use crate::runtime::FileRange;
use crate::runtime::ring;
use crate::runtime::ring::poll::{self, HangUp};
use crate::runtime::ring::send::{self, Outgoing, TOGETHER_MAX};
use crate::runtime::ring::socket::Socket;
use crate::service::proxy;
use crate::service::stream::{Follower, Look, Streams};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// See the module.
pub struct Client {
    streams: Rc<Streams>,
    output: Rc<Output>,
}

impl Client {
    pub(super) fn new(streams: Rc<Streams>, output: Rc<Output>) -> Self {
        Client { streams, output }
    }

    /// Where the output is to be written to.
    pub fn path(&self) -> &Path {
        self.output.fifo.path()
    }

    /// Sends `head` and then the output, until it is over or the peer is gone. Nothing that the peer sends is looked at.
    pub async fn feed(self, socket: &Rc<Socket>, head: Vec<u8>) {
        let (mut fed, mut gone) = (pin!(self.send(socket, head)), pin!(gone(socket)));
        let over = std::future::poll_fn(|cx| match fed.as_mut().poll(cx) {
            Poll::Ready(over) => Poll::Ready(over),
            Poll::Pending => gone.as_mut().poll(cx).map(|()| None),
        });
        match over.await {
            Some(Over::Whole) => proxy::part(socket).await,
            Some(Over::Cut) => socket.reset_when_closed(),
            None => tracing::info!(id = %self.output.id, "client gone; its output goes on"),
        }
    }

    /// `None` when the peer takes no more.
    async fn send(&self, socket: &Rc<Socket>, head: Vec<u8>) -> Option<Over> {
        let mut message = Outgoing::new(socket.clone());
        message.head = head;
        let (sent, mut message) = send::send(message).await;
        sent.ok()?;
        let mut follower = self.streams.follow(self.output.tail.clone(), 0);
        loop {
            self.skip(&mut follower);
            match follower.next().await {
                Ok(Look::Ready(range)) => {
                    message = self.send_range(socket, range, message).await?;
                    let held_back = self.output.holds_back();
                    self.output.client_at.set(Some(follower.position()));
                    if held_back {
                        self.output.changed.notify_all();
                    }
                }
                Ok(Look::End(_)) => return Some(self.over().await),
                Err(error) => {
                    tracing::warn!(id = %self.output.id, %error, "output cannot be read");
                    return Some(Over::Cut);
                }
            }
        }
    }

    async fn send_range(
        &self,
        socket: &Rc<Socket>,
        range: FileRange,
        mut message: Box<Outgoing>,
    ) -> Option<Box<Outgoing>> {
        let len = range.len;
        let sent = if len <= TOGETHER_MAX {
            message.stored = Some(range);
            let (sent, back) = send::send(message).await;
            message = back;
            sent
        } else {
            send::send_file(socket, &range).await
        };
        sent.ok()?;
        self.streams.metrics().sent_bytes.of(Dialect::Serpentine).add(len);
        Some(message)
    }

    /// With [`Policy::DropOldest`], what is too far back is not sent any more.
    fn skip(&self, follower: &mut Follower) {
        let (at, end) = (follower.position(), self.output.tail.published());
        if self.output.policy == Policy::DropOldest && end - at > BEHIND_MAX {
            let to = end - BEHIND_MAX;
            self.streams.metrics().output_dropped_bytes.add(to - at);
            tracing::info!(id = %self.output.id, from = at, to, "client too slow: bytes left out");
            *follower = self.streams.follow(self.output.tail.clone(), to);
        }
    }

    async fn over(&self) -> Over {
        loop {
            let changed = self.output.changed.wait();
            match self.output.over.get() {
                Some(over) => return over,
                None => changed.await,
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.output.client_at.set(None);
        self.output.changed.notify_all();
    }
}

/// Resolves once the peer has reset the connection or cannot be reached any more. That it sends no more is not that.
async fn gone(socket: &Rc<Socket>) {
    loop {
        let received = socket.receive_now(&mut ring::current().window()[..]);
        match received {
            Ok(Some(0)) => break,
            Ok(Some(_)) => {}
            Ok(None) => poll::readable(socket).await,
            Err(_) => return,
        }
    }
    let hang_up = HangUp::of(socket);
    std::future::poll_fn(|cx| hang_up.poll_gone(cx)).await;
}

//! Who asked for an output: one reader of its stream, whose going changes what the pump does.
//!
//! Invariant: dropping the client is its going, so no path forgets to tell the pump. The connection ends only after the
//! FIFOs are gone, and ends like one that is whole only if the output is. Where frames are left out, they are whole ones,
//! and a frame of the daemon stands in their place. Lives on: the connection's task.

use super::frame::{BLOCK, Word};
use super::{BEHIND_MAX, Output, Over, Policy};
use crate::observe::metrics::Dialect;
use crate::runtime::FileRange;
use crate::runtime::ring::poll::{self, HangUp};
use crate::runtime::ring::send::{self, Outgoing, TOGETHER_MAX};
use crate::runtime::ring::socket::Socket;
use crate::runtime::{ring, shard};
use crate::service::proxy;
use crate::service::stream::{Follower, Look, State, Streams};
use std::future::Future;
use std::path::PathBuf;
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

    /// Where the output is to be written to: one path, or one for each stream.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.output.inflow.paths()
    }

    /// Sends `head` and then the output, until it is over or the peer is gone. Nothing that the peer sends is looked at.
    pub async fn feed(self, socket: &Rc<Socket>, head: Vec<u8>) {
        let (mut fed, mut gone) = (pin!(self.send(socket, head)), pin!(self.gone(socket)));
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
        let mut message = self.say(Outgoing::new(socket.clone()), head).await?;
        let mut follower = self.streams.follow(self.output.tail.clone(), 0);
        let mut left_out = 0;
        loop {
            let skipped = self.skip(&mut follower);
            left_out += skipped;
            if skipped > 0 && self.output.inflow.is_framed() {
                message =
                    self.say(message, Word::Gap(skipped).frame(shard::current().wall().unix_nanos())).await?;
            }
            match follower.next().await {
                Ok(Look::Ready(range)) => {
                    let range = self.before_the_end(range, follower.position());
                    if range.len > 0 {
                        message = self.send_range(socket, range, message).await?;
                    }
                    let held_back = self.output.holds_back();
                    self.output.client_at.set(Some(follower.position()));
                    if held_back {
                        self.output.changed.notify_all();
                    }
                }
                // Read up to the next block only, which frames begin with: the rest of it is looked at next.
                Ok(Look::End(state))
                    if state == State::Open || follower.position() < self.output.tail.published() =>
                {
                    follower = self.streams.follow(self.output.tail.clone(), follower.position());
                }
                Ok(Look::End(_)) => {
                    let over = self.over().await;
                    if over == Over::Whole && self.output.inflow.is_framed() {
                        self.say(message, self.output.inflow.end_for_client(left_out)).await?;
                    }
                    return Some(over);
                }
                Err(error) => {
                    tracing::warn!(id = %self.output.id, %error, "output cannot be read");
                    return Some(Over::Cut);
                }
            }
        }
    }

    async fn say(&self, mut message: Box<Outgoing>, bytes: Vec<u8>) -> Option<Box<Outgoing>> {
        message.head = bytes;
        let (sent, mut message) = send::send(message).await;
        sent.ok()?;
        message.head.clear();
        Some(message)
    }

    /// What of `range`, which ends at `to`, comes before the last frame: that one is made for each client, because it says
    /// how much it was not given.
    fn before_the_end(&self, mut range: FileRange, to: u64) -> FileRange {
        if let Some(end) = self.output.inflow.end_at() {
            range.len = range.len.saturating_sub(to.saturating_sub(end));
        }
        range
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

    /// With [`Policy::DropOldest`], what is too far back is not sent any more; returns how much that is.
    fn skip(&self, follower: &mut Follower) -> u64 {
        let (at, end) = (follower.position(), self.output.tail.published());
        if self.output.policy != Policy::DropOldest || end - at <= BEHIND_MAX {
            return 0;
        }
        let mut to = end - BEHIND_MAX;
        if self.output.inflow.is_framed() {
            if at % BLOCK != 0 {
                // In the middle of a frame, perhaps: up to the next block first.
                *follower = self.streams.read(self.output.tail.clone(), at, at.next_multiple_of(BLOCK));
                return 0;
            }
            to = to.next_multiple_of(BLOCK);
        }
        self.streams.metrics().output_dropped_bytes.add(to - at);
        tracing::info!(id = %self.output.id, from = at, to, "client too slow: bytes left out");
        *follower = self.streams.follow(self.output.tail.clone(), to);
        to - at
    }

    /// Resolves once the peer has reset the connection or cannot be reached any more. That it sends no more is not that.
    async fn gone(&self, socket: &Rc<Socket>) {
        loop {
            let received = socket.receive_now(&mut ring::current().window()[..]);
            match received {
                Ok(Some(0)) => break,
                Ok(Some(_)) => {}
                Ok(None) => poll::readable(socket).await,
                Err(_) => return,
            }
        }
        self.output.client_ended.set(true);
        self.output.changed.notify_all();
        let hang_up = HangUp::of(socket);
        std::future::poll_fn(|cx| hang_up.poll_gone(cx)).await;
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

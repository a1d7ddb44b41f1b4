//! A connection's bytes, both ways: what exchanges and calls read from and write to.
//!
//! What is said gathers in one buffer and leaves by [`Stream::flush`] in one operation; what arrives waits in the
//! receiver's inbox or passes through the shard's window. Invariant: a send that was cancelled half-way is never
//! followed by another, because nobody knows how much of it the peer has.
//! Lives on: the connection's shard, in one task.

use crate::runtime::file::FileRange;
use crate::runtime::ring::recv::{End, Receiver};
use crate::runtime::ring::send::{self, Outgoing, TOGETHER_MAX};
use crate::runtime::ring::socket::Socket;
use std::cell::Ref;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

/// One connection, TCP or unix.
pub struct Stream {
    socket: Rc<Socket>,
    receiver: Receiver,
    /// Taken while it is being sent.
    out: Option<Box<Outgoing>>,
    is_cut: bool,
}

impl Stream {
    /// Speaks over `socket`.
    pub fn new(socket: Rc<Socket>) -> Self {
        Stream {
            receiver: Receiver::new(socket.clone()),
            out: Some(Outgoing::new(socket.clone())),
            socket,
            is_cut: false,
        }
    }

    /// The bytes that arrived and were not consumed.
    pub fn buffered(&self) -> Ref<'_, [u8]> {
        self.receiver.buffered()
    }

    /// How many these are.
    pub fn buffered_len(&self) -> usize {
        self.receiver.buffered_len()
    }

    /// Forgets the first `len` of them.
    pub fn consume(&self, len: usize) {
        self.receiver.consume(len);
    }

    /// Whether the peer's end or an error was seen; buffered bytes may remain.
    pub fn end(&self) -> Option<End> {
        self.receiver.end()
    }

    /// Whether the peer has ended or broken the connection, or said something, by now: asks the socket if nobody
    /// has been told yet. Makes sense only where nothing is expected from the peer.
    pub fn has_news(&self) -> bool {
        self.buffered_len() > 0 || self.end().is_some() || self.socket.has_input()
    }

    /// Resolves when more than `seen` bytes are buffered or nothing more will come.
    pub async fn more_than(&self, seen: usize) {
        std::future::poll_fn(|cx| self.poll_more_than(seen, cx)).await;
    }

    /// See [`Stream::more_than`].
    pub fn poll_more_than(&self, seen: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.receiver.poll_more_than(seen, cx)
    }

    /// Calls `take` with the next bytes, at least one and at most `max`; it says how many it used, the others stay.
    /// Resolves with that number, `None` at the peer's end.
    pub async fn next_piece(
        &self,
        max: usize,
        take: impl FnOnce(&mut [u8]) -> usize,
    ) -> io::Result<Option<usize>> {
        self.receiver.next_piece(max, take).await
    }

    /// What has gathered to be sent; write behind it.
    pub fn gathered(&mut self) -> &mut Vec<u8> {
        // The buffer of a cancelled send is gone with it; what is written into a new one goes nowhere.
        &mut self.out.get_or_insert_with(|| Outgoing::new(self.socket.clone())).head
    }

    /// Sends what has gathered.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.is_cut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Some(out) = self.out.take_if(|out| !out.is_empty()) else { return Ok(()) };
        self.is_cut = true;
        let (sent, out) = send::send(out).await;
        self.is_cut = sent.is_err();
        self.out = Some(out);
        sent
    }

    /// Like [`Stream::flush`], but stops when `interrupt` is ready before everything has left; false then, and the
    /// connection can only be read any more.
    pub async fn flush_beside(
        &mut self,
        mut interrupt: impl FnMut(&Stream, &mut Context<'_>) -> Poll<()>,
    ) -> io::Result<bool> {
        if self.is_cut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Some(out) = self.out.take_if(|out| !out.is_empty()) else { return Ok(true) };
        self.is_cut = true;
        let mut sending = std::pin::pin!(send::send(out));
        let this = &*self;
        let sent = std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending => interrupt(this, cx).map(|()| None),
        });
        let Some((sent, out)) = sent.await else { return Ok(false) };
        self.is_cut = sent.is_err();
        self.out = Some(out);
        sent.map(|()| true)
    }

    /// Sends what has gathered, then stored bytes and `trailer`; all in one operation when the range is short, by
    /// sendfile when it is not. The bytes should be in memory, else the shard waits for the disk.
    pub async fn send_stored(&mut self, range: FileRange, trailer: &[u8]) -> io::Result<()> {
        if range.len > TOGETHER_MAX {
            self.flush().await?;
            send::send_file(&self.socket, &range).await?;
            self.gathered().extend_from_slice(trailer);
            return Ok(());
        }
        let out = self.out.get_or_insert_with(|| Outgoing::new(self.socket.clone()));
        out.stored = Some(range);
        out.trailer.extend_from_slice(trailer);
        self.flush().await
    }

    /// The peer's address, if it is TCP.
    pub fn peer(&self) -> Option<IpAddr> {
        self.socket.peer_addr().ok().flatten().map(|addr| addr.ip())
    }

    /// Says that we send nothing more.
    pub fn finish_sending(&self) {
        self.socket.finish_sending();
    }
}

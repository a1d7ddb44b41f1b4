//! A connection's bytes, both ways: what exchanges and calls read from and write to.
//!
//! What is said gathers in one buffer and leaves by [`Stream::flush`] in one operation; what arrives waits in the
//! receiver's inbox or passes through the shard's window. With TLS both ways lead through a [`Session`]: stored bytes
//! are then read into memory, piece by piece, because the kernel cannot encrypt them. Invariant: a send that was
//! cancelled half-way is never followed by another, because nobody knows how much of it the peer has.
//! Lives on: the connection's shard, in one task.

use super::tls::{Certificates, Session, Trust};
use crate::runtime::blocking;
use crate::runtime::file::FileRange;
use crate::runtime::ring::recv::{End, INBOX_MAX, Receiver};
use crate::runtime::ring::send::{self, Outgoing, TOGETHER_MAX};
use crate::runtime::ring::socket::Socket;
use std::cell::Ref;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Stored bytes that are encrypted at once.
const ENCRYPTED_MAX: u64 = 64 * 1024;

/// Bytes that a tunnel passes on at once.
const TUNNELLED_MAX: usize = 64 * 1024;
/// Stored bytes of a whole answer up to this length are read behind its head: one call asks whether they are in memory,
/// and copies them if they are. They leave with whatever else has gathered by then.
pub const COPIED_MAX: u64 = 8 * 1024;

/// One connection, TCP or unix, plain or with TLS.
pub struct Stream {
    socket: Rc<Socket>,
    receiver: Receiver,
    /// Taken while it is being sent.
    out: Option<Box<Outgoing>>,
    is_cut: bool,
    tls: Option<Box<Session>>,
}

impl Stream {
    /// Speaks over `socket`.
    pub fn new(socket: Rc<Socket>) -> Self {
        Stream {
            receiver: Receiver::new(socket.clone()),
            out: Some(Outgoing::new(socket.clone())),
            socket,
            is_cut: false,
            tls: None,
        }
    }

    /// Accepts TLS over `socket`. The caller sets a deadline by dropping it.
    pub async fn accept_tls(socket: Rc<Socket>, certificates: &Certificates) -> io::Result<Self> {
        Stream::shake(socket, Session::accept(certificates)?).await
    }

    /// The same as the one who connects, to whoever proves to be `host`.
    pub async fn connect_tls(socket: Rc<Socket>, trust: &Trust, host: &str) -> io::Result<Self> {
        Stream::shake(socket, Session::connect(trust, host)?).await
    }

    async fn shake(socket: Rc<Socket>, session: Session) -> io::Result<Self> {
        let mut stream = Stream::new(socket);
        stream.tls = Some(Box::new(session));
        let shaken = stream.handshake().await;
        if shaken.is_err() {
            // An alert tells the peer why.
            let _ = stream.flush().await;
        }
        shaken.map(|()| stream)
    }

    async fn handshake(&mut self) -> io::Result<()> {
        loop {
            self.flush().await?;
            let Some(tls) = &self.tls else { return Ok(()) };
            match tls.end() {
                Some(End::Broken(errno)) => return Err(io::Error::from_raw_os_error(errno)),
                Some(End::Finished) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None if !tls.is_handshaking() => return Ok(()),
                None => std::future::poll_fn(|cx| poll_decrypt(&self.receiver, tls, 0, cx)).await,
            }
        }
    }

    /// The bytes that arrived and were not consumed.
    pub fn buffered(&self) -> Ref<'_, [u8]> {
        match &self.tls {
            None => self.receiver.buffered(),
            Some(tls) => tls.buffered(),
        }
    }

    /// How many these are.
    pub fn buffered_len(&self) -> usize {
        match &self.tls {
            None => self.receiver.buffered_len(),
            Some(tls) => tls.buffered_len(),
        }
    }

    /// Forgets the first `len` of them.
    pub fn consume(&self, len: usize) {
        match &self.tls {
            None => self.receiver.consume(len),
            Some(tls) => tls.consume(len),
        }
    }

    /// Whether the peer's end or an error was seen; buffered bytes may remain.
    pub fn end(&self) -> Option<End> {
        match &self.tls {
            None => self.receiver.end(),
            Some(tls) => tls.end(),
        }
    }

    /// Whether the peer has ended or broken the connection, or said something, by now: asks the socket if nobody
    /// has been told yet. Makes sense only where nothing is expected from the peer.
    pub fn has_news(&self) -> bool {
        // Input of a TLS connection may be about the session and no news; its receive tells of ends.
        self.buffered_len() > 0 || self.end().is_some() || (self.tls.is_none() && self.socket.has_input())
    }

    /// Resolves when more than `seen` bytes are buffered or nothing more will come.
    pub async fn more_than(&self, seen: usize) {
        std::future::poll_fn(|cx| self.poll_more_than(seen, cx)).await;
    }

    /// See [`Stream::more_than`].
    pub fn poll_more_than(&self, seen: usize, cx: &mut Context<'_>) -> Poll<()> {
        let Some(tls) = &self.tls else { return self.receiver.poll_more_than(seen, cx) };
        while tls.buffered_len() <= seen && tls.end().is_none() {
            ready!(poll_decrypt(&self.receiver, tls, seen, cx));
        }
        Poll::Ready(())
    }

    /// Calls `take` with the next bytes, at least one and at most `max`; it says how many it used, the others stay.
    /// Resolves with that number, `None` at the peer's end.
    pub async fn next_piece(
        &self,
        max: usize,
        take: impl FnOnce(&mut [u8]) -> usize,
    ) -> io::Result<Option<usize>> {
        let Some(tls) = &self.tls else { return self.receiver.next_piece(max, take).await };
        while tls.buffered_len() == 0 {
            match tls.end() {
                Some(End::Finished) => return Ok(None),
                Some(End::Broken(errno)) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
            // A whole inbox at most, so that decrypting holds the shard for no longer than that.
            if self.receiver.next_piece(INBOX_MAX, |bytes| tls.take(bytes, 0)).await?.is_none() {
                tls.lost();
            }
        }
        Ok(Some(tls.piece(max, take)))
    }

    /// What has gathered to be sent; write behind it.
    pub fn gathered(&mut self) -> &mut Vec<u8> {
        if let Some(tls) = &mut self.tls {
            return &mut tls.out;
        }
        // The buffer of a cancelled send is gone with it; what is written into a new one goes nowhere.
        &mut self.out.get_or_insert_with(|| Outgoing::new(self.socket.clone())).head
    }

    /// Sends what has gathered.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.is_cut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Some(out) = self.take_output()? else { return Ok(()) };
        self.is_cut = true;
        let (sent, out) = send::send(out).await;
        self.is_cut = sent.is_err();
        self.out = Some(out);
        sent
    }

    /// Like [`Stream::flush`], for what goes before more that follows at once: at best both leave in the same packets.
    async fn flush_with_more(&mut self) -> io::Result<()> {
        if !self.is_cut
            && let Some(out) = &mut self.out
            && !out.head.is_empty()
        {
            let sent = self.socket.send_now_with_more(&out.head)?.unwrap_or(0);
            // What the peer did not take now waits for it as ever.
            out.head.drain(..sent);
        }
        self.flush().await
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
        let Some(out) = self.take_output()? else { return Ok(true) };
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

    /// What has gathered, ready to be sent; `None` when there is nothing.
    fn take_output(&mut self) -> io::Result<Option<Box<Outgoing>>> {
        if let Some(tls) = &mut self.tls
            && tls.has_output()
        {
            let out = self.out.get_or_insert_with(|| Outgoing::new(self.socket.clone()));
            tls.encrypt(&mut out.head)?;
        }
        Ok(self.out.take_if(|out| !out.is_empty()))
    }

    /// Gathers at most [`COPIED_MAX`] stored bytes, wherever they are.
    pub async fn copy_stored(&mut self, range: FileRange) -> io::Result<()> {
        debug_assert!(range.len <= COPIED_MAX);
        let len = range.len as usize;
        let out = self.gathered();
        let start = out.len();
        out.resize(start + len, 0);
        if range.file.read_at_nowait(&mut out[start..], range.offset)? != Some(len) {
            // Nothing of it stays while this waits, and could be dropped: what has gathered is true at any time.
            out.truncate(start);
            let bytes = read_away(&range, range.offset, len).await?;
            self.gathered().extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// Sends what has gathered, then stored bytes and `trailer`; all in one operation when the range is short, by
    /// sendfile when it is not. The bytes should be in memory, else the shard waits for the disk.
    pub async fn send_stored(&mut self, range: FileRange, trailer: &[u8]) -> io::Result<()> {
        if self.tls.is_some() {
            return self.send_encrypted(&range, trailer).await;
        }
        // A trailer would leave in a packet by itself.
        let together_max = if trailer.is_empty() { TOGETHER_MAX } else { 4 * TOGETHER_MAX };
        if range.len > together_max {
            self.flush_with_more().await?;
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

    async fn send_encrypted(&mut self, range: &FileRange, trailer: &[u8]) -> io::Result<()> {
        let end = range.offset + range.len;
        let mut at = range.offset;
        while at < end {
            let len = (end - at).min(ENCRYPTED_MAX) as usize;
            let out = self.gathered();
            let start = out.len();
            out.resize(start + len, 0);
            if range.file.read_at_nowait(&mut out[start..], at)? != Some(len) {
                let bytes = read_away(range, at, len).await?;
                self.gathered()[start..].copy_from_slice(&bytes);
            }
            at += len as u64;
            if at < end {
                self.flush().await?;
            }
        }
        self.gathered().extend_from_slice(trailer);
        self.flush().await
    }

    /// Says that we send nothing more; with TLS by its own word, too.
    pub async fn finish_sending(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.finish_sending();
            // Whoever is gone need not be told.
            let _ = self.flush().await;
        }
        self.socket.finish_sending();
    }
}

/// Passes bytes between two connections, whatever they are, until both have ended their sending or one breaks. What cannot
/// be passed on is not read; 64 KiB wait in each direction at most.
pub async fn tunnel(one: &mut Stream, other: &mut Stream) {
    let (mut up, mut down) = (Way::default(), Way::default());
    std::future::poll_fn(|cx| {
        let ways = [up.poll(one, other, cx), down.poll(other, one, cx)];
        let is_over = ways.contains(&Poll::Ready(Passed::Broken)) || ways == [Poll::Ready(Passed::Whole); 2];
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What became of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    /// Everything was passed on, and the end of it.
    Whole,
    /// One of the two connections is gone.
    Broken,
}

/// One direction of a tunnel.
#[derive(Default)]
struct Way {
    sending: Option<Sending>,
    is_over: bool,
    is_shut: bool,
}

type Sending = std::pin::Pin<Box<dyn Future<Output = (io::Result<()>, Box<Outgoing>)>>>;

impl Way {
    fn poll(&mut self, from: &Stream, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Passed> {
        loop {
            if let Some(sending) = &mut self.sending {
                let (sent, out) = ready!(sending.as_mut().poll(cx));
                self.sending = None;
                to.is_cut = sent.is_err();
                to.out = Some(out);
            }
            if to.is_cut {
                return Poll::Ready(Passed::Broken);
            }
            if self.is_over {
                if !std::mem::replace(&mut self.is_shut, true) {
                    to.socket.finish_sending();
                }
                return Poll::Ready(Passed::Whole);
            }
            if from.buffered_len() == 0 {
                match from.end() {
                    None => {
                        ready!(from.poll_more_than(0, cx));
                        continue;
                    }
                    Some(End::Broken(_)) => return Poll::Ready(Passed::Broken),
                    Some(End::Finished) => {
                        self.is_over = true;
                        if let Some(tls) = &mut to.tls {
                            tls.finish_sending();
                        }
                    }
                }
            } else {
                let len = from.buffered_len().min(TUNNELLED_MAX);
                to.gathered().extend_from_slice(&from.buffered()[..len]);
                from.consume(len);
            }
            match to.take_output() {
                Ok(Some(out)) => {
                    to.is_cut = true;
                    self.sending = Some(Box::pin(send::send(out)));
                }
                Ok(None) => {}
                Err(_) => return Poll::Ready(Passed::Broken),
            }
        }
    }
}

/// Waits for ciphertext and has it decrypted, until more than `seen` bytes wait or it is used up.
fn poll_decrypt(receiver: &Receiver, tls: &Session, seen: usize, cx: &mut Context<'_>) -> Poll<()> {
    ready!(receiver.poll_more_than(0, cx));
    if receiver.buffered_len() == 0 {
        tls.lost();
        return Poll::Ready(());
    }
    let used = tls.take(&receiver.buffered(), seen);
    receiver.consume(used);
    Poll::Ready(())
}

/// Has a worker read what is not in memory.
async fn read_away(range: &FileRange, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = range.file.clone();
    let read = blocking::run(move || {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).map(|()| bytes)
    });
    read.await?
}

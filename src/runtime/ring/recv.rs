//! Receiving: what arrives unasked goes into a small inbox, what is wanted in bulk is read into a window.
//!
//! Requests and small appends come through one multishot receive per connection into the shard's provided
//! buffers and from there into the connection's inbox, at once. A body that arrives faster than it is taken
//! fills the inbox to [`INBOX_MAX`]; the multishot receive then stops and the reader goes on with plain
//! receives into a large window, which cost one system call and one copy for up to 256 KiB. When the peer falls
//! behind again for a while, the multishot receive returns.
//!
//! Bound: INBOX_MAX plus what the kernel had in hand when it was told to stop (the shard's provided buffers).

use super::buffers;
use super::slot::{Completion, Handle, Keep, Multi, Sink};
use super::socket::Socket;
use super::{current, poll};
use io_uring::{opcode, types};
use std::cell::{Cell, Ref, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes that may gather in a connection's inbox before its receive is stopped.
pub const INBOX_MAX: usize = 64 * 1024;
/// An empty inbox keeps no more than this for the next request.
const INBOX_KEPT: usize = 4 * 1024;
/// This many short bulk reads in a row send the connection back to its inbox.
const SHORT_READS_MAX: u32 = 4;

/// The receiving half of a connection.
pub struct Receiver {
    socket: Rc<Socket>,
    inbox: Rc<Inbox>,
    armed: RefCell<Option<Multi>>,
    bulk: Cell<bool>,
    short_reads: Cell<u32>,
    /// An empty inbox keeps no more than this.
    kept: usize,
}

#[derive(Default)]
struct Inbox {
    bytes: RefCell<Vec<u8>>,
    /// Bytes before this were consumed.
    start: Cell<usize>,
    end: Cell<Option<End>>,
    overfull: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// Why nothing more will arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer finished sending; it may still read.
    Finished,
    /// The connection broke, with this errno.
    Broken(i32),
}

impl Receiver {
    /// Receives from `socket`; nothing is armed before the first wait.
    pub fn new(socket: Rc<Socket>) -> Self {
        Self::keeping(INBOX_KEPT, socket)
    }

    /// The same for a connection that rests much more than it receives: an empty inbox keeps no memory.
    pub fn frugal(socket: Rc<Socket>) -> Self {
        Self::keeping(0, socket)
    }

    fn keeping(kept: usize, socket: Rc<Socket>) -> Self {
        Receiver {
            socket,
            inbox: Rc::default(),
            armed: RefCell::new(None),
            bulk: Cell::new(false),
            short_reads: Cell::new(0),
            kept,
        }
    }

    /// Stops receiving into the inbox; resolves once nothing more comes into it, so that the socket can be read by
    /// other means. The next wait begins again. What is buffered stays.
    pub async fn stop(&self) {
        if let Some(armed) = &*self.armed.borrow() {
            armed.cancel();
        }
        std::future::poll_fn(|cx| {
            if self.armed.borrow().as_ref().is_none_or(|armed| !armed.is_live()) {
                return Poll::Ready(());
            }
            self.inbox.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        self.inbox.overfull.set(false);
    }

    /// Whether the inbox was filled to its bound, and receiving was stopped for that.
    pub fn is_overfull(&self) -> bool {
        self.inbox.overfull.get()
    }

    /// The bytes that arrived and were not consumed.
    pub fn buffered(&self) -> Ref<'_, [u8]> {
        Ref::map(self.inbox.bytes.borrow(), |bytes| &bytes[self.inbox.start.get()..])
    }

    /// How many bytes [`Receiver::buffered`] has.
    pub fn buffered_len(&self) -> usize {
        self.inbox.bytes.borrow().len() - self.inbox.start.get()
    }

    /// Forgets the first `len` buffered bytes.
    pub fn consume(&self, len: usize) {
        let start = self.inbox.start.get() + len;
        let mut bytes = self.inbox.bytes.borrow_mut();
        assert!(start <= bytes.len(), "only what arrived can be consumed");
        if start == bytes.len() {
            self.inbox.start.set(0);
            bytes.clear();
            bytes.shrink_to(self.kept);
        } else {
            self.inbox.start.set(start);
        }
    }

    /// Whether the peer's end or an error was seen; buffered bytes may remain.
    pub fn end(&self) -> Option<End> {
        self.inbox.end.get()
    }

    /// Resolves when more than `seen` bytes are buffered or nothing more will come.
    pub async fn more_than(&self, seen: usize) {
        std::future::poll_fn(|cx| self.poll_more_than(seen, cx)).await;
    }

    /// See [`Receiver::more_than`].
    pub fn poll_more_than(&self, seen: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.buffered_len() > seen || self.end().is_some() {
            return Poll::Ready(());
        }
        self.inbox.waker.set(Some(cx.waker().clone()));
        self.arm();
        Poll::Pending
    }

    /// Calls `take` with the next bytes, at least one, at most `max`, from the inbox or through the shard's window.
    /// `take` says how many it used; the others stay for later. Resolves with that number, `None` at the end.
    pub async fn next_piece(
        &self,
        max: usize,
        take: impl FnOnce(&mut [u8]) -> usize,
    ) -> io::Result<Option<usize>> {
        debug_assert!(max > 0);
        let ring = current();
        let mut take = Some(take);
        loop {
            if self.buffered_len() > 0
                && let Some(take) = take.take()
            {
                return Ok(Some(self.piece_from_inbox(max, take)));
            }
            match self.end() {
                Some(End::Finished) => return Ok(None),
                Some(End::Broken(errno)) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
            if !self.bulk_ready() {
                self.more_than(0).await;
                continue;
            }
            let used = self.read_bulk(&mut ring.window(), max, &mut take);
            match used {
                Some(used) => return Ok(Some(used)),
                None if self.end().is_none() => self.wait_for_bulk().await,
                None => {}
            }
        }
    }

    /// Reads into the window what is there now and lets it be taken; `None` when nothing is. The window is borrowed
    /// for this turn only, and only when there is something to put into it.
    fn read_bulk<F: FnOnce(&mut [u8]) -> usize>(
        &self,
        window: &mut [u8],
        max: usize,
        take: &mut Option<F>,
    ) -> Option<usize> {
        let want = window.len().min(max);
        match self.socket.receive_now(&mut window[..want]) {
            Ok(Some(0)) => self.inbox.end.set(Some(End::Finished)),
            Ok(Some(len)) => {
                self.note_length(len, want);
                let used = take.take()?(&mut window[..len]);
                self.inbox.bytes.borrow_mut().extend_from_slice(&window[used..len]);
                return Some(used);
            }
            Ok(None) => {}
            Err(error) => self.inbox.end.set(Some(End::Broken(error.raw_os_error().unwrap_or(libc::EIO)))),
        }
        None
    }

    fn piece_from_inbox(&self, max: usize, take: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let start = self.inbox.start.get();
        let mut bytes = self.inbox.bytes.borrow_mut();
        let len = (bytes.len() - start).min(max);
        let used = take(&mut bytes[start..start + len]);
        drop(bytes);
        self.consume(used);
        used
    }

    /// Whether the next read may go past the inbox: it was overfull, and the multishot receive has ended.
    fn bulk_ready(&self) -> bool {
        if self.inbox.overfull.replace(false) {
            self.bulk.set(true);
            self.short_reads.set(0);
        }
        self.bulk.get() && self.armed.borrow().as_ref().is_none_or(|multi| !multi.is_live())
    }

    fn note_length(&self, len: usize, want: usize) {
        // Short of what was asked and small: the peer does not fill windows.
        let short = len < want && len < INBOX_MAX / 2;
        self.short_reads.set(if short { self.short_reads.get() + 1 } else { 0 });
    }

    async fn wait_for_bulk(&self) {
        if self.short_reads.get() >= SHORT_READS_MAX {
            self.bulk.set(false);
        } else {
            poll::readable(&self.socket).await;
        }
    }

    fn arm(&self) {
        let mut armed = self.armed.borrow_mut();
        if armed.as_ref().is_some_and(Multi::is_live) {
            return;
        }
        let entry = opcode::RecvMulti::new(types::Fd(self.socket.raw_fd()), buffers::GROUP).build();
        *armed = Some(current().start_multi(entry, Keep::Socket(self.socket.clone()), self.inbox.clone()));
    }
}

impl Sink for Inbox {
    fn take(&self, completion: Completion, more: bool, from: Handle<'_>) {
        match completion.into_result() {
            Ok(0) => self.end.set(Some(End::Finished)),
            Ok(len) => {
                let mut bytes = self.bytes.borrow_mut();
                from.ring.buffers.take(completion.flags, len, |arrived| bytes.extend_from_slice(arrived));
                if more && bytes.len() - self.start.get() >= INBOX_MAX && !self.overfull.replace(true) {
                    from.cancel();
                }
            }
            // All buffers were in use, or we stopped it: the next wait arms it again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {}
            Err(error) => self.end.set(Some(End::Broken(error.raw_os_error().unwrap_or(libc::EIO)))),
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

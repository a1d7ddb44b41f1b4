//! Sending: small answers in one operation of head and stored bytes, large ones by sendfile.
//!
//! A [`Outgoing`] owns everything a send points to (head, stored range, trailer, the message header itself) and
//! is reused for the life of its connection, so a send allocates nothing. Stored bytes are never read by this
//! process: their mapped address goes into the message and the kernel copies; a page that cannot be read makes
//! the send fail with EFAULT and harms nobody else.

use super::poll;
use super::slot::Keep;
use super::socket::Socket;
use crate::runtime::file::FileRange;
use io_uring::{opcode, squeue, types};
use std::io;
use std::rc::Rc;

/// Stored bytes up to this length leave in one operation with their head, when they are in memory. The kernel copies
/// them; the two calls that have it take their pages instead cost less than that from about here on.
pub const TOGETHER_MAX: u64 = 8 * 1024;
/// Bytes that one sendfile call may move; bounds how long it holds the shard.
const SENDFILE_STEP: usize = 2 * 1024 * 1024;
/// Send buffer of a connection that sends large stored ranges.
const SEND_BUFFER: usize = 4 * 1024 * 1024;

/// A message on its way out: head, stored bytes, trailer.
pub struct Outgoing {
    socket: Rc<Socket>,
    /// Sent first.
    pub head: Vec<u8>,
    /// Sent second; at most [`TOGETHER_MAX`] bytes of a real file.
    pub stored: Option<FileRange>,
    /// Sent last.
    pub trailer: Vec<u8>,
    iov: [libc::iovec; 3],
    message: libc::msghdr,
}

impl Outgoing {
    /// An empty message for `socket`.
    pub fn new(socket: Rc<Socket>) -> Box<Self> {
        // SAFETY: all-zero bytes are a valid msghdr and valid iovecs (null pointers, zero lengths).
        let (iov, message) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Outgoing { socket, head: Vec::new(), stored: None, trailer: Vec::new(), iov, message })
    }

    /// Bytes in the message.
    pub fn len(&self) -> usize {
        self.head.len() + self.stored.as_ref().map_or(0, |range| range.len as usize) + self.trailer.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The operation that sends what follows the first `sent` bytes. Bytes in one piece need no message header, which
    /// the kernel would have to copy and check.
    fn operation(&mut self, sent: usize) -> io::Result<squeue::Entry> {
        let fd = types::Fd(self.socket.raw_fd());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if self.stored.is_none() && self.trailer.is_empty() {
            let left = &self.head[sent..];
            let len = u32::try_from(left.len()).expect("answers gather up to a bound far below that");
            return Ok(opcode::Send::new(fd, left.as_ptr(), len).flags(flags).build());
        }
        self.aim(sent)?;
        Ok(opcode::SendMsg::new(fd, &raw const self.message).flags(flags as u32).build())
    }

    /// Points the message header at the bytes after the first `sent`.
    fn aim(&mut self, mut sent: usize) -> io::Result<()> {
        let stored = match &self.stored {
            None => (std::ptr::null(), 0),
            Some(range) => {
                let file = range.file.os().ok_or(io::ErrorKind::Unsupported)?;
                let address = file.address(range.offset, range.len).ok_or(io::ErrorKind::InvalidInput)?;
                (address, range.len as usize)
            }
        };
        let parts =
            [(self.head.as_ptr(), self.head.len()), stored, (self.trailer.as_ptr(), self.trailer.len())];
        let mut used = 0;
        for (start, len) in parts {
            let skipped = sent.min(len);
            sent -= skipped;
            if skipped < len {
                let base = start.wrapping_add(skipped).cast_mut().cast();
                self.iov[used] = libc::iovec { iov_base: base, iov_len: len - skipped };
                used += 1;
            }
        }
        self.message.msg_iov = self.iov.as_mut_ptr();
        self.message.msg_iovlen = used;
        Ok(())
    }

    fn clear(&mut self) {
        self.head.clear();
        self.trailer.clear();
        self.stored = None;
    }
}

/// Sends the whole message and gives it back empty. When the future is dropped, the message stays with the
/// kernel until it is done with it.
pub async fn send(mut message: Box<Outgoing>) -> (io::Result<()>, Box<Outgoing>) {
    let total = message.len();
    let mut sent = 0;
    while sent < total {
        let entry = match message.operation(sent) {
            Ok(entry) => entry,
            Err(error) => {
                message.clear();
                return (Err(error), message);
            }
        };
        let (result, back) = send_once(message, entry).await;
        message = back;
        match result {
            Ok(len) if len > 0 => sent += len,
            outcome => {
                message.clear();
                return (outcome.and(Err(io::ErrorKind::WriteZero.into())), message);
            }
        }
    }
    message.clear();
    (Ok(()), message)
}

async fn send_once(message: Box<Outgoing>, entry: squeue::Entry) -> (io::Result<usize>, Box<Outgoing>) {
    let ring = super::current();
    let _patient = poll::Patient::of(&ring);
    ring.note_work(message.len());
    let (completion, keep) = ring.start(entry, Keep::Outgoing(message)).await;
    let Keep::Outgoing(message) = keep else { unreachable!("a slot gives back what it was given") };
    (completion.into_result(), message)
}

/// Sends a stored range of any length by sendfile, waiting for room through the ring. Yields between steps, so
/// neighbours on the shard get their turns.
pub async fn send_file(socket: &Rc<Socket>, range: &FileRange) -> io::Result<()> {
    let file = range.file.os().ok_or(io::ErrorKind::Unsupported)?;
    let (mut offset, end) = (range.offset, range.offset + range.len);
    if range.len > TOGETHER_MAX {
        socket.enlarge_send_buffer(SEND_BUFFER);
    }
    while offset < end {
        let step = usize::try_from(end - offset).unwrap_or(SENDFILE_STEP).min(SENDFILE_STEP);
        match rustix::fs::sendfile(&**socket, file.fd(), Some(&mut offset), step) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) if sent < step => poll::writable(socket).await,
            Ok(_) if offset < end => crate::runtime::shard::yield_now().await,
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => poll::writable(socket).await,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

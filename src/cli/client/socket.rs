//! One connection to a server, over TCP or a unix socket, and the reading of answers from it.
//!
//! Invariant: bytes that arrive with a head and belong to its body stay in order in front of what is
//! read next.
//!
//! Runs in: the command-line clients.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::answer::{Answer, Garbled, HEAD_BYTES_MAX};
use super::body::Body;
use super::console;
use super::place::{Peer, Place};

/// How long a connection may take to be established.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the head of an answer may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A server whose host is gone without a word is noticed after this.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longer error bodies are cut.
const ERROR_TEXT_MAX: usize = 16 * 1024;
const READ_BYTES: usize = 4 * 1024;

/// A non-blocking connection with the bytes that were read from it and not yet used.
pub struct Socket {
    end: End,
    read: Vec<u8>,
}

enum End {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why there is no whole answer.
#[derive(Debug)]
pub enum Trouble {
    /// The connection could not be made.
    Unreachable(Peer, io::Error),
    /// The connection failed.
    Failed(io::Error),
    /// The peer closed before the end.
    Closed,
    /// No head of an answer came in time.
    Silent,
    /// What came is not an answer.
    Garbled(Garbled),
}

/// An answer other than the hoped for, with what the server had to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code.
    pub status: u16,
    reason: String,
    text: String,
}

impl Socket {
    /// Connects; every address of a name is tried.
    pub fn connect(peer: &Peer) -> Result<Self, Trouble> {
        let end = match peer {
            Peer::Tcp { host, port } => tcp(host, *port).map(End::Tcp),
            Peer::Unix(path) => UnixStream::connect(path).map(End::Unix),
        };
        let end = end.map_err(|error| Trouble::Unreachable(peer.clone(), error))?;
        match &end {
            End::Tcp(stream) => stream.set_nonblocking(true),
            End::Unix(stream) => stream.set_nonblocking(true),
        }
        .map_err(Trouble::Failed)?;
        Ok(Self { end, read: Vec::new() })
    }

    /// Sends a request without a body, or the head of one, and waits for the head of its answer.
    pub fn ask(place: &Place, method: &str, query: &str, extra: &str) -> Result<(Self, Answer), Trouble> {
        let mut socket = Self::connect(&place.peer)?;
        socket.send(&place.request(method, query, extra))?;
        let answer = socket.answer()?;
        Ok((socket, answer))
    }

    /// Writes the whole of `bytes`, waiting where needed.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        let start = console::now();
        while !bytes.is_empty() {
            match self.write(&[IoSlice::new(bytes)])? {
                Some(len) => bytes = &bytes[len..],
                None => self.wait(PollFlags::OUT, ANSWER_WITHIN.saturating_sub(start.elapsed()))?,
            }
        }
        Ok(())
    }

    /// Waits for the head of an answer.
    pub fn answer(&mut self) -> Result<Answer, Trouble> {
        let start = console::now();
        loop {
            if let Some(answer) = self.take_answer()? {
                return Ok(answer);
            }
            if self.fill()?.is_none() {
                self.wait(PollFlags::IN, ANSWER_WITHIN.saturating_sub(start.elapsed()))?;
            }
        }
    }

    /// The head of an answer, if all of it has been read.
    pub fn take_answer(&mut self) -> Result<Option<Answer>, Trouble> {
        let Some((answer, used)) = Answer::parse(&self.read)? else { return Ok(None) };
        self.read.drain(..used);
        Ok(Some(answer))
    }

    /// Reads what is there into the unused bytes; `None` when nothing is, an error at the end.
    pub fn fill(&mut self) -> Result<Option<usize>, Trouble> {
        let before = self.read.len();
        self.read.resize(before + READ_BYTES, 0);
        let mut space = std::mem::take(&mut self.read);
        let got = self.read_into(&mut space[before..]);
        space.truncate(before + got.as_ref().map_or(0, |len| len.unwrap_or(0)));
        self.read = space;
        got
    }

    /// Whether bytes were read that nobody has used.
    #[must_use]
    pub fn has_read(&self) -> bool {
        !self.read.is_empty()
    }

    /// Bytes read beyond the last head, handed over; what is read next comes after them.
    pub fn take_read(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read)
    }

    /// One read into `space`, to be used after what [`Socket::take_read`] gave; `None` when nothing is there, an error at the end.
    pub fn read_into(&mut self, space: &mut [u8]) -> Result<Option<usize>, Trouble> {
        let got = match &mut self.end {
            End::Tcp(stream) => stream.read(space),
            End::Unix(stream) => stream.read(space),
        };
        match got {
            Ok(0) => Err(Trouble::Closed),
            Ok(len) => Ok(Some(len)),
            Err(error) => not_now(error),
        }
    }

    /// One write; `None` when the peer must read first.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<Option<usize>, Trouble> {
        let written = match &mut self.end {
            End::Tcp(stream) => stream.write_vectored(slices),
            End::Unix(stream) => stream.write_vectored(slices),
        };
        written.map(Some).or_else(not_now)
    }

    /// Why the server refused, read from the body of its answer as far as it comes.
    pub fn refusal(&mut self, answer: &Answer) -> Refusal {
        let mut text = Vec::new();
        if let Ok(body) = answer.body(false) {
            // A body that breaks off still says more than none.
            let _ = self.collect(body, &mut text, ERROR_TEXT_MAX);
        }
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        Refusal { status: answer.status, reason: answer.reason.clone(), text }
    }

    /// The whole body of an answer.
    pub fn whole(&mut self, answer: &Answer) -> Result<Vec<u8>, Trouble> {
        let mut whole = Vec::new();
        let body = answer.body(false)?;
        let is_until_close = body.is_until_close();
        match self.collect(body, &mut whole, usize::MAX) {
            Err(Trouble::Closed) if is_until_close => Ok(whole),
            outcome => outcome.map(|()| whole),
        }
    }

    fn collect(&mut self, mut body: Body, text: &mut Vec<u8>, len_max: usize) -> Result<(), Trouble> {
        let start = console::now();
        while !body.ended() && text.len() < len_max {
            let input = self.take_read();
            let mut at = 0;
            while at < input.len() && !body.ended() {
                let step = body.step(&input[at..])?;
                text.extend_from_slice(&input[at..][step.payload]);
                at += step.used;
            }
            if !body.ended() && self.fill()?.is_none() {
                self.wait(PollFlags::IN, ANSWER_WITHIN.saturating_sub(start.elapsed()))?;
            }
        }
        Ok(())
    }

    /// Waits until the connection can do this, or time runs out.
    pub fn wait(&self, flags: PollFlags, left: Duration) -> Result<(), Trouble> {
        if left.is_zero() {
            return Err(Trouble::Silent);
        }
        console::wait(&mut [PollFd::new(self, flags)], Some(left)).map_err(Trouble::Failed)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.end {
            End::Tcp(stream) => stream.as_fd(),
            End::Unix(stream) => stream.as_fd(),
        }
    }
}

fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                // A stream may be silent for hours, so only probes can tell a quiet peer from a dead one.
                rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
                rustix::net::sockopt::set_tcp_keepidle(&stream, SILENCE_MAX / 2)?;
                rustix::net::sockopt::set_tcp_keepintvl(&stream, SILENCE_MAX / 12)?;
                rustix::net::sockopt::set_tcp_keepcnt(&stream, 6)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn not_now<T>(error: io::Error) -> Result<Option<T>, Trouble> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
        _ => Err(Trouble::Failed(error)),
    }
}

impl Refusal {
    /// A refusal that came without a body, as in answers to HEAD.
    #[must_use]
    pub fn of_head(answer: &Answer) -> Self {
        Self { status: answer.status, reason: answer.reason.clone(), text: String::new() }
    }

    /// Whether the server (or what stands before it) asks to come back later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.status, 502..=504)
    }
}

impl From<Garbled> for Trouble {
    fn from(garbled: Garbled) -> Self {
        Self::Garbled(garbled)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(peer, error) => write!(f, "cannot connect to {peer}: {error}"),
            Self::Failed(error) => write!(f, "the connection failed: {error}"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Silent => write!(f, "no answer within {} seconds", ANSWER_WITHIN.as_secs()),
            Self::Garbled(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

const _: () = assert!(READ_BYTES <= HEAD_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_head_in_pieces_leaves_the_body_to_the_next_reader() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a client");
            for piece in ["HTTP/1.1 200 O", "K\r\nContent-Len", "gth: 4\r\n\r\nbo", "dy"] {
                peer.write_all(piece.as_bytes()).expect("the client reads");
            }
        });
        let mut socket = Socket::connect(&Peer::Tcp { host: "127.0.0.1".into(), port }).expect("listening");
        let answer = socket.answer().expect("an answer");
        assert_eq!(answer.status, 200);
        let refusal = socket.refusal(&answer);
        assert_eq!(refusal.to_string(), "the server answered 200 OK: body");
        server.join().expect("no panic");
    }

    #[test]
    fn an_unreachable_peer_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let peer = Peer::Tcp { host: "127.0.0.1".into(), port };
        let Err(trouble) = Socket::connect(&peer) else { panic!("connected to a closed port") };
        assert!(
            trouble.to_string().starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")),
            "{trouble}"
        );
    }
}

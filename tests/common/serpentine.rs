//! A client of the framed socket, and backends to stand behind it.
//!
//! Invariant: nothing here waits for ever; a read that brings nothing for long fails its test.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// What a connection begins with, up to its kind.
pub const MAGIC: &[u8] = b"danger noodle";

/// Longer than anything here should take.
pub const LONG: Duration = Duration::from_secs(20);

/// Connects, and says what it wants.
#[track_caller]
pub fn ask(addr: &str, kind: u8) -> TcpStream {
    let mut stream = connect(addr);
    stream.write_all(&[MAGIC, &[kind]].concat()).expect("the preamble can be sent");
    stream
}

/// Connects.
#[track_caller]
pub fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the daemon accepts");
    stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
    stream.set_write_timeout(Some(LONG)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Everything until the end; an error instead of it is returned as one.
pub fn rest(mut stream: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// The next `len` bytes.
#[track_caller]
pub fn exactly(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("so many bytes come");
    bytes
}

/// Whether the connection ends, by an end or a reset, without a byte.
#[track_caller]
pub fn ends_silently(stream: TcpStream) -> bool {
    match rest(stream) {
        Ok(bytes) => bytes.is_empty(),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Ends a connection as a process that crashes with unread bytes does.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option can be set");
    drop(stream);
}

/// A unix socket that answers every connection by `serve`, in a thread each, as long as the test process lives.
#[track_caller]
pub fn backend(path: &Path, serve: impl Fn(UnixStream) + Clone + Send + 'static) {
    let listener = UnixListener::bind(path).expect("the backend can listen");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.expect("the backend accepts"), serve.clone());
            stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
            std::thread::spawn(move || serve(stream));
        }
    });
}

/// Sends back what comes, and the end of it.
pub fn echo(mut stream: UnixStream) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(len) = stream.read(&mut bytes) {
        if len == 0 || stream.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// A frame of kind 65, as its table has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// 1 standard output, 2 standard error, 3 the daemon.
    pub source: u8,
    pub flags: u8,
    pub at_ns: u64,
    pub bytes: Vec<u8>,
}

impl Frame {
    pub fn is_partial(&self) -> bool {
        self.flags & 1 != 0
    }

    pub fn is_end(&self) -> bool {
        self.flags & 4 != 0
    }

    /// Bytes of stdout and stderr, and those of frames left out.
    #[track_caller]
    pub fn totals(&self) -> (u64, u64, u64) {
        assert_eq!(self.source, 3, "{self:?}");
        let number = |at: usize| u64::from_be_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"));
        (number(0), number(8), number(16))
    }

    /// The same and why it ended; only the last frame says that.
    #[track_caller]
    pub fn end(&self) -> (u64, u64, u64, u8) {
        assert!(self.source == 3 && self.is_end() && self.bytes.len() == 25, "{self:?}");
        let (out, err, left_out) = self.totals();
        (out, err, left_out, self.bytes[24])
    }

    /// How much is missing here.
    pub fn gap(&self) -> Option<u64> {
        let is_gap = self.source == 3 && self.flags & 2 != 0;
        is_gap.then(|| u64::from_be_bytes(self.bytes[..].try_into().expect("eight bytes")))
    }
}

/// The frames that these bytes are; anything else fails the test.
#[track_caller]
pub fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [source, rest @ ..] = bytes {
        if *source == 0 {
            bytes = rest;
            continue;
        }
        let (head, rest) = bytes.split_at(14);
        let at_ns = u64::from_be_bytes(head[2..10].try_into().expect("eight bytes"));
        let len = u32::from_be_bytes(head[10..].try_into().expect("four bytes")) as usize;
        assert!(*source <= 3 && head[1] < 8 && len <= rest.len(), "no frame behind {} others", frames.len());
        frames.push(Frame { source: *source, flags: head[1], at_ns, bytes: rest[..len].to_vec() });
        bytes = &rest[len..];
    }
    frames
}

/// What they have of standard output and of standard error.
pub fn demux(frames: &[Frame]) -> (Vec<u8>, Vec<u8>) {
    let of = |source: u8| {
        let frames = frames.iter().filter(move |frame| frame.source == source);
        frames.flat_map(|frame| frame.bytes.iter().copied()).collect()
    };
    (of(1), of(2))
}

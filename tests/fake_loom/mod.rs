//! A server whose every answer the test decides, and the client process that talks to it.
//!
//! `HEAD` is answered at once from what the test last declared; every other request comes to the test
//! as an [`Exchange`] that it reads, answers and cuts as it likes. Everything waits with a deadline.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::disallowed_types, reason = "the scripted server has threads, not shards")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long anything that must happen may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The listening side; dropping it leaves its connections open, as a listener that is only closed does.
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    exchanges: Receiver<Exchange>,
    heads: Receiver<()>,
    told: Told,
    accepting: Option<JoinHandle<()>>,
    /// Bound and never listening: keeps the port ours while nobody listens on it.
    place: OwnedFd,
}

/// Where the connections tell what they were asked.
#[derive(Clone)]
struct Told {
    exchanges: SyncSender<Exchange>,
    heads: SyncSender<()>,
}

struct Shared {
    /// Status line and header lines of the answer to `HEAD`.
    head: Mutex<String>,
    closing: AtomicBool,
    kept: Mutex<Vec<TcpStream>>,
}

/// A socket on `address` that shares it with the place holder.
fn bound(address: SocketAddr) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT is settable");
    socket.bind(&address.into()).expect("the port is ours");
    socket
}

impl Fake {
    pub fn start() -> Self {
        let (tell_exchange, exchanges) = sync_channel(64);
        let (tell_head, heads) = sync_channel(4096);
        let told = Told { exchanges: tell_exchange, heads: tell_head };
        let shared = Arc::new(Shared {
            head: Mutex::new("404 Not Found\r\n".into()),
            closing: AtomicBool::new(false),
            kept: Mutex::new(Vec::new()),
        });
        let place = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = place.local_addr().expect("bound").as_socket().expect("TCP");
        let place = place.into();
        let mut fake = Self { address, shared, exchanges, heads, told, accepting: None, place };
        fake.start_again();
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `HEAD` answers from now on.
    pub fn declare(&self, next: u64, durable: u64, epoch: u64, state: &str) {
        self.declare_head(&format!(
            "200 OK\r\nStream-Next-Offset: {next}\r\nStream-Durable-Offset: {durable}\r\nStream-Epoch: {epoch}\r\nX-Stream-State: {state}\r\n"
        ));
    }

    pub fn declare_head(&self, lines: &str) {
        *self.shared.head.lock().expect("no panic") = lines.to_owned();
    }

    /// Waits until `HEAD` was asked, and answered from what is declared now, `count` more times.
    pub fn await_heads(&self, count: usize) {
        while self.heads.try_recv().is_ok() {}
        // One more: the first may have read the declaration before this one.
        for _ in 0..=count {
            assert!(self.is_looked_at_within(DEADLINE), "waited too long for HEAD");
        }
    }

    /// Whether a `HEAD` that was not counted yet is answered in this time.
    pub fn is_looked_at_within(&self, time: Duration) -> bool {
        self.heads.recv_timeout(time).is_ok()
    }

    /// The next request that is not `HEAD`.
    pub fn exchange(&self) -> Exchange {
        self.exchanges.recv_timeout(DEADLINE).expect("a request in time")
    }

    /// Whether a request waits that nobody has looked at.
    pub fn is_asked(&self) -> bool {
        self.exchanges.try_recv().is_ok()
    }

    /// Closes the listener and all connections that only asked `HEAD`: connecting is refused now.
    pub fn stop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // The accepting thread is woken by one last connection.
        let _ = TcpStream::connect(self.address);
        self.accepting.take().expect("was running").join().expect("no panic");
        for stream in self.shared.kept.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        self.shared.closing.store(false, Ordering::SeqCst);
    }

    /// Listens again on the same port.
    pub fn start_again(&mut self) {
        let listener = bound(self.address);
        listener.listen(128).expect("a bound socket can listen");
        self.accept(listener.into());
    }

    fn accept(&mut self, listener: TcpListener) {
        let (shared, told) = (Arc::clone(&self.shared), self.told.clone());
        self.accepting = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.closing.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, told) = (Arc::clone(&shared), told.clone());
                let stream = stream.expect("accepts");
                std::thread::spawn(move || serve(stream, &shared, &told));
            }
        }));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.stop();
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared, told: &Told) {
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let mut exchange = Exchange { head: String::new(), stream, unread: Vec::new() };
    while exchange.read_head() {
        if !exchange.head.starts_with("HEAD ") {
            // A test that is over has no use for it.
            let _ = told.exchanges.send(exchange);
            return;
        }
        if let Ok(copy) = exchange.stream.try_clone() {
            shared.kept.lock().expect("no panic").push(copy);
        }
        let lines = shared.head.lock().expect("no panic").clone();
        if exchange.stream.write_all(format!("HTTP/1.1 {lines}\r\n").as_bytes()).is_err() {
            return;
        }
        let _ = told.heads.try_send(());
    }
}

/// One request and the connection it came on.
pub struct Exchange {
    pub head: String,
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Exchange {
    fn read_head(&mut self) -> bool {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                self.head = String::from_utf8(std::mem::replace(&mut self.unread, rest)).expect("text");
                return true;
            }
            if !self.fill() {
                return false;
            }
        }
    }

    fn fill(&mut self) -> bool {
        let mut space = [0; 65536];
        match self.stream.read(&mut space) {
            Ok(0) | Err(_) => false,
            Ok(len) => {
                self.unread.extend_from_slice(&space[..len]);
                true
            }
        }
    }

    /// Method and target.
    pub fn asks(&self) -> &str {
        self.head.split(" HTTP/1.1\r\n").next().expect("a request line")
    }

    pub fn has_line(&self, line: &str) -> bool {
        self.head.split("\r\n").any(|have| have == line)
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the client reads");
    }

    /// The head of a live answer to `POST`.
    pub fn created(&mut self, next: u64, epoch: u64) {
        self.send(&format!(
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nStream-Next-Offset: {next}\r\nStream-Epoch: {epoch}\r\n\r\n"
        ));
    }

    /// A whole answer with a body of known length.
    pub fn refuse(&mut self, status: &str, lines: &str, body: &str) {
        self.send(&format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// The head of a live answer to `GET`.
    pub fn streaming(&mut self, epoch: u64, state: &str) {
        self.send(&format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nStream-Epoch: {epoch}\r\nX-Stream-State: {state}\r\n\r\n"
        ));
    }

    pub fn chunk(&mut self, payload: &[u8]) {
        self.send(&format!("{:x}\r\n", payload.len()));
        self.send_bytes(payload);
        self.send("\r\n");
    }

    /// The promise.
    pub fn end(&mut self) {
        self.send("0\r\n\r\n");
    }

    /// The next chunk's payload; empty at the end of the body, `None` when the client went away.
    pub fn read_chunk(&mut self) -> Option<Vec<u8>> {
        if self.has_line("Content-Length: 0") {
            return Some(Vec::new());
        }
        let line = loop {
            match self.unread.windows(2).position(|window| window == b"\r\n") {
                Some(end) => break self.unread.drain(..end + 2).collect::<Vec<_>>(),
                None if self.fill() => {}
                None => return None,
            }
        };
        let len =
            usize::from_str_radix(String::from_utf8(line).expect("text").trim(), 16).expect("a chunk size");
        while self.unread.len() < len + 2 {
            if !self.fill() {
                return None;
            }
        }
        let chunk = self.unread.drain(..len).collect();
        assert_eq!(self.unread.drain(..2).collect::<Vec<_>>(), b"\r\n");
        Some(chunk)
    }

    /// Everything to the end of the body.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let chunk = self.read_chunk().expect("the client is there");
            if chunk.is_empty() {
                return all;
            }
            all.extend(chunk);
        }
    }

    /// Chunks until `len` bytes have come; never more than whole chunks.
    pub fn read_at_least(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            let chunk = self.read_chunk().expect("the client is there");
            assert!(!chunk.is_empty(), "the body ended early");
            all.extend(chunk);
        }
        all
    }

    /// Whether nothing comes although the client had every chance to send.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let mut byte = [0];
        let quiet = self.unread.is_empty()
            && self.stream.peek(&mut byte).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).expect("a socket");
        quiet
    }

    /// Breaks the connection with a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }

    /// Closes the connection without an end of the answer.
    pub fn close(self) {}
}

/// A `millpond` process, killed when its test is over.
pub struct Client {
    /// Names the process even after its number was given to another.
    pidfd: OwnedFd,
    ended: Receiver<Option<i32>>,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    printed: Vec<u8>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Client {
    pub fn start(args: &[&str]) -> (Self, ChildStdin) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdin = child.stdin.take().expect("piped");
        let client = Self {
            pidfd: pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("a child"),
            stdout: pieces(child.stdout.take().expect("piped")),
            stderr: pieces(child.stderr.take().expect("piped")),
            ended: end_of(child),
            printed: Vec::new(),
        };
        (client, stdin)
    }

    /// Waits until stdout is exactly this.
    #[track_caller]
    pub fn await_stdout(&mut self, wanted: &[u8]) {
        while self.printed.len() < wanted.len() {
            self.printed.extend(self.stdout.recv_timeout(DEADLINE).expect("more on stdout"));
        }
        assert_eq!(self.printed, wanted);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.try_recv().is_ok()
    }

    /// Waits for the process to end by itself.
    pub fn outcome(self) -> Outcome {
        let mut stdout = self.printed.clone();
        // Its output first: a full pipe would keep it from ending.
        stdout.extend(rest(&self.stdout));
        let stderr = String::from_utf8(rest(&self.stderr)).expect("text");
        let code = self.ended.recv_timeout(DEADLINE).expect("the client ends");
        Outcome { code, stdout, stderr }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Most have ended by now, which is the error.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Outcome {
    #[track_caller]
    pub fn expect(&self, code: i32, stderr: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(stderr), "{stderr:?} is not in {:?}", self.stderr);
    }

    #[track_caller]
    pub fn expect_silence(&self) {
        assert_eq!((self.code, self.stdout.len(), self.stderr.as_str()), (Some(0), 0, ""));
    }
}

/// How a process ends, once it does.
pub fn end_of(mut child: Child) -> Receiver<Option<i32>> {
    let (tell, ended) = sync_channel(1);
    std::thread::spawn(move || tell.send(child.wait().expect("a child").code()));
    ended
}

fn pieces(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (tell, pieces) = sync_channel(1024);
    std::thread::spawn(move || {
        let mut space = [0; 65536];
        while let Ok(len @ 1..) = pipe.read(&mut space) {
            if tell.send(space[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    pieces
}

/// Everything up to the end of the pipe.
#[track_caller]
fn rest(pieces: &Receiver<Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match pieces.recv_timeout(DEADLINE) {
            Ok(piece) => all.extend(piece),
            Err(RecvTimeoutError::Disconnected) => return all,
            Err(RecvTimeoutError::Timeout) => {
                panic!("the client goes on after {:?}", String::from_utf8_lossy(&all))
            }
        }
    }
}

/// Bytes in which every window of a few differs from every other.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

//! A node of a service that becomes slow, goes away and comes back at the same port, on threads of the test.
//!
//! Invariant: the port is this node's even while nobody listens there, so that a call meets a refusal then and never
//! somebody else.

use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::backend::read;
use super::http::request;
use super::micro::service;

/// What it answers, to calls and to requests that are passed on.
pub const SAYS: &str = r#"{"id":0,"result":1,"error":null}"#;

/// A node. Whatever is not over when it is dropped is broken off.
pub struct Node {
    /// Bound and never listening.
    _holds_port: OwnedFd,
    addr: SocketAddr,
    tally: Arc<Tally>,
    running: Option<Running>,
}

#[derive(Default)]
struct Tally {
    delay_ms: AtomicU64,
    asked: AtomicUsize,
}

struct Running {
    listener: TcpListener,
    /// Ends with the connections that it took.
    acceptor: JoinHandle<()>,
}

impl Node {
    /// Starts one that is quick.
    pub fn start() -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
        let holder = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&holder, true).expect("SO_REUSEADDR is settable");
        bind(&holder, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let addr = getsockname(&holder).expect("bound").try_into().expect("an address of IP");
        let mut node = Self { _holds_port: holder, addr, tally: Arc::default(), running: None };
        node.restart();
        node
    }

    /// Listens again.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let listener = TcpListener::bind(self.addr).expect("the port is held for it");
        let (accepts, tally) = (listener.try_clone().expect("a second handle"), self.tally.clone());
        let acceptor = thread::spawn(move || accept(&accepts, &tally));
        self.running = Some(Running { listener, acceptor });
    }

    /// Ends as a process that is killed: connections break, new ones are refused.
    pub fn kill(&mut self) {
        let Some(Running { listener, acceptor }) = self.running.take() else { return };
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).expect("it listens");
        drop(listener);
        acceptor.join().expect("the acceptor ends with its listener");
    }

    /// How long it takes for an answer from now on.
    pub fn takes(&self, delay: Duration) {
        self.tally.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// How many requests it was asked.
    pub fn asked(&self) -> usize {
        self.tally.asked.load(Ordering::SeqCst)
    }

    /// Registers it at the daemon as a node of `name`.
    #[track_caller]
    pub fn register(&self, micro: &str, name: &str) {
        let port = self.addr.port();
        let body = service(name, &format!("{name}-{port}"), port);
        request(micro, "POST", "/registry", &[], body.as_bytes()).expect(200);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn accept(listener: &TcpListener, tally: &Arc<Tally>) {
    let mut taken = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        taken.push(stream.try_clone().expect("a second handle"));
        let tally = tally.clone();
        thread::spawn(move || serve(stream, &tally));
    }
    for stream in taken {
        // Some have ended by themselves.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[allow(clippy::disallowed_methods, reason = "a slow service is one that takes its time")]
fn serve(stream: TcpStream, tally: &Tally) {
    let _ = stream.set_nodelay(true);
    let mut out = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{SAYS}", SAYS.len());
    while read(&mut reader).is_some() {
        tally.asked.fetch_add(1, Ordering::SeqCst);
        let delay = tally.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            thread::sleep(Duration::from_millis(delay));
        }
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

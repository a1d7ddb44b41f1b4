//! Connecting to somebody else, TCP or unix, without waiting in a system call.
//!
//! Invariant: a dial ends by its deadline, and a socket that was not connected is closed.

use super::poll;
use super::socket::Socket;
use crate::runtime::clock::Moment;
use crate::runtime::{shard, timer};
use socket2::{Domain, Protocol, SockAddr, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// Whom to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// How long to wait before a unix socket whose backlog is full is tried again: nobody tells when there is room.
const RETRY: Duration = Duration::from_millis(5);

/// Connects to `target` by `deadline`. `congestion` names the congestion control towards peers on loopback; empty leaves
/// the host's.
pub async fn dial(target: &Target, congestion: &str, deadline: Moment) -> io::Result<Rc<Socket>> {
    timer::until(deadline, connect(target, congestion)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn connect(target: &Target, congestion: &str) -> io::Result<Rc<Socket>> {
    match target {
        Target::Tcp(addr) => {
            let socket = socket2::Socket::new(
                Domain::for_address(*addr),
                Type::STREAM.nonblocking().cloexec(),
                Some(Protocol::TCP),
            )?;
            if addr.ip().to_canonical().is_loopback() && !congestion.is_empty() {
                // A host that lacks it keeps its own.
                let _ = socket.set_tcp_congestion(congestion.as_bytes());
            }
            let begun = socket.connect(&SockAddr::from(*addr));
            let socket = Rc::new(Socket::from_fd(socket.into()));
            match begun {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                    poll::writable(&socket).await;
                    socket.take_error()?;
                }
                Err(error) => return Err(error),
            }
            socket.prepare_tcp();
            Ok(socket)
        }
        Target::Unix(path) => loop {
            let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
            match socket.connect(&SockAddr::unix(path)?) {
                Ok(()) => return Ok(Rc::new(Socket::from_fd(socket.into()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(socket);
                    timer::sleep_until(shard::now() + RETRY).await;
                }
                Err(error) => return Err(error),
            }
        },
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(addr) => addr.fmt(f),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

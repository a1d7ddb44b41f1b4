//! Sockets: addresses as they are written, connections and listeners as the engines want them.
//!
//! Invariant: what comes out does not block, sends small writes at once, and uses the congestion control asked for.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    time::Duration,
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, listen, socket_with,
    sockopt::{set_socket_reuseaddr, set_socket_reuseport, set_tcp_congestion},
};

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Target {
    address: SocketAddr,
    congestion: String,
}

const CONNECT: Duration = Duration::from_secs(5);
const BACKLOG: i32 = 4096;
/// How long a greeting may take.
pub const GREETING: Duration = Duration::from_secs(10);

impl Target {
    /// `host:port`. An empty congestion control leaves the host's.
    pub fn new(address: &str, congestion: &str) -> Result<Self, String> {
        let found = address.to_socket_addrs().map(|mut found| found.next());
        let address = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Err(format!("{address:?} has no address")),
            Err(why) => return Err(format!("{address:?} is not understood as host:port: {why}")),
        };
        Ok(Self { address, congestion: congestion.into() })
    }

    /// A connection that blocks, for greetings.
    pub fn connect_blocking(&self) -> Result<TcpStream, String> {
        let connect = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&self.address, CONNECT)?;
            stream.set_nodelay(true)?;
            choose_congestion(&stream, &self.congestion)?;
            Ok(stream)
        };
        connect().map_err(|why| format!("cannot connect to {}: {why}", self.address))
    }

    /// A connection that does not block.
    pub fn connect(&self) -> Result<OwnedFd, String> {
        unblocked(self.connect_blocking()?)
    }
}

/// The same socket for the engines.
pub fn unblocked(stream: TcpStream) -> Result<OwnedFd, String> {
    stream.set_nonblocking(true).map_err(|why| why.to_string())?;
    Ok(stream.into())
}

/// What an address begins with that is the path of a unix socket.
pub const UNIX: &str = "unix:";

/// A listener on the unix socket at `path`, which must not be there yet, that does not block.
pub fn unix_listener(path: &str) -> Result<OwnedFd, String> {
    let make = || -> io::Result<OwnedFd> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(listener.into())
    };
    make().map_err(|why| format!("cannot listen on {path}: {why}"))
}

/// One of several listeners on the same address, that does not block.
pub fn listener(address: &str, congestion: &str) -> Result<TcpListener, String> {
    let make = || -> io::Result<TcpListener> {
        let wanted = address.to_socket_addrs()?.next();
        let wanted = wanted.ok_or_else(|| io::Error::other("no such address"))?;
        let family = if wanted.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_socket_reuseport(&socket, true)?;
        choose_congestion(&socket, congestion)?;
        bind(&socket, &wanted)?;
        listen(&socket, BACKLOG)?;
        Ok(socket.into())
    };
    make().map_err(|why| format!("cannot listen on {address}: {why}"))
}

fn choose_congestion(socket: impl AsFd, congestion: &str) -> io::Result<()> {
    if congestion.is_empty() {
        return Ok(());
    }
    set_tcp_congestion(socket, congestion)
        .map_err(|why| io::Error::other(format!("congestion control {congestion:?}: {why}")))
}

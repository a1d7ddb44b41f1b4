//! An owned socket and the options that millpond sets on it.
//!
//! Accepted sockets are non-blocking: sendfile and splice have no flag of their own for it, and ring operations
//! do not care. Invariant: the descriptor is open as long as anyone, the kernel included, may use it.

use super::sys;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A socket, closed when the last holder lets go.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Whether its send buffer was enlarged.
    enlarged: AtomicBool,
}

/// Connections that the kernel queues for us while accepting is paused.
const BACKLOG: i32 = 1024;

impl Socket {
    /// Owns `fd`.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Socket { fd, enlarged: AtomicBool::new(false) }
    }

    /// A TCP listener that shares its address with the other shards' (SO_REUSEPORT). `congestion` names the
    /// congestion control of accepted connections; empty leaves the host's, and a host that lacks it keeps its own.
    pub fn listen_tcp(addr: SocketAddr, congestion: &str) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if !congestion.is_empty() && socket.set_tcp_congestion(congestion.as_bytes()).is_err() {
            tracing::info!(congestion, "congestion control not offered by this host");
        }
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(BACKLOG)?;
        Ok(Socket::from_fd(socket.into()))
    }

    /// Whether this process may use the congestion control of this name; asked of a socket that is never bound.
    pub fn offers_congestion(name: &str) -> io::Result<bool> {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        Ok(socket.set_tcp_congestion(name.as_bytes()).is_ok())
    }

    /// Whether nobody listens on `addr` yet: SO_REUSEPORT would let two daemons share it silently.
    pub fn is_free(addr: SocketAddr) -> io::Result<()> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(1)
    }

    /// A unix listener at `path`, mode 0600. A stale socket file that nobody serves is replaced.
    pub fn listen_unix(path: &Path) -> io::Result<Self> {
        if socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(&SockAddr::unix(path)?).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if std::os::unix::fs::FileTypeExt::is_socket(&match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(_) => return Self::bind_unix(path),
        }) {
            std::fs::remove_file(path)?;
        }
        Self::bind_unix(path)
    }

    fn bind_unix(path: &Path) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        Ok(Socket::from_fd(socket.into()))
    }

    /// Another handle of the same socket.
    pub fn duplicate(&self) -> io::Result<Self> {
        Ok(Socket::from_fd(self.fd.try_clone()?))
    }

    /// The address of its peer, if it is TCP.
    pub fn peer_addr(&self) -> io::Result<Option<SocketAddr>> {
        Ok(SockRef::from(&self.fd).peer_addr()?.as_socket())
    }

    /// The address it is bound to, if it is TCP.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        Ok(SockRef::from(&self.fd).local_addr()?.as_socket())
    }

    /// What every TCP connection gets once it is one: no Nagle delay, and probes that find a peer that is gone.
    pub fn prepare_tcp(&self) {
        let socket = SockRef::from(&self.fd);
        // Options are advice: a connection that closed meanwhile refuses them, and its next operation says so.
        let _ = socket.set_tcp_nodelay(true);
        // A peer on loopback cannot go without a word from this same kernel. Probes of thousands of connections there overflow
        // the queue that all of them share, and who is never answered counts as gone.
        if self.peer_addr().is_ok_and(|peer| peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()))
        {
            return;
        }
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3);
        let _ = socket.set_tcp_keepalive(&keepalive);
    }

    /// Asks for a send buffer of `bytes`, once; worth its memory only for large answers.
    pub fn enlarge_send_buffer(&self, bytes: usize) {
        if self.enlarged.swap(true, Ordering::Relaxed) {
            return;
        }
        let _ = SockRef::from(&self.fd).set_send_buffer_size(bytes);
    }

    /// Receives into `into` what is there now; `None` when nothing is. `Some(0)` is the peer's end.
    pub fn receive_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(&self.fd, into, RecvFlags::DONTWAIT) {
            Ok((_, len)) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends of `bytes` what the peer takes now; `None` when it takes nothing.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(len) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Like [`Socket::send_now`], with more to follow at once: a short piece waits for it.
    pub fn send_now_with_more(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE)
        {
            Ok(len) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The error that ended an operation in the background, such as a connect; asking clears it.
    pub fn take_error(&self) -> io::Result<()> {
        SockRef::from(&self.fd).take_error()?.map_or(Ok(()), Err)
    }

    /// Bytes sent and not acknowledged yet, of a TCP connection; what a unix socket was sent has arrived.
    pub fn on_the_way(&self) -> usize {
        let is_unix = SockRef::from(&self.fd).domain().is_ok_and(|domain| domain == Domain::UNIX);
        if is_unix { 0 } else { sys::unacknowledged(self.fd.as_fd()) }
    }

    /// The user who connected to a unix listener, as of then; `None` for TCP.
    pub fn peer_uid(&self) -> Option<u32> {
        let is_unix = SockRef::from(&self.fd).domain().is_ok_and(|domain| domain == Domain::UNIX);
        let credentials = is_unix.then(|| sockopt::socket_peercred(&self.fd).ok()).flatten()?;
        Some(credentials.uid.as_raw())
    }

    /// Whether a receive would bring something now: bytes, the peer's end or an error.
    pub fn has_input(&self) -> bool {
        let seen = rustix::net::recv(&self.fd, &mut [0_u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        !matches!(seen, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }

    /// Says that we send nothing more.
    pub fn finish_sending(&self) {
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Has the peer see a reset, and no end before it, once the last holder lets go.
    pub fn reset_when_closed(&self) {
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    /// Ends both directions now; a peer that still sends gets a reset.
    pub fn abort(&self) {
        self.reset_when_closed();
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

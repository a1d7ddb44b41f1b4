//! Binding what the configuration names, before any shard starts.
//!
//! Each TCP address gets one SO_REUSEPORT socket per shard, each unix path one socket that all shards accept
//! from. Invariant: an error leaves nothing bound, and names the key, the address and, where the system tells,
//! the process that has it. Runs on the main thread.

use super::holder;
use crate::config::Listen;
use crate::runtime::ring::socket::Socket;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The sockets of one section, ready to be handed to shards.
pub struct Bound {
    /// The section's name.
    pub name: &'static str,
    /// Where it really listens, port zero resolved.
    pub addresses: Vec<Address>,
    /// One set of sockets per shard.
    pub sockets: Vec<Vec<Socket>>,
    /// The socket files to remove at the end.
    pub unix_paths: Vec<PathBuf>,
}

/// An address as the ready line shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(addr) => addr.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    key: String,
    listen: Listen,
    error: io::Error,
}

impl BindError {
    /// Another listener of this daemon has the address.
    pub fn taken(key: &str, listen: &Listen) -> Self {
        BindError { key: key.to_owned(), listen: listen.clone(), error: io::ErrorKind::AddrInUse.into() }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { key, listen, error } = self;
        write!(f, "{key}: cannot listen on {listen}: ")?;
        if error.kind() != io::ErrorKind::AddrInUse {
            return write!(f, "{error}");
        }
        let holder = match listen {
            Listen::Tcp(addr) => holder::of_port(addr.port()),
            Listen::Unix(path) => holder::of_path(path),
        };
        match holder {
            Some(holder) => write!(f, "it is in use by {holder}"),
            None => write!(f, "it is in use by another process"),
        }
    }
}

/// The first TCP address of a section.
pub fn first_tcp(bound: &[Bound], name: &str) -> Option<SocketAddr> {
    let mut addresses = bound.iter().filter(|bound| bound.name == name).flat_map(|bound| &bound.addresses);
    addresses.find_map(|address| match address {
        Address::Tcp(at) => Some(*at),
        Address::Unix(_) => None,
    })
}

/// Binds every address of `all` once per shard, for the section `name`; `key` is what names them in the configuration.
pub fn bind(
    name: &'static str,
    key: &str,
    all: &[Listen],
    shards: usize,
    congestion: &str,
) -> Result<Bound, BindError> {
    let mut bound = Bound {
        name,
        addresses: Vec::new(),
        sockets: (0..shards).map(|_| Vec::new()).collect(),
        unix_paths: Vec::new(),
    };
    for listen in all {
        add(&mut bound, listen, congestion).map_err(|error| BindError {
            key: key.to_owned(),
            listen: listen.clone(),
            error,
        })?;
    }
    Ok(bound)
}

/// A daemon that was killed may hold its sockets for a moment after it is gone, until the kernel has taken down its
/// ring; and shards that close a module's port do so in their next turn. An address that is busy and that no other process
/// is known to have is tried again for this long.
const RELEASE_MAX: Duration = Duration::from_secs(2);
const RELEASE_STEP: Duration = Duration::from_millis(20);

#[allow(clippy::disallowed_methods, reason = "the main thread, before any shard exists")]
fn patiently<T>(is_held: impl Fn() -> bool, take: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let tries = RELEASE_MAX.as_millis() / RELEASE_STEP.as_millis();
    for _ in 0..tries {
        match take() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_held() => {
                std::thread::sleep(RELEASE_STEP)
            }
            outcome => return outcome,
        }
    }
    take()
}

fn add(bound: &mut Bound, listen: &Listen, congestion: &str) -> io::Result<()> {
    match listen {
        Listen::Tcp(addr) => {
            // Peers on other hosts keep the host's congestion control: the rule is for loopback alone.
            let congestion = if addr.ip().is_loopback() { congestion } else { "" };
            // SO_REUSEPORT would share the port with another daemon of this user without a word.
            patiently(
                || holder::of_port(addr.port()).is_some_and(|holder| holder.is_another()),
                || Socket::is_free(*addr),
            )?;
            let mut addr = *addr;
            for sockets in &mut bound.sockets {
                let socket = Socket::listen_tcp(addr, congestion)?;
                addr = socket.local_addr()?.unwrap_or(addr);
                sockets.push(socket);
            }
            bound.addresses.push(Address::Tcp(addr));
        }
        Listen::Unix(path) => {
            let socket = patiently(
                || holder::of_path(path).is_some_and(|holder| holder.is_another()),
                || Socket::listen_unix(path),
            )?;
            bound.unix_paths.push(path.clone());
            for sockets in &mut bound.sockets {
                sockets.push(socket.duplicate()?);
            }
            bound.addresses.push(Address::Unix(path.clone()));
        }
    }
    Ok(())
}

//! Where to call, and the way there: names are looked up by the blocking pool, addresses tried in their order.
//! Lives on: the caller's shard.

use super::error::ClientError;
use crate::net::stream::Stream;
use crate::net::tls::Trust;
use crate::runtime::ring::dial::{self, Target};
use crate::runtime::{Moment, blocking};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Somebody who can be called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// An address.
    Tcp(SocketAddr),
    /// A host name, looked up whenever a connection is made.
    Named(Box<str>, u16),
    /// The path of a unix socket.
    Unix(PathBuf),
    /// A host name or address that is spoken to by TLS, and has to prove that it is that.
    Tls(Box<str>, u16, Trust),
}

impl Endpoint {
    /// `host` is a name or a literal address, IPv6 without brackets.
    pub fn new(host: &str, port: u16) -> Endpoint {
        match host.parse::<IpAddr>() {
            Ok(address) => Endpoint::Tcp(SocketAddr::new(address, port)),
            Err(_) => Endpoint::Named(host.into(), port),
        }
    }

    /// The same by TLS.
    pub fn tls(host: &str, port: u16, trust: Trust) -> Endpoint {
        Endpoint::Tls(host.into(), port, trust)
    }

    /// A connection to it, by `deadline`.
    pub(super) async fn connect(&self, deadline: Moment) -> Result<Stream, ClientError> {
        let targets = match self {
            Endpoint::Tcp(address) => vec![Target::Tcp(*address)],
            Endpoint::Unix(path) => vec![Target::Unix(path.clone())],
            Endpoint::Tls(host, port, _) if host.parse::<IpAddr>().is_ok() => {
                vec![Target::Tcp(SocketAddr::new(host.parse().expect("it is an address"), *port))]
            }
            Endpoint::Named(host, port) | Endpoint::Tls(host, port, _) => {
                look_up(host.clone(), *port).await?
            }
        };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for target in targets {
            match dial::dial(&target, "", deadline).await {
                Ok(socket) => match self {
                    Endpoint::Tls(host, _, trust) => match Stream::connect_tls(socket, trust, host).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error,
                    },
                    _ => return Ok(Stream::new(socket)),
                },
                Err(error) => last = error,
            }
        }
        match last.kind() {
            io::ErrorKind::TimedOut => Err(ClientError::ConnectTimeout),
            _ => Err(ClientError::Connect(last)),
        }
    }
}

async fn look_up(host: Box<str>, port: u16) -> Result<Vec<Target>, ClientError> {
    let found = blocking::run(move || {
        let found = (&*host, port).to_socket_addrs()?;
        io::Result::Ok(found.map(Target::Tcp).collect::<Vec<_>>())
    });
    found.await.and_then(|found| found).map_err(ClientError::Resolve)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Named(host, port) | Endpoint::Tls(host, port, _) => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

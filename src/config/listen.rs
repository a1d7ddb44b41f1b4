//! Addresses to listen on: TCP or unix.
//!
//! Invariant: parsing does no I/O; only [`Wanted::resolve`] may ask the resolver, and it does so once,
//! while the configuration is read.
//! Runs at start-up, on the main thread.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// One address that a listener binds or a proxy dials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listen {
    /// An IP address and a port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// The absolute path of a unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// What an address may look like, in the words of an error message.
    pub const ACCEPTED: &str = "\"host:port\" with port 0 to 65535, or \"unix:/path\"";

    /// A TCP address on 127.0.0.1.
    pub const fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Parses an address and resolves its host name, if it has one.
    pub fn parse(text: &str) -> Result<Self, ListenError> {
        Wanted::parse(text)?.resolve()
    }

    /// Whether only this host can reach it: a unix socket or a loopback address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether binding both would fail or hand one's connections to the other.
    ///
    /// A wildcard address holds its port on every address of its family; the IPv6 wildcard is counted
    /// as holding IPv4 too, because that is what a dual-stack host does. Port 0 never conflicts.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(two)) => same_path(one, two),
            (Self::Tcp(one), Self::Tcp(two)) if one.port() == two.port() && one.port() != 0 => {
                let (a, b) = (one.ip().to_canonical(), two.ip().to_canonical());
                a == b || wildcard_covers(a, b) || wildcard_covers(b, a)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address as written, before any host name in it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing left to look up.
    Known(Listen),
    /// A host name and a port.
    Named(String, u16),
}

impl Wanted {
    /// Parses `host:port`, `[v6]:port` or `unix:/path`.
    pub fn parse(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Known);
        }
        let (host, port) = text.rsplit_once(':').ok_or(ListenError::NoPort)?;
        let port = parse_port(port)?;
        if let Some(inner) = host.strip_prefix('[') {
            let ip = inner.strip_suffix(']').and_then(|ip| ip.parse().ok()).ok_or(ListenError::Host)?;
            return Ok(Self::Known(Listen::Tcp(SocketAddr::new(IpAddr::V6(ip), port))));
        }
        match host {
            "" => Err(ListenError::NoHost),
            // Both families are loopback; IPv4 is what the default addresses use.
            "localhost" => Ok(Self::Known(Listen::loopback(port))),
            host if host.contains(':') => Err(ListenError::Brackets),
            host => match host.parse() {
                Ok(ip) => Ok(Self::Known(Listen::Tcp(SocketAddr::new(IpAddr::V4(ip), port)))),
                Err(_) if is_host_name(host) => Ok(Self::Named(host.to_owned(), port)),
                Err(_) => Err(ListenError::Host),
            },
        }
    }

    /// Looks the host name up; the first address that the resolver names is taken.
    pub fn resolve(self) -> Result<Listen, ListenError> {
        match self {
            Self::Known(listen) => Ok(listen),
            Self::Named(host, port) => (host.as_str(), port)
                .to_socket_addrs()
                .map_err(|error| ListenError::Unresolved(error.to_string()))?
                .next()
                .map(Listen::Tcp)
                .ok_or_else(|| ListenError::Unresolved("the name has no address".to_owned())),
        }
    }
}

/// Why an address was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// No colon and port at the end.
    NoPort,
    /// The port is not a number.
    Port,
    /// The port is a number above 65535.
    PortRange,
    /// Nothing stands before the port.
    NoHost,
    /// The host is neither an address nor a name.
    Host,
    /// An IPv6 address without brackets.
    Brackets,
    /// The resolver does not know the name; its words.
    Unresolved(String),
    /// A unix path that depends on the working directory.
    Relative,
    /// A unix path longer than the kernel takes.
    PathLong,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "the port is missing",
            Self::Port => "the port is not a number",
            Self::PortRange => "port out of range",
            Self::NoHost => "the host is missing (0.0.0.0 listens on every address)",
            Self::Host => "not a host name or address",
            Self::Brackets => "an IPv6 address needs brackets, as in \"[::1]:3060\"",
            Self::Unresolved(why) => return write!(f, "the host name cannot be resolved: {why}"),
            Self::Relative => "the path of a unix socket must be absolute",
            Self::PathLong => "the path of a unix socket is longer than 107 bytes",
        })
    }
}

impl std::error::Error for ListenError {}

fn unix(path: &str) -> Result<Listen, ListenError> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(ListenError::Relative);
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(ListenError::PathLong);
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

fn parse_port(port: &str) -> Result<u16, ListenError> {
    if port.is_empty() {
        return Err(ListenError::NoPort);
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ListenError::Port);
    }
    port.parse().map_err(|_| ListenError::PortRange)
}

/// Letters, digits, dots, dashes, underscores, and at least one letter: `127.0.0.999` is a mistyped
/// address, and asking the resolver about it would only hide that.
fn is_host_name(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn wildcard_covers(wildcard: IpAddr, other: IpAddr) -> bool {
    wildcard.is_unspecified() && (wildcard.is_ipv6() || other.is_ipv4())
}

/// Compares paths by component, so that `//run/./x` and `/run/x` are one socket.
fn same_path(one: &Path, two: &Path) -> bool {
    one.components().eq(two.components())
}

/// `sun_path` is 108 bytes with its terminating zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listen(text: &str) -> Listen {
        Listen::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_are_taken_in_every_form() {
        assert_eq!(listen("127.0.0.1:3060"), Listen::loopback(3060));
        assert_eq!(listen("localhost:0"), Listen::loopback(0));
        assert_eq!(listen("[::1]:80"), Listen::Tcp("[::1]:80".parse().unwrap()));
        assert_eq!(listen("unix:/run/a b.sock"), Listen::Unix("/run/a b.sock".into()));
        assert_eq!(Wanted::parse("store.example:9000"), Ok(Wanted::Named("store.example".into(), 9000)));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, why) in [
            ("", ListenError::NoPort),
            ("127.0.0.1", ListenError::NoPort),
            ("127.0.0.1:", ListenError::NoPort),
            ("127.0.0.1:http", ListenError::Port),
            ("127.0.0.1:-1", ListenError::Port),
            ("127.0.0.1:99999", ListenError::PortRange),
            (":3060", ListenError::NoHost),
            ("127.0.0.999:80", ListenError::Host),
            ("a b:80", ListenError::Host),
            ("[::1:80", ListenError::Host),
            ("::1:80", ListenError::Brackets),
            ("unix:run/x.sock", ListenError::Relative),
            ("unix:", ListenError::Relative),
            (long.as_str(), ListenError::PathLong),
        ] {
            assert_eq!(Listen::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn an_unknown_host_name_is_an_error_of_its_own() {
        // `.invalid` is reserved to have no addresses (RFC 6761).
        let error = Listen::parse("nowhere.invalid:80").unwrap_err();
        assert!(matches!(error, ListenError::Unresolved(_)), "{error}");
    }

    #[test]
    fn conflicts_are_those_of_bind() {
        for (one, two, conflict) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/run/x", "unix:/run//x", true),
            ("unix:/run/x", "unix:/run/y", false),
            ("unix:/run/x", "127.0.0.1:80", false),
        ] {
            assert_eq!(listen(one).conflicts_with(&listen(two)), conflict, "{one} {two}");
            assert_eq!(listen(two).conflicts_with(&listen(one)), conflict, "{two} {one}");
        }
    }

    #[test]
    fn local_means_loopback_or_unix() {
        for (text, local) in [
            ("127.0.0.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/x", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(listen(text).is_local(), local, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_shown_form_parses_back(ip: IpAddr, port: u16, path in "/[a-z/.]{0,40}") {
            for listen in [Listen::Tcp(SocketAddr::new(ip, port)), Listen::Unix(path.into())] {
                prop_assert_eq!(Listen::parse(&listen.to_string()), Ok(listen));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,24}") {
            let _ = Wanted::parse(&text);
        }
    }
}

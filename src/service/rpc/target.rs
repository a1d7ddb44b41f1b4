//! Where the nodes of a service are: addresses as they are registered, and where they lead.
//!
//! An address comes as a host with a port, or as `host:port` with port 0; in brackets or not; and the address of "all
//! interfaces" stands for this host. Invariant: every target has an address that is its own and a place to call.
//! Pure; runs on any shard.

use crate::net::http::client::Endpoint;
use crate::service::registry::Table;

/// The nodes of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    addresses: Vec<String>,
    endpoints: Vec<Endpoint>,
}

impl Targets {
    /// All nodes of all versions; `None` when there are none that can be called.
    pub fn of(table: &Table, service: &str) -> Option<Self> {
        let mut targets = Targets::default();
        table.each_node(service, |node| targets.add(&node.address, node.port));
        (!targets.addresses.is_empty()).then_some(targets)
    }

    /// The one at `host:port`.
    pub fn one(address: &str) -> Option<Self> {
        let mut targets = Targets::default();
        targets.add(address, 0);
        (!targets.addresses.is_empty()).then_some(targets)
    }

    /// The addresses, for those who choose.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The target at a place.
    pub fn at(&self, place: usize) -> (&Endpoint, &str) {
        (&self.endpoints[place], &self.addresses[place])
    }

    fn add(&mut self, address: &str, port: i64) {
        let Some((host, port)) = split(address, port) else { return };
        let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // Two ids at one address are one place to call.
        if !self.addresses.contains(&shown) {
            self.endpoints.push(Endpoint::new(&host, port));
            self.addresses.push(shown);
        }
    }
}

/// Host and port of a node; `None` where nothing can be called.
fn split(address: &str, port: i64) -> Option<(String, u16)> {
    let (host, port) = match port {
        0 => {
            let (host, port) = address.rsplit_once(':')?;
            (host, port.parse::<u16>().ok()?)
        }
        port => (address, u16::try_from(port).ok()?),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = match host {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let is_name =
        |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte));
    (port > 0 && is_name(host)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_they_are_registered() {
        for (address, port, expected) in [
            ("127.0.0.1", 9090, Some("127.0.0.1:9090")),
            ("127.0.0.1:9090", 0, Some("127.0.0.1:9090")),
            ("[::]", 60728, Some("[::1]:60728")),
            ("[::]:9090", 0, Some("[::1]:9090")),
            ("::1", 1, Some("[::1]:1")),
            ("0.0.0.0", 1, Some("127.0.0.1:1")),
            (":8080", 0, Some("127.0.0.1:8080")),
            ("backend.local:80", 0, Some("backend.local:80")),
            ("backend", 0, None),
            ("backend", 70000, None),
            ("a b", 1, None),
            ("a\r\nX: y", 1, None),
            ("", 0, None),
        ] {
            let mut targets = Targets::default();
            targets.add(address, port);
            assert_eq!(targets.addresses.first().map(String::as_str), expected, "{address} {port}");
        }
    }
}

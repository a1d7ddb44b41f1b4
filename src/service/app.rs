//! The application beside the daemon: registered when it starts, for as long as it is well.
//!
//! It is registered before it is asked for the first time, taken out after so many bad answers in a row, brought back
//! after so many good ones under the same id, and taken out when the daemon begins to drain. Its registration is leased
//! for a few intervals, so that nothing is left behind if nobody looks after it any more.
//! Invariant: only a 200 is good. Lives on: the first shard; [`App::check`] on any.

use crate::codec::text::hex;
use crate::net::http::Status;
use crate::net::http::client::{Client, ClientError, Endpoint};
use crate::net::http::request::Request;
use crate::runtime::gate::Gate;
use crate::runtime::{shard, timer};
use crate::service::registry::{Node, Registry, Service, Table};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// How many redirections are followed.
const REDIRECTIONS_MAX: usize = 10;
/// How many intervals a registration holds.
const INTERVALS_LEASED: u32 = 3;

/// What is registered, and how one learns whether it is well.
#[derive(Clone, Debug)]
pub struct App {
    /// The service that it is.
    pub name: String,
    /// `host:port`
    pub address: String,
    /// Asked by GET; without one it is always well.
    pub check: Option<Check>,
}

/// How an application is asked.
#[derive(Clone, Debug)]
pub struct Check {
    /// `http://host[:port][/path]`
    pub url: String,
    /// How often.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Good answers in a row that bring it back.
    pub healthy_after: u32,
    /// Bad answers in a row that take it out.
    pub unhealthy_after: u32,
}

/// Why an application is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwell {
    /// It answered so.
    Status(Status),
    /// It did not answer.
    Silent(String),
}

impl App {
    /// The application as a node under `id`.
    fn service(&self, id: &str) -> Service {
        let (address, port) = self.place();
        let node = Node { id: id.to_owned(), address, port, ..Node::default() };
        Service { name: self.name.clone(), nodes: vec![node], ..Service::default() }
    }

    /// Whether it is registered.
    pub fn is_in(&self, table: &Table) -> bool {
        let mut found = false;
        let (address, port) = self.place();
        table.each_node(&self.name, |node| found |= node.address == address && node.port == port);
        found
    }

    fn place(&self) -> (String, i64) {
        match self.address.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse().unwrap_or(0)),
            None => (self.address.clone(), 0),
        }
    }

    /// Looks after the registration until the daemon drains.
    pub async fn keep(self, registry: Rc<Registry>, client: Rc<Client>, gate: Gate) {
        // The shard does not end before the application is taken out.
        let _inside = gate.enter();
        let id = fresh_id(&self.name);
        tracing::info!(service = self.name, id, "registering");
        let lease = self.check.as_ref().map(|check| check.interval * INTERVALS_LEASED + check.timeout);
        let register = || registry.register(self.service(&id), lease);
        report(register().await);
        let looking = async {
            let Some(check) = &self.check else { return std::future::pending().await };
            let (mut is_in, mut against) = (true, 0);
            loop {
                let found = check.ask(&client).await;
                against = if found.is_ok() == is_in { 0 } else { against + 1 };
                if against >= if is_in { check.unhealthy_after } else { check.healthy_after } {
                    (is_in, against) = (!is_in, 0);
                    match &found {
                        Ok(()) => tracing::info!(service = self.name, id, "healthy: registering"),
                        Err(why) => tracing::warn!(service = self.name, id, ?why, "unhealthy: deregistering"),
                    }
                }
                report(match is_in {
                    true => register().await,
                    false => registry.deregister(vec![id.clone()]).await,
                });
                timer::sleep(check.interval).await;
            }
        };
        let draining = gate.closing();
        let (mut looking, mut draining) = (std::pin::pin!(looking), std::pin::pin!(draining));
        std::future::poll_fn(|cx| {
            use std::future::Future;
            match looking.as_mut().poll(cx) {
                std::task::Poll::Ready(()) => std::task::Poll::Ready(()),
                std::task::Poll::Pending => draining.as_mut().poll(cx),
            }
        })
        .await;
        report(registry.deregister(vec![id.clone()]).await);
    }

    /// Whether it is well now.
    pub async fn check(&self, client: &Client) -> Result<(), Unwell> {
        match &self.check {
            Some(check) => check.ask(client).await,
            None => Ok(()),
        }
    }
}

/// Puts the daemon itself into the registry under `name`; the node is where micro listens.
pub async fn register_self(registry: &Registry, name: &str, at: SocketAddr) {
    let node = Node {
        id: fresh_id(name),
        address: at.ip().to_string(),
        port: i64::from(at.port()),
        ..Node::default()
    };
    let service = Service { name: name.to_owned(), nodes: vec![node], ..Service::default() };
    report(registry.register(service, None).await);
}

/// An id that nobody has.
fn fresh_id(name: &str) -> String {
    let shard = shard::current();
    let chance = [shard.entropy().next().to_be_bytes(), shard.entropy().next().to_be_bytes()].concat();
    let digits = hex(&chance);
    let (first, rest) = digits.split_at(8);
    format!("{name}-{first}-{}-{}-{}-{}", &rest[..4], &rest[4..8], &rest[8..12], &rest[12..])
}

fn report(outcome: Result<(), impl std::fmt::Display>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "the application's registration could not be changed");
    }
}

impl Check {
    async fn ask(&self, client: &Client) -> Result<(), Unwell> {
        let asked = timer::until(shard::now() + self.timeout, self.follow(client)).await;
        match asked {
            Some(Ok(Status::OK)) => Ok(()),
            Some(Ok(status)) => Err(Unwell::Status(status)),
            Some(Err(why)) => Err(Unwell::Silent(why)),
            None => Err(Unwell::Silent(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn follow(&self, client: &Client) -> Result<Status, String> {
        let told = |error: ClientError| error.to_string();
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTIONS_MAX {
            let (authority, path) = split(&url).ok_or_else(|| format!("{url} is no http URL"))?;
            let (host, port) = host_and_port(authority);
            let request = Request::new("GET", path, authority).map_err(|bad| bad.to_string())?;
            let mut call = client.call(&Endpoint::new(host, port), &request, b"").await.map_err(told)?;
            let status = call.head().status();
            let location = call.head().header("location").map(|to| String::from_utf8_lossy(to).into_owned());
            // Read, so that the connection can be kept; what is too long ends it.
            let _ = call.read_whole(64 * 1024).await;
            match (status.code(), location) {
                (301 | 302 | 303 | 307 | 308, Some(to)) if to.starts_with('/') => {
                    url = format!("http://{authority}{to}");
                }
                (301 | 302 | 303 | 307 | 308, Some(to)) => url = to,
                _ => return Ok(status),
            }
        }
        Err("too many redirections".into())
    }
}

/// Authority and path of a URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    (!authority.is_empty()).then_some((authority, if path.is_empty() { "/" } else { path }))
}

fn host_and_port(authority: &str) -> (&str, u16) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(80)),
        _ => (authority, 80),
    };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_their_parts() {
        assert_eq!(split("http://a:1/b?c"), Some(("a:1", "/b?c")));
        assert_eq!(split("http://a"), Some(("a", "/")));
        assert_eq!(split("https://a/"), None);
        assert_eq!(split("http:///x"), None);
        assert_eq!(host_and_port("a"), ("a", 80));
        assert_eq!(host_and_port("[::1]:8080"), ("::1", 8080));
        assert_eq!(host_and_port("[::1]"), ("::1", 80));
    }
}

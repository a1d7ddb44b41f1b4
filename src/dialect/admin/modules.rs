//! `/ion/modules`: modules of ion that come and go while the daemon runs.
//!
//! | request | answer |
//! |---|---|
//! | `GET /ion/modules` | 200 and all modules in JSON, without anything of their secrets |
//! | `PUT /ion/modules/:event` | 201, or 200 in the place of one that was registered; 400, 409 |
//! | `DELETE /ion/modules/:event` | 204, or 404 |
//!
//! A change needs one of the tokens of `[admin]`. Without tokens it needs a `Host` on loopback and
//! `Content-Type: application/json`, which no page of a browser sends without asking first.
//! Lives on: the connection's shard.

use crate::codec::text::{hex, percent_decode};
use crate::config::{Listen, Period, Secret, Wanted};
use crate::net::http::exchange::{BodyStep, Exchange, Framing, Gone};
use crate::net::http::{Method, RequestHead, Status};
use crate::runtime::blocking;
use crate::service::chain::{Chain, Identity, Module, Modules, Registration, Taken, digest_of};
use serde::Deserialize;
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What the paths begin with.
pub const PATH: &str = "/ion/modules";
/// The longest registration.
const BODY_MAX: usize = 64 * 1024;
const JSON: &str = "application/json";

/// Where modules get ports of their own.
pub trait ModulePorts: Send + Sync {
    /// Has the module of `event` served at just these addresses, or says why not and changes nothing. Binds, and may
    /// take its time: for a thread that may block.
    fn open(&self, event: &str, listen: &[Listen]) -> Result<(), String>;

    /// Where it is served now, with the port that the kernel chose.
    fn addresses_of(&self, event: &str) -> Vec<String>;
}

/// What changes of modules go through.
pub struct Registrar {
    chain: Rc<Chain>,
    modules: Arc<Modules>,
    ports: Arc<dyn ModulePorts>,
    tokens: RefCell<Vec<Secret>>,
}

impl Registrar {
    /// Over the chains of this shard. All shards have the same `modules`.
    pub fn new(
        chain: Rc<Chain>,
        modules: Arc<Modules>,
        ports: Arc<dyn ModulePorts>,
        tokens: &[Secret],
    ) -> Self {
        Registrar { chain, modules, ports, tokens: RefCell::new(tokens.to_vec()) }
    }

    /// See [`ModulePorts::open`], from a shard.
    async fn open_ports(&self, event: &str, listen: Vec<Listen>) -> Result<(), String> {
        let (ports, event) = (self.ports.clone(), Box::<str>::from(event));
        let opened = blocking::run(move || ports.open(&event, &listen)).await;
        opened.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Asks for other tokens from the next request on.
    pub fn reload(&self, tokens: &[Secret]) {
        self.tokens.replace(tokens.to_vec());
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    name: Box<str>,
    parent_event_id: Box<str>,
    correlation_id: Box<str>,
    secret: Box<str>,
    #[serde(default)]
    valid_event_types: Vec<Box<str>>,
    #[serde(default)]
    keep: Option<Box<str>>,
    #[serde(default)]
    listen: Addresses,
}

/// One address, a list of them, or nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(Box<str>),
    All(Vec<Box<str>>),
}

impl Default for Addresses {
    fn default() -> Self {
        Addresses::All(Vec::new())
    }
}

enum Refusal {
    Gone,
    Told(Status, String),
}

impl From<Gone> for Refusal {
    fn from(Gone: Gone) -> Self {
        Refusal::Gone
    }
}

fn told<T>(status: Status, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Told(status, message.into()))
}

/// Answers a request below [`PATH`].
pub async fn handle(registrar: &Registrar, exchange: &mut Exchange) -> Result<(), Gone> {
    match answer(registrar, exchange).await {
        Ok(()) => Ok(()),
        Err(Refusal::Gone) => Err(Gone),
        Err(Refusal::Told(status, message)) => {
            let body = json!({ "statusCode": status.code(), "message": message }).to_string() + "\n";
            exchange.reply(status, JSON, body.as_bytes()).await
        }
    }
}

async fn answer(registrar: &Registrar, exchange: &mut Exchange) -> Result<(), Refusal> {
    let head = exchange.head();
    may(&registrar.tokens.borrow(), head)?;
    let event = head.path().strip_prefix(PATH).unwrap_or_default().strip_prefix('/');
    let event = event.map(|event| percent_decode(event.as_bytes()).map(|event| event.into_owned()));
    let event = match event {
        None => None,
        Some(Ok(event)) => Some(String::from_utf8_lossy(&event).into_owned()),
        Some(Err(bad)) => return told(Status::BAD_REQUEST, bad.to_string()),
    };
    match (head.method(), event) {
        (Method::Get | Method::Head, None) => {
            exchange.skip_body().await?;
            Ok(exchange.reply(Status::OK, JSON, list(registrar).as_bytes()).await?)
        }
        (Method::Put, Some(event)) => register(registrar, exchange, &event).await,
        (Method::Delete, Some(event)) => {
            exchange.skip_body().await?;
            let found = registrar.chain.take_out(&event).await;
            match found {
                Ok(true) => {
                    registrar.modules.take_out(&event);
                    if let Err(error) = registrar.open_ports(&event, Vec::new()).await {
                        tracing::error!(event, "a module that was taken out has its port still: {error}");
                    }
                    exchange.begin(Status::NO_CONTENT, Framing::Empty).finish();
                    Ok(exchange.finish(&[]).await?)
                }
                Ok(false) => told(Status::NOT_FOUND, format!("no module is registered for event {event:?}")),
                Err(error) => told(Status::SERVICE_UNAVAILABLE, error.to_string()),
            }
        }
        _ => told(Status::METHOD_NOT_ALLOWED, format!("there are GET {PATH}, PUT and DELETE {PATH}/EVENT")),
    }
}

async fn register(registrar: &Registrar, exchange: &mut Exchange, event: &str) -> Result<(), Refusal> {
    let body = whole(exchange).await?;
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        // The parser's words may hold a part of a secret.
        Err(error) => {
            let message = format!(
                "a module is a JSON object with name, parent_event_id, correlation_id and secret, perhaps \
                 valid_event_types, keep and listen; wrong at line {}, column {}",
                error.line(),
                error.column()
            );
            return told(Status::BAD_REQUEST, message);
        }
    };
    let ids = [event, &request.name, &request.parent_event_id, &request.correlation_id, &request.secret];
    if !ids.iter().all(|id| Identity::is_id(id)) {
        return told(
            Status::BAD_REQUEST,
            "ids, name and secret have 1 to 255 bytes without control characters",
        );
    }
    let keep_ms = match request.keep.as_deref().map(str::parse::<Period>) {
        None => None,
        Some(Ok(keep)) => Some(Duration::from(keep).as_millis() as u64),
        Some(Err(error)) => return told(Status::BAD_REQUEST, format!("keep: {error}")),
    };
    let listen = match request.listen {
        Addresses::One(address) => vec![address],
        Addresses::All(addresses) => addresses,
    };
    let wanted = addresses(&listen, registrar.tokens.borrow().is_empty())?;
    let kept = Registration {
        name: request.name,
        parent: request.parent_event_id,
        correlation: request.correlation_id,
        digest: hex(&digest_of(request.secret.as_bytes())).into(),
        event_types: request.valid_event_types,
        listen,
        keep_ms,
        removed_ms: None,
    };
    let module = Module::registered(event, &kept).expect("a digest in hex");
    let taken = |taken| match taken {
        Taken::Event => "the configuration has a module for this event",
        Taken::Secret => "another module on the shared port has this secret",
    };
    if let Err(why) = registrar.modules.admits(&module) {
        return told(Status::CONFLICT, taken(why));
    }
    let is_known = registrar.modules.table().iter().any(|known| *known.identity.event == *event);
    if let Err(error) = registrar.open_ports(event, wanted).await {
        return told(Status::CONFLICT, error);
    }
    if let Err(error) = registrar.chain.register(event, kept).await {
        if !is_known {
            drop(registrar.open_ports(event, Vec::new()).await);
        }
        return told(Status::SERVICE_UNAVAILABLE, error.to_string());
    }
    if let Err(why) = registrar.modules.take_in(module) {
        return told(Status::CONFLICT, taken(why));
    }
    let status = if is_known { Status::OK } else { Status::CREATED };
    exchange.begin(status, Framing::Empty).finish();
    Ok(exchange.finish(&[]).await?)
}

/// The most addresses that one module has.
const ADDRESSES_MAX: usize = 8;

/// What is asked for, in numbers: a name would have to be looked up. Who shows no token gets no more than loopback.
fn addresses(texts: &[Box<str>], is_anyone: bool) -> Result<Vec<Listen>, Refusal> {
    let accepted = match is_anyone {
        true => "\"127.0.0.1:PORT\", or with admin.tokens another address of this host, or \"unix:/path\"",
        false => "\"ADDRESS:PORT\" in numbers, or \"unix:/path\"",
    };
    if texts.len() > ADDRESSES_MAX {
        return told(Status::BAD_REQUEST, format!("listen: a module has at most {ADDRESSES_MAX} addresses"));
    }
    let address = |text: &str| match Wanted::parse(text) {
        Ok(Wanted::Known(Listen::Tcp(at))) if !is_anyone || at.ip().is_loopback() => Ok(Listen::Tcp(at)),
        Ok(Wanted::Known(Listen::Unix(path))) if !is_anyone => Ok(Listen::Unix(path)),
        _ => told(Status::BAD_REQUEST, format!("listen: {text:?} is not accepted; {accepted} is")),
    };
    texts.iter().map(|text| address(text)).collect()
}

async fn whole(exchange: &mut Exchange) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    loop {
        let took = exchange.read_body(|bytes| {
            if body.len() <= BODY_MAX {
                body.extend_from_slice(bytes);
            }
        });
        match took.await {
            _ if body.len() > BODY_MAX => {
                return told(Status::CONTENT_TOO_LARGE, format!("a module has at most {BODY_MAX} bytes"));
            }
            Ok(BodyStep::Bytes(_)) => {}
            Ok(BodyStep::End) => return Ok(body),
            Err(_) => return Err(Refusal::Gone),
        }
    }
}

fn list(registrar: &Registrar) -> String {
    let table = registrar.modules.table();
    let one = |module: &Module| {
        json!({
            "name": module.name,
            "event_id": module.identity.event,
            "parent_event_id": module.identity.parent,
            "correlation_id": module.identity.correlation,
            "valid_event_types": module.event_types,
            "registered": module.is_registered,
            "own_port": module.has_port,
            "listen": registrar.ports.addresses_of(&module.identity.event),
        })
    };
    json!({ "modules": table.iter().map(|module| one(module)).collect::<Vec<_>>() }).to_string() + "\n"
}

/// Whether the request may change something, and see what there is.
fn may(tokens: &[Secret], head: &RequestHead) -> Result<(), Refusal> {
    if tokens.is_empty() {
        let is_read = matches!(head.method(), Method::Get | Method::Head);
        let says_json =
            head.header("content-type").is_some_and(|kind| kind.eq_ignore_ascii_case(JSON.as_bytes()));
        return match is_on_loopback(head.host()) && (is_read || says_json) {
            true => Ok(()),
            false => told(
                Status::FORBIDDEN,
                "without admin.tokens this needs a Host on loopback, and Content-Type: application/json for changes",
            ),
        };
    }
    let presented = head.header("authorization").and_then(|field| field.strip_prefix(b"Bearer "));
    // No early end: how long this takes must not tell which token came close.
    let known =
        tokens.iter().fold(false, |known, token| known | token.matches(presented.unwrap_or_default()));
    if known && presented.is_some() {
        Ok(())
    } else {
        told(Status::UNAUTHORIZED, "a token of [admin] is needed: Authorization: Bearer …")
    }
}

fn is_on_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        // An address of version 6 has a port only behind brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_on_loopback() {
        for host in ["localhost", "LOCALHOST:9400", "127.0.0.1", "127.9.9.9:1", "[::1]:9400", "::1"] {
            assert!(is_on_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example:9400", "localhost.evil", "10.0.0.1", "[::2]:1"]
        {
            assert!(!is_on_loopback(host), "{host}");
        }
    }
}

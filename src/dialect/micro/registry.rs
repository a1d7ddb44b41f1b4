//! `/registry`: who is there, who comes and who goes; and all of that as it happens.
//!
//! Invariant: what is answered with 200 is known to every shard. Lives on: the connection's shard.

use super::answer::{self, Reply};
use super::{MESSAGE_MAX, Micro, Settings, json};
use crate::codec::time::parse_go_duration;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::target::Param;
use crate::net::http::{Method, RequestHead, Status};
use crate::net::websocket::session::{Outbox, Session, encode};
use crate::net::websocket::{Opcode, handshake};
use crate::runtime::notify::Notify;
use crate::runtime::{shard, timer};
use crate::service::registry::{Action, Event, RegistryError, Service, Table};
use std::rc::Rc;
use std::time::Duration;

/// How long a watch outlives the order to end, for the application to be taken out.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Answers any request for `/registry`.
pub async fn answer(micro: &Micro, settings: &Settings, exchange: &mut Exchange) -> Result<Reply, Gone> {
    let service = param(exchange.head(), "service");
    match exchange.head().method() {
        Method::Get if handshake::is_wanted(exchange.head()) => {
            watch(micro, settings, exchange, service).await
        }
        Method::Get | Method::Head => {
            exchange.skip_body().await?;
            Ok(show(&micro.registry.table(), service.as_deref()))
        }
        Method::Post => register(micro, exchange).await,
        Method::Delete => deregister(micro, exchange).await,
        _ => {
            exchange.skip_body().await?;
            Ok(Reply::method_not_allowed("GET, HEAD, POST, DELETE"))
        }
    }
}

/// A parameter of the query that is there and not empty.
pub fn param(head: &RequestHead, name: &str) -> Option<String> {
    let value = Param::find(head.query(), name).value()?;
    Some(String::from_utf8_lossy(&value).into_owned()).filter(|value| !value.is_empty())
}

fn show(table: &Table, service: Option<&str>) -> Reply {
    let services = match service {
        None => table.names().map(named).collect(),
        Some(name) => table.versions(name),
    };
    if service.is_some() && services.is_empty() {
        return Reply::text(Status::NOT_FOUND, "Service not found");
    }
    let mut body = String::new();
    json::push_services(&mut body, &services);
    Reply::json(Status::OK, body)
}

fn named(name: &str) -> Service {
    Service { name: name.to_owned(), ..Service::default() }
}

async fn register(micro: &Micro, exchange: &mut Exchange) -> Result<Reply, Gone> {
    let lease = lease(exchange.head());
    let service = match read(exchange).await? {
        Ok(service) => service,
        Err(reply) => return Ok(reply),
    };
    let Ok(lease) = lease else {
        return Ok(Reply::text(Status::BAD_REQUEST, "ttl must be longer than 0, such as 30s or 1m30s"));
    };
    if service.name.is_empty() {
        return Ok(Reply::text(Status::BAD_REQUEST, "Require a service name"));
    }
    if service.nodes.iter().any(|node| node.id.is_empty()) {
        return Ok(Reply::text(Status::BAD_REQUEST, "Require an id for each node"));
    }
    Ok(outcome(micro.registry.register(service, lease).await))
}

async fn deregister(micro: &Micro, exchange: &mut Exchange) -> Result<Reply, Gone> {
    Ok(match read(exchange).await? {
        Ok(service) => {
            let ids = service.nodes.into_iter().map(|node| node.id).collect();
            outcome(micro.registry.deregister(ids).await)
        }
        Err(reply) => reply,
    })
}

fn outcome(outcome: Result<(), RegistryError>) -> Reply {
    match outcome {
        Ok(()) => Reply::empty(),
        Err(error) => Reply::text(Status::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// The service in a body, which has at least one node.
async fn read(exchange: &mut Exchange) -> Result<Result<Service, Reply>, Gone> {
    let body = match answer::body(exchange).await? {
        Ok(body) => body,
        Err(reply) => return Ok(Err(reply)),
    };
    Ok(match json::parse(&body).and_then(|json| json::service(&json)) {
        Ok(service) if service.nodes.is_empty() => {
            Err(Reply::text(Status::INTERNAL_SERVER_ERROR, "Require at least one node"))
        }
        Ok(service) => Ok(service),
        Err(error) => Err(Reply::text(Status::INTERNAL_SERVER_ERROR, &error)),
    })
}

/// How long a registration holds without being renewed. What is no duration is no lease; one that has ended before it
/// begins is a mistake.
fn lease(head: &RequestHead) -> Result<Option<Duration>, ()> {
    let Some(text) = param(head, "ttl") else { return Ok(None) };
    let (is_negative, length) = match text.strip_prefix('-') {
        Some(rest) if !rest.starts_with(['+', '-']) => (true, rest),
        _ => (false, text.as_str()),
    };
    match parse_go_duration(length) {
        Ok(length) if is_negative || length.is_zero() => Err(()),
        Ok(length) => Ok(Some(length)),
        Err(_) => Ok(None),
    }
}

async fn watch(
    micro: &Micro,
    settings: &Settings,
    exchange: &mut Exchange,
    service: Option<String>,
) -> Result<Reply, Gone> {
    let accept = match handshake::accept(exchange.head()) {
        Ok(accept) => accept,
        Err((status, text)) => return Ok(Reply::text(status, text).with("Sec-WebSocket-Version", "13")),
    };
    let outbox = Rc::new(Outbox::default());
    // What there is and what comes after it, without anything in between.
    let known = so_far(&micro.registry.table(), service.as_deref());
    if !known.is_empty() {
        outbox.push(&known.into(), false);
    }
    let (to, changed) = (outbox.clone(), Rc::new(Notify::new()));
    let happens = changed.clone();
    let watching = micro.registry.watch(Rc::new(move |event: &Event| {
        if service.as_ref().is_none_or(|name| *name == event.service.name) {
            to.push(&frame(event).into(), false);
        }
        happens.notify_all();
    }));
    let session = Session::begin(exchange, &accept, MESSAGE_MAX).await?;
    // Who watches learns that the application beside a daemon that ends is gone.
    let farewell = async || {
        let gone = async {
            while settings.app.as_ref().is_some_and(|app| app.is_in(&micro.registry.table())) {
                changed.wait().await;
            }
        };
        timer::until(shard::now() + FAREWELL_MAX, gone).await;
    };
    session.run_until(&outbox, async |_| {}, farewell).await?;
    drop(watching);
    Ok(Reply::Said)
}

/// All that a watcher has missed, in one piece however much it is: the bound on what waits is for what comes later.
fn so_far(table: &Table, service: Option<&str>) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut create = |service| frames.extend(frame(&Event { action: Action::Create, service }));
    match service {
        Some(name) => table.versions(name).into_iter().for_each(create),
        None => {
            for name in table.names() {
                create(named(name));
                table.versions(name).into_iter().for_each(&mut create);
            }
        }
    }
    frames
}

fn frame(event: &Event) -> Vec<u8> {
    encode(Opcode::Text, json::event(event).as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    #[test]
    fn a_ttl_is_a_duration_that_is_positive_or_nothing() {
        let lease_of = |ttl: &str| {
            let mut head = RequestHead::new();
            let text = format!("POST /registry{ttl} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)));
            lease(&head)
        };
        let of = |millis| Ok(Some(Duration::from_millis(millis)));
        for (ttl, expected) in [
            ("", Ok(None)),
            ("?ttl=", Ok(None)),
            ("?ttl=soon", Ok(None)),
            ("?ttl=10", Ok(None)),
            ("?ttl=--1s", Ok(None)),
            ("?ttl=10s", of(10_000)),
            ("?ttl=1m0.5s", of(60_500)),
            ("?ttl=250000%C2%B5s", of(250)),
            ("?ttl=0s", Err(())),
            ("?ttl=-1s", Err(())),
        ] {
            assert_eq!(lease_of(ttl), expected, "{ttl}");
        }
    }
}

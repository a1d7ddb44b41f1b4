//! `/rpc` and `/{service}/{method}`: a request becomes a call, its result the answer.
//!
//! Invariant: a result leaves as it came, and nothing of the node's fields reaches the caller. Lives on: the
//! connection's shard.

use super::answer::{self, JSON, Reply};
use super::{Micro, Settings, debug, fault, fields};
use crate::codec::json::{BadJson, check, compact};
use crate::codec::time::parse_go_duration;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::target::query_pairs;
use crate::net::http::{Method, RequestHead, Status};
use crate::service::rpc::frame::Framing;
use crate::service::rpc::{Call, CallError};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Who answers on `/rpc`, and on paths.
const RPC: &str = "go.micro.rpc";
const API: &str = "go.micro.api";

/// From this number on a `Timeout` without a unit is in nanoseconds, as services write it; below, in seconds.
const NANOSECONDS_MIN: u64 = 1_000_000;

/// `POST /rpc`, with JSON or a form.
pub async fn rpc(micro: &Micro, settings: &Settings, exchange: &mut Exchange) -> Result<Reply, Gone> {
    if exchange.head().method() != Method::Post {
        exchange.skip_body().await?;
        return Ok(Reply::method_not_allowed("POST"));
    }
    let query = exchange.head().query().unwrap_or_default().to_owned();
    let is_json = content_type(exchange.head()) == JSON;
    let (fields, timeout) = (fields::metadata(exchange.head(), settings), timeout(exchange.head(), settings));
    let body = match answer::body(exchange).await? {
        Ok(body) => body,
        Err(reply) => return Ok(reply),
    };
    let read = if is_json { read_json(&body) } else { read_form(&body, &query) };
    let wanted = match read.and_then(Wanted::whole) {
        Ok(wanted) => wanted,
        Err(detail) => return Ok(fault::reply(RPC, Status::BAD_REQUEST, &detail)),
    };
    let Wanted { service, method, address, request } = wanted;
    if service == settings.own_name
        && let Some(result) = debug::result(micro, &method).await
    {
        return Ok(Reply::json(Status::OK, result));
    }
    let address = Some(address).filter(|address| !address.is_empty());
    let call = Call { service, method, address, framing: Framing::Json, payload: request, fields, timeout };
    Ok(match made(micro, exchange, &call).await? {
        Ok(result) => Reply::json(Status::OK, result),
        Err(error) => fault::of_call(RPC, &error),
    })
}

/// `POST /{service}/{method}`: the body is the request.
pub async fn path(micro: &Micro, settings: &Settings, exchange: &mut Exchange) -> Result<Reply, Gone> {
    let (service, method) = route(exchange.head().path(), &settings.namespace);
    if micro.rpc.targets(&service).is_none() {
        exchange.skip_body().await?;
        return Ok(fault::reply(API, Status::NOT_FOUND, "not found"));
    }
    if exchange.head().method() != Method::Post {
        exchange.skip_body().await?;
        return Ok(Reply::method_not_allowed("POST"));
    }
    let kind = content_type(exchange.head());
    let framing = match kind.as_str() {
        JSON => Framing::Json,
        "application/proto" | "application/protobuf" => Framing::Proto,
        _ => {
            exchange.skip_body().await?;
            return Ok(Reply::text(Status::INTERNAL_SERVER_ERROR, "unsupported content-type"));
        }
    };
    let (fields, timeout) = (fields::metadata(exchange.head(), settings), timeout(exchange.head(), settings));
    let body = match answer::body(exchange).await? {
        Ok(body) => body,
        Err(reply) => return Ok(reply),
    };
    let payload = match framing {
        Framing::Proto => body,
        Framing::Json if body.trim_ascii().is_empty() => b"{}".to_vec(),
        Framing::Json => match check(&body) {
            Ok(()) => compact(&body),
            Err(error) => return Ok(fault::reply(API, Status::BAD_REQUEST, &error.to_string())),
        },
    };
    let call = Call { service, method, address: None, framing, payload, fields, timeout };
    Ok(match made(micro, exchange, &call).await? {
        Ok(result) => Reply::typed(Status::OK, &kind, result),
        Err(error) => fault::of_call(API, &error),
    })
}

/// Makes a call for as long as the caller is there.
async fn made(
    micro: &Micro,
    exchange: &mut Exchange,
    call: &Call,
) -> Result<Result<Vec<u8>, CallError>, Gone> {
    exchange.while_connected(micro.rpc.call(call)).await
}

/// What is to be called.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    service: String,
    method: String,
    address: String,
    request: Vec<u8>,
}

impl Wanted {
    fn whole(self) -> Result<Self, String> {
        match (self.service.is_empty(), self.method.is_empty()) {
            (true, _) => Err("invalid service".into()),
            (_, true) => Err("invalid method".into()),
            _ => Ok(self),
        }
    }
}

fn read_json(body: &[u8]) -> Result<Wanted, String> {
    check(body).map_err(told)?;
    let map: BTreeMap<String, &RawValue> = serde_json::from_slice(body)
        .map_err(|_| "json: cannot unmarshal value into Go value of type handler.rpcRequest".to_owned())?;
    let field = |name: &str| {
        let named = map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.get());
        map.get(name).map(|value| value.get()).or(named).filter(|value| *value != "null")
    };
    let text = |name: &str| match field(name).map(serde_json::from_str::<String>) {
        None => Ok(String::new()),
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) => {
            Err(format!("json: cannot unmarshal value into Go struct field rpcRequest.{name} of type string"))
        }
    };
    // A request that is a text is JSON once more.
    let request = match field("request") {
        None => b"null".to_vec(),
        Some(request) => match serde_json::from_str::<String>(request) {
            Ok(text) => again(&text)?,
            Err(_) => compact(request.as_bytes()),
        },
    };
    Ok(Wanted { service: text("service")?, method: text("method")?, address: text("address")?, request })
}

/// Of what is there twice the body counts.
fn read_form(body: &[u8], query: &str) -> Result<Wanted, String> {
    let body = String::from_utf8_lossy(body);
    let pairs: Vec<_> = query_pairs(&body).chain(query_pairs(query)).collect();
    let field = |name: &str| {
        let found = pairs.iter().find(|(key, _)| **key == *name.as_bytes());
        let value = found.and_then(|(_, value)| value.as_deref()).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    let request = again(&field("request"))?;
    Ok(Wanted { service: field("service"), method: field("method"), address: field("address"), request })
}

fn again(text: &str) -> Result<Vec<u8>, String> {
    match check(text.as_bytes()) {
        Ok(()) => Ok(compact(text.as_bytes())),
        Err(BadJson::End) if text.trim().is_empty() => Err("error decoding request string: EOF".into()),
        Err(error) => Err(format!("error decoding request string: {}", told(error))),
    }
}

/// As a reader of a stream tells it.
fn told(error: BadJson) -> String {
    match error {
        BadJson::End => "unexpected EOF".into(),
        other => other.to_string(),
    }
}

fn content_type(head: &RequestHead) -> String {
    let value = head.header("content-type").unwrap_or_default();
    let value = value.split(|byte| *byte == b';').next().unwrap_or_default();
    String::from_utf8_lossy(value).trim().to_ascii_lowercase()
}

/// How long a call may take: what the caller says, if that is shorter than what is configured or allowed.
fn timeout(head: &RequestHead, settings: &Settings) -> Duration {
    let longest = settings.timeout.max(settings.timeout_max);
    let asked = head.header("timeout").and_then(|text| std::str::from_utf8(text).ok()).and_then(asked);
    asked.map_or(settings.timeout, |asked| asked.min(longest))
}

fn asked(text: &str) -> Option<Duration> {
    let asked = match text.parse::<u64>() {
        Ok(nanoseconds) if nanoseconds >= NANOSECONDS_MIN => Duration::from_nanos(nanoseconds),
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_go_duration(text).ok()?,
    };
    Some(asked).filter(|asked| !asked.is_zero())
}

/// The service and the method that a path stands for.
fn route(path: &str, namespace: &str) -> (String, String) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (service, method) = match parts[..] {
        [] | [_] => (String::new(), String::new()),
        [service, method] => (service.to_owned(), called(service, method)),
        [version, service, method] if is_version(version) => {
            (format!("{version}.{service}"), called(service, method))
        }
        [ref service @ .., object, method] => (service.join("."), called(object, method)),
    };
    (format!("{namespace}.{service}"), method)
}

fn called(object: &str, method: &str) -> String {
    format!("{}.{}", camel(object), camel(method))
}

/// `say-hello` as `SayHello`.
fn camel(text: &str) -> String {
    let raised = |word: &str| {
        let mut chars = word.chars();
        chars
            .next()
            .map(|first| format!("{}{}", first.to_ascii_uppercase(), chars.as_str()))
            .unwrap_or_default()
    };
    text.split('-').map(raised).collect()
}

/// `v1`, `v20`.
pub fn is_version(part: &str) -> bool {
    part.strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_services_and_methods() {
        for (path, service, method) in [
            ("/foo/bar", "ns.foo", "Foo.Bar"),
            ("/foo/bar/baz", "ns.foo", "Bar.Baz"),
            ("/foo/bar/baz/cat", "ns.foo.bar", "Baz.Cat"),
            ("/v1/foo/bar", "ns.v1.foo", "Foo.Bar"),
            ("/v1/foo/bar/baz", "ns.v1.foo", "Bar.Baz"),
            ("/greeter/say-hello", "ns.greeter", "Greeter.SayHello"),
            ("/foo/doIT", "ns.foo", "Foo.DoIT"),
            ("/foo", "ns.", ""),
            ("/", "ns.", ""),
        ] {
            assert_eq!(route(path, "ns"), (service.into(), method.into()), "{path}");
        }
    }

    #[test]
    fn a_timeout_has_a_unit_or_a_size_that_tells_it() {
        for (text, millis) in [
            ("5000000000", Some(5000)),
            ("1000000", Some(1)),
            ("999999", Some(999_999_000)),
            ("5", Some(5000)),
            ("150ms", Some(150)),
            ("1m", Some(60_000)),
            ("0", None),
            ("-1s", None),
            ("soon", None),
        ] {
            assert_eq!(asked(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_request_is_kept_as_it_was_written() {
        let wanted =
            read_json(br#"{"Service":"s","METHOD":"m","request":{"b": 1.50, "a": 10000000000000000000001}}"#);
        let wanted = wanted.unwrap();
        assert_eq!((wanted.service.as_str(), wanted.method.as_str()), ("s", "m"));
        assert_eq!(wanted.request, br#"{"b":1.50,"a":10000000000000000000001}"#);
        let again = read_json(br#"{"service":"s","method":"m","request":"{\"z\": 1}"}"#).unwrap();
        assert_eq!(again.request, br#"{"z":1}"#);
        assert_eq!(read_json(br#"{"service":"s","method":"m"}"#).unwrap().request, b"null");
    }

    #[test]
    fn forms_come_in_body_and_query() {
        let wanted = read_form(
            b"service=a.b&method=E.C&request=%7B%22name%22%3A+%22John%22%7D",
            "method=X&address=h:1",
        );
        let wanted = wanted.unwrap();
        assert_eq!((wanted.method.as_str(), wanted.address.as_str()), ("E.C", "h:1"));
        assert_eq!(wanted.request, br#"{"name":"John"}"#);
        assert_eq!(read_form(b"service=a", ""), Err("error decoding request string: EOF".into()));
        assert_eq!(read_form(b"request={", ""), Err("error decoding request string: unexpected EOF".into()));
    }
}

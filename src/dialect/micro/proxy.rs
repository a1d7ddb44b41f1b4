//! Every path that nothing else claims, passed on to a service as it is: `micro.handler = "proxy"`.
//!
//! Method, path, query, Host and fields go to a node, status, fields and body come back, piece by piece in constant
//! memory whatever their length. Invariant: a request is given to another node only if the first cannot have got any of
//! it; an answer that breaks off at the node breaks off at the caller. Lives on: the connection's shard.

use super::answer::Reply;
use super::rpc::is_version;
use super::{Micro, Settings, fault, fields};
use crate::net::http::client::{Call, ClientError, Endpoint};
use crate::net::http::exchange::{BodyStep, Exchange, Framing, Gone};
use crate::net::http::request::{BadRequest, Request};
use crate::net::http::{BodyLength, Method, Status};
use crate::service::rpc::{CallError, Failure};

/// Passes a request on.
pub async fn pass(micro: &Micro, settings: &Settings, exchange: &mut Exchange) -> Result<Reply, Gone> {
    let found = service_of(exchange.head().path(), &settings.namespace);
    let Some(targets) = found.and_then(|service| micro.rpc.targets(&service)) else {
        exchange.skip_body().await?;
        return Ok(fault::reply("go.micro.api", Status::NOT_FOUND, "not found"));
    };
    let request = match request(exchange, settings) {
        Ok(request) => request,
        Err(bad) => return Ok(Reply::text(Status::BAD_REQUEST, &bad.to_string())),
    };
    let client = micro.rpc.client();
    let attempt = async |endpoint: &Endpoint, address: &str| {
        let call = client.begin(endpoint, &request).await.map_err(|error| Failure::of(address, &error))?;
        relay(exchange, call, address).await
    };
    Ok(match micro.rpc.somewhere(&targets, None, attempt).await {
        Ok(relayed) => relayed.map(|()| Reply::Said)?,
        Err(CallError::Timeout) => Reply::bare(Status::GATEWAY_TIMEOUT),
        Err(CallError::Busy) => Reply::bare(Status::SERVICE_UNAVAILABLE),
        Err(_) => Reply::bare(Status::BAD_GATEWAY),
    })
}

/// `/foo/…` is of `ns.foo`, `/v1/foo/…` of `ns.v1.foo`.
fn service_of(path: &str, namespace: &str) -> Option<String> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let first = segments.next()?;
    if !first.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    match segments.next().filter(|_| is_version(first)) {
        Some(second) => Some(format!("{namespace}.{first}.{second}")),
        None => Some(format!("{namespace}.{first}")),
    }
}

fn request(exchange: &Exchange, settings: &Settings) -> Result<Request, BadRequest> {
    let head = exchange.head();
    let mut request = Request::new(head.method_text(), head.target(), head.host())?;
    for (name, value) in fields::passing(head, settings) {
        let is_framing = name.eq_ignore_ascii_case("content-length");
        if !is_framing && !name.eq_ignore_ascii_case("x-forwarded-for") {
            request = request.header(name, value)?;
        }
    }
    let mut from: Vec<String> =
        head.headers("x-forwarded-for").map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    from.extend(exchange.peer().map(|peer| peer.to_string()));
    if !from.is_empty() {
        request = request.header("X-Forwarded-For", from.join(", "))?;
    }
    Ok(request.body(head.body()))
}

/// The body there, the answer back. A failure before the answer has begun is the node's; after that it breaks off.
async fn relay(exchange: &mut Exchange, mut call: Call, address: &str) -> Result<Result<(), Gone>, Failure> {
    // From here on the node may have begun.
    let failed = |error: ClientError| Failure { is_unmade: false, ..Failure::of(address, &error) };
    if exchange.head().body() != BodyLength::None {
        let mut piece = Vec::new();
        while !call.is_refused() {
            piece.clear();
            match exchange.read_body(|bytes| piece.extend_from_slice(bytes)).await {
                Ok(BodyStep::End) => break,
                Ok(BodyStep::Bytes(_)) => {}
                Err(_) => return Ok(Err(Gone)),
            }
            call.send(&piece).await.map_err(failed)?;
            call.flush().await.map_err(failed)?;
        }
    }
    let head = call.answer().await.map_err(failed)?;
    let (status, length) = (head.status(), head.body());
    let framing = match (status.has_body(), head.content_length(), length) {
        (false, _, _) => Framing::Empty,
        (true, Some(len), _) if exchange.head().method() == Method::Head => Framing::Length(len),
        (true, _, Some(BodyLength::Exact(len))) => Framing::Length(len),
        (true, _, Some(BodyLength::None)) => Framing::Length(0),
        (true, _, Some(BodyLength::Chunked) | None) => Framing::Live,
    };
    let mut begun = exchange.begin(status, framing);
    for (name, value) in head.all() {
        let is_ours = ["content-length", "date"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
        if !is_ours && !fields::stays(name) {
            begun = begun.header(name, value);
        }
    }
    begun.finish();
    Ok(body(exchange, &mut call).await)
}

async fn body(exchange: &mut Exchange, call: &mut Call) -> Result<(), Gone> {
    let mut piece = Vec::new();
    loop {
        piece.clear();
        match call.read_body(|bytes| piece.extend_from_slice(bytes)).await {
            Ok(BodyStep::End) => return exchange.finish(&[]).await,
            Ok(BodyStep::Bytes(_)) => {}
            Err(error) => {
                tracing::debug!(%error, "an answer that was passed on broke off");
                exchange.abandon();
                return Ok(());
            }
        }
        exchange.send(&piece).await?;
        exchange.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_names_the_service() {
        for (path, service) in [
            ("/foo", Some("ns.foo")),
            ("/foo/bar/baz", Some("ns.foo")),
            ("/v1/foo-bar/baz", Some("ns.v1.foo-bar")),
            ("/v1", Some("ns.v1")),
            ("/foo-bar/baz", None),
            ("/", None),
        ] {
            assert_eq!(service_of(path, "ns").as_deref(), service, "{path}");
        }
    }
}

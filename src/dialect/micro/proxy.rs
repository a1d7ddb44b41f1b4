//! Every path that nothing else claims, passed on to a service as it is: `micro.handler = "proxy"`.
//!
//! Method, path, query, Host and fields go to a node, status, fields and body come back, piece by piece in constant
//! memory whatever their length. A websocket becomes one with the node, and its bytes go both ways. Invariant: a request
//! is given to another node only if the first cannot have got any of it, or if it has no body, may be made twice, and the
//! first answered nothing; an answer that breaks off at the node breaks off at the caller. Lives on: the connection's shard.

use super::answer::Reply;
use super::rpc::is_version;
use super::{Micro, Settings, fault, fields};
use crate::net::http::answer::AnswerHead;
use crate::net::http::client::{Call, ClientError};
use crate::net::http::exchange::{BodyStep, Exchange, Framing, Gone};
use crate::net::http::request::{BadRequest, Request};
use crate::net::http::{BodyLength, Method, Status, list_elements};
use crate::net::stream;
use crate::net::websocket::handshake;
use crate::runtime::shard;
use crate::service::rpc::{CallError, Failure, Flight};

/// Passes a request on.
pub async fn pass(micro: &Micro, settings: &Settings, exchange: &mut Exchange) -> Result<Reply, Gone> {
    let (found, began) = (service_of(exchange.head().path(), &settings.namespace), shard::now());
    let targets = found.as_ref().and_then(|service| micro.rpc.targets(service));
    let (Some(service), Some(targets)) = (found, targets) else {
        exchange.skip_body().await?;
        return Ok(fault::reply("go.micro.api", Status::NOT_FOUND, "not found"));
    };
    let request = match request(exchange, settings) {
        Ok(request) => request,
        Err(bad) => return Ok(Reply::text(Status::BAD_REQUEST, &bad.to_string())),
    };
    let client = micro.rpc.client();
    let may_repeat =
        request.is_repeatable() && matches!(request.length(), BodyLength::None | BodyLength::Exact(0));
    let attempt = async |flight: &Flight<'_>| {
        if may_repeat {
            let failed = |error| Failure::of_repeatable(flight.address(), &error);
            let call = client.call(flight.endpoint(), &request, &[]).await.map_err(failed)?;
            return answer(exchange, call, flight).await;
        }
        let failed = |error| Failure::of(flight.address(), &error);
        let call = client.begin(flight.endpoint(), &request).await.map_err(failed)?;
        relay(exchange, call, flight).await
    };
    let outcome = micro.rpc.somewhere(&targets, None, attempt).await;
    micro.rpc.note(&service, began, outcome.is_ok());
    Ok(match outcome {
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
    match head.upgrade().filter(|_| handshake::is_wanted(head)) {
        Some(protocol) => request.upgrade(protocol),
        None => Ok(request.body(head.body())),
    }
}

/// The body there, the answer back. A failure before the answer has begun is the node's; after that it breaks off.
async fn relay(
    exchange: &mut Exchange,
    mut call: Call,
    flight: &Flight<'_>,
) -> Result<Result<(), Gone>, Failure> {
    // From here on the node may have begun.
    let failed = |error: ClientError| begun(flight, &error);
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
    flight.asked();
    call.answer().await.map_err(failed)?;
    answer(exchange, call, flight).await
}

/// What a failure means to a node that may have begun.
fn begun(flight: &Flight<'_>, error: &ClientError) -> Failure {
    Failure { may_repeat: false, ..Failure::of(flight.address(), error) }
}

/// The answer back, whose head is there.
async fn answer(
    exchange: &mut Exchange,
    mut call: Call,
    flight: &Flight<'_>,
) -> Result<Result<(), Gone>, Failure> {
    let head = call.head();
    flight.answered(head.status());
    if head.status() == Status::SWITCHING_PROTOCOLS {
        return switch(exchange, call).await;
    }
    let (status, length) = (head.status(), head.body());
    let framing = match (status.has_body(), head.content_length(), length) {
        (false, _, _) => Framing::Empty,
        (true, Some(len), _) if exchange.head().method() == Method::Head => Framing::Length(len),
        (true, _, Some(BodyLength::Exact(len))) => Framing::Length(len),
        (true, _, Some(BodyLength::None)) => Framing::Length(0),
        (true, _, Some(BodyLength::Chunked) | None) => Framing::Live,
    };
    let mut begun = exchange.begin(status, framing);
    for (name, value) in passing(head) {
        begun = begun.header(name, value);
    }
    begun.finish();
    Ok(body(exchange, &mut call).await)
}

/// Fields of an answer that go on to the caller: none that belongs to the connection, or that we write ourselves.
fn passing(head: &AnswerHead) -> impl Iterator<Item = (&str, &[u8])> {
    let of_connection = head.all().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let named: Vec<&[u8]> = of_connection.flat_map(|(_, value)| list_elements(value)).collect();
    head.all().filter(move |(name, _)| {
        let is_ours = ["content-length", "date"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
        let is_named = named.iter().any(|element| element.eq_ignore_ascii_case(name.as_bytes()));
        !is_ours && !is_named && !fields::stays(name)
    })
}

/// The node speaks another protocol from here on, and so does the caller: bytes go both ways until both have ended.
async fn switch(exchange: &mut Exchange, call: Call) -> Result<Result<(), Gone>, Failure> {
    if !handshake::is_wanted(exchange.head()) {
        let text = "the node switched protocols unasked".to_owned();
        return Err(Failure { error: CallError::Transport(text), is_nodes: true, may_repeat: false });
    }
    let mut fields =
        vec![("Connection".to_owned(), "Upgrade".to_owned()), ("Upgrade".to_owned(), "websocket".to_owned())];
    let passed = passing(call.head());
    fields.extend(passed.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())));
    let Some(mut node) = call.into_stream() else { return Ok(Err(Gone)) };
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if exchange.switch_protocols(&fields).await.is_err() {
        return Ok(Err(Gone));
    }
    stream::tunnel(exchange.connection(), &mut node).await;
    Ok(Ok(()))
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

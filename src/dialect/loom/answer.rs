//! Small answers: JSON bodies, and what a refusal of the service is in statuses.
//!
//! Invariant: the bodies that the documentation of this dialect shows are equal to its server's to the byte; all
//! others are `{"error":"…"}` with a sentence. Lives on: the connection's shard.

use super::auth::Denied;
use crate::codec::text::percent_encode;
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::{ResponseHead, Status};
use crate::service::stream::{
    Found, Id, Keeper, Limit, OpenError, ProduceError, State, StoreError, state_text,
};

/// The type of every small answer.
pub const JSON: &str = "application/json";

/// 404 for a path that is no route.
pub async fn no_such_path(exchange: &mut Exchange) -> Result<(), Gone> {
    let message = format!("{} does not exist", exchange.head().path());
    coded(exchange, Status::NOT_FOUND, "ResourceNotFound", &message, None).await
}

/// 405 with the methods that would do.
pub async fn method_not_allowed(exchange: &mut Exchange, allowed: &str) -> Result<(), Gone> {
    let message = format!("{} is not allowed", exchange.head().method_text());
    coded(exchange, Status::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message, Some(allowed)).await
}

/// 400 or 401.
pub async fn denied(exchange: &mut Exchange, denied: Denied) -> Result<(), Gone> {
    let (status, challenge) = match denied {
        Denied::NoToken => (Status::UNAUTHORIZED, Some(r#"Bearer realm="API Key""#)),
        Denied::WrongToken => {
            (Status::UNAUTHORIZED, Some(r#"Bearer realm="API Key", error="invalid_token""#))
        }
        Denied::Malformed => (Status::BAD_REQUEST, None),
    };
    let (phrase, code) = (status.phrase(), status.code());
    let body = format!(
        r#"{{"name":"AuthenticationError","message":"{phrase}","status":{code},"statusCode":{code}}}"#
    );
    let challenge = challenge.map(|challenge| ("WWW-Authenticate", challenge));
    json(exchange, status, challenge, body.as_bytes()).await
}

/// `{"error":"…"}`
pub async fn error(exchange: &mut Exchange, status: Status, message: &str) -> Result<(), Gone> {
    json(exchange, status, None, error_body(message).as_bytes()).await
}

/// 400 with what is wrong and what would be accepted.
pub async fn bad_request(exchange: &mut Exchange, message: &str) -> Result<(), Gone> {
    error(exchange, Status::BAD_REQUEST, message).await
}

/// 404 for an id without a stream.
pub async fn unknown_stream(exchange: &mut Exchange, id: &str) -> Result<(), Gone> {
    error(exchange, Status::NOT_FOUND, &format!("The stream with ID {id} does not exist")).await
}

/// 403 for an id that another dialect keeps.
pub async fn kept_by_another(exchange: &mut Exchange, id: &Id) -> Result<(), Gone> {
    let prefix = Keeper::of(id).prefix();
    let message =
        format!("streams whose ID begins with {prefix} are written and deleted by that dialect alone");
    error(exchange, Status::FORBIDDEN, &message).await
}

/// What the store could not do.
pub async fn store_error(exchange: &mut Exchange, refusal: &StoreError) -> Result<(), Gone> {
    let status = match refusal {
        StoreError::NoSpace => Status::INSUFFICIENT_STORAGE,
        StoreError::SyncFailed | StoreError::ReadOnly | StoreError::Closing => Status::SERVICE_UNAVAILABLE,
        StoreError::Damaged(_) => Status::INTERNAL_SERVER_ERROR,
        StoreError::Gone => Status::NOT_FOUND,
        StoreError::Trimmed(_) => Status::GONE,
        StoreError::Ended | StoreError::Attached | StoreError::Fenced => Status::CONFLICT,
        StoreError::Io(kind, path) => {
            tracing::error!(path = %path.display(), %kind, "a file operation failed");
            Status::INTERNAL_SERVER_ERROR
        }
    };
    error(exchange, status, &store_message(refusal)).await
}

/// Where our files lie is nobody's business.
fn store_message(refusal: &StoreError) -> String {
    match refusal {
        StoreError::Io(kind, _) => format!("the disk refused an operation: {kind}"),
        other => other.to_string(),
    }
}

/// Why a stream was not opened.
pub async fn not_opened(exchange: &mut Exchange, id: &Id, refusal: &OpenError) -> Result<(), Gone> {
    match refusal {
        OpenError::Taken => {
            let id = id.text();
            let message = format!(
                "The stream with ID {id} already exists. Specify force=true query param to override."
            );
            error(exchange, Status::CONFLICT, &message).await
        }
        OpenError::Unknown => unknown_stream(exchange, &id.text()).await,
        OpenError::WrongPlace { offset, epoch } => {
            let message = format!(
                "The stream with ID {} is {offset} bytes long in epoch {epoch}; resume there or before",
                id.text()
            );
            misplaced(exchange, Status::PRECONDITION_FAILED, *offset, *epoch, State::Open, &message).await
        }
        OpenError::Complete { offset, epoch } => {
            let message =
                format!("The stream with ID {} is complete with {offset} bytes; it takes no more", id.text());
            misplaced(exchange, Status::CONFLICT, *offset, *epoch, State::Complete, &message).await
        }
        OpenError::MetadataTooLong(_) => {
            error(exchange, Status::HEADERS_TOO_LARGE, &refusal.to_string()).await
        }
        OpenError::Limit(limit) => {
            let (status, message) = limited(*limit);
            error(exchange, status, &message).await
        }
        OpenError::Store(refusal) => store_error(exchange, refusal).await,
    }
}

/// What a limit is in statuses, and what would be accepted.
fn limited(limit: Limit) -> (Status, String) {
    match limit {
        Limit::StreamBytes(_) => {
            (Status::CONTENT_TOO_LARGE, format!("{limit} (loom.max_stream_bytes); begin another one"))
        }
        Limit::Quota(_) => {
            let accepted = "there is room again once enough of them are deleted";
            (Status::INSUFFICIENT_STORAGE, format!("{limit} (loom.quota); {accepted}"))
        }
        Limit::Streams(_) => {
            let accepted = "delete one first, or replace one with force=true";
            (Status::TOO_MANY_REQUESTS, format!("{limit} (loom.max_streams); {accepted}"))
        }
    }
}

/// Why a producer's answer, which has begun, does not end.
pub fn cut_reason(error: &ProduceError) -> String {
    error_body(&match error {
        ProduceError::Limit(limit) => limited(*limit).1,
        ProduceError::Store(error) => store_message(error),
    })
}

/// Where the stream really is, for one that is wrong about it.
pub async fn misplaced(
    exchange: &mut Exchange,
    status: Status,
    offset: u64,
    epoch: u64,
    state: State,
    message: &str,
) -> Result<(), Gone> {
    let body = error_body(message);
    let head = exchange
        .begin(status, Framing::Length(body.len() as u64))
        .header("Content-Type", JSON)
        .header_u64("Stream-Next-Offset", offset)
        .header_u64("Stream-Epoch", epoch);
    closed(head, state).finish();
    exchange.send(body.as_bytes()).await?;
    exchange.finish(&[]).await
}

/// The fields that say how a stream stands. `first` and `end` are its first offset and its length as the rest of the
/// answer has them.
pub fn standing<'b>(
    head: ResponseHead<'b>,
    found: &Found,
    state: State,
    first: u64,
    end: u64,
) -> ResponseHead<'b> {
    let mut head = head
        .header("Accept-Ranges", "bytes")
        .header("X-Stream-State", state_text(state))
        .header_u64("Stream-Next-Offset", end)
        // Not more than the length that this answer tells, whatever happened since it was looked up.
        .header_u64("Stream-Durable-Offset", found.tail.durable().min(end))
        .header_u64("Stream-Epoch", found.tail.epoch());
    if first > 0 {
        head = head.header_u64("Stream-First-Offset", first);
    }
    if !found.metadata.is_empty() && is_field_value(&found.metadata) {
        head = head.header("X-Stream-Metadata", &found.metadata);
    }
    closed(head, state)
}

/// `Stream-Closed` says that no byte will ever follow: an interrupted stream may be resumed.
fn closed(head: ResponseHead<'_>, state: State) -> ResponseHead<'_> {
    if state == State::Complete { head.header("Stream-Closed", "true") } else { head }
}

/// `X-Stream-Id`, escaped if a field cannot hold the id as it is.
pub fn named<'b>(head: ResponseHead<'b>, id: &Id) -> ResponseHead<'b> {
    if is_field_value(id.as_bytes()) {
        return head.header("X-Stream-Id", id.as_bytes());
    }
    head.header("X-Stream-Id", percent_encode(id.as_bytes()).to_string())
        .header("X-Stream-Id-Encoding", "percent")
}

/// `text` as a JSON string.
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `{"error":"…"}`
fn error_body(message: &str) -> String {
    format!(r#"{{"error":{}}}"#, json_string(message))
}

async fn coded(
    exchange: &mut Exchange,
    status: Status,
    code: &str,
    message: &str,
    allowed: Option<&str>,
) -> Result<(), Gone> {
    let body = format!(r#"{{"code":"{code}","message":{}}}"#, json_string(message));
    json(exchange, status, allowed.map(|allowed| ("Allow", allowed)), body.as_bytes()).await
}

async fn json(
    exchange: &mut Exchange,
    status: Status,
    field: Option<(&str, &str)>,
    body: &[u8],
) -> Result<(), Gone> {
    let mut head = exchange.begin(status, Framing::Length(body.len() as u64)).header("Content-Type", JSON);
    if let Some((name, value)) = field {
        head = head.header(name, value);
    }
    head.finish();
    exchange.send(body).await?;
    exchange.finish(&[]).await
}

/// Whether a field can hold `value` and give it back: no control characters, no space at its ends.
fn is_field_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
        && !is_space(value.first())
        && !is_space(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_holds_what_it_gives_back() {
        for (value, fits) in [
            (&b"id"[..], true),
            ("日 本".as_bytes(), true),
            (b"\xff\x80", true),
            (b"", true),
            (b"a\tb", true),
            (b" a", false),
            (b"a\t", false),
            (b"a\r\nb", false),
            (b"\0", false),
            (b"\x7f", false),
        ] {
            assert_eq!(is_field_value(value), fits, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn messages_are_json_whatever_they_quote() {
        let body = error_body("a \"b\"\r\n\u{0} \\");
        let parsed: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(parsed["error"], "a \"b\"\r\n\u{0} \\");
        assert_eq!(error_body("plain"), r#"{"error":"plain"}"#);
    }
}

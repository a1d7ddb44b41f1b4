//! Errors of calls, as objects with a status: the keys, ids and words that callers of services know.
//!
//! Invariant: the status of the answer is the `code` in it. Pure; runs on the connection's shard.

use super::answer::Reply;
use super::json;
use crate::codec::json::push_string;
use crate::net::http::Status;
use crate::service::rpc::CallError;
use std::fmt::Write;

/// An object with id, code and detail.
pub fn reply(id: &str, status: Status, detail: &str) -> Reply {
    object(id, status, detail, status.phrase())
}

fn object(id: &str, status: Status, detail: &str, phrase: &str) -> Reply {
    let mut body = String::from("{\"id\":");
    push_string(&mut body, id);
    let _ = write!(body, ",\"code\":{},\"detail\":", status.code());
    push_string(&mut body, detail);
    body.push_str(",\"status\":");
    push_string(&mut body, phrase);
    body.push('}');
    Reply::json(status, body)
}

/// What became of a call that came in by `id`.
pub fn of_call(id: &str, error: &CallError) -> Reply {
    let internal = Status::INTERNAL_SERVER_ERROR;
    match error {
        CallError::Unknown => reply("go.micro.client", Status::NOT_FOUND, "not found"),
        CallError::Busy => reply(
            "go.micro.client",
            Status::SERVICE_UNAVAILABLE,
            "all nodes have more calls than they should",
        ),
        CallError::Connect(text) => reply("go.micro.client", internal, &format!("connection error: {text}")),
        CallError::Timeout => {
            reply("go.micro.client", Status::REQUEST_TIMEOUT, "request timeout: context deadline exceeded")
        }
        CallError::Transport(text) => reply("go.micro.client.transport", internal, text),
        CallError::Codec(text) => reply("go.micro.client.codec", internal, text),
        CallError::Backend(text) => {
            of_text(text).unwrap_or_else(|| reply(id, internal, &format!("error during request: {text}")))
        }
    }
}

/// An error that a service put into text as an object of this kind.
fn of_text(text: &str) -> Option<Reply> {
    let parsed = json::parse(text.as_bytes()).ok()?;
    let map = parsed.as_object()?;
    let code = json::field(map, "code").and_then(|code| code.as_u64()).filter(|code| *code != 0)?;
    let status =
        u16::try_from(code).ok().and_then(Status::from_code).unwrap_or(Status::INTERNAL_SERVER_ERROR);
    let of = |name: &str| json::text(map, name, "Error").unwrap_or_default();
    Some(object(&of("id"), status, &of("detail"), &of("status")))
}

//! The daemon as a service of its own registry: `Debug.Health` and `Debug.Stats`, as every service of a mesh answers
//! them, posted to `/` as services are called.
//!
//! Lives on: the connection's shard.

use super::answer::{self, Reply};
use super::{Micro, json};
use crate::codec::json::push_string;
use crate::net::http::Status;
use crate::net::http::exchange::{Exchange, Gone};
use crate::runtime::memory::Process;
use crate::runtime::{blocking, shard};
use std::fmt::Write;

/// A call to the daemon itself, in the framing of calls to nodes.
pub async fn answer(micro: &Micro, exchange: &mut Exchange) -> Result<Reply, Gone> {
    let body = match answer::body(exchange).await? {
        Ok(body) => body,
        Err(reply) => return Ok(reply),
    };
    let asked = json::parse(&body).ok();
    let asked = asked.as_ref().and_then(|asked| asked.as_object());
    let method = asked.and_then(|map| json::text(map, "method", "request").ok()).unwrap_or_default();
    let id = asked.and_then(|map| json::field(map, "id")).map_or("0".to_owned(), ToString::to_string);
    let (result, error) = match result(micro, &method).await {
        Some(result) => (result, "null".to_owned()),
        None => {
            let mut error = String::new();
            push_string(&mut error, &format!("rpc: can't find service {method}"));
            ("null".to_owned(), error)
        }
    };
    Ok(Reply::json(Status::OK, format!("{{\"id\":{id},\"result\":{result},\"error\":{error}}}\n")))
}

/// The result of a method of the daemon; `None` when there is no such method.
pub async fn result(micro: &Micro, method: &str) -> Option<String> {
    match method {
        "Debug.Health" => Some(r#"{"status":"ok"}"#.to_owned()),
        "Debug.Stats" => {
            let process = blocking::run(Process::look).await.unwrap_or_default();
            let uptime = (shard::current().wall().unix_millis() / 1000).saturating_sub(micro.started);
            let mut text = String::new();
            let _ = write!(
                text,
                "{{\"started\":{},\"uptime\":{uptime},\"memory\":{},\"threads\":{},\"gc\":0}}",
                micro.started, process.resident, process.threads
            );
            Some(text)
        }
        _ => None,
    }
}

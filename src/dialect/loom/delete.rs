//! `DELETE /stream/:id` and `DELETE /stream/build/:buildId`: ids become free at once. The disk
//! does when nothing else lives in the same segment.
//!
//! Lives on: the connection's shard.

use super::{Loom, answer, list, param};
use crate::net::http::Status;
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::target::percent_decode_segment;
use crate::service::stream::Keeper;

/// Deletes one stream.
pub async fn delete(loom: &Loom, exchange: &mut Exchange, segment: String) -> Result<(), Gone> {
    let id = match param::id(&segment) {
        Ok(id) => id,
        Err(sentence) => return answer::bad_request(exchange, &sentence).await,
    };
    if Keeper::of(&id) != Keeper::Loom {
        return answer::kept_by_another(exchange, &id).await;
    }
    match loom.streams.delete(id.clone()).await {
        Ok(true) => {
            tracing::info!(stream = %id, "stream deleted");
            exchange.begin(Status::NO_CONTENT, Framing::Empty).finish();
            exchange.finish(&[]).await
        }
        Ok(false) => answer::unknown_stream(exchange, &id.text()).await,
        Err(error) => answer::store_error(exchange, &error).await,
    }
}

/// Deletes every `build-<build>-…`. A build is a name, never a pattern, and one without streams is no error.
pub async fn delete_build(loom: &Loom, exchange: &mut Exchange, segment: String) -> Result<(), Gone> {
    let build = match percent_decode_segment(&segment) {
        Ok(build) => build.into_owned(),
        Err(bad) => return answer::bad_request(exchange, &format!("the build ID: {bad}")).await,
    };
    let deleted = match loom.streams.delete_prefix(&[b"build-", &build[..], b"-"].concat()).await {
        Ok(deleted) => deleted,
        Err(error) => return answer::store_error(exchange, &error).await,
    };
    tracing::info!(build = %build.escape_ascii(), streams = deleted.len(), "build deleted");
    let build = answer::json_string(&String::from_utf8_lossy(&build));
    let ids: Vec<String> = deleted.iter().map(|id| answer::json_string(&list::shown(id).0)).collect();
    let body = format!(r#"{{"status":"deleted","buildId":{build},"deleted":[{}]}}"#, ids.join(","));
    exchange.reply(Status::OK, answer::JSON, body.as_bytes()).await
}

//! `/health`: whether the application beside the daemon is well, asked now.
//!
//! Lives on: the connection's shard.

use super::answer::Reply;
use super::{Micro, Settings};
use crate::net::http::Status;
use crate::net::http::exchange::{Exchange, Gone};
use crate::service::app::Unwell;

/// 200 while it is well; its own status when it says another one.
pub async fn answer(micro: &Micro, settings: &Settings, exchange: &mut Exchange) -> Result<Reply, Gone> {
    exchange.skip_body().await?;
    let Some(app) = &settings.app else { return Ok(Reply::no_such_page()) };
    let client = micro.rpc.client();
    Ok(match exchange.while_connected(app.check(&client)).await? {
        Ok(()) => Reply::empty(),
        // A status without a body would be no answer to read.
        Err(Unwell::Status(status)) if status.has_body() && !status.is_informational() => {
            Reply::text(status, &format!("Non 200 response: {}", status.code()))
        }
        Err(Unwell::Status(status)) => {
            Reply::text(Status::INTERNAL_SERVER_ERROR, &format!("Non 200 response: {}", status.code()))
        }
        Err(Unwell::Silent(why)) => Reply::text(Status::INTERNAL_SERVER_ERROR, &why),
    })
}

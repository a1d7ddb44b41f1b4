//! `GET` and `PUT /~bind`, `PUT /~unbind`: accounts, for who has the main one.
//!
//! A body is one pair in JSON, `{"key":"secret"}`; only its key counts when it is unbound. What is answered with 200 is
//! in the file of accounts and known to all shards. Lives on: the connection's shard.

use super::Vblob;
use super::accounts::{Accounts, Change};
use super::answer::{self, Halt, Refusal};
use crate::config::Secret;
use crate::net::http::Status;
use crate::net::http::exchange::{BodyError, BodyStep, Exchange};
use crate::runtime::{blocking, shard};
use serde_json::Value;

/// The longest body.
const BODY_MAX: usize = 512;

/// All accounts but the main one, with their secrets.
pub async fn show(vblob: &Vblob, exchange: &mut Exchange) -> Result<(), Halt> {
    let json = vblob.accounts.bound().json();
    Ok(exchange.reply(Status::OK, "application/json", json.as_bytes()).await?)
}

/// Adds an account.
pub async fn bind(vblob: &Vblob, exchange: &mut Exchange) -> Result<(), Halt> {
    let (id, secret) = pair(&body(exchange).await?)?;
    let Value::String(secret) = secret else { return Err(Refusal::BadJson.into()) };
    if is_main(vblob, &id) {
        return Err(Refusal::KeyExists.into());
    }
    let changed = change(vblob, Change::Bind(id.clone(), Secret::new(secret))).await?;
    if !changed {
        return Err(Refusal::KeyExists.into());
    }
    tracing::info!(account = id, "account bound");
    Ok(answer::empty(exchange, Status::OK).await?)
}

/// Takes an account away.
pub async fn unbind(vblob: &Vblob, exchange: &mut Exchange) -> Result<(), Halt> {
    let (id, _) = pair(&body(exchange).await?)?;
    if is_main(vblob, &id) || !change(vblob, Change::Unbind(id.clone())).await? {
        return Err(Refusal::NoSuchKey.into());
    }
    tracing::info!(account = id, "account unbound");
    Ok(answer::empty(exchange, Status::OK).await?)
}

fn is_main(vblob: &Vblob, id: &str) -> bool {
    vblob.settings().main.as_ref().is_some_and(|(main, _)| **main == *id)
}

/// The file is read and written by a worker; false when there was nothing to change.
async fn change(vblob: &Vblob, change: Change) -> Result<bool, Refusal> {
    let (accounts, disk) = (vblob.accounts.clone(), shard::current().disk().clone());
    match blocking::run(move || Accounts::change(&accounts, &*disk, change)).await {
        Ok(Ok(changed)) => Ok(changed),
        Ok(Err(error)) | Err(error) => {
            tracing::error!(%error, "the file of accounts cannot be changed");
            Err(Refusal::AccountFile)
        }
    }
}

async fn body(exchange: &mut Exchange) -> Result<Vec<u8>, Halt> {
    let mut body = Vec::new();
    loop {
        let took = exchange.read_body(|bytes| {
            body.extend_from_slice(&bytes[..bytes.len().min(BODY_MAX + 1 - body.len().min(BODY_MAX))]);
        });
        match took.await {
            Ok(BodyStep::Bytes(_)) if body.len() > BODY_MAX => return Err(Refusal::MessageTooLong.into()),
            Ok(BodyStep::Bytes(_)) => {}
            Ok(BodyStep::End) => return Ok(body),
            Err(BodyError::Gone) => return Err(Halt::Gone),
            Err(BodyError::Refused(refusal)) => return Err(Refusal::BadBody(refusal).into()),
        }
    }
}

fn pair(body: &[u8]) -> Result<(String, Value), Refusal> {
    let Ok(Value::Object(pairs)) = serde_json::from_slice(body) else { return Err(Refusal::BadJson) };
    let mut pairs = pairs.into_iter();
    match (pairs.next(), pairs.next()) {
        // A colon ends the id in basic authentication.
        (Some((id, value)), None) if !id.is_empty() && !id.contains(':') => Ok((id, value)),
        _ => Err(Refusal::BadJson),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_one_pair() {
        assert_eq!(pair(br#"{"a":"b"}"#).unwrap(), ("a".into(), "b".into()));
        for body in [
            &b""[..],
            b"{}",
            b"[]",
            b"{",
            br#"{"a":"b","c":"d"}"#,
            br#"{"":"b"}"#,
            br#"{"a:c":"b"}"#,
            b"\xff",
        ] {
            assert!(matches!(pair(body), Err(Refusal::BadJson)), "{}", body.escape_ascii());
        }
    }
}

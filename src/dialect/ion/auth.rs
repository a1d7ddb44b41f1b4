//! Which module asks: by the secret, and by the port where the port is of one module.
//!
//! Invariant: nothing of a secret shows in how long this takes: what is compared are digests of what was sent, and in
//! time that depends on nothing. Pure; runs on the connection's shard.

use super::answer::Refusal;
use crate::net::http::RequestHead;
use crate::service::chain::{Module, Modules, digest_of};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The module whose secret the request carries. Several `secret` fields count only where all are the same.
pub fn judge(modules: &Modules, port: Option<&str>, head: &RequestHead) -> Result<Arc<Module>, Refusal> {
    let mut sent = head.headers("secret").map(digest_of);
    let first = match sent.next() {
        Some(first) if head.header("secret").is_some_and(|secret| !secret.is_empty()) => first,
        _ => return Err(Refusal::NoSecret),
    };
    let is_one = sent.fold(true, |is_one, next| is_one & bool::from(first[..].ct_eq(&next[..])));
    let table = modules.table();
    let module = match port {
        Some(event) => table.of_port(event),
        None => table.of_secret(&first),
    };
    match module {
        Some(module) if is_one & bool::from(module.digest[..].ct_eq(&first[..])) => Ok(module.clone()),
        _ => Err(Refusal::WrongSecret),
    }
}

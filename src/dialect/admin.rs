//! The admin endpoints: is it alive, is it ready, what does it count.
//!
//! `GET /livez` answers 200 as long as the shard that was asked turns. `GET /readyz` names every check, one per
//! line, and answers 503 when one fails. Damage fails no check: it costs what it hit, everything else is served, and
//! an instance that is taken out of service for it helps nobody. It has a line of its own, marked `[!]`, until a
//! restart finds nothing of it any more. `GET /metrics` is the Prometheus text format, summed over all shards.
//! All of these only read what shards publish through atomics, so no shard is asked and none can hang them.
//! `/ion/modules` ([`modules`]) changes something, and asks who wants that.
//! Lives on: every shard.

mod modules;

pub use modules::{ModulePorts, Registrar};

use crate::config::Config;
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::server::Handler;
use crate::net::http::{Method, Status};
use crate::observe::counter::Counter;
use crate::observe::metrics::{self, Dialect, ShardMetrics};
use crate::service::blob::remote::{Readiness, State};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What one shard says about itself; written there, read by anyone.
#[derive(Debug, Default)]
pub struct Vitals {
    stage: AtomicU8,
    store: AtomicU8,
}

/// Where a shard is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// Recovering or binding.
    Starting,
    /// Accepting and answering.
    Serving,
    /// Finishing what is under way.
    Draining,
}

/// What the store of a shard can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum StoreState {
    /// Everything.
    Serving,
    /// A sync failed; what is whole is served.
    Degraded,
    /// Nothing can be changed any more.
    ReadOnly,
}

impl Vitals {
    /// The shard is now at `stage`.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Its store is now in `state`.
    pub fn set_store(&self, state: StoreState) {
        self.store.store(state as u8, Ordering::Relaxed);
    }

    fn stage(&self) -> &'static str {
        ["starting", "serving", "draining"][usize::from(self.stage.load(Ordering::Relaxed))]
    }

    fn store(&self) -> &'static str {
        ["serving", "degraded", "read-only"][usize::from(self.store.load(Ordering::Relaxed))]
    }
}

/// Answers admin requests.
pub struct Admin {
    metrics: Vec<Arc<ShardMetrics>>,
    vitals: Vec<Arc<Vitals>>,
    registrar: Option<Registrar>,
    remote: Option<Arc<Readiness>>,
}

const PATHS: &[&str] = &["/livez", "/readyz", "/metrics", modules::PATH];
const TEXT: &str = "text/plain; charset=utf-8";

impl Admin {
    /// Reads from all shards' metrics and vitals.
    pub fn new(metrics: Vec<Arc<ShardMetrics>>, vitals: Vec<Arc<Vitals>>) -> Self {
        Admin { metrics, vitals, registrar: None, remote: None }
    }

    /// Lets modules be registered, too.
    pub fn with_modules(self, registrar: Registrar) -> Self {
        Admin { registrar: Some(registrar), ..self }
    }

    /// Tells how the store elsewhere does, too.
    pub fn with_remote(self, remote: Option<Arc<Readiness>>) -> Self {
        Admin { remote, ..self }
    }

    /// Takes another configuration, from the next request on.
    pub fn reload(&self, config: &Config) {
        if let Some(registrar) = &self.registrar {
            registrar.reload(&config.admin.tokens);
        }
    }

    fn readiness(&self) -> (Status, String) {
        let mut page = String::new();
        let mut ready = true;
        for (number, vitals) in self.vitals.iter().enumerate() {
            for (check, state) in [("shard", vitals.stage()), ("store", vitals.store())] {
                let passes = state == "serving";
                ready &= passes;
                let sign = if passes { '+' } else { '-' };
                let _ = writeln!(page, "[{sign}] {check} {number}: {state}");
            }
        }
        if let Some(remote) = &self.remote {
            let state = remote.state();
            ready &= state.is_ready();
            // Lost once it was there, it fails no check: taking us out of service brings nothing back.
            let sign = match state {
                State::Ready => '+',
                State::Lost => '!',
                State::Starting | State::Unreached | State::Denied => '-',
            };
            let _ = writeln!(page, "[{sign}] remote.s3: {}", state.text());
        }
        let _ = writeln!(page, "{}", self.damage());
        (if ready { Status::OK } else { Status::SERVICE_UNAVAILABLE }, page)
    }
}

impl Admin {
    fn damage(&self) -> String {
        let names: i64 = self.metrics.iter().map(|shard| shard.names_damaged.value()).sum();
        let sum = |counter: fn(&ShardMetrics) -> &Counter| -> u64 {
            self.metrics.iter().map(|shard| counter(shard).value()).sum()
        };
        let (records, windows) = (sum(|shard| &shard.records_damaged), sum(|shard| &shard.windows_damaged));
        if names == 0 && records == 0 && windows == 0 {
            return "[+] damage: none".into();
        }
        format!(
            "[!] damage: {names} names, {records} journal records found at the start, {windows} reads of damaged bytes; \
             `millpond verify` tells which"
        )
    }
}

impl Handler for Admin {
    const DIALECT: Dialect = Dialect::Admin;

    async fn handle(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        let path = exchange.head().path().to_owned();
        let below = path.strip_prefix(modules::PATH);
        if let Some(registrar) = self
            .registrar
            .as_ref()
            .filter(|_| below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        {
            return modules::handle(registrar, exchange).await;
        }
        exchange.skip_body().await?;
        if !PATHS.contains(&path.as_str()) {
            let body = format!("nothing at {path}; there are {}\n", PATHS.join(", "));
            return exchange.reply(Status::NOT_FOUND, TEXT, body.as_bytes()).await;
        }
        if !matches!(exchange.head().method(), Method::Get | Method::Head) {
            let body = b"only GET and HEAD are answered here\n";
            let head = exchange.begin(Status::METHOD_NOT_ALLOWED, Framing::Length(body.len() as u64));
            head.header("Allow", "GET, HEAD").header("Content-Type", TEXT).finish();
            exchange.send(body).await?;
            return exchange.finish(&[]).await;
        }
        match path.as_str() {
            "/livez" => exchange.reply(Status::OK, TEXT, b"alive\n").await,
            "/readyz" => {
                let (status, page) = self.readiness();
                exchange.reply(status, TEXT, page.as_bytes()).await
            }
            _ => {
                let mut page = String::new();
                metrics::render(&self.metrics, &mut page);
                exchange.reply(Status::OK, metrics::CONTENT_TYPE, page.as_bytes()).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failing_check_makes_the_daemon_unready_and_is_named() {
        let vitals = vec![Arc::new(Vitals::default()), Arc::new(Vitals::default())];
        let admin = Admin::new(Vec::new(), vitals.clone());
        assert_eq!(admin.readiness().0, Status::SERVICE_UNAVAILABLE, "starting is not ready");
        vitals.iter().for_each(|shard| shard.set_stage(Stage::Serving));
        assert_eq!(admin.readiness().0, Status::OK);
        vitals[1].set_store(StoreState::ReadOnly);
        let (status, page) = admin.readiness();
        assert_eq!(status, Status::SERVICE_UNAVAILABLE);
        assert!(page.contains("[-] store 1: read-only") && page.contains("[+] store 0: serving"), "{page}");
    }

    #[test]
    fn damage_is_told_and_fails_no_check() {
        let vitals = vec![Arc::new(Vitals::default())];
        vitals[0].set_stage(Stage::Serving);
        let metrics = vec![Arc::new(ShardMetrics::default()), Arc::new(ShardMetrics::default())];
        let admin = Admin::new(metrics.clone(), vitals);
        assert!(admin.readiness().1.contains("[+] damage: none"));
        metrics[0].names_damaged.set(1);
        metrics[1].names_damaged.set(2);
        metrics[1].windows_damaged.inc();
        let (status, page) = admin.readiness();
        assert_eq!(status, Status::OK);
        assert!(
            page.contains("[!] damage: 3 names, 0 journal records") && page.contains("1 reads"),
            "{page}"
        );
    }
}

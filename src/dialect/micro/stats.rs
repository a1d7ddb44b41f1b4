//! `/stats`: how the daemon does, as a page for people and as JSON for programs.
//!
//! The JSON begins with the keys of the original, in their order, and what it did not have follows; windows of five
//! seconds, the last 23 of them. The page is one file that asks for the JSON every two seconds and needs nothing else.
//! Invariant: a request is counted by its own status. Lives on: every shard, each of which samples all of them.

use super::Micro;
use super::answer::{JSON, Reply};
use crate::codec::json::push_string;
use crate::net::http::Status;
use crate::net::http::exchange::{Exchange, Gone};
use crate::observe::metrics::{Class, Dialect, ShardMetrics};
use crate::runtime::memory::Process;
use crate::runtime::{blocking, shard, timer};
use crate::service::pulse::{Pulse, Report};
use crate::service::registry::Table;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

const PAGE: &str = include_str!("stats.html");
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(5);
/// How many are kept.
const WINDOWS_MAX: usize = 23;

/// Requests by the first digit of their status, from 1 on.
type Counts = [u64; 5];

/// What one shard keeps for the page.
pub struct Stats {
    metrics: Vec<Arc<ShardMetrics>>,
    pulse: Rc<Pulse>,
    windows: RefCell<VecDeque<(u64, Counts)>>,
    last: RefCell<Counts>,
}

impl Stats {
    /// Begins to count in windows.
    pub fn start(metrics: Vec<Arc<ShardMetrics>>, pulse: Rc<Pulse>) -> Rc<Self> {
        let stats = Rc::new(Stats { metrics, pulse, windows: RefCell::default(), last: RefCell::default() });
        shard::spawn("stats", sample(Rc::downgrade(&stats)));
        stats
    }

    fn counts(&self) -> Counts {
        let class = |digit: u16| {
            let of = |shard: &Arc<ShardMetrics>| {
                shard.http_requests.of(Dialect::Micro).of(Class::of(digit * 100)).value()
            };
            self.metrics.iter().map(of).sum()
        };
        [1, 2, 3, 4, 5].map(class)
    }

    /// What came since the last window.
    fn fresh(&self) -> Counts {
        let (now, last) = (self.counts(), *self.last.borrow());
        std::array::from_fn(|at| now[at] - last[at])
    }

    fn turn(&self, timestamp: u64) {
        let fresh = self.fresh();
        *self.last.borrow_mut() = self.counts();
        let mut windows = self.windows.borrow_mut();
        if windows.len() == WINDOWS_MAX {
            windows.pop_front();
        }
        windows.push_back((timestamp, fresh));
    }
}

async fn sample(stats: Weak<Stats>) {
    loop {
        timer::sleep(WINDOW).await;
        match stats.upgrade() {
            Some(stats) => stats.turn(shard::current().wall().unix_millis() / 1000),
            None => return,
        }
    }
}

/// JSON for who says that it speaks it, the page for everyone else.
pub async fn answer(micro: &Micro, stats: &Stats, exchange: &mut Exchange) -> Result<Reply, Gone> {
    exchange.skip_body().await?;
    if exchange.head().header("content-type") != Some(JSON.as_bytes()) {
        let page = Reply::typed(Status::OK, "text/html; charset=utf-8", PAGE.as_bytes().to_vec());
        let policy =
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
        return Ok(page.with("Content-Security-Policy", policy).with("Cache-Control", "no-store"));
    }
    let process = blocking::run(Process::look).await.unwrap_or_default();
    let report = stats.pulse.take().await;
    let text = json(micro, stats, process, &report);
    Ok(Reply::json(Status::OK, text).with("Cache-Control", "no-store"))
}

fn json(micro: &Micro, stats: &Stats, process: Process, report: &Report) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "{{\"started\":{},\"memory\":\"{:.2}mb\",\"threads\":{},\"gc_pause\":\"0ms\",\"counters\":[",
        micro.started,
        process.resident as f64 / 1e6,
        process.threads
    );
    let now = shard::current().wall().unix_millis() / 1000;
    let windows = stats.windows.borrow();
    let open = std::iter::once((now, stats.fresh()));
    let kept = windows.iter().copied().skip(usize::from(windows.len() == WINDOWS_MAX));
    for (at, (timestamp, counts)) in kept.chain(open).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{{\"timestamp\":{timestamp},\"status_codes\":{{");
        let classes = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        for (at, (class, count)) in classes.enumerate() {
            let _ = write!(out, "{}\"{}0x\":{count}", if at == 0 { "" } else { "," }, class + 1);
        }
        let _ = write!(out, "}},\"total_reqs\":{}}}", counts.iter().sum::<u64>());
    }
    out.push_str("],\"total\":{");
    for (class, count) in stats.counts().iter().enumerate() {
        let _ = write!(out, "{}\"{}0x\":{count}", if class == 0 { "" } else { "," }, class + 1);
    }
    out.push_str("},\"services\":[");
    push_services(&mut out, &micro.registry.table(), report);
    out.push_str("],\"topics\":[");
    for (at, (name, topic)) in report.topics.iter().enumerate() {
        out.push_str(if at == 0 { "{\"name\":" } else { ",{\"name\":" });
        push_string(&mut out, name);
        let _ = write!(
            out,
            ",\"subscribers\":{},\"published\":{},\"waiting\":{},\"kept\":{}}}",
            topic.subscribers,
            topic.published,
            topic.waiting,
            micro.kept.is_kept(name)
        );
    }
    out.push_str("]}");
    out
}

fn push_services(out: &mut String, table: &Table, report: &Report) {
    for (at, name) in table.names().enumerate() {
        out.push_str(if at == 0 { "{\"name\":" } else { ",{\"name\":" });
        push_string(out, name);
        let service = report.services.get(name).cloned().unwrap_or_default();
        let _ = write!(out, ",\"calls\":{},\"failed\":{}", service.calls, service.failed);
        for (key, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let millis = service.latency.quantile(share).map(|took| took.as_secs_f64() * 1e3);
            let _ = match millis {
                Some(millis) => write!(out, ",\"{key}_ms\":{millis:.3}"),
                None => write!(out, ",\"{key}_ms\":null"),
            };
        }
        out.push_str(",\"nodes\":[");
        let mut comma = "";
        table.each_node(name, |node| {
            let address = match node.port {
                0 => node.address.clone(),
                port => format!("{}:{port}", node.address),
            };
            let seen = crate::service::rpc::target::Targets::one(&address)
                .and_then(|target| report.nodes.get(&target.addresses()[0]).copied())
                .unwrap_or_default();
            let _ = write!(out, "{comma}{{\"id\":");
            push_string(out, &node.id);
            out.push_str(",\"address\":");
            push_string(out, &address);
            let state = if seen.resting > 0 { "resting" } else { "ok" };
            let _ = write!(out, ",\"state\":\"{state}\",\"in_flight\":{}}}", seen.in_flight);
            comma = ",";
        });
        out.push_str("]}");
    }
}

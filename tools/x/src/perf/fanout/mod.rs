//! One stream, many live readers: how late, at what cost, in how much memory, and who suffers from a pause.
//!
//! Invariant: no figure is kept of a round in which any reader missed a message or saw one twice.

mod round;
mod wire;

use std::{io, path::Path};

use super::{options::Options, record::Record};
use crate::{
    cpu::{self, Unpinned},
    daemon::{Daemon, Scratch, Setup},
};
use round::{Outcome, Plan};

/// Where daemon and client run.
struct Profile {
    name: &'static str,
    shards: usize,
    daemon: Option<usize>,
    client: Option<usize>,
}

const PINNED: Profile = Profile { name: "1 shard on core 0", shards: 1, daemon: Some(0), client: Some(1) };
const FREE: Profile = Profile { name: "2 shards", shards: 2, daemon: None, client: None };

/// Readers, messages a second.
const CASES: [(usize, u64); 2] = [(1_000, 400), (100, 4_000)];
const PAIRS: [(usize, u64); 2] = [(100, 4_000), (100, 1_000)];
const PAUSED_BEFORE: u64 = 16 << 20;
const MEMORY_MIB_MAX: f64 = 64.0;
const PAUSE_RATIO_MAX: f64 = 1.3;

/// All cases in both profiles, then pairs with and without a paused reader.
pub fn run(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "fanout",
        "Fan-out of one stream",
        "Shows how long a message takes from its producer to each of many live readers, and what a delivery costs.",
    );
    let seconds = options.seconds(20, 2);
    record.remark(
        "Messages of 100 bytes, one chunk each, sent at a fixed rate by the same thread that reads all answers \
         around one epoll; each carries its number and the time of its sending, so delays are read from one clock.",
    );
    record.remark(
        "The first tenth of a round is not measured. A delay begins when the message is handed to the kernel; `late` is \
         how far that was behind the schedule. Delays include the client's own: CPU of both sides says who was at \
         its limit.",
    );
    record.remark("All client sockets use cubic, as the daemon's do for peers on loopback.");
    let binary = root.join("target/release/millpond");
    let _unpinned = Unpinned::remember()?;
    for profile in [FREE, PINNED] {
        if let Some(core) = profile.client {
            cpu::pin(core)?;
        }
        for number in 0..options.rounds(3, 1) {
            for (readers, per_second) in CASES {
                let (_scratch, daemon) = start(&binary, &profile)?;
                let case = format!("{readers} readers at {per_second}/s; {}", profile.name);
                let plan = plan(&daemon, number, readers, per_second, seconds);
                let outcome = round::run(&plan)?;
                record.round(&case, number, &measures(&outcome));
                daemon.stop()?;
            }
        }
    }
    pairs(&mut record, &binary, options)?;
    record.checked(
        "every reader got every message once, in order, byte for byte, and an end that says `complete`",
    );
    record.checked("the paused reader read on afterwards and got everything too");
    record.checked("the producer's answer came to its end; the daemon left with exit code 0 after SIGTERM");
    record.largest_at_most("", "VmRSS without RssFile", MEMORY_MIB_MAX);
    Ok(record)
}

/// Two rounds each, which differ in one reader that asks for everything and does not read: at the rate that fills both
/// cores, and at one that leaves them room, where a delay is the daemon's and not a queue's.
fn pairs(record: &mut Record, binary: &Path, options: &Options) -> io::Result<()> {
    let seconds = options.seconds.unwrap_or(if options.short { 2 } else { 6 });
    record.remark(format!(
        "Pairs: rounds of {seconds} s without and with one more reader that leaves {} MiB and all messages unread; the \
         order changes from pair to pair, one daemon for all.",
        PAUSED_BEFORE >> 20
    ));
    let (_scratch, daemon) = start(binary, &PINNED)?;
    let mut number = 0;
    for (readers, per_second) in PAIRS {
        let case = format!("pairs of {readers} readers at {per_second}/s");
        let mut ratios = Vec::new();
        for pair in 0..options.rounds.map_or(if options.short { 2 } else { 7 }, |rounds| rounds.max(2)) {
            let mut p99 = [0.0; 2];
            for paused in if pair % 2 == 0 { [false, true] } else { [true, false] } {
                let which = if paused { "with a paused one" } else { "without" };
                let mut plan = plan(&daemon, number, readers, per_second, seconds);
                (plan.paused, plan.before) = (paused, PAUSED_BEFORE);
                number += 1;
                let outcome = round::run(&plan)?;
                p99[usize::from(paused)] = outcome.delay.value_at_quantile(0.99) as f64;
                record.round(&format!("{case}, {which}"), pair, &measures(&outcome));
            }
            ratios.push(p99[1] / p99[0]);
            record.round(&case, pair, &[("p99 with : without", "ratio", p99[1] / p99[0])]);
        }
        let above = ratios.iter().filter(|ratio| **ratio > PAUSE_RATIO_MAX).count();
        record.remark(format!(
            "The limit holds the median of the {case}; of {} single ones {above} were above {PAUSE_RATIO_MAX}.",
            ratios.len()
        ));
        record.median_at_most(&case, "p99 with : without", PAUSE_RATIO_MAX);
    }
    daemon.stop()
}

fn start(binary: &Path, profile: &Profile) -> io::Result<(Scratch, Daemon)> {
    let scratch = Scratch::new()?;
    let setup = Setup { shards: profile.shards, core: profile.daemon, ..Setup::new(binary, &scratch.data()) };
    let daemon = setup.start()?;
    Ok((scratch, daemon))
}

fn plan(daemon: &Daemon, number: u32, readers: usize, per_second: u64, seconds: u64) -> Plan {
    Plan {
        address: daemon.loom().to_owned(),
        stream: format!("fanout-{number}"),
        pid: daemon.pid(),
        readers,
        per_second,
        seconds,
        paused: false,
        before: 1,
    }
}

fn measures(outcome: &Outcome) -> Vec<(&'static str, &'static str, f64)> {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let deliveries = outcome.deliveries as f64;
    vec![
        ("p50", "us", micros(outcome.delay.value_at_quantile(0.5))),
        ("p99", "us", micros(outcome.delay.value_at_quantile(0.99))),
        ("p99.9", "us", micros(outcome.delay.value_at_quantile(0.999))),
        ("largest", "us", micros(outcome.delay.max())),
        ("late p99", "us", micros(outcome.lateness.value_at_quantile(0.99))),
        ("deliveries", "1/s", deliveries / outcome.window.as_secs_f64()),
        ("CPU per delivery", "us", micros(outcome.daemon.nanos) / deliveries),
        ("daemon CPU", "cores", outcome.daemon.nanos as f64 / outcome.window.as_nanos() as f64),
        ("client CPU", "cores", outcome.client.nanos as f64 / outcome.window.as_nanos() as f64),
        ("RssAnon", "MiB", mib(outcome.memory.anon)),
        ("VmRSS without RssFile", "MiB", mib(outcome.memory.not_file)),
    ]
}

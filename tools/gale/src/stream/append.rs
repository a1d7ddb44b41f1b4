//! `gale stream append`: producers that write, and when what they wrote is durable.
//!
//! Invariant: the records that count are those whose stream was acknowledged to its end, and whose length the server
//! then tells.

use std::{sync::Arc, time::Duration};

use super::{
    of_lane, streams,
    wire::{STATE, Streams},
};
use crate::{
    cli::{
        AppendArgs, HttpArgs, Load,
        stream::{Framing, Synced},
    },
    flow::{Counts, Flow, Parts, Totals, producer, watch::Watcher},
    http,
    report::{Report, Words},
    rpc::share,
    run,
    stamp::Stamps,
    tally::{Faults, Kind},
};

/// What is to be done.
pub struct Plan {
    streams: Streams,
    stamps: Arc<Stamps>,
    /// Records of each producer.
    records: Option<Vec<u64>>,
    synced: Option<(HttpArgs, http::Http)>,
}

impl AppendArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Plan, String> {
        self.check(load.requests, load.threads)?;
        let stamps = Arc::new(self.stream.stamps(load.seed)?);
        let producers = self.producers as usize;
        let records = self.bytes.map(|bytes| {
            let records = bytes / self.stream.records.record_size;
            (0..producers).map(|producer| share(records, producer, producers).0).collect()
        });
        let streams = streams(load, &self.stream)?;
        let synced = match self.synced {
            Some(Synced::Streams) => {
                let args = self.requests_of_their_own(&streams)?;
                Some(args.plan(load).map(|plan| (args, plan))?)
            }
            _ => None,
        };
        Ok(Plan { streams, stamps, records, synced })
    }

    /// A stream per record is a request per record.
    fn requests_of_their_own(&self, streams: &Streams) -> Result<HttpArgs, String> {
        let size = self.stream.records.record_size.to_string();
        let words = ["--method", "POST", "--body-size", &size, "--expect-status", "201"];
        self.of_their_own(streams, u64::MAX, "?force=true", &words)
    }

    /// The first so many of them, each read once.
    fn reads_of_their_own(&self, streams: &Streams, count: u64) -> Result<HttpArgs, String> {
        let size = self.stream.records.record_size.to_string();
        self.of_their_own(streams, count, "", &["--expect-seeded", &size, "--check", "full"])
    }

    fn of_their_own(
        &self,
        streams: &Streams,
        keys: u64,
        query: &str,
        words: &[&str],
    ) -> Result<HttpArgs, String> {
        let url = format!("http://{}/stream/{}-{{key}}{query}", streams.host, streams.name);
        let (connections, keys) = (self.producers.to_string(), keys.to_string());
        let mut all =
            vec![url.as_str(), "--keys", &keys, "--key-order", "sequence", "--connections", &connections];
        all.extend(words);
        streams.fields.lines().for_each(|field| all.extend(["--header", field]));
        HttpArgs::of(&all)
    }
}

/// Runs the mode.
pub fn run(load: &Load, args: &AppendArgs, plan: &Plan) -> Result<Report, String> {
    let Plan { streams, stamps, records, synced } = plan;
    if let Some((requests, http)) = synced {
        let mut report = http::run(load, requests, http)?;
        let operations = report.outcome.tally.operations;
        if args.read_back && report.is_right() && operations > 0 {
            let back = args.reads_of_their_own(streams, operations)?;
            let back_load = Load { requests: Some(operations), warmup: Duration::ZERO, ..load.clone() };
            let read = http::run(&back_load, &back, &back.plan(load)?)?;
            report.outcome.tally.faults.add(&read.outcome.tally.faults);
            report.checked += "; every byte of every record read back";
        }
        report.rename("stream append", &args.stream.url);
        report.words = Words {
            operations: "records, each a stream, acknowledged as durable",
            latency: "from sending a record to the end of its answer",
        };
        return Ok(report);
    }
    let producers = args.producers as usize;
    let totals = Arc::new(Totals::new(producers));
    let makers = (0..load.threads).map(|lane| {
        let totals = totals.clone();
        move || {
            let numbers = || of_lane(producers, lane, load.threads);
            let task = |number| {
                let records_max = records.as_ref().map(|records| records[number]);
                let length = records_max.filter(|_| args.framing == Framing::Length);
                let length = length.map(|records| records * args.stream.records.record_size);
                let (socket, wire) = streams.produce(number, length)?;
                Ok(producer::Task {
                    number: number as u32,
                    socket,
                    wire,
                    pace: args.rate.map(|rate| producer::Pace {
                        rate,
                        part: number as u64,
                        of: args.producers,
                    }),
                    group: args.group(),
                    records_max,
                    is_watched: args.poll_nanos().is_some(),
                    waits_for_durable: args.synced == Some(Synced::Durable),
                })
            };
            let watcher = |(at, number): (usize, usize)| {
                let interval = args.poll_nanos()?;
                let socket = streams.target.connect();
                Some(socket.map(|socket| Watcher::new(at, socket, streams.question(number), interval)))
            };
            Flow::new(Parts {
                producers: numbers().map(task).collect::<Result<_, String>>()?,
                readers: Vec::new(),
                watchers: numbers().enumerate().filter_map(watcher).collect::<Result<_, String>>()?,
                stamps: stamps.clone(),
                totals,
                counts: Counts::Acknowledged,
            })
        }
    });
    let until_done = load.until_done();
    let load = if args.bytes.is_some() { &until_done } else { load };
    let mut outcome = run::run(load, makers.collect())?;
    let faults = &mut outcome.tally.faults;
    let are_whole = faults.total() == 0;
    if are_whole {
        for stream in 0..producers {
            let bytes = totals.of(stream).unwrap_or_default() * stamps.size() as u64;
            lengths(streams, stream, bytes, args.cached, faults);
        }
    }
    if args.read_back && are_whole {
        faults.add(&read_back(load, plan, &totals)?);
    }
    let mut report = Report::new("stream append", &args.stream.url, load, outcome);
    report.say("producers", producers);
    args.stream.records.say(&mut report, args.rate);
    if args.synced.is_some() {
        report.say("synced", "one record at a time");
    }
    report.words = Words {
        operations: match args.cached {
            true => "records, acknowledged from the page cache by the end of their stream's answer",
            false => "records, acknowledged as durable by the end of their stream's answer",
        },
        latency: match args.poll_nanos() {
            Some(_) => {
                "from the time the first record of a write was due to an answer that promises that it is durable"
            }
            None => "not measured; --poll-durable does",
        },
    };
    if let Some(nanos) = args.poll_nanos() {
        report.say("durable asked every", format!("{} us", nanos / 1_000));
    }
    let back = if args.read_back { "every byte of every record read back" } else { "no record read back" };
    report.checked = format!("every stream acknowledged, complete and as long as written; {back}");
    Ok(report)
}

/// Whether a stream is what was written, by the word of the server.
fn lengths(streams: &Streams, stream: usize, bytes: u64, is_cached: bool, faults: &mut Faults) {
    let expected = bytes.to_string();
    match streams.standing(stream, [STATE, "Stream-Next-Offset", "Stream-Durable-Offset"]) {
        Ok([state, next, durable]) => {
            if next != expected || (durable != expected && !is_cached) {
                faults.note(Kind::Length, || {
                    format!(
                        "stream {stream} has {next} bytes, {durable} of them durable, instead of {expected}"
                    )
                });
            }
            if state != "complete" {
                faults.note(Kind::Refused, || format!("stream {stream} is {state:?}, not complete"));
            }
        }
        Err(why) => faults.note(Kind::Closed, || why),
    }
}

/// Reads every stream.
fn read_back(load: &Load, plan: &Plan, totals: &Arc<Totals>) -> Result<Faults, String> {
    let streams = &plan.streams;
    let makers = (0..load.threads).map(|lane| {
        let (totals, stamps, count) = (totals.clone(), plan.stamps.clone(), totals.count());
        move || {
            let numbers = of_lane(count, lane, load.threads);
            let readers =
                numbers.map(|number| streams.consume(number, number)).collect::<Result<_, String>>()?;
            let (producers, watchers) = (Vec::new(), Vec::new());
            Flow::new(Parts { producers, readers, watchers, stamps, totals, counts: Counts::Delivered })
        }
    });
    let load = Load { warmup: Duration::ZERO, ..load.until_done() };
    run::run(&load, makers.collect()).map(|outcome| outcome.tally.faults)
}

//! `gale tcp`: what the kernel costs before any protocol does: round trips, and bytes one way.
//!
//! Invariant: every byte that comes back is the one that was sent, and every record that comes is checked.

use std::{os::fd::OwnedFd, sync::Arc};

use crate::{
    chance::Chance,
    cli::{
        Load,
        peers::{BulkArgs, PingArgs},
    },
    flow::{Counts, Flow, Parts, Totals, producer, reader, wire::Raw},
    net::Target,
    report::{Report, Words},
    rpc::{self, Heard, Pattern, Protocol},
    run,
    stamp::Stamps,
    stream::of_lane,
    tally::{Faults, Kind},
};

/// Messages are this long at most, since they are copied.
const MESSAGE_MAX: u64 = 16 << 20;

impl PingArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<(Ping, Pattern), String> {
        if !(1..=MESSAGE_MAX).contains(&self.size) {
            return Err(format!("--size: a message has 1 to {MESSAGE_MAX} bytes"));
        }
        let target = Target::new(&self.address, &load.congestion)?;
        let message = Chance::new(load.seed, 0).bytes(self.size as usize).into();
        Ok((Ping { target, message }, self.spread.pattern(load, self.connections, self.pipeline)?))
    }
}

/// Runs `ping`.
pub fn ping(load: &Load, args: &PingArgs, (ping, pattern): &(Ping, Pattern)) -> Result<Report, String> {
    let outcome = rpc::run(load, ping, *pattern, |ping, _| ping)?;
    let mut report = Report::new("tcp ping", &args.address, load, outcome);
    report.say("connections", args.connections);
    report.say("pipeline", args.pipeline);
    report.say("message", format!("{} B", args.size));
    report.words =
        Words { operations: "round trips", latency: "from sending a message to the end of its echo" };
    report.checked = "every byte that came back".into();
    Ok(report)
}

/// Messages that come back.
#[derive(Clone)]
pub struct Ping {
    target: Target,
    message: Arc<[u8]>,
}

/// One connection.
pub struct Link {
    number: usize,
    /// How much of a message has come back.
    at: usize,
}

impl Protocol for Ping {
    type Link = Link;

    fn connect(&mut self, number: usize) -> Result<(OwnedFd, Link), String> {
        Ok((self.target.connect()?, Link { number, at: 0 }))
    }

    fn ask(&mut self, _link: &mut Link, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.message);
    }

    fn hear(&mut self, link: &mut Link, input: &[u8], faults: &mut Faults) -> Heard {
        let mut heard = Heard::default();
        while heard.used < input.len() {
            let expected = &self.message[link.at..];
            let got = &input[heard.used..];
            let len = expected.len().min(got.len());
            if expected[..len] != got[..len] {
                let number = link.number;
                faults.note(Kind::Bytes, || format!("connection {number}: an echo is not what was sent"));
            }
            heard.used += len;
            link.at += len;
            if link.at == self.message.len() {
                link.at = 0;
                heard.answers += 1;
                heard.payload += 2 * self.message.len() as u64;
            }
        }
        heard
    }
}

/// What is to be done in bulk.
pub struct Bulk {
    target: Target,
    stamps: Arc<Stamps>,
}

impl BulkArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Bulk, String> {
        if load.requests.is_some() {
            return Err("how long records are sent is said by --duration, not --requests".into());
        }
        let stamps = Arc::new(Stamps::new(load.seed, self.records.record_size as usize)?);
        Ok(Bulk { target: Target::new(&self.address, &load.congestion)?, stamps })
    }
}

/// Runs `sink`.
pub fn sink(load: &Load, args: &BulkArgs, bulk: &Bulk) -> Result<Report, String> {
    let connections = args.connections as usize;
    let totals = Arc::new(Totals::new(connections));
    let makers = (0..load.threads).map(|lane| {
        let (totals, stamps) = (totals.clone(), bulk.stamps.clone());
        move || {
            let task = |number: usize| {
                Ok(producer::Task {
                    number: number as u32,
                    socket: bulk.target.connect()?,
                    wire: Box::new(Raw),
                    pace: None,
                    group: args.records.group(false),
                    records_max: None,
                    is_watched: false,
                    waits_for_durable: false,
                })
            };
            let producers =
                of_lane(connections, lane, load.threads).map(task).collect::<Result<_, String>>()?;
            let (readers, watchers, counts) = (Vec::new(), Vec::new(), Counts::Acknowledged);
            Flow::new(Parts { producers, readers, watchers, stamps, totals, counts })
        }
    });
    let mut report = Report::new("tcp sink", &args.address, load, run::run(load, makers.collect())?);
    report.say("connections", connections);
    args.records.say(&mut report, None);
    report.words = Words {
        operations: "records, taken by the server when it ended the connection",
        latency: "not measured",
    };
    report.checked = "the server read to the end of every connection".into();
    Ok(report)
}

/// Runs `source`.
pub fn source(load: &Load, args: &BulkArgs, bulk: &Bulk) -> Result<Report, String> {
    let connections = args.connections as usize;
    let totals = Arc::new(Totals::new(1));
    let makers = (0..load.threads).map(|lane| {
        let (totals, stamps) = (totals.clone(), bulk.stamps.clone());
        move || {
            let task = |number| {
                let (socket, wire) = (bulk.target.connect()?, Box::new(Raw));
                // Every connection brings the same stream from its beginning.
                Ok(reader::Task { number, stream: 0, socket, wire, early: Vec::new() })
            };
            let readers =
                of_lane(connections, lane, load.threads).map(task).collect::<Result<_, String>>()?;
            let (producers, watchers, counts) = (Vec::new(), Vec::new(), Counts::Delivered);
            Flow::new(Parts { producers, readers, watchers, stamps, totals, counts })
        }
    });
    let mut report = Report::new("tcp source", &args.address, load, run::run(load, makers.collect())?);
    report.say("connections", connections);
    args.records.say(&mut report, None);
    report.words = Words {
        operations: "records",
        latency: "from the making of a record to the receive that brings its end, with all that lies in buffers",
    };
    report.checked = "every record once, in order, every byte".into();
    Ok(report)
}

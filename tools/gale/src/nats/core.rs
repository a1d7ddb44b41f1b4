//! `gale nats fanout` and `publish`: records through plain subjects, which keep nothing.
//!
//! Invariant: all readers have subscribed before the first record is due; a producer is acknowledged when the server
//! answers the `PING` behind its last record, so has read all of them.

use std::sync::Arc;

use super::{Greeted, Line, line};
use crate::{
    cli::{
        Load,
        peers::{FanoutArgs, PublishArgs},
    },
    flow::{
        Counts, Flow, Parts, Totals, producer, reader,
        wire::{Downstream, Finish, Upstream, Wrong},
    },
    net::Target,
    report::{Report, Words},
    run,
    stamp::Stamps,
    stream::of_lane,
    tally::Kind,
};

/// What is to be done.
pub struct Plan {
    target: Target,
    stamps: Arc<Stamps>,
}

impl FanoutArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Plan, String> {
        if self.readers < self.subjects {
            return Err(format!("{} readers are too few for {} subjects", self.readers, self.subjects));
        }
        Plan::new(load, &self.address, self.records.record_size)
    }
}

impl PublishArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Plan, String> {
        Plan::new(load, &self.address, self.records.record_size)
    }
}

impl Plan {
    fn new(load: &Load, address: &str, record_size: u64) -> Result<Self, String> {
        if load.requests.is_some() {
            return Err("how long records are sent is said by --duration, not --requests".into());
        }
        let stamps = Arc::new(Stamps::new(load.seed, record_size as usize)?);
        Ok(Self { target: Target::new(address, &load.congestion)?, stamps })
    }

    /// One producer for each of so many subjects.
    fn produce(
        &self,
        number: usize,
        of: u64,
        rate: Option<u64>,
        group: usize,
    ) -> Result<producer::Task, String> {
        let wire = Box::new(Up::new(&subject(number), self.stamps.size()));
        Ok(producer::Task {
            number: number as u32,
            socket: Greeted::new(&self.target, &[])?.socket()?,
            wire,
            pace: rate.map(|rate| producer::Pace { rate, part: number as u64, of }),
            group,
            records_max: None,
            is_watched: false,
            waits_for_durable: false,
        })
    }

    fn consume(&self, number: usize, stream: usize) -> Result<reader::Task, String> {
        let socket = Greeted::new(&self.target, &[&subject(stream)])?.socket()?;
        Ok(reader::Task { number, stream, socket, wire: Box::<Down>::default(), early: Vec::new() })
    }
}

fn subject(number: usize) -> String {
    format!("gale.{number}")
}

/// Runs `fanout`.
pub fn fanout(load: &Load, args: &FanoutArgs, plan: &Plan) -> Result<Report, String> {
    let (subjects, readers) = (args.subjects as usize, args.readers as usize);
    let group = args.records.group(true);
    let totals = Arc::new(Totals::new(subjects));
    let makers = (0..load.threads).map(|lane| {
        let (totals, stamps) = (totals.clone(), plan.stamps.clone());
        move || {
            let numbers = of_lane(readers, lane, load.threads);
            let readers = numbers.map(|number| plan.consume(number, number % subjects));
            let readers = readers.collect::<Result<_, String>>()?;
            let producers = of_lane(subjects, lane, load.threads);
            let producers =
                producers.map(|number| plan.produce(number, args.subjects, Some(args.rate), group));
            let producers = producers.collect::<Result<_, String>>()?;
            let (watchers, counts) = (Vec::new(), Counts::Delivered);
            Flow::new(Parts { producers, readers, watchers, stamps, totals, counts })
        }
    });
    let outcome = run::run(load, makers.collect())?;
    let handed = outcome.tally.handed.clone();
    let mut report = Report::new("nats fanout", &args.address, load, outcome);
    report.say("subjects", subjects);
    report.say("readers", readers);
    args.records.say(&mut report, Some(args.rate));
    report.words = Words::of_deliveries();
    report.distributions.push(("since it was made", handed));
    report.checked = "every record once, in order, every byte, to every reader".into();
    Ok(report)
}

/// Runs `publish`.
pub fn publish(load: &Load, args: &PublishArgs, plan: &Plan) -> Result<Report, String> {
    let producers = args.producers as usize;
    let group = args.records.group(args.rate.is_some());
    let totals = Arc::new(Totals::new(producers));
    let makers = (0..load.threads).map(|lane| {
        let (totals, stamps) = (totals.clone(), plan.stamps.clone());
        move || {
            let numbers = of_lane(producers, lane, load.threads);
            let producers = numbers.map(|number| plan.produce(number, args.producers, args.rate, group));
            let producers = producers.collect::<Result<_, String>>()?;
            let (readers, watchers, counts) = (Vec::new(), Vec::new(), Counts::Acknowledged);
            Flow::new(Parts { producers, readers, watchers, stamps, totals, counts })
        }
    });
    let outcome = run::run(load, makers.collect())?;
    let mut report = Report::new("nats publish", &args.address, load, outcome);
    report.say("producers", producers);
    args.records.say(&mut report, args.rate);
    report.words = Words {
        operations: "records, all read by the server when it answered the PING behind them",
        latency: "not measured",
    };
    report.checked = "the server answered the PING behind the last record and complained of nothing".into();
    Ok(report)
}

/// A producer.
pub struct Up {
    /// What comes before every record.
    head: Vec<u8>,
}

impl Up {
    /// Of records of `size` bytes.
    pub fn new(subject: &str, size: usize) -> Self {
        Self { head: format!("PUB {subject} {size}\r\n").into_bytes() }
    }
}

impl Upstream for Up {
    fn before_record(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
    }

    fn after_record(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Finish {
        out.extend_from_slice(b"PING\r\n");
        Finish::Said
    }

    fn hear(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Wrong> {
        let mut at = 0;
        while let Some((line, used)) = line(&input[at..])? {
            at += used;
            match line {
                Line::Ping => out.extend_from_slice(b"PONG\r\n"),
                Line::Pong => return Ok((at, true)),
                Line::Other => {}
                Line::Error(why) => return Err((Kind::Refused, why.into())),
                Line::Message { subject, .. } => {
                    return Err((Kind::Surplus, format!("a message on {subject} for a producer")));
                }
            }
        }
        Ok((at, false))
    }
}

/// A reader: what is left of a message.
#[derive(Default)]
pub struct Down {
    content: usize,
    line_end: usize,
}

impl Downstream for Down {
    fn hear(
        &mut self,
        input: &[u8],
        deliver: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Wrong> {
        let mut at = 0;
        loop {
            let len = self.content.min(input.len() - at);
            deliver(&input[at..at + len]);
            (at, self.content) = (at + len, self.content - len);
            while self.content == 0 && self.line_end > 0 && at < input.len() {
                if input[at] != b"\n\r"[self.line_end - 1] {
                    return Err((Kind::Malformed, "a message is longer than its line says".into()));
                }
                (at, self.line_end) = (at + 1, self.line_end - 1);
            }
            if self.content > 0 || self.line_end > 0 {
                return Ok((at, false));
            }
            let Some((line, used)) = line(&input[at..])? else { return Ok((at, false)) };
            at += used;
            match line {
                Line::Message { len, .. } => (self.content, self.line_end) = (len, 2),
                Line::Ping => out.extend_from_slice(b"PONG\r\n"),
                Line::Pong | Line::Other => {}
                Line::Error(why) => return Err((Kind::Refused, why.into())),
            }
        }
    }

    fn tells_its_end(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whatever_the_pieces() {
        let text = b"MSG gale.0 1 5\r\nhello\r\nPING\r\nMSG gale.0 1 2\r\n\r\n\r\nMSG gale.0 1 0\r\n\r\n";
        for size in 1..=text.len() {
            let (mut down, mut content, mut said) = (Down::default(), Vec::new(), Vec::new());
            let mut held = crate::held::Held::default();
            for piece in text.chunks(size) {
                held.take(piece, |input| {
                    let mut deliver = |bytes: &[u8]| content.extend_from_slice(bytes);
                    let (used, ended) = down.hear(input, &mut deliver, &mut said).expect("good lines");
                    assert!(!ended);
                    (used, ())
                });
            }
            assert_eq!(
                (content.as_slice(), said.as_slice()),
                (&b"hello\r\n"[..], &b"PONG\r\n"[..]),
                "{size}"
            );
            assert!(held.is_empty());
        }
        let mut down = Down::default();
        let wrong = down.hear(b"MSG gale.0 1 2\r\nhello\r\n", &mut |_| {}, &mut Vec::new());
        assert_eq!(wrong.map_err(|(kind, _)| kind), Err(Kind::Malformed));
    }
}

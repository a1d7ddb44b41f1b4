//! `gale topic`: records through topics, to readers that are websockets, whatever server has the topics.
//!
//! Invariant: all readers have subscribed before the first record is due; a record is one message, and a reader gets
//! every message of its topic once, in order and unchanged.

mod micro;
mod nats;
mod nchan;
mod post;

use std::{os::fd::OwnedFd, sync::Arc};

use crate::{
    cli::{
        Load,
        topic::{Speaks, TopicArgs},
    },
    flow::{
        Counts, Flow, Parts, Totals, producer, reader,
        wire::{Downstream, Upstream},
    },
    net::Target,
    report::{Report, Words},
    run,
    stamp::Stamps,
    stream::of_lane,
    ws,
};

/// What is to be done.
pub struct Plan {
    target: Target,
    host: String,
    stamps: Arc<Stamps>,
    speaks: Speaks,
    seed: u64,
}

impl TopicArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Plan, String> {
        self.check(load)?;
        Ok(Plan {
            target: Target::new(&self.address, &load.congestion)?,
            host: self.address.clone(),
            stamps: Arc::new(Stamps::new(load.seed, self.records.record_size as usize)?),
            speaks: self.speaks,
            seed: load.seed,
        })
    }
}

impl Plan {
    fn produce(&self, number: usize, args: &TopicArgs) -> Result<producer::Task, String> {
        let (socket, wire) = match self.speaks {
            Speaks::Micro => self.post(&micro::publish(number))?,
            Speaks::Nchan => self.post(&nchan::publish(number))?,
            Speaks::Nats => nats::produce(self, number)?,
        };
        let pace = args.rate.map(|rate| producer::Pace { rate, part: number as u64, of: args.topics });
        Ok(producer::Task {
            number: number as u32,
            socket,
            wire,
            pace,
            group: args.group(),
            records_max: None,
            is_watched: false,
            waits_for_durable: false,
        })
    }

    /// A producer whose every record is a request.
    fn post(&self, path: &str) -> Result<(OwnedFd, Box<dyn Upstream>), String> {
        let wire = post::Post::new(path, &self.host, self.stamps.size());
        Ok((self.target.connect()?, Box::new(wire)))
    }

    fn consume(&self, number: usize, topic: usize) -> Result<reader::Task, String> {
        let opened = match self.speaks {
            Speaks::Micro => self.open(&micro::subscribe(topic), number)?,
            Speaks::Nchan => self.open(&nchan::subscribe(topic), number)?,
            Speaks::Nats => nats::subscribed(self, number, topic)?,
        };
        let (fd, socket, early) = opened.into_parts()?;
        let size = self.stamps.size();
        let wire: Box<dyn Downstream> = match self.speaks {
            Speaks::Micro => Box::new(micro::Down::new(socket, size)),
            Speaks::Nchan => Box::new(nchan::Down::new(socket, size)),
            Speaks::Nats => nats::down(socket),
        };
        Ok(reader::Task { number, stream: topic, socket: fd, wire, early })
    }

    fn open(&self, path: &str, number: usize) -> Result<ws::Opened, String> {
        ws::open(&self.target, &self.host, path, self.seed, number)
    }
}

/// Runs the mode.
pub fn run(load: &Load, args: &TopicArgs, plan: &Plan) -> Result<Report, String> {
    let (topics, readers) = (args.topics as usize, args.readers as usize);
    let totals = Arc::new(Totals::new(topics));
    let makers = (0..load.threads).map(|lane| {
        let (totals, stamps) = (totals.clone(), plan.stamps.clone());
        move || {
            let numbers = of_lane(readers, lane, load.threads);
            let readers = numbers.map(|number| plan.consume(number, number % topics));
            let readers = readers.collect::<Result<_, String>>()?;
            let producers = of_lane(topics, lane, load.threads);
            let producers =
                producers.map(|number| plan.produce(number, args)).collect::<Result<_, String>>()?;
            let (watchers, counts) = (Vec::new(), Counts::Delivered);
            let flow = Flow::new(Parts { producers, readers, watchers, stamps, totals, counts })?;
            Ok(match args.window {
                Some(window) => flow.with_window(window),
                None => flow,
            })
        }
    });
    let outcome = run::run(load, makers.collect())?;
    let handed = outcome.tally.handed.clone();
    let mut report = Report::new("topic", &args.address, load, outcome);
    report.say("speaks", args.speaks.name());
    report.say("topics", topics);
    report.say("readers", readers);
    report.say("record", format!("{} B", args.records.record_size));
    report.say("records per write", args.group());
    match (args.rate, args.window) {
        (Some(rate), _) => report.say("rate", format!("{rate}/s")),
        (_, window) => report.say("window", window.unwrap_or_default()),
    }
    report.words = Words::of_deliveries();
    report.distributions.push(("since it was made", handed));
    report.checked = format!(
        "every record one message, once, in order, every byte, to every reader; {}",
        plan.speaks.checked()
    );
    Ok(report)
}

/// What a topic of this number is called.
fn name(topic: usize) -> String {
    format!("gale-{topic}")
}

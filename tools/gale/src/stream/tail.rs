//! `gale stream tail`: readers that follow producers, and how late they are.
//!
//! Invariant: all streams are begun before the first reader comes, and all readers follow before the first record is
//! due.

use std::sync::Arc;

use super::{of_lane, streams, wire::Streams};
use crate::{
    cli::{Load, TailArgs},
    flow::{Counts, Flow, Parts, Totals, producer},
    report::{Report, Words},
    run,
    stamp::Stamps,
};

/// What is to be done.
pub struct Plan {
    streams: Streams,
    stamps: Arc<Stamps>,
}

impl TailArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Plan, String> {
        self.check(load.requests)?;
        Ok(Plan { streams: streams(load, &self.stream)?, stamps: Arc::new(self.stream.stamps(load.seed)?) })
    }
}

/// Runs the mode.
pub fn run(load: &Load, args: &TailArgs, plan: &Plan) -> Result<Report, String> {
    let Plan { streams, stamps } = plan;
    let (count, readers) = (args.streams as usize, args.readers as usize);
    let group = args.stream.records.group(true);
    let totals = Arc::new(Totals::new(count));
    let mut lanes: Vec<Vec<producer::Task>> = (0..load.threads).map(|_| Vec::new()).collect();
    for number in 0..count {
        let (socket, wire) = streams.produce(number, None)?;
        lanes[number % load.threads].push(producer::Task {
            number: number as u32,
            socket,
            wire,
            pace: Some(producer::Pace { rate: args.rate, part: number as u64, of: args.streams }),
            group,
            records_max: None,
            is_watched: false,
            waits_for_durable: false,
        });
    }
    let makers = lanes.into_iter().enumerate().map(|(lane, producers)| {
        let (totals, stamps) = (totals.clone(), stamps.clone());
        move || {
            let numbers = of_lane(readers, lane, load.threads);
            let readers = numbers.map(|number| streams.consume(number, number % count));
            let readers = readers.collect::<Result<_, String>>()?;
            Flow::new(Parts {
                producers,
                readers,
                watchers: Vec::new(),
                stamps,
                totals,
                counts: Counts::Delivered,
            })
        }
    });
    let outcome = run::run(load, makers.collect())?;
    let handed = outcome.tally.handed.clone();
    let mut report = Report::new("stream tail", &args.stream.url, load, outcome);
    report.say("streams", count);
    report.say("readers", readers);
    args.stream.records.say(&mut report, Some(args.rate));
    report.words = Words::of_deliveries();
    report.distributions.push(("since it was made", handed));
    report.checked = "every record once, in order, every byte, to every reader; every stream complete".into();
    Ok(report)
}

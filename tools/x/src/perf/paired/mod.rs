//! Runs against other servers, in pairs: ours, theirs, ours, theirs, on the same core under the same load.
//!
//! A scenario is one file beside this one: a function that starts servers with [`Bench::pond`] and
//! [`peer`], and calls [`Bench::compare`] for each of its cases; a line in `SCENARIOS` of
//! [`perf`](super) makes `cargo x perf NAME` of it. [`small`] is the one to imitate. What a side does is one line of
//! words for gale, to which duration, cores, the server's processes and the rate are added here; a load that gale
//! does not have is a function ([`Load::Custom`], as in [`cold`]). A new peer is a few lines in [`peer`] and its
//! configuration in `perf/peers`.
//!
//! Invariant: a round whose answers were not checked, or not right, ends the run; a case whose peer was unsteady is
//! thrown away whole and measured again, and says so if that did not help.

pub mod append;
pub mod blob;
pub mod called;
mod ceilings;
pub mod cold;
mod gale;
pub mod joined;
pub mod modules;
pub mod peer;
pub mod read;
pub mod s3;
pub mod small;
pub mod tail;
pub mod topics;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    options::Options,
    record::{Bound, RATIO, Record, median, sorted},
};
use crate::{
    cpu,
    daemon::{Daemon, Scratch, Setup},
};
pub use gale::Measures;
use peer::Peer;

/// Where servers run.
pub const SERVER_CORE: usize = 0;
/// Where load comes from.
pub const LOAD_CORE: usize = 1;
const ROUNDS: u32 = 7;
const SECONDS: u64 = 5;
/// A peer whose rounds differ by more than this part of their median tells nothing about us.
const SPREAD_MAX: f64 = 0.15;
/// How often a case is measured until its peer is steady.
const ATTEMPTS: u32 = 3;
/// Part of the slower side's most at which delays are compared.
const PACE: f64 = 0.6;

/// What a scenario works with.
pub struct Bench<'a> {
    root: &'a Path,
    options: &'a Options,
    record: Record,
    scratch: Scratch,
    ponds: usize,
}

/// One of those that are compared.
pub struct Side<'a> {
    name: String,
    pids: Vec<u32>,
    load: Load<'a>,
}

/// What a side is measured with.
pub enum Load<'a> {
    /// Words for gale, separated by spaces.
    Gale(String),
    /// Something else; it may use gale for a part of it.
    Custom(Box<Measure<'a>>),
}

/// Loads a server in its own way, for as long as it is told.
type Measure<'a> = dyn FnMut(&Gale<'_>) -> io::Result<Measures> + 'a;

/// How gale is run in this round.
pub struct Gale<'a> {
    binary: &'a Path,
    scratch: &'a Path,
    pids: &'a [u32],
    /// Length of the window.
    pub seconds: u64,
}

/// What is compared, and what the ratio of ours to theirs must be.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    measure: &'static str,
    /// Nothing, where the ratio is told and held against nothing.
    bound: Option<Bound>,
}

impl Goal {
    /// Ours must be so many times theirs, or more.
    pub fn at_least(measure: &'static str, ratio: f64) -> Self {
        Self { measure, bound: Some(Bound::AtLeast(ratio)) }
    }

    /// Ours must be so many times theirs, or less.
    pub fn at_most(measure: &'static str, ratio: f64) -> Self {
        Self { measure, bound: Some(Bound::AtMost(ratio)) }
    }

    /// The ratio is of interest.
    pub fn told(measure: &'static str) -> Self {
        Self { measure, bound: None }
    }
}

/// What can be compared, as gale calls it; [`Measures`] hold these.
pub const MEASURES: &[(&str, &str)] = &[
    ("operations/s", "1/s"),
    ("payload/s", "B/s"),
    ("server CPU per operation", "us"),
    ("server CPU per GiB", "s"),
    ("server CPU", "cores"),
    ("p50", "us"),
    ("p99", "us"),
    ("p99.9", "us"),
    ("gale busiest thread", "%"),
];

/// Measures what `cases` compares.
pub fn run(
    root: &Path,
    options: &Options,
    record: Record,
    cases: fn(&mut Bench<'_>) -> io::Result<()>,
) -> io::Result<Record> {
    let mut bench = Bench { root, options, record, scratch: Scratch::new()?, ponds: 0 };
    bench.record.remark(format!(
        "Servers on core {SERVER_CORE} with one shard, worker or thread each, load by gale on core {LOAD_CORE}; the order \
         changes from pair to pair. A ratio is ours to theirs of one pair. CPU is that of all threads of the server, \
         workers of the kernel for it included."
    ));
    let host = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    bench
        .record
        .remark(format!("Congestion control: {} by the host, unless a case says otherwise.", host.trim()));
    ceilings::measure(&mut bench)?;
    cases(&mut bench)?;
    bench
        .record
        .checked("every answer of every round: status, length, and content or order as far as gale was told");
    Ok(bench.record)
}

impl<'a> Bench<'a> {
    /// A daemon of one shard on the servers' core, in a directory of its own; `set` changes how it is started.
    pub fn pond(&mut self, set: impl FnOnce(&mut Setup)) -> io::Result<Daemon> {
        let data = self.scratch.path().join(format!("pond-{}", self.ponds));
        self.ponds += 1;
        let mut setup = Setup::new(&self.root.join("target/release/millpond"), &data);
        (setup.shards, setup.core) = (1, Some(SERVER_CORE));
        set(&mut setup);
        setup.start()
    }

    /// A directory for what peers need.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.scratch.path().join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The configuration of a peer.
    pub fn peer_file(&self, name: &str) -> PathBuf {
        self.root.join("perf/peers").join(name)
    }

    /// Says something that a reader of the numbers must know.
    pub fn remark(&mut self, what: impl Into<String>) {
        self.record.remark(what);
    }

    /// Runs gale once, for what has to be there or to be right before anything is measured.
    pub fn once(&self, words: &str) -> io::Result<()> {
        let binary = self.root.join("target/release/gale");
        Gale { binary: &binary, scratch: self.scratch.path(), pids: &[], seconds: 0 }.run(words).map(drop)
    }

    /// Compares the first side with the best of the others, by the measure of the first goal.
    ///
    /// The others are one peer in all settings that might be its best: which it is, a short trial tells. With `paced`,
    /// delays are measured too, at a rate that both can take.
    pub fn compare(
        &mut self,
        case: &str,
        mut sides: Vec<Side<'_>>,
        goals: &[Goal],
        paced: bool,
    ) -> io::Result<()> {
        if !self.is_wanted(case) {
            return Ok(());
        }
        self.keep_best(&mut sides, goals[0])?;
        let [ours, theirs] = &mut sides[..] else {
            panic!("a case has a side of ours and one of theirs at least")
        };
        let mut attempt = 1;
        let rounds = loop {
            let rounds = self.pairs(case, ours, theirs)?;
            let spread = spread(&rounds, goals[0].measure);
            if spread <= SPREAD_MAX || attempt == ATTEMPTS || self.options.short {
                let what = format!("{case}: spread of {}", theirs.name);
                self.record.hold_value(what, spread, Bound::AtMost(SPREAD_MAX), "");
                break rounds;
            }
            println!("{case}: thrown away, because {} spread by {:.0} %", theirs.name, 100.0 * spread);
            attempt += 1;
        };
        self.note_limit_of_gale(case, &rounds);
        for (number, [our, their]) in rounds.iter().enumerate() {
            self.record.add(&format!("{case}; {}", ours.name), number as u32, &our.list());
            self.record.add(&format!("{case}; {}", theirs.name), number as u32, &their.list());
            let ratios =
                goals.iter().map(|goal| (goal.measure, RATIO, our.of(goal.measure) / their.of(goal.measure)));
            let ratios: Vec<_> = ratios.collect();
            self.record.add(&format!("{case}; {} : {}", ours.name, theirs.name), number as u32, &ratios);
        }
        let pair = format!("{case}; {} : {}", ours.name, theirs.name);
        self.hold(&pair, goals);
        if paced {
            self.pace(case, ours, theirs, &rounds)?;
        }
        Ok(())
    }

    /// Measures ours alone, against limits that are no ratios.
    pub fn alone(&mut self, case: &str, mut side: Side<'_>, limits: &[Goal]) -> io::Result<()> {
        if !self.is_wanted(case) {
            return Ok(());
        }
        let name = format!("{case}; {}", side.name);
        for number in 0..self.rounds() {
            let measures = self.round(&mut side, self.seconds(), None)?;
            self.record.round(&name, number, &measures.list());
        }
        self.hold(&name, limits);
        Ok(())
    }

    fn hold(&mut self, rows: &str, goals: &[Goal]) {
        for goal in goals {
            if let Some(bound) = goal.bound {
                self.record.hold_median(rows, goal.measure, bound);
            }
        }
    }

    fn is_wanted(&self, case: &str) -> bool {
        self.options.case.as_ref().is_none_or(|wanted| case.contains(wanted.as_str()))
    }

    fn rounds(&self) -> u32 {
        self.options.rounds(ROUNDS, 2)
    }

    fn seconds(&self) -> u64 {
        self.options.seconds(SECONDS, 1)
    }

    /// Leaves of the others only the best.
    fn keep_best(&self, sides: &mut Vec<Side<'_>>, by: Goal) -> io::Result<()> {
        let less_is_better = matches!(by.bound, Some(Bound::AtMost(_)));
        let mut best: Option<(usize, f64)> = None;
        for number in 1..sides.len() {
            if sides.len() == 2 {
                return Ok(());
            }
            let value = self.round(&mut sides[number], 1, None)?.of(by.measure);
            println!("trial of {}: {} {value:.0}", sides[number].name, by.measure);
            if best.is_none_or(|(_, best)| (value < best) == less_is_better) {
                best = Some((number, value));
            }
        }
        let (best, _) = best.expect("there is a peer");
        let chosen = sides.swap_remove(best);
        sides.truncate(1);
        sides.push(chosen);
        Ok(())
    }

    fn pairs(
        &self,
        case: &str,
        ours: &mut Side<'_>,
        theirs: &mut Side<'_>,
    ) -> io::Result<Vec<[Measures; 2]>> {
        let mut rounds = Vec::new();
        for number in 0..self.rounds() {
            let pair = match number % 2 {
                0 => {
                    let our = self.round(ours, self.seconds(), None)?;
                    [our, self.round(theirs, self.seconds(), None)?]
                }
                _ => {
                    let their = self.round(theirs, self.seconds(), None)?;
                    [self.round(ours, self.seconds(), None)?, their]
                }
            };
            println!("{case}, pair {number}: {} | {}", pair[0].line(), pair[1].line());
            rounds.push(pair);
        }
        Ok(rounds)
    }

    fn pace<'s>(
        &mut self,
        case: &str,
        ours: &mut Side<'s>,
        theirs: &mut Side<'s>,
        rounds: &[[Measures; 2]],
    ) -> io::Result<()> {
        let most = |side: usize| median(&sorted(rounds.iter().map(|pair| pair[side].of("operations/s"))));
        let rate = (PACE * most(0).min(most(1))) as u64;
        for side in [ours, theirs] {
            let measures = self.round(side, self.seconds(), Some(rate))?;
            self.record.round(&format!("{case} at {rate}/s; {}", side.name), 0, &measures.list());
        }
        Ok(())
    }

    fn round(&self, side: &mut Side<'_>, seconds: u64, rate: Option<u64>) -> io::Result<Measures> {
        let binary = self.root.join("target/release/gale");
        let gale = Gale { binary: &binary, scratch: self.scratch.path(), pids: &side.pids, seconds };
        match &mut side.load {
            Load::Gale(words) => match rate {
                None => gale.run(words),
                Some(rate) => gale.run(&format!("{words} --rate {rate}")),
            },
            Load::Custom(measure) => measure(&gale),
        }
        .map_err(|why| io::Error::other(format!("{}: {why}", side.name)))
    }

    fn note_limit_of_gale(&mut self, case: &str, rounds: &[[Measures; 2]]) {
        let busy =
            |side: usize| rounds.iter().filter(|pair| pair[side].of("gale busiest thread") > 95.0).count();
        let [ours, theirs] = [busy(0), busy(1)];
        if ours + theirs > 0 {
            self.record.remark(format!(
                "{case}: gale's core was full in {ours} rounds of ours and {theirs} of theirs, so that throughput says \
                 less than CPU there."
            ));
        }
    }
}

impl<'a> Side<'a> {
    /// Our daemon under gale.
    pub fn pond(daemon: &Daemon, words: String) -> Self {
        Self { name: "millpond".into(), pids: vec![daemon.pid()], load: Load::Gale(words) }
    }

    /// One of the doors of our daemon under gale, where doors are compared.
    pub fn door(daemon: &Daemon, name: &str, words: String) -> Self {
        Self { name: name.into(), ..Self::pond(daemon, words) }
    }

    /// A peer under gale.
    pub fn peer(peer: &Peer, name: &str, words: String) -> Self {
        Self { name: name.into(), pids: peer.pids().to_vec(), load: Load::Gale(words) }
    }

    /// The same server under another load.
    pub fn under(self, measure: impl FnMut(&Gale<'_>) -> io::Result<Measures> + 'a) -> Self {
        Self { load: Load::Custom(Box::new(measure)), ..self }
    }
}

/// By how much the peer's rounds differ, as a part of their median.
fn spread(rounds: &[[Measures; 2]], measure: &str) -> f64 {
    let values = sorted(rounds.iter().map(|pair| pair[1].of(measure)));
    (values[values.len() - 1] - values[0]) / median(&values)
}

/// Starts something on the load's core.
pub fn on_load_core<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    cpu::pinned_to(Some(LOAD_CORE), start)
}

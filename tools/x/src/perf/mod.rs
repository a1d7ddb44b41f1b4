//! `cargo x perf`: measured runs over a release daemon of our own, and what is kept of them.
//!
//! Invariant: a run that found a wrong byte leaves no record; one that missed a limit leaves it and fails.

mod fanout;
mod hop;
mod idle;
mod logpipe;
pub mod machine;
pub mod options;
pub mod record;

use std::{io, path::Path};

use crate::command;
use machine::Machine;
use options::Options;
use record::Record;

/// What can be measured.
struct Scenario {
    name: &'static str,
    about: &'static str,
    run: fn(&Path, &Options) -> io::Result<Record>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "logpipe",
        about: "real log text through `millpond pipe` to three live `millpond tail`, with a SIGKILL half-way",
        run: logpipe::run,
    },
    Scenario {
        name: "fanout",
        about: "one stream to 1,000 and to 100 live readers: delay, CPU per delivery, memory, a paused reader",
        run: fanout::run,
    },
    Scenario {
        name: "idle",
        about: "what a daemon costs that has nothing to do, and how soon it serves",
        run: idle::run,
    },
    Scenario {
        name: "hop",
        about: "a message from shard to shard, between shards at rest and under load",
        run: hop::run,
    },
];

/// One line per scenario.
pub fn list() {
    for scenario in SCENARIOS {
        println!("{:10} {}", scenario.name, scenario.about);
    }
    println!("{}", options::USAGE);
}

/// Measures the scenario of this name.
pub fn measure(root: &Path, name: &str, words: &[&str]) -> Result<(), String> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there is no scenario {name:?}; there are {}", names.join(", "))
    })?;
    let options = Options::of(words)?;
    command("cargo", &["build", "--release"])?;
    let told = |why: io::Error| format!("{name}: {why}");
    let command_line = format!("cargo x perf {name} {}", words.join(" "));
    let machine = Machine::prepare(options.record).map_err(told)?;
    let record = (scenario.run)(root, &options).map_err(told)?;
    record.keep(root, options.record, command_line.trim_end(), &machine).map_err(told)
}

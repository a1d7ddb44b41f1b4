//! `cargo x perf`: measured runs over a release daemon of our own, and what is kept of them.
//!
//! Invariant: a run that found a wrong byte leaves no record; one that missed a limit leaves it and fails.

mod fanout;
pub mod fill;
mod hop;
mod idle;
mod joined_idle;
mod list_names;
mod logpipe;
pub mod machine;
pub mod options;
mod paired;
mod plot;
pub mod record;
mod restart;

use std::{io, path::Path};

use crate::command;
use machine::Machine;
use options::Options;
use paired::Bench;
use record::Record;

/// What can be measured.
struct Scenario {
    name: &'static str,
    about: &'static str,
    run: Run,
}

enum Run {
    /// By its own means.
    Alone(fn(&Path, &Options) -> io::Result<Record>),
    /// In pairs with other servers; see [`paired`]. The first is the title.
    Paired(&'static str, fn(&mut Bench<'_>) -> io::Result<()>),
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "logpipe",
        about: "real log text through `millpond pipe` to three live `millpond tail`, with a SIGKILL half-way",
        run: Run::Alone(logpipe::run),
    },
    Scenario {
        name: "fanout",
        about: "one stream to 1,000 and to 100 live readers: delay, CPU per delivery, memory, a paused reader",
        run: Run::Alone(fanout::run),
    },
    Scenario {
        name: "idle",
        about: "what a daemon costs that has nothing to do, and how soon it serves",
        run: Run::Alone(idle::run),
    },
    Scenario {
        name: "hop",
        about: "a message from shard to shard, between shards at rest and under load",
        run: Run::Alone(hop::run),
    },
    Scenario {
        name: "small",
        about: "small fixed answers on 1, 8 and 64 connections, against nginx",
        run: Run::Paired("Small fixed answers", paired::small::answers),
    },
    Scenario {
        name: "pipelined",
        about: "small fixed answers, 16 requests under way on each connection, against nginx",
        run: Run::Paired("Pipelined requests", paired::small::pipelined),
    },
    Scenario {
        name: "append",
        about: "records into streams, acknowledged from the page cache, against redis XADD and NATS JetStream",
        run: Run::Paired("Appending, page cache", paired::append::cached),
    },
    Scenario {
        name: "append-synced",
        about: "records into streams, acknowledged from the disk, against redis XADD with appendfsync always",
        run: Run::Paired("Appending, synced", paired::append::synced),
    },
    Scenario {
        name: "tail",
        about: "one stream to 100 live readers at 5,000 records/s, against NATS core",
        run: Run::Paired("Many readers of one stream", paired::tail::fan_out),
    },
    Scenario {
        name: "topics",
        about: "one topic to 1,000 websockets, against Nchan (nginx) and NATS through websockets",
        run: Run::Paired("Many websockets on one topic", paired::topics::fan_out),
    },
    Scenario {
        name: "read-short",
        about: "complete streams of 1 KiB and 64 KiB, against nginx and static files",
        run: Run::Paired("Reading short streams", paired::read::short),
    },
    Scenario {
        name: "read-long",
        about: "complete streams of 64 MiB and 1 GiB, against nginx under the same congestion control",
        run: Run::Paired("Reading long streams", paired::read::long),
    },
    Scenario {
        name: "read-host",
        about: "complete streams of 64 MiB and 1 GiB, against nginx with the host's congestion control",
        run: Run::Paired("Reading long streams, each as it comes", paired::read::host),
    },
    Scenario {
        name: "modules",
        about: "blobs of 1 KiB read and written through ion, against vblob and loom in the same daemon",
        run: Run::Paired("Blobs of modules", paired::modules::blobs),
    },
    Scenario {
        name: "blob-get",
        about: "files of 1 KiB to 1 GiB through vblob over many keys, against nginx and static files",
        run: Run::Paired("Reading files", paired::blob::get),
    },
    Scenario {
        name: "blob-put",
        about: "files of 1 KiB, 64 KiB and 64 MiB replaced through vblob, against nginx's DAV module",
        run: Run::Paired("Writing files", paired::blob::put),
    },
    Scenario {
        name: "s3-small",
        about: "signed objects of 1 KiB read and written over S3, against s3s-fs",
        run: Run::Paired("Small objects over S3", paired::s3::small),
    },
    Scenario {
        name: "s3-large",
        about: "signed objects of 64 MiB read and written over S3, whole and in parts, against s3s-fs",
        run: Run::Paired("Large objects over S3", paired::s3::large),
    },
    Scenario {
        name: "joined",
        about: "bytes through [[proxy]] on 1, 4 and 16 connections, against HAProxy (splice), nginx stream and socat",
        run: Run::Paired("Joined sockets, bulk", paired::joined::bulk),
    },
    Scenario {
        name: "joined-messages",
        about: "messages of 100 B and 4 KiB through [[proxy]] and back, against HAProxy (splice), nginx stream and socat",
        run: Run::Paired("Joined sockets, messages", paired::joined::messages),
    },
    Scenario {
        name: "joined-idle",
        about: "memory and CPU of 10,000 joined pairs of sockets at rest",
        run: Run::Alone(joined_idle::run),
    },
    Scenario {
        name: "called",
        about: "1 KiB passed on to a service and back on 1, 16 and 64 connections, against HAProxy (HTTP) and Envoy",
        run: Run::Paired("Requests passed on to a service", paired::called::on),
    },
    Scenario {
        name: "cold",
        about: "small answers beside a reader of 1 GiB that is not in memory, against nginx",
        run: Run::Paired("The neighbour of a cold read", paired::cold::neighbour),
    },
    Scenario {
        name: "restart",
        about: "how soon a daemon serves that has a million names, after an orderly stop and after SIGKILL",
        run: Run::Alone(restart::run),
    },
    Scenario {
        name: "list-names",
        about: "what a page of a listing costs among a million names",
        run: Run::Alone(list_names::run),
    },
];

/// One line per scenario.
pub fn list() {
    for scenario in SCENARIOS {
        println!("{:13} {}", scenario.name, scenario.about);
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
    // One after the other: together they would be built with each other's features.
    command("cargo", &["build", "--release"])?;
    if matches!(scenario.run, Run::Paired(..)) {
        command("cargo", &["build", "--release", "--package", "gale"])?;
    }
    let told = |why: io::Error| format!("{name}: {why}");
    let command_line = format!("cargo x perf {name} {}", words.join(" "));
    let machine = Machine::prepare(options.record).map_err(told)?;
    let record = match scenario.run {
        Run::Alone(run) => run(root, &options),
        Run::Paired(title, cases) => paired::run(
            root,
            &options,
            Record::new(scenario.name, title, format!("Measures {}.", scenario.about)),
            cases,
        ),
    };
    record.map_err(told)?.keep(root, options.record, command_line.trim_end(), &machine).map_err(told)
}

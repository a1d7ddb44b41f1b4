//! What a daemon costs that has nothing to do, alone and with a thousand silent connections.
//!
//! Invariant: nothing is sent to the daemon while its CPU time is counted.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use super::{machine::pass, options::Options, record::Record};
use crate::{
    cpu::{Memory, Thread, Usage, threads},
    daemon::{Daemon, Scratch, Setup},
    http::{Head, PATIENCE},
};

const SHARDS: usize = 2;
const CONNECTIONS: usize = 1_000;
/// Between the last work and the first look.
const REST: Duration = Duration::from_secs(2);

/// Starts, idles, idles with connections.
pub fn run(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "idle",
        "An idle daemon",
        "Shows what two shards cost that have nothing in flight, what silent connections add, and how soon a \
         start serves.",
    );
    let binary = root.join("target/release/millpond");
    let time = Duration::from_secs(options.seconds(10, 2));
    record
        .remark(format!("{SHARDS} shards, `durability = \"sync\"`, not pinned; CPU counted over {time:?}."));
    record.remark(
        "CPU is user and system time in clock ticks of 10 ms, and nanoseconds by the scheduler's books per thread; \
         a shard is the threads of its name and the kernel's workers of its rings.",
    );
    starts(&mut record, &binary, options.rounds(20, 3))?;
    for round in 0..options.rounds(3, 1) {
        let scratch = Scratch::new()?;
        let daemon = Setup { shards: SHARDS, ..Setup::new(&binary, &scratch.data()) }.start()?;
        idle(&mut record, "nothing in flight", round, &daemon, time)?;
        let connections = (0..CONNECTIONS).map(|_| silent(daemon.loom())).collect::<io::Result<Vec<_>>>()?;
        idle(&mut record, "1000 connections", round, &daemon, time)?;
        for mut connection in connections {
            ask(&mut connection)?;
        }
        daemon.stop()?;
    }
    record.checked(format!("every one of the {CONNECTIONS} connections still answered after the silence"));
    record.checked("the daemon left by itself after SIGTERM, with exit code 0");
    record.largest_at_most("nothing in flight", "clock ticks", 0.0);
    record.largest_at_most("1000 connections", "busiest shard", 5.0);
    Ok(record)
}

fn starts(record: &mut Record, binary: &Path, rounds: u32) -> io::Result<()> {
    for round in 0..rounds {
        let scratch = Scratch::new()?;
        let setup = Setup { shards: SHARDS, ..Setup::new(binary, &scratch.data()) };
        for case in ["start on nothing", "start after a clean stop"] {
            let daemon = setup.start()?;
            record.round(case, round, &[("ready line", "ms", 1e3 * daemon.start_time().as_secs_f64())]);
            daemon.stop()?;
        }
        let daemon = setup.start()?;
        daemon.kill()?;
        let daemon = setup.start()?;
        record.round(
            "start after SIGKILL",
            round,
            &[("ready line", "ms", 1e3 * daemon.start_time().as_secs_f64())],
        );
    }
    Ok(())
}

fn idle(record: &mut Record, case: &str, round: u32, daemon: &Daemon, time: Duration) -> io::Result<()> {
    pass(REST);
    let (before, shards) = (Usage::of(daemon.pid())?, by_shard(daemon.pid())?);
    pass(time);
    let used = Usage::of(daemon.pid())?.since(before);
    let busiest = by_shard(daemon.pid())?
        .into_iter()
        .map(|(shard, nanos)| nanos - shards.get(&shard).copied().unwrap_or_default())
        .max();
    let memory = Memory::of(daemon.pid())?;
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    record.round(
        case,
        round,
        &[
            ("clock ticks", "ticks", used.ticks as f64),
            ("CPU", "ms", millis(used.nanos)),
            ("busiest shard", "ms", millis(busiest.unwrap_or_default())),
            ("context switches", "switches", used.switches as f64),
            ("RssAnon", "MiB", mib(memory.anon)),
            ("VmRSS without RssFile", "MiB", mib(memory.not_file)),
        ],
    );
    Ok(())
}

/// Time on a CPU of each shard: its threads and the kernel's workers that its rings have.
fn by_shard(pid: u32) -> io::Result<BTreeMap<String, u64>> {
    let threads = threads(pid)?;
    let mut shards = BTreeMap::new();
    for Thread { name, nanos, .. } in threads {
        let worker = name.strip_prefix("iou-wrk-").and_then(|tid| {
            fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok().map(|name| name.trim().to_owned())
        });
        let name = worker.unwrap_or(name);
        if name.starts_with("shard") {
            *shards.entry(name).or_default() += nanos;
        }
    }
    Ok(shards)
}

/// A connection that asked once and keeps quiet from then on.
fn silent(address: &str) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    ask(&mut connection)?;
    Ok(connection)
}

fn ask(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(b"HEAD /stream/absent HTTP/1.1\r\nhost: x\r\n\r\n")?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        match connection.read(&mut buffer[filled..])? {
            0 => return Err(io::Error::other("a silent connection was closed")),
            len => filled += len,
        }
        match Head::read(&buffer[..filled]) {
            None => {}
            Some((head, len)) if head.status == 404 && len == filled => return Ok(()),
            Some((head, _)) => {
                return Err(io::Error::other(format!("HEAD was answered {} and a body", head.status)));
            }
        }
    }
}

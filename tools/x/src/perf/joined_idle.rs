//! What a joined pair of sockets costs a daemon while nothing moves: memory, and CPU.
//!
//! Each connection has moved bytes both ways once before it rests, half of them so many that they went through a pipe.
//! The kernel's memory for the sockets is not the daemon's and does not count. Invariant: nothing is sent while memory
//! and CPU are looked at, and every connection still works after that.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{machine::pass, options::Options, paired::joined::Backend, record::Record};
use crate::{
    cpu::{Memory, Usage},
    daemon::{Daemon, Scratch, Setup},
    http::PATIENCE,
};

/// Joined pairs, where the limit of open files allows as many.
const PAIRS: u64 = 10_000;
/// Descriptors of a process that belong to none of them.
const OTHERS: u64 = 200;
/// Moved on every second connection: more than is copied.
const MUCH: usize = 256 * 1024;
const REST: Duration = Duration::from_secs(2);

/// Opens them, lets them rest, and looks.
pub fn run(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "joined-idle",
        "Joined sockets at rest",
        "Shows how much memory and CPU a daemon has for each pair of joined sockets through which nothing moves.",
    );
    let limit = raised_limit();
    let pairs = PAIRS.min(limit.saturating_sub(OTHERS) / 2);
    let pairs = if options.short { pairs.min(500) } else { pairs };
    record.remark(format!(
        "{pairs} pairs, TCP to a unix socket, one shard; a process may open {limit} files here, of which a pair takes two."
    ));
    record.remark(format!(
        "Before they rest, each has moved 100 B there and back, every second one {} KiB.",
        MUCH >> 10
    ));
    crate::command("cargo", &["build", "--release", "--package", "gale"]).map_err(io::Error::other)?;
    for round in 0..options.rounds(3, 1) {
        let scratch = Scratch::new()?;
        let (daemon, _backend) = start(root, &scratch)?;
        let address = daemon.address("proxy").expect("it has one").to_owned();
        let mut warm = connect(&address)?;
        move_bytes(&mut warm, MUCH)?;
        drop(warm);
        pass(REST);
        let before = Memory::of(daemon.pid())?;
        let mut connections = Vec::new();
        for number in 0..pairs {
            let mut connection = connect(&address)?;
            move_bytes(&mut connection, if number % 2 == 0 { 100 } else { MUCH })?;
            connections.push(connection);
        }
        pass(REST);
        let (after, used) = (Memory::of(daemon.pid())?, Usage::of(daemon.pid())?);
        let time = Duration::from_secs(options.seconds(10, 2));
        pass(time);
        let used = Usage::of(daemon.pid())?.since(used);
        let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / pairs as f64;
        record.round(
            "at rest",
            round,
            &[
                ("RssAnon per pair", "B", each(before.anon, after.anon)),
                ("VmRSS without RssFile per pair", "B", each(before.not_file, after.not_file)),
                ("CPU in 10 s", "ms", used.nanos as f64 / 1e6 * 10.0 / time.as_secs_f64()),
            ],
        );
        for connection in &mut connections {
            move_bytes(connection, 100)?;
        }
        drop(connections);
        daemon.stop()?;
    }
    record.checked("every byte came back, before and after the rest");
    record.largest_at_most("at rest", "VmRSS without RssFile per pair", 4096.0);
    Ok(record)
}

/// How many files a process may open: this one, and those that it starts. Who may raise the limit for good does.
fn raised_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 2 * PAIRS + OTHERS;
    let enough = Rlimit { current: Some(wanted), maximum: Some(wanted) };
    if limit.maximum.is_none_or(|maximum| maximum >= wanted) || setrlimit(Resource::Nofile, enough).is_err() {
        // What cannot be raised is told as it is.
        _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A daemon, and the server behind it.
fn start(root: &Path, scratch: &Scratch) -> io::Result<(Daemon, Backend)> {
    let folder = scratch.path();
    fs::create_dir_all(folder)?;
    let backend =
        Backend::start(root, "serve-echo", &format!("unix:{}", folder.join("echo.sock").display()))?;
    let config = folder.join("millpond.toml");
    fs::write(&config, format!("[[proxy]]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n", backend.address))?;
    let mut setup = Setup::new(&root.join("target/release/millpond"), &folder.join("data"));
    (setup.shards, setup.config) = (1, Some(config));
    Ok((setup.start()?, backend))
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `len` bytes and has them back.
fn move_bytes(stream: &mut TcpStream, len: usize) -> io::Result<()> {
    let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    let mut writer = stream.try_clone()?;
    let (mut received, to_send) = (vec![0; len], sent.clone());
    let writing = (len > 4096).then(|| thread::spawn(move || writer.write_all(&to_send)));
    if writing.is_none() {
        stream.write_all(&sent)?;
    }
    stream.read_exact(&mut received)?;
    if let Some(writing) = writing {
        writing.join().expect("a writer does not panic")?;
    }
    if received == sent { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

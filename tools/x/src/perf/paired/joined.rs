//! Sockets joined to others: bytes one way in bulk, and messages there and back. Against HAProxy with splice, the stream
//! module of nginx, and socat.
//!
//! Behind every proxy stands the same server that does nothing, on the load's core, at a TCP or a unix socket.

use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{Bench, Goal, LOAD_CORE, Side, peer};

/// A server behind the proxies.
pub struct Backend {
    child: Child,
    /// As [`Backend::start`] takes it, with the port that it has.
    pub address: String,
}

impl Backend {
    /// One of gale's, at `host:port` or `unix:/path`.
    pub fn start(root: &Path, what: &str, listen: &str) -> io::Result<Self> {
        Self::start_with(root, what, listen, &[])
    }

    /// The same, with these words.
    pub fn start_with(root: &Path, what: &str, listen: &str, words: &[&str]) -> io::Result<Self> {
        let binary = root.join("target/release/gale");
        let mut child = Command::new(binary)
            .args([what, "--listen", listen, "--cpu", &LOAD_CORE.to_string()])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line)?;
        Ok(Self { child, address: line.split_whitespace().last().unwrap_or_default().to_owned() })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Bulk up and down on 1, 4 and 16 connections, to a TCP socket and to a unix socket.
pub fn bulk(bench: &mut Bench<'_>) -> io::Result<()> {
    for (direction, server, load) in [
        ("up", "serve-sink", "tcp sink"),
        ("down", "serve-source", "tcp source"),
        ("up to unix", "unix serve-sink", "tcp sink"),
        ("down from unix", "unix serve-source", "tcp source"),
    ] {
        for connections in [1, 4, 16] {
            let words = format!("--connections {connections}");
            for (name, cpu) in [("HAProxy", Some(1.15)), ("nginx", Some(0.8)), ("socat", None)] {
                // socat has a process for each connection, whose time nobody can ask for once it is gone.
                let goals: Vec<Goal> = match cpu {
                    Some(ratio) => vec![Goal::at_most("server CPU per GiB", ratio), Goal::told("payload/s")],
                    None => vec![Goal::told("payload/s")],
                };
                compare(
                    bench,
                    name,
                    &format!("{direction}, {connections} connections"),
                    server,
                    load,
                    &words,
                    &goals,
                )?;
            }
        }
    }
    Ok(())
}

/// Messages of 100 B and 4 KiB on 16 connections.
pub fn messages(bench: &mut Bench<'_>) -> io::Result<()> {
    for (size, least) in [("100B", 1.15), ("4KiB", 1.05)] {
        let words = format!("--connections 16 --size {size}");
        for (name, ratio) in [("HAProxy", Some(least)), ("nginx", None), ("socat", None)] {
            let mut goals =
                vec![ratio.map_or(Goal::told("operations/s"), |ratio| Goal::at_least("operations/s", ratio))];
            if name != "socat" {
                goals.push(Goal::told("server CPU per operation"));
            }
            compare(bench, name, &format!("messages of {size}"), "serve-echo", "tcp ping", &words, &goals)?;
        }
    }
    Ok(())
}

fn compare(
    bench: &mut Bench<'_>,
    name: &str,
    case: &str,
    server: &str,
    load: &str,
    words: &str,
    goals: &[Goal],
) -> io::Result<()> {
    let case = format!("{case}, {name}");
    if !bench.is_wanted(&case) {
        return Ok(());
    }
    let folder = bench.folder(&format!("joined-{}", case.replace([' ', ','], "-")))?;
    let backend = match server.strip_prefix("unix ") {
        Some(server) => {
            Backend::start(bench.root, server, &format!("unix:{}", folder.join("backend.sock").display()))?
        }
        None => Backend::start(bench.root, server, "127.0.0.1:0")?,
    };
    let config = folder.join("millpond.toml");
    // The host's congestion control on both sides: what is compared is the proxy.
    let text = format!(
        "[net]\nloopback_congestion = \"\"\n[[proxy]]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n",
        backend.address
    );
    fs::write(&config, text)?;
    let pond = bench.pond(|setup| setup.config = Some(config))?;
    let proxy = peer::proxy(bench, name, &folder, &backend.address)?;
    let line = |address: &str| format!("{load} {address} {words}");
    let ours = pond.address("proxy").expect("it has one").to_owned();
    let sides = vec![Side::pond(&pond, line(&ours)), Side::peer(&proxy, name, line(proxy.address()))];
    bench.compare(&case, sides, goals, false)
}

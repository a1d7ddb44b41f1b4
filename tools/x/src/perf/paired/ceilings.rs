//! What the machine can do at most, measured in the same run: a figure beside a ceiling says more than a figure.
//!
//! Invariant: nothing of ours or of a peer is on the way, only the kernel, memory and the disk.

use std::{
    fs, hint, io,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Bench, Gale, LOAD_CORE, SERVER_CORE};
use crate::cpu::{self, Unpinned};

const ROUNDS: u32 = 3;
const COPIED: usize = 64 << 20;
const SYSCALLS: u32 = 300_000;
const SYNCS: u32 = 50;
const CASE: &str = "ceilings";

/// Adds them to the record.
pub fn measure(bench: &mut Bench<'_>) -> io::Result<()> {
    let rounds = if bench.options.short { 1 } else { ROUNDS };
    for number in 0..rounds {
        let (syscall, memcpy, sync) = {
            let _unpinned = Unpinned::remember()?;
            cpu::pin(LOAD_CORE)?;
            (syscall(), memcpy(), fdatasync(bench)?)
        };
        let stream = against(bench, "serve-source", "tcp source", "")?;
        let ping = against(bench, "serve-echo", "tcp ping", "--connections 1")?;
        let pings = against(bench, "serve-echo", "tcp ping", "--connections 64")?;
        let of = |measures: &super::Measures, name| measures.of(name);
        bench.record.round(
            CASE,
            number,
            &[
                ("syscall", "ns", syscall),
                ("memcpy", "GiB/s", memcpy),
                ("fdatasync of 4 KiB, p50", "us", sync),
                ("loopback stream", "MiB/s", of(&stream, "payload/s") / f64::from(1 << 20)),
                ("ping-pong, 1 connection, p50", "us", of(&ping, "p50")),
                ("ping-pong, 64 connections", "1/s", of(&pings, "operations/s")),
                ("ping-pong, 64 connections, CPU", "us", of(&pings, "server CPU per operation")),
            ],
        );
    }
    Ok(())
}

/// The cheapest call there is: asking for the parent.
fn syscall() -> f64 {
    let began = Instant::now();
    for _ in 0..SYSCALLS {
        hint::black_box(rustix::process::getppid());
    }
    began.elapsed().as_nanos() as f64 / f64::from(SYSCALLS)
}

fn memcpy() -> f64 {
    let (from, mut to) = (vec![1u8; COPIED], vec![0u8; COPIED]);
    let mut best = Duration::MAX;
    for _ in 0..4 {
        let began = Instant::now();
        to.copy_from_slice(&from);
        hint::black_box(&mut to);
        best = best.min(began.elapsed());
    }
    COPIED as f64 / f64::from(1 << 30) / best.as_secs_f64()
}

fn fdatasync(bench: &Bench<'_>) -> io::Result<f64> {
    let mut file = fs::File::create(bench.scratch.path().join("synced"))?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// gale against a server of its own that does nothing.
fn against(bench: &Bench<'_>, server: &str, load: &str, words: &str) -> io::Result<super::Measures> {
    let binary = bench.root.join("target/release/gale");
    let mut child = Command::new(&binary)
        .args([server, "--listen", "127.0.0.1:0", "--cpu", &SERVER_CORE.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let outcome = (|| {
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line)?;
        let address = line.split_whitespace().last().unwrap_or_default().to_owned();
        let pids = [child.id()];
        let gale = Gale { binary: &binary, scratch: bench.scratch.path(), pids: &pids, seconds: 1 };
        gale.run(&format!("{load} {address} {words}"))
    })();
    child.kill()?;
    child.wait()?;
    outcome
}

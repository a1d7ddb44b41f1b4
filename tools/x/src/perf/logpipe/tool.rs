//! The client tools under test, as child processes, and what comes out of a reader's.
//!
//! Invariant: no child outlives its value; what a reader printed is compared with the text byte by byte.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use super::text::{Text, Title};

/// A running `millpond pipe` or `millpond tail`.
pub struct Tool(Child);

impl Tool {
    /// `millpond pipe`, and where its input goes.
    pub fn pipe(binary: &Path, url: &str, id: &str) -> io::Result<(Self, ChildStdin)> {
        let mut child = Command::new(binary).args(["pipe", url, id]).stdin(Stdio::piped()).spawn()?;
        let input = child.stdin.take().expect("it is piped");
        Ok((Self(child), input))
    }

    /// `millpond tail`, and where its output comes from.
    pub fn tail(binary: &Path, url: &str, id: &str) -> io::Result<(Self, ChildStdout)> {
        let mut child = Command::new(binary).args(["tail", url, id]).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().expect("it is piped");
        Ok((Self(child), output))
    }

    /// Stops or continues it.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Its end, which must be a success.
    pub fn ended_well(mut self, name: &str) -> io::Result<()> {
        let status = self.0.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{name} ended with {status}"))),
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Length and hash of a byte string.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum {
    pub len: u64,
    pub sha256: String,
}

/// Sums bytes as they come, and compares them with the text.
pub struct Summing<'a> {
    text: &'a Text,
    len: u64,
    hash: Sha256,
    differs_at: Option<u64>,
}

impl<'a> Summing<'a> {
    /// Nothing yet.
    pub fn new(text: &'a Text) -> Self {
        Self { text, len: 0, hash: Sha256::new(), differs_at: None }
    }

    /// The next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.differs_at = self.differs_at.or_else(|| self.text.difference(self.len, bytes));
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// The sum, unless a byte was wrong.
    pub fn end(self) -> io::Result<Sum> {
        match self.differs_at {
            Some(at) => Err(io::Error::other(format!(
                "the byte at {at} of {} is not the one that was sent",
                self.len
            ))),
            None => {
                let mut sha256 = String::new();
                self.hash.finalize().iter().for_each(|byte| _ = write!(sha256, "{byte:02x}"));
                Ok(Sum { len: self.len, sha256 })
            }
        }
    }
}

/// Feeds text into a pipe in pieces of many lengths; tells when `tell_at` bytes are in.
pub fn feed(
    text: &Arc<Text>,
    mut input: ChildStdin,
    len: u64,
    tell_at: u64,
    tell: &SyncSender<()>,
) -> io::Result<Sum> {
    let (mut summing, mut title, mut at, mut told) = (Summing::new(text), Title::default(), 0, false);
    let mut piece_len = 1u64;
    while at < len {
        let most = piece_len.min(len - at) as usize;
        // Up to 64 KiB, the most that a pipe holds at once, in an order that never repeats within a run.
        piece_len = (piece_len * 25_173 + 13_849) % 65_536 + 1;
        let piece = text.from(at, &mut title);
        let piece = &piece[..piece.len().min(most)];
        input.write_all(piece)?;
        summing.add(piece);
        at += piece.len() as u64;
        if at >= tell_at && !told {
            // Whoever no longer listens has failed and says so itself.
            _ = tell.send(());
            told = true;
        }
    }
    drop(input);
    summing.end()
}

/// Reads everything that a tool prints; also says how long the longest silence was.
pub fn drain(text: &Arc<Text>, mut output: ChildStdout) -> io::Result<(Sum, Duration)> {
    let (mut summing, mut buffer) = (Summing::new(text), vec![0; 1 << 18]);
    let (mut last, mut silence) = (Instant::now(), Duration::ZERO);
    loop {
        let len = output.read(&mut buffer)?;
        silence = silence.max(last.elapsed());
        last = Instant::now();
        match len {
            0 => return Ok((summing.end()?, silence)),
            len => summing.add(&buffer[..len]),
        }
    }
}

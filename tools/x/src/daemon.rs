//! A release daemon of our own, in a directory of its own, on ports of the kernel's choice.
//!
//! Invariant: a daemon that this process started is gone when its value is, and so is its directory.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::cpu;

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub binary: PathBuf,
    pub data_dir: PathBuf,
    pub shards: usize,
    pub durability: &'static str,
    /// Where loom listens; port 0 unless a daemon comes back to its clients.
    pub loom: String,
    /// The only core it may run on.
    pub core: Option<usize>,
    /// Who else listens, on ports of the kernel's choice.
    pub dialects: &'static [&'static str],
    /// A configuration file, for what neither flags nor variables can say.
    pub config: Option<PathBuf>,
    /// Further keys of the configuration, as `MILLPOND_…` variables, and their values.
    pub keys: &'static [(&'static str, &'static str)],
}

impl Setup {
    /// As many shards as cores, durability `sync`, over this data directory.
    pub fn new(binary: &Path, data_dir: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            data_dir: data_dir.to_owned(),
            shards: 0,
            durability: "sync",
            loom: "127.0.0.1:0".into(),
            core: None,
            dialects: &[],
            config: None,
            keys: &[],
        }
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&self) -> io::Result<Daemon> {
        let started = Instant::now();
        let mut child = cpu::pinned_to(self.core, || self.command().spawn())?;
        let stdout = child.stdout.take().expect("it is piped");
        let mut daemon = Daemon { child, ready: String::new(), start_time: Duration::ZERO };
        BufReader::new(stdout).read_line(&mut daemon.ready)?;
        daemon.start_time = started.elapsed();
        match daemon.address("loom") {
            Some(_) => Ok(daemon),
            None => Err(io::Error::other(format!("the ready line is {:?}", daemon.ready))),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--log-level", "warn", "--ready-fd", "1", "--admin-listen", "127.0.0.1:0"])
            .args(["--loom-listen", &self.loom, "--shards", &self.shards.to_string(), "--data-dir"])
            .arg(&self.data_dir)
            .env("MILLPOND_DURABILITY", self.durability)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // Their default ports may be somebody else's, and nothing here asks them.
        for dialect in ["vblob", "s3", "ion", "serpentine", "micro"] {
            let section = format!("MILLPOND_{}", dialect.to_uppercase());
            let is_wanted = self.dialects.contains(&dialect);
            command.env(format!("{section}_ENABLED"), is_wanted.to_string());
            if is_wanted {
                command.env(format!("{section}_LISTEN"), "127.0.0.1:0");
            }
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.envs(self.keys.iter().copied());
        command
    }
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    /// The line that names its listeners.
    ready: String,
    start_time: Duration,
}

impl Daemon {
    /// Ends it as an out-of-memory killer would.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Ends it as an operator would; an error unless it leaves by itself with exit code 0.
    pub fn stop(mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("after SIGTERM the daemon ended with {status}"))),
        }
    }

    /// Where its loom listener is.
    pub fn loom(&self) -> &str {
        self.address("loom").expect("a daemon that started has named it")
    }

    /// Where the listener of a dialect is, or of `admin`; `None` unless it listens at one address.
    pub fn address(&self, dialect: &str) -> Option<&str> {
        let (_, rest) = self.ready.split_once(&format!("\"{dialect}\":\""))?;
        rest.split_once('"').map(|(address, _)| address)
    }

    /// From the start of the process to its ready line.
    pub fn start_time(&self) -> Duration {
        self.start_time
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

const PREFIX: &str = "millpond-x-";

/// A directory of our own that goes when we do.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one below the directory for temporary files.
    pub fn new() -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        sweep(&env::temp_dir())?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("{PREFIX}{}-{number}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// The data directory in it.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Removes what runs left that were interrupted: directories named after processes that are gone.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            _ = fs::remove_dir_all(folder.join(&name));
        }
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_swept_and_nothing_else() {
        let scratch = Scratch::new().expect("a directory");
        // No process has this number: it is above what the kernel gives.
        let (dead, own) = (format!("{PREFIX}4194305-0"), format!("{PREFIX}{}-9", process::id()));
        for name in [dead.as_str(), own.as_str(), "another"] {
            fs::create_dir(scratch.0.join(name)).expect("a directory in it");
        }
        sweep(&scratch.0).expect("it can be listed");
        let is_there = |name: &str| scratch.0.join(name).exists();
        assert!(!is_there(&dead) && is_there(&own) && is_there("another"));
    }
}

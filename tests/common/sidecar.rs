//! `millpond micro … sidecar …`, started by its flags.

use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

use super::daemon::{MILLPOND, Started, scratch};
use super::wait::eventually;

/// A sidecar, killed when dropped.
pub struct Sidecar {
    started: Started,
    ready: serde_json::Value,
    dir: tempfile::TempDir,
}

impl Sidecar {
    /// Starts one with these words behind `millpond micro`, and waits until it serves.
    #[track_caller]
    pub fn start(words: &[&str]) -> Self {
        Self::start_with(words, &[])
    }

    /// The same with variables. Its working directory is empty, and every variable of ours and micro's is taken away.
    #[track_caller]
    pub fn start_with(words: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = scratch();
        let mut started = Started::spawn(command(words, env, dir.path()), &dir.path().join("log"));
        let Some(line) = started.ready_line() else {
            let _ = started.child.kill();
            panic!("the sidecar did not get ready:\n{}", started.log());
        };
        Self { started, ready: serde_json::from_str(&line).expect("a ready line"), dir }
    }

    /// Starts one that must not serve: its exit code, and what it said.
    #[track_caller]
    pub fn refused(words: &[&str]) -> (Option<i32>, String) {
        let dir = scratch();
        let (status, said) =
            Started::spawn(command(words, &[], dir.path()), &dir.path().join("log")).refused();
        (status.code(), said)
    }

    /// Where micro listens.
    #[track_caller]
    pub fn micro(&self) -> &str {
        self.ready["micro"].as_str().expect("one listener")
    }

    /// The ready line.
    pub fn ready(&self) -> &serde_json::Value {
        &self.ready
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.started.log()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.started.child.id()
    }

    /// Sends a signal to this very process.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a pid");
        kill_process(pid, signal).expect("it takes signals");
    }

    /// Its exit status, once it has ended.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        eventually("the sidecar exits", || self.started.child.try_wait().expect("waitable"))
    }
}

fn command(words: &[&str], env: &[(&str, &str)], dir: &Path) -> Command {
    let mut command = Command::new(MILLPOND);
    command.arg("micro").args(words).current_dir(dir);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MICRO_")) {
        command.env_remove(name);
    }
    command.envs(env.iter().copied());
    command
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.started.child.kill();
        let _ = self.started.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the sidecar's log ----\n{}", self.started.log());
        }
    }
}

/// Runs a command of the client to its end: its exit code, stdout and stderr.
#[track_caller]
pub fn client(addr: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(MILLPOND);
    command.arg("micro").arg(format!("--proxy_address={addr}")).args(words);
    let output = command.env_remove("MICRO_TOKEN").output().expect("millpond can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

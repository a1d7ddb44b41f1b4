//! A started daemon: how it is set up, where it listens, how it is ended.
//!
//! Invariant: no daemon outlives the test process, and none is ended but by its own pid. A test that fails
//! shows the log of its daemon.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::http::{Answer, get};
use super::prometheus::Page;
use super::wait::{PATIENCE, eventually};

/// The program under test.
pub const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond");

/// What a daemon is started with; everything not said is small, quick and on a port of the kernel's choice.
#[derive(Clone, Debug)]
pub struct Setup {
    shards: u32,
    durability: &'static str,
    top: String,
    limits: String,
    loom: String,
    loom_listen: String,
    vblob: Option<String>,
    s3: Option<String>,
    ion: Option<String>,
    serpentine: Option<String>,
    further: String,
    micro: Option<String>,
    admin_listen: String,
    awaits_readiness: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            shards: 2,
            durability: "sync",
            top: String::new(),
            limits: String::new(),
            loom: String::new(),
            loom_listen: "\"127.0.0.1:0\"".to_owned(),
            vblob: None,
            s3: None,
            ion: None,
            serpentine: None,
            further: String::new(),
            micro: None,
            admin_listen: "\"127.0.0.1:0\"".to_owned(),
            awaits_readiness: false,
        }
    }
}

impl Setup {
    /// How many shards.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// `"sync"` or `"cache"`.
    pub fn durability(mut self, class: &'static str) -> Self {
        self.durability = class;
        self
    }

    /// Lines for the top level of the file.
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self.top.push('\n');
        self
    }

    /// Lines for `[limits]`.
    pub fn limits(mut self, lines: &str) -> Self {
        self.limits.push_str(lines);
        self.limits.push('\n');
        self
    }

    /// Lines for `[loom]`.
    pub fn loom(mut self, lines: &str) -> Self {
        self.loom.push_str(lines);
        self.loom.push('\n');
        self
    }

    /// The TOML value of `loom.listen`.
    pub fn loom_listen(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.loom_listen);
        self
    }

    /// Serves vblob, with these lines in `[vblob]`.
    pub fn vblob(mut self, lines: &str) -> Self {
        let section = self.vblob.get_or_insert_default();
        section.push_str(lines);
        section.push('\n');
        self
    }

    /// Serves s3, with these lines in `[s3]`.
    pub fn s3(mut self, lines: &str) -> Self {
        let section = self.s3.get_or_insert_default();
        section.push_str(lines);
        section.push('\n');
        self
    }

    /// Serves ion, with these lines in `[ion]` and its modules.
    pub fn ion(mut self, lines: &str) -> Self {
        let section = self.ion.get_or_insert_default();
        section.push_str(lines);
        section.push('\n');
        self
    }

    /// Serves micro, with these lines in `[micro]`.
    pub fn micro(mut self, lines: &str) -> Self {
        let section = self.micro.get_or_insert_default();
        section.push_str(lines);
        section.push('\n');
        self
    }

    /// Serves serpentine, with these lines in `[serpentine]`.
    pub fn serpentine(mut self, lines: &str) -> Self {
        let section = self.serpentine.get_or_insert_default();
        section.push_str(lines);
        section.push('\n');
        self
    }

    /// Further tables, whole, for the end of the file.
    pub fn further(mut self, tables: &str) -> Self {
        self.further.push_str(tables);
        self.further.push('\n');
        self
    }

    /// A start waits until the daemon says that it is ready.
    pub fn awaiting_readiness(mut self) -> Self {
        self.awaits_readiness = true;
        self
    }

    /// The TOML value of `admin.listen`.
    pub fn admin_listen(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.admin_listen);
        self
    }

    /// The configuration file for a data directory.
    pub fn toml(&self, data_dir: &Path) -> String {
        let served = [
            ("vblob", &self.vblob),
            ("s3", &self.s3),
            ("ion", &self.ion),
            ("serpentine", &self.serpentine),
            ("micro", &self.micro),
        ];
        let others: String = served
            .map(|(dialect, section)| match section {
                // A FIFO directory of its own, as short as paths to sockets and FIFOs have to be.
                Some(lines) if dialect == "serpentine" && !lines.contains("fifo_dir") => {
                    format!(
                        "[{dialect}]\nlisten = \"127.0.0.1:0\"\nfifo_dir = \"{}\"\n{lines}",
                        fifos(data_dir).display()
                    )
                }
                Some(lines) => format!("[{dialect}]\nlisten = \"127.0.0.1:0\"\n{lines}"),
                None => format!("[{dialect}]\nenabled = false\n"),
            })
            .concat();
        let segment_size = match self.top.contains("segment_size") {
            true => "",
            false => "segment_size = \"16MiB\"\n",
        };
        format!(
            "data_dir = \"{}\"\nshards = {}\ndurability = \"{}\"\n{segment_size}{}\n\
             [admin]\nlisten = {}\n[limits]\n{}\n[loom]\nlisten = {}\n{}\n{others}{}",
            data_dir.display(),
            self.shards,
            self.durability,
            self.top,
            self.admin_listen,
            self.limits,
            self.loom_listen,
            self.loom,
            self.further,
        )
    }

    /// Starts a daemon of its own for a test.
    #[track_caller]
    pub fn start(self) -> Daemon {
        Daemon::launch(self, scratch())
    }

    /// A daemon that all tests of a file share. They must not disturb each other: ids of their own, nothing
    /// that counts streams or connections.
    #[track_caller]
    pub fn share(self, cell: &'static OnceLock<Daemon>) -> Shared {
        Shared(cell.get_or_init(|| self.start()))
    }
}

/// A running daemon, killed when dropped.
pub struct Daemon {
    setup: Setup,
    dir: tempfile::TempDir,
    child: Child,
    ready: serde_json::Value,
    log_from: u64,
}

impl Daemon {
    /// Starts one with nothing special.
    #[track_caller]
    pub fn start() -> Self {
        Setup::default().start()
    }

    #[track_caller]
    fn launch(setup: Setup, dir: tempfile::TempDir) -> Self {
        let log_from = fs::metadata(dir.path().join("log")).map_or(0, |file| file.len());
        let (child, ready) = spawn_ready(&setup, dir.path());
        Self { setup, dir, child, ready, log_from }
    }

    /// Where loom listens, as `host:port` or `unix:/path`.
    #[track_caller]
    pub fn loom(&self) -> &str {
        self.listener("loom")
    }

    /// Where vblob listens.
    #[track_caller]
    pub fn vblob(&self) -> &str {
        self.listener("vblob")
    }

    /// Where ion listens.
    #[track_caller]
    pub fn ion(&self) -> &str {
        self.listener("ion")
    }

    /// Where s3 listens.
    #[track_caller]
    pub fn s3(&self) -> &str {
        self.listener("s3")
    }

    /// Where serpentine listens.
    #[track_caller]
    pub fn serpentine(&self) -> &str {
        self.listener("serpentine")
    }

    /// Where the only `[[proxy]]` listens.
    #[track_caller]
    pub fn proxy(&self) -> &str {
        self.listener("proxy")
    }

    /// Where micro listens.
    #[track_caller]
    pub fn micro(&self) -> &str {
        self.listener("micro")
    }

    /// Where the admin endpoints listen.
    #[track_caller]
    pub fn admin(&self) -> &str {
        self.listener("admin")
    }

    /// The ready line.
    pub fn ready(&self) -> &serde_json::Value {
        &self.ready
    }

    #[track_caller]
    fn listener(&self, name: &str) -> &str {
        let value = &self.ready[name];
        value
            .as_str()
            .unwrap_or_else(|| panic!("the ready line names no single {name} listener: {}", self.ready))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory that holds the data directory, the configuration and the log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What this process and its predecessors in the same directory logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// What this process alone logged.
    pub fn own_log(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_from as usize..).unwrap_or_default()).into_owned()
    }

    /// The page of `/metrics`, read strictly.
    #[track_caller]
    pub fn metrics(&self) -> Page {
        Page::parse(get(self.admin(), "/metrics").expect(200).text())
    }

    /// Waits until a metric, summed over its labels, is as asked.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, is: impl Fn(f64) -> bool) -> f64 {
        let mut last = f64::NAN;
        eventually(&format!("{name} gets to where it should"), || {
            last = self.metrics().sum(name);
            is(last).then_some(last)
        })
    }

    /// `GET` on the loom listener.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        get(self.loom(), target)
    }

    /// Sends a signal to this very process.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal).expect("the daemon takes signals");
    }

    /// Ends it as a power cut would end a process: nothing is flushed, nobody is told.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.child.kill().expect("SIGKILL can be sent");
        self.child.wait().expect("the killed daemon can be waited for");
    }

    /// SIGTERM, then the exit status.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// The exit status, once it ends by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        eventually("the daemon exits", || self.child.try_wait().expect("waitable"))
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waitable").is_none()
    }

    /// Starts it again on the same data; one that still runs is killed first.
    #[track_caller]
    pub fn restart(&mut self) {
        if self.is_running() {
            self.kill9();
        }
        self.log_from = fs::metadata(self.dir.path().join("log")).map_or(0, |file| file.len());
        (self.child, self.ready) = spawn_ready(&self.setup, self.dir.path());
    }

    /// Starts it on the same data and kills it after a while, ready or not.
    #[track_caller]
    #[allow(clippy::disallowed_methods, reason = "the moment of the kill is the test's input")]
    pub fn stillborn(&mut self, after: Duration) {
        assert!(!self.is_running(), "it still runs");
        let mut started = spawn(&self.setup, self.dir.path());
        std::thread::sleep(after);
        started.child.kill().expect("SIGKILL can be sent");
        started.child.wait().expect("the killed daemon can be waited for");
    }

    /// Starts it again on the same data with another setup; one that still runs is killed first.
    #[track_caller]
    pub fn restart_with(&mut self, setup: Setup) {
        self.setup = setup;
        self.restart();
    }

    /// Has the running daemon read another configuration. What it made of it, its log and its answers tell.
    #[track_caller]
    pub fn reload_with(&mut self, setup: Setup) {
        self.setup = setup;
        let toml = self.setup.toml(&self.data_dir());
        fs::write(self.dir().join("millpond.toml"), toml).expect("the configuration can be written");
        self.signal(Signal::HUP);
    }

    /// Starts it again on the same data and the same ports, as a client that reconnects needs it.
    #[track_caller]
    pub fn restart_on_same_ports(&mut self) {
        self.setup.loom_listen = format!("\"{}\"", self.loom());
        self.setup.admin_listen = format!("\"{}\"", self.admin());
        self.restart();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            show_log(&self.log());
        }
    }
}

/// A daemon that outlives the test that uses it; a test that fails shows its log nevertheless.
pub struct Shared(&'static Daemon);

impl Deref for Shared {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log(&self.0.log());
        }
    }
}

fn show_log(log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(60);
    eprintln!("---- the daemon's log, last {} of {} lines ----", lines.len() - from, lines.len());
    for line in &lines[from..] {
        eprintln!("{line}");
    }
    eprintln!("---- end of the daemon's log ----");
}

/// A directory on the disk that the build uses: syncs and preallocation must be real. Those of test processes
/// that were killed are swept first, since a static daemon's directory is nobody's to drop.
pub fn scratch() -> tempfile::TempDir {
    static SWEEP: OnceLock<()> = OnceLock::new();
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    SWEEP.get_or_init(|| sweep(base));
    let prefix = format!("millpond-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(base).expect("a directory under target/tmp")
}

fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name.strip_prefix("millpond-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Where a daemon with this data directory makes FIFOs.
pub fn fifos(data_dir: &Path) -> PathBuf {
    data_dir.parent().expect("it lies in the test's directory").join("f")
}

/// Starts `millpond serve`.
#[track_caller]
fn spawn(setup: &Setup, dir: &Path) -> Started {
    let config = dir.join("millpond.toml");
    fs::write(&config, setup.toml(&dir.join("data"))).expect("the configuration can be written");
    let mut command = Command::new(MILLPOND);
    command.arg("serve").arg("--config").arg(&config);
    Started::spawn(command, &dir.join("log"))
}

/// Starts `millpond serve` and waits for its ready line.
#[track_caller]
fn spawn_ready(setup: &Setup, dir: &Path) -> (Child, serde_json::Value) {
    let mut started = spawn(setup, dir);
    let Some(line) = started.ready_line() else {
        let _ = started.child.kill();
        let status = started.child.wait();
        panic!("the daemon did not get ready ({status:?}):\n{}", started.log());
    };
    let ready: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the ready line {line:?}: {error}"));
    if setup.awaits_readiness {
        let admin = ready["admin"].as_str().expect("one address");
        eventually("the daemon is ready", || (get(admin, "/readyz").status == 200).then_some(()));
    }
    (started.child, ready)
}

/// A `millpond serve` of which is not yet known whether it will serve.
pub struct Started {
    /// The process.
    pub child: Child,
    ready: mpsc::Receiver<Option<String>>,
    log: PathBuf,
}

impl Started {
    /// Spawns with `--ready-fd` added; stdout and stderr are appended to `log`.
    #[track_caller]
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let out = File::options().create(true).append(true).open(log).expect("the log can be opened");
        command.arg("--ready-fd").arg(writer.as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a second descriptor")).stderr(out);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLPOND_")) {
            command.env_remove(name);
        }
        let fd = writer.as_raw_fd();
        // SAFETY: the closure runs in the child between fork and exec and makes two system calls that
        // allocate nothing and take no lock. `fd` is open there: `writer` lives in the parent until the spawn
        // has returned, and `BorrowedFd` does not close it.
        unsafe {
            command.pre_exec(move || {
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        let child = nursery(command).expect("millpond can be started");
        drop(writer);
        let (send, ready) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let whole = BufReader::new(reader).read_line(&mut line).is_ok() && line.ends_with('\n');
            let _ = send.send(whole.then_some(line));
        });
        Self { child, ready, log: log.to_owned() }
    }

    /// The ready line; none if the process closed the descriptor without writing one, or is too late.
    pub fn ready_line(&mut self) -> Option<String> {
        self.ready.recv_timeout(PATIENCE).ok().flatten()
    }

    /// The exit status, and everything that was printed.
    #[track_caller]
    pub fn refused(mut self) -> (ExitStatus, String) {
        if let Some(line) = self.ready_line() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            panic!("the daemon serves although it should not: {line}{}", self.log());
        }
        let exit = eventually("the daemon gives up", || self.child.try_wait().expect("waitable"));
        (exit, self.log())
    }

    /// Everything that was printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Has what is spawned end with this process.
pub fn dies_with_us(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec and makes one system call that allocates nothing and
    // takes no lock.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

/// Spawns from a thread that lives as long as the process: the kernel sends the death signal when the spawning
/// *thread* ends, and test threads come and go.
pub fn nursery(command: Command) -> std::io::Result<Child> {
    type Birth = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static NURSERY: OnceLock<mpsc::SyncSender<Birth>> = OnceLock::new();
    let births = NURSERY.get_or_init(|| {
        let (send, births) = mpsc::sync_channel::<Birth>(1);
        std::thread::spawn(move || {
            for (mut command, reply) in births {
                let _ = reply.send(command.spawn());
            }
        });
        send
    });
    let (reply, born) = mpsc::sync_channel(1);
    births.send((command, reply)).expect("the nursery lives as long as the process");
    born.recv().expect("the nursery answers")
}

/// Long enough that something which would happen at once would have been seen.
pub const A_MOMENT: Duration = Duration::from_millis(150);

//! The machine that a run is made on: what it is, and whether it has anything else to do.
//!
//! Invariant: what we change about our own scheduling is changed back.

use std::{
    fs, io,
    process::Command,
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

/// Share of all cores that others may use when a run for the record begins.
const OTHERS_MAX: f64 = 0.10;
const LOOK: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(600);

/// The machine since the start of a run.
pub struct Machine {
    started: Instant,
    load_average: String,
    before: Books,
    _autogroup: Autogroup,
}

/// Clock ticks.
#[derive(Clone, Copy)]
struct Books {
    /// Of all cores, spent on anything.
    busy: u64,
    /// Of all cores.
    all: u64,
    /// By us and by children that have ended.
    own: u64,
}

impl Machine {
    /// Raises our priority among sessions and, for the record, waits until nobody else works.
    pub fn prepare(quiet: bool) -> io::Result<Self> {
        if quiet {
            wait_for_quiet()?;
        }
        Ok(Self {
            started: Instant::now(),
            load_average: first_words("/proc/loadavg", 3),
            before: Books::now()?,
            _autogroup: Autogroup::raise(),
        })
    }

    /// Lines for the head of a record, a name and a value each.
    pub fn describe(&self) -> io::Result<Vec<(&'static str, String)>> {
        let now = Books::now()?;
        let (busy, own) = (now.busy - self.before.busy, now.own - self.before.own);
        let others = 100.0 * busy.saturating_sub(own) as f64 / (now.all - self.before.all).max(1) as f64;
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
        let memory = first_words("/proc/meminfo", 2);
        let memory: u64 = memory.split(' ').nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
        let virtualised = if cpu.contains("hypervisor") { ", virtual machine" } else { "" };
        let local = if said("git", &["status", "--porcelain", "-uno"]).is_empty() {
            ""
        } else {
            ", with local changes"
        };
        Ok(vec![
            (
                "hardware",
                format!(
                    "{cores} cores of {}, {} GiB of memory{virtualised}",
                    model.trim_start_matches(['\t', ' ', ':']),
                    memory >> 20
                ),
            ),
            ("kernel", said("uname", &["-sr"])),
            (
                "congestion control",
                format!("{} by the host", first_words("/proc/sys/net/ipv4/tcp_congestion_control", 1)),
            ),
            ("compiler", said("rustc", &["--version"])),
            ("commit", format!("{}{local}", said("git", &["rev-parse", "--short=12", "HEAD"]))),
            ("load average before", self.load_average.clone()),
            ("others meanwhile", format!("{others:.1} % of all cores")),
            ("took", format!("{:.0} s", self.started.elapsed().as_secs_f64())),
        ])
    }
}

impl Books {
    fn now() -> io::Result<Self> {
        let unreadable = || io::Error::other("/proc/stat is not as expected");
        let stat = fs::read_to_string("/proc/stat")?;
        let (all, idle) = machine_ticks(&stat).ok_or_else(unreadable)?;
        let own = own_ticks(&fs::read_to_string("/proc/self/stat")?).ok_or_else(unreadable)?;
        Ok(Self { busy: all - idle, all, own })
    }
}

fn wait_for_quiet() -> io::Result<()> {
    let started = Instant::now();
    loop {
        let share = busy_share()?;
        if share <= OTHERS_MAX {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("others use {:.0} % of the machine", 100.0 * share)));
        }
    }
}

/// How busy all cores are for a short while in which we do nothing.
fn busy_share() -> io::Result<f64> {
    let before = Books::now()?;
    pass(LOOK);
    let now = Books::now()?;
    Ok((now.busy - before.busy) as f64 / (now.all - before.all).max(1) as f64)
}

/// Lets time go by, which is what is measured.
pub fn pass(time: Duration) {
    let (_silent, never) = sync_channel::<()>(0);
    _ = never.recv_timeout(time);
}

/// All ticks and the idle ones, waiting for disks included. Guest time is part of user time.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let numbers: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).take(8).map_while(|word| word.parse().ok()).collect();
    Some((numbers.iter().sum(), numbers.get(3)? + numbers.get(4)?))
}

fn own_ticks(stat: &str) -> Option<u64> {
    let fields = stat[stat.rfind(')')? + 2..].split(' ').skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

/// The weight of our session among all, raised while this lives.
///
/// With sessions as scheduling groups, niceness within one has no say over the others.
struct Autogroup {
    before: Option<String>,
}

const AUTOGROUP: &str = "/proc/self/autogroup";

impl Autogroup {
    fn raise() -> Self {
        let now = fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let before = now.rsplit(' ').next().map(|nice| nice.trim().to_owned());
        // Where it is refused or does not exist, the run is noisier and still right.
        let raised = fs::write(AUTOGROUP, "-16").is_ok();
        Self { before: before.filter(|_| raised) }
    }
}

impl Drop for Autogroup {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            _ = fs::write(AUTOGROUP, before);
        }
    }
}

/// The day, as file names have it.
pub fn today() -> String {
    said("date", &["-u", "+%F"])
}

fn first_words(path: &str, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
}

fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).current_dir(crate::root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_the_machine_and_of_ourselves() {
        assert_eq!(machine_ticks("cpu  10 1 5 100 7 0 2 3 9 9\ncpu0 1 1\n"), Some((128, 107)));
        assert_eq!(machine_ticks("cpu  10\n"), None);
        assert_eq!(own_ticks("1 (x) R 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0"), Some(10));
    }
}

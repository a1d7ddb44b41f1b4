//! Which core runs what, and how much time it took: the kernel's books about a process.
//!
//! Invariant: what is pinned here is a new process or the whole of ours; no other process is touched.

use std::{fs, io};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Lets `start` spawn a process that may run on this core alone.
///
/// A new process inherits the mask of the thread that makes it, so ours is narrowed for that moment.
pub fn pinned_to<T>(core: Option<usize>, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(core) = core else { return start() };
    let before = sched_getaffinity(None)?;
    pin(core)?;
    let started = start();
    sched_setaffinity(None, &before)?;
    started
}

/// Keeps this thread on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)
        .map_err(|why| io::Error::other(format!("core {core} is not ours to use: {why}")))
}

/// Lets this thread run where it could before, however the measurement ends.
pub struct Unpinned(CpuSet);

impl Unpinned {
    /// Remembers where this thread may run.
    pub fn remember() -> io::Result<Self> {
        Ok(Self(sched_getaffinity(None)?))
    }
}

impl Drop for Unpinned {
    fn drop(&mut self) {
        _ = sched_setaffinity(None, &self.0);
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on a CPU of the threads that live, by the scheduler.
    pub nanos: u64,
    /// User and system time of all threads that ever lived, in clock ticks.
    pub ticks: u64,
    /// Context switches of the threads that live.
    pub switches: u64,
}

impl Usage {
    /// Of this process until now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let threads = threads(pid)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(Self {
            nanos: threads.iter().map(|thread| thread.nanos).sum(),
            ticks: ticks(&stat).ok_or_else(|| unreadable("stat"))?,
            switches: threads.iter().map(|thread| thread.switches).sum(),
        })
    }

    /// What was used since then. A thread that ended in between takes its share with it.
    pub fn since(self, before: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(before.nanos),
            ticks: self.ticks.saturating_sub(before.ticks),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// One thread of a process.
#[derive(Clone, Debug)]
pub struct Thread {
    pub name: String,
    pub nanos: u64,
    pub switches: u64,
}

/// The threads of a process, by their names.
pub fn threads(pid: u32) -> io::Result<Vec<Thread>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = entry?.path();
        // A thread that ends while we look is none of the others.
        let Ok(schedstat) = fs::read_to_string(folder.join("schedstat")) else { continue };
        let Ok(status) = fs::read_to_string(folder.join("status")) else { continue };
        let Ok(name) = fs::read_to_string(folder.join("comm")) else { continue };
        let nanos = schedstat.split(' ').next().and_then(|first| first.parse().ok());
        let switches = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
            .map(|key| status_number(&status, key).unwrap_or_default());
        found.push(Thread {
            name: name.trim().to_owned(),
            nanos: nanos.ok_or_else(|| unreadable("schedstat"))?,
            switches: switches.iter().sum(),
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Pages that no file stands behind.
    pub anon: u64,
    /// All resident pages but those of mapped files.
    pub not_file: u64,
}

impl Memory {
    /// Of this process at the moment.
    pub fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |key| status_number(&status, key).ok_or_else(|| unreadable(key));
        Ok(Self { anon: kib("RssAnon")? << 10, not_file: (kib("VmRSS")? - kib("RssFile")?) << 10 })
    }

    /// The larger of each.
    pub fn max(self, other: Self) -> Self {
        Self { anon: self.anon.max(other.anon), not_file: self.not_file.max(other.not_file) }
    }
}

/// How many receives each ring of the process that also accepts has armed: the connections of each shard.
pub fn receives_by_ring(pid: u32) -> io::Result<Vec<usize>> {
    let mut rings: Vec<(u32, usize)> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")) else { continue };
        if let (1.., receives) = armed(&info) {
            rings.push((fd, receives));
        }
    }
    rings.sort_unstable();
    Ok(rings.into_iter().map(|(_, receives)| receives).collect())
}

/// Accepts and receives among the operations that a ring waits for, as its fdinfo lists them.
fn armed(fdinfo: &str) -> (usize, usize) {
    let (accept, receive) = ("op=13,", "op=27,");
    let count = |operation| fdinfo.lines().filter(|line| line.trim_start().starts_with(operation)).count();
    (count(accept), count(receive))
}

fn status_number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The command name may hold spaces and parentheses, so fields are counted from the last one.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn unreadable(what: &str) -> io::Error {
    io::Error::other(format!("/proc: {what} is not as expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_the_user_and_system_time_whatever_the_process_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn a_rings_accepts_and_receives_are_told_apart() {
        let info = "SqMask:\t0x7f\nPollList:\n  op=13, task_works=0\n  op=27, task_works=0\n  op=27, task_works=1\n  op=6, task_works=0\n";
        assert_eq!(armed(info), (1, 2));
        assert_eq!(armed("pos:\t0\nflags:\t02\n"), (0, 0));
    }

    #[test]
    fn our_own_books_can_be_read() {
        let pid = std::process::id();
        let before = Usage::of(pid).expect("usage");
        let mut sum = 0u64;
        while Usage::of(pid).expect("usage").since(before).nanos < 2_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        let memory = Memory::of(pid).expect("memory");
        assert!(memory.anon > 0 && memory.not_file >= memory.anon);
    }
}

//! What the kernel says about a process.

use std::fs;

/// A line of `/proc/<pid>/status` that counts kibibytes, such as `RssAnon`, in bytes.
#[track_caller]
pub fn status_bytes(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .expect("the daemon's /proc/<pid>/status is readable");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("/proc/{pid}/status has no line {key}"));
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib * 1024
}

/// User and system time of all threads of a process, in clock ticks.
#[track_caller]
pub fn cpu_ticks(pid: u32) -> u64 {
    let text =
        fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon's /proc/<pid>/stat is readable");
    // The command name may hold spaces and parentheses, so fields are counted from the last one.
    let fields: Vec<&str> = text[text.rfind(')').expect("a command name") + 2..].split(' ').collect();
    let (user, system): (u64, u64) = (fields[11].parse().unwrap(), fields[12].parse().unwrap());
    user + system
}

/// Time on a CPU of all threads of a process, in nanoseconds, by the scheduler's own books.
#[track_caller]
pub fn cpu_nanos(pid: u32) -> u64 {
    threads(pid)
        .iter()
        .map(|tid| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"))
                .expect("schedstat is readable");
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

/// The threads of a process.
pub fn threads(pid: u32) -> Vec<u32> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the daemon's /proc/<pid>/task is readable")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect()
}

/// How many descriptors a process has open.
pub fn open_fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon's /proc/<pid>/fd is readable").count()
}

/// The local addresses of the listening TCP sockets that a process holds, as `/proc/net/tcp` writes them.
pub fn listening_inodes(pid: u32) -> Vec<u64> {
    let held: Vec<u64> = fs::read_dir(format!("/proc/{pid}/fd"))
        .map(|dir| {
            dir.filter_map(|entry| {
                let target = fs::read_link(entry.ok()?.path()).ok()?;
                target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
            })
            .collect()
        })
        .unwrap_or_default();
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp is readable");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let inode: u64 = fields.get(9)?.parse().ok()?;
            (fields[3] == "0A" && held.contains(&inode)).then_some(inode)
        })
        .collect()
}

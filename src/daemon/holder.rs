//! Who holds what we want: the process behind a busy port or a locked file, as far as /proc tells us.
//!
//! Best effort and only for messages: without the rights to look, the message is shorter. Runs on the main
//! thread, after something has already failed.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    pid: u32,
    name: String,
}

impl Holder {
    /// Whether it is not this process.
    pub fn is_another(&self) -> bool {
        self.pid != std::process::id()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// The process that listens on a TCP port of this host.
pub fn of_port(port: u16) -> Option<Holder> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let targets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    pids().find(|&pid| has_open(pid, &targets)).and_then(named)
}

/// The process that listens on a unix socket.
pub fn of_path(path: &Path) -> Option<Holder> {
    let inodes = bound_inodes(&fs::read_to_string("/proc/net/unix").ok()?, path);
    let targets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    pids().find(|&pid| has_open(pid, &targets)).and_then(named)
}

/// The process that holds the flock of a file.
pub fn of_lock(path: &Path) -> Option<Holder> {
    let inode = fs::metadata(path).ok()?.ino();
    let pid = lock_owner(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    named(pid)
}

/// The socket inodes that listen on `port`, from the text of /proc/net/tcp.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&wanted) && row[3] == LISTEN)
        .filter_map(|row| row[9].parse().ok())
        .collect()
}

/// The socket inodes bound to `path`, from the text of /proc/net/unix.
fn bound_inodes(table: &str, path: &Path) -> Vec<u64> {
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(7).is_some_and(|bound| Path::new(bound) == path))
        .filter_map(|row| row[6].parse().ok())
        .collect()
}

/// The owner of a lock on `inode`, from the text of /proc/locks.
fn lock_owner(table: &str, inode: u64) -> Option<u32> {
    let suffix = format!(":{inode}");
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let held = fields.get(1) != Some(&"->");
        (held && fields.get(5)?.ends_with(&suffix)).then(|| fields[4].parse().ok())?
    })
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn has_open(pid: u32, targets: &[String]) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let mut links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.any(|link| targets.iter().any(|target| link.as_os_str() == target.as_str()))
}

fn named(pid: u32) -> Option<Holder> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder { pid, name: name.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ourselves_behind_a_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        assert_eq!(of_port(port).map(|holder| holder.pid), Some(std::process::id()));
    }

    #[test]
    fn finds_ourselves_behind_a_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert_eq!(of_path(&path).map(|holder| holder.pid), Some(std::process::id()));
        assert_eq!(of_path(&dir.path().join("other")), None);
    }

    #[test]
    fn reads_the_tables() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                   0: 0100007F:0BF4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n   \
                   1: 0100007F:0BF4 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100\n";
        assert_eq!(listening_inodes(tcp, 3060), [4711], "established connections do not hold the port");
        let locks =
            "1: -> FLOCK  ADVISORY  WRITE 7 fe:00:99 0 EOF\n1: FLOCK  ADVISORY  WRITE 812 fe:00:99 0 EOF\n";
        assert_eq!(lock_owner(locks, 99), Some(812), "a waiter is no owner");
        assert_eq!(lock_owner(locks, 9), None);
    }
}

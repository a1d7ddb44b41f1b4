//! What the host must offer before a shard can start, checked first so that a refusal is one clear sentence.
//!
//! glommio prints, exits or panics when io_uring is missing; nothing of it is built before these checks passed.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::io;

/// Why no shard can run here.
#[derive(Debug)]
pub enum Refused {
    /// io_uring_setup failed with this error, and this is who forbids it, as far as can be told.
    NoUring(io::Error, Blocker),
    /// The kernel has io_uring but not what the ring needs (6.1 or later).
    OldUring(io::Error),
    /// RLIMIT_MEMLOCK is this many bytes.
    Memlock(u64),
    /// A shard's ring could not be set up, while RLIMIT_MEMLOCK is this many bytes.
    NoRing(io::Error, u64),
    /// The affinity mask or the CPU topology cannot be read.
    Cpus(String),
}

/// Who keeps io_uring from us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocker {
    /// `kernel.io_uring_disabled` has this value: 2 is off for all, 1 for those without privilege.
    Sysctl(u8),
    /// A system call filter of this process.
    Seccomp,
    /// The kernel was built without it.
    Kernel,
    /// Nobody that we can see.
    Unknown,
}

/// What glommio needs to lock for its rings; it refuses to start below.
const MEMLOCK_MIN: u64 = 512 * 1024;

impl Refused {
    /// That the ring of a shard could not be set up.
    pub fn no_ring(error: io::Error) -> Self {
        Refused::NoRing(error, getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX))
    }

    /// What was found, as a clause.
    pub fn found(&self) -> String {
        match self {
            Refused::NoUring(error, blocker) => {
                let by = match blocker {
                    Blocker::Sysctl(value) => format!(", sysctl kernel.io_uring_disabled is {value}"),
                    Blocker::Seccomp => ", a seccomp filter applies to this process".into(),
                    Blocker::Kernel => ", the kernel does not have it".into(),
                    Blocker::Unknown => String::new(),
                };
                format!("io_uring is not available ({error}{by})")
            }
            Refused::OldUring(error) => format!("this kernel's io_uring is too old ({error})"),
            Refused::Memlock(bytes) => {
                format!("RLIMIT_MEMLOCK is {bytes} bytes and io_uring needs at least {MEMLOCK_MIN}")
            }
            Refused::NoRing(error, bytes) => {
                let limit = if *bytes == u64::MAX { "not set".into() } else { format!("{bytes} bytes") };
                format!("the io_uring of a shard cannot be set up ({error}; RLIMIT_MEMLOCK is {limit})")
            }
            Refused::Cpus(why) => format!("the processors to run on cannot be read: {why}"),
        }
    }

    /// What helps, as a clause.
    pub fn fix(&self) -> &'static str {
        match self {
            Refused::NoUring(_, Blocker::Sysctl(_)) => "set sysctl kernel.io_uring_disabled=0 on the host",
            Refused::NoUring(_, Blocker::Seccomp) => {
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of the container \
                 (docker: --security-opt seccomp=unconfined) or in SystemCallFilter of the unit"
            }
            Refused::NoUring(_, Blocker::Kernel) => "run a kernel that is built with CONFIG_IO_URING",
            Refused::NoUring(_, Blocker::Unknown) => {
                "in a container allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
                 (docker: --security-opt seccomp=unconfined), on the host set sysctl kernel.io_uring_disabled=0"
            }
            Refused::OldUring(_) => "millpond needs Linux 6.1 or later",
            Refused::NoRing(error, _)
                if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) =>
            {
                "raise the limit of open files with ulimit -n 65536, LimitNOFILE=65536 in the unit file, or --ulimit \
                 nofile=65536 for a container"
            }
            Refused::NoRing(error, _) if error.kind() != io::ErrorKind::OutOfMemory => {
                "start fewer shards, with shards = 1 or --shards 1"
            }
            Refused::Memlock(_) | Refused::NoRing(..) => {
                "raise it with ulimit -l 8192, LimitMEMLOCK=8M in the unit file, or --ulimit memlock=8388608 for a container"
            }
            Refused::Cpus(_) => "allow this process to read its affinity mask with sched_getaffinity",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.found(), self.fix())
    }
}

impl std::error::Error for Refused {}

/// Checks the kernel and the limits, and raises the open-file limit as far as it goes.
pub fn check() -> Result<(), Refused> {
    uring()?;
    memlock()?;
    raise_open_files();
    Ok(())
}

/// Checks that rings of our kind can be made.
pub fn uring() -> Result<(), Refused> {
    io_uring::IoUring::new(2).map_err(|error| {
        if error.kind() == io::ErrorKind::OutOfMemory {
            return Refused::no_ring(error);
        }
        let blocker = blocker(
            error.raw_os_error(),
            &std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default(),
            &std::fs::read_to_string("/proc/self/status").unwrap_or_default(),
        );
        Refused::NoUring(error, blocker)
    })?;
    let builder: io::Result<io_uring::IoUring> = io_uring::IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(2);
    builder.map_err(Refused::OldUring)?;
    Ok(())
}

/// Who is behind the failure of io_uring_setup, from the text of the sysctl and of our status.
fn blocker(errno: Option<i32>, sysctl: &str, status: &str) -> Blocker {
    let disabled: u8 = sysctl.trim().parse().unwrap_or(0);
    let filtered = status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::PERM) if disabled > 0 => Blocker::Sysctl(disabled),
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) if filtered => Blocker::Seccomp,
        Some(Errno::NOSYS) => Blocker::Kernel,
        _ => Blocker::Unknown,
    }
}

/// How many bytes may be locked, `u64::MAX` without a limit; refused when that is not enough.
pub fn memlock() -> Result<u64, Refused> {
    let memlock = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    match memlock < MEMLOCK_MIN && !rustix::process::geteuid().is_root() {
        true => Err(Refused::Memlock(memlock)),
        false => Ok(memlock),
    }
}

/// Best effort: connections are counted against the limit that results.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// The open-file limit that [`check`] raises to.
pub fn open_files_hard() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// The open-file limit in force.
pub fn open_files_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The processors this process may run on, in ascending order.
pub fn allowed_cpus() -> Result<Vec<usize>, Refused> {
    let mask = rustix::thread::sched_getaffinity(None).map_err(|error| Refused::Cpus(error.to_string()))?;
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).collect();
    if cpus.is_empty() { Err(Refused::Cpus("the affinity mask is empty".into())) } else { Ok(cpus) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a fix that sends the operator to the wrong place.
    #[test]
    fn who_blocks_io_uring_is_told_apart() {
        let (perm, nosys) = (Some(libc::EPERM), Some(libc::ENOSYS));
        let (free, filtered) = ("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t2\n", "Seccomp:\t2\n");
        for (errno, sysctl, status, expected) in [
            (perm, "2\n", free, Blocker::Sysctl(2)),
            (perm, "1\n", filtered, Blocker::Sysctl(1)),
            (perm, "0\n", filtered, Blocker::Seccomp),
            (nosys, "", filtered, Blocker::Seccomp),
            (nosys, "", free, Blocker::Kernel),
            (perm, "", free, Blocker::Unknown),
            (Some(libc::ENOMEM), "0\n", filtered, Blocker::Unknown),
            (None, "", "", Blocker::Unknown),
        ] {
            assert_eq!(blocker(errno, sysctl, status), expected, "{errno:?} {sysctl:?} {status:?}");
        }
    }
}

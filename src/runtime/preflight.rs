//! What the host must offer before a shard can start, checked first so that a refusal is one clear sentence.
//!
//! glommio prints, exits or panics when io_uring is missing; nothing of it is built before these checks passed.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::io;

/// Why no shard can run here.
#[derive(Debug)]
pub enum Refused {
    /// io_uring_setup failed with this error.
    NoUring(io::Error),
    /// The kernel has io_uring but not what the ring needs (6.1 or later).
    OldUring(io::Error),
    /// RLIMIT_MEMLOCK is this many bytes.
    Memlock(u64),
    /// The affinity mask or the CPU topology cannot be read.
    Cpus(String),
}

/// What glommio needs to lock for its rings; it refuses to start below.
const MEMLOCK_MIN: u64 = 512 * 1024;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoUring(error) => write!(
                f,
                "io_uring is not available ({error}): in a container allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the seccomp profile (docker: --security-opt seccomp=unconfined), on the host \
                 set sysctl kernel.io_uring_disabled=0"
            ),
            Refused::OldUring(error) => {
                write!(f, "this kernel's io_uring is too old ({error}): millpond needs Linux 6.1 or later")
            }
            Refused::Memlock(bytes) => write!(
                f,
                "RLIMIT_MEMLOCK is {bytes} bytes and io_uring needs at least {MEMLOCK_MIN}: raise it with ulimit -l 8192, \
                 LimitMEMLOCK=8M in the unit file, or --ulimit memlock=8388608 for a container"
            ),
            Refused::Cpus(why) => write!(f, "the processors to run on cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Refused {}

/// Checks the kernel and the limits, and raises the open-file limit as far as it goes.
pub fn check() -> Result<(), Refused> {
    io_uring::IoUring::new(2).map_err(Refused::NoUring)?;
    let builder: io::Result<io_uring::IoUring> = io_uring::IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(2);
    builder.map_err(Refused::OldUring)?;
    let memlock = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    if memlock < MEMLOCK_MIN && !rustix::process::geteuid().is_root() {
        return Err(Refused::Memlock(memlock));
    }
    raise_open_files();
    Ok(())
}

/// Best effort: connections are counted against the limit that results.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
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

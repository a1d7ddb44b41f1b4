//! Where io_uring is blocked, as in many containers, the daemon says so at once instead of hanging or dying oddly.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use common::daemon::{MILLPOND, Setup, Started, scratch};

#[test]
fn a_seccomp_filter_on_io_uring_is_explained_within_100_ms() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        // The machine may be busy with other tests: the quickest of a few starts counts.
        let quickest = (0..5).map(|_| refused(errno)).min().expect("five starts");
        assert!(quickest < Duration::from_millis(100), "it took {quickest:?} to say no");
    }
}

fn refused(errno: i32) -> Duration {
    let dir = scratch();
    let config = dir.path().join("millpond.toml");
    fs::write(&config, Setup::default().toml(&dir.path().join("data")))
        .expect("the configuration can be written");
    let mut command = Command::new(MILLPOND);
    command.arg("serve").arg("--config").arg(&config);
    let filter = filter(errno);
    // SAFETY: the closure runs in the child between fork and exec and makes two system calls; `filter` was
    // built before the fork and is owned by the closure, so nothing is allocated there.
    unsafe {
        command.pre_exec(move || install(&filter));
    }
    let asked = Instant::now();
    let started = Started::spawn(command, &dir.path().join("log"));
    let (status, said) = started.refused();
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("io_uring") && said.contains("seccomp"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    took
}

/// A program that answers `io_uring_setup` with an error and allows everything else.
fn filter(errno: i32) -> Vec<libc::sock_filter> {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    vec![
        // The number of the system call is the first word of what the filter sees.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Binds this process to the filter, for good.
fn install(filter: &[libc::sock_filter]) -> std::io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: both calls read their arguments only. `program` points to `filter`, whose length it names, and
    // both live until the call has returned; the kernel copies the program.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    done.then_some(()).ok_or_else(std::io::Error::last_os_error)
}

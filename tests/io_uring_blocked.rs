//! Where io_uring is blocked, as in many containers, the daemon says so at once instead of hanging or dying oddly.

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use common::daemon::{MILLPOND, Setup, Started, scratch};
use common::seccomp::forbid;

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
    forbid(&mut command, libc::SYS_io_uring_setup, errno);
    let asked = Instant::now();
    let started = Started::spawn(command, &dir.path().join("log"));
    let (status, said) = started.refused();
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("io_uring") && said.contains("seccomp"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    took
}

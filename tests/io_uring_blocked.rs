//! Where io_uring is blocked, as in many containers, the daemon says so at once instead of hanging or dying oddly.

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use common::daemon::{MILLPOND, Setup, Started, scratch};
use common::seccomp::{forbid, forbid_where};

#[test]
fn a_seccomp_filter_on_io_uring_is_explained_within_100_ms() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        // The machine may be busy with other tests: the quickest of a few starts counts.
        let quickest = (0..5).map(|_| refused_by_filter(errno)).min().expect("five starts");
        assert!(quickest < Duration::from_millis(100), "it took {quickest:?} to say no");
    }
}

fn refused_by_filter(errno: i32) -> Duration {
    let asked = Instant::now();
    let said = refused(|command| forbid(command, libc::SYS_io_uring_setup, errno));
    assert!(said.contains("io_uring") && said.contains("seccomp"), "{said}");
    asked.elapsed()
}

/// As on a host where other rings hold what may be locked: the first ring can be had, or none, or glommio's alone.
#[test]
fn a_ring_that_there_is_no_memory_for_is_explained() {
    let setup = libc::SYS_io_uring_setup;
    let refusals = [
        refused(|command| forbid(command, setup, libc::ENOMEM)),
        refused(|command| forbid_where(command, setup, SHARD_RING, libc::ENOMEM)),
        refused(|command| forbid_where(command, setup, GLOMMIO_RING, libc::ENOMEM)),
    ];
    for said in refusals {
        assert!(said.contains("io_uring of a shard cannot be set up"), "{said}");
        assert!(said.contains("LimitMEMLOCK"), "{said}");
    }
    let said = refused(|command| forbid_where(command, setup, SHARD_RING, libc::EMFILE));
    assert!(said.contains("LimitNOFILE"), "{said}");
}

/// How many entries the ring of a shard asks for, and those of glommio.
const SHARD_RING: u32 = 1024;
const GLOMMIO_RING: u32 = 128;

/// Starts the daemon, which must refuse in one sentence, and returns what it says.
fn refused(hinder: impl Fn(&mut Command)) -> String {
    let dir = scratch();
    let config = dir.path().join("millpond.toml");
    fs::write(&config, Setup::default().toml(&dir.path().join("data")))
        .expect("the configuration can be written");
    let mut command = Command::new(MILLPOND);
    command.arg("serve").arg("--config").arg(&config);
    hinder(&mut command);
    let started = Started::spawn(command, &dir.path().join("log"));
    let (status, said) = started.refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

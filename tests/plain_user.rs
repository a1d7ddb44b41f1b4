//! A plain user with the usual limits runs the daemon: no privilege, no warning.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::daemon::{MILLPOND, Setup, Started};
use common::{bytes_of, get, post};
use rustix::process::{Resource, Rlimit, setrlimit};

/// `nobody`, where the test runs as root; elsewhere the test's own user is a plain one already.
const NOBODY: u32 = 65534;

#[test]
fn a_plain_user_with_8_mib_of_memlock_serves_without_a_warning() {
    // Not under target/: what lies there may be unreachable for anybody but its owner.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let binary = dir.path().join("millpond");
    fs::copy(MILLPOND, &binary).expect("the binary can be copied");
    let config = dir.path().join("millpond.toml");
    fs::write(&config, Setup::default().toml(&dir.path().join("data")))
        .expect("the configuration can be written");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");

    let mut command = Command::new(&binary);
    command.arg("serve").arg("--config").arg(&config).current_dir(dir.path());
    if rustix::process::geteuid().is_root() {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("root may give away a directory");
        command.uid(NOBODY).gid(NOBODY);
    }
    // SAFETY: the closure runs in the child between fork and exec and makes system calls that allocate nothing
    // and take no lock.
    unsafe {
        command.pre_exec(|| {
            let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
            setrlimit(Resource::Memlock, limit(8 << 20))?;
            setrlimit(Resource::Nofile, limit(1024))?;
            Ok(())
        });
    }
    let mut started = Started::spawn(command, &dir.path().join("log"));
    let ready =
        started.ready_line().unwrap_or_else(|| panic!("the daemon did not get ready:\n{}", started.log()));
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("the ready line is JSON");
    let addr = ready["loom"].as_str().expect("loom listens");

    let status =
        fs::read_to_string(format!("/proc/{}/status", started.child.id())).expect("its status is readable");
    let uids = status.lines().find(|line| line.starts_with("Uid:")).expect("a Uid line");
    assert!(uids.split_whitespace().skip(1).all(|uid| uid != "0"), "it runs as root: {uids}");

    post(addr, "plain", &bytes_of(1, 3 << 20)).expect(201);
    assert!(get(addr, "/stream/plain").expect(200).body == bytes_of(1, 3 << 20));
    started.child.kill().expect("SIGKILL can be sent");
    started.child.wait().expect("it can be waited for");
    let log = started.log();
    assert!(log.contains("listening"), "the log names its listeners: {log}");
    for word in ["WARN", "ERROR", "warning", "memlock", "panicked"] {
        assert!(!log.contains(word), "{word} in the log: {log}");
    }
}

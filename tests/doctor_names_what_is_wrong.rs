//! `millpond doctor` says of each thing that would keep the daemon from running well what it is and what to do,
//! and leaves nothing behind.
//!
//! Invariant: every run has an empty environment. Runs the built binary.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::daemon::{MILLPOND, scratch};
use common::seccomp::forbid;
use common::{Daemon, eventually};
use rustix::process::{Resource, Rlimit, setrlimit};

/// What a run said: verdict, what was found and what to do, by name; and its exit code.
struct Report {
    checks: BTreeMap<String, (String, String, String)>,
    code: Option<i32>,
}

impl Report {
    #[track_caller]
    fn of(&self, name: &str) -> (&str, &str, &str) {
        let (verdict, found, fix) =
            self.checks.get(name).unwrap_or_else(|| panic!("no check {name}: {:?}", self.checks));
        (verdict, found, fix)
    }

    fn failed(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|(_, (verdict, ..))| verdict == "fail");
        failed.map(|(name, _)| name.as_str()).collect()
    }
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(MILLPOND);
    command.env_clear().args(["doctor", "--json", "--data-dir"]).arg(data_dir);
    command
}

#[track_caller]
fn run(mut command: Command) -> Report {
    // A process that another test starts holds the copy that was just written open until its own exec.
    let output = eventually("millpond can be started", || match command.output() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
        output => Some(output.expect("millpond can be started")),
    });
    let said = String::from_utf8(output.stdout).expect("text");
    let json: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said:?} {:?}", output.stderr));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let checks = json["checks"].as_array().expect("checks").iter();
    let checks: BTreeMap<_, _> = checks
        .map(|check| {
            let told = (text(&check["verdict"]), text(&check["found"]), text(&check["fix"]));
            (text(&check["name"]), told)
        })
        .collect();
    for (name, (verdict, found, fix)) in &checks {
        assert!(!found.is_empty(), "{name} found nothing");
        assert_eq!(verdict == "ok", fix.is_empty(), "{name}: {verdict} with the fix {fix:?}");
    }
    let report = Report { checks, code: output.status.code() };
    assert_eq!(json["failed"].as_u64(), Some(report.failed().len() as u64));
    assert_eq!(report.code, Some(i32::from(!report.failed().is_empty())));
    report
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
}

#[test]
fn a_host_that_runs_these_tests_passes_and_nothing_is_left_behind() {
    let dir = scratch();
    let report = run(command(&dir.path().join("a/data")));
    assert_eq!(report.failed(), Vec::<&str>::new());
    for name in ["io_uring", "clock", "lock", "last written"] {
        assert_eq!(report.of(name).0, "ok", "{name}: {:?}", report.of(name));
    }
    assert_eq!(names(dir.path()), Vec::<String>::new());

    let said =
        Command::new(MILLPOND).env_clear().arg("doctor").current_dir(dir.path()).output().expect("runs");
    let said = String::from_utf8(said.stdout).expect("text");
    assert_eq!(said.lines().count(), report.checks.len());
    assert!(said.lines().any(|line| line.starts_with("io_uring       ok    ")), "{said}");
    assert_eq!(names(dir.path()), Vec::<String>::new(), "the default data directory is not made");
}

#[test]
fn a_seccomp_filter_on_io_uring_is_told_from_one_on_its_registrations() {
    let dir = scratch();
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut blocked = command(dir.path());
        forbid(&mut blocked, libc::SYS_io_uring_setup, errno);
        let report = run(blocked);
        assert_eq!(report.failed(), ["io_uring"]);
        let (_, found, fix) = report.of("io_uring");
        assert!(found.contains("seccomp filter") && fix.contains("io_uring_setup"), "{found}: {fix}");
    }
    let mut blocked = command(dir.path());
    forbid(&mut blocked, libc::SYS_io_uring_register, libc::EPERM);
    let report = run(blocked);
    assert_eq!(report.failed(), ["io_uring"]);
    assert!(report.of("io_uring").2.contains("io_uring_register"), "{:?}", report.of("io_uring"));
}

#[test]
fn limits_of_a_plain_user_are_told_with_what_to_raise() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("millpond");
    fs::copy(MILLPOND, &binary).expect("the binary can be copied");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let owned = dir.path().join("of another");
    fs::create_dir(&owned).expect("made");
    fs::set_permissions(&owned, fs::Permissions::from_mode(0o555)).expect("a mode");
    let mut plain = Command::new(&binary);
    plain.env_clear().args(["doctor", "--json", "--data-dir"]).arg(owned.join("data"));
    if rustix::process::geteuid().is_root() {
        chown(&binary, Some(65534), Some(65534)).expect("root may give away a file");
        plain.uid(65534).gid(65534);
    }
    // SAFETY: the closure runs in the child between fork and exec and makes system calls that allocate nothing
    // and take no lock.
    unsafe {
        plain.pre_exec(|| {
            let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
            setrlimit(Resource::Memlock, limit(64 << 10))?;
            setrlimit(Resource::Nofile, limit(1024))?;
            Ok(())
        });
    }
    let report = run(plain);
    // A ring is charged to what may be locked.
    assert_eq!(report.failed(), ["data_dir", "io_uring", "locked memory"]);
    assert!(report.of("io_uring").2.contains("LimitMEMLOCK"), "{:?}", report.of("io_uring"));
    let (_, found, fix) = report.of("locked memory");
    assert!(found.contains("65536 bytes") && fix.contains("LimitMEMLOCK"), "{found}: {fix}");
    let (verdict, found, fix) = report.of("open files");
    assert!(verdict == "warn" && found.contains("1024") && fix.contains("LimitNOFILE"), "{found}: {fix}");
    assert!(report.of("data_dir").1.contains("cannot be written"), "{:?}", report.of("data_dir"));
}

#[test]
fn a_directory_in_use_names_the_process_and_stays_in_use() {
    let daemon = Daemon::start();
    let before = names(&daemon.data_dir());
    let report = run(command(&daemon.data_dir()));
    assert_eq!(report.failed(), ["lock"]);
    let (_, found, _) = report.of("lock");
    assert!(found.contains(&format!("millpond (pid {})", daemon.pid())), "{found}");
    assert_eq!(names(&daemon.data_dir()), before);
    assert_eq!(report.of("last written").0, "ok");
}

#[test]
fn memory_disks_full_disks_and_files_from_the_future_are_named() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let report = run(command(memory.path()));
    let (verdict, found, _) = report.of("file system");
    assert!(verdict == "warn" && found.starts_with("tmpfs"), "{found}");

    let dir = scratch();
    let mut large = command(dir.path());
    large.args(["--shards", "1024"]).env("MILLPOND_SEGMENT_SIZE", "4GiB");
    let report = run(large);
    assert_eq!(report.failed(), ["free space"], "4 TiB: {:?}", report.of("free space"));

    let format = dir.path().join("FORMAT");
    let file = fs::File::create(&format).expect("made");
    file.set_modified(SystemTime::now() + Duration::from_secs(3 * 3600)).expect("its time can be set");
    let report = run(command(dir.path()));
    let (verdict, found, fix) = report.of("last written");
    assert!(verdict == "warn" && found.contains("FORMAT") && fix.contains("clock"), "{found}: {fix}");
}

#[test]
fn a_bad_configuration_is_not_examined() {
    let dir = scratch();
    let mut bad = command(dir.path());
    bad.args(["--shards", "many"]);
    let output = bad.output().expect("runs");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--shards"));
}

//! Real clients against the daemon: what each one stores comes back byte by byte, is listed and can be deleted.
//!
//! `.ci/run clients` installs them below the target directory. Where they are missing, CI fails and anyone else is
//! told what was skipped.

mod common;

use std::path::Path;
use std::process::Command;

use common::moto::clients;
use common::s3::{ID, SECRET, with_keys};
use common::{Setup, daemon::scratch};

#[test]
fn boto3() {
    round_trips("boto3");
}

#[test]
fn aws_cli() {
    round_trips("awscli");
}

#[test]
fn s5cmd() {
    round_trips("s5cmd");
}

#[test]
fn s3cmd() {
    round_trips("s3cmd");
}

#[test]
fn rclone() {
    round_trips("rclone");
}

#[test]
fn minio_py() {
    round_trips("minio");
}

#[test]
fn aws_sdk_for_javascript() {
    round_trips("js");
}

/// A bucket as a file system, where the kernel lets us mount one.
#[test]
fn s3fs() {
    round_trips("s3fs");
}

#[track_caller]
fn round_trips(client: &str) {
    let installed = clients();
    let python = installed.join("venv/bin/python");
    let needed = match client {
        "js" => vec![installed.join("js/node_modules/@aws-sdk/client-s3")],
        "s3fs" => {
            vec![python.clone(), "/usr/bin/s3fs".into(), "/usr/bin/fusermount3".into(), "/dev/fuse".into()]
        }
        _ => vec![python.clone()],
    };
    if let Some(missing) = needed.iter().find(|needed| !needed.exists()) {
        let sentence = format!(
            "{} is missing; `.ci/run tools clients` installs the clients, and s3fs needs FUSE",
            missing.display()
        );
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{sentence}");
        eprintln!("SKIPPED {client}: {sentence}");
        return;
    }
    let daemon = Setup::default().s3(&with_keys()).start();
    let dir = scratch();
    if client == "js" {
        // Modules are looked for from where the script lies.
        std::os::unix::fs::symlink(installed.join("js"), dir.path().join("js")).expect("a link");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/round_trips.py");
    let endpoint = format!("http://{}", daemon.s3());
    let done = Command::new(&python)
        .arg(script)
        .args([client, &endpoint, ID, SECRET])
        .arg(dir.path())
        .output()
        .expect("python can be started");
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(!daemon.log().contains("panicked"), "a client was too much for it:\n{}", daemon.log());
}

//! What `check-config` makes of another server's configuration, `check-config` accepts.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::daemon::{MILLPOND, scratch};

fn check_config(args: &[&str], file: &Path) -> Output {
    let mut command = Command::new(MILLPOND);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLPOND_")) {
        command.env_remove(name);
    }
    command.arg("check-config").args(args).arg(file).output().expect("it runs")
}

/// Imports a text, checks what comes out, and gives it back with what the check says about it.
#[track_caller]
fn imported(flag: &str, text: &str) -> (String, String) {
    let dir = scratch();
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours.toml"));
    fs::write(&theirs, text).unwrap();
    let output = check_config(&[flag], &theirs);
    assert!(output.status.success(), "{output:?}");
    fs::write(&ours, &output.stdout).unwrap();
    let checked = check_config(&["--config"], &ours);
    assert!(checked.status.success(), "{checked:?}");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(checked.stdout))
}

#[test]
fn vblobs_default_file_is_translated_into_one_that_is_accepted() {
    let json = r#"{
        "drivers": [
            {"fs-1": {"type": "fs", "option": {"root": "/var/vblob", "quota": 1048576, "obj_limit": 100, "collector": true}}},
            {"s3-1": {"type": "s3", "option": {"key": "hidden", "secret": "hidden"}}}
        ],
        "port": "19981", "current_driver": "fs-1", "logtype": "winston", "logfile": "./log.txt",
        "keyID": "dummy", "secretID": "dummy", "auth": "basic", "account_api": true
    }"#;
    let (toml, checked) = imported("--import-vblob", json);
    for key in
        ["vblob.listen", "vblob.auth", "vblob.key_id", "vblob.secret_id", "vblob.quota", "vblob.object_limit"]
    {
        assert!(checked.contains(key), "{key} is set: {checked}");
    }
    assert!(checked.contains("vblob.account_api") && checked.contains("vblob.account_file"), "{checked}");
    for key in
        ["logtype", "logfile", "drivers.s3-1", "drivers.fs-1.option.root", "drivers.fs-1.option.collector"]
    {
        assert!(toml.contains(&format!("#   {key}: ")), "{key} is named: {toml}");
    }
    assert!(!toml.contains("hidden"), "{toml}");
}

#[test]
fn looms_file_is_translated_into_one_that_is_accepted() {
    let (toml, checked) = imported(
        "--import-loom",
        "host: 127.0.0.1\nport: 13060\ntokens:\n  - one\ndbHost: db\nstorageCompress: true\n",
    );
    assert!(checked.contains("loom.listen") && checked.contains("loom.tokens"), "{checked}");
    assert!(toml.contains("#   dbHost: ") && toml.contains("#   storageCompress: "), "{toml}");
}

#[test]
fn a_file_of_another_kind_is_refused_with_78_and_its_name() {
    let dir = scratch();
    let file = dir.path().join("theirs");
    for (flag, text) in
        [("--import-vblob", "port: 1"), ("--import-vblob", "{\"port\":\"x\"}"), ("--import-loom", "{}")]
    {
        fs::write(&file, text).unwrap();
        let output = check_config(&[flag], &file);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("theirs: not "), "{output:?}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(check_config(&["--import-loom"], &dir.path().join("none")).status.code(), Some(78));
}

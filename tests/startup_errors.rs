//! A daemon that cannot start says why in one sentence, exits with the right code, and leaves nothing behind.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use common::daemon::{MILLPOND, Started, scratch};
use common::{Daemon, Setup};

/// Starts with a configuration that must be refused.
fn refused(toml: &str, dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let config = dir.join("refused.toml");
    fs::write(&config, toml).expect("the configuration can be written");
    let mut command = Command::new(MILLPOND);
    command.arg("serve").arg("--config").arg(&config).args(args);
    let (status, said) = Started::spawn(command, &dir.join("refused.log")).refused();
    (status.code(), said)
}

#[track_caller]
fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    // Lines of the log may stand before it; the reason is one sentence on one line.
    assert!(said.lines().filter(|line| line.contains(words[0])).count() >= 1, "{said}");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = holder.local_addr().expect("its address").to_string();
    for (setup, key) in [
        (Setup::default().loom_listen(&format!("\"{addr}\"")), "loom.listen"),
        (Setup::default().admin_listen(&format!("\"{addr}\"")), "admin.listen"),
    ] {
        let dir = scratch();
        let (code, said) = refused(&setup.toml(&dir.path().join("data")), dir.path(), &[]);
        assert_eq!(code, Some(1), "{said}");
        assert_says(&said, &[&addr, key]);
    }
}

#[test]
fn another_millpond_on_the_port_is_noticed() {
    // Both would share the port silently if only SO_REUSEPORT were asked.
    let first = Daemon::start();
    let dir = scratch();
    let toml = Setup::default().loom_listen(&format!("\"{}\"", first.loom())).toml(&dir.path().join("data"));
    let (code, said) = refused(&toml, dir.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &[first.loom(), "loom.listen"]);
    first.get("/stream/absent").expect(404);
}

#[test]
fn a_locked_data_directory_is_named_with_its_holder() {
    let first = Daemon::start();
    let dir = scratch();
    let (code, said) = refused(&Setup::default().toml(&first.data_dir()), dir.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &[&first.data_dir().display().to_string(), "data_dir", &first.pid().to_string()]);
    first.get("/stream/absent").expect(404);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let mut daemon = Daemon::start();
    common::post(daemon.loom(), "kept", b"x").expect(201);
    daemon.terminate();
    let copies = ["FORMAT", "FORMAT.2"].map(|name| daemon.data_dir().join(name));
    let write = |text: &str| copies.iter().for_each(|copy| fs::write(copy, text).expect("it can be written"));
    let text = fs::read_to_string(&copies[0]).expect("FORMAT is text");
    let digits = text.find(|c: char| c.is_ascii_digit()).expect("FORMAT names a version");
    let end = text[digits..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |len| digits + len);
    let newer = format!("{}9999{}", &text[..digits], &text[end..]);
    write(&newer);

    let dir = scratch();
    let (code, said) = refused(&Setup::default().toml(&daemon.data_dir()), dir.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &["9999", &daemon.data_dir().display().to_string()]);
    for copy in &copies {
        assert_eq!(fs::read_to_string(copy).unwrap(), newer, "a refused directory is left as it is");
    }

    write(&text);
    daemon.restart();
    assert_eq!(daemon.get("/stream/kept").expect(200).body, b"x");
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let dir = scratch();
    fs::write(dir.path().join("file"), b"in the way").expect("a file");
    let path = dir.path().join("file/data");
    let (code, said) = refused(&Setup::default().toml(&path), dir.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &[&path.display().to_string(), "data_dir"]);
}

#[test]
fn mistakes_in_the_configuration_exit_78_with_key_value_place_and_what_is_accepted() {
    let base = |dir: &Path| Setup::default().toml(&dir.join("data"));
    for (wrong, words) in [
        ("durability = \"fast\"", &["durability", "fast", "refused.toml", "sync", "cache"][..]),
        ("shards = -1", &["shards", "-1", "refused.toml"]),
        ("segment_size = \"1KiB\"", &["segment_size", "1KiB", "16MiB"]),
        ("drain_timeout = \"soon\"", &["drain_timeout", "soon"]),
        ("durabilty = \"sync\"", &["durabilty", "durability"]),
        ("data_dir = [", &["refused.toml"]),
    ] {
        let dir = scratch();
        // A key that the base has already would be a second mistake.
        let key = wrong.split(' ').next().unwrap();
        let rest: String = base(dir.path())
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} ")))
            .map(|line| format!("{line}\n"))
            .collect();
        let (code, said) = refused(&format!("{wrong}\n{rest}"), dir.path(), &[]);
        assert_eq!(code, Some(78), "{wrong}: {said}");
        assert_says(&said, words);
        assert!(!dir.path().join("data").exists(), "{wrong}: a data directory was made");
    }
}

#[test]
fn two_listeners_on_one_address_exit_78() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dir = scratch();
    let setup = Setup::default().loom_listen(&format!("\"{free}\"")).admin_listen(&format!("\"{free}\""));
    let (code, said) = refused(&setup.toml(&dir.path().join("data")), dir.path(), &[]);
    assert_eq!(code, Some(78), "{said}");
    assert_says(&said, &[&free, "loom.listen", "admin.listen"]);
    TcpListener::bind(&free).expect("nothing stays bound");
}

#[test]
fn a_missing_configuration_file_is_named() {
    let dir = scratch();
    let path = dir.path().join("absent.toml");
    let mut command = Command::new(MILLPOND);
    command.arg("serve").arg("--config").arg(&path);
    let (status, said) = Started::spawn(command, &dir.path().join("log")).refused();
    assert!(matches!(status.code(), Some(1 | 78)), "{status:?} {said}");
    assert_says(&said, &[&path.display().to_string()]);
}

#[test]
fn when_one_listener_fails_the_others_are_not_left_bound() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().unwrap().to_string();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dir = scratch();
    let setup = Setup::default().loom_listen(&format!("[\"{free}\", \"{taken}\"]"));
    let (code, said) = refused(&setup.toml(&dir.path().join("data")), dir.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &[&taken]);
    TcpListener::bind(&free).expect("the other address is free again");
    drop(holder);
    // And the data directory is not left locked.
    let mut command = Command::new(MILLPOND);
    command.arg("serve").arg("--config").arg(dir.path().join("refused.toml"));
    let mut started = Started::spawn(command, &dir.path().join("second.log"));
    let ready = started.ready_line();
    let _ = started.child.kill();
    let _ = started.child.wait();
    assert!(ready.is_some(), "{}", started.log());
}

#[test]
fn a_mistake_in_the_arguments_exits_2() {
    for args in [&["serve", "--no-such-flag"][..], &["no-such-command"], &["serve", "--ready-fd", "x"]] {
        let output = Command::new(MILLPOND).args(args).output().expect("millpond runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}

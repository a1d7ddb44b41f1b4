//! A value comes from the first of flag, environment, file and default that names its key.
//!
//! Invariant: the winner replaces the others whole, and its place is the one that is reported.
//! Runs the library for every combination of sources, and the built binary for a few.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use millpond::config::{Config, Listen, Origin, Secret, Sources};

#[test]
fn the_strongest_source_wins_in_every_combination() {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), "\nshards = 1\n").expect("write");
    for combination in 0..8 {
        let [in_file, in_env, in_flag] = [1, 2, 4].map(|bit| combination & bit != 0);
        let mut sources = Sources::new(in_file.then(|| file.path().to_owned()));
        if in_env {
            sources = sources.with_env([(OsString::from("MILLPOND_SHARDS"), OsString::from("2"))]);
        }
        if in_flag {
            sources = sources.with_flag("--shards", "shards", &["3".to_owned()]);
        }
        let expected = match (in_flag, in_env, in_file) {
            (true, _, _) => (3, Origin::Flag("--shards".to_owned())),
            (_, true, _) => (2, Origin::Env("MILLPOND_SHARDS".to_owned())),
            (_, _, true) => (1, Origin::File(file.path().into(), 2)),
            _ => (0, Origin::Default),
        };
        let config = Config::load(&sources).expect("good").config;
        assert_eq!((config.shards, config.origin("shards")), expected, "{combination:03b}");
    }
}

#[test]
fn lists_are_replaced_and_never_joined() {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), "[loom]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\ntokens = [\"file\"]\n")
        .expect("write");
    let vars = [
        (OsString::from("MILLPOND_LOOM_LISTEN"), OsString::from("127.0.0.1:3,127.0.0.1:4")),
        (OsString::from("MILLPOND_LOOM_TOKENS"), OsString::from("env, env2")),
    ];
    let sources = Sources::new(Some(file.path().into())).with_env(vars);
    let config = Config::load(&sources).expect("good").config;
    assert_eq!(config.loom.listen, [3, 4].map(Listen::loopback));
    assert_eq!(config.loom.tokens, ["env", "env2"].map(Secret::new));

    let flags = ["127.0.0.1:5".to_owned(), "127.0.0.1:6,127.0.0.1:7".to_owned()];
    let sources = sources.with_flag("--loom-listen", "loom.listen", &flags);
    let config = Config::load(&sources).expect("good").config;
    assert_eq!(config.loom.listen, [5, 6, 7].map(Listen::loopback));
    // The key that the flag does not name stays with the environment.
    assert_eq!(config.loom.tokens, ["env", "env2"].map(Secret::new));
}

#[test]
fn half_of_a_table_from_a_stronger_source_leaves_the_other_half() {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), "[loom]\nretention = { max_age = \"1h\", max_bytes = \"1MiB\" }\n")
        .expect("write");
    let vars = [(OsString::from("MILLPOND_LOOM_RETENTION_MAX_AGE"), OsString::from("2h"))];
    let config = Config::load(&Sources::new(Some(file.path().into())).with_env(vars)).expect("good").config;
    assert_eq!(config.loom.retention.max_age.to_string(), "2h");
    assert_eq!(config.loom.retention.max_bytes.to_string(), "1MiB");
    assert_eq!(config.origin("loom.retention.max_bytes"), Origin::File(file.path().into(), 2));
}

/// Runs `serve` with one mistake that always ends it, and returns what else it had to say.
fn serve(dir: &Path, vars: &[(&str, &str)], args: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command
        .args(["serve", "--shards", "none"])
        .args(args)
        .current_dir(dir)
        .env_clear()
        .envs(vars.iter().copied());
    let output = command.output().expect("run");
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    text.lines().filter(|line| !line.contains("shards = \"none\"")).map(str::to_owned).collect()
}

#[test]
fn the_daemon_judges_the_winner_only() {
    let dir = tempfile::tempdir().expect("directory");
    // Each of these is a good address, but the one of the admin listener cannot be used twice.
    fs::write(dir.path().join("m.toml"), "[loom]\nlisten = \"127.0.0.1:9400\"\n").expect("write");
    let taken = ("MILLPOND_LOOM_LISTEN", "127.0.0.1:9400");
    let free = ("MILLPOND_LOOM_LISTEN", "127.0.0.1:0");
    let file = ["--config", "m.toml"];

    let found = serve(dir.path(), &[], &file);
    assert!(found.len() == 1 && found[0].starts_with("m.toml:2: loom.listen = "), "{found:?}");
    assert_eq!(serve(dir.path(), &[free], &file), Vec::<String>::new());

    let found = serve(dir.path(), &[taken], &[]);
    assert!(found.len() == 1 && found[0].starts_with("environment MILLPOND_LOOM_LISTEN: "), "{found:?}");
    let flag = ["--config", "m.toml", "--loom-listen", "127.0.0.1:0"];
    assert_eq!(serve(dir.path(), &[taken], &flag), Vec::<String>::new());

    let flag = ["--loom-listen", "127.0.0.1:9400"];
    let found = serve(dir.path(), &[free], &flag);
    assert!(found.len() == 1 && found[0].starts_with("flag --loom-listen: loom.listen = "), "{found:?}");
}

#[test]
fn a_mistake_in_an_overridden_source_is_still_reported() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("m.toml"), "durability = \"hope\"\n").expect("write");
    let found = serve(dir.path(), &[("MILLPOND_DURABILITY", "cache")], &["--config", "m.toml"]);
    assert!(found.len() == 1 && found[0].starts_with("m.toml:1: durability = \"hope\""), "{found:?}");
}

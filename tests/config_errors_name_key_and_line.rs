//! A bad configuration ends with exit code 78 and says where each mistake is, and nothing was bound,
//! opened or written before.
//!
//! Invariant: every run has an empty environment and a directory of its own.
//! Runs the built binary.

use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output};

fn millpond(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.args(args).current_dir(dir).env_clear();
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// The names in a directory: what a run left behind.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    names.sort();
    names
}

fn assert_refused(output: &Output, lines: &[&str]) {
    assert_eq!(text(&output.stderr).lines().collect::<Vec<_>>(), lines);
    assert_eq!(text(&output.stdout), "");
    assert_eq!(output.status.code(), Some(78));
}

const BAD: &str = r#"data_dir = "./data"
shards = "many"

[loom]
listen = "127.0.0.1:99999"
tokens = "hush"
lisen = "127.0.0.1:1"

[s3]
listen = "unix:s3.sock"
"#;

const BAD_LINES: [&str; 5] = [
    r#"millpond.toml:2: shards = "many": expected an integer, found a string; accepted: a whole number from 0 to 1024"#,
    r#"millpond.toml:5: loom.listen = "127.0.0.1:99999": port out of range; accepted: "host:port" with port 0 to 65535, or "unix:/path""#,
    "millpond.toml:6: loom.tokens = (secret): expected a list, found a string; accepted: a list of: a string that is not empty",
    "millpond.toml:7: loom.lisen: unknown key, did you mean loom.listen?; accepted: enabled, listen, tokens, interrupted, retention, tls, quota, max_streams, max_stream_bytes",
    r#"millpond.toml:10: s3.listen = "unix:s3.sock": the path of a unix socket must be absolute; accepted: "host:port" with port 0 to 65535, or "unix:/path""#,
];

#[test]
fn serve_and_check_config_report_the_same_mistakes_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("millpond.toml"), BAD).expect("file");
    for command in ["serve", "check-config"] {
        let output = millpond(dir.path(), &[command, "--config", "millpond.toml"]).output().expect("run");
        assert_refused(&output, &BAD_LINES);
        assert_eq!(names(dir.path()), ["millpond.toml"], "{command}");
    }
}

#[test]
fn serve_names_both_places_of_two_listeners_on_one_address() {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("both.sock");
    let address = format!("unix:{}", socket.display());
    fs::write(dir.path().join("m.toml"), format!("[loom]\n\nlisten = {address:?}\n")).expect("file");
    let output = millpond(dir.path(), &["serve", "--config", "m.toml", "--s3-listen", &address]).output();
    let expected = format!(
        "flag --s3-listen: s3.listen = {address:?}: the address is also wanted by loom.listen = {address:?} \
         (m.toml:3); accepted: an address of its own, or port 0 for any free port"
    );
    assert_refused(&output.expect("run"), &[&expected]);
    assert_eq!(names(dir.path()), ["m.toml"]);
}

#[test]
fn serve_refuses_s3_off_loopback_without_keys() {
    let dir = tempfile::tempdir().expect("directory");
    let output = millpond(dir.path(), &["serve", "--s3-listen", "0.0.0.0:0"]).output().expect("run");
    let expected = "flag --s3-listen: s3.listen = \"0.0.0.0:0\": reachable from off loopback while s3.access_keys is \
                    empty (default); accepted: an address on loopback, \"unix:/path\", or s3.access_keys = \
                    [{ id = \"…\", secret = \"…\" }]";
    assert_refused(&output, &[expected]);
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[test]
fn serve_refuses_limits_that_contradict_each_other() {
    let dir = tempfile::tempdir().expect("directory");
    let limits = "[loom]\nretention = { max_age = \"1ms\", max_bytes = \"2GiB\" }\nquota = \"1GiB\"\n";
    fs::write(dir.path().join("m.toml"), limits).expect("file");
    let expected = [
        r#"m.toml:2: loom.retention.max_age = "1ms": shorter than a second; accepted: "0s", which keeps streams, or "1s" and more"#,
        r#"m.toml:2: loom.retention.max_bytes = "2GiB": never reached, because of loom.quota = "1GiB" (m.toml:3); accepted: at most loom.quota, or "0B", which is no limit"#,
    ];
    for command in ["serve", "check-config"] {
        let output = millpond(dir.path(), &[command, "--config", "m.toml"]).output().expect("run");
        assert_refused(&output, &expected);
        assert_eq!(names(dir.path()), ["m.toml"], "{command}");
    }
    // What is not served keeps and drops nothing.
    let mut off = millpond(dir.path(), &["check-config", "--config", "m.toml"]);
    let output = off.env("MILLPOND_LOOM_ENABLED", "false").output().expect("run");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn variables_are_held_to_the_same_rules() {
    let dir = tempfile::tempdir().expect("directory");
    let output = millpond(dir.path(), &["check-config"])
        .env("MILLPOND_SEGMENT_SIZE", "1GiB,")
        .env("MILLPOND_LOOM_TOKENS", std::ffi::OsString::from_vec(vec![0xff]))
        .output();
    let expected = [
        r#"environment MILLPOND_SEGMENT_SIZE: segment_size = "1GiB,": unknown unit; accepted: a whole number and a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB), such as "64MiB""#,
        "environment MILLPOND_LOOM_TOKENS: loom.tokens: not UTF-8 text; accepted: UTF-8 text",
    ];
    assert_refused(&output.expect("run"), &expected);
}

#[test]
fn a_missing_file_is_a_bad_configuration() {
    let dir = tempfile::tempdir().expect("directory");
    let output = millpond(dir.path(), &["serve", "--config", "absent.toml"]).output().expect("run");
    assert_refused(&output, &["absent.toml: cannot be read: No such file or directory (os error 2)"]);
}

#[test]
fn a_good_configuration_is_ok_and_binds_and_writes_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    // Held by us: whoever tried to bind it would fail.
    let held = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = held.local_addr().expect("address");
    let socket = dir.path().join("admin.sock");
    let config = format!(
        "[admin]\nlisten = \"unix:{}\"\n[loom]\ntokens = [\"hush\"]\nlisten = \"{address}\"\n",
        socket.display()
    );
    fs::write(dir.path().join("m.toml"), config).expect("file");
    let output = millpond(dir.path(), &["check-config", "--config", "m.toml"])
        .env("MILLPOND_LOG", "json")
        .env("MILLPOND_LGO", "json")
        .output()
        .expect("run");
    let expected = "ok, 4 values differ from the defaults\n  \
                    log           environment MILLPOND_LOG\n  \
                    admin.listen  m.toml:2\n  \
                    loom.listen   m.toml:5\n  \
                    loom.tokens   m.toml:4\n";
    assert_eq!(text(&output.stdout), expected);
    let warning =
        "warning: environment MILLPOND_LGO: no key has this name, the nearest is MILLPOND_LOG; ignored\n";
    assert_eq!(text(&output.stderr), warning);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(names(dir.path()), ["m.toml"]);
}

#[test]
fn the_example_is_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/millpond.example.toml");
    let dir = tempfile::tempdir().expect("directory");
    let output = millpond(dir.path(), &["check-config", "--config"]).arg(example).output().expect("run");
    assert_eq!(text(&output.stdout), "ok, every value is the default\n");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn mistakes_in_the_arguments_are_usage_errors() {
    let dir = tempfile::tempdir().expect("directory");
    for args in [
        &[][..],
        &["server"],
        &["serve", "--lom-listen", "127.0.0.1:0"],
        &["serve", "--ready-fd", "-1"],
        &["check-config", "extra"],
        &["verify", "dir"],
        &["pipe", "http://127.0.0.1:1"],
        &["tail", "http://127.0.0.1:1", "id", "--offset", "x"],
    ] {
        let output = millpond(dir.path(), args).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn the_long_version_tells_how_it_was_built() {
    let dir = tempfile::tempdir().expect("directory");
    let short = millpond(dir.path(), &["-V"]).output().expect("run");
    let version = format!("millpond {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&short.stdout).trim_end(), version);
    let long = text(&millpond(dir.path(), &["--version"]).output().expect("run").stdout);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], version);
    for (line, name) in lines[1..].iter().zip(["revision: ", "rustc: ", "features: "]) {
        assert!(line.strip_prefix(name).is_some_and(|value| !value.is_empty()), "{long}");
    }
    assert_eq!(lines.len(), 4);
}

#[test]
fn completions_are_a_script_that_knows_the_flags() {
    let dir = tempfile::tempdir().expect("directory");
    let output = millpond(dir.path(), &["completions", "bash"]).output().expect("run");
    assert_eq!(output.status.code(), Some(0));
    let script = text(&output.stdout);
    for word in ["--loom-listen", "check-config", "--ready-fd"] {
        assert!(script.contains(word), "{word}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_named_stream_takes_the_arguments_of_the_producer_tool() {
    let dir = tempfile::tempdir().expect("directory");
    let link = dir.path().join("stream");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_millpond"), &link).expect("link");
    let output = Command::new(&link).arg("--help").env_clear().output().expect("run");
    let help = text(&output.stdout);
    assert!(help.contains("Usage: stream") && help.contains("--force"), "{help}");
    assert!(!help.contains("check-config"), "{help}");
}

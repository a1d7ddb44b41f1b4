//! Tells the program how it was built: git revision, compiler and features, for `--version`.
//!
//! Invariant: never fails the build; what cannot be learned, as in an unpacked archive, is `unknown`.
//! Runs at build time.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    publish("MILLPOND_BUILD_REVISION", revision());
    let rustc = output(Command::new(rustc).arg("--version"));
    publish("MILLPOND_BUILD_RUSTC", rustc.map(|text| text.trim_start_matches("rustc ").to_owned()));
    publish("MILLPOND_BUILD_FEATURES", Some(features()));
}

fn publish(name: &str, value: Option<String>) {
    println!("cargo::rustc-env={name}={}", value.as_deref().unwrap_or("unknown"));
}

fn revision() -> Option<String> {
    // An archive unpacked inside some other repository must not borrow that one's revision.
    let top = output(git().args(["rev-parse", "--show-toplevel"]))?;
    let here = env::var_os("CARGO_MANIFEST_DIR")?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // HEAD changes with the branch, its log with every commit, checkout and rebase.
    for name in ["HEAD", "logs/HEAD"] {
        let path = output(git().args(["rev-parse", "--git-path", name]));
        // A path that does not exist would run this script before every build.
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    output(git().args(["rev-parse", "--short=12", "HEAD"]))
}

fn git() -> Command {
    Command::new("git")
}

fn features() -> String {
    let names =
        env::vars().filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase));
    let mut names: Vec<String> = names.filter(|name| name != "default").collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

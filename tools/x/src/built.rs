//! Tests of the tree as programs: built once and then run directly, so that a long soak is of one build, whatever
//! becomes of the sources meanwhile.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

/// Builds the file `tests/TEST.rs` with a profile; the program that it became.
pub fn test(root: &Path, profile: &str, test: &str) -> io::Result<PathBuf> {
    let output = crate::apart("cargo")
        .args(["test", "--profile", profile, "--test", test, "--no-run", "--message-format", "json"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    executable(&said, test).ok_or_else(|| io::Error::other(format!("cargo built no test {test}")))
}

/// The test among what cargo says that it made.
fn executable(said: &str, test: &str) -> Option<PathBuf> {
    let made = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut of_test = made.filter(|made| made["target"]["name"] == test);
    of_test.find_map(|made| made["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_is_found_among_what_cargo_made() {
        let said = r#"{"target":{"name":"millpond"},"executable":"/a"}
{"target":{"name":"store_sim"},"executable":"/b"}"#;
        assert_eq!(executable(said, "store_sim"), Some("/b".into()));
        assert_eq!(executable(said, "crash"), None);
    }
}

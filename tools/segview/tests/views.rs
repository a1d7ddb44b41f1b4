//! What is printed of data directories of known content: those that every release opens.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One directory per format.
fn fixtures() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    std::fs::read_dir(all).expect("the fixtures").flatten().map(|entry| entry.path()).collect()
}

/// Exit code, lines and complaint.
fn view(file: &Path, args: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_segview")).arg(file).args(args).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let lines = text(output.stdout).lines().map(str::to_owned).collect();
    (output.status.code(), lines, text(output.stderr))
}

fn objects(file: &Path, args: &[&str]) -> Vec<Value> {
    let (code, lines, complaint) = view(file, &[args, &["--json"]].concat());
    assert_eq!(code, Some(0), "{complaint}");
    lines.iter().map(|line| serde_json::from_str(line).expect("an object per line")).collect()
}

/// The files of one kind in a data directory.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folders = std::fs::read_dir(dir).expect("a fixture").flatten();
    for folder in folders.filter(|entry| entry.path().is_dir()) {
        let files = std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|file| file.path());
        found.extend(files.filter(|path| path.extension().is_some_and(|it| it == suffix)));
    }
    found.sort();
    found
}

#[test]
fn every_record_is_a_line_and_filters_hold() {
    fixtures().iter().for_each(|dir| records_of(dir));
}

fn records_of(dir: &Path) {
    let (mut names, mut ends) = (Vec::new(), 0);
    for file in files(dir, "mpj").into_iter().chain(files(dir, "mpc")) {
        let all = objects(&file, &[]);
        let seqs: Vec<u64> = all.iter().filter_map(|it| it["seq"].as_u64()).collect();
        assert!(seqs.is_sorted_by(|one, next| one + 1 == *next), "{seqs:?}");
        assert_eq!(all.last().map(|it| it["kind"].clone()), Some("end".into()));
        ends += 1;
        let of_kind = |kinds: &[&str]| {
            let args: Vec<&str> = kinds.iter().flat_map(|kind| ["--kind", kind]).collect();
            objects(&file, &args).into_iter().filter(|it| it["seq"].is_u64()).collect::<Vec<_>>()
        };
        let named = of_kind(&["name", "stream"]);
        assert!(named.iter().all(|it| it["kind"] == "name" || it["kind"] == "stream"));
        names.extend(named.iter().map(|it| it["key"].as_str().expect("a name").to_owned()));
        assert_eq!(of_kind(&["no such kind"]), Vec::<Value>::new());
        for record in objects(&file, &["--key", "complete"]).iter().filter(|it| it["seq"].is_u64()) {
            assert!(record["key"] == "complete" || record["uid"].is_string(), "{record}");
        }
        let middle = all[all.len() / 2]["offset"].as_u64().expect("a position");
        let later = objects(&file, &["--from", &middle.to_string()]);
        assert_eq!(later[1..], all[all.len() / 2..], "the header, and what comes from there on");
        let (_, lines, _) = view(&file, &[]);
        assert_eq!(lines.len(), all.len());
    }
    assert!(ends >= 2, "two logs");
    for name in ["complete", "replaced", "empty", "interrupted"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
}

#[test]
fn a_bulk_segment_is_run_by_run_without_a_gap() {
    fixtures().iter().for_each(|dir| runs_of(dir));
}

fn runs_of(dir: &Path) {
    let mut found = Vec::new();
    for file in files(dir, "mpb") {
        let all = objects(&file, &["--data-dir", dir.to_str().expect("text")]);
        let mut at = 4096;
        for stretch in &all[1..] {
            assert_eq!(stretch["offset"].as_u64(), Some(at), "{stretch}");
            at += stretch["len"].as_u64().expect("a length");
        }
        assert_eq!(at, std::fs::metadata(&file).expect("there").len());
        found.extend(all.iter().filter_map(|it| it["key"].as_str().map(str::to_owned)));
        let (code, _, complaint) = view(&file, &[]);
        assert!(code == Some(1) && complaint.contains("--data-dir"), "{complaint}");
    }
    assert!(found.contains(&"complete".to_owned()) && !found.contains(&"deleted".to_owned()), "{found:?}");
}

#[test]
fn damage_is_shown_where_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = files(&fixtures()[0], "mpj").remove(0);
    let victim = objects(&journal, &["--kind", "name"]).remove(1);
    let at = victim["offset"].as_u64().expect("a position");
    let mut bytes = std::fs::read(&journal).expect("readable");
    bytes[at as usize + 50] ^= 1;
    let copy = dir.path().join("copy.mpj");
    std::fs::write(&copy, &bytes).expect("written");
    let damaged: Vec<_> = objects(&copy, &[]).into_iter().filter(|it| it["kind"] == "DAMAGED").collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!((&damaged[0]["offset"], &damaged[0]["was"]), (&at.into(), &"name".into()));
    let other = dir.path().join("other");
    std::fs::write(&other, b"no segment").expect("written");
    let (code, _, complaint) = view(&other, &[]);
    assert!(code == Some(1) && complaint.contains("no segment"), "{complaint}");
}

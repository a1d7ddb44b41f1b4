//! `millpond verify` names each damage with its place and its cost, changes no byte, and tells by its exit code whether
//! the directory is whole, damaged, or could not be checked.
//!
//! Runs the built binary.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::daemon::{MILLPOND, scratch};
use common::damage::{files, flip, flip_in};
use common::http::request;
use common::{Daemon, Producer, Setup, bytes_of, post, sha256};

/// What a run said: its exit code, its lines, and the object that `--json` printed.
struct Said {
    code: Option<i32>,
    lines: Vec<String>,
    complaint: String,
    json: serde_json::Value,
}

impl Said {
    fn damage(&self) -> &Vec<serde_json::Value> {
        self.json["damage"].as_array().unwrap_or_else(|| panic!("no list of damage: {}", self.json))
    }

    /// The one damage there is.
    #[track_caller]
    fn only(&self) -> &serde_json::Value {
        let [damage] = &self.damage()[..] else { panic!("not one damage: {:#?}", self.lines) };
        damage
    }
}

/// Runs it both ways, and holds it to its word that nothing changes.
#[track_caller]
fn verify(dir: &Path) -> Said {
    let before = fingerprint(dir);
    let said = ask(dir);
    assert_eq!(fingerprint(dir), before, "a look changes nothing");
    said
}

#[track_caller]
fn ask(dir: &Path) -> Said {
    let run = |args: &[&str]| {
        let output = Command::new(MILLPOND).arg("verify").arg(dir).args(args).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, lines, complaint) = run(&[]);
    let (again, json, _) = run(&["--json"]);
    assert_eq!(code, again, "both forms agree");
    let json = serde_json::from_str(&json).unwrap_or_default();
    Said { code, lines: lines.lines().map(str::to_owned).collect(), complaint, json }
}

/// Every file with its content, times and mode.
fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, (String, std::time::SystemTime, u32)> {
    let of = |path: PathBuf| {
        let metadata = fs::metadata(&path).expect("there");
        let mut bytes = Vec::new();
        fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("readable");
        let seen = (sha256(&bytes), metadata.modified().expect("a time"), metadata.permissions().mode());
        (path, seen)
    };
    if dir.is_dir() { files(dir).into_iter().map(of).collect() } else { BTreeMap::new() }
}

fn written() -> Daemon {
    let mut daemon = Setup::default().shards(1).start();
    for (id, len) in [("one", 1000), ("two", 700_000), ("three", 3000)] {
        let headers = [("X-Stream-Metadata", &*format!("{{\"mark\":\"of {id}\"}}"))];
        request(daemon.loom(), "POST", &format!("/stream/{id}"), &headers, &bytes_of(len as u64, len))
            .expect(201);
    }
    let mut cut = Producer::begin(daemon.loom(), "cut");
    cut.chunk(bytes_of(4, 5000));
    post(daemon.loom(), "gone", &bytes_of(5, 50_000)).expect(201);
    request(daemon.loom(), "DELETE", "/stream/gone", &[], b"").expect(204);
    daemon.kill9();
    daemon
}

#[test]
fn a_directory_as_it_was_written_is_whole() {
    let mut daemon = written();
    for _ in 0..2 {
        let said = verify(&daemon.data_dir());
        assert_eq!((said.code, said.damage().len()), (Some(0), 0), "{:?}", said.lines);
        assert_eq!(said.json["streams"], 4);
        assert!(said.json["bytes"].as_u64() >= Some(704_000), "{}", said.json);
        assert!(said.lines.last().is_some_and(|line| line.ends_with(": whole")), "{:?}", said.lines);
        assert_eq!(said.complaint, "", "no progress where nobody looks");
        daemon.restart();
        daemon.terminate();
    }
}

#[test]
fn each_damage_is_named_with_its_place_its_name_and_its_cost() {
    let daemon = written();
    let dir = daemon.data_dir();
    // A window in the middle of `two`.
    let bulk = dir.join("bulk-0/00000000.mpb");
    let content = fs::read(&bulk).expect("readable");
    let hit =
        memchr::memmem::find(&content, &bytes_of(700_000, 700_000)[300_000..300_064]).expect("its bytes");
    flip(&bulk, hit as u64, 2);
    let said = verify(&dir);
    let damage = said.only();
    assert_eq!(said.code, Some(1));
    assert_eq!((&damage["file"], &damage["kind"]), (&"bulk-0/00000000.mpb".into(), &"window".into()));
    assert_eq!((&damage["name"], &damage["cost"]), (&"two".into(), &"bytes".into()));
    let place = |field: &str| damage[field].as_u64().expect("a number");
    assert!((place("from")..place("to")).contains(&300_000) && place("offset") <= hit as u64, "{damage}");
    assert!(said.lines[0].starts_with("bulk-0/00000000.mpb:") && said.lines[0].contains("of \"two\""));
    assert!(said.lines.last().is_some_and(|line| line.ends_with("1 place is damaged")), "{:?}", said.lines);
    flip(&bulk, hit as u64, 2);

    // The record of a name; the bytes of the name itself are whole.
    assert_eq!(flip_in(&dir, b"\"of three\""), 1);
    let said = verify(&dir);
    let damage = said.only();
    assert_eq!((&damage["kind"], &damage["record"]), (&"record".into(), &"name".into()));
    assert_eq!((&damage["name"], &damage["cost"]), (&"three".into(), &"name".into()), "{damage}");
    assert_eq!(flip_in(&dir, &flipped(b"\"of three\"")), 1);

    // A copy of a header, and files that are gone.
    flip(&dir.join("journal-0/00000000.mpj"), 2050, 0);
    fs::remove_file(dir.join("FORMAT.2")).expect("removed");
    let said = verify(&dir);
    let kinds: Vec<_> = said.damage().iter().map(|damage| (&damage["kind"], &damage["cost"])).collect();
    assert_eq!(kinds, [(&"format".into(), &"nothing".into()), (&"header".into(), &"nothing".into())]);
    fs::rename(&bulk, dir.join("elsewhere")).expect("moved");
    let said = verify(&dir);
    let lost = said.damage().iter().filter(|damage| damage["kind"] == "missing" && damage["cost"] == "bytes");
    let names: Vec<_> = lost.map(|damage| damage["name"].as_str().expect("a name")).collect();
    for name in ["one", "two", "three", "cut"] {
        assert!(names.contains(&name), "{name}: {:#?}", said.lines);
    }
    assert!(!names.contains(&"gone"));
}

/// The bytes as [`flip_in`] leaves them.
fn flipped(bytes: &[u8]) -> Vec<u8> {
    [&[bytes[0] ^ 8], &bytes[1..]].concat()
}

#[test]
fn a_torn_tail_is_no_damage() {
    let daemon = written();
    let journal = daemon.data_dir().join("journal-0/00000000.mpj");
    let content = fs::read(&journal).expect("readable");
    let end = content.iter().rposition(|&byte| byte != 0).expect("records") as u64;
    // What a write leaves that did not get far: something, but no record.
    for at in end + 8..end + 40 {
        flip(&journal, at, (at % 8) as u32);
    }
    let said = verify(&daemon.data_dir());
    assert_eq!((said.code, said.damage().len()), (Some(0), 0), "{:?}", said.lines);
    assert_eq!(said.json["torn"].as_array().map(Vec::len), Some(1));
    assert!(said.lines[0].contains("torn tail"), "{:?}", said.lines);
}

#[test]
fn what_cannot_be_checked_is_told_apart_from_damage() {
    let daemon = Daemon::start();
    let said = ask(&daemon.data_dir());
    assert_eq!(said.code, Some(2));
    assert!(said.complaint.contains(&format!("millpond (pid {})", daemon.pid())), "{}", said.complaint);
    daemon.get("/stream/absent").expect(404);

    let dir = scratch();
    let said = verify(dir.path());
    assert_eq!(said.code, Some(2));
    assert!(said.complaint.contains("no data directory"), "{}", said.complaint);
    let said = verify(&dir.path().join("nowhere"));
    assert!(said.code == Some(2) && said.complaint.contains("nowhere"), "{}", said.complaint);

    let newer = "{\n  \"format\": 77,\n  \"more\": 1\n}";
    for name in ["FORMAT", "FORMAT.2"] {
        fs::write(dir.path().join(name), newer).expect("written");
    }
    let said = verify(dir.path());
    assert!(said.code == Some(2) && said.complaint.contains("77"), "{}", said.complaint);

    // Both copies damaged is damage, of everything.
    for name in ["FORMAT", "FORMAT.2"] {
        fs::write(dir.path().join(name), "not what it was").expect("written");
    }
    let said = verify(dir.path());
    assert_eq!((said.code, said.damage().len()), (Some(1), 2), "{:?}", said.lines);
}

/// Catches a look that needs to write, on a directory that may not be written and has no lock.
#[test]
fn a_read_only_copy_without_a_lock_can_be_checked() {
    let daemon = written();
    let dir = daemon.data_dir();
    fs::remove_file(dir.join("LOCK")).expect("removed");
    for path in files(&dir) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("a mode");
    }
    let said = verify(&dir);
    assert_eq!(said.code, Some(0), "{:?}{}", said.lines, said.complaint);
    assert!(!dir.join("LOCK").exists());
}

#[test]
fn damage_to_files_names_them_and_is_served_to_nobody() {
    let mut daemon = Setup::default().shards(1).vblob("").start();
    request(daemon.vblob(), "PUT", "/box", &[], b"").expect(200);
    // Two small ones lie in one window of a pack, the large one has a body of its own.
    let content = |seed: u64, len: usize| bytes_of(seed, len);
    for (key, seed, len) in [("small", 1, 5_000), ("other", 2, 6_000), ("large", 3, 900_000)] {
        request(daemon.vblob(), "PUT", &format!("/box/{key}"), &[], &content(seed, len)).expect(200);
    }
    daemon.terminate();
    let dir = daemon.data_dir();
    let said = verify(&dir);
    assert_eq!(said.code, Some(0), "{:?}", said.lines);
    let (file, at) = files(&dir)
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).expect("readable");
            let at = memchr::memmem::find(&bytes, &content(3, 900_000)[700_000..700_064])?;
            Some((path, at as u64))
        })
        .expect("its bytes lie as they are");
    flip(&file, at, 1);
    let said = verify(&dir);
    assert_eq!(said.code, Some(1));
    assert_eq!(said.only()["cost"], "bytes");
    assert!(said.lines[0].ends_with(r#"lost: some of the bytes of "box\x00large""#), "{:?}", said.lines);
    daemon.restart();
    let get = |key: &str| request(daemon.vblob(), "GET", &format!("/box/{key}"), &[], b"");
    assert!(get("small").expect(200).body == content(1, 5_000));
    assert!(get("other").expect(200).body == content(2, 6_000));
    // The head may promise all of it; what is damaged never leaves.
    let answer = get("large");
    assert!(answer.status >= 500 || answer.end == common::End::Cut, "{answer:?}");
    assert!(answer.status >= 500 || content(3, 900_000).starts_with(&answer.body));
    request(daemon.vblob(), "PUT", "/box/large", &[], b"anew").expect(200);
    assert!(request(daemon.vblob(), "GET", "/box/large", &[], b"").expect(200).body == b"anew");
}

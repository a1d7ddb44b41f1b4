//! Whatever bit is flipped and wherever a file is cut short in a data directory at rest: `verify` names it, the daemon
//! starts, nobody is served a wrong byte, and only names that `verify` named are missing anything. A repair leaves a
//! directory that is whole, and loses nothing that the daemon served, also when a first one was killed on the way.
//!
//! `MILLPOND_DAMAGES=500` asks for that many flips and a fifth as many cuts (`cargo x soak damage`), `MILLPOND_SEED` for
//! another row of places; both are printed.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::content::{Rng, number_from};
use common::daemon::MILLPOND;
use common::damage::{files, flip};
use common::ion::{ask, module};
use common::{Daemon, End, Setup, bytes_of, post, request};

/// What was written, and must be there or be missed.
#[derive(Default)]
struct Written {
    /// By path on the listener that serves it: loom's and vblob's.
    streams: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    /// Of modules, by path, which ends with the module: one group of names each, committed together.
    modules: BTreeMap<String, Vec<u8>>,
    /// Deleted ones must not come back.
    gone: Vec<String>,
}

fn setup(shards: u32) -> Setup {
    Setup::default()
        .shards(shards)
        .top("segment_size = \"16MiB\"")
        .vblob("")
        .ion(&MODULES.map(|name| module(name, "")).concat())
}

/// Modules, whose names are their secrets and their groups.
const MODULES: [&str; 2] = ["m-0", "m-1"];

/// A directory with everything in it: a checkpoint, journals of two shards, streams and bodies of many sizes, things
/// that were replaced and deleted.
fn written() -> (Daemon, Written) {
    let mut written = Written::default();
    let mut daemon = setup(1).start();
    request(daemon.vblob(), "PUT", "/box", &[], b"").expect(200);
    for round in 0..2u64 {
        for (number, len) in [1, 20, 3_000, 60_000, 300_000, 700_000].into_iter().enumerate() {
            let (seed, id) = (round * 100 + number as u64, format!("s{round}-{number}"));
            post(daemon.loom(), &id, &bytes_of(seed, len)).expect(201);
            written.streams.insert(id, bytes_of(seed, len));
            let (seed, key) = (seed + 50, format!("/box/b{round}-{number}"));
            request(daemon.vblob(), "PUT", &key, &[], &bytes_of(seed + 500, 900)).expect(200);
            request(daemon.vblob(), "PUT", &key, &[], &bytes_of(seed, len)).expect(200);
            written.blobs.insert(key, bytes_of(seed, len));
        }
        commit(&daemon, MODULES[0], round, &mut written);
        if round == 1 {
            // Of journals alone: no checkpoint has it.
            commit(&daemon, MODULES[1], round, &mut written);
        }
        for (id, len) in [("gone", 40), ("gone-too", 90_000)] {
            let id = format!("{id}-{round}");
            post(daemon.loom(), &id, &bytes_of(round, len)).expect(201);
            request(daemon.loom(), "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
            written.gone.push(id);
        }
        // Another number of shards: a checkpoint of all there is.
        daemon.terminate();
        if round == 0 {
            daemon.restart_with(setup(2));
        }
    }
    (daemon, written)
}

/// Two files and the document of a module, by one record.
fn commit(daemon: &Daemon, module: &str, round: u64, written: &mut Written) {
    let names = [format!("small-{round}"), format!("large-{round}")];
    for (name, len) in names.iter().zip([100, 90_000]) {
        let content = bytes_of(round + len as u64, len);
        ask(daemon.ion(), module, "PUT", &format!("/self/blob?res={name}&stage"), &content).expect(200);
        written.modules.insert(format!("/self/blob?res={name} {module}"), content);
    }
    let document = format!("{{\"n\":{round}}}");
    let [small, large] = names;
    let body = format!("{{\"blobs\":[\"{small}\",\"{large}\"],\"document\":{document}}}");
    ask(daemon.ion(), module, "POST", "/self/commit", body.as_bytes()).expect(201);
    written.modules.insert(format!("/self/meta {module}"), document.into_bytes());
}

#[derive(Clone, Copy, Debug)]
enum Hit {
    Flip(u64, u32),
    Cut(u64),
}

#[derive(Default, Debug)]
struct Counts {
    named: u64,
    /// Free space, padding, and bytes that nothing stands for.
    nowhere: u64,
    answers_missing: u64,
}

/// One that is hit again and again, each time from the same bytes.
struct Target {
    daemon: Daemon,
    written: Written,
    /// What each file was.
    before: BTreeMap<PathBuf, Vec<u8>>,
    rng: Rng,
}

impl Target {
    fn new(seed: u64) -> Self {
        let (daemon, written) = written();
        let before = files(&daemon.data_dir())
            .into_iter()
            .map(|path| (path.clone(), fs::read(&path).expect("readable")))
            .collect();
        Target { daemon, written, before, rng: Rng::new(seed) }
    }

    /// Somewhere in a file: mostly where something was written, as nothing is to be learnt from free space.
    fn aim(&mut self, cut: bool) -> (PathBuf, Hit) {
        loop {
            let at = self.rng.below(self.before.len() as u64) as usize;
            let (path, bytes) = self.before.iter().nth(at).expect("within");
            let (path, len) = (path.clone(), bytes.len());
            let used = used(bytes);
            if path.ends_with("LOCK") || used == 0 {
                continue;
            }
            // The end of a log that nothing behind it vouches for looks the same torn by a crash: that is no damage.
            let is_journal = path.extension().is_some_and(|ending| ending == "mpj");
            let used = if is_journal { durable_end(&self.before[&path]) } else { used };
            let hit = match cut {
                true if is_journal => Hit::Cut(self.rng.below(len as u64)),
                true => Hit::Cut(self.rng.below(used as u64)),
                false => Hit::Flip(self.rng.below(used as u64), self.rng.below(8) as u32),
            };
            return (path, hit);
        }
    }

    fn strike(&self, path: &Path, hit: Hit) {
        match hit {
            Hit::Flip(at, bit) => flip(path, at, bit),
            Hit::Cut(len) => {
                fs::File::options().write(true).open(path).and_then(|file| file.set_len(len)).expect("cut")
            }
        }
    }

    /// Puts every file back as it was.
    fn restore(&self) {
        let dir = self.daemon.data_dir();
        for path in files(&dir) {
            if !self.before.contains_key(&path) {
                fs::remove_file(&path).expect("removed");
            }
        }
        for (path, bytes) in &self.before {
            if fs::read(path).ok().as_ref() != Some(bytes) {
                fs::create_dir_all(path.parent().expect("a directory")).expect("made");
                fs::write(path, bytes).expect("written");
            }
        }
    }

    /// What is missing of all that was written. Nothing may be wrong.
    fn missing(&self, told: &str) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        let streams = self
            .written
            .streams
            .iter()
            .map(|(id, bytes)| (self.daemon.loom(), id, format!("/stream/{id}"), bytes));
        let blobs =
            self.written.blobs.iter().map(|(key, bytes)| (self.daemon.vblob(), key, key.clone(), bytes));
        let plain = streams
            .chain(blobs)
            .map(|(addr, name, target, bytes)| (name, bytes, request(addr, "GET", &target, &[], b"")));
        let of_modules = self.written.modules.iter().map(|(name, bytes)| {
            let (target, module) = name.rsplit_once(' ').expect("both");
            (name, bytes, ask(self.daemon.ion(), module, "GET", target, b""))
        });
        for (name, bytes, answer) in plain.chain(of_modules) {
            let whole = answer.status == 200 && answer.end != End::Cut;
            if whole {
                assert!(answer.body == *bytes, "{told}: {name} was served with wrong bytes");
            } else {
                let right = answer.status != 200 || bytes.starts_with(&answer.body);
                assert!(right, "{told}: {name} was served in part, with wrong bytes");
                missing.insert(name.clone());
            }
        }
        missing
    }

    fn verify(&self, args: &[&str]) -> (Option<i32>, serde_json::Value) {
        let dir = self.daemon.data_dir();
        let output = Command::new(MILLPOND).arg("verify").arg(dir).args(args).arg("--json").output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| said.into());
        (output.status.code(), json)
    }

    /// A repair that is killed at some moment, or just done by then.
    #[allow(clippy::disallowed_methods, reason = "the moment of the kill is the test's input")]
    fn cut_repair(&mut self) {
        let dir = self.daemon.data_dir();
        let mut repair = Command::new(MILLPOND)
            .args(["verify", "--repair", "--json"])
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs");
        std::thread::sleep(Duration::from_micros(self.rng.below(60_000)));
        repair.kill().expect("SIGKILL can be sent");
        repair.wait().expect("it can be waited for");
    }

    fn round(&mut self, cut: bool, counts: &mut Counts) {
        let (path, hit) = self.aim(cut);
        let file = path.strip_prefix(self.daemon.data_dir()).expect("within").display().to_string();
        let told = format!("{file}, {hit:?}");
        self.strike(&path, hit);
        let (code, said) = self.verify(&[]);
        match code {
            Some(0) => counts.nowhere += 1,
            Some(1) => counts.named += 1,
            _ => panic!("{told}: verify ended with {code:?}: {said}"),
        }
        let damage = said["damage"].as_array().cloned().unwrap_or_default();
        let at_the_file =
            damage.iter().any(|damage| damage["file"].as_str().is_some_and(|named| file.starts_with(named)));
        assert!(code == Some(0) || at_the_file, "{told}: verify named other places only: {damage:#?}");
        self.daemon.restart();
        let missing = self.missing(&told);
        counts.answers_missing += missing.len() as u64;
        let named = |name: &String| {
            let module = name.rsplit_once(' ').map_or("", |(_, module)| module);
            let is_in_box = name.starts_with("/box/");
            let name = name.rsplit(['/', '=']).next().expect("a name");
            let name = name.split(' ').next().expect("a name");
            damage.iter().any(|damage| {
                let lost = damage["lost"].as_str().unwrap_or_default();
                damage["cost"] == "unknown"
                    || lost.contains(&format!("{name}\""))
                    // Of a container that is lost, nothing in it is found.
                    || (is_in_box && lost.contains("\"box\""))
                    // Where the damage hit how long the name is, too, its hash is all that is known.
                    || (missing.len() == 1 && lost.contains(" hash 0x"))
                    || (!module.is_empty() && lost.contains(&format!("\"{module}")))
            })
        };
        let untold: Vec<_> = missing.iter().filter(|name| !named(name)).collect();
        assert!(untold.is_empty(), "{told}: {untold:?} are missing, and verify named {damage:#?}");
        self.daemon.kill9();

        self.restore();
        self.strike(&path, hit);
        self.cut_repair();
        let (code, said) = self.verify(&["--repair"]);
        assert_eq!(code, Some(0), "{told}: not repaired: {said:#}");
        let (code, said) = self.verify(&[]);
        assert_eq!(code, Some(0), "{told}: not whole after the repair: {said:#}");
        self.daemon.restart();
        let left = self.missing(&format!("{told}, repaired"));
        let more: Vec<_> = left.difference(&missing).filter(|name| !named(name)).collect();
        assert!(more.is_empty(), "{told}: {more:?} are missing after the repair alone");
        for id in &self.written.gone {
            let answer = self.daemon.get(&format!("/stream/{id}"));
            assert!(answer.status == 404, "{told}: {id} was deleted, and is back after the repair");
        }
        self.daemon.kill9();
        self.restore();
    }
}

/// Up to where something else than zeros stands.
fn used(bytes: &[u8]) -> usize {
    let page = bytes.chunks(4096).rposition(|page| *page != [0; 4096][..page.len()]).unwrap_or(0);
    let pages = &bytes[..bytes.len().min((page + 1) * 4096)];
    pages.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// Where the records of a journal end that a later one calls durable. Of a record's header, the length of its payload
/// stands at 8, its sequence at 16, and how far the log was durable at 24.
fn durable_end(bytes: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (mut at, mut ends, mut durable) = (4096, BTreeMap::from([(0, 4096)]), 0);
    while at + 48 <= bytes.len() && word(at + 16) > 0 {
        let len = 48 + (word(at + 8) as u32 as usize).next_multiple_of(8);
        durable = durable.max(word(at + 24));
        ends.insert(word(at + 16), at + len);
        at += len;
    }
    ends.range(..=durable).next_back().map_or(4096, |(_, end)| *end)
}

/// A later word about another name of the group says nothing of what the lost record said.
#[test]
fn a_lost_record_of_a_group_costs_the_group_until_a_repair() {
    let mut daemon = Setup::default().shards(1).ion(&module("m", "")).start();
    for content in [b"old", b"new"] {
        for name in ["a", "b"] {
            ask(daemon.ion(), "m", "PUT", &format!("/self/blob?res={name}&stage"), content).expect(200);
        }
        let body = br#"{"blobs":["a","b"],"document":{"n":1}}"#;
        ask(daemon.ion(), "m", "POST", "/self/commit", body).expect(201);
    }
    ask(daemon.ion(), "m", "PUT", "/self/blob?res=other", b"x").expect(200);
    ask(daemon.ion(), "m", "DELETE", "/self/blob?res=other", b"").expect(200);
    daemon.kill9();
    let journal = daemon.data_dir().join("journal-0/00000000.mpj");
    // The space of modules' files, the length of the name, the name; once in each commit.
    let committed = b"\x20\x03\0\0\0m\0a";
    let bytes = fs::read(&journal).expect("readable");
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, committed).collect();
    let [_, second] = places[..] else { panic!("not two commits: {places:?}") };
    flip(&journal, second as u64 + 7, 0);

    let dir = daemon.data_dir();
    let verify = |args: &[&str]| {
        let output = Command::new(MILLPOND).arg("verify").arg(&dir).args(args).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = verify(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("what the names of the group \"m\" stand for, until a repair"), "{said}");
    daemon.restart();
    for target in ["/self/blob?res=a", "/self/blob?res=b", "/self/meta"] {
        let answer = ask(daemon.ion(), "m", "GET", target, b"");
        assert!(answer.status >= 500, "{target} may not be an earlier one: {answer:?}");
    }
    daemon.kill9();
    let (code, said) = verify(&["--repair"]);
    assert_eq!(code, Some(0), "{said}");
    daemon.restart();
    for target in ["/self/blob?res=a", "/self/blob?res=b", "/self/meta"] {
        ask(daemon.ion(), "m", "GET", target, b"").expect(404);
    }
    ask(daemon.ion(), "m", "PUT", "/self/blob?res=a", b"again").expect(200);
    assert_eq!(ask(daemon.ion(), "m", "GET", "/self/blob?res=a", b"").expect(200).body, b"again");
}

#[test]
fn damage_stays_with_its_record() {
    let wanted = number_from("MILLPOND_DAMAGES").unwrap_or(4);
    let seed = number_from("MILLPOND_SEED").unwrap_or(77_177);
    let (mut target, mut flips, mut cuts) = (Target::new(seed), Counts::default(), Counts::default());
    while flips.named < wanted {
        target.round(false, &mut flips);
    }
    while cuts.named < wanted.div_ceil(5) {
        target.round(true, &mut cuts);
    }
    println!(
        "MILLPOND_SEED={seed}: flips named {}, nowhere {}, cuts named {}, nowhere {}, answers missing {}",
        flips.named,
        flips.nowhere,
        cuts.named,
        cuts.nowhere,
        flips.answers_missing + cuts.answers_missing
    );
}

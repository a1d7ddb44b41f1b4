//! SIGKILL at random points, again and again, while files are put, replaced, copied and deleted; after every start each
//! file is whole and one of those that it may be.
//!
//! What was answered is there. What was not is there or is not, as a whole: a file is never mixed from two, cut, or
//! without the entity tag of its own bytes.
//!
//! `MILLPOND_CRASH_CYCLES` sets the number of kills (200), `MILLPOND_SEED` the seed; both are printed on failure.

mod common;

use common::content::{Rng, difference, number_from};
use common::http::request_bytes;
use common::{Answer, Conn, Setup, bytes_of};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn files_are_whole_with_durability_sync() {
    crash_again_and_again("sync", 0x5eed_b10b);
}

#[test]
fn files_are_whole_with_durability_cache() {
    crash_again_and_again("cache", 0x5eed_b1ca);
}

const WORKERS: u64 = 3;
const FILES_PER_WORKER: u64 = 8;

#[allow(clippy::disallowed_methods, reason = "the moment of the kill is the test's input")]
fn crash_again_and_again(class: &'static str, seed: u64) {
    let seed = number_from("MILLPOND_SEED").unwrap_or(seed);
    // Half of them here, half in the test of the other class.
    let cycles = number_from("MILLPOND_CRASH_CYCLES").unwrap_or(200).div_ceil(2);
    let mut rng = Rng::new(seed);
    let mut daemon = Setup::default().durability(class).vblob("").start();
    common::http::request(daemon.vblob(), "PUT", "/box", &[], b"").expect(200);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, seed)).collect();
    for cycle in 0..cycles {
        let told = |why: String| panic!("{class}, cycle {cycle} of {cycles}, MILLPOND_SEED={seed:#x}: {why}");
        let killed = AtomicBool::new(false);
        let life = Duration::from_micros(rng.below(120_000));
        let addr = daemon.vblob().to_owned();
        std::thread::scope(|scope| {
            let (addr, killed) = (addr.as_str(), &killed);
            let at_work: Vec<_> =
                workers.iter_mut().map(|worker| scope.spawn(move || worker.work(addr, killed))).collect();
            // Not a wait for anything: the random moment at which everything ends.
            std::thread::sleep(life);
            killed.store(true, Ordering::SeqCst);
            daemon.kill9();
            for worker in at_work {
                worker.join().expect("a worker").unwrap_or_else(told);
            }
        });
        daemon.restart();
        for worker in &mut workers {
            worker.compare(daemon.vblob()).unwrap_or_else(told);
        }
    }
    let made: u64 = workers.iter().map(|worker| worker.acknowledged).sum();
    assert!(made >= cycles, "{made} acknowledged changes in {cycles} cycles prove little");
}

/// What a file may be: absent, or these bytes.
type Fate = Option<(u64, usize)>;

/// Owner of some files: changes them while the daemon lives, compares after it came back.
struct Worker {
    number: u64,
    rng: Rng,
    /// The last is the newest.
    fates: BTreeMap<String, Vec<Fate>>,
    /// Files whose truth only the next comparison will tell.
    unclear: BTreeSet<String>,
    contents: u64,
    acknowledged: u64,
}

/// The daemon is gone, or answers what it must not.
enum Stop {
    Killed,
    Wrong(String),
}

impl Worker {
    fn new(number: u64, seed: u64) -> Self {
        // Keys with a prefix in common, and one that ends like a folder.
        let fates = (0..FILES_PER_WORKER).map(|file| (format!("w{number}/{file}/"), vec![None])).collect();
        let rng = Rng::new(seed ^ ((number + 1) << 32));
        Self { number, rng, fates, unclear: BTreeSet::new(), contents: 0, acknowledged: 0 }
    }

    fn work(&mut self, addr: &str, killed: &AtomicBool) -> Result<(), String> {
        while !killed.load(Ordering::SeqCst) {
            let clear: Vec<&String> = self.fates.keys().filter(|key| !self.unclear.contains(*key)).collect();
            if clear.is_empty() {
                return Ok(());
            }
            let key = clear[self.rng.below(clear.len() as u64) as usize].clone();
            match self.change(addr, &key) {
                Ok(()) => {}
                // The flag was set before the kill, so trouble without it was not caused by it.
                Err(Stop::Killed) if killed.load(Ordering::SeqCst) => return Ok(()),
                Err(Stop::Killed) => return Err("the daemon stopped answering before it was killed".into()),
                Err(Stop::Wrong(why)) => return Err(why),
            }
        }
        Ok(())
    }

    fn change(&mut self, addr: &str, key: &str) -> Result<(), Stop> {
        match self.rng.below(10) {
            0..6 => {
                self.contents += 1;
                let most = [1, 100, 20_000, 70_000, 300_000, 1_500_000][self.rng.below(6) as usize];
                let content = ((self.number << 40) | self.contents, self.rng.below(most) as usize);
                let body = bytes_of(content.0, content.1);
                let none = [("Content-Length", "0")];
                self.ask_change(
                    addr,
                    key,
                    "PUT",
                    if body.is_empty() { &none } else { &[] },
                    &body,
                    Some(content),
                )
            }
            6 => self.ask_change(addr, key, "DELETE", &[], b"", None),
            7 | 8 => {
                let others: Vec<_> =
                    self.fates.iter().filter(|(other, _)| !self.unclear.contains(*other)).collect();
                let (source, fates) = others[self.rng.below(others.len() as u64) as usize];
                let (source, Some(fate)) = (format!("/box/{source}"), fates[0]) else { return Ok(()) };
                let headers = [
                    ("x-blb-copy-from", &*source),
                    ("x-blb-metadata-copy-or-replace", "REPLACE"),
                    ("Content-Length", "0"),
                ];
                self.ask_change(addr, key, "PUT", &headers, b"", Some(fate))
            }
            _ => self.look(addr, key).map(drop),
        }
    }

    fn ask_change(
        &mut self,
        addr: &str,
        key: &str,
        method: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        fate: Fate,
    ) -> Result<(), Stop> {
        self.unclear.insert(key.to_owned());
        self.fates.get_mut(key).expect("known").push(fate);
        let answer = ask(addr, method, key, headers, body)?;
        if !matches!(answer.status, 200 | 204) {
            return Err(Stop::Wrong(format!("{method} {key}: {answer:?}")));
        }
        self.settle(key, fate);
        self.acknowledged += 1;
        Ok(())
    }

    /// Which of the things that it may be a file is.
    fn look(&self, addr: &str, key: &str) -> Result<Fate, Stop> {
        let answer = ask(addr, "GET", key, &[], b"")?;
        let mut reasons = Vec::new();
        for fate in self.fates[key].iter().rev() {
            match (fate, answer.status) {
                (None, 404) => return Ok(*fate),
                (Some((seed, len)), 200) => {
                    let content = bytes_of(*seed, *len);
                    if answer.body == content {
                        let tag = answer.header("etag").unwrap_or_default();
                        let right = tag == common::content::md5(&content);
                        return if right { Ok(*fate) } else { Err(Stop::Wrong(format!("{key}: tag {tag}"))) };
                    }
                    reasons.push(difference(&answer.body, &content));
                }
                _ => reasons.push(format!("not {fate:?}")),
            }
        }
        let (status, len) = (answer.status, answer.body.len());
        Err(Stop::Wrong(format!("{key}: status {status}, {len} bytes: {}", reasons.join("; "))))
    }

    fn compare(&mut self, addr: &str) -> Result<(), String> {
        for key in self.fates.keys().cloned().collect::<Vec<_>>() {
            match self.look(addr, &key) {
                Ok(fate) => self.settle(&key, fate),
                Err(Stop::Killed) => return Err(format!("{key}: no answer after the restart")),
                Err(Stop::Wrong(why)) => return Err(why),
            }
        }
        Ok(())
    }

    fn settle(&mut self, key: &str, fate: Fate) {
        self.unclear.remove(key);
        *self.fates.get_mut(key).expect("known") = vec![fate];
    }
}

fn ask(addr: &str, method: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, Stop> {
    let mut conn = Conn::try_open(addr).map_err(|_| Stop::Killed)?;
    conn.try_send(request_bytes(method, &format!("/box/{key}"), headers, body)).map_err(|_| Stop::Killed)?;
    let answer = conn.try_answer_to(method).map_err(|_| Stop::Killed)?;
    if answer.end == common::End::Cut { Err(Stop::Killed) } else { Ok(answer) }
}

//! SIGKILL at random points, again and again, while modules commit: after every start a blob is there exactly if the
//! event is that was committed with it, once, and the document is that of the last commit that is there.
//!
//! `MILLPOND_CRASH_CYCLES` sets the number of kills (24), `MILLPOND_SEED` the seed; both are printed on failure.

mod common;

use common::content::{Rng, number_from};
use common::http::request_bytes;
use common::ion::{ask, module};
use common::{Answer, Conn, Setup, bytes_of};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_commit_is_there_whole_or_not_at_all_with_durability_sync() {
    crash_again_and_again("sync", 0x5eed_c0de);
}

#[test]
fn a_commit_is_there_whole_or_not_at_all_with_durability_cache() {
    crash_again_and_again("cache", 0x5eed_cace);
}

const WORKERS: u64 = 3;

#[allow(clippy::disallowed_methods, reason = "the moment of the kill is the test's input")]
fn crash_again_and_again(class: &'static str, seed: u64) {
    let seed = number_from("MILLPOND_SEED").unwrap_or(seed);
    // Half of them here, half in the test of the other class.
    let cycles = number_from("MILLPOND_CRASH_CYCLES").unwrap_or(24).div_ceil(2);
    let mut rng = Rng::new(seed);
    let modules: String = (0..WORKERS).map(|number| module(&format!("w{number}"), "")).collect();
    let mut daemon = Setup::default().durability(class).ion(&modules).start();
    let mut workers: Vec<Worker> = (0..WORKERS).map(Worker::new).collect();
    // More of them where the machine is too busy to answer much before the kill.
    for cycle in 0..cycles * 4 {
        let made: usize = workers.iter().map(|worker| worker.answered.len()).sum();
        if cycle >= cycles && made as u64 >= cycles {
            break;
        }
        let told = |why: String| panic!("{class}, cycle {cycle} of {cycles}, MILLPOND_SEED={seed:#x}: {why}");
        let killed = AtomicBool::new(false);
        let life = Duration::from_micros(rng.below(120_000));
        let addr = daemon.ion().to_owned();
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
            worker.compare(daemon.ion()).unwrap_or_else(told);
        }
    }
    let made: usize = workers.iter().map(|worker| worker.answered.len()).sum();
    assert!(made as u64 >= cycles, "{made} answered commits in {cycles} cycles prove little");
}

/// One module that commits.
struct Worker {
    secret: String,
    next: u64,
    answered: BTreeSet<u64>,
}

impl Worker {
    fn new(number: u64) -> Self {
        Worker { secret: format!("w{number}"), next: 0, answered: BTreeSet::new() }
    }

    fn work(&mut self, addr: &str, killed: &AtomicBool) -> Result<(), String> {
        while !killed.load(Ordering::SeqCst) {
            self.next += 1;
            match self.commit(addr, self.next) {
                Some(Ok(())) => drop(self.answered.insert(self.next)),
                Some(Err(why)) => return Err(why),
                // The flag was set before the kill, so trouble without it was not caused by it.
                None if killed.load(Ordering::SeqCst) => return Ok(()),
                None => return Err("the daemon stopped answering before it was killed".into()),
            }
        }
        Ok(())
    }

    /// `None` when the daemon was gone before it answered.
    fn commit(&self, addr: &str, number: u64) -> Option<Result<(), String>> {
        let names = [format!("{number}/small"), format!("{number}/large")];
        let bodies = [bytes_of(number, 100), bytes_of(number, 90_000)];
        for (name, body) in names.iter().zip(&bodies) {
            let answer = self.ask(addr, "PUT", &format!("/self/blob?res={name}&stage"), body)?;
            if answer.status != 200 {
                return Some(Err(format!("PUT {name}: {answer:?}")));
            }
        }
        let body = format!(
            "{{\"blobs\":[\"{}\",\"{}\"],\"document\":{{\"n\":{number}}},\"events\":[{{\"eventType\":\"t\",\"n\":\"{number}\"}}]}}",
            names[0], names[1]
        );
        let answer = self.ask(addr, "POST", "/self/commit", body.as_bytes())?;
        Some(if answer.status == 201 { Ok(()) } else { Err(format!("commit: {answer:?}")) })
    }

    fn ask(&self, addr: &str, method: &str, target: &str, body: &[u8]) -> Option<Answer> {
        let mut conn = Conn::try_open(addr).ok()?;
        conn.try_send(request_bytes(method, target, &[("secret", &self.secret)], body)).ok()?;
        let answer = conn.try_answer_to(method).ok()?;
        (answer.end != common::End::Cut).then_some(answer)
    }

    fn compare(&mut self, addr: &str) -> Result<(), String> {
        let listed = ask(addr, &self.secret, "GET", "/self/blobs", b"").expect(200);
        let names: Vec<String> = serde_json::from_slice(&listed.body).map_err(|error| error.to_string())?;
        let number_of = |name: &str| name.split('/').next().and_then(|number| number.parse().ok());
        let blobs: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        if names.len() != 2 * blobs.len() {
            return Err(format!("half of a commit: {names:?}"));
        }
        let events = ask(addr, &self.secret, "GET", "/events", b"").expect(200);
        let mut told = Vec::new();
        for line in events.text().lines() {
            let event: serde_json::Value =
                serde_json::from_str(line).map_err(|error| format!("{error} in {line:?}"))?;
            told.push(event["data"]["n"].as_str().and_then(|n| n.parse::<u64>().ok()).ok_or("no number")?);
        }
        if !told.is_sorted_by(|one, two| one < two) {
            return Err(format!("twice, or out of order: {told:?}"));
        }
        let told: BTreeSet<u64> = told.into_iter().collect();
        if told != blobs {
            return Err(format!(
                "events without blobs: {:?}, blobs without events: {:?}",
                &told - &blobs,
                &blobs - &told
            ));
        }
        if let Some(lost) = self.answered.difference(&blobs).next() {
            return Err(format!("commit {lost} was answered and is gone"));
        }
        let document = ask(addr, &self.secret, "GET", "/self/meta", b"");
        match blobs.last() {
            None if document.status == 404 => {}
            Some(last) if document.text() == format!("{{\"n\":{last}}}") => {
                for (kind, len) in [("small", 100), ("large", 90_000)] {
                    let got = ask(addr, &self.secret, "GET", &format!("/self/blob?res={last}/{kind}"), b"");
                    if got.expect(200).body != bytes_of(*last, len) {
                        return Err(format!("{last}/{kind} is not what was put"));
                    }
                }
            }
            last => return Err(format!("the document is {:?} after {last:?}", document.text())),
        }
        Ok(())
    }
}

//! SIGKILL at random points, again and again, under mixed load; after every start the books are compared.
//!
//! Each worker owns its ids and writes down, before it asks for a change, what may be true if the daemon dies
//! now. After the restart every stream must be one of the things that may be true: what was acknowledged is
//! whole and byte-exact, what a reader saw is there, and nothing else ever appears.
//!
//! `MILLPOND_CRASH_CYCLES` sets the number of kills (200), `MILLPOND_SEED` the seed; both are printed on failure.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::content::{Rng, difference};
use common::crash::{self, Stop, Witness, seed_or};
use common::{Answer, Daemon, End, Live, Producer, Setup, bytes_of};

#[test]
fn nothing_promised_is_lost_with_durability_sync() {
    crash_again_and_again("sync", 0x5eed_c4a5);
}

#[test]
fn nothing_promised_is_lost_with_durability_cache() {
    crash_again_and_again("cache", 0x5eed_cac4);
}

const WORKERS: u64 = 3;
const IDS_PER_WORKER: u64 = 8;

fn crash_again_and_again(class: &'static str, seed: u64) {
    let seed = seed_or(seed);
    let mut daemon = Setup::default().durability(class).start();
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, seed)).collect();
    crash::again_and_again(class, seed, &mut daemon, Daemon::loom, &mut workers, |daemon, rng| {
        if rng.below(6) == 0 {
            daemon.stillborn(Duration::from_micros(rng.below(60_000)));
        }
        daemon.restart();
    });
    let blocks = allocated(&daemon.data_dir());
    assert!(blocks < 1 << 30, "after all kills the data directory takes {blocks} bytes on disk");
}

/// What may be true of an id.
#[derive(Clone, Debug)]
enum Fate {
    Absent,
    There(Life),
}

/// One history of an id: from a POST to its replacement or end.
#[derive(Clone, Debug)]
struct Life {
    content: u64,
    total: usize,
    /// Bytes that must be there.
    least: usize,
    /// Bytes that some reader saw, which must be there too.
    seen: Arc<AtomicUsize>,
    /// Bytes that may be there, because they were sent.
    sent: usize,
    /// The end of the body was sent, so the stream may be complete.
    ended: bool,
    /// The end of the answer came, so the stream must be complete.
    whole: bool,
}

/// Owner of some ids: asks for changes while the daemon lives, compares after it came back.
struct Worker {
    number: u64,
    rng: Rng,
    fates: BTreeMap<String, Vec<Fate>>,
    /// Ids whose truth only the next comparison will tell.
    unclear: BTreeSet<String>,
    lives: u64,
    acknowledged: u64,
}

impl Witness for Worker {
    fn work(&mut self, addr: &str, killed: &AtomicBool) -> Result<(), String> {
        let mut readers = Vec::new();
        let worked = crash::until_killed(killed, || {
            let open: Vec<&String> = self.fates.keys().filter(|id| !self.unclear.contains(*id)).collect();
            if open.is_empty() {
                return None;
            }
            let id = open[self.rng.below(open.len() as u64) as usize].clone();
            Some(self.change(addr, &id, &mut readers))
        });
        for reader in readers {
            reader.join().expect("a reader")?;
        }
        worked
    }

    /// After a restart: every id is one of the things that it may be, and is that from now on.
    fn compare(&mut self, addr: &str) -> Result<(), String> {
        for id in self.fates.keys().cloned().collect::<Vec<_>>() {
            let answer = crash::ask(addr, "GET", &format!("/stream/{id}"), &[], b"")
                .map_err(|_| format!("{id}: no answer after the restart"))?;
            let fate = self.judge(&id, &answer)?;
            self.settle(&id, fate);
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

impl Worker {
    fn new(number: u64, seed: u64) -> Self {
        let fates = (0..IDS_PER_WORKER).map(|id| (format!("w{number}-{id}"), vec![Fate::Absent])).collect();
        let rng = Rng::new(seed ^ ((number + 1) << 32));
        Self { number, rng, fates, unclear: BTreeSet::new(), lives: 0, acknowledged: 0 }
    }

    fn change(&mut self, addr: &str, id: &str, readers: &mut Vec<Reading>) -> Result<(), Stop> {
        let [fate] = &self.fates[id][..] else { return Err(Stop::Wrong(format!("{id} is unclear"))) };
        match (fate.clone(), self.rng.below(10)) {
            (Fate::Absent, _) => self.produce(addr, id, "", readers),
            (Fate::There(life), 0..5) if !life.whole => self.resume(addr, id, life, readers),
            (Fate::There(_), 0..3) => self.delete(addr, id),
            (Fate::There(_), 3..8) => self.produce(addr, id, "?force=true", readers),
            (Fate::There(_), _) => self.look(addr, id),
        }
    }

    /// A new stream, also over an old one.
    fn produce(&mut self, addr: &str, id: &str, query: &str, readers: &mut Vec<Reading>) -> Result<(), Stop> {
        self.lives += 1;
        let most = [0, 100, 5_000, 20_000, 100_000, 600_000][self.rng.below(6) as usize];
        let life = Life {
            content: (self.number << 40) | self.lives,
            total: self.rng.below(most + 1) as usize,
            least: 0,
            seen: Arc::default(),
            sent: 0,
            ended: false,
            whole: false,
        };
        self.fates.get_mut(id).expect("known").push(Fate::There(life));
        self.send(addr, id, query, 0, readers)
    }

    /// The rest of a stream that an earlier kill or reset interrupted.
    fn resume(&mut self, addr: &str, id: &str, life: Life, readers: &mut Vec<Reading>) -> Result<(), Stop> {
        let answer = ask(addr, "HEAD", id)?;
        let number = |name: &str| answer.header(name).and_then(|value| value.parse::<usize>().ok());
        let (Some(next), Some(epoch)) = (number("stream-next-offset"), number("stream-epoch")) else {
            return Err(Stop::Wrong(format!("{id}: no offset and epoch: {answer:?}")));
        };
        if next < life.least || next > life.sent {
            return Err(Stop::Wrong(format!(
                "{id}: it ends at {next}, which is not in {}..={}",
                life.least, life.sent
            )));
        }
        // Sometimes from an earlier byte: what is there already must be skipped.
        let from = next - self.rng.below(2) as usize * self.rng.below(next as u64 + 1) as usize;
        *self.fates.get_mut(id).expect("known") = vec![Fate::There(Life { least: next, ..life })];
        self.send(addr, id, &format!("?resume={from}&epoch={epoch}"), from, readers)
    }

    /// Sends the newest life of an id from a byte on, to its end or to a reset.
    fn send(
        &mut self,
        addr: &str,
        id: &str,
        query: &str,
        from: usize,
        readers: &mut Vec<Reading>,
    ) -> Result<(), Stop> {
        self.unclear.insert(id.to_owned());
        let (content, total) = (self.newest(id).content, self.newest(id).total);
        let content = bytes_of(content, total);
        let target = format!("/stream/{id}{query}");
        let mut producer = Producer::try_begin(addr, &target, &[]).map_err(|_| Stop::Killed)?;
        if !matches!(producer.head.status, 200 | 201) {
            return Err(Stop::Wrong(format!("POST {target}: {:?}", producer.head)));
        }
        if self.rng.below(2) == 0 {
            let live = Live::try_get(addr, &format!("/stream/{id}")).map_err(|_| Stop::Killed)?;
            readers.push(follow(live, content.clone(), Arc::clone(&self.newest(id).seen), id.to_owned()));
        }
        let reset_at = (self.rng.below(6) == 0).then(|| self.rng.below(total as u64 + 1) as usize);
        let mut at = from;
        while at < total {
            if reset_at.is_some_and(|reset_at| at >= reset_at) {
                producer.reset();
                return Ok(());
            }
            let len = (1 + self.rng.below(40_000) as usize).min(total - at);
            let newest = self.newest(id);
            newest.sent = newest.sent.max(at + len);
            producer.try_chunk(&content[at..at + len]).map_err(|_| Stop::Killed)?;
            at += len;
        }
        self.newest(id).ended = true;
        let answer = producer.try_finish().map_err(|_| Stop::Killed)?;
        if answer.end != End::LastChunk {
            return Err(Stop::Killed);
        }
        let mut life = self.newest(id).clone();
        life.whole = true;
        life.least = total;
        self.settle(id, Fate::There(life));
        self.acknowledged += 1;
        Ok(())
    }

    fn delete(&mut self, addr: &str, id: &str) -> Result<(), Stop> {
        self.unclear.insert(id.to_owned());
        self.fates.get_mut(id).expect("known").push(Fate::Absent);
        let answer = ask(addr, "DELETE", id)?;
        if answer.status != 204 {
            return Err(Stop::Wrong(format!("DELETE {id}: {answer:?}")));
        }
        self.settle(id, Fate::Absent);
        Ok(())
    }

    /// Reads a stream whose truth is known.
    fn look(&mut self, addr: &str, id: &str) -> Result<(), Stop> {
        let answer = ask(addr, "GET", id)?;
        self.judge(id, &answer).map(drop).map_err(Stop::Wrong)
    }

    /// Which of the things that may be true an answer shows.
    fn judge(&self, id: &str, answer: &Answer) -> Result<Fate, String> {
        let mut reasons = Vec::new();
        // What a reader saw of a newer life rules the older fates out.
        let fates = &self.fates[id];
        let seen_from = fates
            .iter()
            .rposition(|fate| matches!(fate, Fate::There(life) if life.seen.load(Ordering::SeqCst) > 0));
        for fate in &fates[seen_from.unwrap_or(0)..] {
            match fate.fits(answer) {
                Ok(fate) => return Ok(fate),
                Err(why) => reasons.push(why),
            }
        }
        Err(format!(
            "{id}: status {}, {} bytes, {:?}: {}",
            answer.status,
            answer.body.len(),
            answer.end,
            reasons.join("; ")
        ))
    }

    fn settle(&mut self, id: &str, fate: Fate) {
        self.unclear.remove(id);
        *self.fates.get_mut(id).expect("known") = vec![fate];
    }

    fn newest(&mut self, id: &str) -> &mut Life {
        match self.fates.get_mut(id).expect("known").last_mut() {
            Some(Fate::There(life)) => life,
            fate => panic!("{id} is not being produced: {fate:?}"),
        }
    }
}

impl Fate {
    /// Whether an answer shows this; then it is what the answer shows, or else why not.
    fn fits(&self, answer: &Answer) -> Result<Self, String> {
        let life = match (self, answer.status) {
            (Self::Absent, 404) => return Ok(Self::Absent),
            (Self::Absent, _) => return Err("it should be absent".to_owned()),
            (Self::There(life), 200) => life,
            (Self::There(life), _) => return Err(format!("it should be there: {life:?}")),
        };
        let content = bytes_of(life.content, life.total);
        let body = &answer.body;
        if !content.starts_with(body) {
            return Err(format!("other bytes than those sent: {}", difference(body, &content)));
        }
        let least = life.least.max(life.seen.load(Ordering::SeqCst));
        if body.len() < least || body.len() > life.sent.max(life.least) {
            return Err(format!("{} bytes, not {least}..={}: {life:?}", body.len(), life.sent));
        }
        let state = answer.header("x-stream-state").unwrap_or("none");
        match (state, life.whole) {
            ("complete", whole) if whole || (life.ended && body.len() == life.total) => {
                Ok(Self::There(Life { whole: true, least: life.total, ..life.clone() }))
            }
            ("interrupted", false) => {
                Ok(Self::There(Life { least: body.len(), sent: body.len(), ended: false, ..life.clone() }))
            }
            _ => Err(format!("the state {state} does not fit {life:?}")),
        }
    }
}

type Reading = std::thread::JoinHandle<Result<(), String>>;

/// Follows a stream to whatever end it finds, and counts what it saw.
fn follow(mut live: Live, content: Vec<u8>, seen: Arc<AtomicUsize>, id: String) -> Reading {
    std::thread::spawn(move || {
        let mut checked = 0;
        loop {
            let on = live.step(common::PATIENCE);
            let body = live.seen();
            if body.len() > content.len() || body[checked..] != content[checked..body.len()] {
                return Err(format!(
                    "a reader of {id} saw other bytes than those sent: {}",
                    difference(body, &content)
                ));
            }
            checked = body.len();
            seen.fetch_max(checked, Ordering::SeqCst);
            match on {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(trouble) => return Err(format!("a reader of {id}: {trouble:?}")),
            }
        }
    })
}

fn ask(addr: &str, method: &str, id: &str) -> Result<Answer, Stop> {
    crash::ask(addr, method, &format!("/stream/{id}"), &[], b"")
}

/// What a directory takes on disk, preallocation included.
fn allocated(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .expect("the data directory is readable")
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => allocated(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

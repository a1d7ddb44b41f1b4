//! SIGKILL at random points, again and again, while files are put, replaced, copied, deleted and composed from parts;
//! after every start each file is whole and one of those that it may be.
//!
//! What was answered is there. What was not is there or is not, as a whole: a file is never mixed from two, cut, or
//! without the entity tag of its own bytes. Parts that were acknowledged compose a file after any number of kills.
//!
//! `MILLPOND_CRASH_CYCLES` sets the number of kills (200), `MILLPOND_SEED` the seed; both are printed on failure.

mod common;

use common::content::{Rng, difference, md5};
use common::crash::{self, Stop, Witness, ask, seed_or};
use common::s3::{plain, text_of};
use common::{Answer, Daemon, Setup, bytes_of};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

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
/// Of those, as many are composed now and then; they are long, so there are few.
const COMPOSED_PER_WORKER: u64 = 2;
/// The first part of every composed file: as long as parts that others follow have to be.
const BRICK: (u64, usize) = (0xb41c, 5 << 20);

fn crash_again_and_again(class: &'static str, seed: u64) {
    let seed = seed_or(seed);
    let mut daemon = Setup::default().durability(class).s3("").start();
    plain(daemon.s3(), "PUT", "/box", &[], b"").expect(200);
    plain(daemon.s3(), "PUT", "/box/brick", &[], &bytes_of(BRICK.0, BRICK.1)).expect(200);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, seed)).collect();
    crash::again_and_again(class, seed, &mut daemon, Daemon::s3, &mut workers, |daemon, _| daemon.restart());
    let completed: u64 = workers.iter().map(|worker| worker.completed).sum();
    assert!(completed > 0, "no upload was completed");
}

/// What a file may hold: so many bytes of a seed, behind the brick if it was composed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Content {
    seed: u64,
    len: usize,
    is_composed: bool,
}

/// What a file may be: absent, or this.
type Fate = Option<Content>;

/// An upload whose parts are all acknowledged.
#[derive(Clone, Debug)]
struct Ready {
    id: String,
    content: Content,
    completion: String,
}

/// Owner of some files: changes them while the daemon lives, compares after it came back.
struct Worker {
    number: u64,
    rng: Rng,
    brick: Vec<u8>,
    /// The last is the newest.
    fates: BTreeMap<String, Vec<Fate>>,
    /// Files whose truth only the next comparison will tell.
    unclear: BTreeSet<String>,
    /// Uploads that can be completed, by file.
    ready: BTreeMap<String, Ready>,
    contents: u64,
    acknowledged: u64,
    completed: u64,
}

impl Witness for Worker {
    fn work(&mut self, addr: &str, killed: &AtomicBool) -> Result<(), String> {
        crash::until_killed(killed, || {
            let clear: Vec<&String> = self.fates.keys().filter(|key| !self.unclear.contains(*key)).collect();
            if clear.is_empty() {
                return None;
            }
            let key = clear[self.rng.below(clear.len() as u64) as usize].clone();
            Some(self.change(addr, &key))
        })
    }

    fn compare(&mut self, addr: &str) -> Result<(), String> {
        for key in self.fates.keys().cloned().collect::<Vec<_>>() {
            let fate = self.look(addr, &key).map_err(|stop| why(&key, stop))?;
            let was_unclear = self.unclear.contains(&key);
            self.settle(&key, fate);
            let Some(ready) = self.ready.get(&key).cloned().filter(|_| was_unclear) else { continue };
            if fate == Some(ready.content) {
                self.ready.remove(&key);
            } else {
                // Its parts were acknowledged, and it was not completed: it can still be.
                self.complete(addr, &key, ready).map_err(|stop| why(&key, stop))?;
                let fate = self.look(addr, &key).map_err(|stop| why(&key, stop))?;
                self.settle(&key, fate);
            }
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

fn why(key: &str, stop: Stop) -> String {
    match stop {
        Stop::Killed => format!("{key}: no answer after the restart"),
        Stop::Wrong(why) => why,
    }
}

impl Worker {
    fn new(number: u64, seed: u64) -> Self {
        // Keys with a prefix in common, and one that ends like a folder.
        let fates = (0..FILES_PER_WORKER).map(|file| (format!("w{number}/{file}/"), vec![None])).collect();
        Self {
            number,
            rng: Rng::new(seed ^ ((number + 1) << 32)),
            brick: bytes_of(BRICK.0, BRICK.1),
            fates,
            unclear: BTreeSet::new(),
            ready: BTreeMap::new(),
            contents: 0,
            acknowledged: 0,
            completed: 0,
        }
    }

    fn change(&mut self, addr: &str, key: &str) -> Result<(), Stop> {
        let is_composed = (0..COMPOSED_PER_WORKER).any(|file| key.ends_with(&format!("/{file}/")));
        match self.rng.below(10) {
            0..6 if is_composed => match self.ready.get(key).cloned() {
                Some(ready) => self.complete(addr, key, ready),
                None => self.prepare(addr, key),
            },
            0..6 => {
                let content = self.fresh(&[1, 100, 20_000, 70_000, 300_000, 1_500_000], false);
                let body = bytes_of(content.seed, content.len);
                let none = [("Content-Length", "0")];
                let headers: &[_] = if body.is_empty() { &none } else { &[] };
                self.ask_change(addr, key, "PUT", headers, &body, Some(content))
            }
            6 => self.ask_change(addr, key, "DELETE", &[], b"", None),
            7 | 8 => {
                let others: Vec<_> =
                    self.fates.iter().filter(|(other, _)| !self.unclear.contains(*other)).collect();
                let (source, fates) = others[self.rng.below(others.len() as u64) as usize];
                let (source, Some(fate)) = (format!("box/{source}"), fates[0]) else { return Ok(()) };
                let headers = [
                    ("x-amz-copy-source", &*source),
                    ("x-amz-metadata-directive", "REPLACE"),
                    ("Content-Length", "0"),
                ];
                self.ask_change(addr, key, "PUT", &headers, b"", Some(fate))
            }
            _ => self.look(addr, key).map(drop),
        }
    }

    fn fresh(&mut self, most: &[u64], is_composed: bool) -> Content {
        self.contents += 1;
        let most = most[self.rng.below(most.len() as u64) as usize];
        let len = self.rng.below(most) as usize;
        Content { seed: (self.number << 40) | self.contents, len, is_composed }
    }

    /// Begins an upload and puts its parts: the brick by reference, and bytes of its own.
    fn prepare(&mut self, addr: &str, key: &str) -> Result<(), Stop> {
        let content = self.fresh(&[2, 50_000, 500_000], true);
        let begun = right(ask(addr, "POST", &format!("/box/{key}?uploads"), &[], b"")?)?;
        let id = text_of(&begun, "UploadId");
        let part = |number: u8| format!("/box/{key}?partNumber={number}&uploadId={id}");
        let from = [("x-amz-copy-source", "box/brick"), ("Content-Length", "0")];
        let brick = text_of(&right(ask(addr, "PUT", &part(1), &from, b"")?)?, "ETag");
        let own = bytes_of(content.seed, content.len);
        let none = [("Content-Length", "0")];
        let headers: &[_] = if own.is_empty() { &none } else { &[] };
        let put = right(ask(addr, "PUT", &part(2), headers, &own)?)?;
        let own = put.header("etag").unwrap_or_default();
        let of = |number: u8, tag: &str| {
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>",
                tag.replace('"', "&quot;")
            )
        };
        let completion =
            format!("<CompleteMultipartUpload>{}{}</CompleteMultipartUpload>", of(1, &brick), of(2, own));
        self.ready.insert(key.to_owned(), Ready { id, content, completion });
        Ok(())
    }

    /// Has the file be what the parts are.
    fn complete(&mut self, addr: &str, key: &str, ready: Ready) -> Result<(), Stop> {
        self.unclear.insert(key.to_owned());
        self.fates.get_mut(key).expect("known").push(Some(ready.content));
        let target = format!("/box/{key}?uploadId={}", ready.id);
        right(ask(addr, "POST", &target, &[], ready.completion.as_bytes())?)?;
        self.ready.remove(key);
        self.settle(key, Some(ready.content));
        self.acknowledged += 1;
        self.completed += 1;
        Ok(())
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
        right(ask(addr, method, &format!("/box/{key}"), headers, body)?)?;
        self.settle(key, fate);
        self.acknowledged += 1;
        Ok(())
    }

    /// Which of the things that it may be a file is.
    fn look(&self, addr: &str, key: &str) -> Result<Fate, Stop> {
        let answer = ask(addr, "GET", &format!("/box/{key}"), &[], b"")?;
        let mut reasons = Vec::new();
        for fate in self.fates[key].iter().rev() {
            match (fate, answer.status) {
                (None, 404) => return Ok(*fate),
                (Some(content), 200) => match self.differs(&answer, *content) {
                    None => return Ok(*fate),
                    Some(why) => reasons.push(why),
                },
                _ => reasons.push(format!("not {fate:?}")),
            }
        }
        let (status, len) = (answer.status, answer.body.len());
        Err(Stop::Wrong(format!("{key}: status {status}, {len} bytes: {}", reasons.join("; "))))
    }

    /// In what an answer is another file than `content`, if it is.
    fn differs(&self, answer: &Answer, content: Content) -> Option<String> {
        let own = bytes_of(content.seed, content.len);
        let expected_tag = if content.is_composed { composed_tag(&own) } else { md5(&own) };
        let rest = match content.is_composed {
            true => match answer.body.strip_prefix(&self.brick[..]) {
                Some(rest) => rest,
                None => return Some("it does not begin with the brick".into()),
            },
            false => &answer.body[..],
        };
        if rest != own {
            return Some(difference(rest, &own));
        }
        let tag = answer.header("etag").unwrap_or_default();
        (tag != format!("\"{expected_tag}\"")).then(|| format!("the tag is {tag}, not {expected_tag}"))
    }

    fn settle(&mut self, key: &str, fate: Fate) {
        self.unclear.remove(key);
        *self.fates.get_mut(key).expect("known") = vec![fate];
    }
}

/// The digest of the parts' digests, and how many there are.
fn composed_tag(own: &[u8]) -> String {
    use std::sync::OnceLock;
    static BRICK_TAG: OnceLock<String> = OnceLock::new();
    let brick = BRICK_TAG.get_or_init(|| md5(&bytes_of(BRICK.0, BRICK.1)));
    let hex = format!("{brick}{}", md5(own));
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
    format!("{}-2", md5(&bytes))
}

/// An answer that says that it was done.
fn right(answer: Answer) -> Result<Answer, Stop> {
    if matches!(answer.status, 200 | 204) { Ok(answer) } else { Err(Stop::Wrong(format!("{answer:?}"))) }
}

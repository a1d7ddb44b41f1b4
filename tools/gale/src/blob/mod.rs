//! `gale blob`: reads and writes over many keys, of a store that speaks HTTP with keys as paths, with S3's signatures and
//! uploads in parts if that is wanted.
//!
//! Invariant: one operation is under way on a connection; a write counts when all of its requests were answered with
//! 2xx, a read when every byte is that of its key.

mod operation;
mod shelf;
mod sign;

use std::{os::fd::OwnedFd, time::Duration};

use sha2::{Digest, Sha256};

use crate::{
    chance::Chance,
    cli::{
        Load,
        blob::{BlobArgs, Payload},
        split_url,
    },
    http::{
        answer::{self, Framing, Step},
        chunked::Chunked,
        request::Keys,
    },
    net::Target,
    report::{Report, Words},
    rpc::{self, Heard, Pattern, Protocol},
    tally::{Faults, Kind},
};
use operation::{Operation, Request, Verdict};
use shelf::Shelf;
use sign::{EMPTY, Signed, Signer, UNSIGNED};

/// Seeds the choice between reading and writing apart from that of keys.
const CHOICE: u64 = 1 << 59;
/// Of answers to anything but reads, and to reads that failed, so much is kept.
const TEXT_MAX: usize = 16 << 10;
/// Digests of so many bodies are remembered.
const DIGESTS_MAX: usize = 100_000;

/// What is to be done.
#[derive(Clone)]
pub struct Blobs {
    target: Target,
    host: String,
    /// What stands before the number of a key.
    prefix: String,
    shelf: Shelf,
    keys: Keys,
    choice: Chance,
    /// Of a hundred operations.
    reads: u64,
    signer: Option<Signer>,
    payload: Payload,
    parts: Option<u64>,
    digests: std::collections::HashMap<(usize, usize), String>,
}

impl BlobArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Blobs, String> {
        self.check(load)?;
        let (host, path) = split_url(&self.url)?;
        let path = path.trim_end_matches('/');
        if path.is_empty() || path[1..].contains(['/', '?']) {
            return Err(format!("{:?}: write http://host:port/container", self.url));
        }
        let signer = match (&self.access_key, &self.secret_key) {
            (Some(id), Some(secret)) => Some(Signer::new(id, secret, &self.region)),
            _ => None,
        };
        Ok(Blobs {
            target: Target::new(&host, &load.congestion)?,
            host,
            prefix: sign::escaped(path, true),
            shelf: Shelf::new(load.seed, self.sizes.0),
            keys: self.keys(),
            choice: Chance::new(0, 0),
            reads: self.read_share,
            signer,
            payload: self.payload,
            parts: self.parts,
            digests: std::collections::HashMap::new(),
        })
    }
}

/// Runs the mode.
pub fn run(load: &Load, args: &BlobArgs, plan: &Blobs) -> Result<Report, String> {
    if !args.exists {
        plan.make_container()?;
    }
    let pattern = Pattern { connections: args.connections, depth: 1, rate: args.rate };
    let all = Load { requests: Some(args.keys), duration: None, warmup: Duration::ZERO, ..load.clone() };
    let pass = |reads: u64| {
        let blobs = Blobs { reads, keys: Keys::Sequence(args.keys, 0, 1), ..plan.clone() };
        let pattern = Pattern { rate: None, connections: args.connections.min(args.keys), ..pattern };
        let all = Load { threads: load.threads.min(pattern.connections as usize), ..all.clone() };
        rpc::run(&all, &blobs, pattern, |blobs, lane| blobs.lane(&all, lane))
            .map(|outcome| outcome.tally.faults)
    };
    if !args.filled {
        let faults = pass(0)?;
        if let Some((kind, count, first)) = faults.iter().next() {
            return Err(format!("before the measurement {count} writes failed, {kind}; the first: {first}"));
        }
    }
    let mut outcome = rpc::run(load, plan, pattern, |blobs, lane| blobs.lane(load, lane))?;
    if args.read_back && outcome.tally.faults.total() == 0 {
        outcome.tally.faults.add(&pass(100)?);
    }
    let mut report = Report::new("blob", &args.url, load, outcome);
    report.say("connections", args.connections);
    report.say("keys", format!("{}, {}", args.keys, args.key_order.name()));
    report.say("sizes", args.sizes);
    report.say("reads", format!("{} %", args.read_share));
    report.say("rate", args.rate.map_or("as fast as answered".into(), |rate| format!("{rate}/s")));
    if plan.signer.is_some() {
        report.say("signed", format!("version 4, {}", args.payload.words()));
    }
    if let Some(parts) = args.parts {
        report.say("parts", format!("{parts} B, where a blob is longer"));
    }
    report.words = Words {
        operations: "reads and writes, a write with all of its requests",
        latency: "from the first request of an operation to the end of its last answer",
    };
    let back = if args.read_back { "every key read back" } else { "no key read back" };
    report.checked = format!("every byte of every read; every write answered with 2xx; {back}");
    Ok(report)
}

/// One connection.
pub struct Link {
    number: usize,
    answers: u64,
    operation: Option<Operation>,
    body: Option<Body>,
    /// Where the body of the current request is in the pool, if it is too long to copy.
    apart: std::ops::Range<usize>,
}

/// An answer whose head has come.
struct Body {
    status: u16,
    tag: Option<String>,
    rest: Rest,
    keeps_alive: bool,
    seen: usize,
    /// The first byte that is wrong.
    wrong_at: Option<usize>,
    text: Vec<u8>,
}

enum Rest {
    Length(u64),
    Chunked(Box<Chunked>),
    Close,
}

impl Blobs {
    /// What a thread has of its own.
    fn lane(mut self, load: &Load, lane: usize) -> Self {
        self.keys = self.keys.lane(load.seed, lane, load.threads);
        self.choice = Chance::new(load.seed, CHOICE + lane as u64);
        self
    }

    /// Makes the container, unless it is there.
    fn make_container(&self) -> Result<(), String> {
        use std::io::{Read, Write};
        let mut stream = self.target.connect_blocking()?;
        let named = |why: std::io::Error| format!("PUT {}: {why}", self.prefix);
        stream.set_read_timeout(Some(crate::net::GREETING)).map_err(named)?;
        let mut out = Vec::new();
        let request = Request {
            method: "PUT",
            path: self.prefix.clone(),
            query: String::new(),
            body: 0..0,
            text: Vec::new(),
        };
        self.clone().head(&request, "Connection: close\r\n", &mut out);
        stream.write_all(&out).map_err(named)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(named)?;
        match answer::head(&answer, false) {
            // 409 is what S3 says of one that is ours already.
            Step::Head(head) if matches!(head.status, 200..=299 | 409) => Ok(()),
            _ => Err(format!("PUT {}: {}", self.prefix, String::from_utf8_lossy(&answer).trim())),
        }
    }

    /// Puts a request's head at the end of `out`, signed if that is wanted.
    fn head(&mut self, request: &Request, fields: &str, out: &mut Vec<u8>) {
        let Request { method, path, query, .. } = request;
        let mark = if query.is_empty() { "" } else { "?" };
        let length = match *method {
            "GET" => String::new(),
            _ => format!("Content-Length: {}\r\n", request.len()),
        };
        let line =
            format!("{method} {path}{mark}{query} HTTP/1.1\r\nHost: {}\r\n{length}{fields}", self.host);
        out.extend_from_slice(line.as_bytes());
        if let Some(signer) = &mut self.signer {
            let own;
            let digest = match self.payload {
                _ if request.len() == 0 => EMPTY,
                Payload::Unsigned => UNSIGNED,
                Payload::Signed if request.text.is_empty() => {
                    if self.digests.len() >= DIGESTS_MAX {
                        self.digests.clear();
                    }
                    let place = request.body.clone();
                    let digest = || sign::hex(&Sha256::digest(self.shelf.bytes(place.clone())));
                    self.digests.entry((place.start, place.end)).or_insert_with(digest)
                }
                Payload::Signed => {
                    own = sign::hex(&Sha256::digest(&request.text));
                    &own
                }
            };
            signer.sign(out, Signed { method, path, query, host: &self.host, digest });
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Puts a request at the end of `out`, but for a body that is too long to copy.
    fn say(&mut self, link: &mut Link, request: &Request, out: &mut Vec<u8>) {
        self.head(request, "", out);
        out.extend_from_slice(&request.text);
        link.apart = 0..0;
        if request.body.len() <= crate::http::request::COPIED_MAX {
            out.extend_from_slice(self.shelf.bytes(request.body.clone()));
        } else {
            link.apart = request.body.clone();
        }
    }

    /// Takes what belongs to the body; whether that was its end.
    fn feed(&self, link: &Link, body: &mut Body, input: &[u8], heard: &mut Heard) -> Result<bool, String> {
        let rest = &input[heard.used..];
        let (used, data, done) = match &mut body.rest {
            Rest::Length(left) => {
                let len = (*left).min(rest.len() as u64) as usize;
                *left -= len as u64;
                (len, 0..len, *left == 0)
            }
            Rest::Chunked(chunked) => {
                let piece = chunked.step(rest)?;
                (piece.used, piece.data, piece.done)
            }
            Rest::Close => (rest.len(), 0..rest.len(), false),
        };
        heard.used += used;
        let data = &rest[data];
        match link.operation.as_ref().and_then(Operation::expects).filter(|_| body.status == 200) {
            Some(place) => {
                heard.payload += data.len() as u64;
                let expected = self.shelf.bytes(place);
                let expected = expected.get(body.seen..).unwrap_or_default();
                let expected = &expected[..expected.len().min(data.len())];
                if *expected != data[..expected.len()] && body.wrong_at.is_none() {
                    let same = expected.iter().zip(data).take_while(|(a, b)| a == b).count();
                    body.wrong_at = Some(body.seen + same);
                }
            }
            None => {
                let room = TEXT_MAX - body.text.len();
                body.text.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        body.seen += data.len();
        Ok(done)
    }

    /// An answer is at its end.
    fn end(&self, link: &mut Link, body: Body, heard: &mut Heard, faults: &mut Faults) {
        let whose = |link: &Link| format!("operation {} of connection {}", link.answers, link.number);
        heard.over |= !body.keeps_alive;
        let Some(operation) = &mut link.operation else {
            faults.note(Kind::Surplus, || {
                format!("connection {}: an answer that nobody asked for", link.number)
            });
            heard.over = true;
            return;
        };
        let copied = operation.body().filter(|body| body.len() <= crate::http::request::COPIED_MAX);
        heard.payload += copied.map_or(0, |body| body.len() as u64);
        let verdict = match operation.expects().filter(|_| body.status == 200) {
            Some(place) if body.seen != place.len() => {
                Verdict::Wrong(Kind::Length, format!("{} bytes instead of {}", body.seen, place.len()))
            }
            Some(_) => match body.wrong_at {
                Some(at) => Verdict::Wrong(Kind::Bytes, format!("byte {at} is not the expected one")),
                None => Verdict::Done,
            },
            None => operation.answered(body.status, body.tag.as_deref(), &body.text),
        };
        if let Verdict::Wrong(kind, why) = &verdict {
            let what = operation.describe();
            faults.note(*kind, || format!("{}, {what}: {why}", whose(link)));
        }
        if matches!(verdict, Verdict::GoesOn) {
            heard.goes_on = true;
        } else {
            link.operation = None;
            link.answers += 1;
            heard.answers += 1;
        }
    }
}

impl Protocol for Blobs {
    type Link = Link;

    fn connect(&mut self, number: usize) -> Result<(OwnedFd, Link), String> {
        Ok((self.target.connect()?, Link { number, answers: 0, operation: None, body: None, apart: 0..0 }))
    }

    fn ask(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        let key = self.keys.choose();
        let place = self.shelf.place(key);
        let path = format!("{}/{key:08}", self.prefix);
        let operation = match self.choice.below(100) < self.reads {
            true => Operation::read(path, place),
            false => Operation::write(path, place, self.parts),
        };
        let request = operation.request();
        link.operation = Some(operation);
        self.say(link, &request, out);
    }

    fn go_on(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        let request = link.operation.as_ref().map(Operation::request);
        if let Some(request) = request {
            self.say(link, &request, out);
        }
    }

    fn body(&self, link: &Link) -> &[u8] {
        self.shelf.bytes(link.apart.clone())
    }

    fn hear(&mut self, link: &mut Link, input: &[u8], faults: &mut Faults) -> Heard {
        let mut heard = Heard::default();
        while !heard.over && heard.used < input.len() {
            let malformed = match link.body.take() {
                Some(mut body) => match self.feed(link, &mut body, input, &mut heard) {
                    Ok(true) => {
                        self.end(link, body, &mut heard, faults);
                        continue;
                    }
                    Ok(false) => {
                        link.body = Some(body);
                        continue;
                    }
                    Err(why) => why,
                },
                None => match answer::head(&input[heard.used..], false) {
                    Step::More => return heard,
                    Step::Head(head) if (100..200).contains(&head.status) => {
                        heard.used += head.len;
                        continue;
                    }
                    Step::Head(head) => {
                        let tag = answer::field(&input[heard.used..heard.used + head.len], "ETag");
                        let body = Body::begin(&head, tag);
                        heard.used += head.len;
                        match body.rest {
                            Rest::Length(0) => self.end(link, body, &mut heard, faults),
                            _ => link.body = Some(body),
                        }
                        continue;
                    }
                    Step::Malformed(why) => why,
                },
            };
            let Link { number, answers, .. } = link;
            faults
                .note(Kind::Malformed, || format!("operation {answers} of connection {number}: {malformed}"));
            heard.over = true;
        }
        heard
    }

    fn ended(&mut self, link: &mut Link, faults: &mut Faults) -> Heard {
        let mut heard = Heard::default();
        if let Some(body) = link.body.take_if(|body| matches!(body.rest, Rest::Close)) {
            self.end(link, body, &mut heard, faults);
        }
        heard
    }
}

impl Body {
    fn begin(head: &answer::Head, tag: Option<&str>) -> Self {
        let rest = match head.framing {
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Box::default()),
            Framing::Close => Rest::Close,
        };
        let (status, keeps_alive) = (head.status, head.keeps_alive);
        let tag = tag.map(str::to_owned);
        Self { status, tag, rest, keeps_alive, seen: 0, wrong_at: None, text: Vec::new() }
    }
}

//! `cargo x soak bodies`: bodies that are larger than memory should ever notice.
//!
//! A body without a length through ion, read back by eight readers; one object of S3, put and read back; sixteen uploads in
//! parts at the same time. The daemon's own memory is looked at from outside all the while: pages of mapped files are not
//! its own. Invariant: every byte that comes back is compared with what was sent.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cpu::Memory,
    daemon::{Daemon, Scratch, Setup},
    http::{Head, PATIENCE},
    perf::{
        machine::{Machine, pass},
        record::Record,
    },
};

const USAGE: &str = "\
usage: cargo x soak bodies [--percent N] [--record]
  --percent N  of 4 GiB through ion, 10 GiB through s3 and 16 times 256 MiB in parts; 100 unless told
  --record     keep the run in perf/runs instead of target/perf";

const GIB: u64 = 1 << 30;
const MIB: f64 = (1u64 << 20) as f64;
/// Bodies repeat a block whose length divides none that anything here works with.
const BLOCK: usize = (1 << 20) + 7;
const PIECE: usize = 256 << 10;
const READERS: u64 = 8;
const UPLOADS: u64 = 16;
const PART: u64 = 32 << 20;
const LOOK: Duration = Duration::from_millis(50);
/// What the daemon may have beside mapped segments.
const ION_MIB_MAX: f64 = 48.0;
const S3_MIB_MAX: f64 = 64.0;

const ION: &str = "[[ion.module]]\nname = \"m\"\nevent_id = \"e\"\nparent_event_id = \"p\"\ncorrelation_id = \"c\"\n\
     secret = \"m\"\n";

/// Runs it and keeps what was seen.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let (percent, record) = read(words)?;
    let told = |why: io::Error| format!("soak bodies: {why}");
    crate::command("cargo", &["build", "--release"])?;
    let machine = Machine::prepare(false).map_err(told)?;
    let kept = all(root, percent).map_err(told)?;
    let command_line = format!("cargo x soak bodies {}", words.join(" "));
    kept.keep(root, record, command_line.trim_end(), &machine).map_err(told)
}

fn read(words: &[&str]) -> Result<(u64, bool), String> {
    let (mut percent, mut record) = (100, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--percent" => percent = words.next().and_then(|value| value.parse().ok()).ok_or(USAGE)?,
            "--record" => record = true,
            _ => return Err(USAGE.into()),
        }
    }
    Ok((percent, record))
}

fn all(root: &Path, percent: u64) -> io::Result<Record> {
    let mut record = Record::new(
        "soak-bodies",
        "Bodies far larger than memory",
        "Shows that the daemon's memory does not depend on the length of a body, nor on how many parts of how many uploads \
         come at the same time.",
    );
    record.remark(format!(
        "2 shards, `durability = \"cache\"`. Own memory: what of the daemon is resident but for pages of mapped files, \
         every {LOOK:?}. {percent} % of 4 GiB, 10 GiB, and {UPLOADS} times 256 MiB in parts of 32 MiB."
    ));
    let len = |whole: u64| whole * percent / 100;
    let body = Body::new();
    type Way = fn(&Daemon, &Body, u64) -> io::Result<(u64, u64)>;
    let ways: [(&str, Way, u64); 3] =
        [("ion", through_ion, 4 * GIB), ("s3", through_s3, 10 * GIB), ("parts", in_parts, GIB / 4)];
    for (case, way, whole) in ways {
        let scratch = Scratch::new()?;
        let daemon = start(root, &scratch)?;
        let seen = watched(&daemon, || way(&daemon, &body, len(whole)))?;
        record.round(
            case,
            0,
            &[
                ("own memory", "MiB", seen.own_mib),
                ("own memory before", "MiB", seen.before_mib),
                ("bytes in", "MiB", seen.moved.0 as f64 / MIB),
                ("bytes out", "MiB", seen.moved.1 as f64 / MIB),
                ("time", "s", seen.took),
            ],
        );
        daemon.stop()?;
    }
    record.checked("every byte of every body that came back, by comparison with what was sent");
    record.largest_at_most("ion", "own memory", ION_MIB_MAX);
    record.largest_at_most("s3", "own memory", S3_MIB_MAX);
    record.largest_at_most("parts", "own memory", S3_MIB_MAX);
    Ok(record)
}

fn start(root: &Path, scratch: &Scratch) -> io::Result<Daemon> {
    let config = scratch.path().join("millpond.toml");
    std::fs::write(&config, ION)?;
    let setup = Setup {
        shards: 2,
        durability: "cache",
        dialects: &["ion", "s3"],
        config: Some(config),
        ..Setup::new(&root.join("target/release/millpond"), &scratch.data())
    };
    setup.start()
}

struct Seen {
    own_mib: f64,
    before_mib: f64,
    /// In and out.
    moved: (u64, u64),
    took: f64,
}

/// Does `work` and looks at the daemon's memory meanwhile.
fn watched(daemon: &Daemon, work: impl FnOnce() -> io::Result<(u64, u64)>) -> io::Result<Seen> {
    let (pid, begun) = (daemon.pid(), Instant::now());
    let own = |pid| Memory::of(pid).map(|memory| memory.not_file);
    let before = own(pid)?;
    let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(before));
    let moved = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(own(pid).unwrap_or(0), Ordering::Relaxed);
                pass(LOOK);
            }
        });
        let moved = work();
        is_over.store(true, Ordering::Relaxed);
        moved
    })?;
    let took = begun.elapsed().as_secs_f64();
    Ok(Seen {
        own_mib: most.load(Ordering::Relaxed) as f64 / MIB,
        before_mib: before as f64 / MIB,
        moved,
        took,
    })
}

fn through_ion(daemon: &Daemon, body: &Body, len: u64) -> io::Result<(u64, u64)> {
    let address = daemon.address("ion").expect("it listens");
    let target = "/self/blob?res=large";
    let mut socket = begin(address, &format!("PUT {target}"), "secret: m\r\ntransfer-encoding: chunked\r\n")?;
    body.each(0..len, |piece| {
        write!(socket, "{:x}\r\n", piece.len())?;
        socket.write_all(piece)?;
        socket.write_all(b"\r\n")
    })?;
    socket.write_all(b"0\r\n\r\n")?;
    expect(&mut socket, 200)?;
    let read = || get(address, target, "secret: m\r\n", body, 0..len);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader does not panic"))
    })?;
    Ok((len, READERS * len))
}

fn through_s3(daemon: &Daemon, body: &Body, len: u64) -> io::Result<(u64, u64)> {
    let address = daemon.address("s3").expect("it listens");
    simple(address, "PUT /bodies", b"")?;
    put(address, "/bodies/large", body, 0..len)?;
    get(address, "/bodies/large", "", body, 0..len)?;
    Ok((len, len))
}

fn in_parts(daemon: &Daemon, body: &Body, len: u64) -> io::Result<(u64, u64)> {
    let address = daemon.address("s3").expect("it listens");
    simple(address, "PUT /bodies", b"")?;
    let upload = |number: u64| -> io::Result<()> {
        let target = format!("/bodies/in-parts-{number}");
        let begun = simple(address, &format!("POST {target}?uploads"), b"")?;
        let id = between(&begun, "<UploadId>", "</UploadId>")?;
        let mut parts = String::new();
        for (at, number) in (0..len).step_by(PART as usize).zip(1..) {
            let range = at..(at + PART).min(len);
            let etag = put(address, &format!("{target}?partNumber={number}&uploadId={id}"), body, range)?;
            parts += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        simple(address, &format!("POST {target}?uploadId={id}"), document.as_bytes())?;
        get(address, &target, "", body, 0..len)
    };
    thread::scope(|scope| {
        let uploads: Vec<_> = (0..UPLOADS).map(|number| scope.spawn(move || upload(number))).collect();
        uploads.into_iter().try_for_each(|upload| upload.join().expect("an upload does not panic"))
    })?;
    Ok((UPLOADS * len, UPLOADS * len))
}

/// Bytes that are known at every offset.
struct Body(Vec<u8>);

impl Body {
    fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        Body((0..BLOCK).map(|_| next()).collect())
    }

    /// The bytes at `at`, up to the end of the block.
    fn at(&self, at: u64) -> &[u8] {
        &self.0[(at % BLOCK as u64) as usize..]
    }

    fn each(
        &self,
        range: std::ops::Range<u64>,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let piece = self.at(at);
            let piece = &piece[..piece.len().min(PIECE).min((range.end - at) as usize)];
            take(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn is(&self, mut at: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let known = self.at(at);
            let len = known.len().min(bytes.len());
            if known[..len] != bytes[..len] {
                return false;
            }
            at += len as u64;
            bytes = &bytes[len..];
        }
        true
    }
}

fn begin(address: &str, request: &str, fields: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE * 10))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    write!(socket, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n")?;
    Ok(socket)
}

/// Reads the head of an answer, and what came behind it.
fn answer(socket: &mut TcpStream) -> io::Result<(Head, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        if let Some((head, len)) = Head::read(&seen) {
            return Ok((head, seen.split_off(len)));
        }
        match socket.read(&mut piece)? {
            0 => return Err(io::Error::other("the answer is cut")),
            len => seen.extend_from_slice(&piece[..len]),
        }
    }
}

fn expect(socket: &mut TcpStream, status: u16) -> io::Result<Head> {
    let (head, rest) = answer(socket)?;
    match head.status == status {
        true => Ok(head),
        false => Err(io::Error::other(format!("{}: {}", head.status, String::from_utf8_lossy(&rest)))),
    }
}

/// A request with a short body; the body of its answer.
fn simple(address: &str, request: &str, body: &[u8]) -> io::Result<String> {
    let mut socket = begin(address, request, &format!("content-length: {}\r\n", body.len()))?;
    socket.write_all(body)?;
    let (head, mut rest) = answer(&mut socket)?;
    socket.read_to_end(&mut rest)?;
    let text = String::from_utf8_lossy(&rest).into_owned();
    if head.status == 200 {
        Ok(text)
    } else {
        Err(io::Error::other(format!("{request}: {} {text}", head.status)))
    }
}

/// Puts a range of the body; its entity tag.
fn put(address: &str, target: &str, body: &Body, range: std::ops::Range<u64>) -> io::Result<String> {
    let length = format!("content-length: {}\r\n", range.end - range.start);
    let mut socket = begin(address, &format!("PUT {target}"), &length)?;
    body.each(range, |piece| socket.write_all(piece))?;
    let head = expect(&mut socket, 200)?;
    head.field("etag").map(str::to_owned).ok_or_else(|| io::Error::other("no entity tag"))
}

/// Reads it back and compares.
fn get(
    address: &str,
    target: &str,
    fields: &str,
    body: &Body,
    range: std::ops::Range<u64>,
) -> io::Result<()> {
    let mut socket = begin(address, &format!("GET {target}"), fields)?;
    let (head, mut piece) = answer(&mut socket)?;
    let len = range.end - range.start;
    if head.status != 200 || head.number("content-length") != Some(len) {
        return Err(io::Error::other(format!("GET {target}: {head:?}")));
    }
    let mut at = range.start;
    let mut buffer = vec![0; PIECE];
    loop {
        if !body.is(at, &piece) {
            return Err(io::Error::other(format!("GET {target}: other bytes at {at}")));
        }
        at += piece.len() as u64;
        if at == range.end {
            return Ok(());
        }
        let read = socket.read(&mut buffer)?;
        if read == 0 {
            return Err(io::Error::other(format!("GET {target}: cut at {at}")));
        }
        piece.clear();
        piece.extend_from_slice(&buffer[..read]);
    }
}

fn between(text: &str, open: &str, close: &str) -> io::Result<String> {
    let inner = text.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    inner.map(|(inner, _)| inner.to_owned()).ok_or_else(|| io::Error::other(format!("no {open} in {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_known_at_every_offset() {
        let body = Body::new();
        let (mut all, from) = (Vec::new(), BLOCK as u64 - 3);
        body.each(from..from + 2 * BLOCK as u64, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(all.len(), 2 * BLOCK);
        assert!(body.is(from, &all) && !body.is(from + 1, &all));
    }

    #[test]
    fn unknown_words_are_refused() {
        assert_eq!(read(&["--percent", "5", "--record"]), Ok((5, true)));
        assert!(read(&["--percent"]).is_err() && read(&["fast"]).is_err());
    }
}

//! A month of churn in fast motion: streams are written, expire and are deleted, many times what may be there at once,
//! while others go on asking for small things.
//!
//! Invariant: every answer that others got was right; what is on disk is looked at from outside, block by block.

use std::{
    fs,
    io::{self, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    cpu::Memory,
    daemon::{Daemon, Scratch, Setup},
    http::{Head, ask},
    perf::{
        fill::{Connection, Kind, create, fill},
        machine::{Machine, pass},
        record::Record,
    },
};

const USAGE: &str = "\
cargo x soak churn [GIB] [--rate MIB] [--seed N] [--record]
  GIB          how much is written in all, 8 unless told
  --rate MIB   how much in a second at most; as fast as it goes unless told
  --seed N     of sizes and deletions
  --record     keep the run in perf/runs instead of target/perf";

/// Streams may have so much together.
const LIMIT: u64 = 2 << 30;
const KEYS: &[(&str, &str)] = &[
    ("MILLPOND_LOOM_RETENTION_MAX_BYTES", "2GiB"),
    // What is made ahead is small beside the limit.
    ("MILLPOND_SEGMENT_SIZE", "32MiB"),
];
const WRITERS: u64 = 2;
/// Bytes of a stream, evenly by their number of digits.
const SIZES: (u64, u64) = (64 << 10, 8 << 20);
/// One stream in so many is deleted by hand soon after it was written; the rest expires.
const DELETED: u64 = 4;
/// What others ask for in a second: a small file that is there, and another one to be put.
const OTHERS_PER_SECOND: u32 = 200;
const FILES: u64 = 1000;
const CONTAINER: &str = "others";
/// The time that others are alone, before and after.
const ALONE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(500);

struct Options {
    bytes: u64,
    rate: Option<u64>,
    seed: u64,
    record: bool,
}

/// Runs it and keeps what was seen.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let options = read(words)?;
    let told = |why: io::Error| format!("soak churn: {why}");
    crate::command("cargo", &["build", "--release"])?;
    let machine = Machine::prepare(false).map_err(told)?;
    let record = churn(root, &options).map_err(told)?;
    let command_line = format!("cargo x soak churn {}", words.join(" "));
    record.keep(root, options.record, command_line.trim_end(), &machine).map_err(told)
}

fn read(words: &[&str]) -> Result<Options, String> {
    let mut options = Options { bytes: 8 << 30, rate: None, seed: 1, record: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|value| value.parse::<u64>().ok()).ok_or(USAGE);
        match *word {
            "--rate" => options.rate = Some(number()? << 20),
            "--seed" => options.seed = number()?,
            "--record" => options.record = true,
            gib => options.bytes = gib.parse::<u64>().ok().filter(|gib| *gib > 0).ok_or(USAGE)? << 30,
        }
    }
    Ok(options)
}

fn churn(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "soak-churn",
        "A month of churn in fast motion",
        "Shows that disk and memory stay what the living data needs, and others quick, however much comes and goes.",
    );
    let rate =
        options.rate.map_or("as fast as it goes".to_owned(), |rate| format!("at most {} MiB/s", rate >> 20));
    record.remark(format!(
        "{} GiB in streams of {} KiB to {} MiB, {rate}, over {WRITERS} connections, seed {}; \
         `loom.retention.max_bytes = \"2GiB\"`, one stream in {DELETED} deleted by hand; 2 shards, \
         `durability = \"cache\"`, segments of 32 MiB.",
        options.bytes >> 30,
        SIZES.0 >> 10,
        SIZES.1 >> 20,
        options.seed,
    ));
    record.remark(format!(
        "Others: {OTHERS_PER_SECOND} `GET` and as many `PUT` of 100 bytes a second, by the clock, each timed from when \
         it was due; alone for {ALONE:?} before and after."
    ));
    record.remark(
        "Disk: blocks of all files of the data directory. Live: what the daemon says its streams have, and the files. \
         Both twice a second, from when twice the limit was written.",
    );
    let scratch = Scratch::new()?;
    let setup = Setup {
        shards: 2,
        durability: "cache",
        dialects: &["vblob"],
        keys: KEYS,
        ..Setup::new(&root.join("target/release/millpond"), &scratch.data())
    };
    let daemon = setup.start()?;
    let files = daemon.address("vblob").expect("it listens");
    create(files, CONTAINER)?;
    fill(files, Kind::Files(CONTAINER), 0..FILES)?;
    let before = others(files, || {
        pass(ALONE);
        Ok(())
    })?;
    let begun = Instant::now();
    let mut looks = Vec::new();
    let during = others(files, || {
        looks = write_all(&daemon, options, &scratch)?;
        Ok(())
    })?;
    let took = begun.elapsed();
    let after = others(files, || {
        pass(ALONE);
        Ok(())
    })?;
    daemon.stop()?;
    let p999 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.999) as f64 / 1e3;
    let alone = p999(&before).max(p999(&after));
    for (case, histogram) in
        [("others alone, before", &before), ("others with churn", &during), ("others alone, after", &after)]
    {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        record.round(
            case,
            0,
            &[
                ("p50", "ms", at(0.5)),
                ("p99", "ms", at(0.99)),
                ("p99.9", "ms", at(0.999)),
                ("most", "ms", at(1.0)),
                ("answers", "", histogram.len() as f64),
            ],
        );
    }
    let worst = |numbers: &[f64]| numbers.iter().copied().fold(0.0, f64::max);
    let ratios: Vec<f64> = looks.iter().map(|look| look.disk / look.live).collect();
    let memory: Vec<f64> = looks.iter().map(|look| look.anon).collect();
    let quarter = memory.len() / 4;
    if quarter == 0 {
        return Err(io::Error::other("it was over before anything could be seen: write more"));
    }
    let (early, late) = (worst(&memory[..quarter]), worst(&memory[memory.len() - quarter..]));
    record.round(
        "churn",
        0,
        &[
            ("written", "GiB", options.bytes as f64 / f64::from(1 << 30)),
            ("rate", "MiB/s", options.bytes as f64 / took.as_secs_f64() / f64::from(1 << 20)),
            ("most disk for live data", "times", worst(&ratios)),
            ("mean disk for live data", "times", ratios.iter().sum::<f64>() / ratios.len() as f64),
            ("RssAnon, first quarter", "MiB", early / f64::from(1 << 20)),
            ("RssAnon, last quarter", "MiB", late / f64::from(1 << 20)),
            ("RssAnon, last for first", "times", late / early),
            ("others' p99.9 for alone", "times", p999(&during) / alone),
        ],
    );
    record.checked("every stream was answered 201 to its end, every deletion 204 or 404, others 200 or 201");
    record.checked("the daemon left by itself after SIGTERM, with exit code 0");
    record.largest_at_most("churn", "most disk for live data", 1.3);
    record.largest_at_most("churn", "RssAnon, last for first", 1.1);
    if options.rate.is_some() {
        record.largest_at_most("others with churn", "p99.9", 20.0);
        record.largest_at_most("churn", "others' p99.9 for alone", 1.5);
    }
    Ok(record)
}

/// Asks for small things by the clock until `work` is over; how long each answer took, in microseconds.
fn others(address: &str, work: impl FnOnce() -> io::Result<()>) -> io::Result<Histogram<u64>> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let kinds = [("GET", ""), ("PUT", "content-length: 100\r\n")];
        let askers = kinds.map(|(method, field)| {
            let over = &over;
            scope.spawn(move || ask_by_the_clock(address, method, field, over))
        });
        let worked = work();
        over.store(true, Ordering::Relaxed);
        let mut all = Histogram::new(3).expect("three digits are possible");
        for asker in askers {
            all += asker.join().expect("asking does not panic")?;
        }
        worked.map(|()| all)
    })
}

fn ask_by_the_clock(
    address: &str,
    method: &str,
    field: &str,
    over: &AtomicBool,
) -> io::Result<Histogram<u64>> {
    let mut took = Histogram::<u64>::new(3).expect("three digits are possible");
    let mut connection = Connection::open(address)?;
    let step = Duration::from_secs(1) / OTHERS_PER_SECOND;
    let mut due = Instant::now();
    for number in 0u64.. {
        due += step;
        if over.load(Ordering::Relaxed) {
            break;
        }
        pass(due.saturating_duration_since(Instant::now()));
        let path = Kind::Files(CONTAINER).get(number * 7 % FILES);
        let path = path.trim_start_matches("GET ");
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{field}\r\n").into_bytes();
        if method == "PUT" {
            request.extend_from_slice(&[b'x'; 100]);
        }
        connection.socket.write_all(&request)?;
        connection.answer(&[200, 201])?;
        took.record(due.elapsed().as_micros() as u64).expect("it grows");
    }
    Ok(took)
}

/// One look at the daemon.
struct Looked {
    disk: f64,
    live: f64,
    anon: f64,
}

/// Writes all there is to write; what was seen meanwhile.
fn write_all(daemon: &Daemon, options: &Options, scratch: &Scratch) -> io::Result<Vec<Looked>> {
    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let body: Vec<u8> = (0..SIZES.1).map(|at| ((at * at) >> 7) as u8).collect();
    thread::scope(|scope| {
        let looker = scope.spawn(|| look(daemon, scratch, &written, &over));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (body, written) = (&body, &written);
                scope.spawn(move || write(daemon.loom(), writer, options, body, written))
            })
            .collect();
        let wrote = writers.into_iter().try_for_each(|writer| writer.join().expect("writing does not panic"));
        over.store(true, Ordering::Relaxed);
        let looks = looker.join().expect("looking does not panic")?;
        wrote.map(|()| looks)
    })
}

/// Writes streams until all bytes are written, and deletes some.
fn write(address: &str, writer: u64, options: &Options, body: &[u8], written: &AtomicU64) -> io::Result<()> {
    let mut random = options.seed.wrapping_mul(2 * WRITERS + 1).wrapping_add(writer) | 1;
    let begun = Instant::now();
    for number in 0u64.. {
        let already = written.load(Ordering::Relaxed);
        if already >= options.bytes {
            return Ok(());
        }
        if let Some(rate) = options.rate {
            let due = Duration::from_secs_f64(already as f64 / rate as f64);
            pass(due.saturating_sub(begun.elapsed()));
        }
        let doublings = (SIZES.1 / SIZES.0).ilog2();
        let len = (SIZES.0 << (next(&mut random) % u64::from(doublings))) + next(&mut random) % SIZES.0;
        post(address, &format!("churn-{writer}-{number}"), &body[..len as usize])?;
        written.fetch_add(len, Ordering::Relaxed);
        if number >= 8 && next(&mut random).is_multiple_of(DELETED) {
            let id = format!("churn-{writer}-{}", number - next(&mut random) % 8);
            match ask(address, &format!("DELETE /stream/{id}"), b"")?.0 {
                204 | 404 => {}
                status => return Err(io::Error::other(format!("DELETE of {id} was answered {status}"))),
            }
        }
    }
    Ok(())
}

fn post(address: &str, id: &str, body: &[u8]) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    write!(
        socket,
        "POST /stream/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    socket.write_all(body)?;
    let mut answer = Vec::new();
    io::Read::read_to_end(&mut socket, &mut answer)?;
    match Head::read(&answer) {
        Some((head, _)) if head.status == 201 && answer.ends_with(b"\r\n\r\n") => Ok(()),
        _ => Err(io::Error::other(format!("POST of {id}: {}", String::from_utf8_lossy(&answer)))),
    }
}

/// xorshift64*: enough to vary sizes.
fn next(random: &mut u64) -> u64 {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}

fn look(
    daemon: &Daemon,
    scratch: &Scratch,
    written: &AtomicU64,
    over: &AtomicBool,
) -> io::Result<Vec<Looked>> {
    let mut looks = Vec::new();
    let admin = daemon.address("admin").expect("it listens");
    while !over.load(Ordering::Relaxed) {
        pass(LOOK);
        let written = written.load(Ordering::Relaxed);
        let (_, page) = ask(admin, "GET /metrics", b"")?;
        let page = String::from_utf8_lossy(&page);
        let streams = sum(&page, "millpond_stream_bytes");
        let disk = blocks(&scratch.data())? as f64;
        let looked = Looked {
            disk,
            live: streams + (FILES * 100) as f64,
            anon: Memory::of(daemon.pid())?.anon as f64,
        };
        if written >= 2 * LIMIT {
            looks.push(looked);
        }
    }
    Ok(looks)
}

/// The sum of a gauge over all shards.
fn sum(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.sum()
}

/// What the files in a directory take.
fn blocks(folder: &Path) -> io::Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // One that goes while we look takes nothing.
        let Ok(found) = entry.metadata() else { continue };
        all += match found.is_dir() {
            true => blocks(&entry.path())?,
            false => std::os::unix::fs::MetadataExt::blocks(&found) * 512,
        };
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_refused() {
        let options = read(&["16", "--rate", "100", "--record"]).expect("options");
        assert_eq!((options.bytes, options.rate, options.record), (16 << 30, Some(100 << 20), true));
        assert!(read(&["--rate"]).is_err() && read(&["fast"]).is_err() && read(&["0"]).is_err());
    }

    #[test]
    fn a_gauge_is_summed_over_shards_and_its_neighbours_are_not() {
        let page = "millpond_stream_bytes{shard=\"0\"} 3\nmillpond_stream_bytes{shard=\"1\"} 4\nmillpond_stream_bytes_max 9\n";
        assert_eq!(sum(page, "millpond_stream_bytes"), 7.0);
    }
}

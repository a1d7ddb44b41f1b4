//! Log text through `millpond pipe` to three `millpond tail`, over a daemon that is killed half-way.
//!
//! Invariant: what went in, what each reader printed and what is stored in the end are the same bytes, and no
//! byte that the daemon called durable before the kill is missing after it.

mod text;
mod tool;

use std::{
    io,
    path::Path,
    process::ChildStdout,
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{options::Options, record::Record};
use crate::{
    cpu::{Usage, receives_by_ring},
    daemon::{Daemon, Scratch, Setup},
    http::{Head, get_whole, head},
};
use text::Text;
use tool::{Sum, Summing, Tool, drain, feed};

const SHARDS: usize = 2;
const READERS: usize = 3;
const ID: &str = "log";
const PATH: &str = "/stream/log";
/// Starts of readers until they sit on different shards.
const TRIES: usize = 24;
/// The slowest that is still worth waiting for.
const BYTES_PER_SECOND_MIN: u64 = 16 << 20;
/// A supervisor would not give up sooner.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// All rounds.
pub fn run(root: &Path, options: &Options) -> io::Result<Record> {
    let mut record = Record::new(
        "logpipe",
        "Log text to three live readers, with a kill",
        "Shows that a log which goes through `millpond pipe` reaches every `millpond tail` whole and once, although \
         the daemon is killed half-way, and what that costs.",
    );
    let bytes = options.bytes.unwrap_or(if options.short { 64 << 20 } else { 1 << 30 });
    let text = Arc::new(Text::collect(root, options.log.as_deref())?);
    let sources: Vec<String> =
        text.sources().iter().map(|(name, len)| format!("{name} ({len} bytes)")).collect();
    record.remark(format!(
        "{bytes} bytes: text of {} bytes, repeated, each time under a line with the number of the repetition. Sources: {}.",
        text.period(),
        sources.join("; ")
    ));
    record.remark(format!(
        "{SHARDS} shards, `durability = \"sync\"`, not pinned. The text goes in pieces of 1 byte to 64 KiB through a \
         pipe into one `millpond pipe`; {READERS} `millpond tail` print into pipes that are hashed and compared while \
         they are read. All of that shares the cores with the daemon."
    ));
    record.remark(
        "Readers are started until both shards have one, by the receives that each shard's ring has armed.",
    );
    record.remark(
        "Half-way the daemon gets SIGKILL and the producer is stopped, the daemon is started again on the same port \
         and directory, its offset is asked for, and the producer continues: the same processes go on to the end.",
    );
    for number in 0..options.rounds(3, 1) {
        let sum = round(&mut record, &root.join("target/release/millpond"), &text, number, bytes)?;
        println!("{} bytes everywhere, sha256 {}", sum.len, sum.sha256);
        if number == 0 {
            record.checked(format!(
                "sha256 of input, readers and store: `{}`, {} bytes each",
                sum.sha256, sum.len
            ));
        }
    }
    record.largest_at_most("", "starts that failed", 0.0);
    record.checked("every byte that a reader printed, against the text at its offset");
    record.checked("`pipe` and all `tail` ended with exit code 0; the stream says `complete`");
    record.checked("after the kill the stream's offset was at least the `Stream-Durable-Offset` of before, in every round");
    record.checked("the producer was never cut off for good: the process of the start saw the end");
    Ok(record)
}

fn round(record: &mut Record, binary: &Path, text: &Arc<Text>, number: u32, bytes: u64) -> io::Result<Sum> {
    let scratch = Scratch::new()?;
    let mut setup = Setup { shards: SHARDS, ..Setup::new(binary, &scratch.data()) };
    let daemon = setup.start()?;
    setup.loom = daemon.loom().to_owned();
    let (url, address) = (format!("http://{}", setup.loom), setup.loom.clone());

    let (pipe, input) = Tool::pipe(binary, &url, ID)?;
    wait_for_stream(&address)?;
    let readers = start_readers(binary, &url, &daemon)?;
    let on_first = readers.iter().filter(|reader| reader.shard == 0).count();

    let started = Instant::now();
    let (half, half_in) = sync_channel(1);
    let feeder = thread::spawn({
        let text = text.clone();
        move || feed(&text, input, bytes, bytes / 2, &half)
    });
    let readers: Vec<_> = readers
        .into_iter()
        .map(|Placed { tail, output, .. }| {
            let text = text.clone();
            (tail, thread::spawn(move || drain(&text, output)))
        })
        .collect();
    let patience = PATIENCE + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
    half_in.recv_timeout(patience).map_err(|_| io::Error::other("half of the text was never taken"))?;
    let before_kill = started.elapsed();

    let (daemon, kill) = kill_and_restart(&setup, daemon, &pipe)?;
    let sent = within(patience, "the feeder", feeder)??;
    pipe.ended_well("millpond pipe")?;
    let took = started.elapsed();
    let mut silence = Duration::ZERO;
    for (reader, (tail, thread)) in readers.into_iter().enumerate() {
        let (sum, quiet) = within(patience, "a reader", thread)?
            .map_err(|why| io::Error::other(format!("reader {reader}: {why}")))?;
        same(&format!("reader {reader}"), &sum, &sent)?;
        tail.ended_well("millpond tail")?;
        silence = silence.max(quiet);
    }
    let all_read = started.elapsed();
    let after = Usage::of(daemon.pid())?;
    let stored = read_back(&address, text)?;
    same("the store", &stored, &sent)?;
    daemon.stop()?;

    let gib = bytes as f64 / f64::from(1 << 30);
    let cpu = (kill.daemon.nanos + after.nanos) as f64 / 1e9;
    let second = took - before_kill - kill.away;
    record.round(
        "with a SIGKILL half-way",
        number,
        &[
            ("whole run", "s", took.as_secs_f64()),
            ("last reader done", "s", all_read.as_secs_f64()),
            ("throughput before the kill", "MiB/s", 512.0 * gib / before_kill.as_secs_f64()),
            ("throughput after the restart", "MiB/s", 512.0 * gib / second.as_secs_f64()),
            ("throughput of the whole run", "MiB/s", 1024.0 * gib / took.as_secs_f64()),
            ("restart to ready line", "ms", 1e3 * kill.ready.as_secs_f64()),
            ("starts that failed", "starts", f64::from(kill.refused)),
            ("kill to first answer", "ms", 1e3 * kill.away.as_secs_f64()),
            ("longest silence of a reader", "ms", 1e3 * silence.as_secs_f64()),
            (
                "published and not called durable at the kill",
                "bytes",
                kill.published.saturating_sub(kill.durable) as f64,
            ),
            ("kept beyond the durable offset", "bytes", (kill.recovered - kill.durable) as f64),
            ("daemon CPU per GiB sent to three readers", "s", cpu / gib),
            ("readers on the first shard", "readers", on_first as f64),
        ],
    );
    Ok(sent)
}

/// What the kill met and left.
struct Kill {
    durable: u64,
    published: u64,
    recovered: u64,
    ready: Duration,
    /// Starts that ended without serving.
    refused: u32,
    /// From the kill to the first answer of the next daemon.
    away: Duration,
    /// What the killed daemon had used.
    daemon: Usage,
}

fn kill_and_restart(setup: &Setup, daemon: Daemon, pipe: &Tool) -> io::Result<(Daemon, Kill)> {
    let offset = |head: &Head, field: &str| {
        head.number(field)
            .ok_or_else(|| io::Error::other(format!("HEAD was answered {} without {field}", head.status)))
    };
    let used = Usage::of(daemon.pid())?;
    let before = head(&setup.loom, PATH)?;
    let (durable, published) =
        (offset(&before, "stream-durable-offset")?, offset(&before, "stream-next-offset")?);
    let killed = Instant::now();
    daemon.kill()?;
    // Nothing may be added between the recovery and our look at it.
    pipe.signal(Signal::STOP)?;
    let (daemon, refused) = start_again(setup)?;
    let after = head(&setup.loom, PATH)?;
    let away = killed.elapsed();
    pipe.signal(Signal::CONT)?;
    let recovered = offset(&after, "stream-next-offset")?;
    if recovered < durable {
        return Err(io::Error::other(format!(
            "{durable} bytes were durable before the kill, {recovered} are left"
        )));
    }
    let state = after.field("x-stream-state");
    if state != Some("interrupted") {
        return Err(io::Error::other(format!(
            "after the kill the stream's state is {state:?}, not `interrupted`"
        )));
    }
    let ready = daemon.start_time();
    Ok((daemon, Kill { durable, published, recovered, ready, refused, away, daemon: used }))
}

/// Starts until it serves, and how often it did not: the kernel may hold the port of a killed process a moment
/// longer than the process.
fn start_again(setup: &Setup) -> io::Result<(Daemon, u32)> {
    let (asked, mut refused) = (Instant::now(), 0);
    loop {
        match setup.start() {
            Ok(daemon) => return Ok((daemon, refused)),
            Err(why) if asked.elapsed() > AGAIN_WITHIN => return Err(why),
            Err(_) => refused += 1,
        }
    }
}

fn wait_for_stream(address: &str) -> io::Result<()> {
    let asked = Instant::now();
    while head(address, PATH)?.status != 200 {
        if asked.elapsed() > PATIENCE {
            return Err(io::Error::other("`millpond pipe` made no stream"));
        }
    }
    Ok(())
}

/// A reader, where it prints to, and the shard that it reached.
struct Placed {
    tail: Tool,
    output: ChildStdout,
    shard: usize,
}

/// Starts readers such that every shard has one.
fn start_readers(binary: &Path, url: &str, daemon: &Daemon) -> io::Result<Vec<Placed>> {
    let mut readers: Vec<Placed> = Vec::new();
    // The producer's; those of our own questions before are on their way out.
    await_receives(daemon, |now| now.iter().sum::<usize>() == 1)?;
    for _ in 0..TRIES {
        let before = receives_by_ring(daemon.pid())?;
        let (tail, output) = Tool::tail(binary, url, ID)?;
        let shard = risen(&before, daemon)?;
        let missing =
            (0..SHARDS).filter(|at| *at != shard && readers.iter().all(|reader| reader.shard != *at));
        if readers.len() + missing.count() >= READERS {
            // With it there would be no room for a reader of another shard. It is gone before the next look.
            drop((tail, output));
            await_receives(daemon, |now| now == before)?;
            continue;
        }
        readers.push(Placed { tail, output, shard });
        if readers.len() == READERS {
            return Ok(readers);
        }
    }
    Err(io::Error::other(format!("{TRIES} readers were started and all sit on one shard")))
}

/// The shard that has one connection more than before.
fn risen(before: &[usize], daemon: &Daemon) -> io::Result<usize> {
    let now = await_receives(daemon, |now| now.iter().sum::<usize>() == before.iter().sum::<usize>() + 1)?;
    let risen = now.iter().zip(before).position(|(now, before)| now > before);
    risen
        .filter(|_| now.len() == SHARDS)
        .ok_or_else(|| io::Error::other("the rings of the shards cannot be told apart"))
}

fn await_receives(daemon: &Daemon, reached: impl Fn(&[usize]) -> bool) -> io::Result<Vec<usize>> {
    let asked = Instant::now();
    loop {
        let now = receives_by_ring(daemon.pid())?;
        if reached(&now) {
            return Ok(now);
        }
        if asked.elapsed() > Duration::from_secs(10) {
            return Err(io::Error::other(format!("the connections of the shards stay at {now:?}")));
        }
    }
}

fn read_back(address: &str, text: &Text) -> io::Result<Sum> {
    let mut summing = Summing::new(text);
    let head = get_whole(address, PATH, |piece| summing.add(piece))?;
    match head.field("x-stream-state") {
        Some("complete") => summing.end(),
        state => Err(io::Error::other(format!("in the end the stream's state is {state:?}, not `complete`"))),
    }
}

fn same(whose: &str, got: &Sum, sent: &Sum) -> io::Result<()> {
    match got == sent {
        true => Ok(()),
        false => Err(io::Error::other(format!("{whose} has {got:?}, and {sent:?} was sent"))),
    }
}

/// The result of a thread, unless it takes too long.
fn within<T: Send + 'static>(
    patience: Duration,
    whose: &str,
    thread: thread::JoinHandle<T>,
) -> io::Result<T> {
    let (done, finished) = sync_channel(1);
    thread::spawn(move || _ = done.send(thread.join()));
    match finished.recv_timeout(patience) {
        Ok(result) => Ok(result.expect("it does not panic")),
        Err(_) => Err(io::Error::other(format!("{whose} was not done after {patience:?}"))),
    }
}

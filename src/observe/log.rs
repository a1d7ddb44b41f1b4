//! The log: one event per state change, to standard error, as text or as JSON lines.
//!
//! Invariant: a shard never waits for whoever reads our standard error. A line is formatted on the shard and
//! put into a bounded queue; one thread writes. When the queue is full, or holds [`QUEUED_BYTES_MAX`], the line
//! is dropped and counted. Changing the level takes effect on all threads without a lock on the way of a line.
//! Lives on: formatting on any thread, writing on the thread `log`.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing::{Metadata, Subscriber, callsite::rebuild_interest_cache, subscriber::Interest};
use tracing_subscriber::{
    Layer, Registry,
    filter::LevelFilter,
    fmt::MakeWriter,
    layer::{Context, SubscriberExt},
};

/// Most lines that wait for the writer.
pub const QUEUED_LINES_MAX: usize = 4096;
/// Most bytes that wait for the writer; a line that would exceed it is dropped.
pub const QUEUED_BYTES_MAX: usize = 4 << 20;
/// How long the end of the program waits for the last lines to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts logging to standard error for the whole process. Keep the handle until the very end: dropping it
/// writes what is queued, waiting at most two seconds for a reader that is stuck.
///
/// # Errors
/// When the writer's thread cannot start, or a log was started before.
pub fn init(format: Format, level: Level) -> io::Result<LogHandle> {
    let stderr = io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (subscriber, handle) = build(format, level, colour, stderr)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| io::Error::other("the log of this process was already started"))?;
    DROPPED.get_or_init(|| Arc::clone(&handle.queue.dropped));
    Ok(handle)
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, fields.
    Text,
    /// For machines: one JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownWord { word: word.to_owned(), accepted: "text, json" }),
        }
    }
}

/// The least important events that are still logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Something is lost or broken.
    Error = 1,
    /// Something will be, if nobody looks.
    Warn = 2,
    /// State changes.
    Info = 3,
    /// One line per exchange.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

impl Level {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

impl FromStr for Level {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(UnknownWord { word: word.to_owned(), accepted: "error, warn, info, debug, trace" }),
        }
    }
}

/// A word that names no format or level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    word: String,
    accepted: &'static str,
}

impl Display for UnknownWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is not one of: {}", self.word, self.accepted)
    }
}

impl std::error::Error for UnknownWord {}

/// Lines lost in this process because the queue was full or the writer gone.
pub fn dropped_log_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.load(Relaxed))
}

/// The count of the log that [`init`] started.
static DROPPED: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Holds the log open; see [`init`].
#[derive(Debug)]
pub struct LogHandle {
    gate: Gate,
    queue: Queue,
}

impl LogHandle {
    /// Changes the level from now on, on all threads.
    pub fn set_level(&self, level: Level) {
        self.gate.0.store(level as u8, Relaxed);
        rebuild_interest_cache();
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        let (done, finished) = sync_channel(1);
        // Blocking here is fine as long as it ends: the queue empties unless standard error is stuck, and
        // then a helper thread waits in our place.
        let lines = self.queue.lines.clone();
        let stop =
            thread::Builder::new().name("log-stop".into()).spawn(move || lines.send(Entry::Stop(done)));
        if stop.is_ok() {
            _ = finished.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn build(
    format: Format,
    level: Level,
    colour: bool,
    sink: impl Write + Send + 'static,
) -> io::Result<(impl Subscriber + Send + Sync, LogHandle)> {
    let (lines, queued) = sync_channel(QUEUED_LINES_MAX);
    let queue = Queue { lines, bytes: Arc::default(), dropped: Arc::default() };
    let (bytes, dropped) = (Arc::clone(&queue.bytes), Arc::clone(&queue.dropped));
    thread::Builder::new().name("log".into()).spawn(move || write_lines(&queued, &bytes, &dropped, sink))?;

    let gate = Gate(Arc::new(AtomicU8::new(level as u8)));
    let lines = tracing_subscriber::fmt::layer().with_writer(queue.clone());
    let lines = match format {
        Format::Text => lines.with_ansi(colour).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = Registry::default().with(lines).with(gate.clone());
    Ok((subscriber, LogHandle { gate, queue }))
}

fn write_lines(queued: &Receiver<Entry>, bytes: &AtomicUsize, dropped: &AtomicU64, mut sink: impl Write) {
    while let Ok(entry) = queued.recv() {
        match entry {
            Entry::Line(line) => {
                // Lines that standard error refuses are lost like those that never fit; there is nowhere
                // else to say so.
                if sink.write_all(&line).is_err() {
                    dropped.fetch_add(1, Relaxed);
                }
                bytes.fetch_sub(line.len(), Relaxed);
            }
            Entry::Stop(done) => {
                _ = sink.flush();
                _ = done.send(());
                return;
            }
        }
    }
}

/// The level, asked for each event that a call site's cached answer does not already settle.
#[derive(Debug, Clone)]
struct Gate(Arc<AtomicU8>);

impl Gate {
    fn filter(&self) -> LevelFilter {
        let level = self.0.load(Relaxed);
        [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace][usize::from(level) - 1].filter()
    }
}

impl<S: Subscriber> Layer<S> for Gate {
    fn register_callsite(&self, of: &'static Metadata<'static>) -> Interest {
        if *of.level() <= self.filter() { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, of: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *of.level() <= self.filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter())
    }
}

enum Entry {
    Line(Vec<u8>),
    Stop(SyncSender<()>),
}

/// Where formatted lines go: each `write_all` of the formatter is one whole line.
#[derive(Debug, Clone)]
struct Queue {
    lines: SyncSender<Entry>,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let fits = self.bytes.fetch_add(line.len(), Relaxed) + line.len() <= QUEUED_BYTES_MAX;
        // A full queue and a writer that has stopped look the same from here: the line is lost.
        let sent = fits && self.lines.try_send(Entry::Line(line.to_vec())).is_ok();
        if !sent {
            self.bytes.fetch_sub(line.len(), Relaxed);
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Queue;
    fn make_writer(&'a self) -> &'a Queue {
        self
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "a test reads what the writer's thread wrote")]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Keeps what was written; `Stuck` first waits until the test lets it go.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("lines are text")
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no reader panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stuck(Receiver<()>, Sink);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_text_line_holds_level_and_fields_and_is_written_before_the_handle_is_gone() {
        let sink = Sink::default();
        let (subscriber, handle) = build(Format::Text, Level::Info, false, sink.clone()).expect("starts");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(stream = "a", bytes = 12, "sealed");
            tracing::debug!("too much detail");
        });
        drop(handle);
        let text = sink.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("INFO") && text.contains("sealed stream=\"a\" bytes=12"), "{text}");
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let sink = Sink::default();
        let (subscriber, handle) = build(Format::Json, Level::Info, false, sink.clone()).expect("starts");
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(stream = "a\nb", bytes = 12, "sealed");
        });
        drop(handle);
        let line: serde_json::Value = serde_json::from_str(&sink.text()).expect("one JSON value");
        assert_eq!(
            (&line["level"], &line["message"], &line["stream"], &line["bytes"]),
            (&"WARN".into(), &"sealed".into(), &"a\nb".into(), &12.into())
        );
    }

    #[test]
    fn the_level_changes_while_running_both_ways() {
        let sink = Sink::default();
        let (subscriber, handle) = build(Format::Text, Level::Warn, false, sink.clone()).expect("starts");
        tracing::subscriber::with_default(subscriber, || {
            for (round, level) in [Level::Warn, Level::Debug, Level::Error].into_iter().enumerate() {
                handle.set_level(level);
                tracing::debug!(round, "debug");
                tracing::warn!(round, "warn");
            }
        });
        drop(handle);
        let said: Vec<String> = sink
            .text()
            .lines()
            .map(|line| line.split("log::tests: ").last().unwrap_or(line).into())
            .collect();
        assert_eq!(said, ["warn round=0", "debug round=1", "warn round=1"]);
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_not_time() {
        let (let_go, stuck) = sync_channel(1);
        let sink = Sink::default();
        let (subscriber, handle) =
            build(Format::Text, Level::Info, false, Stuck(stuck, sink.clone())).expect("starts");
        const EXTRA: usize = 100;
        tracing::subscriber::with_default(subscriber, || {
            for line in 0..QUEUED_LINES_MAX + EXTRA {
                tracing::info!(line, "said");
            }
        });
        // One line may be in the writer's hands, so it no longer waits in the queue.
        let dropped = handle.queue.dropped.load(Relaxed) as usize;
        assert!((EXTRA - 1..=EXTRA).contains(&dropped), "{dropped} dropped");
        drop(let_go);
        drop(handle);
        let text = sink.text();
        assert_eq!(text.lines().count(), QUEUED_LINES_MAX + EXTRA - dropped);
        assert!(text.lines().next().is_some_and(|line| line.ends_with("line=0")));
    }

    #[test]
    fn long_lines_are_bounded_by_bytes() {
        let (let_go, stuck) = sync_channel(1);
        let (subscriber, handle) =
            build(Format::Text, Level::Info, false, Stuck(stuck, Sink::default())).expect("starts");
        let long = "x".repeat(QUEUED_BYTES_MAX / 4);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..8 {
                tracing::info!(long, "said");
            }
        });
        let waiting = handle.queue.bytes.load(Relaxed);
        assert!(waiting <= QUEUED_BYTES_MAX && waiting > QUEUED_BYTES_MAX / 2, "{waiting} bytes wait");
        drop(let_go);
        drop(handle);
    }

    #[test]
    fn words_are_read_or_refused_with_what_would_do() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!("debug".parse(), Ok(Level::Debug));
        let refused = "loud".parse::<Level>().expect_err("no such level").to_string();
        assert_eq!(refused, "\"loud\" is not one of: error, warn, info, debug, trace");
    }
}

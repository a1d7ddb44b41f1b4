//! The table of everything the daemon counts, and its text exposition.
//!
//! Invariant: a metric is declared once, in the table below: its line gives the field that a shard writes, the
//! exposed name, the type and the help text. Adding one is adding a line.
//! Lives on: one [`ShardMetrics`] per shard, written there alone; [`render`] runs wherever it is asked.
//!
//! ```
//! use std::sync::Arc;
//! use millpond::observe::metrics::{Class, Dialect, ShardMetrics, render};
//!
//! let shard = Arc::new(ShardMetrics::default());
//! shard.http_requests.of(Dialect::Loom).of(Class::of(201)).inc();
//! let mut page = String::new();
//! render(&[shard], &mut page);
//! assert!(page.contains("millpond_http_requests_total{dialect=\"loom\",class=\"2xx\"} 1\n"));
//! ```

use std::{
    fmt::{Display, Write},
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    counter::{Counter, Gauge},
    histogram::{Histogram, Snapshot},
    log,
};

/// The `Content-Type` of what [`render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes a struct with one field per line, and the function that exposes all of them. The name is `millpond_`,
/// the field and what the kind adds (`_total`, `_seconds`); the help text is the line's documentation.
macro_rules! shard_metrics {
    ($( #[doc = $help:literal] $field:ident: $kind:ty, )+) => {
        /// What one shard counts. Aligned so that two shards never write to one pair of cache lines.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct ShardMetrics {
            $( #[doc = $help] pub $field: $kind, )+
        }

        fn expose_table(shards: &[Arc<ShardMetrics>], out: &mut String) {
            $(
                let name = concat!("millpond_", stringify!($field));
                let of_shards: Vec<&$kind> = shards.iter().map(|shard| &shard.$field).collect();
                expose_family(name, $help, &of_shards, out);
            )+
        }
    };
}

shard_metrics! {
    /// Connections accepted.
    connections_accepted: Counter,
    /// Connections open now.
    connections_open: Gauge,
    /// Shards that do not accept at the moment because they are at their connection cap.
    accept_paused: Gauge,
    /// Requests answered, by class of the status code.
    http_requests: ByDialect<ByClass<Counter>>,
    /// Requests refused before they had a meaning: malformed or over a limit.
    http_refusals: ByDialect<Counter>,
    /// Bytes received from clients.
    received_bytes: ByDialect<Counter>,
    /// Bytes sent to clients.
    sent_bytes: ByDialect<Counter>,
    /// Time from the whole request head to the head of its answer.
    http_latency: ByDialect<Histogram>,
    /// Connections closed because they did not begin as they should.
    handshakes_refused: Counter,
    /// Sockets joined to another one now.
    joined_open: ByDialect<Gauge>,
    /// Connections closed because nobody answered behind us.
    dials_failed: ByDialect<Counter>,
    /// FIFOs of process output that are read now.
    outputs_open: Gauge,
    /// FIFOs that the start found and reads on.
    outputs_adopted: Counter,
    /// Bytes that processes wrote into FIFOs, by stream; `both` where they share one.
    output_bytes: ByChannel<Counter>,
    /// Bytes of output that a slow client did not get, or that the store did not take.
    output_dropped_bytes: Counter,
    /// Time that a writer had to wait for a slow client.
    output_blocked: Histogram,
    /// Streams that there are.
    streams: Gauge,
    /// Bytes that they have.
    stream_bytes: Gauge,
    /// Streams with a producer that may still append.
    streams_open: Gauge,
    /// Streams created.
    streams_created: Counter,
    /// Streams whose producer ended them properly.
    streams_completed: Counter,
    /// Streams whose producer vanished.
    streams_interrupted: Counter,
    /// Streams deleted.
    streams_deleted: Counter,
    /// Streams deleted because they were too old or too much.
    reaped_streams: Counter,
    /// Bytes that they had, and bytes of open streams that went with their beginnings.
    reaped_bytes: Counter,
    /// Producers refused or cut because something was full, by what was.
    producers_refused: ByBound<Counter>,
    /// Readers that follow an open stream now.
    followers_live: Gauge,
    /// Readers that were cut because they were slow and kept space of what was deleted or moved from being given back.
    readers_expired: Counter,
    /// Bytes appended to streams.
    stream_appended_bytes: Counter,
    /// Stream bytes handed to readers.
    stream_delivered_bytes: Counter,
    /// Blob bytes written to the store.
    blob_received_bytes: Counter,
    /// Blob bytes handed to readers.
    blob_delivered_bytes: Counter,
    /// Small blobs that left a pack of which most was gone.
    blobs_repacked: Counter,
    /// Calls that were given to another node because the first one could not be reached, or went without an answer.
    rpc_retries: Counter,
    /// Times that a node was put to rest because it failed again and again.
    rpc_ejections: Counter,
    /// Subscribers of topics.
    broker_subscribers: Gauge,
    /// Messages published on topics.
    broker_published: Counter,
    /// Messages put on their way to subscribers.
    broker_delivered: Counter,
    /// Messages given to another member of a group because the first one left.
    broker_redelivered: Counter,
    /// Subscribers that were disconnected because they took too little of what came.
    broker_slow_subscribers: Counter,
    /// Records written to the journals.
    journal_records: Counter,
    /// Bytes of journal records, framing included.
    journal_bytes: Counter,
    /// Bytes written to bulk segments.
    bulk_bytes: Counter,
    /// Time of one positioned write.
    write_latency: Histogram,
    /// Time of one fdatasync.
    sync_latency: Histogram,
    /// Bytes copied out of segments that are mostly dead.
    compacted_bytes: Counter,
    /// Checkpoints that this shard took part in.
    checkpoints: Counter,
    /// Checkpoints that came to nothing because a shard could not join.
    checkpoints_abandoned: Counter,
    /// Time from the call for a checkpoint to its end.
    checkpoint_latency: Histogram,
    /// Syncs that failed; each poisoned its segment.
    sync_failures: Counter,
    /// Segment files.
    segments: ByFile<Gauge>,
    /// Stored bytes that a name, a stream or a journal entry refers to.
    live_bytes: Gauge,
    /// Stored bytes that nothing refers to any more and that are not reclaimed yet.
    dead_bytes: Gauge,
    /// Segments that took a failed sync and are written no more.
    poisoned_segments: Gauge,
    /// Windows of stored bytes whose checksum was verified.
    windows_verified: Counter,
    /// Passes of a shard over everything it stores, to find damage.
    scrubs: Counter,
    /// Windows of stored bytes whose checksum did not match.
    windows_damaged: Counter,
    /// Names that answer with an error because a record about them is damaged, until they are replaced or deleted.
    names_damaged: Gauge,
    /// Journal records that the start found damaged.
    records_damaged: Counter,
    /// Bytes written but not yet synced.
    unsynced_bytes: Gauge,
    /// Messages sent to other shards.
    mailbox_messages: Counter,
    /// Turns that ended with messages left over because the target's lane was full.
    mailbox_lanes_full: Counter,
    /// Entries submitted to the rings.
    ring_sqes: Counter,
    /// Turns of the shard loops.
    turns: Counter,
    /// Panics that ended one connection and nothing else.
    panics_contained: Counter,
}

/// A metric once per dialect.
pub type ByDialect<K> = By<Dialect, K, { Dialect::NAMES.len() }>;
/// A metric once per class of status codes.
pub type ByClass<K> = By<Class, K, { Class::NAMES.len() }>;
/// A metric once per bound on what is stored.
pub type ByBound<K> = By<Bound, K, { Bound::NAMES.len() }>;
/// A metric once per stream of a process.
pub type ByChannel<K> = By<Channel, K, { Channel::NAMES.len() }>;
/// A metric once per kind of segment file.
pub type ByFile<K> = By<File, K, { File::NAMES.len() }>;

/// Writes the sums over all shards in the Prometheus text format 0.0.4, after what `out` already holds.
pub fn render(shards: &[Arc<ShardMetrics>], out: &mut String) {
    let revision = env!("MILLPOND_BUILD_REVISION");
    let labels = format!("version=\"{}\",revision=\"{revision}\"", env!("CARGO_PKG_VERSION"));
    head("millpond_build_info", "gauge", "What is running; the value is always 1.", out);
    sample("millpond_build_info", &labels, 1, out);

    if let Some(since_epoch) = STARTED.get() {
        // The name every Prometheus client library uses, hence without our prefix.
        let name = "process_start_time_seconds";
        head(name, "gauge", "Start of the process, in seconds since 1970.", out);
        sample(name, "", Seconds(*since_epoch), out);
    }

    head("millpond_shards", "gauge", "Shards of this daemon.", out);
    sample("millpond_shards", "", shards.len(), out);

    let name = "millpond_dropped_log_lines_total";
    head(name, "counter", "Log lines lost because standard error did not take them in time.", out);
    sample(name, "", log::dropped_log_lines(), out);

    expose_table(shards, out);
}

static STARTED: OnceLock<Duration> = OnceLock::new();

/// Tells when the process started, as time since 1970. The first call counts; without one the metric is absent,
/// because this layer has no clock.
pub fn started_at(since_epoch: Duration) {
    STARTED.get_or_init(|| since_epoch);
}

/// One metric per value of a label.
#[derive(Debug)]
pub struct By<L, K, const N: usize> {
    of: [K; N],
    label: PhantomData<fn(L)>,
}

impl<L: Label, K, const N: usize> By<L, K, N> {
    /// The metric of this label value.
    #[inline]
    pub fn of(&self, label: L) -> &K {
        &self.of[label.index()]
    }
}

impl<L, K: Default, const N: usize> Default for By<L, K, N> {
    fn default() -> Self {
        Self { of: std::array::from_fn(|_| K::default()), label: PhantomData }
    }
}

/// A closed set of label values.
pub trait Label {
    /// The label's name.
    const NAME: &'static str;
    /// Its values, in the order of [`index`](Self::index).
    const VALUES: &'static [&'static str];
    /// Which of the values this is.
    fn index(self) -> usize;
}

/// Writes an enum whose variants are label values.
macro_rules! label {
    ($( #[$meta:meta] )* $enum:ident as $name:literal { $( #[doc = $doc:literal] $variant:ident = $value:literal, )+ }) => {
        $( #[$meta] )*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $enum { $( #[doc = $doc] $variant, )+ }

        impl $enum {
            const NAMES: &'static [&'static str] = &[$($value),+];
        }

        impl Label for $enum {
            const NAME: &'static str = $name;
            const VALUES: &'static [&'static str] = Self::NAMES;
            #[inline]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Who listens.
    Dialect as "dialect" {
        /// Live log streams.
        Loom = "loom",
        /// Containers and files.
        Vblob = "vblob",
        /// Buckets and objects.
        S3 = "s3",
        /// Documents, blobs and events of modules.
        Ion = "ion",
        /// Proxied sockets and process output.
        Serpentine = "serpentine",
        /// Sockets joined for anyone.
        Proxy = "proxy",
        /// Registry, calls and topics.
        Micro = "micro",
        /// Health and metrics.
        Admin = "admin",
    }
}

label! {
    /// What a process writes to.
    Channel as "stream" {
        /// Standard output and standard error in one.
        Both = "both",
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
    }
}

label! {
    /// The first digit of a status code.
    Class as "class" {
        /// Interim.
        Interim = "1xx",
        /// Success.
        Success = "2xx",
        /// Redirection, or not modified.
        Redirection = "3xx",
        /// The client's fault.
        ClientError = "4xx",
        /// Our fault.
        ServerError = "5xx",
    }
}

impl Class {
    /// The class of a status code.
    ///
    /// # Panics
    /// When it is not within 100 to 599; we never send another one.
    #[inline]
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Interim,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => panic!("status codes lie within 100 to 599, not at {status}"),
        }
    }
}

label! {
    /// What can be full.
    Bound as "bound" {
        /// A stream, by its longest length.
        StreamBytes = "stream_bytes",
        /// The number of streams.
        Streams = "streams",
        /// What all streams may have together.
        Quota = "quota",
        /// The disk, or what the store may have in memory before it is there.
        Disk = "disk",
    }
}

label! {
    /// What a segment file holds.
    File as "kind" {
        /// Records.
        Journal = "journal",
        /// Raw bytes.
        Bulk = "bulk",
    }
}

fn expose_family<K: Kind>(field: &str, help: &str, of_shards: &[&K], out: &mut String) {
    let name = format!("{field}{}", K::SUFFIX);
    head(&name, K::TYPE, help.trim(), out);
    K::expose(&name, "", of_shards, out);
}

/// How a kind of metric is summed over shards and written down.
trait Kind {
    const TYPE: &'static str;
    const SUFFIX: &'static str;
    fn expose(name: &str, labels: &str, of_shards: &[&Self], out: &mut String);
}

impl Kind for Counter {
    const TYPE: &'static str = "counter";
    const SUFFIX: &'static str = "_total";
    fn expose(name: &str, labels: &str, of_shards: &[&Self], out: &mut String) {
        sample(name, labels, of_shards.iter().map(|counter| counter.value()).sum::<u64>(), out);
    }
}

impl Kind for Gauge {
    const TYPE: &'static str = "gauge";
    const SUFFIX: &'static str = "";
    fn expose(name: &str, labels: &str, of_shards: &[&Self], out: &mut String) {
        sample(name, labels, of_shards.iter().map(|gauge| gauge.value()).sum::<i64>(), out);
    }
}

impl Kind for Histogram {
    const TYPE: &'static str = "histogram";
    const SUFFIX: &'static str = "_seconds";
    fn expose(name: &str, labels: &str, of_shards: &[&Self], out: &mut String) {
        let mut sum = Snapshot::default();
        of_shards.iter().for_each(|histogram| sum.merge(&histogram.snapshot()));
        let (bucket, comma) = (format!("{name}_bucket"), if labels.is_empty() { "" } else { "," });
        for (bound, count) in sum.cumulative() {
            sample(&bucket, &format!("{labels}{comma}le=\"{}\"", Seconds(bound)), count, out);
        }
        sample(&bucket, &format!("{labels}{comma}le=\"+Inf\""), sum.count(), out);
        sample(&format!("{name}_sum"), labels, Seconds(sum.sum()), out);
        sample(&format!("{name}_count"), labels, sum.count(), out);
    }
}

impl<L: Label, K: Kind, const N: usize> Kind for By<L, K, N> {
    const TYPE: &'static str = K::TYPE;
    const SUFFIX: &'static str = K::SUFFIX;
    fn expose(name: &str, labels: &str, of_shards: &[&Self], out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (at, value) in L::VALUES.iter().enumerate() {
            let inner: Vec<&K> = of_shards.iter().map(|by| &by.of[at]).collect();
            K::expose(name, &format!("{labels}{comma}{}=\"{value}\"", L::NAME), &inner, out);
        }
    }
}

fn head(name: &str, kind: &str, help: &str, out: &mut String) {
    debug_assert!(!help.contains(['\\', '\n']), "help texts are written unescaped");
    _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(name: &str, labels: &str, value: impl Display, out: &mut String) {
    _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// A duration as decimal seconds, exact to the nanosecond and without trailing zeros.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{}.{:09}", self.0.as_secs(), self.0.subsec_nanos());
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn page(shards: &[Arc<ShardMetrics>]) -> String {
        let mut out = String::new();
        render(shards, &mut out);
        out
    }

    fn value(page: &str, series: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{page}")).parse().expect("a number")
    }

    #[test]
    fn a_page_of_two_busy_shards_is_valid_and_sums_them() {
        let shards = [Arc::new(ShardMetrics::default()), Arc::new(ShardMetrics::default())];
        for (shard, times) in shards.iter().zip([1u64, 2]) {
            shard.received_bytes.of(Dialect::Loom).add(100 * times);
            shard.http_requests.of(Dialect::Admin).of(Class::of(404)).add(times);
            shard.streams_open.set(5 * times as i64);
            shard.segments.of(File::Bulk).inc();
            shard.mailbox_lanes_full.add(7 * times);
            shard.http_latency.of(Dialect::Loom).record(Duration::from_micros(3 * times));
            shard.write_latency.record(Duration::from_secs(100));
        }
        let page = page(&shards);
        check(&page).unwrap_or_else(|why| panic!("{why} in\n{page}"));

        assert_eq!(value(&page, "millpond_shards"), 2.0);
        assert_eq!(value(&page, "millpond_received_bytes_total{dialect=\"loom\"}"), 300.0);
        assert_eq!(value(&page, "millpond_http_requests_total{dialect=\"admin\",class=\"4xx\"}"), 3.0);
        assert_eq!(value(&page, "millpond_streams_open"), 15.0);
        assert_eq!(value(&page, "millpond_segments{kind=\"bulk\"}"), 2.0);
        assert_eq!(value(&page, "millpond_segments{kind=\"journal\"}"), 0.0);
        assert_eq!(value(&page, "millpond_mailbox_lanes_full_total"), 21.0);
        let latency = "millpond_http_latency_seconds";
        assert_eq!(value(&page, &format!("{latency}_bucket{{dialect=\"loom\",le=\"0.000004\"}}")), 1.0);
        assert_eq!(value(&page, &format!("{latency}_bucket{{dialect=\"loom\",le=\"0.000008\"}}")), 2.0);
        assert_eq!(value(&page, &format!("{latency}_sum{{dialect=\"loom\"}}")), 0.000_009);
        assert_eq!(value(&page, "millpond_write_latency_seconds_bucket{le=\"67.108864\"}"), 0.0);
        assert_eq!(value(&page, "millpond_write_latency_seconds_bucket{le=\"+Inf\"}"), 2.0);
        assert_eq!(value(&page, "millpond_write_latency_seconds_sum"), 200.0);
    }

    #[test]
    fn a_daemon_without_shards_yet_still_has_a_valid_page() {
        check(&page(&[])).expect("valid");
    }

    #[test]
    fn the_start_time_is_exposed_once_it_is_known() {
        started_at(Duration::from_millis(1_700_000_000_250));
        started_at(Duration::ZERO);
        assert_eq!(value(&page(&[]), "process_start_time_seconds"), 1_700_000_000.25);
    }

    #[test]
    fn two_shards_never_share_a_cache_line() {
        assert_eq!(align_of::<ShardMetrics>(), 128);
        assert_eq!(size_of::<ShardMetrics>() % 128, 0);
    }

    #[test]
    fn the_checker_knows_a_bad_page() {
        let good = "# HELP a_total x\n# TYPE a_total counter\na_total 1\n";
        check(good).expect("valid");
        let histogram =
            |buckets: &str| format!("# HELP h x\n# TYPE h histogram\n{buckets}h_sum 1\nh_count 2\n");
        check(&histogram("h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n")).expect("valid");
        for bad in [
            "a_total 1\n".into(),
            "# TYPE a_total counter\na_total 1\n".into(),
            good.trim_end().to_owned(),
            good.repeat(2),
            format!("{good}a_total 2\n"),
            good.replace("a_total", "a"),
            good.replace(" 1\n", " x\n"),
            good.replace("a_total 1", "a_total{b=c} 1"),
            good.replace("a_total 1", "a_total{b=\"c\",b=\"d\"} 1"),
            good.replace("a_total 1", "b_total 1"),
            good.replace("a_total", "a-total"),
            good.replace("counter", "thing"),
            histogram("h_bucket{le=\"1\"} 1\n"),
            histogram("h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\n"),
            histogram("h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\n"),
            histogram("h_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n"),
        ] {
            assert!(check(&bad).is_err(), "took for valid:\n{bad}");
        }
    }

    /// Reads a page as strictly as the format allows: help, type and samples of a family together and once,
    /// names and labels well-formed, no series twice, histograms whole and growing.
    fn check(page: &str) -> Result<(), String> {
        let mut families: HashMap<&str, &str> = HashMap::new();
        let mut series: HashSet<&str> = HashSet::new();
        let mut samples: Vec<(&str, &str, f64)> = Vec::new();
        let (mut helped, mut family) = ("", ("", ""));
        if !page.ends_with('\n') {
            return Err("the last line does not end".into());
        }
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = rest.split_once(' ').filter(|(_, help)| !help.is_empty()).ok_or("no help text")?.0;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                check_histogram(family, &samples)?;
                samples.clear();
                family = rest.split_once(' ').ok_or("no type")?;
                let (name, kind) = family;
                let name_ok = name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !name_ok || name != helped || families.insert(name, kind).is_some() {
                    return Err(format!("family {name}: bad name, no help, or seen before"));
                }
                match kind {
                    "counter" if name.ends_with("_total") => {}
                    "gauge" | "histogram" if !name.ends_with("_total") => {}
                    _ => return Err(format!("{name} is a {kind}")),
                }
            } else {
                let (id, number) = line.rsplit_once(' ').ok_or("no value")?;
                let (name, labels) = match id.split_once('{') {
                    Some((name, rest)) => (name, rest.strip_suffix('}').ok_or("labels do not end")?),
                    None => (id, ""),
                };
                let suffixes: &[&str] =
                    if family.1 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                if !name.strip_prefix(family.0).is_some_and(|suffix| suffixes.contains(&suffix)) {
                    return Err(format!("{name} stands in family {}", family.0));
                }
                check_labels(labels)?;
                if !series.insert(id) {
                    return Err(format!("{id} occurs twice"));
                }
                samples.push((name, labels, number.parse().map_err(|_| format!("{number} is no number"))?));
            }
        }
        check_histogram(family, &samples)
    }

    fn check_labels(labels: &str) -> Result<(), String> {
        let mut names = HashSet::new();
        for label in labels.split(',').filter(|_| !labels.is_empty()) {
            let (name, value) = label.split_once('=').ok_or(format!("label {label}"))?;
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let inner = inner.ok_or(format!("label {label} is not quoted"))?;
            if !names.insert(name) || inner.contains(['"', '\\']) {
                return Err(format!("label {label}"));
            }
        }
        Ok(())
    }

    fn check_histogram((name, kind): (&str, &str), samples: &[(&str, &str, f64)]) -> Result<(), String> {
        let suffixed = |suffix: &str| format!("{name}{suffix}");
        if kind != "histogram" {
            return Ok(());
        }
        for (_, labels, count) in samples.iter().filter(|(sample, ..)| *sample == suffixed("_count")) {
            let buckets = samples.iter().filter(|(sample, ..)| *sample == suffixed("_bucket"));
            let mine = buckets.filter_map(|(_, of_bucket, value)| {
                let (outer, le) = of_bucket.rsplit_once("le=\"")?;
                (outer.trim_end_matches(',') == *labels)
                    .then(|| (le.trim_end_matches('"').replace("+Inf", "inf").parse::<f64>(), *value))
            });
            let mut last = (f64::NEG_INFINITY, 0.0);
            for (bound, value) in mine {
                let bound = bound.map_err(|_| "a bound is no number")?;
                if bound <= last.0 || value < last.1 {
                    return Err(format!("{name}{{{labels}}}: bucket {bound} does not grow"));
                }
                last = (bound, value);
            }
            if last != (f64::INFINITY, *count) {
                return Err(format!("{name}{{{labels}}}: the last bucket is {last:?}, the count {count}"));
            }
            if !samples.iter().any(|(sample, of, _)| *sample == suffixed("_sum") && of == labels) {
                return Err(format!("{name}{{{labels}}} has no sum"));
            }
        }
        Ok(())
    }
}

//! What a thread counts while it works: operations, bytes, how long they took, and what was wrong.
//!
//! Invariant: counting allocates nothing but for the first fault of each kind.

use std::{collections::BTreeMap, fmt};

use hdrhistogram::Histogram;

/// The counts of one thread, or of all.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How long operations took, in nanoseconds; what that means is the mode's to say.
    pub latency: Histogram<u64>,
    /// The same, from when something was handed on instead of when it was due.
    pub handed: Histogram<u64>,
    /// How long after it was due something was sent although nothing stood in its way: our own lateness.
    pub late: Histogram<u64>,
    /// Finished within the window.
    pub operations: u64,
    /// Bytes of content within the window, both ways: bodies and records without their framing.
    pub payload: u64,
    /// Bytes that came from sockets within the window.
    pub bytes_in: u64,
    /// Bytes that went to sockets within the window.
    pub bytes_out: u64,
    /// Due within the window and not sent in it, because every connection was waiting.
    pub unsent: u64,
    /// Connections that were opened again.
    pub reconnects: u64,
    /// What was wrong, whenever that was.
    pub faults: Faults,
    /// When the window of this thread opened and closed.
    pub window: (u64, u64),
    /// What this thread spent on a CPU in between.
    pub cpu: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: histogram(),
            handed: histogram(),
            late: histogram(),
            operations: 0,
            payload: 0,
            bytes_in: 0,
            bytes_out: 0,
            unsent: 0,
            reconnects: 0,
            faults: Faults::default(),
            window: (0, 0),
            cpu: 0,
        }
    }
}

impl Tally {
    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Self) {
        const SAME: &str = "all histograms have the same bounds";
        self.latency.add(&other.latency).expect(SAME);
        self.handed.add(&other.handed).expect(SAME);
        self.late.add(&other.late).expect(SAME);
        self.operations += other.operations;
        self.payload += other.payload;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.unsent += other.unsent;
        self.reconnects += other.reconnects;
        self.faults.add(&other.faults);
        self.window = (self.window.0.min(other.window.0), self.window.1.max(other.window.1));
        self.cpu += other.cpu;
    }
}

/// From a nanosecond to ten minutes with three digits; what takes longer counts as ten minutes.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are sound")
}

/// A way of being wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// No connection could be opened.
    Connect,
    /// The answer has this status, which is none of those expected.
    Status(u16),
    /// It has another length than expected.
    Length,
    /// Its bytes are not those expected.
    Bytes,
    /// It breaks the rules of its protocol.
    Malformed,
    /// It says that the request failed.
    Refused,
    /// The connection ended in the middle of it, or before it.
    Closed,
    /// Something came that nobody asked for.
    Surplus,
    /// Nothing came in time.
    Unanswered,
    /// Something that was sent did not come.
    Gap,
    /// Something came again.
    Duplicate,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Connect => f.write_str("connect"),
            Kind::Status(code) => write!(f, "status {code}"),
            Kind::Length => f.write_str("length"),
            Kind::Bytes => f.write_str("bytes"),
            Kind::Malformed => f.write_str("malformed"),
            Kind::Refused => f.write_str("refused"),
            Kind::Closed => f.write_str("closed early"),
            Kind::Surplus => f.write_str("surplus"),
            Kind::Unanswered => f.write_str("unanswered"),
            Kind::Gap => f.write_str("gap"),
            Kind::Duplicate => f.write_str("duplicate"),
        }
    }
}

/// What was wrong: how often, by kind, and the first of each in words.
#[derive(Clone, Debug, Default)]
pub struct Faults(BTreeMap<Kind, (u64, String)>);

impl Faults {
    /// Notes one. `words` are asked for only if it is the first of its kind.
    pub fn note(&mut self, kind: Kind, words: impl FnOnce() -> String) {
        self.note_many(kind, 1, words);
    }

    /// Notes `count` of a kind.
    pub fn note_many(&mut self, kind: Kind, count: u64, words: impl FnOnce() -> String) {
        if count > 0 {
            self.0.entry(kind).or_insert_with(|| (0, words())).0 += count;
        }
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &Self) {
        other.iter().for_each(|(kind, count, words)| self.note_many(kind, count, || words.to_owned()));
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// By kind: how many, and the first in words.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64, &str)> {
        self.0.iter().map(|(kind, (count, words))| (*kind, *count, words.as_str()))
    }
}

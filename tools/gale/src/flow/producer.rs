//! One producer: records that fall due, or as many as fit, over one connection.
//!
//! Invariant: records leave in their order, each once; one that the socket has no room for keeps the time at which
//! it was due.

use std::{collections::VecDeque, os::fd::OwnedFd};

use hdrhistogram::Histogram;
use rustix::{
    io::Errno,
    net::{SendFlags, Shutdown, send, shutdown},
};

use super::wire::{Finish, Upstream, Wrong};
use crate::{
    held::Held,
    schedule::Schedule,
    stamp::{Stamp, Stamps},
    tally::Kind,
};

/// Bytes that wait for the socket at most, beside one write.
const BACKLOG_MAX: usize = 4 << 20;

/// What a producer is to do.
pub struct Task {
    /// Its number among all, which is also that of its stream.
    pub number: u32,
    /// Its connection, greeted.
    pub socket: OwnedFd,
    /// What it speaks.
    pub wire: Box<dyn Upstream>,
    /// When records are due; none: as soon as there is room.
    pub pace: Option<Pace>,
    /// Records that leave together.
    pub group: usize,
    /// How many records it makes at most.
    pub records_max: Option<u64>,
    /// Whether it keeps marks of what it wrote, for someone who watches what becomes durable.
    pub is_watched: bool,
    /// Whether each group waits until the one before is durable.
    pub waits_for_durable: bool,
}

/// The share of a producer in the rate of all: it makes every `of`-th record, beginning with number `part`.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Records a second, of all producers together.
    pub rate: u64,
    /// Its place.
    pub part: u64,
    /// How many there are.
    pub of: u64,
}

/// A producer at work.
pub struct Producer {
    /// What it is to do.
    pub task: Task,
    /// Records made so far.
    pub made: u64,
    /// Those due from this time on count.
    counted_from: u64,
    /// How many of them count.
    pub counted: u64,
    /// How many records it may have made; only one without a schedule asks.
    pub allowed: u64,
    /// Where it stands.
    pub phase: Phase,
    /// What it wrote and nobody has called durable: the offset behind it, and when its first record was due.
    pub marks: VecDeque<(u64, u64)>,
    schedule: Option<Schedule>,
    /// When records were due that are not made yet.
    due: VecDeque<u64>,
    out: Vec<u8>,
    sent: usize,
    held: Held,
    end: Option<Finish>,
}

/// Where a producer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It makes records.
    Making,
    /// It has made the last one; they are on their way.
    Finishing,
    /// The server has acknowledged all.
    Acknowledged,
    /// Something was wrong.
    Failed,
}

impl Producer {
    /// One that has not begun.
    pub fn new(task: Task) -> Self {
        Self {
            task,
            made: 0,
            counted_from: 0,
            counted: 0,
            allowed: u64::MAX,
            phase: Phase::Making,
            marks: VecDeque::new(),
            schedule: None,
            due: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            held: Held::default(),
            end: None,
        }
    }

    /// Begins at this time; what is due before `opens` does not count.
    pub fn begin(&mut self, start: u64, opens: u64) {
        self.counted_from = opens;
        self.schedule = self.task.pace.map(|pace| Schedule::new(start, pace.rate, pace.part, pace.of));
    }

    /// When its next record is due, if it makes any by time.
    pub fn next_due(&self) -> Option<u64> {
        (self.phase == Phase::Making).then_some(self.schedule.as_ref()?).map(Schedule::next)
    }

    /// Whether nothing will come of it any more.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Acknowledged | Phase::Failed)
    }

    /// Whether it makes records as soon as there is room for them.
    pub fn makes_at_will(&self) -> bool {
        self.phase == Phase::Making && self.schedule.is_none() && !self.waits() && self.has_room()
    }

    /// Whether the next group is not too far ahead of its readers.
    fn has_room(&self) -> bool {
        self.allowed - self.made >= self.task.group as u64
    }

    /// Whether it waits for what it wrote to become durable.
    fn waits(&self) -> bool {
        self.task.waits_for_durable && !self.marks.is_empty()
    }

    /// Makes what is due and what there is room for, and notes in `late` how late that is. At `stop` it makes its last.
    pub fn make(&mut self, stamps: &Stamps, now: u64, stop: Option<u64>, late: &mut Histogram<u64>) {
        if self.phase != Phase::Making {
            return;
        }
        let until = stop.map_or(now, |stop| now.min(stop - 1));
        match &mut self.schedule {
            Some(schedule) => self.due.extend(std::iter::from_fn(|| schedule.take(until))),
            None => {
                let is_free = self.backlog() == 0 && !self.waits() && self.has_room();
                if is_free && self.due.is_empty() && until == now {
                    self.due.extend(std::iter::repeat_n(now, self.task.group));
                }
            }
        }
        let left = self.task.records_max.map_or(u64::MAX, |max| max - self.made);
        self.due.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let are_last = until < now || left == self.due.len() as u64;
        let least = if are_last { 1 } else { self.task.group };
        while self.backlog() < BACKLOG_MAX && self.due.len() >= least {
            self.write(stamps, now, late);
        }
        let is_full = self.task.records_max.is_some_and(|max| self.made == max);
        if is_full || until < now {
            self.end = Some(self.task.wire.finish(&mut self.out));
            self.phase = Phase::Finishing;
        }
    }

    /// What fell due and could not even be made before it had to stop.
    pub fn unmade(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.due.drain(..)
    }

    fn write(&mut self, stamps: &Stamps, now: u64, lateness: &mut Histogram<u64>) {
        let count = self.due.len().min(self.task.group);
        let wire = &mut self.task.wire;
        let first = self.due.front().copied().unwrap_or(now);
        wire.begin(&mut self.out, count * stamps.size());
        for due in self.due.drain(..count) {
            let late = u32::try_from(now.saturating_sub(due)).unwrap_or(u32::MAX);
            wire.before_record(&mut self.out);
            stamps.write(&mut self.out, Stamp { sequence: self.made, due, late, producer: self.task.number });
            wire.after_record(&mut self.out);
            self.made += 1;
            if due >= self.counted_from {
                self.counted += 1;
                lateness.saturating_record(u64::from(late));
            }
        }
        wire.end(&mut self.out);
        if self.task.is_watched {
            self.marks.push_back((self.made * stamps.size() as u64, first));
        }
    }

    /// Whether it waits for room in the socket.
    pub fn wants_room(&self) -> bool {
        self.backlog() > 0
    }

    fn backlog(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Sends what the kernel takes; how many bytes that was.
    pub fn flush(&mut self) -> Result<usize, Wrong> {
        let mut total = 0;
        while self.backlog() > 0 {
            match send(&self.task.socket, &self.out[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => (self.sent, total) = (self.sent + sent, total + sent),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(why) => return Err((Kind::Closed, format!("{why} while sending"))),
            }
        }
        if self.backlog() == 0 {
            self.out.clear();
            self.sent = 0;
            match self.end.take() {
                Some(Finish::Shutdown) => {
                    shutdown(&self.task.socket, Shutdown::Write)
                        .map_err(|why| (Kind::Closed, why.to_string()))?;
                }
                Some(Finish::Settled) => self.phase = Phase::Acknowledged,
                Some(Finish::Said) | None => {}
            }
        } else if self.sent > BACKLOG_MAX {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(total)
    }

    /// Takes what the server says.
    pub fn hear(&mut self, input: &[u8]) -> Result<(), Wrong> {
        let (wire, out) = (&mut self.task.wire, &mut self.out);
        if input.is_empty() {
            wire.ended()?;
            return self.acknowledged();
        }
        let acknowledged = self.held.take(input, |input| match wire.hear(input, out) {
            Ok((used, acknowledged)) => (used, Ok(acknowledged)),
            Err(wrong) => (input.len(), Err(wrong)),
        })?;
        if acknowledged { self.acknowledged() } else { Ok(()) }
    }

    fn acknowledged(&mut self) -> Result<(), Wrong> {
        if self.phase != Phase::Finishing || self.backlog() > 0 {
            return Err((Kind::Closed, "the server ended the stream before we did".into()));
        }
        self.phase = Phase::Acknowledged;
        Ok(())
    }
}

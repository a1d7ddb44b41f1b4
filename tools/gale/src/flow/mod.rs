//! The engine for records that flow: producers that write them, readers that check them, and watchers that ask what is
//! durable, all of one thread around one epoll.
//!
//! What is measured: a record carries the time at which it was due and how much later it was made, so a reader knows
//! the delay from either; the clock is read once per receive. A producer without a rate makes a group of records
//! whenever the kernel has taken the one before, and they are due then.
//!
//! Invariant: when a lane is done, every record of every producer was acknowledged and seen by every reader, or there
//! is a fault that says what is missing.

pub mod ahead;
pub mod producer;
pub mod reader;
pub mod watch;
pub mod wire;

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::{
    clock,
    poll::{Interest, Poll, Ready},
    run::{Lane, Notes, Window},
    stamp::{Stamp, Stamps},
    tally::{Kind, Tally},
};
use ahead::Ahead;
use producer::{Phase, Producer};
use reader::Reader;
use watch::Watcher;
use wire::Wrong;

/// What a lane is made of.
pub struct Parts {
    /// Who writes.
    pub producers: Vec<producer::Task>,
    /// Who reads.
    pub readers: Vec<reader::Task>,
    /// Who asks what is durable.
    pub watchers: Vec<Watcher>,
    /// What records look like.
    pub stamps: Arc<Stamps>,
    /// How long each stream is.
    pub totals: Arc<Totals>,
    /// What counts.
    pub counts: Counts,
}

/// What an operation is, and so when the window closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counts {
    /// A record that was acknowledged. The window closes with the last acknowledgement.
    Acknowledged,
    /// A record that a reader got. The window closes by the clock, or when all is read.
    Delivered,
}

/// How many records each stream has in the end, as soon as that is known.
#[derive(Debug)]
pub struct Totals(Vec<AtomicU64>);

const UNKNOWN: u64 = u64::MAX;

impl Totals {
    /// Of so many streams, none of which is known.
    pub fn new(streams: usize) -> Self {
        Self((0..streams).map(|_| AtomicU64::new(UNKNOWN)).collect())
    }

    /// How many streams there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Of one stream, if it is known.
    pub fn of(&self, stream: usize) -> Option<u64> {
        Some(self.0[stream].load(Ordering::Acquire)).filter(|total| *total != UNKNOWN)
    }

    /// Tells it.
    pub fn tell(&self, stream: usize, total: u64) {
        self.0[stream].store(total, Ordering::Release);
    }
}

const RECEIVE: usize = 256 << 10;
/// How often a reader whose stream does not tell its end looks whether it has come.
const LOOK: u64 = 5_000_000;

/// The lane of one thread.
pub struct Flow {
    producers: Vec<Producer>,
    readers: Vec<Reader>,
    watchers: Vec<Watcher>,
    stamps: Arc<Stamps>,
    totals: Arc<Totals>,
    counts: Counts,
    /// By stream, where producers keep to the pace of their readers.
    ahead: Vec<Ahead>,
    poll: Poll,
    buffer: Vec<u8>,
    say: Vec<u8>,
    interests: Vec<Interest>,
    window: Window,
    /// When the next record of any producer is due.
    due_next: u64,
    /// When to look next for streams that do not tell their end.
    looks_at: u64,
    /// Producers and readers that are not done.
    working: usize,
    is_stopped: bool,
    is_open: bool,
    closed_at: Option<u64>,
    now: u64,
    /// When something last came or went.
    moved: u64,
    cpu_before: u64,
    tally: Tally,
}

impl Flow {
    /// All connections are there and greeted.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let words = |why: io::Error| why.to_string();
        let poll = Poll::new().map_err(words)?;
        let producers: Vec<Producer> = parts.producers.into_iter().map(Producer::new).collect();
        let readers: Vec<Reader> = parts.readers.into_iter().map(Reader::new).collect();
        let sockets = producers.iter().map(|producer| producer.task.socket.as_fd());
        let sockets = sockets.chain(readers.iter().map(|reader| reader.task.socket.as_fd()));
        let sockets = sockets.chain(parts.watchers.iter().map(|watcher| watcher.socket.as_fd()));
        let mut interests = Vec::new();
        for (token, socket) in sockets.enumerate() {
            poll.add(socket, token, Interest::Read).map_err(words)?;
            interests.push(Interest::Read);
        }
        let working = producers.len() + readers.len();
        Ok(Self {
            producers,
            readers,
            watchers: parts.watchers,
            stamps: parts.stamps,
            totals: parts.totals,
            counts: parts.counts,
            ahead: Vec::new(),
            poll,
            buffer: vec![0; RECEIVE],
            say: Vec::new(),
            interests,
            window: Window { start: 0, opens: 0, closes: None, patience: 0 },
            due_next: 0,
            looks_at: 0,
            working,
            is_stopped: false,
            is_open: false,
            closed_at: None,
            now: 0,
            moved: 0,
            cpu_before: 0,
            tally: Tally::default(),
        })
    }

    /// The same, with producers that are at most so many records ahead of the slowest reader of their stream. All
    /// producers and readers are of this lane.
    pub fn with_window(mut self, size: u64) -> Self {
        let mut readers = vec![0; self.totals.count()];
        self.readers.iter().for_each(|reader| readers[reader.task.stream] += 1);
        self.ahead = readers.into_iter().map(|readers| Ahead::new(size, readers)).collect();
        self.producers.iter_mut().for_each(|producer| producer.allowed = size);
        self
    }

    fn turn(&mut self, ready: &mut Vec<Ready>, notes: &Notes) -> io::Result<bool> {
        self.poll.wait(self.wait_at_most(), ready)?;
        for ready in ready.iter() {
            self.serve(*ready);
        }
        self.now = clock::now();
        self.open();
        self.make_what_is_due();
        self.make_what_readers_wait_for();
        self.ask_what_is_durable();
        self.look_for_ends();
        let is_late = self.now >= self.patience_ends();
        let is_done = self.working == 0;
        let closes = self.window.closes.filter(|_| self.counts == Counts::Delivered);
        if self.closed_at.is_none() {
            match closes {
                Some(closes) if self.now >= closes => self.close(closes, notes),
                None if is_done || is_late => self.close(if is_done { self.moved } else { self.now }, notes),
                _ => {}
            }
        }
        Ok(!(self.working == 0 || is_late) || self.closed_at.is_none())
    }

    fn wait_at_most(&self) -> u64 {
        let mut next = self.patience_ends();
        if !self.is_open {
            next = next.min(self.window.opens);
        }
        if let Some(closes) = self.window.closes.filter(|closes| *closes > self.now) {
            next = next.min(closes);
        }
        next = next.min(self.due_next).min(self.looks_at);
        for watcher in self.watchers.iter().filter(|watcher| self.has_reason(watcher)) {
            next = next.min(watcher.asks_at);
        }
        next.saturating_sub(self.now)
    }

    /// What does not move for so long after the last record was due has stalled.
    fn patience_ends(&self) -> u64 {
        let since = match self.window.closes {
            Some(closes) if self.now < closes => closes,
            _ => self.window.opens,
        };
        since.max(self.moved) + self.window.patience
    }

    fn open(&mut self) {
        if !self.is_open && self.now >= self.window.opens {
            self.is_open = true;
            self.cpu_before = clock::thread_cpu();
        }
    }

    fn close(&mut self, at: u64, notes: &Notes) {
        notes.closed();
        self.closed_at = Some(at);
        self.tally.window = (self.window.opens.min(at), at);
        self.tally.cpu = clock::thread_cpu() - self.cpu_before;
        for at in 0..self.readers.len() {
            let reader = &mut self.readers[at];
            if !reader.is_over && reader.task.wire.is_endless() {
                reader.is_over = true;
                self.done(self.producers.len() + at);
            }
        }
    }

    fn serve(&mut self, ready: Ready) {
        let (producers, readers) = (self.producers.len(), self.readers.len());
        if ready.token < producers {
            if ready.read {
                self.answer(ready.token);
            }
            if ready.write {
                self.produce(ready.token, clock::now());
            }
        } else if ready.token < producers + readers {
            self.read(ready.token - producers);
        } else {
            self.learn(ready.token - producers - readers);
        }
    }

    /// Makes and sends what a producer can.
    fn produce(&mut self, at: usize, now: u64) {
        let producer = &mut self.producers[at];
        if producer.is_done() {
            return;
        }
        let was_making = producer.phase == Phase::Making;
        producer.make(&self.stamps, now, self.window.closes, &mut self.tally.late);
        let is_made = producer.phase != Phase::Making;
        if was_making && is_made {
            self.totals.tell(producer.task.number as usize, producer.made);
            let closes = self.window.closes.unwrap_or(now);
            for due in producer.unmade().filter(|due| *due >= self.window.opens) {
                self.tally.unsent += 1;
                self.tally.latency.saturating_record(closes.saturating_sub(due));
            }
        }
        match producer.flush() {
            Ok(sent) => {
                if sent > 0 {
                    self.moved = now;
                }
                if self.is_open && self.closed_at.is_none() {
                    self.tally.bytes_out += sent as u64;
                }
            }
            Err(wrong) => {
                // The server may have said why before it ended the connection.
                self.answer(at);
                return self.producer_failed(at, wrong);
            }
        }
        if self.producers[at].phase == Phase::Acknowledged {
            return self.acknowledged(at, now);
        }
        let producer = &self.producers[at];
        // One without a rate is told whenever there is room for its next group.
        let wants_room = producer.wants_room() || producer.makes_at_will();
        let wanted = if wants_room { Interest::ReadWrite } else { Interest::Read };
        if self.interests[at] != wanted && self.poll.change(&producer.task.socket, at, wanted).is_ok() {
            self.interests[at] = wanted;
        }
    }

    fn make_what_is_due(&mut self) {
        let stops = !self.is_stopped && self.window.closes.is_some_and(|closes| self.now >= closes);
        self.is_stopped |= stops;
        if !stops && self.now < self.due_next {
            return;
        }
        self.due_next = u64::MAX;
        for at in 0..self.producers.len() {
            let is_due = self.producers[at].next_due().is_some_and(|due| due <= self.now);
            if stops || is_due {
                self.produce(at, self.now);
            }
            self.due_next = self.due_next.min(self.producers[at].next_due().unwrap_or(u64::MAX));
        }
    }

    fn make_what_readers_wait_for(&mut self) {
        if self.ahead.is_empty() {
            return;
        }
        for at in 0..self.producers.len() {
            let producer = &mut self.producers[at];
            let allowed = self.ahead[producer.task.number as usize].allowed();
            if allowed > producer.allowed {
                producer.allowed = allowed;
                if producer.makes_at_will() {
                    self.produce(at, self.now);
                }
            }
        }
    }

    /// Takes what the server says to a producer.
    fn answer(&mut self, at: usize) {
        let producer = &mut self.producers[at];
        if producer.is_done() {
            return;
        }
        let Some(len) = receive(&producer.task.socket, &mut self.buffer) else { return };
        let now = clock::now();
        self.moved = now;
        match len.and_then(|len| producer.hear(&self.buffer[..len])) {
            Ok(()) if producer.phase == Phase::Acknowledged => self.acknowledged(at, now),
            // It may have something to say.
            Ok(()) if producer.wants_room() => self.produce(at, now),
            Ok(()) => {}
            Err(wrong) => self.producer_failed(at, wrong),
        }
    }

    /// All records of a producer are with the server.
    fn acknowledged(&mut self, at: usize, now: u64) {
        self.durable(at, u64::MAX, now);
        let producer = &self.producers[at];
        if self.counts == Counts::Acknowledged {
            self.tally.operations += producer.counted;
            self.tally.payload += producer.counted * self.stamps.size() as u64;
        }
        self.done(at);
    }

    fn producer_failed(&mut self, at: usize, (kind, why): Wrong) {
        let producer = &mut self.producers[at];
        if producer.is_done() {
            return;
        }
        let number = producer.task.number;
        self.tally.faults.note(kind, || format!("producer {number}: {why}"));
        producer.phase = Phase::Failed;
        self.totals.tell(number as usize, producer.made);
        self.done(at);
    }

    /// A producer or a reader is done.
    fn done(&mut self, token: usize) {
        self.working -= 1;
        self.forget(token);
    }

    /// No longer listens to a socket.
    fn forget(&mut self, token: usize) {
        let (producers, readers) = (self.producers.len(), self.readers.len());
        let socket = if token < producers {
            self.producers[token].task.socket.as_fd()
        } else if token < producers + readers {
            self.readers[token - producers].task.socket.as_fd()
        } else {
            self.watchers[token - producers - readers].socket.as_fd()
        };
        if let Err(why) = self.poll.remove(socket) {
            self.tally.faults.note(Kind::Closed, || format!("epoll: {why}"));
        }
    }

    fn read(&mut self, at: usize) {
        let reader = &mut self.readers[at];
        if reader.is_over {
            return;
        }
        let Some(len) = receive(&reader.task.socket, &mut self.buffer) else { return };
        let now = clock::now();
        match len {
            Ok(len) => self.hear(at, now, Some(len)),
            Err(wrong) => self.reader_failed(at, wrong),
        }
    }

    /// Takes what came to a reader: so much of the buffer, or what came with its greeting.
    fn hear(&mut self, at: usize, now: u64, len: Option<usize>) {
        self.moved = now;
        let reader = &mut self.readers[at];
        let early = std::mem::take(&mut reader.task.early);
        let input = len.map_or(early.as_slice(), |len| &self.buffer[..len]);
        let Tally { latency, handed, operations, payload, faults, .. } = &mut self.tally;
        let is_open = now >= self.window.opens && self.window.closes.is_none_or(|closes| now < closes);
        let size = self.stamps.size() as u64;
        let counts = is_open && self.counts == Counts::Delivered;
        let opens = self.window.opens;
        let mut see = |stamp: Stamp| {
            if stamp.due >= opens {
                latency.saturating_record(now.saturating_sub(stamp.due));
                handed.saturating_record(now.saturating_sub(stamp.due + u64::from(stamp.late)));
            }
            *operations += u64::from(counts);
            *payload += if counts { size } else { 0 };
        };
        let before = reader.next;
        let heard = reader.hear(input, &self.stamps, faults, &mut self.say, &mut see);
        if let Some(ahead) = self.ahead.get_mut(reader.task.stream) {
            ahead.got(before..reader.next);
        }
        if is_open && self.closed_at.is_none() {
            self.tally.bytes_in += input.len() as u64;
        }
        if !self.say.is_empty() {
            // A word or two; a socket that has no room for them is full of our silence.
            _ = send(&reader.task.socket, &self.say, SendFlags::NOSIGNAL);
            self.say.clear();
        }
        match heard {
            Ok(false) => {}
            Ok(true) => {
                let total = self.totals.of(reader.task.stream).unwrap_or(reader.next);
                reader.conclude(total, Kind::Gap, &mut self.tally.faults);
                self.done(self.producers.len() + at);
            }
            Err(wrong) => self.reader_failed(at, wrong),
        }
    }

    fn reader_failed(&mut self, at: usize, (kind, why): Wrong) {
        let reader = &mut self.readers[at];
        let (number, stream) = (reader.task.number, reader.task.stream);
        self.tally.faults.note(kind, || format!("reader {number} of stream {stream}: {why}"));
        reader.is_over = true;
        self.done(self.producers.len() + at);
    }

    /// A stream that does not tell its end has ended when all its records are there.
    fn look_for_ends(&mut self) {
        if self.now < self.looks_at {
            return;
        }
        self.looks_at = u64::MAX;
        for at in 0..self.readers.len() {
            let reader = &mut self.readers[at];
            if reader.is_over || reader.task.wire.tells_its_end() {
                continue;
            }
            if self.totals.of(reader.task.stream).is_some_and(|total| reader.next >= total) {
                reader.conclude(reader.next, Kind::Gap, &mut self.tally.faults);
                self.done(self.producers.len() + at);
            } else {
                self.looks_at = self.now + LOOK;
            }
        }
    }

    fn has_reason(&self, watcher: &Watcher) -> bool {
        let producer = &self.producers[watcher.producer];
        !watcher.is_waiting && !producer.is_done() && !producer.marks.is_empty()
    }

    fn ask_what_is_durable(&mut self) {
        for at in 0..self.watchers.len() {
            let watcher = &self.watchers[at];
            if self.has_reason(watcher)
                && self.now >= watcher.asks_at
                && let Err(wrong) = self.watchers[at].ask(self.now)
            {
                self.watcher_failed(at, wrong);
            }
        }
    }

    fn learn(&mut self, at: usize) {
        let watcher = &mut self.watchers[at];
        let Some(len) = receive(&watcher.socket, &mut self.buffer) else { return };
        let now = clock::now();
        let (durable, whose) = match len.and_then(|len| watcher.hear(&self.buffer[..len])) {
            Ok(Some(durable)) => (durable, watcher.producer),
            Ok(None) => return,
            Err(wrong) => return self.watcher_failed(at, wrong),
        };
        self.durable(whose, durable, now);
        let producer = &self.producers[whose];
        if producer.task.waits_for_durable && producer.marks.is_empty() {
            self.produce(whose, now);
        }
    }

    /// What a producer wrote below this offset is durable.
    fn durable(&mut self, at: usize, below: u64, now: u64) {
        let marks = &mut self.producers[at].marks;
        while let Some((_, due)) = marks.pop_front_if(|(end, _)| *end <= below) {
            self.moved = now;
            if due >= self.window.opens {
                self.tally.latency.saturating_record(now.saturating_sub(due));
            }
        }
    }

    fn watcher_failed(&mut self, at: usize, (kind, why): Wrong) {
        let watcher = &mut self.watchers[at];
        // It waits for ever, and asks no more.
        watcher.is_waiting = true;
        let number = self.producers[watcher.producer].task.number;
        self.tally.faults.note(kind, || format!("watching stream {number}: {why}"));
        self.forget(self.producers.len() + self.readers.len() + at);
    }

    /// Gives up on what is not done.
    fn give_up(&mut self) {
        let waited = self.window.patience / 1_000_000;
        for producer in &self.producers {
            if !producer.is_done() {
                let (number, made) = (producer.task.number, producer.made);
                self.tally.faults.note(Kind::Unanswered, || {
                    format!("producer {number}: {made} records not acknowledged after {waited} ms")
                });
            }
        }
        for reader in self.readers.iter_mut().filter(|reader| !reader.is_over) {
            match self.totals.of(reader.task.stream) {
                Some(total) if total > reader.next => {
                    reader.conclude(total, Kind::Unanswered, &mut self.tally.faults);
                }
                _ => {
                    let (number, stream) = (reader.task.number, reader.task.stream);
                    self.tally.faults.note(Kind::Unanswered, || {
                        format!("reader {number} of stream {stream}: no end of the stream after {waited} ms")
                    });
                }
            }
        }
    }
}

impl Lane for Flow {
    fn run(mut self, window: Window, notes: &Notes) -> Tally {
        self.window = window;
        self.now = clock::now();
        self.moved = self.now;
        self.cpu_before = clock::thread_cpu();
        for producer in &mut self.producers {
            producer.begin(window.start, window.opens);
        }
        for at in 0..self.readers.len() {
            if !self.readers[at].task.early.is_empty() {
                self.hear(at, self.now, None);
            }
        }
        for at in 0..self.producers.len() {
            self.produce(at, self.now);
        }
        let mut ready = Vec::new();
        loop {
            match self.turn(&mut ready, notes) {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => {
                    self.tally.faults.note(Kind::Closed, || format!("epoll: {why}"));
                    break;
                }
            }
        }
        if self.closed_at.is_none() {
            self.close(self.now, notes);
        }
        self.give_up();
        self.tally
    }
}

/// What is there to read, if anything: how much, 0 for the end.
fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Option<Result<usize, Wrong>> {
    match recv(socket, buffer, RecvFlags::empty()) {
        Ok((len, _)) => Some(Ok(len)),
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(why) => Some(Err((Kind::Closed, why.to_string()))),
    }
}

//! The engine for protocols of requests and answers: many connections of one thread around one epoll, each with up
//! to so many requests under way, as fast as answers come or at a fixed rate.
//!
//! What is measured: the clock is read once per receive, so once per answer without pipelining, and once before the
//! write that sends the next requests of a connection. At a fixed rate a request's time is instead the one at which it
//! was due, whenever a connection was free to send it.
//!
//! Invariant: no allocation per request, one receive per readiness, one write for all requests that go out together;
//! the answers of a connection belong to its requests in their order.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::OwnedFd,
};

use hdrhistogram::Histogram;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::{
    cli::Load,
    clock,
    held::Held,
    poll::{Interest, Poll, Ready},
    run::{self, Lane, Notes, Outcome, Window},
    schedule::Schedule,
    tally::{Faults, Kind, Tally},
};

/// What the engine needs to know about a protocol. One value serves all connections of a thread.
pub trait Protocol {
    /// What it keeps for each connection.
    type Link;

    /// Opens connection `number`; greetings are exchanged here, while it still blocks.
    fn connect(&mut self, number: usize) -> Result<(OwnedFd, Self::Link), String>;

    /// Puts the next request at the end of `out`.
    fn ask(&mut self, link: &mut Self::Link, out: &mut Vec<u8>);

    /// A body too large to copy, which follows what [`Protocol::ask`] put out.
    fn body(&self, _link: &Self::Link) -> &[u8] {
        &[]
    }

    /// Puts the next request of an operation that takes several at the end of `out`; called when [`Heard::goes_on`]
    /// says so, and never for one that is answered by one answer.
    fn go_on(&mut self, _link: &mut Self::Link, _out: &mut Vec<u8>) {}

    /// Takes what came. What it does not use must be given again, with more behind it.
    fn hear(&mut self, link: &mut Self::Link, input: &[u8], faults: &mut Faults) -> Heard;

    /// How many bytes may be dropped unseen because only their number matters.
    fn droppable(&self, _link: &Self::Link) -> u64 {
        0
    }

    /// So many were dropped.
    fn dropped(&mut self, _link: &mut Self::Link, _bytes: u64, _faults: &mut Faults) -> Heard {
        Heard::default()
    }

    /// The peer has ended the connection. Whether that was the end of an answer.
    fn ended(&mut self, _link: &mut Self::Link, _faults: &mut Faults) -> Heard {
        Heard::default()
    }
}

/// What was in the bytes that came.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Bytes that are done with.
    pub used: usize,
    /// Answers that came to their end.
    pub answers: u32,
    /// Bytes of content in them, and those in requests that they answer, unless that is a [`Protocol::body`].
    pub payload: u64,
    /// Whether the oldest request was answered in part and another one is to follow.
    pub goes_on: bool,
    /// Whether this connection can not go on.
    pub over: bool,
}

/// How requests are asked, by all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Connections.
    pub connections: u64,
    /// Requests under way on each.
    pub depth: u32,
    /// Requests a second; none: as fast as answers come.
    pub rate: Option<u64>,
}

/// Asks in this pattern. `of_lane` makes a thread's own protocol of the one of all.
pub fn run<P: Protocol + Clone + Send>(
    load: &Load,
    protocol: &P,
    pattern: Pattern,
    of_lane: impl Fn(P, usize) -> P,
) -> Result<Outcome, String> {
    let makers = (0..load.threads).map(|lane| {
        let protocol = of_lane(protocol.clone(), lane);
        let part = Part {
            lane,
            lanes: load.threads,
            budget: load.requests.map(|requests| share(requests, lane, load.threads).0),
        };
        move || Rpc::new(protocol, pattern, part)
    });
    run::run(load, makers.collect())
}

/// The part of one thread.
#[derive(Clone, Copy, Debug)]
struct Part {
    lane: usize,
    lanes: usize,
    /// After so many answers its window closes.
    budget: Option<u64>,
}

const RECEIVE: usize = 256 << 10;
/// For bytes that the kernel drops: never written, so no memory stands behind it.
const DROP: usize = 4 << 20;
/// So often in a row a connection may end without a single answer before it is given up.
const FUTILE_MAX: u32 = 100;

/// The lane of one thread.
pub struct Rpc<P: Protocol> {
    protocol: P,
    pattern: Pattern,
    part: Part,
    conns: Vec<Conn<P::Link>>,
    poll: Poll,
    buffer: Vec<u8>,
    void: Vec<u8>,
    window: Window,
    schedule: Option<Schedule>,
    /// Connections that may have room for a request that falls due.
    free: VecDeque<usize>,
    /// Connections that were answered in this turn.
    answered: Vec<usize>,
    under_way: u64,
    live: usize,
    state: State,
    /// When the last turn ended.
    now: u64,
    cpu_before: u64,
    last_answer: u64,
    tally: Tally,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Warm,
    Open,
    Closed,
}

struct Conn<L> {
    number: usize,
    socket: Option<OwnedFd>,
    link: L,
    out: Outbox,
    /// What came and could not be understood without more.
    held: Held,
    /// When the requests under way were sent or due, oldest first: a time, and for how many it holds.
    asked: VecDeque<(u64, u32)>,
    under_way: u32,
    is_free: bool,
    waits_for_room: bool,
    futile: u32,
}

/// What is to be sent: small requests one behind the other, or one request with a body that lies elsewhere.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl<P: Protocol> Rpc<P> {
    /// Opens all connections.
    fn new(mut protocol: P, pattern: Pattern, part: Part) -> Result<Self, String> {
        let poll = Poll::new().map_err(|why| why.to_string())?;
        let (connections, first) = share(pattern.connections, part.lane, part.lanes);
        let conns = (0..connections as usize).map(|at| {
            let number = first as usize + at;
            let (socket, link) = protocol.connect(number)?;
            poll.add(&socket, at, Interest::Read).map_err(|why| why.to_string())?;
            Ok(Conn::new(number, socket, link))
        });
        let conns = conns.collect::<Result<Vec<_>, String>>()?;
        Ok(Self {
            protocol,
            pattern,
            part,
            live: conns.len(),
            conns,
            poll,
            buffer: vec![0; RECEIVE],
            void: vec![0; DROP],
            window: Window { start: 0, opens: 0, closes: None, patience: 0 },
            schedule: None,
            free: (0..connections as usize).collect(),
            answered: Vec::new(),
            under_way: 0,
            state: State::Warm,
            now: 0,
            cpu_before: 0,
            last_answer: 0,
            tally: Tally::default(),
        })
    }

    fn turn(&mut self, ready: &mut Vec<Ready>, notes: &Notes) -> io::Result<bool> {
        self.poll.wait(self.wait_at_most(self.now), ready)?;
        for ready in ready.iter() {
            if ready.write {
                self.flush(ready.token);
                self.refill(ready.token, clock::now());
            }
            if ready.read {
                self.receive(ready.token);
            }
        }
        // All receives before all sends: the server is woken once for many requests, and finds them together.
        let mut answered = std::mem::take(&mut self.answered);
        for at in answered.drain(..) {
            self.refill(at, clock::now());
        }
        self.answered = answered;
        let now = clock::now();
        self.now = now;
        self.move_on(now, notes);
        self.ask_what_is_due(now);
        let given_up = self.live == 0 && self.state != State::Closed;
        if given_up || self.has_stalled(now) {
            self.close(now, notes);
            return Ok(false);
        }
        let deadline = self.tally.window.1 + self.window.patience;
        Ok(self.state != State::Closed || (self.under_way > 0 && self.live > 0 && now < deadline))
    }

    /// Nanoseconds until something is to be done without being told by a socket.
    fn wait_at_most(&self, now: u64) -> u64 {
        let next = match (self.state, self.window.closes) {
            (State::Warm, _) => self.window.opens,
            (State::Open, Some(closes)) => closes,
            (State::Open, None) => self.last_answer + self.window.patience,
            (State::Closed, _) => self.tally.window.1 + self.window.patience,
        };
        let has_room = !self.free.is_empty() && self.may_ask(now);
        let due = self.schedule.as_ref().filter(|_| has_room).map_or(u64::MAX, Schedule::next);
        next.min(due).saturating_sub(now)
    }

    /// A measurement that ends by number would wait for ever.
    fn has_stalled(&self, now: u64) -> bool {
        self.state == State::Open
            && self.window.closes.is_none()
            && now >= self.last_answer.max(self.window.opens) + self.window.patience
    }

    fn move_on(&mut self, now: u64, notes: &Notes) {
        if self.state == State::Warm && now >= self.window.opens {
            self.state = State::Open;
            self.tally.window.0 = self.window.opens;
            self.cpu_before = clock::thread_cpu();
            self.last_answer = now;
        }
        let is_done = self.part.budget.is_some_and(|budget| self.tally.operations >= budget);
        if self.state == State::Open && is_done {
            self.close(self.last_answer, notes);
        }
        if self.state == State::Open && self.window.closes.is_some_and(|closes| now >= closes) {
            self.close(self.window.closes.unwrap_or(now), notes);
        }
    }

    fn close(&mut self, at: u64, notes: &Notes) {
        notes.closed();
        self.tally.window = (self.window.opens.min(at), at);
        self.tally.cpu = clock::thread_cpu() - self.cpu_before;
        self.state = State::Closed;
        // What was due and found no free connection took at least until now.
        while let Some(due) = self.schedule.as_mut().and_then(|schedule| schedule.take(at.saturating_sub(1)))
        {
            if due >= self.window.opens && self.part.budget.is_none() {
                self.tally.unsent += 1;
                self.tally.latency.saturating_record(at - due);
            }
        }
    }

    fn may_ask(&self, now: u64) -> bool {
        // The clock may have passed the end in the middle of a turn.
        if self.window.closes.is_some_and(|closes| now >= closes) {
            return false;
        }
        match (self.state, self.part.budget) {
            (State::Closed, _) => false,
            (State::Open, Some(budget)) => self.tally.operations + self.under_way < budget,
            _ => true,
        }
    }

    fn ask_what_is_due(&mut self, now: u64) {
        while let Some(&at) = self.free.front() {
            if !self.has_room(at) {
                self.free.pop_front();
                self.conns[at].is_free = false;
                continue;
            }
            let Some(schedule) = self.schedule.as_mut().filter(|schedule| schedule.next() <= now) else {
                return;
            };
            let due = schedule.next();
            if !self.may_ask(now) {
                return;
            }
            _ = self.schedule.as_mut().and_then(|schedule| schedule.take(now));
            if due >= self.window.opens {
                self.tally.late.saturating_record(now - due);
            }
            self.ask(at, due);
            self.flush(at);
            // The next one goes by another connection.
            self.free.rotate_left(1);
        }
    }

    fn has_room(&self, at: usize) -> bool {
        let conn = &self.conns[at];
        let is_sent = self.protocol.body(&conn.link).is_empty() || conn.out.is_empty();
        conn.socket.is_some() && conn.under_way < self.pattern.depth && is_sent
    }

    fn ask(&mut self, at: usize, time: u64) {
        let conn = &mut self.conns[at];
        self.protocol.ask(&mut conn.link, &mut conn.out.bytes);
        conn.under_way += 1;
        self.under_way += 1;
        match conn.asked.back_mut() {
            Some((same, count)) if *same == time => *count += 1,
            _ => conn.asked.push_back((time, 1)),
        }
    }

    /// Sends what this connection has room for, by the schedule if there is one.
    fn refill(&mut self, at: usize, now: u64) {
        if self.schedule.is_some() {
            while self.has_room(at) && self.may_ask(now) {
                let due = self.schedule.as_mut().and_then(|schedule| schedule.take(now));
                let Some(due) = due else { break };
                self.ask(at, due);
            }
            if !self.conns[at].is_free && self.has_room(at) {
                self.conns[at].is_free = true;
                self.free.push_back(at);
            }
        } else {
            while self.has_room(at) && self.may_ask(now) {
                self.ask(at, now);
            }
        }
        self.flush(at);
    }

    fn flush(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        let Some(socket) = conn.socket.as_ref().filter(|_| !conn.out.is_empty()) else { return };
        let body = self.protocol.body(&conn.link);
        let sent = match conn.out.send(socket, body) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => Sent::default(),
            // Reading shows the same, and what came before it.
            Err(_) => return,
        };
        if self.state == State::Open {
            self.tally.bytes_out += sent.bytes as u64;
            self.tally.payload += sent.of_body as u64;
        }
        let waits = !conn.out.is_empty();
        if waits != conn.waits_for_room {
            let interest = if waits { Interest::ReadWrite } else { Interest::Read };
            if self.poll.change(socket, at, interest).is_ok() {
                conn.waits_for_room = waits;
            }
        }
    }

    fn receive(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        let Some(socket) = &conn.socket else { return };
        let droppable = self.protocol.droppable(&conn.link);
        let received = if droppable > 0 {
            let len = (DROP as u64).min(droppable) as usize;
            // The bytes stay in the kernel: TCP takes this flag for "count them and forget them".
            recv(socket, &mut self.void[..len], RecvFlags::TRUNC)
        } else {
            recv(socket, &mut self.buffer[..], RecvFlags::empty())
        };
        let now = clock::now();
        let faults = &mut self.tally.faults;
        let (len, heard) = match received {
            Ok((0, _)) => (0, Heard { over: true, ..self.protocol.ended(&mut conn.link, faults) }),
            Ok((_, len)) if droppable > 0 => (len, self.protocol.dropped(&mut conn.link, len as u64, faults)),
            Ok((len, _)) => {
                let heard = conn.held.take(&self.buffer[..len], |input| {
                    let heard = self.protocol.hear(&mut conn.link, input, faults);
                    (heard.used, heard)
                });
                (len, heard)
            }
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(why) => {
                let number = conn.number;
                faults.note(Kind::Closed, || format!("connection {number}: {why}"));
                (0, Heard { over: true, ..Heard::default() })
            }
        };
        self.count(at, len, heard, now);
        if heard.over {
            self.reconnect(at, now);
        } else if heard.goes_on {
            self.go_on(at, now);
        } else if heard.answers > 0 {
            self.answered.push(at);
        }
    }

    /// Sends the next request of the operation that is under way.
    fn go_on(&mut self, at: usize, now: u64) {
        self.last_answer = now;
        let conn = &mut self.conns[at];
        if conn.out.is_empty() {
            self.protocol.go_on(&mut conn.link, &mut conn.out.bytes);
            return self.flush(at);
        }
        let number = conn.number;
        self.tally
            .faults
            .note(Kind::Surplus, || format!("connection {number}: an answer before all was sent"));
        self.reconnect(at, now);
    }

    fn count(&mut self, at: usize, received: usize, heard: Heard, now: u64) {
        let conn = &mut self.conns[at];
        let is_open = now >= self.window.opens
            && self.state != State::Closed
            && self.window.closes.is_none_or(|closes| now < closes);
        if is_open {
            self.tally.bytes_in += received as u64;
            self.tally.payload += heard.payload;
            self.tally.operations += u64::from(heard.answers);
        }
        if heard.answers == 0 {
            return;
        }
        self.last_answer = now;
        conn.futile = 0;
        let closes = match self.state {
            State::Closed => self.tally.window.1,
            _ => self.window.closes.unwrap_or(u64::MAX),
        };
        let latency = (now >= self.window.opens).then_some(&mut self.tally.latency);
        let surplus = conn.answered(heard.answers, now, closes, latency);
        self.under_way -= u64::from(heard.answers - surplus);
        let number = conn.number;
        self.tally.faults.note_many(Kind::Surplus, u64::from(surplus), || {
            format!("connection {number}: an answer that nobody asked for")
        });
    }

    /// Forgets a connection that is over and opens it again.
    fn reconnect(&mut self, at: usize, now: u64) {
        let conn = &mut self.conns[at];
        let (number, lost) = (conn.number, conn.under_way);
        self.under_way -= u64::from(lost);
        self.tally.faults.note_many(Kind::Closed, u64::from(lost), || {
            format!("connection {number} ended with {lost} requests unanswered")
        });
        conn.futile += 1;
        conn.socket = None;
        let futile = conn.futile;
        if self.state == State::Closed || futile > FUTILE_MAX {
            self.live -= 1;
            return;
        }
        match self.protocol.connect(number) {
            Ok((socket, link)) => {
                let added = self.poll.add(&socket, at, Interest::Read);
                let is_free = conn.is_free;
                *conn = Conn { futile, is_free, ..Conn::new(number, socket, link) };
                self.tally.reconnects += u64::from(added.is_ok());
                self.refill(at, now);
            }
            Err(why) => {
                self.tally.faults.note(Kind::Connect, || why);
                self.live -= 1;
            }
        }
    }

    /// Gives up on what is still under way.
    fn give_up(&mut self) {
        let now = clock::now();
        let closed = self.tally.window.1;
        for conn in self.conns.iter_mut().filter(|conn| conn.socket.is_some()) {
            let (number, lost) = (conn.number, conn.under_way);
            let waited = conn.asked.front().map_or(0, |(time, _)| now.saturating_sub(*time) / 1_000_000);
            conn.answered(lost, now, closed, Some(&mut self.tally.latency));
            self.tally.faults.note_many(Kind::Unanswered, u64::from(lost), || {
                format!("connection {number}: {lost} without an answer, the oldest for {waited} ms")
            });
        }
    }
}

impl<P: Protocol> Lane for Rpc<P> {
    fn run(mut self, window: Window, notes: &Notes) -> Tally {
        self.window = window;
        let (lane, lanes) = (self.part.lane as u64, self.part.lanes as u64);
        self.schedule = self.pattern.rate.map(|rate| Schedule::new(window.start, rate, lane, lanes));
        self.cpu_before = clock::thread_cpu();
        self.now = clock::now();
        if self.schedule.is_none() {
            (0..self.conns.len()).for_each(|at| self.refill(at, clock::now()));
        }
        let mut ready = Vec::new();
        loop {
            match self.turn(&mut ready, notes) {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => {
                    self.tally.faults.note(Kind::Closed, || format!("epoll: {why}"));
                    self.close(clock::now(), notes);
                    break;
                }
            }
        }
        self.give_up();
        self.tally
    }
}

impl<L> Conn<L> {
    fn new(number: usize, socket: OwnedFd, link: L) -> Self {
        Self {
            number,
            socket: Some(socket),
            link,
            out: Outbox::default(),
            held: Held::default(),
            asked: VecDeque::new(),
            under_way: 0,
            is_free: true,
            waits_for_room: false,
            futile: 0,
        }
    }

    /// Takes off the oldest requests, with the time each took if it was asked before the window closed. Returns how
    /// many answers had none.
    fn answered(
        &mut self,
        mut answers: u32,
        now: u64,
        closes: u64,
        mut latency: Option<&mut Histogram<u64>>,
    ) -> u32 {
        while answers > 0 {
            let Some((time, count)) = self.asked.front_mut() else { return answers };
            let these = answers.min(*count);
            if let Some(latency) = latency.as_mut().filter(|_| *time < closes) {
                latency.saturating_record_n(now.saturating_sub(*time), u64::from(these));
            }
            *count -= these;
            if *count == 0 {
                self.asked.pop_front();
            }
            self.under_way -= these;
            answers -= these;
        }
        0
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends as much as the kernel takes, and empties itself when that was all.
    fn send(&mut self, socket: &OwnedFd, body: &[u8]) -> Result<Sent, Errno> {
        let (head, total) = (self.bytes.len(), self.bytes.len() + body.len());
        let of_body = |sent: usize| sent.saturating_sub(head);
        let (rest, body_rest) = (&self.bytes[self.sent.min(head)..], &body[of_body(self.sent)..]);
        let bytes = match body.is_empty() {
            true => send(socket, rest, SendFlags::NOSIGNAL)?,
            false => rustix::io::writev(socket, &[IoSlice::new(rest), IoSlice::new(body_rest)])?,
        };
        let sent = Sent { bytes, of_body: of_body(self.sent + bytes) - of_body(self.sent) };
        self.sent += bytes;
        if self.sent == total {
            self.bytes.clear();
            self.sent = 0;
        }
        Ok(sent)
    }
}

/// What one write took: bytes, and how many of them are of a large body.
#[derive(Clone, Copy, Default)]
struct Sent {
    bytes: usize,
    of_body: usize,
}

/// How many of `total` fall to part `part` of `parts`, and how many fall to the parts before it.
pub fn share(total: u64, part: usize, parts: usize) -> (u64, u64) {
    let (part, parts) = (part as u64, parts as u64);
    let (each, rest) = (total / parts, total % parts);
    (each + u64::from(part < rest), part * each + part.min(rest))
}

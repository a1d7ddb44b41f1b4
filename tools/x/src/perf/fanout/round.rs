//! One round: a producer at a fixed rate and all readers of its stream, on one thread around one epoll.
//!
//! Every message carries its number and the time at which it was handed to the kernel, so the delay of a
//! delivery is read from one clock. Invariant: a round that returns has checked every message of every reader.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    process,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    net::sockopt,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use super::wire::{self, Follower};
use crate::{
    cpu::{Memory, Usage},
    http::{Head, PATIENCE, head},
};

/// What is sent to whom.
#[derive(Clone, Debug)]
pub struct Plan {
    pub address: String,
    pub stream: String,
    pub pid: u32,
    pub readers: usize,
    pub per_second: u64,
    pub seconds: u64,
    /// Whether one more reader asks for everything and then does not read.
    pub paused: bool,
    /// Bytes that stand in the stream before the messages, at least one. Readers ask for the last of them, which
    /// shows that they follow; a paused one asks for all and leaves them unread.
    pub before: u64,
}

/// What came of it.
pub struct Outcome {
    /// From handing a message to the kernel to having it from the kernel, in nanoseconds.
    pub delay: Histogram<u64>,
    /// From the time at which a message was due to handing it to the kernel, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// Within the measured window.
    pub deliveries: u64,
    pub window: Duration,
    pub daemon: Usage,
    /// This process, which sends and reads.
    pub client: Usage,
    pub memory: Memory,
}

/// The first part of a round is not measured.
const WARM_UP: u64 = 10;
const LOOK: Duration = Duration::from_millis(500);
const EVENTS: usize = 256;
const TIMER: u64 = u64::MAX;
const PRODUCER: u64 = u64::MAX - 1;

/// Runs the plan.
pub fn run(plan: &Plan) -> io::Result<Outcome> {
    let mut round = Round::begin(plan)?;
    let paused = plan.paused.then(|| paused(plan)).transpose()?;
    round.turn_until(|round| round.following == plan.readers)?;
    round.start_timer()?;
    round.turn_until(|round| round.sent == round.total && round.backlog.is_empty())?;
    let Mark { daemon, client, deliveries, since } = round.mark.take().expect("the window was opened");
    let window = since.elapsed();
    let (daemon, client) = (Usage::of(plan.pid)?.since(daemon), Usage::of(process::id())?.since(client));
    let deliveries = round.deliveries - deliveries;
    round.backlog.extend_from_slice(b"0\r\n\r\n");
    round.write()?;
    round.turn_until(|round| round.ended == plan.readers && round.backlog.is_empty())?;
    round.producer_is_acknowledged()?;
    if let Some((socket, follower)) = paused {
        read_to_the_end(socket, follower, round.total)?;
    }
    Ok(Outcome {
        delay: round.delay,
        lateness: round.lateness,
        deliveries,
        window,
        daemon,
        client,
        memory: round.memory,
    })
}

struct Round<'a> {
    plan: &'a Plan,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    timer: OwnedFd,
    producer: TcpStream,
    /// Chunks that the kernel has not taken yet.
    backlog: Vec<u8>,
    readers: Vec<(TcpStream, Follower)>,
    following: usize,
    ended: usize,
    clock: Instant,
    /// When the first message was due, by the clock.
    start: Option<Duration>,
    sent: u64,
    total: u64,
    /// The first message that counts.
    measured_from: u64,
    deliveries: u64,
    mark: Option<Mark>,
    delay: Histogram<u64>,
    lateness: Histogram<u64>,
    memory: Memory,
    looked: Instant,
}

/// The books when the measured window opened.
struct Mark {
    daemon: Usage,
    client: Usage,
    deliveries: u64,
    since: Instant,
}

impl<'a> Round<'a> {
    fn begin(plan: &'a Plan) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let producer = producer(plan)?;
        let readers = (0..plan.readers).map(|_| reader(plan)).collect::<io::Result<Vec<_>>>()?;
        for (at, (socket, _)) in readers.iter().enumerate() {
            epoll::add(&epoll, socket, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
        }
        // By edges: it is nearly always writable, and matters only after it was not.
        let writable = epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&epoll, &producer, epoll::EventData::new_u64(PRODUCER), writable)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are sound");
        let total = plan.per_second * plan.seconds;
        Ok(Self {
            plan,
            epoll,
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; 1 << 16],
            timer,
            producer,
            backlog: Vec::new(),
            readers,
            following: 0,
            ended: 0,
            clock: Instant::now(),
            start: None,
            sent: 0,
            total,
            measured_from: total / WARM_UP,
            deliveries: 0,
            mark: None,
            delay: histogram(),
            lateness: histogram(),
            memory: Memory::of(plan.pid)?,
            looked: Instant::now(),
        })
    }

    /// Serves events until this is so; an error when nothing happens for too long.
    fn turn_until(&mut self, reached: impl Fn(&Self) -> bool) -> io::Result<()> {
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        while !reached(self) {
            let mut events = std::mem::take(&mut self.events);
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience)) {
                Ok(0) => return Err(self.stalled()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
            for event in &events {
                match event.data.u64() {
                    TIMER => self.publish()?,
                    PRODUCER => self.write()?,
                    reader => self.read(reader as usize)?,
                }
            }
            self.events = events;
            if self.looked.elapsed() >= LOOK {
                self.memory = self.memory.max(Memory::of(self.plan.pid)?);
                self.looked = Instant::now();
            }
        }
        Ok(())
    }

    fn stalled(&self) -> io::Error {
        let counts = || self.readers.iter().map(|(_, follower)| follower.count());
        io::Error::other(format!(
            "nothing came for {PATIENCE:?}: {} of {} messages sent; of {} readers {} follow and {} ended; they have \
             {} to {} messages",
            self.sent,
            self.total,
            self.plan.readers,
            self.following,
            self.ended,
            counts().min().unwrap_or_default(),
            counts().max().unwrap_or_default(),
        ))
    }

    fn start_timer(&mut self) -> io::Result<()> {
        let nanos = 1_000_000_000 / self.plan.per_second;
        let interval =
            Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let timer = Itimerspec { it_interval: interval, it_value: interval };
        self.start = Some(self.clock.elapsed() + Duration::from_nanos(nanos));
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }

    /// Sends every message that is due by now.
    fn publish(&mut self) -> io::Result<()> {
        let mut expirations = [0; 8];
        match rustix::io::read(&self.timer, &mut expirations) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(why) => return Err(why.into()),
        }
        let start = self.start.expect("the timer was started");
        let now = self.clock.elapsed();
        let due = (now - start.min(now)).as_nanos() * u128::from(self.plan.per_second) / 1_000_000_000 + 1;
        while self.sent < self.total && u128::from(self.sent) < due {
            if self.sent == self.measured_from {
                self.mark = Some(Mark {
                    daemon: Usage::of(self.plan.pid)?,
                    client: Usage::of(process::id())?,
                    deliveries: self.deliveries,
                    since: Instant::now(),
                });
            }
            let sent = self.clock.elapsed();
            let was_due = start + Duration::from_nanos(self.sent * 1_000_000_000 / self.plan.per_second);
            if self.sent >= self.measured_from {
                self.lateness.saturating_record(nanos(sent.saturating_sub(was_due)).max(1));
            }
            wire::push(&mut self.backlog, self.sent, nanos(sent));
            self.sent += 1;
        }
        if self.sent == self.total {
            epoll::delete(&self.epoll, &self.timer)?;
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.backlog.len() {
            match self.producer.write(&self.backlog[at..]) {
                Ok(len) => at += len,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        self.backlog.drain(..at);
        Ok(())
    }

    fn read(&mut self, at: usize) -> io::Result<()> {
        let (socket, follower) = &mut self.readers[at];
        let len = match socket.read(&mut self.buffer) {
            Ok(len) => len,
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(why) => return Err(io::Error::other(format!("reader {at}: {why}"))),
        };
        let now = nanos(self.clock.elapsed());
        let followed = follower.is_following();
        let (delay, deliveries, measured_from) = (&mut self.delay, &mut self.deliveries, self.measured_from);
        let mut each = |number: u64, sent: u64| {
            *deliveries += 1;
            if number >= measured_from {
                delay.saturating_record((now - sent).max(1));
            }
        };
        let fed = match len {
            0 => {
                return Err(io::Error::other(format!(
                    "reader {at}: closed after {} messages",
                    follower.count()
                )));
            }
            len => follower.feed(&self.buffer[..len], &mut each),
        };
        fed.map_err(|fault| io::Error::other(format!("reader {at}: {fault}")))?;
        self.following += usize::from(!followed && follower.is_following());
        if follower.has_ended() {
            all_came(at, follower, self.total)?;
            self.ended += 1;
            epoll::delete(&self.epoll, &*socket)?;
        }
        Ok(())
    }

    /// The end of the producer's answer is the promise that everything is stored.
    fn producer_is_acknowledged(&mut self) -> io::Result<()> {
        self.producer.set_nonblocking(false)?;
        let mut rest = Vec::new();
        let mut space = [0; 1024];
        while !rest.ends_with(b"0\r\n\r\n") {
            match self.producer.read(&mut space)? {
                0 => return Err(io::Error::other("the producer's answer has no end")),
                len => rest.extend_from_slice(&space[..len]),
            }
        }
        Ok(())
    }
}

/// A connection that makes the stream, with what stands before the messages already published.
fn producer(plan: &Plan) -> io::Result<TcpStream> {
    let mut socket = connect(&plan.address)?;
    write!(
        socket,
        "POST /stream/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        plan.stream
    )?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    match Head::read(&answer) {
        Some((head, _)) if head.status == 201 => {}
        _ => {
            return Err(io::Error::other(format!(
                "POST was answered {:?}",
                String::from_utf8_lossy(&answer)
            )));
        }
    }
    write!(socket, "{:x}\r\n", plan.before)?;
    io::copy(&mut io::repeat(b'-').take(plan.before), &mut socket)?;
    socket.write_all(b"\r\n")?;
    let path = format!("/stream/{}", plan.stream);
    let asked = Instant::now();
    while head(&plan.address, &path)?.number("stream-next-offset") != Some(plan.before) {
        if asked.elapsed() > PATIENCE {
            return Err(io::Error::other("what stands before the messages was not published"));
        }
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn reader(plan: &Plan) -> io::Result<(TcpStream, Follower)> {
    let mut socket = connect(&plan.address)?;
    write!(socket, "GET /stream/{}?offset={} HTTP/1.1\r\nhost: x\r\n\r\n", plan.stream, plan.before - 1)?;
    socket.set_nonblocking(true)?;
    Ok((socket, Follower::new(1)))
}

/// A reader from the first byte on that takes nothing from its socket: a receive buffer does not grow unread, so
/// nearly all stays with the daemon.
fn paused(plan: &Plan) -> io::Result<(TcpStream, Follower)> {
    let mut socket = connect(&plan.address)?;
    write!(socket, "GET /stream/{} HTTP/1.1\r\nhost: x\r\n\r\n", plan.stream)?;
    Ok((socket, Follower::new(plan.before)))
}

fn read_to_the_end(mut socket: TcpStream, mut follower: Follower, total: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    while !follower.has_ended() {
        let len = match socket.read(&mut buffer)? {
            0 => return Err(io::Error::other("the paused reader was cut off")),
            len => len,
        };
        follower
            .feed(&buffer[..len], &mut |_, _| {})
            .map_err(|fault| io::Error::other(format!("the paused reader: {fault}")))?;
    }
    all_came(usize::MAX, &follower, total)
}

fn all_came(reader: usize, follower: &Follower, total: u64) -> io::Result<()> {
    if follower.count() == total {
        return Ok(());
    }
    Err(io::Error::other(format!("reader {reader} has {} of {total} messages", follower.count())))
}

/// A client's own congestion control paces what it sends; on loopback that would be measured instead.
fn connect(address: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    sockopt::set_tcp_congestion(&socket, "cubic")?;
    Ok(socket)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a run takes less than centuries")
}

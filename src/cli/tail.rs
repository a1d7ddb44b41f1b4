//! `millpond tail`: a stream to stdout, from any offset, live, across broken connections.
//!
//! Exit codes: 0 when the stream is complete (or, with `--notail`, everything there was printed) and
//! when stdout's reader went away; 3 when the stream ended without its producer's end, as after a
//! crash; 1 for everything else, with the reason on stderr.
//!
//! A connection that breaks is made again and goes on behind the last byte printed, naming the epoch
//! that this byte belongs to: where the server's history differs it refuses, and so do we. After a
//! restart of the server a stream first looks interrupted, so its producer gets half a minute to come
//! back.
//!
//! Invariant: stdout is a contiguous piece of one history of the stream; no byte is lost or doubled.
//!
//! Runs in: a process of its own, on one thread.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::args::TailArgs;
use super::client::body::Body;
use super::client::console::{self, Output};
use super::client::look::{Look, Looked};
use super::client::patience::{Exhausted, Patience};
use super::client::place::{Misnamed, Place};
use super::client::socket::{Refusal, Socket, Trouble};
use super::client::state::State;

const READ_BYTES: usize = 256 * 1024;
/// Payload ranges that leave in one write.
const RANGES_MAX: usize = 64;
/// How long a producer may take to come back after the server did.
const PRODUCER_WITHIN: Duration = Duration::from_secs(30);
const LOOK_FIRST: Duration = Duration::from_millis(200);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The exit code for a stream that ended without its producer's end.
const INTERRUPTED: u8 = 3;

/// Runs the command; see the module for its exit codes.
pub fn run(args: TailArgs) -> ExitCode {
    match Reader::new(&args).map_err(Failure::Misnamed).and_then(|mut reader| reader.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(failure) => {
            console::say("tail", &failure);
            match failure {
                Failure::Interrupted { .. } => ExitCode::from(INTERRUPTED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

struct Reader {
    place: Place,
    notail: bool,
    look: Look,
    buffer: Vec<u8>,
    /// Offset of the next byte to print.
    at: u64,
    /// Whether the user or an earlier connection fixed where to begin.
    placed: bool,
    epoch: Option<u64>,
    /// A connection broke and no attached producer has been seen since.
    forlorn: bool,
    patience: Patience,
}

/// How one `GET` ended.
enum Ended {
    /// With everything that the producer wrote, or that was asked for.
    Whole,
    /// At the point where the producer vanished.
    Interrupted,
    Broken(Trouble),
    Away(Refusal),
}

enum Failure {
    Misnamed(Misnamed),
    Trouble(Trouble),
    Refused(Refusal),
    History(Refusal),
    /// What comes next is gone: the server's retention took it.
    Trimmed {
        at: u64,
        first: Option<u64>,
    },
    CannotResume,
    Interrupted {
        at: u64,
    },
    Output(io::Error),
    /// The reader of stdout went away, which is an ordinary end.
    NobodyReads,
    OutOfPatience(Exhausted<String>),
}

impl Reader {
    fn new(args: &TailArgs) -> Result<Self, Misnamed> {
        let place = Place::new(&args.url, &args.id, args.token.as_deref())?;
        Ok(Self {
            look: Look::new(place.clone()),
            place,
            notail: args.notail,
            buffer: vec![0; READ_BYTES],
            at: args.offset.unwrap_or(0),
            placed: args.offset.is_some(),
            epoch: None,
            forlorn: false,
            patience: Patience::new("tail"),
        })
    }

    fn run(&mut self) -> Result<(), Failure> {
        let mut reached = false;
        loop {
            let cause = match self.get()? {
                Ended::Whole => return Ok(()),
                Ended::Interrupted if self.notail => return Err(Failure::Interrupted { at: self.at }),
                Ended::Interrupted => match self.await_producer()? {
                    None => continue,
                    Some(cause) => cause,
                },
                // Like any client: what was never reached is a mistake in the command, not an outage.
                Ended::Broken(trouble @ Trouble::Unreachable(..)) if !reached && self.patience.is_calm() => {
                    return Err(Failure::Trouble(trouble));
                }
                Ended::Broken(garbled @ Trouble::Garbled(_)) => return Err(Failure::Trouble(garbled)),
                Ended::Broken(trouble) => trouble.to_string(),
                Ended::Away(refusal) => refusal.to_string(),
            };
            reached = true;
            self.wait_out(cause)?;
        }
    }

    /// One `GET` from where we are, printed to its end.
    fn get(&mut self) -> Result<Ended, Failure> {
        let (mut socket, answer) = match Socket::ask(&self.place, "GET", &self.query(), "") {
            Ok(both) => both,
            Err(trouble) => return Ok(Ended::Broken(trouble)),
        };
        let mut body = match answer.body(false) {
            Ok(body) => body,
            Err(garbled) => return Err(Failure::Trouble(garbled.into())),
        };
        if !answer.is_success() {
            let refusal = socket.refusal(&answer);
            return match answer.status {
                412 => Err(Failure::History(refusal)),
                410 if self.placed => Err(Failure::Trimmed {
                    at: self.at,
                    first: answer.fields().number("stream-first-offset"),
                }),
                _ if refusal.is_passing() => Ok(Ended::Away(refusal)),
                _ => Err(Failure::Refused(refusal)),
            };
        }
        let epoch = answer.fields().number("stream-epoch");
        // Without epochs there are no offsets either: such a server sends from byte 0 whatever is asked.
        if self.placed && epoch.is_none() {
            return Err(Failure::CannotResume);
        }
        if let (false, Some(first @ 1..)) = (self.placed, answer.fields().number("stream-first-offset")) {
            let gone = format_args!("the first {first} bytes are gone; this is the stream from there on");
            console::say("tail", &gone);
            self.at = first;
        }
        self.epoch = epoch;
        self.placed = true;
        let state = State::of(answer.fields());
        if state == Some(State::Open) {
            self.forlorn = false;
        }
        let since = console::now();
        let printed = self.print(&mut socket, &mut body)?;
        self.patience.survived(since);
        if let Err(trouble) = printed {
            self.forlorn = true;
            return Ok(Ended::Broken(trouble));
        }
        Ok(match (State::of(body.trailers()), state) {
            (Some(State::Interrupted), _) | (None, Some(State::Interrupted)) => Ended::Interrupted,
            // A live stream has ended and the trailers that tell how were lost, as some proxies do.
            (None, Some(State::Open)) if !self.notail => self.how_ended(),
            _ => Ended::Whole,
        })
    }

    fn how_ended(&mut self) -> Ended {
        match self.look.ask() {
            Ok(Looked::Stream(extent)) if extent.state == State::Complete && extent.next == self.at => {
                Ended::Whole
            }
            Ok(Looked::Stream(extent)) if extent.state == State::Interrupted => Ended::Interrupted,
            Ok(Looked::Refused(refusal)) => Ended::Away(refusal),
            Ok(_) => Ended::Broken(Trouble::Closed),
            Err(trouble) => Ended::Broken(trouble),
        }
    }

    fn query(&self) -> String {
        let mut query = String::new();
        let mut add = |part: fmt::Arguments<'_>| {
            let mark = if query.is_empty() { "" } else { "&" };
            query.push_str(&format!("{mark}{part}"));
        };
        if self.notail {
            add(format_args!("notail"));
        }
        if self.placed {
            add(format_args!("offset={}", self.at));
        }
        if let Some(epoch) = self.epoch {
            add(format_args!("epoch={epoch}"));
        }
        query
    }

    /// Prints a body to its end; the inner error is the connection's.
    fn print(&mut self, socket: &mut Socket, body: &mut Body) -> Result<Result<(), Trouble>, Failure> {
        let early = socket.take_read();
        if let Err(trouble) = self.print_piece(&early, body)? {
            return Ok(Err(trouble));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let printed = self.print_rest(socket, body, &mut buffer);
        self.buffer = buffer;
        printed
    }

    fn print_rest(
        &mut self,
        socket: &mut Socket,
        body: &mut Body,
        buffer: &mut [u8],
    ) -> Result<Result<(), Trouble>, Failure> {
        while !body.ended() {
            match socket.read_into(buffer) {
                Ok(Some(len)) => {
                    self.patience.restore();
                    if let Err(trouble) = self.print_piece(&buffer[..len], body)? {
                        return Ok(Err(trouble));
                    }
                }
                Ok(None) => wait_for_more(socket)?,
                // An original server of HTTP/1.0 days ends its body so; nothing better can be known.
                Err(Trouble::Closed) if body.is_until_close() && self.epoch.is_none() => break,
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
        Ok(Ok(()))
    }

    /// Prints the payload of what was read, straight from where it was read to.
    fn print_piece(&mut self, input: &[u8], body: &mut Body) -> Result<Result<(), Trouble>, Failure> {
        let mut slices = Vec::with_capacity(4);
        let mut at = 0;
        while at < input.len() && !body.ended() {
            match body.step(&input[at..]) {
                Ok(step) => {
                    if !step.payload.is_empty() {
                        slices.push(IoSlice::new(&input[at..][step.payload]));
                    }
                    at += step.used;
                }
                Err(garbled) => {
                    self.write(&mut slices)?;
                    return Ok(Err(garbled.into()));
                }
            }
            if slices.len() == RANGES_MAX {
                self.write(&mut slices)?;
            }
        }
        self.write(&mut slices)?;
        Ok(Ok(()))
    }

    fn write(&mut self, slices: &mut Vec<IoSlice<'_>>) -> Result<(), Failure> {
        let len = slices.iter().map(|slice| slice.len()).sum::<usize>();
        Output.write_all(slices).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::Output(error),
        })?;
        self.at += len as u64;
        slices.clear();
        Ok(())
    }

    /// After an interrupted end: `None` when there is more to read, a cause when the server is away.
    fn await_producer(&mut self) -> Result<Option<String>, Failure> {
        let start = console::now();
        let mut wait = LOOK_FIRST;
        loop {
            match self.look.ask() {
                Ok(Looked::Stream(extent)) if extent.state != State::Interrupted && self.forlorn => {
                    return Ok(None);
                }
                Ok(Looked::Stream(_)) if !self.forlorn => return Err(Failure::Interrupted { at: self.at }),
                Ok(Looked::Stream(_)) => {}
                Ok(Looked::Refused(refusal)) if refusal.is_passing() => return Ok(Some(refusal.to_string())),
                Ok(Looked::Refused(refusal)) => return Err(Failure::Refused(refusal)),
                Ok(Looked::Missing | Looked::Speechless) => return Err(Failure::Interrupted { at: self.at }),
                Err(trouble) => {
                    // The end was the server's own: it says goodbye to readers before it stops.
                    self.forlorn = true;
                    return Ok(Some(trouble.to_string()));
                }
            }
            if start.elapsed() >= PRODUCER_WITHIN {
                return Err(Failure::Interrupted { at: self.at });
            }
            pause_until(console::now() + wait)?;
            wait = (wait * 2).min(LOOK_MAX);
        }
    }

    fn wait_out(&mut self, cause: String) -> Result<(), Failure> {
        self.look.forget();
        let until = self.patience.wait_after(cause).map_err(Failure::OutOfPatience)?;
        pause_until(until)
    }
}

/// Waits for the socket, but not beyond the life of stdout's reader.
fn wait_for_more(socket: &Socket) -> Result<(), Failure> {
    let output = Output.fd();
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(output, PollFlags::empty())];
    console::wait(&mut fds, None).map_err(Failure::Output)?;
    reader_lives(&fds[1])
}

fn pause_until(until: Instant) -> Result<(), Failure> {
    loop {
        let left = until.saturating_duration_since(console::now());
        if left.is_zero() {
            return Ok(());
        }
        let mut fds = [PollFd::from_borrowed_fd(Output.fd(), PollFlags::empty())];
        console::wait(&mut fds, Some(left)).map_err(Failure::Output)?;
        reader_lives(&fds[0])?;
    }
}

/// The kernel reports ERR on a pipe and HUP on a socket or terminal whose other end is closed.
fn reader_lives(output: &PollFd<'_>) -> Result<(), Failure> {
    if output.revents().intersects(PollFlags::ERR | PollFlags::HUP) {
        Err(Failure::NobodyReads)
    } else {
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misnamed(why) => why.fmt(f),
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::History(refusal) => {
                write!(f, "the stream is no longer the one that was printed so far; {refusal}")
            }
            Self::Trimmed { at, first: Some(first) } => write!(
                f,
                "byte {at} is gone: the server keeps the stream from byte {first} on, and --offset {first} reads it \
                 from there"
            ),
            Self::Trimmed { at, first: None } => write!(f, "byte {at} is gone: the server keeps less of the stream"),
            Self::CannotResume => f.write_str(
                "the server gives no Stream-Epoch, so it cannot start at an offset without printing bytes twice",
            ),
            Self::Interrupted { at } => {
                write!(f, "the stream was interrupted at byte {at}: its producer vanished before the end")
            }
            Self::Output(error) => write!(f, "cannot write to stdout: {error}"),
            Self::NobodyReads => f.write_str("nobody reads stdout"),
            Self::OutOfPatience(exhausted) => exhausted.fmt(f),
        }
    }
}

//! `millpond pipe`: stdin into a live stream, unbuffered, across broken connections and restarts.
//!
//! Every read of stdin leaves at once as one chunk of one `POST`. What was sent stays in a ring of
//! 4 MiB until the server calls it durable, which is asked by `HEAD` on a second connection; a full
//! ring stops the reading of stdin. When the connection breaks, the server says where its stream ends
//! and the ring is sent again from there.
//!
//! Invariant: the stream holds each byte of stdin once and in order, or the exit code is 1; it is 0
//! only after the server promised that everything is durable.
//!
//! Runs in: a process of its own, on one thread around one `poll`.

mod decide;
mod ring;

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use self::decide::{Decision, Loss, Ours, Seen, after_break};
use self::ring::Ring;
use super::args::PipeArgs;
use super::client::body::Body;
use super::client::console::{self, Input};
use super::client::frame::Frame;
use super::client::look::{Look, Looked};
use super::client::patience::{Exhausted, Patience};
use super::client::place::{Misnamed, Place, metadata_line};
use super::client::socket::{Refusal, Socket, Trouble};
use super::client::state::{Extent, State};

const RING_BYTES: usize = 4 * 1024 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;
/// While something is not durable the server is asked this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// With the ring half full it is asked sooner, as long as the answers bring news.
const LOOK_SOONEST: Duration = Duration::from_millis(5);

/// The body of a resumption with nothing left to send. A server whose stream is as long as it takes has to know that
/// nothing follows before it lets anyone go on.
const EMPTY: &str = "Content-Length: 0\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\nContent-Type: application/octet-stream\r\n";

/// Runs the command: 0 when everything is durable, else 1 with the reason on stderr.
pub fn run(args: PipeArgs) -> ExitCode {
    match Producer::new(&args).map_err(Failure::Misnamed).and_then(|mut producer| producer.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            console::say("pipe", &failure);
            ExitCode::FAILURE
        }
    }
}

struct Producer {
    place: Place,
    create_query: &'static str,
    create_lines: String,
    ring: Ring,
    input_ended: bool,
    look: Look,
    pace: Pace,
    /// Where our bytes begin and the epoch they belong to, once the server has accepted the stream.
    accepted: Option<Accepted>,
    /// A request to create was sent whose answer never came: a conflict may be with ourselves.
    create_unanswered: bool,
    resume_unanswered: bool,
    patience: Patience,
}

#[derive(Clone, Copy)]
struct Accepted {
    start: u64,
    epoch: u64,
}

/// One `POST` under way.
struct Upload {
    socket: Socket,
    frame: Frame,
    last_sent: bool,
    answer: Body,
    since: Instant,
}

/// Why a `POST` is over.
enum Over {
    /// The answer has ended after our last chunk: everything is durable.
    Durable,
    Broken(Cause),
}

/// What may be mended by another attempt.
enum Cause {
    Trouble(Trouble),
    /// The server asks to come back later.
    Away(Refusal),
    /// The answer ended before the stream, or with another length.
    EndedEarly,
    /// The server no longer counts this connection as the stream's producer.
    Detached,
    /// The server's answers contradict one another for the moment.
    Unclear,
}

/// One attempt to get a `POST` under way.
enum Attempt {
    Running(Upload),
    /// There is nothing left to send.
    Done,
    Again(Cause),
}

/// What a `POST` was answered with.
enum Reply {
    Accepted(Upload, Option<u64>, Option<u64>),
    Precondition(Seen),
    Missing(Refusal),
    Conflict(Refusal),
    Refused(Refusal),
    Broken(Cause),
}

enum Failure {
    Misnamed(Misnamed),
    Trouble(Trouble),
    Refused(Refusal),
    CannotResume,
    Lost(Loss),
    Input(io::Error),
    OutOfPatience(Exhausted<Cause>),
}

impl Producer {
    fn new(args: &PipeArgs) -> Result<Self, Misnamed> {
        let place = Place::new(&args.url, &args.id, args.token.as_deref())?;
        let metadata = args.metadata.as_deref().map(metadata_line).transpose()?.unwrap_or_default();
        Ok(Self {
            look: Look::new(place.clone()),
            place,
            create_query: if args.force { "force=true" } else { "" },
            create_lines: format!("{CHUNKED}{metadata}"),
            ring: Ring::new(0, RING_BYTES),
            input_ended: false,
            pace: Pace::new(console::now()),
            accepted: None,
            create_unanswered: false,
            resume_unanswered: false,
            patience: Patience::new("pipe"),
        })
    }

    fn run(&mut self) -> Result<(), Failure> {
        let mut cause = None;
        loop {
            let Some(mut upload) = self.get_under_way(cause)? else { return Ok(()) };
            match self.feed(&mut upload)? {
                Over::Durable => return Ok(()),
                Over::Broken(why) => {
                    self.patience.survived(upload.since);
                    cause = Some(why);
                }
            }
        }
    }

    /// Attempts until a `POST` runs; `None` when the server already has everything.
    fn get_under_way(&mut self, mut cause: Option<Cause>) -> Result<Option<Upload>, Failure> {
        loop {
            if let Some(cause) = cause.take() {
                self.wait_out(cause)?;
            }
            let attempt = match self.accepted {
                None => self.create()?,
                Some(accepted) => self.resume(accepted)?,
            };
            match attempt {
                Attempt::Running(upload) => return Ok(Some(upload)),
                Attempt::Done => return Ok(None),
                Attempt::Again(why) => cause = Some(why),
            }
        }
    }

    fn create(&mut self) -> Result<Attempt, Failure> {
        let (next, epoch, upload) = match self.post(self.create_query, &self.create_lines.clone()) {
            Reply::Accepted(upload, next, Some(epoch)) => (next.unwrap_or(0), epoch, upload),
            Reply::Accepted(_, _, None) => return Err(Failure::CannotResume),
            // Like any client: what was never reached is a mistake in the command, not an outage.
            Reply::Broken(Cause::Trouble(trouble @ Trouble::Unreachable(..)))
                if !self.create_unanswered && self.patience.is_calm() =>
            {
                return Err(Failure::Trouble(trouble));
            }
            Reply::Broken(cause) => {
                self.create_unanswered |= cause.leaves_doubt();
                return again(cause);
            }
            Reply::Conflict(refusal) if self.create_unanswered => return self.adopt(refusal),
            Reply::Conflict(refusal) | Reply::Missing(refusal) | Reply::Refused(refusal) => {
                return Err(Failure::Refused(refusal));
            }
            Reply::Precondition(_) => return Ok(Attempt::Again(Cause::Unclear)),
        };
        if self.ring.end() == 0 {
            self.ring = Ring::new(next, RING_BYTES);
        } else if next != self.ring.kept_from() {
            return Err(Failure::Lost(Loss::OthersWrote { next, sent_most: 0 }));
        }
        Ok(self.started(upload, Accepted { start: next, epoch }))
    }

    /// Takes a stream that a lost answer may have announced as ours, if nobody has written to it.
    fn adopt(&mut self, refusal: Refusal) -> Result<Attempt, Failure> {
        match self.look.ask() {
            Ok(Looked::Stream(Extent { next: 0, epoch, state: State::Interrupted, .. })) => {
                self.resume(Accepted { start: 0, epoch })
            }
            Ok(_) => Err(Failure::Refused(refusal)),
            Err(trouble) => again(Cause::Trouble(trouble)),
        }
    }

    fn resume(&mut self, accepted: Accepted) -> Result<Attempt, Failure> {
        let mut seen = match self.look.ask() {
            Ok(Looked::Stream(extent)) => Seen::Stream(extent),
            Ok(Looked::Missing) => Seen::Missing,
            Ok(Looked::Refused(refusal)) if refusal.is_passing() => {
                return Ok(Attempt::Again(Cause::Away(refusal)));
            }
            Ok(Looked::Refused(refusal)) => return Err(Failure::Refused(refusal)),
            Ok(Looked::Speechless) => return Err(Failure::CannotResume),
            Err(trouble) => return again(Cause::Trouble(trouble)),
        };
        // Twice: the true offset that a refusal names is tried at once, further ones after a wait.
        for _ in 0..2 {
            let (offset, epoch) = match after_break(seen, &self.ours(accepted)) {
                Decision::Resume { offset, epoch } => (offset, epoch),
                Decision::Done => return Ok(Attempt::Done),
                Decision::AskAgain => break,
                Decision::GiveUp(loss) => return Err(Failure::Lost(loss)),
                Decision::CreateAgain => {
                    self.rewind(accepted.start, 0);
                    self.accepted = None;
                    self.resume_unanswered = false;
                    return self.create();
                }
            };
            self.rewind(offset, if let Seen::Stream(extent) = seen { extent.durable } else { 0 });
            let lines = if self.input_ended && self.ring.unsent() == 0 { EMPTY } else { CHUNKED };
            match self.post(&format!("resume={offset}&epoch={epoch}"), lines) {
                // Whoever wrote between the question and the answer has made the stream another one.
                Reply::Accepted(_, Some(next), _) if next > self.ring.sent_most() => {
                    let sent_most = self.ring.sent_most();
                    return Err(Failure::Lost(Loss::OthersWrote { next, sent_most }));
                }
                Reply::Accepted(upload, _, raised) => {
                    let epoch = raised.unwrap_or(epoch);
                    return Ok(self.started(upload, Accepted { epoch, ..accepted }));
                }
                Reply::Precondition(truth) => seen = truth,
                Reply::Missing(_) => break,
                Reply::Conflict(refusal) | Reply::Refused(refusal) => return Err(Failure::Refused(refusal)),
                Reply::Broken(cause) => {
                    self.resume_unanswered |= cause.leaves_doubt();
                    return again(cause);
                }
            }
        }
        Ok(Attempt::Again(Cause::Unclear))
    }

    fn ours(&self, accepted: Accepted) -> Ours {
        Ours {
            start: accepted.start,
            kept_from: self.ring.kept_from(),
            sent_most: self.ring.sent_most(),
            end: self.ring.end(),
            input_ended: self.input_ended,
            epoch: accepted.epoch,
            resume_unanswered: self.resume_unanswered,
        }
    }

    /// Sends again from `offset`; what the server calls durable below that need not be kept.
    fn rewind(&mut self, offset: u64, durable: u64) {
        self.ring.rewind(offset).expect("the decision lies within the ring");
        let news = self.ring.durable(durable.min(offset)).expect("offset was sent");
        if news {
            self.patience.restore();
        }
    }

    fn started(&mut self, upload: Upload, accepted: Accepted) -> Attempt {
        self.accepted = Some(accepted);
        self.resume_unanswered = false;
        self.pace = Pace::new(console::now());
        Attempt::Running(upload)
    }

    fn post(&self, query: &str, lines: &str) -> Reply {
        match self.try_post(query, lines) {
            Ok(reply) => reply,
            Err(trouble) => Reply::Broken(Cause::Trouble(trouble)),
        }
    }

    fn try_post(&self, query: &str, lines: &str) -> Result<Reply, Trouble> {
        let (mut socket, answer) = Socket::ask(&self.place, "POST", query, lines)?;
        let (next, epoch) =
            (answer.fields().number("stream-next-offset"), answer.fields().number("stream-epoch"));
        if answer.is_success() {
            let body = answer.body(false)?;
            let upload = Upload {
                socket,
                frame: Frame::default(),
                last_sent: lines == EMPTY,
                answer: body,
                since: console::now(),
            };
            return Ok(Reply::Accepted(upload, next, epoch));
        }
        if let (412, Some(next), Some(epoch)) = (answer.status, next, epoch) {
            return Ok(Reply::Precondition(Seen::Precondition { next, epoch }));
        }
        let refusal = socket.refusal(&answer);
        Ok(match answer.status {
            404 => Reply::Missing(refusal),
            409 => Reply::Conflict(refusal),
            _ if refusal.is_passing() => Reply::Broken(Cause::Away(refusal)),
            _ => Reply::Refused(refusal),
        })
    }

    /// Waits before the next attempt and goes on reading stdin meanwhile, as far as the ring reaches.
    fn wait_out(&mut self, cause: Cause) -> Result<(), Failure> {
        self.look.forget();
        let until = self.patience.wait_after(cause).map_err(Failure::OutOfPatience)?;
        loop {
            let left = until.saturating_duration_since(console::now());
            if left.is_zero() {
                return Ok(());
            }
            // Before the stream exists nothing is read: a conflict must leave stdin to somebody else.
            let reading = self.accepted.is_some() && self.wants_input();
            let mut fds = Vec::with_capacity(1);
            if reading {
                fds.push(PollFd::from_borrowed_fd(Input.fd(), PollFlags::IN));
            }
            console::wait(&mut fds, Some(left)).map_err(Failure::Input)?;
            if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
                self.read_input()?;
            }
        }
    }

    fn wants_input(&self) -> bool {
        !self.input_ended && self.ring.room() > 0
    }

    fn read_input(&mut self) -> Result<(), Failure> {
        let idle = self.ring.held() == 0;
        match Input.read(&mut self.ring.vacant(READ_BYTES_MAX)).map_err(Failure::Input)? {
            Some(0) => self.input_ended = true,
            Some(len) => {
                self.ring.filled(len);
                if idle {
                    // Nothing was in doubt before, so the first question about this comes a full wait later.
                    self.pace.rest(console::now());
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Feeds one `POST` until it is over.
    fn feed(&mut self, upload: &mut Upload) -> Result<Over, Failure> {
        let early = upload.socket.take_read();
        if let Some(over) = self.heed_answer(upload, &early) {
            return Ok(over);
        }
        loop {
            let blocked = match self.write(upload) {
                Ok(blocked) => blocked,
                Err(trouble) => return Ok(Over::Broken(Cause::Trouble(trouble))),
            };
            if let Some(over) = self.look_at_durable(upload)? {
                return Ok(over);
            }
            if self.wait(upload, blocked)?
                && let Some(over) = self.read_answer(upload)
            {
                return Ok(over);
            }
        }
    }

    /// Sends what is unsent; true when the server must read first.
    fn write(&mut self, upload: &mut Upload) -> Result<bool, Trouble> {
        loop {
            if upload.frame.is_done() {
                upload.frame = match self.ring.unsent() {
                    0 if !self.input_ended || upload.last_sent => return Ok(false),
                    0 => {
                        upload.last_sent = true;
                        Frame::last()
                    }
                    unsent => Frame::chunk(unsent),
                };
            }
            let slices = upload.frame.slices(self.ring.next(upload.frame.payload()));
            let Some(len) = upload.socket.write(&slices)? else { return Ok(true) };
            let payload = upload.frame.wrote(len);
            self.ring.advance(payload);
        }
    }

    /// Reads what has come of the answer.
    fn read_answer(&self, upload: &mut Upload) -> Option<Over> {
        let mut space = [0; 1024];
        match upload.socket.read_into(&mut space) {
            Ok(Some(len)) => self.heed_answer(upload, &space[..len]),
            Ok(None) => None,
            Err(trouble) => Some(Over::Broken(Cause::Trouble(trouble))),
        }
    }

    /// The answer's body is empty: only its end matters.
    fn heed_answer(&self, upload: &mut Upload, input: &[u8]) -> Option<Over> {
        let mut at = 0;
        while at < input.len() && !upload.answer.ended() {
            match upload.answer.step(&input[at..]) {
                Ok(step) => at += step.used,
                Err(garbled) => return Some(Over::Broken(Cause::Trouble(garbled.into()))),
            }
        }
        match (upload.answer.ended(), self.is_promise(upload)) {
            (false, _) => None,
            (true, true) => Some(Over::Durable),
            (true, false) => Some(Over::Broken(Cause::EndedEarly)),
        }
    }

    /// Whether the end of the answer stands for all of our bytes.
    fn is_promise(&self, upload: &Upload) -> bool {
        let trailers = upload.answer.trailers();
        upload.last_sent
            && upload.frame.is_done()
            && trailers.number("stream-next-offset").is_none_or(|next| next == self.ring.end())
            && State::of(trailers).is_none_or(|state| state == State::Complete)
    }

    /// Learns what is durable, and whether we still are the stream's producer.
    fn look_at_durable(&mut self, upload: &Upload) -> Result<Option<Over>, Failure> {
        // After the last chunk the answer itself tells, and the state is about to change.
        if upload.last_sent {
            self.look.forget();
            return Ok(None);
        }
        if self.look.under_way().is_some() {
            match self.look.answered() {
                Ok(None) => {}
                Ok(Some(looked)) => return self.heed(looked),
                // The upload itself goes on: its own connection will tell if the server is gone.
                Err(_) => self.pace.rest(console::now()),
            }
        } else if self.look_due_in() == Some(Duration::ZERO) {
            self.pace.rest(console::now());
            // As above: a question that cannot be asked is asked again later.
            let _ = self.look.begin();
        }
        Ok(None)
    }

    fn heed(&mut self, looked: Looked) -> Result<Option<Over>, Failure> {
        let extent = match looked {
            Looked::Stream(extent) => extent,
            Looked::Speechless => return Err(Failure::CannotResume),
            Looked::Refused(refusal) if refusal.is_passing() => return Ok(None),
            Looked::Refused(refusal) => return Err(Failure::Refused(refusal)),
            Looked::Missing => return Ok(Some(Over::Broken(Cause::Detached))),
        };
        let attached = extent.state == State::Open
            && self.accepted.is_some_and(|accepted| accepted.epoch == extent.epoch);
        if !attached {
            return Ok(Some(Over::Broken(Cause::Detached)));
        }
        let sent_most = self.ring.sent_most();
        match self.ring.durable(extent.durable) {
            Ok(news) => {
                self.pace.learned(news);
                if news {
                    self.patience.restore();
                }
                Ok(None)
            }
            Err(_) => Err(Failure::Lost(Loss::OthersWrote { next: extent.durable, sent_most })),
        }
    }

    /// How long until the next question; `None` while everything is durable.
    fn look_due_in(&self) -> Option<Duration> {
        if self.ring.held() == 0 {
            return None;
        }
        Some(self.pace.due_in(console::now(), self.ring.held() >= RING_BYTES / 2))
    }

    /// Waits for the next thing to do, reads stdin, and tells whether there is something of the answer.
    fn wait(&mut self, upload: &Upload, blocked: bool) -> Result<bool, Failure> {
        let mut timeout = None;
        let flags = if blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&upload.socket, flags)];
        let reading = self.wants_input();
        if reading {
            fds.push(PollFd::from_borrowed_fd(Input.fd(), PollFlags::IN));
        }
        if !upload.last_sent {
            if let Some((socket, left)) = self.look.under_way() {
                fds.push(PollFd::new(socket, PollFlags::IN));
                timeout = Some(left);
            } else {
                timeout = self.look_due_in();
            }
        }
        console::wait(&mut fds, timeout).map_err(Failure::Input)?;
        let answered = fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        let readable = reading && !fds[1].revents().is_empty();
        if readable {
            self.read_input()?;
        }
        Ok(answered)
    }
}

/// Another attempt, unless what answers is no HTTP server.
fn again(cause: Cause) -> Result<Attempt, Failure> {
    match cause {
        Cause::Trouble(garbled @ Trouble::Garbled(_)) => Err(Failure::Trouble(garbled)),
        cause => Ok(Attempt::Again(cause)),
    }
}

impl Cause {
    /// Whether a request that failed so may have been carried out.
    fn leaves_doubt(&self) -> bool {
        !matches!(self, Self::Trouble(Trouble::Unreachable(..)))
    }
}

/// When to ask what is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    asked: Instant,
    pressed_wait: Duration,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { asked: now, pressed_wait: LOOK_SOONEST }
    }

    /// A question was asked, or there is no reason for one before the next wait is over.
    fn rest(&mut self, now: Instant) {
        self.asked = now;
    }

    /// Answers without news make the questions rarer, so that a slow disk is not asked a thousand times.
    fn learned(&mut self, news: bool) {
        self.pressed_wait = if news { LOOK_SOONEST } else { (self.pressed_wait * 2).min(LOOK_EVERY) };
    }

    fn due_in(&self, now: Instant, pressed: bool) -> Duration {
        let wait = if pressed { self.pressed_wait } else { LOOK_EVERY };
        (self.asked + wait).saturating_duration_since(now)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Away(refusal) => refusal.fmt(f),
            Self::EndedEarly => f.write_str("the server ended its answer before the stream's end"),
            Self::Detached => {
                f.write_str("the server no longer takes this connection for the stream's producer")
            }
            Self::Unclear => f.write_str("the server's answers about the stream contradict one another"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misnamed(why) => why.fmt(f),
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::CannotResume => f.write_str(
                "the server gives no Stream-Epoch and Stream-Next-Offset, so a broken stream could not be \
                 continued; `millpond stream` sends to such servers",
            ),
            Self::Lost(loss) => loss.fmt(f),
            Self::Input(error) => write!(f, "cannot read stdin: {error}"),
            Self::OutOfPatience(exhausted) => exhausted.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_every_wait_and_sooner_under_pressure_while_there_is_news() {
        let start = console::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.due_in(start, false), LOOK_EVERY);
        assert_eq!(pace.due_in(start, true), LOOK_SOONEST);
        assert_eq!(pace.due_in(start + LOOK_EVERY, false), Duration::ZERO);
        for _ in 0..10 {
            pace.learned(false);
        }
        assert_eq!(pace.due_in(start, true), LOOK_EVERY);
        pace.learned(true);
        assert_eq!(pace.due_in(start, true), LOOK_SOONEST);
        pace.rest(start + LOOK_SOONEST);
        assert_eq!(pace.due_in(start + LOOK_SOONEST, true), LOOK_SOONEST);
    }
}

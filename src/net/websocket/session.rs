//! A websocket on the server's side: reads messages, sends what gathers in its outbox, keeps the peer alive.
//!
//! Others speak to the session through its [`Outbox`], a queue of frames that were encoded once however many sessions
//! get them. What when full? The queue is bounded in frames and bytes; a peer that lets it fill is told to come back
//! ([`CloseCode::TRY_AGAIN`]) and everybody else goes on. A peer that takes nothing for [`WRITE_MAX`] is cut, and so
//! is one that answers no ping for [`PONG_MAX`]; data does not count as an answer.
//!
//! Invariant: messages of the peer are given on in order, and no further one is read before they were taken.
//! Lives on: the connection's shard, inside the exchange's task.

use super::decoder::{Decoder, Event, Step};
use super::frame::{self, Opcode, Role};
use super::{CloseCode, Failure};
use crate::net::deadline::Deadline;
use crate::net::http::exchange::{Exchange, Gone};
use crate::runtime::notify::Notify;
use crate::runtime::shard;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Most frames that wait for a peer.
pub const QUEUE_FRAMES_MAX: usize = 4096;
/// Most bytes that wait for a peer; one frame may exceed it.
pub const QUEUE_BYTES_MAX: usize = 4 << 20;
/// How long a peer may take nothing of what is sent to it.
pub const WRITE_MAX: Duration = Duration::from_secs(10);
/// How often the peer is pinged.
pub const PING_EVERY: Duration = Duration::from_secs(54);
/// How long the peer may leave pings unanswered.
pub const PONG_MAX: Duration = Duration::from_secs(60);

/// Frames that leave in one operation.
const GATHER_MAX: usize = 64 * 1024;
/// Most bytes read at once.
const READ_MAX: usize = 64 * 1024;

/// What is to be sent to one peer.
#[derive(Default)]
pub struct Outbox {
    /// Until they have left, also while they are being sent.
    frames: RefCell<VecDeque<Frame>>,
    /// How many of the first are being sent.
    sending: Cell<usize>,
    bytes: Cell<usize>,
    ending: Cell<Option<Ending>>,
    waker: Cell<Option<Waker>>,
    /// Told when frames have left.
    left: Notify,
    /// What the peer was asked to acknowledge last, and has acknowledged.
    asked: Cell<Option<u64>>,
    acknowledged: Cell<Option<u64>>,
    answered: Notify,
}

/// What the peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// UTF-8, checked.
    pub is_text: bool,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// A frame on its way to one peer.
#[derive(Clone, Debug)]
pub struct Frame {
    /// As it leaves.
    pub bytes: Bytes,
    /// What whoever queued it wants to know about it if it comes back.
    pub mark: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for its turn.
    Queued,
    /// It was one too many: the session is told to end.
    Overflowed,
    /// The session is about to end and takes nothing more.
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    code: CloseCode,
    reason: &'static str,
    /// What is queued stays behind.
    at_once: bool,
}

impl Outbox {
    /// Queues a whole frame.
    pub fn push(&self, bytes: &Bytes, mark: bool) -> Pushed {
        if self.ending.get().is_some() {
            return Pushed::Ended;
        }
        let len = self.frames.borrow().len();
        if len >= QUEUE_FRAMES_MAX || (self.bytes.get() + bytes.len() > QUEUE_BYTES_MAX && len > 0) {
            self.finish(CloseCode::TRY_AGAIN, "too slow for what comes", true);
            return Pushed::Overflowed;
        }
        self.bytes.set(self.bytes.get() + bytes.len());
        self.frames.borrow_mut().push_back(Frame { bytes: bytes.clone(), mark });
        self.wake();
        Pushed::Queued
    }

    /// How many frames have not left.
    pub fn waiting(&self) -> usize {
        self.frames.borrow().len()
    }

    /// Waits until little is queued: for who has more than the queue takes, and can wait.
    pub async fn room(&self) {
        while self.frames.borrow().len() > QUEUE_FRAMES_MAX / 4 || self.bytes.get() > QUEUE_BYTES_MAX / 4 {
            self.left.wait().await;
        }
    }

    /// Has the peer pinged behind what is queued; its pong acknowledges `number`.
    pub fn ask(&self, number: u64) {
        self.asked.set(Some(number));
        self.push(&encode(Opcode::Ping, &number.to_be_bytes()), true);
    }

    /// What it was asked to acknowledge last.
    pub fn asked(&self) -> Option<u64> {
        self.asked.get()
    }

    /// What it acknowledged last.
    pub fn acknowledged(&self) -> Option<u64> {
        self.acknowledged.get()
    }

    /// Resolves at the next acknowledgement.
    pub async fn acknowledgement(&self) {
        self.answered.wait().await;
    }

    fn take_pong(&self, payload: &[u8]) {
        if let (Ok(number), Some(asked)) = (payload.try_into().map(u64::from_be_bytes), self.asked.get())
            && number <= asked
        {
            self.acknowledged.set(Some(number));
            self.answered.notify_all();
        }
    }

    /// Ends the session behind what is queued.
    pub fn end(&self, code: CloseCode, reason: &'static str) {
        self.finish(code, reason, false);
    }

    /// Takes what has not left, when the session is over.
    pub fn take_unsent(&self) -> Vec<Frame> {
        self.bytes.set(0);
        self.frames.take().into()
    }

    fn finish(&self, code: CloseCode, reason: &'static str, at_once: bool) {
        self.ending.set(Some(Ending { code, reason, at_once }));
        self.wake();
    }

    fn is_empty(&self) -> bool {
        self.frames.borrow().is_empty()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_something(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_empty() || self.ending.get().is_some() {
            return Poll::Ready(());
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Puts frames into `out` until it is full.
    fn stage(&self, out: &mut Vec<u8>) {
        if self.ending.get().is_some_and(|ending| ending.at_once) {
            return;
        }
        let frames = self.frames.borrow();
        for frame in frames.iter().skip(self.sending.get()) {
            if out.len() >= GATHER_MAX {
                break;
            }
            out.extend_from_slice(&frame.bytes);
            self.sending.set(self.sending.get() + 1);
        }
    }

    /// What was staged has left.
    fn sent(&self) {
        let mut frames = self.frames.borrow_mut();
        let sent = self.sending.replace(0);
        for frame in frames.drain(..sent) {
            self.bytes.set(self.bytes.get() - frame.bytes.len());
        }
        if sent > 0 {
            self.left.notify_all();
        }
    }

    /// How the session is to end, once what may leave before has left.
    fn ending_now(&self) -> Option<Ending> {
        self.ending.get().filter(|ending| ending.at_once || self.is_empty())
    }
}

/// A frame from the server, to be queued for any number of peers.
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(frame::HEAD_MAX + payload.len());
    frame::write(&mut bytes, opcode, payload, None);
    bytes.into()
}

/// An exchange that became a websocket.
pub struct Session<'e> {
    exchange: &'e mut Exchange,
    decoder: Decoder,
    events: Vec<Result<Event, Failure>>,
    ping: Deadline,
    pong: Deadline,
    write: Deadline,
}

/// What ended a wait.
enum Woken {
    Input,
    Output,
    PingDue,
    Silent,
    Draining,
    Gone,
}

impl<'e> Session<'e> {
    /// Answers the handshake with the value that [`super::handshake::accept`] found.
    pub async fn begin(exchange: &'e mut Exchange, accept: &str, message_max: usize) -> Result<Self, Gone> {
        let fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)];
        exchange.switch_protocols(&fields).await?;
        let now = shard::now();
        Ok(Session {
            exchange,
            decoder: Decoder::new(Role::Server, message_max),
            events: Vec::new(),
            ping: Deadline::new(now + PING_EVERY),
            pong: Deadline::new(now + PONG_MAX),
            write: Deadline::new(now + WRITE_MAX),
        })
    }

    /// Serves until one of both ends. `take` gets what came, in order, and nothing further is read until it is done.
    pub async fn run(self, outbox: &Outbox, take: impl AsyncFnMut(Vec<Message>)) -> Result<(), Gone> {
        self.run_until(outbox, take, async || {}).await
    }

    /// The same; when the daemon ends, what `last` waits for is still said before this end leaves.
    pub async fn run_until(
        mut self,
        outbox: &Outbox,
        mut take: impl AsyncFnMut(Vec<Message>),
        last: impl AsyncFn(),
    ) -> Result<(), Gone> {
        loop {
            match self.wait(outbox).await {
                Woken::Input => {
                    let (messages, end) = self.sort(outbox)?;
                    if !messages.is_empty() {
                        take(messages).await;
                    }
                    if let Some((code, reason)) = end {
                        return self.leave(code, reason).await;
                    }
                }
                Woken::Output => outbox.stage(self.exchange.outgoing()),
                Woken::PingDue => {
                    self.ping.set(shard::now() + PING_EVERY);
                    frame::write(self.exchange.outgoing(), Opcode::Ping, b"", None);
                }
                Woken::Draining => {
                    last().await;
                    // What was published before is still theirs.
                    outbox.stage(self.exchange.outgoing());
                    self.send().await?;
                    outbox.sent();
                    return self.leave(Some(CloseCode::GOING_AWAY), "shutting down").await;
                }
                Woken::Silent | Woken::Gone => return Err(Gone),
            }
            self.send().await?;
            outbox.sent();
            if let Some(Ending { code, reason, .. }) = outbox.ending_now() {
                return self.leave(Some(code), reason).await;
            }
        }
    }

    async fn wait(&mut self, outbox: &Outbox) -> Woken {
        let Session { exchange, decoder, events, ping, pong, .. } = self;
        let mut input = pin!(exchange.incoming().next_piece(READ_MAX, |bytes| {
            decode(decoder, bytes, events);
            bytes.len()
        }));
        let mut closing = pin!(exchange.draining());
        std::future::poll_fn(|cx| {
            match input.as_mut().poll(cx) {
                Poll::Ready(Ok(Some(_))) => return Poll::Ready(Woken::Input),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Woken::Gone),
                Poll::Pending => {}
            }
            if outbox.poll_something(cx).is_ready() {
                return Poll::Ready(Woken::Output);
            }
            if closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Draining);
            }
            if pong.poll_passed(cx).is_ready() {
                return Poll::Ready(Woken::Silent);
            }
            ping.poll_passed(cx).map(|()| Woken::PingDue)
        })
        .await
    }

    /// Answers pings, and takes out messages up to the end, if it is among what came.
    #[allow(
        clippy::type_complexity,
        reason = "messages, and the end if there is one: named where it is used"
    )]
    fn sort(
        &mut self,
        outbox: &Outbox,
    ) -> Result<(Vec<Message>, Option<(Option<CloseCode>, &'static str)>), Gone> {
        let mut messages = Vec::new();
        for event in self.events.drain(..) {
            match event {
                Ok(Event::Message { is_text, payload }) => messages.push(Message { is_text, payload }),
                Ok(Event::Ping(payload)) => {
                    frame::write(self.exchange.outgoing(), Opcode::Pong, &payload, None);
                }
                Ok(Event::Pong(payload)) => {
                    self.pong.set(shard::now() + PONG_MAX);
                    outbox.take_pong(&payload);
                }
                Ok(Event::Close(code)) => return Ok((messages, Some((code, "")))),
                Err(failure) => return Ok((messages, Some((Some(failure.code), failure.reason)))),
            }
        }
        Ok((messages, None))
    }

    /// Sends what has gathered, within the time that a peer has for it.
    async fn send(&mut self) -> Result<(), Gone> {
        self.write.set(shard::now() + WRITE_MAX);
        let Session { exchange, write, .. } = self;
        let mut sending = pin!(exchange.flush());
        std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => write.poll_passed(cx).map(|()| Err(Gone)),
        })
        .await
    }

    /// Says the last word. The exchange's end lets it arrive.
    async fn leave(mut self, code: Option<CloseCode>, reason: &str) -> Result<(), Gone> {
        frame::write_close(self.exchange.outgoing(), code, reason, None);
        self.send().await
    }
}

fn decode(decoder: &mut Decoder, bytes: &[u8], events: &mut Vec<Result<Event, Failure>>) {
    let mut used = 0;
    loop {
        let (taken, step) = decoder.step(&bytes[used..]);
        used += taken;
        match step {
            Step::NeedMore => return,
            Step::Done(event) => events.push(Ok(event)),
            Step::Fail(failure) => {
                events.push(Err(failure));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_says_so_and_ends() {
        let outbox = Outbox::default();
        let frame = encode(Opcode::Text, b"x");
        assert!((0..QUEUE_FRAMES_MAX).all(|_| outbox.push(&frame, false) == Pushed::Queued));
        assert_eq!(outbox.push(&frame, false), Pushed::Overflowed, "one too many");
        assert_eq!(outbox.ending_now().map(|ending| ending.code), Some(CloseCode::TRY_AGAIN));
        assert_eq!(outbox.push(&frame, false), Pushed::Ended, "and nothing comes after it");
        assert_eq!(outbox.take_unsent().len(), QUEUE_FRAMES_MAX, "what did not leave can be had back");
    }

    #[test]
    fn a_frame_larger_than_the_bound_goes_through_alone() {
        let outbox = Outbox::default();
        let large = encode(Opcode::Binary, &vec![0; QUEUE_BYTES_MAX + 1]);
        assert_eq!(outbox.push(&large, false), Pushed::Queued);
        assert_eq!(outbox.push(&encode(Opcode::Text, b"x"), false), Pushed::Overflowed);
    }

    #[test]
    fn what_is_being_sent_has_not_left() {
        let (outbox, mut out) = (Outbox::default(), Vec::new());
        outbox.push(&encode(Opcode::Text, b"x"), true);
        outbox.stage(&mut out);
        outbox.push(&encode(Opcode::Text, b"y"), false);
        let unsent: Vec<bool> = outbox.take_unsent().iter().map(|frame| frame.mark).collect();
        assert_eq!(unsent, [true, false]);
    }

    #[test]
    fn an_end_waits_for_what_is_queued() {
        let (outbox, mut out) = (Outbox::default(), Vec::new());
        outbox.push(&encode(Opcode::Text, b"x"), false);
        outbox.end(CloseCode::NORMAL, "done");
        assert!(outbox.ending_now().is_none());
        outbox.stage(&mut out);
        outbox.sent();
        assert_eq!(out, *b"\x81\x01x");
        assert_eq!(outbox.ending_now().map(|ending| ending.code), Some(CloseCode::NORMAL));
    }
}

//! One request and its answer on a connection.
//!
//! A handler reads the head, may read the body piece by piece, begins the answer once, sends its body and
//! finishes it. The exchange keeps the framing on both sides: what it lets through is always exactly one
//! well-formed answer, or a connection that visibly broke off. Answers gather in one buffer and leave when input
//! must be waited for, so pipelined requests are answered in one send.
//!
//! Memory: the gathered answer (up to [`GATHER_MAX`] beyond one piece), the inbox of the receiver, one request
//! head; bodies of any size pass through the shard's window.
//! Lives on: the connection's shard, reused for every request of the connection.

use super::body::BodyReader;
use super::chunked::{CHUNK_END, chunk_head};
use super::framing::BodyLength;
use super::head::{Method, RequestHead, Version};
use super::pace::Pace;
use super::response::ResponseHead;
use super::server::Service;
use super::{Refusal, Status};
use crate::net::stream::{COPIED_MAX, Stream};
use crate::runtime::file::FileRange;
use crate::runtime::ring::recv::{End, INBOX_MAX};
use crate::runtime::{Moment, shard, timer};
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

pub use super::body::{BodyError, BodyStep};

/// Answer bytes that gather before they are sent although nobody waits.
const GATHER_MAX: usize = 64 * 1024;
/// An unread body up to this length is read and dropped to keep the connection; a longer one closes it.
const SKIPPED_BODY_MAX: u64 = 64 * 1024;

/// The peer is gone, or the answer was cut: nothing more can be said on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// How the end of an answer's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    Empty,
    /// This many bytes.
    Length(u64),
    /// Unknown until it ends: chunked, or the connection's end for HTTP/1.0.
    Live,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Due,
    /// Headers say what a GET would bring; no byte follows.
    HeadOnly,
    Exact {
        left: u64,
    },
    Chunked,
    UntilClose,
    Done,
    Cut,
}

/// One request and its answer. See the module.
pub struct Exchange {
    pub(super) stream: Stream,
    pub(super) head: RequestHead,
    service: Rc<Service>,
    body: BodyReader,
    answer: Answer,
    status: Status,
    began: Moment,
    reads_body: bool,
    continue_due: bool,
    closing: bool,
    has_said_why: bool,
    pace: Pace,
}

impl Exchange {
    pub(super) fn new(stream: Stream, service: Rc<Service>) -> Self {
        Exchange {
            stream,
            head: RequestHead::new(),
            service,
            body: BodyReader::Done,
            answer: Answer::Done,
            status: Status::OK,
            began: Moment::default(),
            reads_body: false,
            continue_due: false,
            closing: false,
            has_said_why: false,
            pace: Pace::default(),
        }
    }

    /// Takes up the request whose head was just parsed.
    pub(super) fn open(&mut self) {
        self.body = match self.head.body() {
            BodyLength::None => BodyReader::Done,
            BodyLength::Exact(len) => BodyReader::exact(len),
            BodyLength::Chunked => BodyReader::chunked(),
        };
        self.answer = Answer::Due;
        self.began = shard::recent();
        self.reads_body = false;
        self.continue_due = self.head.expects_continue() && !matches!(self.body, BodyReader::Done);
        self.closing = !self.head.keep_alive();
    }

    /// The request's head.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// The address that the request came from, if it came by TCP.
    pub fn peer(&self) -> Option<IpAddr> {
        self.stream.peer()
    }

    /// Whether the daemon is draining: long answers may take it as a wish to end.
    pub fn is_draining(&self) -> bool {
        self.service.gate.is_closing()
    }

    /// Announces that the body will be read, perhaps after the answer has begun; tells a peer that asked to go
    /// on. Without it, an answer to a long unread body closes the connection.
    pub fn expect_body(&mut self) {
        self.reads_body = true;
        if std::mem::take(&mut self.continue_due) {
            ResponseHead::write_continue(self.stream.gathered());
        }
    }

    /// Reads what has arrived of the body, waiting if nothing has, and gives the payload to `take`, in one or
    /// several pieces.
    pub async fn read_body(&mut self, take: impl FnMut(&[u8])) -> Result<BodyStep, BodyError> {
        if let Some(settled) = self.body.settled() {
            return settled;
        }
        self.expect_body();
        if self.stream.buffered_len() == 0 {
            self.flush().await.map_err(|Gone| BodyError::Gone)?;
        }
        let step = self.body.step(&self.stream, take).await;
        if let Ok(BodyStep::Bytes(len)) = step {
            self.service.note_received(len);
        }
        step
    }

    /// Begins the answer: status line, `Date` and framing are written, the caller adds fields and finishes the
    /// head. Nothing is sent yet.
    pub fn begin(&mut self, status: Status, framing: Framing) -> ResponseHead<'_> {
        assert_eq!(self.answer, Answer::Due, "an exchange has one answer");
        self.closing |= self.service.gate.is_closing() || self.leaves_body_unread();
        let http10 = self.head.version() == Version::Http10;
        let until_close = framing == Framing::Live && http10;
        self.closing |= until_close;
        self.status = status;
        self.answer = match framing {
            _ if self.head.method() == Method::Head => Answer::HeadOnly,
            Framing::Empty => Answer::Exact { left: 0 },
            Framing::Length(left) => Answer::Exact { left },
            Framing::Live if until_close => Answer::UntilClose,
            Framing::Live => Answer::Chunked,
        };
        self.service.note_answer(status, self.began);
        let head = ResponseHead::start(self.stream.gathered(), status, &self.service.date());
        let head = match framing {
            Framing::Empty if status.has_body() => head.content_length(0),
            Framing::Empty => head,
            Framing::Length(len) => head.content_length(len),
            Framing::Live if until_close => head,
            Framing::Live => head.chunked(),
        };
        match (self.closing, http10) {
            (true, _) => head.close(),
            (false, true) => head.header("Connection", "keep-alive"),
            (false, false) => head,
        }
    }

    fn leaves_body_unread(&self) -> bool {
        match &self.body {
            _ if self.reads_body => false,
            BodyReader::Done => false,
            BodyReader::Exact { left } => self.continue_due || *left > SKIPPED_BODY_MAX,
            BodyReader::Chunked(_) | BodyReader::UntilClose | BodyReader::Failed(_) => true,
        }
    }

    /// Sends body bytes; one chunk of a live answer. They gather until a flush, or until there are many.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if bytes.is_empty() || !self.open_for(bytes.len() as u64)? {
            return Ok(());
        }
        let out = self.stream.gathered();
        write_chunk(out, bytes, self.answer == Answer::Chunked);
        self.service.note_sent(bytes.len());
        if out.len() >= GATHER_MAX { self.flush().await } else { Ok(()) }
    }

    /// Sends stored bytes; one chunk of a live answer. Few are gathered like others, some leave in one operation with
    /// what was gathered before, many by sendfile. Unless they are few of a whole answer, they should be in memory, else
    /// the shard waits for the disk.
    pub async fn send_stored(&mut self, range: FileRange) -> Result<(), Gone> {
        if range.len == 0 || !self.open_for(range.len)? {
            return Ok(());
        }
        let len = range.len as usize;
        let is_chunk = self.answer == Answer::Chunked;
        if is_chunk {
            self.stream.gathered().extend_from_slice(chunk_head(len, &mut [0; 18]));
        }
        if !is_chunk && range.len <= COPIED_MAX {
            self.stream.copy_stored(range).await.map_err(|_| Gone)?;
            self.service.note_sent(len);
            return if self.stream.gathered().len() >= GATHER_MAX { self.flush().await } else { Ok(()) };
        }
        let trailer: &[u8] = if is_chunk { CHUNK_END } else { b"" };
        let file = range.file.clone();
        let sending = self.stream.send_stored(range, trailer);
        match self.pace.keep(&file, len as u64, sending).await {
            Some(sent) => {
                sent.map_err(|_| Gone)?;
                self.service.note_sent(len);
                Ok(())
            }
            None => {
                self.service.note_expired();
                self.abandon();
                Err(Gone)
            }
        }
    }

    /// Whether body bytes may follow and are wanted; counts them.
    fn open_for(&mut self, len: u64) -> Result<bool, Gone> {
        match &mut self.answer {
            Answer::HeadOnly => Ok(false),
            Answer::Chunked | Answer::UntilClose => Ok(true),
            Answer::Exact { left } => {
                assert!(len <= *left, "a handler sends what it announced");
                *left -= len;
                Ok(true)
            }
            Answer::Cut => Err(Gone),
            Answer::Due | Answer::Done => panic!("body bytes belong between begin and finish"),
        }
    }

    /// Sends what has gathered.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        self.stream.flush().await.map_err(|_| Gone)
    }

    /// Ends the answer; `trailers` follow a chunked body and are dropped elsewhere.
    pub async fn finish(&mut self, trailers: &[(&str, &str)]) -> Result<(), Gone> {
        match self.answer {
            Answer::Exact { left } => assert_eq!(left, 0, "a handler sends what it announced"),
            Answer::Chunked => write_last_chunk(self.stream.gathered(), trailers),
            Answer::HeadOnly | Answer::UntilClose => {}
            Answer::Cut => return Err(Gone),
            Answer::Due | Answer::Done => panic!("an answer is begun before it is finished, once"),
        }
        self.answer = Answer::Done;
        Ok(())
    }

    /// Cuts the answer: what was sent stays, the connection ends without the answer's end.
    pub fn abandon(&mut self) {
        self.answer = Answer::Cut;
        self.closing = true;
    }

    /// Like [`Exchange::abandon`], with `reason` as the last that is said. The peer may still be sending, and closing
    /// on it would drop what it has not read: the connection ends as after a whole answer.
    pub fn abandon_saying(&mut self, reason: &[u8]) {
        if matches!(self.answer, Answer::Chunked | Answer::UntilClose) {
            write_chunk(self.stream.gathered(), reason, self.answer == Answer::Chunked);
            self.has_said_why = true;
        }
        self.abandon();
    }

    /// A whole small answer.
    pub async fn reply(&mut self, status: Status, content_type: &str, body: &[u8]) -> Result<(), Gone> {
        self.begin(status, Framing::Length(body.len() as u64)).header("Content-Type", content_type).finish();
        self.send(body).await?;
        self.finish(&[]).await
    }

    /// Does `work` unless the peer's connection breaks first. A peer that finished sending is still there.
    pub async fn while_connected<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            // What a pipelining peer sends meanwhile stays in the inbox, up to its bound.
            while !matches!(self.stream.end(), Some(End::Finished)) {
                let seen = self.stream.buffered_len();
                if seen >= INBOX_MAX || self.stream.poll_more_than(seen, cx).is_pending() {
                    break;
                }
                if matches!(self.stream.end(), Some(End::Broken(_))) {
                    return Poll::Ready(Err(Gone));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Ends HTTP on this connection with a 101 that has `fields`. What comes from here on is in
    /// [`Exchange::incoming`], what is to be sent goes into [`Exchange::outgoing`] and leaves with a flush.
    pub async fn switch_protocols(&mut self, fields: &[(&str, &str)]) -> Result<(), Gone> {
        assert_eq!(self.answer, Answer::Due, "an exchange has one answer");
        self.answer = Answer::Done;
        self.closing = true;
        self.status = Status::SWITCHING_PROTOCOLS;
        self.service.note_answer(self.status, self.began);
        let mut head = ResponseHead::start(self.stream.gathered(), self.status, &self.service.date());
        for (name, value) in fields {
            head = head.header(name, value);
        }
        head.finish();
        self.flush().await
    }

    /// After the protocol was switched: what comes.
    pub fn incoming(&self) -> &Stream {
        &self.stream
    }

    /// After the protocol was switched: what leaves with the next flush.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.answer == Answer::Done && self.closing, "the protocol was switched");
        self.stream.gathered()
    }

    /// After the protocol was switched: the connection.
    pub fn connection(&mut self) -> &mut Stream {
        debug_assert!(self.answer == Answer::Done && self.closing, "the protocol was switched");
        &mut self.stream
    }

    /// Resolves when the daemon begins to drain.
    pub async fn draining(&self) {
        self.service.gate.closing().await;
    }

    /// After the handler: whether the connection can take another request.
    pub(super) async fn conclude(&mut self) -> Result<bool, Gone> {
        match self.answer {
            Answer::Done => {}
            Answer::Cut => {
                self.flush().await?;
                return Err(Gone);
            }
            Answer::Due => {
                self.reply(Status::INTERNAL_SERVER_ERROR, "text/plain", b"the request was not answered\n")
                    .await?
            }
            _ => return Err(Gone),
        }
        if !self.closing && !matches!(self.body, BodyReader::Done) {
            self.closing = !self.drop_body().await;
        }
        if self.closing {
            self.flush().await?;
        }
        Ok(!self.closing)
    }

    /// Reads and drops the body of a request that has no use for it, before its answer: so a body with broken
    /// framing is refused instead of being taken for a next request. A body that is too long for that, or too
    /// slow, or that the peer only offers (`Expect: 100-continue`), is left; the answer then closes the connection.
    pub async fn skip_body(&mut self) -> Result<(), Gone> {
        // Almost always: a request without a body needs no deadline.
        if self.continue_due || matches!(self.body, BodyReader::Done) {
            return Ok(());
        }
        let deadline = shard::now() + self.service.header_timeout;
        let dropped = timer::until(deadline, self.drop_body()).await;
        if let BodyReader::Failed(error) = self.body {
            return match error {
                BodyError::Refused(refusal) => self.refuse(refusal).await.and(Err(Gone)),
                BodyError::Gone => Err(Gone),
            };
        }
        // Unless it was read to its end, somebody who has not announced it does not go on reading.
        self.reads_body = dropped == Some(true);
        Ok(())
    }

    /// True when the body was read to its end.
    async fn drop_body(&mut self) -> bool {
        let mut dropped = 0;
        while dropped <= SKIPPED_BODY_MAX {
            match self.read_body(|_| {}).await {
                Ok(BodyStep::End) => return true,
                Ok(BodyStep::Bytes(len)) => dropped += len as u64,
                Err(_) => return false,
            }
        }
        false
    }

    /// Whether the last thing said was a whole answer, or why there is none, so that it should be let through before
    /// closing.
    pub(super) fn has_answered(&self) -> bool {
        self.answer == Answer::Done || (self.answer == Answer::Cut && self.has_said_why)
    }

    /// The answer to bytes that are no request, or no body.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> Result<(), Gone> {
        self.head.clear();
        self.body = BodyReader::Done;
        self.answer = Answer::Due;
        self.closing = true;
        self.began = shard::now();
        self.service.note_refusal();
        let text = format!("{}\n", refusal.reason);
        self.reply(refusal.status, "text/plain; charset=utf-8", text.as_bytes()).await?;
        self.flush().await
    }
}

/// Bytes of a body, framed as a chunk where the body is chunked.
pub(super) fn write_chunk(out: &mut Vec<u8>, bytes: &[u8], is_chunk: bool) {
    if is_chunk {
        out.extend_from_slice(chunk_head(bytes.len(), &mut [0; 18]));
    }
    out.extend_from_slice(bytes);
    if is_chunk {
        out.extend_from_slice(b"\r\n");
    }
}

fn write_last_chunk(out: &mut Vec<u8>, trailers: &[(&str, &str)]) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        assert!(!value.bytes().any(|byte| byte.is_ascii_control()), "trailer values are our own");
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

//! One request and its answer on a connection that somebody else accepted.
//!
//! Invariant: what goes out is exactly one well-formed request, or a connection that visibly broke off; what comes
//! back is read by its framing alone. The connection goes back to its pool when both are complete and the peer
//! keeps it, and ends otherwise, also when the call is dropped half-way.
//! Lives on: the caller's task.

use super::error::ClientError;
use super::pool::Lease;
use super::{Options, Request};
use crate::net::http::answer::AnswerHead;
use crate::net::http::body::{BodyError, BodyReader, BodyStep};
use crate::net::http::chunked::BODY_END;
use crate::net::http::exchange::write_chunk;
use crate::net::http::framing::BodyLength;
use crate::net::http::{Status, Step};
use crate::net::stream::Stream;
use crate::runtime::ring::recv::End;
use crate::runtime::{shard, timer};
use std::io;
use std::task::Poll;
use std::time::Duration;

/// Body bytes that gather before they are sent although nobody waits.
const GATHER_MAX: usize = 64 * 1024;
/// Where the first digit of the status stands.
const STATUS_AT: usize = "HTTP/1.1 ".len();

/// One request and its answer.
pub struct Call {
    lease: Option<Lease>,
    options: Options,
    head: AnswerHead,
    body: BodyReader,
    request_body: RequestBody,
    to_head: bool,
    heard: bool,
    has_answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestBody {
    Exact {
        left: u64,
    },
    Chunked,
    Done,
    /// The peer has answered without wanting it, or stopped taking it.
    Unwanted,
}

impl Call {
    pub(super) fn new(mut lease: Lease, request: &Request, options: Options) -> Call {
        request.write(lease.stream().gathered());
        Call {
            lease: Some(lease),
            options,
            head: AnswerHead::default(),
            body: BodyReader::Done,
            request_body: match request.length() {
                BodyLength::None | BodyLength::Exact(0) => RequestBody::Done,
                BodyLength::Exact(left) => RequestBody::Exact { left },
                BodyLength::Chunked => RequestBody::Chunked,
            },
            to_head: request.is_head(),
            heard: false,
            has_answer: false,
        }
    }

    /// Sends body bytes; they gather until there are many. Once the peer has answered without waiting for the end
    /// of the body, the rest is dropped: look at [`Call::is_refused`], or go on and ask for the answer.
    ///
    /// # Panics
    /// When there are more than were announced.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.request_body {
            RequestBody::Unwanted => return Ok(()),
            RequestBody::Exact { left } => {
                assert!(bytes.len() as u64 <= *left, "a caller sends what it announced");
                *left -= bytes.len() as u64;
            }
            RequestBody::Chunked => {}
            RequestBody::Done => panic!("body bytes belong to a request with a body, before its answer"),
        }
        let is_chunk = self.request_body == RequestBody::Chunked;
        let out = self.stream().gathered();
        write_chunk(out, bytes, is_chunk);
        if out.len() >= GATHER_MAX { self.flush().await } else { Ok(()) }
    }

    /// Sends what has gathered.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        match self.push().await {
            Ok(Sent::All) => Ok(()),
            Ok(Sent::Answered) => {
                self.request_body = RequestBody::Unwanted;
                Ok(())
            }
            // A peer that refuses a body may close on it; what it said first is the answer.
            Err(_) if self.has_heard() => {
                self.request_body = RequestBody::Unwanted;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the peer has answered before it had the whole request.
    pub fn is_refused(&self) -> bool {
        self.request_body == RequestBody::Unwanted
    }

    /// Ends the request and waits for the answer's head.
    ///
    /// # Panics
    /// When less of the body was sent than was announced.
    pub async fn answer(&mut self) -> Result<&AnswerHead, ClientError> {
        if !self.has_answer {
            match self.request_body {
                RequestBody::Exact { left } => assert_eq!(left, 0, "a caller sends what it announced"),
                RequestBody::Chunked => self.stream().gathered().extend_from_slice(BODY_END),
                RequestBody::Done | RequestBody::Unwanted => {}
            }
            if !self.is_refused() {
                self.request_body = RequestBody::Done;
                self.flush().await?;
            }
            let deadline = shard::now() + self.options.head_timeout;
            let read = timer::until(deadline, self.read_head());
            read.await.ok_or(ClientError::HeadTimeout)??;
            if !self.is_refused() && matches!(self.body, BodyReader::Done) {
                self.settle();
            }
        }
        Ok(&self.head)
    }

    /// The answer's head, after [`Call::answer`] or [`super::Client::call`].
    pub fn head(&self) -> &AnswerHead {
        &self.head
    }

    /// Reads what has arrived of the answer's body, waiting if nothing has, and gives it to `take`.
    pub async fn read_body(&mut self, take: impl FnMut(&[u8])) -> Result<BodyStep, ClientError> {
        assert!(self.has_answer, "the head comes before the body");
        match self.body.settled() {
            Some(Ok(step)) => return Ok(step),
            Some(Err(error)) => return Err(culprit(error)),
            None => {}
        }
        let stream = self.lease.as_mut().expect("an unfinished answer has its connection").stream();
        let deadline = shard::now() + self.options.progress_timeout;
        let step = timer::until(deadline, self.body.step(stream, take)).await.ok_or(ClientError::Stalled)?;
        if step == Ok(BodyStep::End) {
            self.settle();
        }
        step.map_err(culprit)
    }

    /// Reads the rest of the answer's body into memory; `None` when it is longer than `len_max`.
    pub async fn read_whole(&mut self, len_max: usize) -> Result<Option<Vec<u8>>, ClientError> {
        let mut whole = Vec::new();
        while let BodyStep::Bytes(_) = self.read_body(|bytes| whole.extend_from_slice(bytes)).await? {
            if whole.len() > len_max {
                return Ok(None);
            }
        }
        Ok(Some(whole))
    }

    /// The connection itself, after an answer that switched protocols.
    pub fn into_stream(mut self) -> Option<Stream> {
        let switched = self.has_answer && self.head.status() == Status::SWITCHING_PROTOCOLS;
        self.lease.take().filter(|_| switched).map(Lease::into_stream)
    }

    /// The whole request with a body in memory, and the answer's head.
    pub(super) async fn run(&mut self, body: &[u8]) -> Result<(), ClientError> {
        if !body.is_empty() {
            self.send(body).await?;
        }
        self.answer().await.map(drop)
    }

    /// Sends the head alone and waits until the peer wants the body, has answered, or has had its time.
    pub(super) async fn offer(&mut self) -> Result<(), ClientError> {
        self.flush().await?;
        let deadline = shard::now() + self.options.continue_timeout;
        let wait = async {
            let stream = self.lease.as_mut().expect("it has just been leased").stream();
            loop {
                if stream.buffered_len() > STATUS_AT {
                    break Ok(());
                }
                match stream.end() {
                    Some(End::Broken(errno)) => break Err(broken(errno)),
                    Some(End::Finished) => break Err(ClientError::Closed),
                    None => stream.more_than(stream.buffered_len()).await,
                }
            }
        };
        match timer::until(deadline, wait).await {
            // It says nothing: the body is sent unasked.
            None => return Ok(()),
            Some(heard) => heard?,
        }
        self.heard = true;
        if self.says_interim() {
            let deadline = shard::now() + self.options.head_timeout;
            timer::until(deadline, self.read_one_head()).await.ok_or(ClientError::HeadTimeout)??;
        } else {
            self.request_body = RequestBody::Unwanted;
        }
        Ok(())
    }

    /// Whether the connection was a kept one, and its peer ended it without a word about this request.
    pub(super) fn met_a_stale_connection(&self, error: &ClientError) -> bool {
        let ended = matches!(error, ClientError::Closed | ClientError::Broken(_));
        ended && !self.heard && self.lease.as_ref().is_some_and(|lease| lease.is_used)
    }

    fn stream(&mut self) -> &mut Stream {
        self.lease.as_mut().expect("the connection is kept until the answer is complete").stream()
    }

    /// Sends what has gathered unless the peer gives its answer first.
    async fn push(&mut self) -> Result<Sent, ClientError> {
        let deadline = shard::now() + patience(self.options.progress_timeout, self.stream().gathered().len());
        let stream = self.lease.as_mut().expect("an unfinished call has its connection").stream();
        let pushed = timer::until(deadline, flush_unless_answered(stream));
        let pushed = pushed.await.ok_or(ClientError::Stalled)?;
        pushed.map_err(ClientError::Broken)
    }

    fn has_heard(&mut self) -> bool {
        self.heard |= self.stream().buffered_len() > 0;
        self.heard
    }

    fn says_interim(&mut self) -> bool {
        is_interim(&self.stream().buffered())
    }

    /// Reads heads until the one that counts.
    async fn read_head(&mut self) -> Result<(), ClientError> {
        loop {
            self.read_one_head().await?;
            let status = self.head.status();
            if !status.is_informational() || status == Status::SWITCHING_PROTOCOLS {
                break;
            }
        }
        self.has_answer = true;
        self.body = match self.head.body() {
            Some(BodyLength::None) => BodyReader::Done,
            Some(BodyLength::Exact(len)) => BodyReader::exact(len),
            Some(BodyLength::Chunked) => BodyReader::chunked(),
            None => BodyReader::UntilClose,
        };
        Ok(())
    }

    async fn read_one_head(&mut self) -> Result<(), ClientError> {
        let Call { lease, head, options, to_head, heard, .. } = self;
        let stream = lease.as_mut().expect("an unfinished call has its connection").stream();
        loop {
            let seen = stream.buffered_len();
            *heard |= seen > 0;
            let parsed = head.parse(&stream.buffered(), &options.limits, *to_head);
            match parsed {
                Step::Done(len) => {
                    stream.consume(len);
                    return Ok(());
                }
                Step::Refuse(refusal) => return Err(ClientError::NotHttp(refusal.reason)),
                Step::NeedMore => {}
            }
            match stream.end() {
                None => stream.more_than(seen).await,
                Some(_) if *heard => return Err(ClientError::Truncated),
                Some(End::Finished) => return Err(ClientError::Closed),
                Some(End::Broken(errno)) => return Err(broken(errno)),
            }
        }
    }

    /// Everything was said: the connection is free for the next call, or ends.
    fn settle(&mut self) {
        if self.head.status() == Status::SWITCHING_PROTOCOLS {
            return;
        }
        let keeps = self.head.keep_alive() && self.request_body == RequestBody::Done;
        if let Some(lease) = self.lease.take().filter(|_| keeps) {
            lease.give_back();
        }
    }
}

enum Sent {
    All,
    /// The peer has given its answer; the rest was not sent.
    Answered,
}

/// Flushes; gives up as soon as the peer answers while it does not take what is sent.
async fn flush_unless_answered(stream: &mut Stream) -> io::Result<Sent> {
    stream
        .flush_beside(|stream, cx| {
            let mut seen = 0;
            while stream.poll_more_than(seen, cx).is_ready() {
                let buffered = stream.buffered();
                if stream.end().is_some() || (buffered.len() > STATUS_AT && !is_interim(&buffered)) {
                    return Poll::Ready(());
                }
                seen = buffered.len();
            }
            Poll::Pending
        })
        .await
        .map(|whole| if whole { Sent::All } else { Sent::Answered })
}

fn is_interim(buffered: &[u8]) -> bool {
    buffered.get(STATUS_AT) == Some(&b'1')
}

/// A peer makes progress if it takes a gathered piece within the time for a byte: pieces are small.
fn patience(progress: Duration, gathered: usize) -> Duration {
    progress.saturating_mul(1 + (gathered / (1 << 20)) as u32)
}

fn broken(errno: i32) -> ClientError {
    ClientError::Broken(io::Error::from_raw_os_error(errno))
}

fn culprit(error: BodyError) -> ClientError {
    match error {
        BodyError::Gone => ClientError::Truncated,
        BodyError::Refused(refusal) => ClientError::NotHttp(refusal.reason),
    }
}

//! A connection's life: request after request until somebody ends it.
//!
//! Two deadlines hold: a request head must be complete within `header_timeout` of its first byte (or of the
//! connection), and a kept-alive connection may rest for `idle_timeout`. Neither ever ends a body or an answer.
//! Bytes that are no request get their refusal and the connection closes; nothing is guessed at.
//! Lives on: one task per connection on the shard that accepted it; a panic in it ends that connection alone.

use super::exchange::{Exchange, Gone};
use super::head::{HeadLimits, Method};
use super::{Reason, Refusal, Status, Step};
use crate::codec::time::HttpDate;
use crate::net::deadline::Deadline;
use crate::net::stream::Stream;
use crate::net::tls::Certificates;
use crate::observe::metrics::{Class, Dialect, ShardMetrics};
use crate::runtime::gate::Gate;
use crate::runtime::ring::recv::End;
use crate::runtime::ring::socket::Socket;
use crate::runtime::{Moment, shard, timer};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long a closing connection waits for its peer to see the answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much a closing connection still reads to let the answer arrive.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// How late `Date` may be: its seconds are not worth a look at the clock for every answer.
const DATE_AGE_MAX: Duration = Duration::from_millis(20);
/// Heads up to this length are looked at with every arrival, so refusals are early; longer ones when they have
/// grown by a quarter or a line has ended, so a drip of bytes cannot make us parse the same head all day.
const EAGER_HEAD_BYTES: usize = 2048;

/// Answers requests.
pub trait Handler: 'static {
    /// Whose requests these are, for the counters.
    const DIALECT: Dialect;

    /// Answers one request. `Err` ends the connection.
    fn handle(&self, exchange: &mut Exchange) -> impl Future<Output = Result<(), Gone>>;
}

/// What all connections of a listener on a shard share.
pub struct Service {
    /// Whose requests these are.
    pub dialect: Dialect,
    /// Counts connections, and closes when the daemon drains.
    pub gate: Gate,
    /// Closes when connections that did not finish are cut.
    pub cut: Gate,
    /// Bounds of a request head.
    pub limits: HeadLimits,
    /// Time for a whole request head.
    pub header_timeout: Duration,
    /// Time between two requests.
    pub idle_timeout: Duration,
    /// What a listener that speaks TLS shows.
    pub certificates: Option<Arc<Certificates>>,
    /// Where the shard counts.
    pub metrics: Arc<ShardMetrics>,
    date: RefCell<HttpDate>,
    /// When the date is looked up again.
    date_until: Cell<Moment>,
}

impl Service {
    /// A service of `dialect`.
    pub fn new(
        dialect: Dialect,
        gate: Gate,
        cut: Gate,
        limits: HeadLimits,
        (header_timeout, idle_timeout): (Duration, Duration),
        certificates: Option<Arc<Certificates>>,
        metrics: Arc<ShardMetrics>,
    ) -> Rc<Self> {
        let date = RefCell::new(HttpDate::at(0));
        let date_until = Cell::default();
        Rc::new(Service {
            dialect,
            gate,
            cut,
            limits,
            header_timeout,
            idle_timeout,
            certificates,
            metrics,
            date,
            date_until,
        })
    }

    /// The date of answers, looked up anew every [`DATE_AGE_MAX`].
    pub(super) fn date(&self) -> std::cell::Ref<'_, HttpDate> {
        let shard = shard::current();
        let now = shard.recent();
        if now >= self.date_until.get() {
            self.date_until.set(now + DATE_AGE_MAX);
            self.date.borrow_mut().refresh(shard.wall().unix_seconds());
        }
        self.date.borrow()
    }

    pub(super) fn note_received(&self, len: usize) {
        self.metrics.received_bytes.of(self.dialect).add(len as u64);
    }

    pub(super) fn note_sent(&self, len: usize) {
        self.metrics.sent_bytes.of(self.dialect).add(len as u64);
    }

    pub(super) fn note_expired(&self) {
        self.metrics.readers_expired.inc();
        tracing::info!(dialect = ?self.dialect, reason = "expired", "a slow reader kept space of what is gone");
    }

    pub(super) fn note_answer(&self, status: Status, began: Moment) {
        self.metrics.http_requests.of(self.dialect).of(Class::of(status.code())).inc();
        self.metrics.http_latency.of(self.dialect).record(shard::now().since(began));
    }

    pub(super) fn note_refusal(&self) {
        self.metrics.http_refusals.of(self.dialect).inc();
    }
}

/// Serves one connection until it ends.
pub async fn serve<H: Handler>(socket: Socket, service: Rc<Service>, handler: Rc<H>) {
    let Some(stream) = begin(socket, &service).await else { return };
    let mut connection = Connection {
        exchange: Exchange::new(stream, service.clone()),
        deadline: Deadline::new(shard::now() + service.header_timeout),
        service,
        requests: 0,
    };
    if connection.run(&*handler).await.is_ok() || connection.exchange.has_answered() {
        connection.linger().await;
    }
}

/// The stream of a new connection; with TLS once both have agreed, for which there is as much time as for a head.
async fn begin(socket: Socket, service: &Service) -> Option<Stream> {
    let socket = Rc::new(socket);
    let Some(certificates) = &service.certificates else { return Some(Stream::new(socket)) };
    let deadline = shard::now() + service.header_timeout;
    match timer::until(deadline, Stream::accept_tls(socket, certificates)).await? {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(dialect = ?service.dialect, %error, "no TLS connection came about");
            None
        }
    }
}

struct Connection {
    exchange: Exchange,
    deadline: Deadline,
    service: Rc<Service>,
    requests: u64,
}

/// What waiting for a request brought.
enum Next {
    Request,
    Refused(Refusal),
    TimedOut,
    Close,
}

impl Connection {
    /// Request after request; `Ok` when the connection should close in peace.
    async fn run<H: Handler>(&mut self, handler: &H) -> Result<(), Gone> {
        loop {
            match self.next().await? {
                Next::Request => {}
                Next::Refused(refusal) => return self.exchange.refuse(refusal).await,
                Next::TimedOut => return self.time_out().await,
                Next::Close => return Ok(()),
            }
            self.requests += 1;
            self.exchange.open();
            handler.handle(&mut self.exchange).await?;
            if !self.exchange.conclude().await? {
                return Ok(());
            }
        }
    }

    /// Waits for the next whole request head.
    async fn next(&mut self) -> Result<Next, Gone> {
        let mut parsed_len = 0;
        let mut waited_begun = None;
        loop {
            let len = self.exchange.stream.buffered_len();
            if self.worth_parsing(len, parsed_len) {
                parsed_len = len;
                match self.parse() {
                    Step::Done(consumed) => {
                        self.exchange.stream.consume(consumed);
                        return Ok(match self.exchange.head.method() {
                            Method::Other => Next::Refused(Reason::MethodUnknown.into()),
                            _ => Next::Request,
                        });
                    }
                    Step::Refuse(refusal) => return Ok(Next::Refused(refusal)),
                    Step::NeedMore => {}
                }
            }
            match self.exchange.stream.end() {
                None => {}
                Some(End::Finished) => {
                    self.exchange.flush().await?;
                    return Ok(Next::Close);
                }
                Some(End::Broken(_)) => return Err(Gone),
            }
            self.exchange.flush().await?;
            if waited_begun.replace(len > 0) != Some(len > 0) {
                self.set_deadline(len > 0);
            }
            if let Some(next) = self.wait(len).await {
                return Ok(next);
            }
        }
    }

    fn parse(&mut self) -> Step<usize> {
        let Exchange { stream, head, .. } = &mut self.exchange;
        head.parse(&stream.buffered(), &self.service.limits)
    }

    fn worth_parsing(&self, len: usize, parsed_len: usize) -> bool {
        let new =
            || self.exchange.stream.buffered()[parsed_len..].iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        len > parsed_len && (len <= EAGER_HEAD_BYTES || len - parsed_len > parsed_len / 4 || new())
    }

    /// A new connection and a begun head have the time for heads, a rest between requests the idle time.
    fn set_deadline(&mut self, begun: bool) {
        let within =
            if begun || self.requests == 0 { self.service.header_timeout } else { self.service.idle_timeout };
        self.deadline.set(shard::recent() + within);
    }

    /// Waits for more than `seen` bytes; `Some` when the wait ended otherwise.
    async fn wait(&mut self, seen: usize) -> Option<Next> {
        let Connection { exchange, deadline, service, .. } = self;
        let mut closing = pin!(service.gate.closing());
        std::future::poll_fn(|cx| {
            if exchange.stream.poll_more_than(seen, cx).is_ready() {
                return Poll::Ready(None);
            }
            // A request that has begun to arrive is still answered while the daemon drains.
            if seen == 0 && closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Next::Close));
            }
            deadline.poll_passed(cx).map(|()| Some(if seen == 0 { Next::Close } else { Next::TimedOut }))
        })
        .await
    }

    async fn time_out(&mut self) -> Result<(), Gone> {
        self.exchange.refuse(Refusal::from(Reason::HeadTimeout)).await
    }

    /// Lets the last answer arrive: closing with unread bytes would reset the connection under it.
    async fn linger(&mut self) {
        let discard = async {
            self.exchange.stream.finish_sending().await;
            let mut discarded = 0;
            while discarded < LINGER_BYTES_MAX {
                let piece = self.exchange.stream.next_piece(usize::MAX, |bytes| bytes.len());
                match piece.await {
                    Ok(Some(len)) => discarded += len,
                    Ok(None) | Err(_) => break,
                }
            }
        };
        timer::until(shard::now() + LINGER, discard).await;
    }
}

//! A subscriber that reads a kept topic: what was, then what comes, from one position that moves on.
//!
//! Messages carry where they begin, `Offset`, and where the next one does, `Next`: a subscriber that comes back says
//! `?from=` the latter. One with a name need not: it is pinged behind what it was sent, its pong says that it has read
//! that far, and its cursor follows. Invariant: nothing is read from the store while its outbox has much to send.
//! Lives on: the subscriber's shard.

use super::lines::Lines;
use super::{Kept, KeptError, id_of, opened, replacing};
use crate::net::websocket::session::{Outbox, Pushed, encode};
use crate::net::websocket::{CloseCode, Opcode};
use crate::runtime::{shard, timer};
use crate::service::stream::{Id, State, StoreError, Streams, Tail};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How often a reader of a topic without an appender looks whether it has one again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a cursor is stored while it moves.
const CURSOR_EVERY: Duration = Duration::from_millis(250);

/// A reader of a topic.
pub struct Reader {
    kept: Rc<Kept>,
    topic: Arc<str>,
    tail: Arc<Tail>,
    from: u64,
    number: u64,
    cursor: Option<Rc<Cursor>>,
    /// Where the next message that was not queued begins.
    queued: Cell<u64>,
}

/// Where a durable subscriber stands.
struct Cursor {
    id: Id,
    /// As far as it has acknowledged.
    reached: Cell<u64>,
    stored: Cell<u64>,
}

impl Reader {
    pub(super) fn new(
        kept: Rc<Kept>,
        topic: Arc<str>,
        tail: Arc<Tail>,
        from: u64,
        number: u64,
        cursor: Option<Id>,
    ) -> Self {
        if cursor.is_some() {
            kept.moving.borrow_mut().insert(number);
        }
        let cursor = cursor.map(|id| Cursor { id, reached: Cell::new(from), stored: Cell::new(u64::MAX) });
        Reader { kept, topic, tail, from, number, cursor: cursor.map(Rc::new), queued: Cell::new(from) }
    }

    /// Does `session` while this feeds its outbox.
    pub async fn beside<T>(&self, outbox: &Outbox, session: impl Future<Output = T>) -> T {
        let (mut session, mut feed, mut follow) =
            (pin!(session), pin!(self.feed(outbox)), pin!(self.follow(outbox)));
        let mut fed = false;
        std::future::poll_fn(|cx| {
            if !fed {
                fed = feed.as_mut().poll(cx).is_ready();
            }
            let _ = follow.as_mut().poll(cx);
            match session.as_mut().poll(cx) {
                Poll::Ready(value) => Poll::Ready(value),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Queues messages as there is room for them, until that is not possible any more.
    async fn feed(&self, outbox: &Outbox) {
        let mut tail = self.tail.clone();
        let mut from = self.from;
        loop {
            match self.feed_from(outbox, tail, from).await {
                Ok(next) => match self.resumed(next).await {
                    Ok(resumed) => (tail, from) = (resumed, next),
                    Err(_) => return outbox.end(CloseCode::GOING_AWAY, "shutting down"),
                },
                Err(StoreError::Trimmed(_)) => {
                    return outbox.end(CloseCode::TRY_AGAIN, "retention took what comes next");
                }
                Err(error) => {
                    tracing::error!(topic = &*self.topic, %error, "a topic cannot be read");
                    return outbox.end(CloseCode::INTERNAL, "the topic cannot be read");
                }
            }
        }
    }

    async fn feed_from(&self, outbox: &Outbox, tail: Arc<Tail>, from: u64) -> Result<u64, StoreError> {
        let streams = self.kept.streams.get().expect("a reader has its streams").clone();
        let mut lines = Lines::follow(&streams, tail, from);
        loop {
            let line = match lines.ready() {
                Some(line) => line,
                None => {
                    self.mark(outbox);
                    match lines.next().await? {
                        Some(line) => line,
                        None => return Ok(lines.position()),
                    }
                }
            };
            if let Some((message, _)) = line.message() {
                outbox.room().await;
                let text = [message, format!(",\"Offset\":{},\"Next\":{}}}", line.at, line.next).as_bytes()]
                    .concat();
                if outbox.push(&encode(Opcode::Text, &text), false) != Pushed::Queued {
                    return std::future::pending().await;
                }
            }
            self.queued.set(line.next);
        }
    }

    /// Asks a durable subscriber to acknowledge what it was sent, if it was sent more since it was asked.
    fn mark(&self, outbox: &Outbox) {
        let (asked, acknowledged) = (outbox.asked(), outbox.acknowledged());
        let has_more = self.queued.get() > acknowledged.unwrap_or(self.from);
        if self.cursor.is_some() && asked == acknowledged && has_more {
            outbox.ask(self.queued.get());
        }
    }

    /// Has the cursor follow what is acknowledged.
    async fn follow(&self, outbox: &Outbox) {
        let Some(cursor) = &self.cursor else { return std::future::pending().await };
        // It exists from the beginning: who is cut off before its first pong goes on here.
        store_cursor(&self.kept, cursor).await;
        let mut seen = None;
        loop {
            if outbox.acknowledged() == seen {
                outbox.acknowledgement().await;
            }
            self.mark(outbox);
            timer::sleep(CURSOR_EVERY).await;
            seen = outbox.acknowledged();
            self.leave(outbox);
            // What was queued while it had something to answer.
            self.mark(outbox);
            store_cursor(&self.kept, cursor).await;
        }
    }

    /// The topic's bytes once there is more behind `next`: its appender was put away, or the daemon took it over anew.
    async fn resumed(&self, next: u64) -> Result<Arc<Tail>, KeptError> {
        loop {
            timer::sleep(LOOK_AGAIN).await;
            let found = self.kept.streams().await?.find(&id_of(&self.topic)?).await?;
            let tail = found.ok_or(StoreError::Gone)?.tail;
            if tail.state() == State::Open || tail.published() > next {
                return Ok(tail);
            }
        }
    }

    /// The session is over: what was acknowledged last counts.
    pub fn leave(&self, outbox: &Outbox) {
        if let Some(cursor) = &self.cursor {
            cursor.reached.set(outbox.acknowledged().unwrap_or(0).max(cursor.reached.get()));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.kept.subscribers.borrow_mut().remove(&self.number);
        self.kept.readers.borrow_mut().remove(&self.number);
        let Some(cursor) = self.cursor.take() else { return };
        let (kept, number) = (self.kept.clone(), self.number);
        // A task of the shard: the connection is over.
        shard::spawn("cursor", async move {
            store_cursor(&kept, &cursor).await;
            kept.moving.borrow_mut().remove(&number);
            kept.stopped.notify_all();
        });
    }
}

/// Where a cursor stands; `None` when there is none.
pub(super) async fn load_cursor(streams: &Rc<Streams>, id: &Id) -> Result<Option<u64>, StoreError> {
    let found = streams.find(id).await?;
    let metadata = found.map(|found| found.metadata);
    Ok(metadata.and_then(|metadata| {
        let json: serde_json::Value = serde_json::from_slice(&metadata).ok()?;
        json["next"].as_u64()
    }))
}

async fn store_cursor(kept: &Rc<Kept>, cursor: &Cursor) {
    let reached = cursor.reached.get();
    if cursor.stored.get() == reached {
        return;
    }
    let store = async {
        let streams = kept.streams().await?;
        let producer =
            opened(streams.open(cursor.id.clone(), replacing(format!("{{\"next\":{reached}}}"))).await)?;
        producer.end().await.map_err(|error| KeptError::Unavailable(error.to_string()))?;
        Ok::<(), KeptError>(())
    };
    match store.await {
        Ok(()) => cursor.stored.set(reached),
        Err(error) => tracing::warn!(%error, "a cursor was not stored"),
    }
}

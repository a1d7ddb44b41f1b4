//! Producing: bytes from a connection into a stream's appender, and how the stream ends.
//!
//! The appender lies in a desk of the shard, not in the connection: a producer that is taken over, replaced or
//! deleted loses it without being asked, and a connection that vanishes leaves it to be sealed.
//!
//! Invariant: every desk is closed exactly once, by a seal or by letting go, and both run in tasks of the shard.
//! Lives on: the producer's shard.

use super::id::Id;
use super::limits::{Limit, ProduceError};
use super::message::{Announced, Answer, Ask};
use super::open::Opened;
use super::{Keeper, Streams};
use crate::runtime::gate::Pass;
use crate::runtime::notify::{self, Notify};
use crate::runtime::shard;
use crate::storage::{Appender, End, State, StoreError, Tail};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Most bytes that one receive brings; room for so many is asked for ahead of it.
const RECEIVE_MAX: usize = 256 * 1024;
/// Pieces below this are gathered: a copy is cheaper than a write of their own.
const SMALL: usize = 16 * 1024;

/// The one who fills a stream. Dropping it ends the stream as interrupted.
pub struct Producer {
    streams: Rc<Streams>,
    desk: Rc<Desk>,
    /// How many bytes can be appended at once.
    room: usize,
    /// Received in small pieces or beyond the room, at most one receive; written before anything else.
    spill: Vec<u8>,
    /// How much of the spill is appended.
    spilled: usize,
    /// Bytes yet to come that are in the stream already.
    skip: u64,
    /// The stream's length with everything that was taken.
    position: u64,
    /// More was received than a limit allows.
    over: Option<Limit>,
    failed: Option<StoreError>,
    counted: bool,
    replaced: bool,
}

impl Producer {
    pub(super) fn new(
        streams: &Rc<Streams>,
        id: Id,
        appender: Appender,
        opened: &Opened,
        offset: Option<u64>,
        pass: Pass,
    ) -> Self {
        let start = appender.len();
        let skip = offset.map_or(0, |offset| start.saturating_sub(offset));
        let desk = Rc::new(Desk {
            id,
            tail: opened.tail.clone(),
            epoch: opened.epoch,
            start,
            appender: RefCell::new(Some(appender)),
            pass: Cell::new(Some(pass)),
            commit: OnceCell::new(),
            fenced: Cell::new(false),
            closed: Cell::new(false),
            changed: Notify::new(),
        });
        streams.desks.insert(desk.clone());
        streams.metrics.streams_open.inc();
        streams.settle(desk.clone(), opened);
        Producer {
            streams: streams.clone(),
            desk,
            room: 0,
            spill: Vec::new(),
            spilled: 0,
            skip,
            position: start,
            over: None,
            failed: None,
            counted: false,
            replaced: opened.replaced,
        }
    }

    /// The stream's id.
    pub fn id(&self) -> &Id {
        &self.desk.id
    }

    /// The stream's bytes.
    pub fn tail(&self) -> &Arc<Tail> {
        &self.desk.tail
    }

    /// The epoch in which it appends.
    pub fn epoch(&self) -> u64 {
        self.desk.epoch
    }

    /// Where the stream ended when this producer came.
    pub fn start(&self) -> u64 {
        self.desk.start
    }

    /// The stream's length with everything that was taken.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the stream took another one's place.
    pub fn has_replaced(&self) -> bool {
        self.replaced
    }

    /// Whether the stream was deleted, replaced or taken over: no byte is wanted any more.
    pub fn is_fenced(&self) -> bool {
        self.desk.fenced.get() || self.desk.tail.state() == State::Gone
    }

    /// Writes what the last receive brought and is not written yet, and waits for room for the next one. To be
    /// called after every receive, so that its bytes are published in the same turn.
    pub async fn make_room(&mut self) -> Result<(), ProduceError> {
        let made = self.try_make_room().await;
        if let Err(error) = &made
            && !std::mem::replace(&mut self.counted, true)
        {
            self.streams.count_refused(error);
        }
        made
    }

    pub(super) async fn try_make_room(&mut self) -> Result<(), ProduceError> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        while self.spilled < self.spill.len() {
            let room = self.reserve(self.spill.len() - self.spilled).await?;
            match self.desk.is_slow() {
                true => self.append_in_worker(room).await?,
                false => self.append(room)?,
            }
        }
        self.spilled = 0;
        self.spill.clear();
        // A thousand quiet producers must not hold a thousand receives.
        self.spill.shrink_to(SMALL);
        self.streams.note_growth(Keeper::of(&self.desk.id));
        if let Some(limit) = self.over {
            return Err(limit.into());
        }
        self.room = self.reserve(RECEIVE_MAX).await?;
        Ok(())
    }

    /// Appends what a receive brought, without waiting. An error shows at the next [`Producer::make_room`].
    pub fn take(&mut self, bytes: &[u8]) {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        let bytes = &bytes[skipped..];
        // Also when there is room again meanwhile: behind what was left out nothing may follow.
        if self.failed.is_some() || self.over.is_some() {
            return;
        }
        let total =
            self.streams.total_bytes(Keeper::of(&self.desk.id)) + (self.spill.len() - self.spilled) as u64;
        let (fitting, over) =
            self.streams.limits_of(&self.desk.id).fitting(self.position, total, bytes.len());
        self.over = over;
        let bytes = &bytes[..fitting];
        self.position += fitting as u64;
        // What came before is in the spill, so what comes now has to go behind it.
        let goes_direct = self.spill.is_empty() && bytes.len() >= SMALL && !self.desk.is_slow();
        let direct = if goes_direct { self.room.min(bytes.len()) } else { 0 };
        let (now, later) = bytes.split_at(direct);
        if !now.is_empty() {
            match self.desk.append(now) {
                Ok(()) => self.streams.metrics.stream_appended_bytes.add(now.len() as u64),
                Err(error) => self.failed = Some(error),
            }
            self.room -= now.len();
        }
        self.spill.extend_from_slice(later);
    }

    /// Ends the stream as intended. Resolves once all of it, its name included, is committed in the store's
    /// class, with its length. Whoever waits for this may leave: the end happens all the same.
    pub async fn end(mut self) -> Result<u64, ProduceError> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        if let Some(limit) = self.over {
            return Err(limit.into());
        }
        let (answerer, answer) = notify::answer();
        self.seal(End::Complete, move |sealed| answerer.give(sealed));
        answer.await.unwrap_or(Err(StoreError::Closing)).map_err(ProduceError::Store)
    }

    /// Appends as much of the spill as there is room for.
    fn append(&mut self, len: usize) -> Result<(), StoreError> {
        self.desk.append(&self.spill[self.spilled..self.spilled + len])?;
        self.spilled += len;
        self.room = 0;
        self.streams.metrics.stream_appended_bytes.add(len as u64);
        Ok(())
    }

    /// The same while the disk holds writers up.
    async fn append_in_worker(&mut self, len: usize) -> Result<(), StoreError> {
        let bytes = self.spill[self.spilled..self.spilled + len].to_vec();
        // From here on they are the worker's: whoever drops this wait must not append them again.
        self.spilled += len;
        let mut borrowed = self.desk.borrow(&self.streams)?;
        let appender = borrowed.appender.as_mut().expect("borrowed above");
        unless_fenced(&self.desk, appender.append_in_worker(bytes)).await?;
        self.room = 0;
        self.streams.metrics.stream_appended_bytes.add(len as u64);
        Ok(())
    }

    async fn reserve(&mut self, wanted: usize) -> Result<usize, StoreError> {
        let mut borrowed = self.desk.borrow(&self.streams)?;
        let appender = borrowed.appender.as_mut().expect("borrowed above");
        unless_fenced(&self.desk, appender.reserve(wanted)).await
    }

    /// Leaves the end to a task of the shard, with whatever came in and is not written.
    fn seal(&mut self, end: End, told: impl FnOnce(Result<u64, StoreError>) + 'static) {
        let (streams, desk) = (self.streams.clone(), self.desk.clone());
        let spill = self.spill.split_off(self.spilled);
        let Some(appender) = desk.appender.take() else { return told(Err(StoreError::Fenced)) };
        shard::spawn("seal a stream", async move {
            // Out until the end of all that is to be waited for.
            let _pass = desk.pass.take();
            told(streams.seal(&desk, appender, &spill, end).await);
        });
    }
}

/// Does `work` unless the stream is taken away first.
async fn unless_fenced<T>(
    desk: &Desk,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let (mut work, mut fenced) = (pin!(work), pin!(desk.fenced()));
    std::future::poll_fn(|cx| match fenced.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Err(StoreError::Fenced)),
        Poll::Pending => work.as_mut().poll(cx),
    })
    .await
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Behind the end of its shard there is nobody to seal anything; recovery settles the stream.
        if shard::try_current().is_none() {
            return;
        }
        let id = self.desk.id.clone();
        self.seal(End::Interrupted, move |sealed| match sealed {
            Ok(bytes) => tracing::info!(stream = %id, bytes, reason = "producer gone", "stream interrupted"),
            Err(StoreError::Gone | StoreError::Fenced) => {}
            Err(error) => tracing::warn!(stream = %id, %error, "an interrupted stream could not be sealed"),
        });
    }
}

impl Streams {
    async fn seal(
        self: &Rc<Self>,
        desk: &Rc<Desk>,
        mut appender: Appender,
        spill: &[u8],
        end: End,
    ) -> Result<u64, StoreError> {
        let written = match spill {
            [] => Ok(()),
            spill => appender.append_all(spill).await,
        };
        self.metrics.stream_appended_bytes.add(if written.is_ok() { spill.len() as u64 } else { 0 });
        let end = if written.is_ok() { end } else { End::Interrupted };
        let sealed = appender.seal(end).await;
        self.close_desk(desk);
        if sealed.is_ok() {
            match end {
                End::Complete => self.metrics.streams_completed.inc(),
                End::Interrupted => self.metrics.streams_interrupted.inc(),
            }
        }
        let committed = desk.is_committed().await;
        written.and(committed).and(sealed)
    }

    /// Waits at the owner for the name's commit; only then may spies hear of the stream.
    fn settle(self: &Rc<Self>, desk: Rc<Desk>, opened: &Opened) {
        let (streams, ticket) = (self.clone(), opened.ticket);
        shard::spawn("settle a stream", async move {
            let owner = streams.owner_of(&desk.id);
            let settled: Result<(), StoreError> =
                super::ask!(streams, owner, Ask::Settle(ticket), Answer::Settled);
            let committed = settled.is_ok();
            assert!(desk.commit.set(settled).is_ok(), "a desk is settled once");
            desk.changed.notify_all();
            if committed && !desk.fenced.get() {
                streams.announce(&desk.announced());
            }
        });
    }

    /// Takes the stream away from its producer here. The desk is returned as long as it has not let go.
    pub(super) fn fence(self: &Rc<Self>, uid: u64, epoch: u64) -> Option<Rc<Desk>> {
        let Some(desk) = self.desks.find(uid).filter(|desk| desk.epoch == epoch) else {
            self.desks.bar(uid, epoch);
            return None;
        };
        desk.fenced.set(true);
        desk.changed.notify_all();
        if let Some(appender) = desk.appender.take() {
            self.detach(desk.clone(), appender);
        }
        Some(desk)
    }

    fn detach(self: &Rc<Self>, desk: Rc<Desk>, appender: Appender) {
        let streams = self.clone();
        shard::spawn("let go of a stream", async move {
            match appender.detach().await {
                Ok(_) | Err(StoreError::Gone | StoreError::Fenced) => {}
                Err(error) => tracing::warn!(stream = %desk.id, %error, "letting go of a stream failed"),
            }
            streams.close_desk(&desk);
        });
    }

    fn close_desk(&self, desk: &Rc<Desk>) {
        assert!(!desk.closed.replace(true), "a desk is closed once");
        self.desks.remove(desk);
        drop(desk.pass.take());
        self.metrics.streams_open.dec();
        self.tell_let_go(&desk.id, desk.tail.uid(), desk.epoch);
        desk.changed.notify_all();
        self.note_growth(Keeper::of(&desk.id));
    }
}

/// A producer's place on its shard.
pub(super) struct Desk {
    id: Id,
    tail: Arc<Tail>,
    epoch: u64,
    start: u64,
    /// Empty while it is lent to a reservation, and once somebody seals or detaches it.
    appender: RefCell<Option<Appender>>,
    /// Out until the stream is sealed or let go of.
    pass: Cell<Option<Pass>>,
    /// Whether the name is committed, once that is known.
    commit: OnceCell<Result<(), StoreError>>,
    fenced: Cell<bool>,
    closed: Cell<bool>,
    changed: Notify,
}

impl Desk {
    fn append(&self, bytes: &[u8]) -> Result<(), StoreError> {
        match self.appender.borrow_mut().as_mut() {
            Some(appender) => appender.append(bytes),
            None => Err(StoreError::Fenced),
        }
    }

    /// Whether the disk holds writers up at present.
    fn is_slow(&self) -> bool {
        self.appender.borrow().as_ref().is_some_and(Appender::is_slow)
    }

    fn borrow<'a>(self: &'a Rc<Self>, streams: &'a Rc<Streams>) -> Result<Borrowed<'a>, StoreError> {
        let appender = self.appender.take().ok_or(StoreError::Fenced)?;
        Ok(Borrowed { streams, desk: self, appender: Some(appender) })
    }

    async fn fenced(&self) {
        while !self.fenced.get() {
            self.changed.wait().await;
        }
    }

    pub(super) async fn closed(&self) {
        while !self.closed.get() {
            self.changed.wait().await;
        }
    }

    async fn is_committed(&self) -> Result<(), StoreError> {
        loop {
            match self.commit.get() {
                Some(known) => return known.clone(),
                None => self.changed.wait().await,
            }
        }
    }

    fn announced(&self) -> Announced {
        Announced { id: self.id.clone(), tail: self.tail.clone(), start: self.start }
    }

    fn is_shown(&self) -> bool {
        matches!(self.commit.get(), Some(Ok(())))
    }
}

/// An appender on loan: back to its desk when dropped, or let go of when the desk was fenced meanwhile.
struct Borrowed<'a> {
    streams: &'a Rc<Streams>,
    desk: &'a Rc<Desk>,
    appender: Option<Appender>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let Some(appender) = self.appender.take() else { return };
        if self.desk.fenced.get() {
            self.streams.detach(self.desk.clone(), appender);
        } else {
            self.desk.appender.replace(Some(appender));
        }
    }
}

/// The producers of a shard, by the streams' numbers.
#[derive(Default)]
pub(super) struct Desks {
    desks: RefCell<HashMap<u64, Rc<Desk>>>,
    /// How many opens wait for their owner's answer.
    opening: Cell<usize>,
    /// Streams and epochs that were fenced between the owner's answer and the desk. Kept only while anyone is opening.
    barred: RefCell<HashSet<(u64, u64)>>,
}

impl Desks {
    fn find(&self, uid: u64) -> Option<Rc<Desk>> {
        self.desks.borrow().get(&uid).cloned()
    }

    fn insert(&self, desk: Rc<Desk>) {
        let before = self.desks.borrow_mut().insert(desk.tail.uid(), desk);
        assert!(before.is_none(), "a stream has one producer");
    }

    fn remove(&self, desk: &Rc<Desk>) {
        self.desks.borrow_mut().remove(&desk.tail.uid());
    }

    fn bar(&self, uid: u64, epoch: u64) {
        if self.opening.get() > 0 {
            self.barred.borrow_mut().insert((uid, epoch));
        }
    }

    /// To be held from before the owner is asked until the desk is there.
    pub(super) fn opening(&self) -> Opening<'_> {
        self.opening.set(self.opening.get() + 1);
        Opening(self)
    }

    /// What spies are shown when they come.
    pub(super) fn active(&self) -> Vec<Announced> {
        let desks = self.desks.borrow();
        let shown = desks.values().filter(|desk| desk.is_shown() && desk.tail.state() == State::Open);
        // All there is of them, not only what this producer brought.
        shown.map(|desk| Announced { start: 0, ..desk.announced() }).collect()
    }
}

/// An open that waits for its owner.
pub(super) struct Opening<'a>(&'a Desks);

impl Opening<'_> {
    /// Whether nobody took the stream away on the way here.
    pub(super) fn may_attach(&self, uid: u64, epoch: u64) -> bool {
        !self.0.barred.borrow_mut().remove(&(uid, epoch))
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
        if self.0.opening.get() == 0 {
            self.0.barred.borrow_mut().clear();
        }
    }
}

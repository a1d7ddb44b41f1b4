//! Connections to one endpoint: how many there may be, and those that wait for their next request.
//!
//! Invariant: a connection that is handed out a second time has been silent since its last answer ended; whatever
//! its peer said or did unasked ends it. When all are in use a call waits, when too many wait it is refused.
//! Lives on: one shard.

use super::Options;
use super::dial::Endpoint;
use super::error::ClientError;
use crate::net::stream::Stream;
use crate::runtime::notify::Notify;
use crate::runtime::{Moment, shard, timer};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

pub(super) struct Pool {
    idle: RefCell<VecDeque<Idle>>,
    /// Handed out.
    in_use: Cell<usize>,
    waiting: Cell<usize>,
    freed: Notify,
    is_swept: Cell<bool>,
    connections_max: usize,
    waiting_max: usize,
    idle_max: usize,
    idle_timeout: Duration,
}

struct Idle {
    stream: Stream,
    until: Moment,
}

/// A connection that is in use.
pub(super) struct Lease {
    /// `None` once it was given back.
    stream: Option<Stream>,
    pool: Rc<Pool>,
    /// Whether an earlier call has used it.
    pub is_used: bool,
}

impl Pool {
    pub fn new(options: &Options) -> Rc<Pool> {
        Rc::new(Pool {
            idle: RefCell::default(),
            in_use: Cell::new(0),
            waiting: Cell::new(0),
            freed: Notify::new(),
            is_swept: Cell::new(false),
            connections_max: options.connections_max,
            waiting_max: options.waiting_max,
            idle_max: options.idle_max,
            idle_timeout: options.idle_timeout,
        })
    }

    pub fn is_in_use(&self) -> bool {
        self.in_use.get() + self.waiting.get() > 0 || !self.idle.borrow().is_empty()
    }

    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// A connection: the one that was used last, or one made by `deadline`; always that when it has to be `fresh`.
    pub async fn lease(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        fresh: bool,
        deadline: Moment,
    ) -> Result<Lease, ClientError> {
        self.wait_for_room().await?;
        // Counted before the connection is made, so that those under way count too.
        self.in_use.set(self.in_use.get() + 1);
        let mut lease = Lease { stream: None, pool: self.clone(), is_used: false };
        lease.stream = if fresh { None } else { self.take_idle() };
        lease.is_used = lease.stream.is_some();
        if lease.stream.is_none() {
            lease.stream = Some(endpoint.connect(deadline).await?);
        }
        Ok(lease)
    }

    async fn wait_for_room(&self) -> Result<(), ClientError> {
        while self.in_use.get() >= self.connections_max {
            if self.waiting.get() >= self.waiting_max {
                return Err(ClientError::Busy);
            }
            let _waits = Waits::at(&self.waiting);
            self.freed.wait().await;
        }
        Ok(())
    }

    fn take_idle(&self) -> Option<Stream> {
        let now = shard::now();
        let mut idle = self.idle.borrow_mut();
        while let Some(kept) = idle.pop_back() {
            if kept.until > now && !kept.stream.has_news() {
                return Some(kept.stream);
            }
        }
        None
    }

    fn keep(self: &Rc<Self>, stream: Stream) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.idle_max {
            idle.pop_front();
        }
        idle.push_back(Idle { stream, until: shard::now() + self.idle_timeout });
        drop(idle);
        if !self.is_swept.replace(true) {
            shard::spawn("idle connections", sweep(Rc::downgrade(self)));
        }
    }

    /// Lets go of what has been idle too long; the next moment at which there is something to do.
    fn expire(&self) -> Option<Moment> {
        let now = shard::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|kept| kept.until > now && !kept.stream.has_news());
        idle.front().map(|kept| kept.until)
    }
}

/// Runs while the pool keeps something unused.
async fn sweep(pool: Weak<Pool>) {
    loop {
        let next = match pool.upgrade() {
            Some(pool) => match pool.expire() {
                Some(next) => next,
                None => return pool.is_swept.set(false),
            },
            None => return,
        };
        timer::sleep_until(next).await;
    }
}

impl Lease {
    pub fn stream(&mut self) -> &mut Stream {
        self.stream.as_mut().expect("a lease has its connection until it is given back")
    }

    /// Gives the connection back for another call.
    pub fn give_back(mut self) {
        if let Some(stream) = self.stream.take()
            && !stream.has_news()
        {
            self.pool.keep(stream);
        }
    }

    /// Takes the connection for something else than calls.
    pub fn into_stream(mut self) -> Stream {
        self.stream.take().expect("a lease has its connection until it is given back")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.in_use.set(self.pool.in_use.get() - 1);
        self.pool.freed.notify_all();
    }
}

/// Counted while a call waits for a connection.
struct Waits<'a>(&'a Cell<usize>);

impl<'a> Waits<'a> {
    fn at(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Waits(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

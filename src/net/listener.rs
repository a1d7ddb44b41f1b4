//! Accepting on one shard: a loop per listener, a task per connection, a bound on their number.
//!
//! At the bound, and when descriptors run out, accepting pauses: what comes then waits in the kernel's backlog
//! and is served when a connection ends. Lives on: every shard, each with its own SO_REUSEPORT listener.

use crate::observe::metrics::{Dialect, ShardMetrics};
use crate::runtime::gate::Gate;
use crate::runtime::notify::Notify;
use crate::runtime::ring::accept::Acceptor;
use crate::runtime::ring::socket::Socket;
use crate::runtime::{shard, timer};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Pause after the kernel refused to accept, unless a connection ends sooner.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a shard, over all its listeners.
pub struct Connections {
    taken: Cell<usize>,
    max: usize,
    ended: Notify,
}

impl Connections {
    /// Room for so many descriptors, of which a connection has one and one that is joined to another has two.
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Connections { taken: Cell::new(0), max, ended: Notify::new() })
    }

    /// How many descriptors the open ones have.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }
}

/// What all connections of a listener on a shard share.
#[derive(Clone)]
pub struct Door {
    /// Whose connections these are.
    pub dialect: Dialect,
    /// Closed when the daemon drains; every connection holds a pass.
    pub gate: Gate,
    /// Closed when connections that did not finish are cut.
    pub cut: Gate,
    /// Bounds their number, together with those of other listeners.
    pub connections: Rc<Connections>,
    /// How many descriptors one has.
    pub descriptors: usize,
    /// Where the shard counts.
    pub metrics: Arc<ShardMetrics>,
}

impl Door {
    fn has_room(&self) -> bool {
        self.connections.taken.get() + self.descriptors <= self.connections.max
    }
}

/// Counted while a connection lives.
struct Counted(Door);

impl Counted {
    fn new(door: &Door) -> Self {
        let taken = &door.connections.taken;
        taken.set(taken.get() + door.descriptors);
        door.metrics.connections_accepted.inc();
        door.metrics.connections_open.inc();
        Counted(door.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Counted(Door { connections, descriptors, metrics, .. }) = self;
        connections.taken.set(connections.taken.get() - *descriptors);
        metrics.connections_open.dec();
        connections.ended.notify_all();
    }
}

/// Accepts from `listener`, and has each connection served in a task of its own, until the door's gate closes.
pub async fn accept<F>(listener: Socket, door: Door, serve: impl Fn(Socket) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let acceptor = Acceptor::new(listener);
    while !door.gate.is_closing() {
        if !door.has_room() {
            pause(&acceptor, &door, None).await;
            continue;
        }
        match unless_closing(&door.gate, acceptor.next()).await {
            None => return,
            Some(Ok(socket)) => {
                socket.prepare_tcp();
                start(&door, serve(socket));
            }
            Some(Err(error)) => {
                tracing::warn!(dialect = ?door.dialect, %error, "accepting paused");
                pause(&acceptor, &door, Some(REFUSED_PAUSE)).await;
            }
        }
    }
}

fn start(door: &Door, serving: impl Future<Output = ()> + 'static) {
    let held = (Counted::new(door), door.gate.enter());
    let cut = door.cut.clone();
    // In a place of its own: each future that is handed from one to the next is kept room for in both.
    let serving = Box::pin(serving);
    shard::spawn("connection", async move {
        let _held = held;
        unless_closing(&cut, serving).await;
    });
}

/// Waits until a connection ends, the gate closes or `longest` has passed, without accepting.
async fn pause(acceptor: &Acceptor, door: &Door, longest: Option<Duration>) {
    acceptor.pause();
    door.metrics.accept_paused.inc();
    let ended = unless_closing(&door.gate, door.connections.ended.wait());
    match longest {
        Some(longest) => drop(timer::until(shard::now() + longest, ended).await),
        None => drop(ended.await),
    }
    door.metrics.accept_paused.dec();
}

/// Does `work`, or `None` once the gate begins to close.
pub async fn unless_closing<T>(gate: &Gate, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut closing) = (pin!(work), pin!(gate.closing()));
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => closing.as_mut().poll(cx).map(|()| None),
    })
    .await
}

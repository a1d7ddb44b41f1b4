//! Accepting on one shard: a loop per listener, a task per connection, a bound on their number.
//!
//! At the bound, and when descriptors run out, accepting pauses: what comes then waits in the kernel's backlog
//! and is served when a connection ends. Lives on: every shard, each with its own SO_REUSEPORT listener.

use super::http::server::{Handler, Service, serve};
use crate::runtime::gate::Gate;
use crate::runtime::notify::Notify;
use crate::runtime::ring::accept::Acceptor;
use crate::runtime::ring::socket::Socket;
use crate::runtime::{shard, timer};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Pause after the kernel refused to accept, unless a connection ends sooner.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a shard, over all its listeners.
pub struct Connections {
    open: Cell<usize>,
    max: usize,
    ended: Notify,
}

impl Connections {
    /// Room for `max` connections.
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Connections { open: Cell::new(0), max, ended: Notify::new() })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    fn has_room(&self) -> bool {
        self.open.get() < self.max
    }
}

/// Counted while a connection lives.
struct Counted {
    connections: Rc<Connections>,
    service: Rc<Service>,
}

impl Counted {
    fn new(connections: &Rc<Connections>, service: &Rc<Service>) -> Self {
        connections.open.set(connections.open.get() + 1);
        service.metrics.connections_accepted.inc();
        service.metrics.connections_open.inc();
        Counted { connections: connections.clone(), service: service.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.open.set(self.connections.open.get() - 1);
        self.service.metrics.connections_open.dec();
        self.connections.ended.notify_all();
    }
}

/// Accepts from `listener` and serves until the service's gate closes.
pub async fn accept<H: Handler>(
    listener: Socket,
    service: Rc<Service>,
    handler: Rc<H>,
    connections: Rc<Connections>,
) {
    let acceptor = Acceptor::new(listener);
    while !service.gate.is_closing() {
        if !connections.has_room() {
            pause(&acceptor, &service, &connections, None).await;
            continue;
        }
        match unless_closing(&service.gate, acceptor.next()).await {
            None => return,
            Some(Ok(socket)) => start(socket, &service, &handler, &connections),
            Some(Err(error)) => {
                tracing::warn!(dialect = ?service.dialect, %error, "accepting paused");
                pause(&acceptor, &service, &connections, Some(REFUSED_PAUSE)).await;
            }
        }
    }
}

fn start<H: Handler>(socket: Socket, service: &Rc<Service>, handler: &Rc<H>, connections: &Rc<Connections>) {
    socket.prepare_tcp();
    let counted = Counted::new(connections, service);
    let pass = service.gate.enter();
    let (service, handler) = (service.clone(), handler.clone());
    shard::spawn("connection", async move {
        let _held = (counted, pass);
        let cut = service.cut.clone();
        unless_closing(&cut, serve(socket, service, handler)).await;
    });
}

/// Waits until a connection ends, the gate closes or `longest` has passed, without accepting.
async fn pause(acceptor: &Acceptor, service: &Service, connections: &Connections, longest: Option<Duration>) {
    acceptor.pause();
    service.metrics.accept_paused.inc();
    let ended = unless_closing(&service.gate, connections.ended.wait());
    match longest {
        Some(longest) => drop(timer::until(shard::now() + longest, ended).await),
        None => drop(ended.await),
    }
    service.metrics.accept_paused.dec();
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

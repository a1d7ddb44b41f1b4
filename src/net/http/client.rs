//! Our side of HTTP/1.1 as a client: a [`Client`] per shard keeps connections, a [`Call`] is one request and its
//! answer on one of them.
//!
//! A call mirrors an exchange: the head goes out, the body piece by piece, then the answer's head and its body come
//! back, all in constant memory. Invariant: a request is sent a second time only if its peer cannot have done it,
//! or if doing it twice is doing it once ([`Request::repeatable`]). A kept connection is looked at before it is used,
//! so that one whose peer has gone costs nothing; only what crosses on the wire is left to that rule. What can go wrong is one closed enum,
//! [`ClientError`], that says whose doing it is.
//! Lives on: one shard; a call belongs to one task.

mod call;
mod dial;
mod error;
mod pool;

pub use call::Call;
pub use dial::Endpoint;
pub use error::ClientError;

use super::head::HeadLimits;
use super::request::Request;
use crate::runtime::shard;
use crate::runtime::timer;
use pool::Pool;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// Bounds of a client.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time for a name look-up and a connection, also for waiting until one may be made.
    pub connect_timeout: Duration,
    /// Time from the request's end to the answer's head.
    pub head_timeout: Duration,
    /// Time in which the peer must take or bring at least a byte of a body.
    pub progress_timeout: Duration,
    /// How long the peer may take to ask for an offered body; then it is sent unasked (RFC 9110 section 10.1.1).
    pub continue_timeout: Duration,
    /// Connections to one endpoint on one shard; who finds all of them in use waits for one.
    pub connections_max: usize,
    /// Calls that may wait for a connection to one endpoint; the next one gets [`ClientError::Busy`].
    pub waiting_max: usize,
    /// Connections to one endpoint that are kept unused.
    pub idle_max: usize,
    /// How long one is kept unused.
    pub idle_timeout: Duration,
    /// Bounds of an answer's head.
    pub limits: HeadLimits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(60),
            progress_timeout: Duration::from_secs(60),
            continue_timeout: Duration::from_secs(1),
            connections_max: 256,
            waiting_max: 1024,
            idle_max: 32,
            idle_timeout: Duration::from_secs(30),
            limits: HeadLimits::default(),
        }
    }
}

/// The connections of one shard to wherever it calls.
pub struct Client {
    options: Options,
    pools: RefCell<HashMap<Endpoint, Rc<Pool>>>,
}

impl Client {
    /// A client without connections.
    pub fn new(options: Options) -> Rc<Client> {
        Rc::new(Client { options, pools: RefCell::default() })
    }

    /// Begins a call: gets a connection and writes the head. With [`Request::expect_continue`] it comes back once
    /// the peer wants the body, or has refused it. The body follows by [`Call::send`], the answer by
    /// [`Call::answer`].
    pub async fn begin(&self, endpoint: &Endpoint, request: &Request) -> Result<Call, ClientError> {
        let mut attempts = Attempts::default();
        loop {
            let mut call = self.start(endpoint, request, attempts.wants_fresh).await?;
            let begun = if request.waits_for_continue() { call.offer().await } else { Ok(()) };
            match begun {
                Ok(()) => return Ok(call),
                // Not a byte of the body was sent: nobody can have done it.
                Err(error) if call.met_a_stale_connection(&error) && attempts.again() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole call with a body that is in memory; comes back with the answer's head. A repeatable one is sent once
    /// more, on a fresh connection, when a kept one turns out to have been given up by its peer.
    pub async fn call(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        body: &[u8],
    ) -> Result<Call, ClientError> {
        let mut attempts = Attempts::default();
        loop {
            let mut call = self.start(endpoint, request, attempts.wants_fresh).await?;
            match call.run(body).await {
                Ok(()) => return Ok(call),
                Err(error)
                    if request.is_repeatable() && call.met_a_stale_connection(&error) && attempts.again() => {
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn start(&self, endpoint: &Endpoint, request: &Request, fresh: bool) -> Result<Call, ClientError> {
        let deadline = shard::now() + self.options.connect_timeout;
        let pool = self.pool(endpoint);
        let lease = timer::until(deadline, pool.lease(endpoint, fresh, deadline));
        let lease = lease.await.ok_or(ClientError::ConnectTimeout)??;
        Ok(Call::new(lease, request, self.options))
    }

    /// Endpoints come from the configuration or a registry that bounds them; those without a connection go when
    /// there are many.
    fn pool(&self, endpoint: &Endpoint) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.get(endpoint) {
            return pool.clone();
        }
        if pools.len() >= POOLS_KEPT {
            pools.retain(|_, pool| pool.is_in_use());
        }
        pools.entry(endpoint.clone()).or_insert_with(|| Pool::new(&self.options)).clone()
    }

    /// Connections to `endpoint` that are kept unused.
    pub fn idle(&self, endpoint: &Endpoint) -> usize {
        self.pools.borrow().get(endpoint).map_or(0, |pool| pool.idle())
    }
}

/// Pools kept although they have no connection.
const POOLS_KEPT: usize = 256;

/// How often a call has been begun: twice is enough, the second time on a connection of its own.
#[derive(Default)]
struct Attempts {
    wants_fresh: bool,
}

impl Attempts {
    fn again(&mut self) -> bool {
        !std::mem::replace(&mut self.wants_fresh, true)
    }
}

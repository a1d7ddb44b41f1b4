//! Calls to services: pick a node, ask it, take another one if it cannot have been asked.
//!
//! | file | holds |
//! |---|---|
//! | [`balance`] | which node gets a call, which one rests |
//! | [`budget`] | how many retries there may be |
//! | [`frame`] | what is sent and what comes back |
//! | [`target`] | where the nodes of a service are |
//!
//! Invariants: a call is made once unless it certainly was not made, or may be made twice and nothing of an answer came;
//! one call never asks a node twice; whatever happens it has an answer by its deadline. Nothing is shared between shards but the registry: each keeps its own
//! connections and its own opinion of nodes. What when full? A node with too many calls is passed over, and when all
//! have too many the call is refused. Lives on: one [`Rpc`] per shard.

pub mod balance;
mod budget;
pub mod frame;
pub mod target;

use crate::net::http::Status;
use crate::net::http::client::{Client, ClientError, Endpoint, Options};
use crate::net::http::framing::BodyLength;
use crate::net::http::request::Request;
use crate::observe::metrics::ShardMetrics;
use crate::runtime::{Moment, shard, timer};
use crate::service::pulse::{self, Calls, Report};
use crate::service::registry::Registry;
use balance::{Nobody, Nodes, Pick, Verdict};
use budget::Budget;
use frame::Framing;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use target::Targets;

/// The longest answer to a call.
const ANSWER_MAX: usize = 64 << 20;

/// How calls are made.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How often a call is tried at most, over different nodes; at least twice.
    pub attempts: u32,
    /// Connections that are kept unused, per node and shard.
    pub idle_max: usize,
    /// For how long.
    pub idle_timeout: Duration,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The service, by its whole name.
    pub service: String,
    /// Such as `Example.Call`.
    pub method: String,
    /// Asks this `host:port` and looks nothing up.
    pub address: Option<String>,
    /// How it is written.
    pub framing: Framing,
    /// What is asked.
    pub payload: Vec<u8>,
    /// Goes along in fields.
    pub fields: Vec<(String, String)>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No such service.
    Unknown,
    /// Every node has more calls than it should.
    Busy,
    /// No connection came about; whose, and why.
    Connect(String),
    /// Time ran out.
    Timeout,
    /// The node broke off, or answered with another status.
    Transport(String),
    /// What it answered cannot be read.
    Codec(String),
    /// It answered that it failed, so.
    Backend(String),
}

/// Calls from one shard.
pub struct Rpc {
    registry: Rc<Registry>,
    client: Rc<Client>,
    policy: Policy,
    nodes: RefCell<Nodes>,
    budget: RefCell<Budget>,
    /// By service; good while the registry has this version.
    targets: RefCell<HashMap<String, (u64, Rc<Targets>)>>,
    metrics: Arc<ShardMetrics>,
    calls: Calls,
}

impl Rpc {
    /// Calls what is in `registry`.
    pub fn new(registry: Rc<Registry>, policy: Policy, metrics: Arc<ShardMetrics>) -> Rc<Self> {
        Rc::new(Rpc {
            registry,
            client: Client::new(options(policy)),
            policy,
            nodes: RefCell::default(),
            budget: RefCell::new(Budget::new(shard::now())),
            targets: RefCell::default(),
            metrics,
            calls: Calls::default(),
        })
    }

    /// Makes a call and brings its result.
    pub async fn call(&self, call: &Call) -> Result<Vec<u8>, CallError> {
        let began = shard::now();
        let outcome = self.make(call).await;
        // Whoever names what is not there makes no entry.
        if call.address.is_none() && outcome != Err(CallError::Unknown) {
            self.calls.note(&call.service, shard::now().since(began), outcome.is_ok());
        }
        outcome
    }

    /// Notes a request that was passed on.
    pub fn note(&self, service: &str, began: Moment, is_good: bool) {
        self.calls.note(service, shard::now().since(began), is_good);
    }

    /// What this shard sees of services and nodes.
    pub fn report(&self, report: &mut Report) {
        report.services = self.calls.report();
        for (address, in_flight, rests) in self.nodes.borrow().each() {
            let node = pulse::Node { in_flight: in_flight as u64, resting: u64::from(rests) };
            report.nodes.insert(address.to_owned(), node);
        }
    }

    async fn make(&self, call: &Call) -> Result<Vec<u8>, CallError> {
        let deadline = shard::now() + call.timeout;
        let targets = match &call.address {
            Some(address) => Rc::new(Targets::one(address).ok_or(CallError::Unknown)?),
            None => self.targets(&call.service).ok_or(CallError::Unknown)?,
        };
        let body = call.framing.request(&call.method, &call.payload);
        let attempt = async |flight: &Flight<'_>| self.attempt(call, flight, &body).await;
        self.somewhere(&targets, Some(deadline), attempt).await
    }

    /// Does `attempt` at one of `targets`, and at another one as long as that is safe; by a deadline, if there is one.
    pub async fn somewhere<T>(
        &self,
        targets: &Targets,
        deadline: Option<Moment>,
        mut attempt: impl AsyncFnMut(&Flight<'_>) -> Result<T, Failure>,
    ) -> Result<T, CallError> {
        self.budget.borrow_mut().called();
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let shard = shard::current();
            let picked =
                self.nodes.borrow_mut().pick(targets.addresses(), &tried, shard.now(), shard.entropy());
            let pick = match picked {
                Ok(pick) => pick,
                Err(Nobody::Idle) => return Err(CallError::Busy),
                Err(Nobody::Left) => return Err(last.unwrap_or(CallError::Unknown)),
            };
            tried.push(pick.place);
            let flight = Flight::new(self, targets, pick, shard.now());
            let outcome = match deadline {
                Some(deadline) => timer::until(deadline, attempt(&flight)).await,
                None => Some(attempt(&flight).await),
            };
            let failure = match outcome {
                Some(Ok(value)) => {
                    flight.judge(Verdict::Good);
                    return Ok(value);
                }
                Some(Err(failure)) => failure,
                None => Failure::of_node(CallError::Timeout),
            };
            flight.judge(if failure.is_nodes { Verdict::Bad } else { Verdict::Good });
            drop(flight);
            let may = failure.may_repeat
                && tried.len() < self.policy.attempts.max(2) as usize
                && tried.len() < targets.addresses().len();
            if !may || !self.budget.borrow_mut().take(shard.now()) {
                return Err(failure.error);
            }
            self.metrics.rpc_retries.inc();
            last = Some(failure.error);
        }
    }

    async fn attempt(&self, call: &Call, flight: &Flight<'_>, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let address = flight.address();
        let failed = |error: ClientError| Failure::of(address, &error);
        let request = write(call, address, body.len()).map_err(|bad| failed(bad.into()))?;
        let mut answer = self.client.call(flight.endpoint(), &request, body).await.map_err(failed)?;
        let (status, phrase) = (answer.head().status(), lossy(answer.head().phrase()));
        let body = answer.read_whole(ANSWER_MAX).await.map_err(failed)?;
        let body =
            body.ok_or_else(|| Failure::of_node(CallError::Codec("http: response too large".into())))?;
        if status != Status::OK {
            let error = CallError::Transport(format!("{} {phrase}: {}", status.code(), lossy(&body)));
            return Err(Failure { is_nodes: is_fault(status), ..Failure::of_node(error) });
        }
        // An error that the node tells of is an answer: the node is well.
        let failed = |error| Failure { is_nodes: false, ..Failure::of_node(error) };
        call.framing.answer(&body).map_err(failed)
    }

    /// The nodes of a service, if it is known.
    pub fn targets(&self, service: &str) -> Option<Rc<Targets>> {
        let version = self.registry.version();
        if let Some((of, targets)) = self.targets.borrow().get(service)
            && *of == version
        {
            return Some(targets.clone());
        }
        let targets = Targets::of(&self.registry.table(), service);
        let mut kept = self.targets.borrow_mut();
        // What is not registered any more is not kept, nor is what chance or malice asks for.
        kept.retain(|_, (of, _)| *of == version);
        let targets = Rc::new(targets?);
        kept.insert(service.to_owned(), (version, targets.clone()));
        Some(targets)
    }

    /// The shard's connections.
    pub fn client(&self) -> Rc<Client> {
        self.client.clone()
    }
}

fn options(policy: Policy) -> Options {
    Options { idle_max: policy.idle_max, idle_timeout: policy.idle_timeout, ..Options::default() }
}

fn write(call: &Call, address: &str, len: usize) -> Result<Request, crate::net::http::request::BadRequest> {
    let mut request = Request::new("POST", "/", address)?;
    for (name, value) in &call.fields {
        request = request.header(name, value)?;
    }
    let kind = call.framing.content_type();
    let timeout = call.timeout.as_nanos().to_string();
    let request = request.header("Accept", kind)?.header("Content-Type", kind)?.header("Timeout", timeout)?;
    Ok(request.body(BodyLength::Exact(len as u64)))
}

/// An attempt that came to nothing.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why.
    pub error: CallError,
    /// Whether it speaks against the node.
    pub is_nodes: bool,
    /// Whether another node may be asked: certainly so when this one did not begin.
    pub may_repeat: bool,
}

impl Failure {
    fn of_node(error: CallError) -> Self {
        Failure { error, is_nodes: true, may_repeat: false }
    }

    /// The same for a request that may be made twice, as long as nothing of an answer came.
    pub fn of_repeatable(address: &str, error: &ClientError) -> Self {
        let failure = Failure::of(address, error);
        Failure { may_repeat: failure.may_repeat || error.is_unanswered(), ..failure }
    }

    /// What a client's error means for a call to `address`.
    pub fn of(address: &str, error: &ClientError) -> Self {
        let may_repeat = error.is_before_sending();
        let told = match error {
            ClientError::Resolve(error) => {
                CallError::Connect(format!("dial tcp {address}: {}", cause(error)))
            }
            ClientError::Connect(error) => {
                CallError::Connect(format!("dial tcp {address}: connect: {}", cause(error)))
            }
            ClientError::ConnectTimeout => CallError::Connect(format!("dial tcp {address}: i/o timeout")),
            ClientError::Busy => CallError::Busy,
            ClientError::Closed | ClientError::Truncated => CallError::Transport("EOF".into()),
            ClientError::HeadTimeout | ClientError::Stalled => CallError::Timeout,
            ClientError::Broken(error) => CallError::Transport(cause(error)),
            ClientError::NotHttp(_) | ClientError::Request(_) => CallError::Transport(error.to_string()),
        };
        let is_ours = matches!(error, ClientError::Busy | ClientError::Request(_));
        Failure { error: told, is_nodes: !is_ours, may_repeat }
    }
}

/// As Go puts it.
fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        io::ErrorKind::BrokenPipe => "broken pipe".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        _ => error.to_string(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether an answer speaks against who gave it.
fn is_fault(status: Status) -> bool {
    status.code() >= 500
}

/// A call under way to a node, counted until it is dropped.
pub struct Flight<'r> {
    rpc: &'r Rpc,
    targets: &'r Targets,
    pick: Pick,
    /// From here on the node's time counts.
    asked: Cell<Moment>,
    is_judged: Cell<bool>,
}

impl<'r> Flight<'r> {
    fn new(rpc: &'r Rpc, targets: &'r Targets, pick: Pick, now: Moment) -> Self {
        Flight { rpc, targets, pick, asked: Cell::new(now), is_judged: Cell::new(false) }
    }

    /// Whom it goes to.
    pub fn endpoint(&self) -> &'r Endpoint {
        self.targets.at(self.pick.place).0
    }

    /// Its address.
    pub fn address(&self) -> &'r str {
        self.targets.at(self.pick.place).1
    }

    /// The caller has sent its part only now: so far it was not the node that took its time.
    pub fn asked(&self) {
        self.asked.set(shard::now());
    }

    /// The node has begun to answer: what takes its time from here on, such as a reader, does not speak for or
    /// against it.
    pub fn answered(&self, status: Status) {
        self.judge(if is_fault(status) { Verdict::Bad } else { Verdict::Good });
    }

    /// The first word counts.
    fn judge(&self, verdict: Verdict) {
        if self.is_judged.replace(true) {
            return;
        }
        let now = shard::now();
        let mut nodes = self.rpc.nodes.borrow_mut();
        let after = now.since(self.asked.get());
        if nodes.judge(self.targets.addresses(), self.pick, verdict, after, now) {
            self.rpc.metrics.rpc_ejections.inc();
            tracing::warn!(node = self.address(), "resting after failures");
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.judge(Verdict::Open);
        self.rpc.nodes.borrow_mut().leave(self.targets.addresses(), self.pick);
    }
}

//! Blobs in an S3-compatible store elsewhere.
//!
//! Nothing is kept here: each operation is one request there, or a few. Bodies go through in both directions piece by
//! piece, so that memory depends on how many there are and not on how long they are.
//!
//! | here | there |
//! |---|---|
//! | a container | a bucket, whose name begins with the configured prefix |
//! | a key | a key, which has to be UTF-8 |
//! | the entity tag, the date | those that the store gives |
//! | headers, user metadata, checksums | header fields of the object |
//! | a blob of a group | a key below the group's name, in one bucket for all |
//!
//! A condition is looked at before, and sent along in `If-Match` and `If-None-Match`: it is as atomic as that store
//! makes it. What can be repeated without harm is, a few times, after a broken connection or a 5xx.
//! Invariant: a body that was not received and compared whole never becomes an object: its last byte is held back.
//! Lives on: one [`Remote`] per shard, with connections of its own; [`Readiness`] is shared by all.

mod ask;
mod containers;
mod error;
mod list;
mod multipart;
mod put;
mod read;
mod wire;

pub use error::RemoteError;
pub use put::RemoteUpload;
pub(super) use read::Object;
pub use read::{Ahead, Incoming};

use super::{BadName, BlobError, Name};
use crate::codec::sigv4::SigningKey;
use crate::codec::text::percent_encode;
use crate::net::http::client::{Client, Endpoint, Options};
use crate::net::tls::Trust;
use crate::runtime::notify::Notify;
use crate::runtime::{shard, timer};
use crate::service::owner::space;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How often is asked whether the store is there, while it is not.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Bytes of bodies of unknown length that may be gathered at the same time on one shard. Who finds no room waits.
const GATHERED_MAX: usize = 64 << 20;

/// Where the store is, and how we sign.
#[derive(Clone)]
pub struct Settings {
    /// Where to connect.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// What the field `Host` says.
    pub authority: Box<str>,
    /// Whom to trust; nothing for plain HTTP.
    pub trust: Option<Trust>,
    /// The region that signatures name.
    pub region: Box<str>,
    /// The id of the pair.
    pub key_id: Box<str>,
    /// Its secret.
    pub secret: Box<str>,
    /// What names of buckets begin with.
    pub bucket_prefix: Box<str>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({})", self.authority)
    }
}

/// Whether the store has answered, and how it does; read by anyone.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

/// How the store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Nobody has asked it.
    Starting,
    /// It has not been reached since the start.
    Unreached,
    /// It has been reached, and does not let us in.
    Denied,
    /// It has answered.
    Ready,
    /// It has answered once, and could not be reached the last time.
    Lost,
}

impl Readiness {
    /// How it does.
    pub fn state(&self) -> State {
        [State::Starting, State::Unreached, State::Denied, State::Ready, State::Lost]
            [usize::from(self.0.load(Ordering::Relaxed))]
    }

    fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    /// What an outcome says about the store, once it was ready.
    fn note(&self, is_there: bool) {
        match (self.state(), is_there) {
            (State::Ready, false) => self.set(State::Lost),
            (State::Lost, true) => self.set(State::Ready),
            _ => {}
        }
    }
}

impl State {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Unreached => "not reached yet",
            State::Denied => "it does not let us in",
            State::Ready => "ready",
            State::Lost => "lost; requests go on trying",
        }
    }

    /// Whether requests are taken.
    pub fn is_ready(self) -> bool {
        matches!(self, State::Ready | State::Lost)
    }
}

/// A store elsewhere, as one shard sees it.
pub struct Remote {
    settings: Settings,
    endpoint: Endpoint,
    client: Rc<Client>,
    readiness: Arc<Readiness>,
    /// The signing key of a day.
    key: RefCell<Option<([u8; 8], SigningKey)>>,
    gathered: Cell<usize>,
    freed: Notify,
}

/// A bucket and a key there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    bucket: String,
    key: Vec<u8>,
}

impl Remote {
    /// Connects to nothing yet.
    pub fn new(settings: Settings, readiness: Arc<Readiness>) -> Rc<Self> {
        let options = Options { idle_timeout: Duration::from_secs(5), ..Options::default() };
        let endpoint = match &settings.trust {
            None => Endpoint::new(&settings.host, settings.port),
            Some(trust) => Endpoint::tls(&settings.host, settings.port, trust.clone()),
        };
        Rc::new(Remote {
            settings,
            endpoint,
            client: Client::new(options),
            readiness,
            key: RefCell::default(),
            gathered: Cell::new(0),
            freed: Notify::new(),
        })
    }

    /// Asks the store until it answers, and has the bucket of groups made where they are kept there. On one shard.
    pub fn watch(self: &Rc<Self>, has_groups: bool) {
        let remote = self.clone();
        shard::spawn("wait for the remote store", async move {
            let mut told = State::Starting;
            loop {
                let mut state = remote.probe().await;
                if state.is_ready() && has_groups && !remote.prepare().await {
                    state = State::Denied;
                }
                if state != told {
                    tracing::info!(remote = %remote.settings.authority, state = state.text(), "remote store");
                    told = state;
                }
                remote.readiness.set(state);
                if state.is_ready() {
                    return;
                }
                timer::sleep(PROBE_INTERVAL).await;
            }
        });
    }

    fn demand_ready(&self) -> Result<(), BlobError> {
        let state = self.readiness.state();
        if state.is_ready() { Ok(()) } else { Err(RemoteError::NotReady(state.text()).into()) }
    }

    fn bucket(&self, container: &str) -> String {
        format!("{}{container}", self.settings.bucket_prefix)
    }

    fn place(&self, name: &Name) -> Result<Place, BlobError> {
        let key = match name.space() {
            space::BLOBS => name.key().to_vec(),
            _ => [percent_encode(name.container().as_bytes()).to_string().as_bytes(), b"/", name.key()]
                .concat(),
        };
        let container = if name.space() == space::BLOBS { name.container() } else { GROUPS };
        if std::str::from_utf8(&key).is_err() {
            return Err(RemoteError::Rejected("keys there are UTF-8".into()).into());
        }
        Ok(Place { bucket: self.bucket(container), key })
    }

    /// Waits for room for `len` gathered bytes, and takes it until the answer is dropped.
    async fn gather(self: &Rc<Self>, len: usize) -> Gathering {
        while self.gathered.get() + len > GATHERED_MAX {
            self.freed.wait().await;
        }
        self.gathered.set(self.gathered.get() + len);
        Gathering { remote: self.clone(), len }
    }
}

/// The container of what is in no container.
const GROUPS: &str = "ion";

/// Room for bytes in memory.
struct Gathering {
    remote: Rc<Remote>,
    len: usize,
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.remote.gathered.set(self.remote.gathered.get() - self.len);
        self.remote.freed.notify_all();
    }
}

impl From<RemoteError> for BlobError {
    fn from(error: RemoteError) -> Self {
        BlobError::Remote(error)
    }
}

impl From<BadName> for BlobError {
    fn from(bad: BadName) -> Self {
        RemoteError::Rejected(bad.to_string().into()).into()
    }
}

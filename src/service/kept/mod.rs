//! Topics that are kept: every message is a line of a stream, which subscribers read from where they like and go on live.
//!
//! | file | holds |
//! |---|---|
//! | [`desk`] | the appender of a topic, on its owner's shard |
//! | [`lines`] | lines of a stream, and where one of them begins |
//! | [`reader`] | a subscriber that reads: replay and live are the same |
//!
//! A topic is kept from the moment at which somebody asked for what was published before, by an offset, a time or a name;
//! every shard knows which are, and whoever publishes on one has its message appended before anyone gets it. A stream
//! has the id `micro/<topic>`; a *cursor*, where a durable subscriber goes on, is a stream without bytes beside it,
//! `micro/<topic>?durable=<name>`, whose metadata says it.
//!
//! Invariants: a message that was answered is committed in the store's class; a reader gets each line once and in order;
//! a cursor never passes what its subscriber has not acknowledged, and has one subscriber at a time, the latest. What
//! when full? A publisher is refused, before anything is appended; a reader that is slow is waited for, by nobody else.
//! Lives on: one [`Kept`] per shard.

mod desk;
mod lines;
mod reader;

pub use lines::Since;
pub use reader::Reader;

use crate::net::websocket::CloseCode;
use crate::net::websocket::session::Outbox;
use crate::runtime::mailbox::{self, Post, Reply};
use crate::runtime::notify::Notify;
use crate::runtime::park::Unpark;
use crate::runtime::{ShardId, shard, timer};
use crate::service::pulse::Report;
use crate::service::stream::{Id, Keeper, Keepers, Open, OpenError, Query, StoreError, Streams, Tail};
use bytes::Bytes;
use desk::Desk;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// One shard's mailbox of this service.
pub type Mailbox = mailbox::Mailbox<Ask, Answer>;

/// What stands between a topic and the name of a durable subscriber, in the id of a cursor.
const OF_CURSOR: &str = "?durable=";
/// How long a new subscriber waits for the one that it takes a name from.
const EVICTION_MAX: Duration = Duration::from_secs(2);
/// How often a shard that ends looks whether it can.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Names on a page when the topics are looked for.
const PAGE: usize = 1000;

/// What shards ask each other.
#[derive(Debug)]
pub enum Ask {
    /// To every shard: this topic is kept.
    Keep(Arc<str>),
    /// To the owner: have it there, and tell where its last whole line ends.
    Open(Arc<str>),
    /// To the owner: lines, in the order in which they are to stand.
    Append(Arc<str>, Vec<Bytes>),
    /// To the owner: the cursor is mine from now on, under this number of mine.
    Claim(Arc<str>, Arc<str>, u64),
    /// To a subscriber's shard: somebody else has your cursor. Answered once it is stored where it stands.
    Evict(u64),
}

/// Answers, in the order of the questions.
#[derive(Debug)]
pub enum Answer {
    /// To [`Ask::Keep`], [`Ask::Claim`] and [`Ask::Evict`].
    Done,
    /// To [`Ask::Open`].
    Opened(Result<Topic, KeptError>),
    /// To [`Ask::Append`].
    Appended(Result<(), KeptError>),
}

/// A topic that is there.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its bytes.
    pub tail: Arc<Tail>,
    /// Where its last whole line ends.
    pub end: u64,
}

/// Why something was not kept, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptError {
    /// A topic of this name cannot be kept, or a cursor so named.
    Name(&'static str),
    /// No message begins at this offset.
    NoMessage(u64),
    /// The topic ends here.
    Beyond(u64),
    /// The topic begins here.
    Trimmed(u64),
    /// There is no room: the quota, or the disk.
    Full,
    /// The store refused, or cannot be opened; why.
    Unavailable(String),
}

impl From<StoreError> for KeptError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace => KeptError::Full,
            StoreError::Trimmed(first) => KeptError::Trimmed(first),
            other => KeptError::Unavailable(other.to_string()),
        }
    }
}

impl fmt::Display for KeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeptError::Name(why) => f.write_str(why),
            KeptError::NoMessage(at) => write!(f, "no message begins at offset {at}"),
            KeptError::Beyond(end) => write!(f, "the topic ends at offset {end}"),
            KeptError::Trimmed(first) => {
                write!(f, "the topic begins at offset {first}; what was before is gone")
            }
            KeptError::Full => f.write_str("there is no room for more messages"),
            KeptError::Unavailable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for KeptError {}

/// What a shard gets when its streams can be had.
pub type Opening = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Where the streams come from that are not there from the start.
pub struct Later {
    /// Whether an earlier run left a data directory, in which topics may be kept.
    pub was_there: bool,
    /// Opens it; [`Kept::opened`] is called on every shard before it resolves.
    pub open: Box<dyn Fn() -> Opening>,
}

/// What all shards share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Bytes of all topics.
    bytes: AtomicU64,
    /// Shards whose connections have ended.
    left: AtomicUsize,
}

/// A topic, and the name of a durable subscriber.
type CursorOf = (Arc<str>, Arc<str>);
/// A topic, and the outbox of who reads it.
type Reading = (Arc<str>, Weak<Outbox>);

/// Kept topics as one shard sees them.
pub struct Kept {
    me: ShardId,
    post: OnceCell<Rc<Post<Ask, Answer>>>,
    streams: OnceCell<Rc<Streams>>,
    later: OnceCell<Later>,
    /// It was tried in vain to open what an earlier run left: told once.
    told: Cell<bool>,
    known: RefCell<HashSet<Arc<str>>>,
    /// As the owner.
    desks: RefCell<HashMap<Arc<str>, Rc<Desk>>>,
    uses: Cell<u64>,
    claims: RefCell<HashMap<CursorOf, (ShardId, u64)>>,
    /// As the subscriber's shard.
    subscribers: RefCell<HashMap<u64, Weak<Outbox>>>,
    readers: RefCell<HashMap<u64, Reading>>,
    /// Those whose cursor may still move.
    moving: RefCell<HashSet<u64>>,
    stopped: Notify,
    numbers: Cell<u64>,
    shared: Arc<Shared>,
    /// How many bytes all topics may have; 0 for any.
    quota: Cell<u64>,
}

impl Kept {
    /// Starts the service on the current shard, without streams.
    pub fn start(mailbox: Mailbox, unparks: Vec<Arc<Unpark>>, shared: Arc<Shared>) -> Rc<Self> {
        let kept = Rc::new(Kept {
            me: shard::current().id(),
            post: OnceCell::new(),
            streams: OnceCell::new(),
            later: OnceCell::new(),
            told: Cell::new(false),
            known: RefCell::default(),
            desks: RefCell::default(),
            uses: Cell::new(0),
            claims: RefCell::default(),
            subscribers: RefCell::default(),
            readers: RefCell::default(),
            moving: RefCell::default(),
            stopped: Notify::new(),
            numbers: Cell::new(0),
            shared,
            quota: Cell::new(0),
        });
        let answers = Rc::downgrade(&kept);
        let post = mailbox.open(unparks, move |from, question, reply| {
            if let Some(kept) = answers.upgrade() {
                kept.answer(from, question, reply);
            }
        });
        assert!(kept.post.set(post).is_ok(), "a service starts once");
        kept
    }

    /// The streams come later.
    pub fn set_later(&self, later: Later) {
        assert!(self.later.set(later).is_ok(), "said once");
    }

    /// How many bytes all topics may have together; 0 for any.
    pub fn set_quota(&self, bytes: u64) {
        self.quota.set(bytes);
    }

    /// The streams are there: finds out which topics are kept. To be waited for before anyone publishes.
    pub async fn opened(self: &Rc<Self>, streams: Rc<Streams>) -> Result<(), StoreError> {
        assert!(self.streams.set(streams.clone()).is_ok(), "opened once");
        let prefix = Bytes::from_static(Keeper::Micro.prefix().as_bytes());
        let mut query = Query { prefix, after: None, state: None, limit: PAGE };
        loop {
            let page = streams.list_of(query.clone(), Keepers::of([Keeper::Micro])).await?;
            for found in &page.streams {
                let topic = std::str::from_utf8(&found.id.as_bytes()[query.prefix.len()..]);
                let Some(topic) = topic.ok().filter(|topic| !topic.contains(OF_CURSOR)) else { continue };
                if self.owner_of(&streams, topic) == self.me {
                    self.shared.bytes.fetch_add(found.tail.stored(), Ordering::Relaxed);
                }
                self.known.borrow_mut().insert(topic.into());
            }
            let last = page.streams.last().map(|found| Bytes::copy_from_slice(found.id.as_bytes()));
            match last.filter(|_| page.has_more) {
                Some(last) => query.after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// What this shard sees of subscribers who read: how far the slowest is behind, in messages that wait for it.
    pub fn report(&self, report: &mut Report) {
        for (topic, outbox) in self.readers.borrow().values() {
            let Some(outbox) = outbox.upgrade() else { continue };
            let shown = report.topics.entry(topic.to_string()).or_default();
            shown.subscribers += 1;
            shown.waiting = shown.waiting.max(outbox.waiting() as u64);
        }
        for (topic, desk) in self.desks.borrow().iter() {
            let shown = report.topics.entry(topic.to_string()).or_default();
            shown.published = shown.published.max(desk.appended());
        }
    }

    /// Whether a topic is kept.
    pub fn is_kept(&self, topic: &str) -> bool {
        self.known.borrow().contains(topic)
    }

    /// The shard's connections have ended: waits, for a while, until those of the others have too, who may publish here,
    /// and until no cursor moves any more; then lets go of all appenders.
    pub async fn close(&self, patience: Duration) {
        self.shared.left.fetch_add(1, Ordering::Release);
        let shards = shard::current().count();
        let quiet = async {
            while self.shared.left.load(Ordering::Acquire) < shards || !self.moving.borrow().is_empty() {
                timer::sleep(LOOK_EVERY).await;
            }
        };
        timer::until(shard::now() + patience, quiet).await;
        self.desks.borrow_mut().clear();
    }

    /// Appends lines to a topic if it is kept, and says whether it is. Resolves once they are committed.
    pub async fn publish(&self, topic: &str, lines: Vec<Bytes>) -> Result<bool, KeptError> {
        if self.streams.get().is_none()
            && let Some(later) = self.later.get().filter(|later| later.was_there && !self.told.get())
            && let Err(why) = (later.open)().await
            && !self.told.replace(true)
        {
            tracing::warn!(why, "topics that an earlier run kept are not");
        }
        let Some(topic) = self.known.borrow().get(topic).cloned() else { return Ok(false) };
        let streams = self.streams.get().expect("a topic is known from its stream");
        match self.post().ask(self.owner_of(streams, &topic), Ask::Append(topic, lines)).await {
            Ok(Answer::Appended(outcome)) => outcome.map(|()| true),
            Ok(_) => unreachable!("every question has its own kind of answer"),
            Err(mailbox::Gone) => Err(closing()),
        }
    }

    /// Keeps a topic from now on, and reads it: from where `durable` was the last time, else since `since`, else what
    /// comes.
    pub async fn subscribe(
        self: &Rc<Self>,
        topic: &str,
        since: Option<Since>,
        durable: Option<&str>,
        outbox: &Rc<Outbox>,
    ) -> Result<Reader, KeptError> {
        let (topic, name): (Arc<str>, Option<Arc<str>>) = (topic.into(), durable.map(Into::into));
        id_of(&topic)?;
        if topic.contains('?') {
            return Err(KeptError::Name("a topic that is kept has no ? in its name"));
        }
        let cursor = name.as_ref().map(|name| cursor_of(&topic, name)).transpose()?;
        let streams = self.streams().await?;
        let number = self.numbers.replace(self.numbers.get() + 1);
        // Gone with an error, or with its reader.
        self.subscribers.borrow_mut().retain(|_, outbox| outbox.strong_count() > 0);
        if let Some(name) = &name {
            self.subscribers.borrow_mut().insert(number, Rc::downgrade(outbox));
            let claim = Ask::Claim(topic.clone(), name.clone(), number);
            self.post().ask(self.owner_of(&streams, &topic), claim).await.map_err(|_| closing())?;
        }
        let opened = self.open(&topic).await?;
        for shard in shard::current().all() {
            self.post().ask(shard, Ask::Keep(topic.clone())).await.map_err(|_| closing())?;
        }
        let stands = match &cursor {
            Some(cursor) => reader::load_cursor(&streams, cursor).await?,
            None => None,
        };
        let from = match (stands, since) {
            // Retention may have overtaken it; its subscriber goes on with what is there.
            (Some(next), _) => next.clamp(opened.tail.first(), opened.end),
            (None, Some(since)) => lines::begin(&streams, &opened, since, shard::current().wall()).await?,
            (None, None) => opened.end,
        };
        self.readers.borrow_mut().insert(number, (topic.clone(), Rc::downgrade(outbox)));
        Ok(Reader::new(self.clone(), topic, opened.tail, from, number, cursor))
    }

    /// The streams, opened if they are not yet.
    async fn streams(&self) -> Result<Rc<Streams>, KeptError> {
        if self.streams.get().is_none() {
            let later = self.later.get().ok_or_else(closing)?;
            (later.open)().await.map_err(KeptError::Unavailable)?;
        }
        self.streams.get().cloned().ok_or_else(closing)
    }

    async fn open(&self, topic: &Arc<str>) -> Result<Topic, KeptError> {
        let streams = self.streams().await?;
        match self.post().ask(self.owner_of(&streams, topic), Ask::Open(topic.clone())).await {
            Ok(Answer::Opened(opened)) => opened,
            Ok(_) => unreachable!("every question has its own kind of answer"),
            Err(mailbox::Gone) => Err(closing()),
        }
    }

    /// As the subscriber's shard: ends a subscriber, and waits a while until its cursor stands still.
    async fn evict(&self, number: u64) {
        let evicted = self.subscribers.borrow_mut().remove(&number);
        if let Some(outbox) = evicted.and_then(|outbox| outbox.upgrade()) {
            outbox.end(CloseCode::GOING_AWAY, "another subscriber has the name");
        }
        let still = async {
            while self.moving.borrow().contains(&number) {
                self.stopped.wait().await;
            }
        };
        timer::until(shard::now() + EVICTION_MAX, still).await;
    }

    fn post(&self) -> &Rc<Post<Ask, Answer>> {
        self.post.get().expect("set at the start")
    }

    fn owner_of(&self, streams: &Streams, topic: &str) -> ShardId {
        streams.owner_of_id(format!("{}{topic}", Keeper::Micro.prefix()).as_bytes())
    }

    fn answer(self: Rc<Self>, from: ShardId, question: Ask, reply: Option<Reply<Answer>>) {
        let answer = match question {
            Ask::Keep(topic) => {
                self.known.borrow_mut().insert(topic);
                Answer::Done
            }
            Ask::Claim(topic, name, number) => {
                let former = self.claims.borrow_mut().insert((topic, name), (from, number));
                return self.reply(reply, async move |kept| {
                    if let Some((shard, number)) = former {
                        let _ = kept.post().ask(shard, Ask::Evict(number)).await;
                    }
                    Answer::Done
                });
            }
            Ask::Evict(number) => {
                return self.reply(reply, async move |kept| {
                    kept.evict(number).await;
                    Answer::Done
                });
            }
            Ask::Open(topic) => {
                return self.reply(reply, async move |kept| Answer::Opened(kept.open_owned(topic).await));
            }
            Ask::Append(topic, lines) => {
                let append =
                    async move |kept: Rc<Self>| Answer::Appended(kept.append_owned(topic, lines).await);
                return self.reply(reply, append);
            }
        };
        if let Some(reply) = reply {
            reply.give(answer);
        }
    }

    fn reply<F>(self: Rc<Self>, reply: Option<Reply<Answer>>, work: impl FnOnce(Rc<Self>) -> F)
    where
        F: Future<Output = Answer> + 'static,
    {
        let work = work(self);
        // What has begun is finished, whether or not somebody waits for it.
        shard::spawn("kept topic", async move {
            let answer = work.await;
            if let Some(reply) = reply {
                reply.give(answer);
            }
        });
    }
}

/// The id of a topic's stream.
fn id_of(topic: &str) -> Result<Id, KeptError> {
    let why = "the name of a topic that is kept has at most 200 bytes and no control characters";
    let id = format!("{}{topic}", Keeper::Micro.prefix());
    let fits = topic.len() <= 200 && !topic.contains(char::is_control);
    Id::new(id.as_bytes()).ok().filter(|_| fits).ok_or(KeptError::Name(why))
}

/// The id of a cursor.
fn cursor_of(topic: &str, name: &str) -> Result<Id, KeptError> {
    let why =
        "topic and name of a durable subscriber have at most 230 bytes together and no control characters";
    let id = format!("{}{topic}{OF_CURSOR}{name}", Keeper::Micro.prefix());
    let fits = topic.len() + name.len() <= 230 && !name.contains(char::is_control);
    Id::new(id.as_bytes()).ok().filter(|_| fits).ok_or(KeptError::Name(why))
}

fn opened<T>(outcome: Result<T, OpenError>) -> Result<T, KeptError> {
    outcome.map_err(|error| match error {
        OpenError::Store(error) => error.into(),
        OpenError::Limit(_) => KeptError::Full,
        // Somebody else has it, or had it a moment ago.
        other => KeptError::Unavailable(other.to_string()),
    })
}

fn closing() -> KeptError {
    KeptError::Unavailable("the daemon is ending".to_owned())
}

/// How a cursor's stream is made anew.
fn replacing(metadata: String) -> Open {
    Open { force: true, metadata: metadata.into(), announced: Some(0) }
}

//! Named immutable bytes in containers.
//!
//! Who puts a blob sends its bytes to the store first, wherever the connection is; the owner of the name then decides
//! with one record: whether the conditions hold, and which bytes the name stands for from now on. So a blob appears
//! whole or not at all, the last to finish wins, and who opened a blob keeps the bytes that it had then.
//!
//! | who | has | decides |
//! |---|---|---|
//! | owner of the name | the blob's record, its place in the order of names | conditions, overwrites, deletions |
//! | home | bytes that came over its connections | nothing |
//! | owner of the container | the container's record | creation; deletion, which asks every owner of names |
//!
//! Lives on: one [`Blobs`] per shard. Every shard knows all containers.

mod containers;
pub mod digest;
mod door;
mod driver;
mod find;
mod limits;
mod list;
mod message;
mod multipart;
mod name;
mod pack;
mod properties;
mod put;
pub mod remote;
mod repack;
#[cfg(test)]
mod tests;

pub use door::CONTAINER as STREAMS;
pub use driver::{Driver, Upload};
pub use find::{Blob, Reader};
pub use limits::Limits;
pub use list::{Listed, Listing, Query, Start};
pub use message::{Answer, Ask, Mailbox};
pub use multipart::{Multipart, Part, PartOf, UploadId};
pub use name::{BadName, Name};
pub use properties::Properties;
pub use put::Stored;
pub use remote::{Remote, RemoteError};

pub use crate::net::http::condition::Tags;
pub use crate::service::stream::Look;
pub use crate::storage::StoreError;

use crate::observe::metrics::ShardMetrics;
use crate::runtime::gate::Gate;
use crate::runtime::mailbox::{Post, Reply};
use crate::runtime::park::Unpark;
use crate::runtime::{ShardId, shard};
use crate::service::owner;
use crate::storage::Store;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// The blobs as one shard sees them.
pub struct Blobs {
    store: Rc<Store>,
    metrics: Arc<ShardMetrics>,
    limits: Cell<Limits>,
    post: OnceCell<Rc<Post<Ask, Answer>>>,
    containers: containers::Table,
    /// To what is kept as streams.
    door: OnceCell<door::Door>,
    packer: pack::Packer,
    /// Something was replaced or deleted since the last look for sparse packs.
    churned: Cell<bool>,
    /// One pass per upload, until it is committed.
    putting: Gate,
}

/// Asks another shard and unwraps the kind of answer that the question has.
macro_rules! ask {
    ($blobs:expr, $to:expr, $question:expr, $answer:path) => {
        match $blobs.post().ask($to, $question).await {
            Ok($answer(answer)) => answer,
            Ok(_) => unreachable!("every question has its own kind of answer"),
            Err($crate::runtime::mailbox::Gone) => {
                Err($crate::service::blob::BlobError::Store($crate::storage::StoreError::Closing))
            }
        }
    };
    ($blobs:expr, $to:expr, $question:expr, $answer:path, $error:expr) => {
        match $blobs.post().ask($to, $question).await {
            Ok($answer(answer)) => answer.map_err($error),
            Ok(_) => unreachable!("every question has its own kind of answer"),
            Err($crate::runtime::mailbox::Gone) => {
                Err($crate::service::blob::BlobError::Store($crate::storage::StoreError::Closing))
            }
        }
    };
}
use ask;

/// A container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    /// Its name.
    pub name: Box<str>,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
}

/// A condition on what a name stands for, decided together with the change that it guards.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct When {
    /// Something must be there, and have one of these entity tags if there are any.
    pub matches: Option<Tags>,
    /// Nothing may be there, or nothing with one of these entity tags.
    pub matches_none: Option<Tags>,
}

/// Why something was not done. Nothing changed then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BlobError {
    /// There is no such container.
    NoSuchContainer,
    /// A container with blobs is not deleted.
    ContainerNotEmpty,
    /// The container is that of the streams: who keeps a stream alone writes and deletes it, and the container stays.
    Reserved,
    /// Bytes of a stream can be read and not be copied.
    NotCopied,
    /// There is no such blob, and the condition wants one.
    NoSuchBlob,
    /// There is no such multipart upload.
    NoSuchUpload,
    /// A part that is to be composed is not there, or has another entity tag.
    InvalidPart(u16),
    /// The condition does not hold.
    Precondition,
    /// All blobs together may have this many bytes.
    Quota(u64),
    /// There may be this many blobs.
    Count(u64),
    /// A blob that is composed would lie in so many pieces, more than the store can say of one.
    TooManyPieces(usize),
    /// What is kept beside a blob has so many bytes, more than [`Properties::BYTES_MAX`].
    PropertiesTooLong(usize),
    /// The store elsewhere did not do it, or nobody knows.
    Remote(RemoteError),
    /// The store refused.
    Store(StoreError),
}

impl From<StoreError> for BlobError {
    fn from(error: StoreError) -> Self {
        BlobError::Store(error)
    }
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobError::NoSuchContainer => f.write_str("there is no such container"),
            BlobError::ContainerNotEmpty => f.write_str("the container is not empty"),
            BlobError::Reserved => {
                write!(f, "{STREAMS} shows streams; only the dialect that keeps one writes and deletes it")
            }
            BlobError::NotCopied => f.write_str("a stream is not copied; read it and put what was read"),
            BlobError::NoSuchBlob => f.write_str("there is no such blob"),
            BlobError::NoSuchUpload => f.write_str("there is no such upload"),
            BlobError::InvalidPart(number) => write!(f, "part {number} is not there, or is another one"),
            BlobError::Precondition => f.write_str("the condition does not hold"),
            BlobError::Quota(bytes) => write!(f, "blobs may have {bytes} bytes together"),
            BlobError::Count(count) => write!(f, "there may be {count} blobs"),
            BlobError::TooManyPieces(count) => {
                write!(f, "it would lie in {count} pieces; up to 10,000 are possible")
            }
            BlobError::PropertiesTooLong(len) => {
                write!(f, "headers and metadata have {len} bytes; up to {} are kept", Properties::BYTES_MAX)
            }
            BlobError::Remote(error) => error.fmt(f),
            BlobError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BlobError {}

impl Blobs {
    /// Starts the service on the current shard, whose store was started before. [`Blobs::load`] comes next.
    pub fn start(
        store: Rc<Store>,
        mailbox: Mailbox,
        unparks: Vec<Arc<Unpark>>,
        metrics: Arc<ShardMetrics>,
    ) -> Rc<Self> {
        let blobs = Rc::new(Blobs {
            store,
            metrics,
            limits: Cell::default(),
            post: OnceCell::new(),
            containers: containers::Table::default(),
            door: OnceCell::new(),
            packer: pack::Packer::default(),
            churned: Cell::new(true),
            putting: Gate::new(),
        });
        let answers = Rc::downgrade(&blobs);
        let post = mailbox.open(unparks, move |_, question, reply| {
            if let Some(blobs) = answers.upgrade() {
                blobs.answer(question, reply);
            }
        });
        assert!(blobs.post.set(post).is_ok(), "a service starts once");
        blobs.start_repacking();
        blobs
    }

    /// Takes no new uploads, and resolves once those that are there are committed or gone.
    pub async fn drain(&self) {
        self.putting.close();
        self.putting.closed().await;
        self.packer.close(&self.store).await;
    }

    fn post(&self) -> &Post<Ask, Answer> {
        self.post.get().expect("set at the start")
    }

    fn owner_of(&self, name: &Name) -> ShardId {
        owner::of(&self.store, &name.store_key())
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        shard::current().all()
    }

    /// What this shard does with a message. What can be said at once is said at once; the rest in a task.
    fn answer(self: Rc<Self>, question: Ask, reply: Option<Reply<Answer>>) {
        match question {
            Ask::Put { target, content, properties, when } => self.reply(reply, async move |blobs| {
                Answer::Stored(blobs.decide_put(target, content, properties, when).await)
            }),
            Ask::Find(name) => {
                self.reply(reply, async move |blobs| Answer::Found(blobs.look_up(&name).await));
            }
            Ask::Delete(name, when) => {
                self.reply(reply, async move |blobs| Answer::Changed(blobs.decide_delete(name, when).await))
            }
            Ask::List(space, container, query) => self.reply(reply, async move |blobs| {
                Answer::Listed(blobs.list_owned(space, container, query).await)
            }),
            Ask::Begin(name, properties) => self
                .reply(reply, async move |blobs| Answer::Begun(blobs.decide_begin(name, properties).await)),
            Ask::Parts(name, id, after, limit) => self.reply(reply, async move |blobs| {
                Answer::Parts(blobs.parts_owned(name, id, after, limit).await)
            }),
            Ask::Complete(name, id, parts, properties, when) => self.reply(reply, async move |blobs| {
                Answer::Stored(blobs.decide_complete(name, id, parts, properties, when).await)
            }),
            Ask::Abort(name, id) => {
                self.reply(reply, async move |blobs| Answer::Done(blobs.decide_abort(name, id).await));
            }
            Ask::Uploads(container, prefix, after, limit) => self.reply(reply, async move |blobs| {
                Answer::Uploads(blobs.uploads_owned(container, prefix, after, limit).await)
            }),
            Ask::CreateContainer(name) => {
                self.reply(reply, async move |blobs| Answer::Changed(blobs.decide_create(name).await));
            }
            Ask::DeleteContainer(name) => {
                self.reply(reply, async move |blobs| Answer::Done(blobs.decide_delete_container(name).await))
            }
            Ask::Bar(name) => self.reply(reply, async move |blobs| Answer::Empty(blobs.bar(name).await)),
            Ask::Containers => give(reply, Answer::Containers(Ok(self.owned_containers()))),
            Ask::Created(container) => {
                self.note_created(container);
                give(reply, Answer::Noted(Ok(())));
            }
            Ask::Unbar(name) => {
                self.note_kept(&name);
                give(reply, Answer::Noted(Ok(())));
            }
            Ask::Deleted(name) => {
                self.note_deleted(&name);
                give(reply, Answer::Noted(Ok(())));
            }
        }
    }

    fn reply<F>(self: Rc<Self>, reply: Option<Reply<Answer>>, work: impl FnOnce(Rc<Self>) -> F)
    where
        F: Future<Output = Answer> + 'static,
    {
        let work = work(self);
        shard::spawn("blob answer", async move { give(reply, work.await) });
    }
}

fn give(reply: Option<Reply<Answer>>, answer: Answer) {
    if let Some(reply) = reply {
        reply.give(answer);
    }
}

//! What shards ask and tell each other about blobs.
//!
//! Invariant: every question has its own kind of answer, and whoever is asked answers from its own state alone.
//! Lives on: between shards, so everything here is `Send`.

use super::list::{Query, Share};
use super::multipart::{PartOf, PartsOf, UploadId, Uploads};
use super::{BlobError, Container, Name, Stored, When};
use crate::runtime::mailbox;
use crate::storage::{Link, Part, StoreError};
use bytes::Bytes;

/// One shard's mailbox of this service.
pub type Mailbox = mailbox::Mailbox<Ask, Answer>;

/// The bytes of something that is put.
#[derive(Debug)]
pub enum Content {
    /// Few: they go into the owner's pack.
    Small(Bytes),
    /// They are stored already.
    Parts(Vec<Part>),
}

/// What is put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A blob.
    Blob(Name),
    /// A part of an upload.
    Part(Name, UploadId, u16),
}

impl Target {
    /// The blob's name.
    pub fn name(&self) -> &Name {
        match self {
            Target::Blob(name) | Target::Part(name, ..) => name,
        }
    }
}

/// A question or a statement.
#[derive(Debug)]
pub enum Ask {
    /// To the owner of the name: put it.
    Put {
        /// What.
        target: Target,
        /// Its bytes.
        content: Content,
        /// What is kept beside them, as the store keeps it.
        properties: Box<[u8]>,
        /// On which condition.
        when: When,
    },
    /// To the owner of the name: what does it stand for?
    Find(Name),
    /// To the owner of the name: delete it.
    Delete(Name, When),
    /// To every owner: your share of a page of a container in a space.
    List(u8, Box<str>, Query),
    /// To the owner of the name: begin an upload with these properties.
    Begin(Name, Box<[u8]>),
    /// To the owner of the name: the upload and its parts above this number, at most so many and one more.
    Parts(Name, UploadId, u16, usize),
    /// To the owner of the name: compose it.
    Complete(Name, UploadId, Vec<PartOf>, Box<[u8]>, When),
    /// To the owner of the name: take the upload back.
    Abort(Name, UploadId),
    /// To every owner: your uploads in a container whose keys begin so, behind this one, at most so many and one more.
    Uploads(Box<str>, Box<[u8]>, Option<(Box<[u8]>, UploadId)>, usize),
    /// To the owner of the container: create it.
    CreateContainer(Box<str>),
    /// To the owner of the container: delete it.
    DeleteContainer(Box<str>),
    /// To every shard at its start: which containers do you own?
    Containers,
    /// To every shard: this container is there now.
    Created(Container),
    /// To every shard: put nothing into this container until you hear more; is your part of it empty?
    Bar(Box<str>),
    /// To every shard: it stays after all.
    Unbar(Box<str>),
    /// To every shard: it is gone.
    Deleted(Box<str>),
}

/// What a name stands for.
pub type Found = Option<Link>;

/// An answer, in the order of the questions.
#[derive(Debug)]
pub enum Answer {
    /// To [`Ask::Put`] and [`Ask::Complete`].
    Stored(Result<Stored, BlobError>),
    /// To [`Ask::Find`].
    Found(Result<Found, BlobError>),
    /// To [`Ask::Delete`] and [`Ask::CreateContainer`]: whether something changed.
    Changed(Result<bool, BlobError>),
    /// To [`Ask::List`].
    Listed(Result<Share, BlobError>),
    /// To [`Ask::Begin`].
    Begun(Result<UploadId, BlobError>),
    /// To [`Ask::Parts`].
    Parts(Result<PartsOf, BlobError>),
    /// To [`Ask::Uploads`].
    Uploads(Result<Uploads, BlobError>),
    /// To [`Ask::Abort`] and [`Ask::DeleteContainer`].
    Done(Result<(), BlobError>),
    /// To [`Ask::Containers`].
    Containers(Result<Vec<Container>, StoreError>),
    /// To [`Ask::Bar`].
    Empty(Result<bool, StoreError>),
    /// To [`Ask::Created`], [`Ask::Unbar`] and [`Ask::Deleted`].
    Noted(Result<(), StoreError>),
}

//! What shards ask each other about chains.
//!
//! Invariant: every question has its own kind of answer, and whoever is asked answers from its own state alone.
//! Lives on: between shards, so everything here is `Send`.

use super::Identity;
use super::commit::{Commit, CommitError, Committed};
use super::document::Document;
use super::registry::Registration;
use super::topic::{Events, Topic};
use crate::runtime::mailbox;
use crate::service::blob::BlobError;
use crate::storage::StoreError;

/// One shard's mailbox of this service.
pub type Mailbox = mailbox::Mailbox<Ask, Answer>;

/// A question.
#[derive(Debug)]
pub enum Ask {
    /// To the owner of the module: commit it.
    Commit(Identity, Commit),
    /// To every shard: the documents of this chain that you own.
    Chain(Box<str>),
    /// To every shard: is what you have of this chain's events in its stream?
    Settle(Box<str>),
    /// To the owner of the topic: append these.
    Append(Box<str>, Events),
    /// To the owner of the module: keep this registration.
    Register(Box<str>, Registration),
    /// To the owner of the module: it is taken out.
    TakeOut(Box<str>),
    /// To the owner of the topic: where is it, and make it if it is to be followed.
    Topic(Box<str>, bool),
}

/// An answer, in the order of the questions.
#[derive(Debug)]
pub enum Answer {
    /// To [`Ask::Commit`].
    Committed(Result<Committed, CommitError>),
    /// To [`Ask::Chain`].
    Chain(Result<Vec<Document>, StoreError>),
    /// To [`Ask::Settle`].
    Settled(Result<(), StoreError>),
    /// To [`Ask::Append`].
    Appended(Result<(), StoreError>),
    /// To [`Ask::Register`].
    Done(Result<(), BlobError>),
    /// To [`Ask::TakeOut`]: whether there was one.
    Changed(Result<bool, BlobError>),
    /// To [`Ask::Topic`].
    Topic(Result<Option<Topic>, StoreError>),
}

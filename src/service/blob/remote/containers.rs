//! Buckets there, as containers.
//!
//! Lives on: the connection's shard.

use super::ask::Ask;
use super::{Remote, RemoteError, wire};
use crate::codec::xml::Xml;
use crate::codec::xml_in::{BadXml, Seen, walk};
use crate::service::blob::{BlobError, Container, STREAMS};
use std::rc::Rc;

/// The longest document of a listing: a thousand keys of a thousand bytes, each escaped.
pub(super) const DOCUMENT_MAX: usize = 16 << 20;
/// Pages of buckets that are followed; a page has up to ten thousand.
const PAGES_MAX: usize = 100;

impl Remote {
    /// All containers, in the order of their names.
    pub async fn containers(self: &Rc<Self>) -> Result<Vec<Container>, BlobError> {
        let (mut found, mut token) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let mut ask = Ask::root("GET").query("prefix", self.settings.bucket_prefix.as_bytes());
            if let Some(token) = token.take() {
                ask = ask.query("continuation-token", token);
            }
            let document = self.document(&ask, b"").await?;
            let (mut name, mut created_ms) = (String::new(), 0);
            read(&document, "ListAllMyBucketsResult", |path, seen| match (path, seen) {
                (["Buckets", "Bucket", "Name"], Seen::Text(text)) => name = text.to_owned(),
                (["Buckets", "Bucket", "CreationDate"], Seen::Text(text)) => created_ms = wire::moment(text),
                (["Buckets", "Bucket"], Seen::Close) => {
                    let ours = name.strip_prefix(&*self.settings.bucket_prefix);
                    // Not every store minds the prefix; and this name is a container that is not there.
                    if let Some(name) = ours.filter(|name| !name.is_empty() && *name != STREAMS) {
                        found.push(Container { name: name.into(), created_ms });
                    }
                }
                (["ContinuationToken"], Seen::Text(text)) if !text.is_empty() => {
                    token = Some(text.as_bytes().to_vec());
                }
                _ => {}
            })?;
            if token.is_none() {
                break;
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Whether there is one.
    pub async fn has_container(self: &Rc<Self>, name: &str) -> Result<bool, BlobError> {
        match self.ask(&Ask::bucket("HEAD", &self.bucket(name)), b"").await {
            Ok(_) => Ok(true),
            Err(BlobError::Remote(RemoteError::Absent) | BlobError::NoSuchContainer) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes one; false when it is there already.
    pub async fn create_container(self: &Rc<Self>, name: &str) -> Result<bool, BlobError> {
        if self.has_container(name).await? {
            return Ok(false);
        }
        let body = self.configuration();
        let ask = Ask::bucket("PUT", &self.bucket(name));
        match self.ask(&ask, &body).await {
            Ok(_) => Ok(true),
            Err(BlobError::Remote(RemoteError::Rejected(why)))
                if why.ends_with("BucketAlreadyOwnedByYou") =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the bucket of groups, if it is not there; whether it is then.
    pub(super) async fn prepare(self: &Rc<Self>) -> bool {
        let bucket = self.bucket(super::GROUPS);
        let status = async |ask: Ask, body: &[u8]| match self.ask_anyhow(&ask, body).await {
            Ok(call) => call.head().status().code(),
            Err(_) => 0,
        };
        match status(Ask::bucket("HEAD", &bucket), b"").await {
            404 => {
                let made = status(Ask::bucket("PUT", &bucket), &self.configuration()).await;
                // Somebody else may have been first.
                matches!(made, 200..=299 | 409)
            }
            status => matches!(status, 200..=299),
        }
    }

    /// What says where a bucket shall be; the first region of all is the one that is not named.
    fn configuration(&self) -> Vec<u8> {
        match &*self.settings.region {
            "us-east-1" => Vec::new(),
            region => {
                let mut xml = Xml::in_namespace("CreateBucketConfiguration", XMLNS);
                xml.element("LocationConstraint", region);
                xml.finish()
            }
        }
    }

    /// Deletes an empty one.
    pub async fn delete_container(self: &Rc<Self>, name: &str) -> Result<(), BlobError> {
        self.ask(&Ask::bucket("DELETE", &self.bucket(name)), b"").await.map(drop)
    }

    /// The whole document that answers.
    pub(super) async fn document(&self, ask: &Ask, body: &[u8]) -> Result<Vec<u8>, BlobError> {
        let mut call = self.ask(ask, body).await?;
        let document = call.read_whole(DOCUMENT_MAX).await.map_err(|error| self.lost(error))?;
        Ok(document.ok_or(RemoteError::Malformed("the document has no end"))?)
    }
}

/// The namespace of documents.
pub(super) const XMLNS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Reads a document that must have `root`.
pub(super) fn read(
    document: &[u8],
    root: &str,
    mut look: impl FnMut(&[&str], Seen<'_>),
) -> Result<(), BlobError> {
    let read = walk::<BadXml>(document, root, |path, seen| {
        look(path, seen);
        Ok(())
    });
    read.map_err(|BadXml(what)| RemoteError::Malformed(what).into())
}

//! Where blobs are: in our own segments, or in a store elsewhere.
//!
//! | the seam's operation | here | there |
//! |---|---|---|
//! | container list, create, delete | [`Driver::container_list`], [`Driver::container_create`], [`Driver::container_delete`] | buckets |
//! | container options | [`Driver::container_options`]: not implemented by either | |
//! | file list | [`Driver::file_list`] | ListObjectsV2 |
//! | file read | [`Driver::file_read`], with `head` for its headers alone ([`Driver::file_head`]), then [`Driver::stream`] | HeadObject, GetObject |
//! | file create | [`Driver::file_create`], then the bytes, then [`Upload::commit`] | PutObject |
//! | file copy, delete | [`Driver::file_copy`], [`Driver::file_delete`] | CopyObject, DeleteObject |
//!
//! An answer is a value: what there is, its headers as [`Properties`], its bytes as a [`Reader`]; or a [`BlobError`], which
//! each dialect turns into its own code. Which driver it is was decided at the start: each operation is one `match`, and
//! the segments' way through it allocates nothing and waits for nothing that it would not wait for otherwise.
//! The container of streams is here whatever the driver: streams lie in our segments.
//! Lives on: the connection's shard.

use super::multipart::PartOf;
use super::put;
use super::remote::{Ahead, Remote, RemoteError, RemoteUpload};
use super::{
    Blob, BlobError, Blobs, Container, Listing, Multipart, Name, Part, Properties, Query, Reader, STREAMS,
    Stored, UploadId, When,
};
use crate::service::stream::Follower;
use std::ops::Range;
use std::rc::Rc;

/// One of the drivers.
#[derive(Clone)]
pub enum Driver {
    /// Our own segments.
    Segments(Rc<Blobs>),
    /// An S3-compatible store elsewhere; and where streams are.
    S3(Rc<Remote>, Rc<Blobs>),
}

/// Where one container is.
enum At<'d> {
    Here(&'d Rc<Blobs>),
    There(&'d Rc<Remote>),
}

use At::{Here, There};

impl Driver {
    fn at(&self, container: &str) -> At<'_> {
        match self {
            Driver::Segments(blobs) => Here(blobs),
            Driver::S3(_, blobs) if container == STREAMS => Here(blobs),
            Driver::S3(remote, _) => There(remote),
        }
    }

    fn of(&self, name: &Name) -> At<'_> {
        match self {
            Driver::Segments(blobs) => Here(blobs),
            Driver::S3(remote, _) if !name.is_in_container() => There(remote),
            Driver::S3(..) => self.at(name.container()),
        }
    }

    /// Whether blobs are elsewhere.
    pub fn is_remote(&self) -> bool {
        matches!(self, Driver::S3(..))
    }

    /// All containers, in the order of their names.
    pub async fn container_list(&self) -> Result<Vec<Container>, BlobError> {
        let (remote, blobs) = match self {
            Driver::Segments(blobs) => return Ok(blobs.containers()),
            Driver::S3(remote, blobs) => (remote, blobs),
        };
        let mut all = remote.containers().await?;
        all.extend(blobs.container(STREAMS));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Refuses a container that is not there.
    pub async fn demand_container(&self, name: &str) -> Result<(), BlobError> {
        let is_there = match self.at(name) {
            Here(blobs) => blobs.container(name).is_some(),
            There(remote) => remote.has_container(name).await?,
        };
        if is_there { Ok(()) } else { Err(BlobError::NoSuchContainer) }
    }

    /// Creates a container; false when it is there already.
    pub async fn container_create(&self, name: &str) -> Result<bool, BlobError> {
        match self.at(name) {
            Here(blobs) => blobs.create_container(name).await,
            There(remote) => remote.create_container(name).await,
        }
    }

    /// Deletes an empty container.
    pub async fn container_delete(&self, name: &str) -> Result<(), BlobError> {
        match self.at(name) {
            Here(blobs) => blobs.delete_container(name).await,
            There(remote) => remote.delete_container(name).await,
        }
    }

    /// Options and policies of a container, which neither driver has.
    pub async fn container_options(&self, name: &str) -> Result<Properties, BlobError> {
        self.demand_container(name).await?;
        Err(RemoteError::NotOffered("options of a container").into())
    }

    /// A page of a container's files.
    pub async fn file_list(&self, container: &str, query: Query) -> Result<Listing, BlobError> {
        match self.at(container) {
            Here(blobs) => blobs.list(container, query).await,
            There(remote) => remote.list(container, &query).await,
        }
    }

    /// A page of a group's files.
    pub async fn group_list(&self, space: u8, group: &str, query: Query) -> Result<Listing, BlobError> {
        match self {
            Driver::Segments(blobs) => blobs.list_group(space, group, query).await,
            Driver::S3(remote, _) => remote.list_group(space, group, &query).await,
        }
    }

    /// A file, and what comes ahead of asking for its bytes; nothing does with `head`.
    pub async fn file_read(&self, name: &Name, head: bool) -> Result<Option<(Blob, Ahead)>, BlobError> {
        match self.of(name) {
            Here(blobs) => Ok(blobs.find(name).await?.map(|blob| (blob, Ahead::default()))),
            There(remote) => remote.find(name, head).await,
        }
    }

    /// A file of which the headers are enough.
    pub async fn file_head(&self, name: &Name) -> Result<Option<Blob>, BlobError> {
        Ok(self.file_read(name, true).await?.map(|(blob, _)| blob))
    }

    /// Bytes `from..to` of a file.
    pub fn stream(&self, blob: &Blob, ahead: Ahead, from: u64, to: u64) -> Reader {
        match (self.of(&blob.name), blob.object()) {
            (There(remote), Some(object)) => {
                Reader::Remote(Box::new(remote.read(object, blob, ahead, from, to)))
            }
            (Here(blobs), _) => blobs.read(blob, from, to),
            (There(_), None) => unreachable!("it was found there"),
        }
    }

    /// Follows a file that is a stream.
    pub fn follow(&self, blob: &Blob, from: u64) -> Option<Follower> {
        match self {
            Driver::Segments(blobs) | Driver::S3(_, blobs) => blobs.follow(blob, from),
        }
    }

    /// Begins to put a file. `properties` and `when` are what is known of them before the bytes come.
    pub async fn file_create(
        &self,
        name: Name,
        announced: Option<u64>,
        properties: &Properties,
        when: &When,
    ) -> Result<Upload, BlobError> {
        match self.of(&name) {
            Here(blobs) => Ok(Upload::Here(blobs.put(name, announced).await?)),
            There(remote) => Ok(Upload::There(remote.put(&name, announced, properties, when)?)),
        }
    }

    /// Has `to` be what `from` is, with `properties`.
    pub async fn file_copy(
        &self,
        from: &Blob,
        to: Name,
        properties: Properties,
        when: When,
    ) -> Result<Stored, BlobError> {
        match self.of(&to) {
            Here(blobs) => blobs.copy(from, to, properties, when).await,
            There(remote) => remote.copy(from, &to, &properties, &when).await,
        }
    }

    /// Deletes a file. True unless it is known that there was none.
    pub async fn file_delete(&self, name: &Name, when: When) -> Result<bool, BlobError> {
        match self.of(name) {
            Here(blobs) => blobs.delete(name, when).await,
            There(remote) => remote.delete(name, &when).await.map(|()| true),
        }
    }
}

/// Uploads in parts.
impl Driver {
    /// Begins one.
    pub async fn begin(&self, name: &Name, properties: Properties) -> Result<UploadId, BlobError> {
        match self.of(name) {
            Here(blobs) => blobs.begin(name, properties).await,
            There(remote) => remote.begin_upload(name, &properties).await,
        }
    }

    /// Begins to put a part.
    pub async fn put_part(
        &self,
        name: &Name,
        id: &UploadId,
        number: u16,
        announced: Option<u64>,
    ) -> Result<Upload, BlobError> {
        match self.of(name) {
            Here(blobs) => Ok(Upload::Here(blobs.put_part(name, id, number, announced).await?)),
            There(remote) => Ok(Upload::There(remote.put_part(name, id, number, announced)?)),
        }
    }

    /// Puts a range of a file as a part.
    pub async fn copy_part(
        &self,
        source: &Blob,
        range: Range<u64>,
        name: &Name,
        id: &UploadId,
        number: u16,
        properties: Properties,
    ) -> Result<Stored, BlobError> {
        match self.of(name) {
            Here(blobs) => blobs.copy_part(source, range, name, id, number, properties).await,
            There(remote) => remote.copy_part(source, range, name, id, number).await,
        }
    }

    /// An upload and a page of its parts; whether there are more.
    pub async fn parts(
        &self,
        name: &Name,
        id: &UploadId,
        after: u16,
        limit: usize,
    ) -> Result<(Multipart, Vec<Part>, bool), BlobError> {
        match self.of(name) {
            Here(blobs) => blobs.parts(name, id, after, limit).await,
            There(remote) => remote.parts(name, id, after, limit).await,
        }
    }

    /// Composes parts.
    pub async fn complete(
        &self,
        name: &Name,
        id: &UploadId,
        parts: Vec<PartOf>,
        properties: Properties,
        when: When,
    ) -> Result<Stored, BlobError> {
        match self.of(name) {
            Here(blobs) => blobs.complete(name, id, parts, properties, when).await,
            There(remote) => remote.complete(name, id, &parts, &when).await,
        }
    }

    /// Takes one back.
    pub async fn abort(&self, name: &Name, id: &UploadId) -> Result<(), BlobError> {
        match self.of(name) {
            Here(blobs) => blobs.abort(name, id).await,
            There(remote) => remote.abort(name, id).await,
        }
    }

    /// Those of a container, behind all of a key or behind one of them; whether there are more.
    pub async fn uploads(
        &self,
        container: &str,
        prefix: &[u8],
        after: Option<(Box<[u8]>, Option<UploadId>)>,
        limit: usize,
    ) -> Result<(Vec<Multipart>, bool), BlobError> {
        match self.at(container) {
            Here(blobs) => {
                let after = after.map(|(key, id)| (key, id.unwrap_or_else(UploadId::last)));
                blobs.uploads(container, prefix, after, limit).await
            }
            There(remote) => remote.uploads(container, prefix, after, limit).await,
        }
    }
}

/// A file on its way in. Dropping it takes it back.
#[allow(
    clippy::large_enum_variant,
    reason = "one lives per request, in its task; a box would be an allocation more"
)]
pub enum Upload {
    /// Into our segments.
    Here(put::Upload),
    /// Into the store elsewhere.
    There(RemoteUpload),
}

impl Upload {
    /// Passes on what the last receive brought. To be called before the first receive and after each one.
    pub async fn make_room(&mut self) -> Result<(), BlobError> {
        match self {
            Upload::Here(upload) => upload.make_room().await,
            Upload::There(upload) => upload.make_room().await,
        }
    }

    /// Takes what a receive brought, without waiting.
    pub fn take(&mut self, bytes: &[u8]) {
        match self {
            Upload::Here(upload) => upload.take(bytes),
            Upload::There(upload) => upload.take(bytes),
        }
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        match self {
            Upload::Here(upload) => upload.size(),
            Upload::There(upload) => upload.size(),
        }
    }

    /// Has the name stand for the bytes, if `when` holds. The store elsewhere has heard both when it was begun.
    pub async fn commit(self, properties: Properties, when: When) -> Result<Stored, BlobError> {
        match self {
            Upload::Here(upload) => upload.commit(properties, when).await,
            Upload::There(upload) => upload.commit().await,
        }
    }
}

//! Finding an object there, and its bytes coming in.
//!
//! Whoever wants the whole of an object asks once: its head and its bytes come with the same answer. A range is asked for
//! under the entity tag that was found before, so that no two versions are ever mixed; so is the rest of a body that broke
//! off on its way. Invariant: what is given is what the head promised, or an error.
//! Lives on: the connection's shard.

use super::ask::{Ask, refusal};
use super::{Place, Remote, RemoteError, wire};
use crate::net::http::BodyLength;
use crate::net::http::client::{Call, ClientError};
use crate::net::http::exchange::BodyStep;
use crate::service::blob::find::Content;
use crate::service::blob::{Blob, BlobError, Name, Properties};
use std::rc::Rc;
use std::sync::Arc;

/// How often a body that breaks off is taken up again where it ended.
const RESUMED_MAX: u32 = 3;

/// An object as it was found.
#[derive(Clone, Debug)]
pub(in crate::service::blob) struct Object {
    place: Place,
}

/// The answer that an object was found by, if its bytes are in it.
#[derive(Default)]
pub struct Ahead(Option<Box<Call>>);

impl Remote {
    /// The object that `name` is; its bytes begin to come unless only its head is wanted.
    pub async fn find(self: &Rc<Self>, name: &Name, head: bool) -> Result<Option<(Blob, Ahead)>, BlobError> {
        let place = self.place(name)?;
        let ask = Ask::object(if head { "HEAD" } else { "GET" }, &place);
        match self.ask(&ask.field("x-amz-checksum-mode", "ENABLED"), b"").await {
            Ok(call) => {
                let blob = self.blob(name, place, &call)?;
                Ok(Some((blob, Ahead((!head).then(|| Box::new(call))))))
            }
            Err(BlobError::NoSuchBlob) => Ok(None),
            // A HEAD says no more than 404; a container that is not there is told as ever.
            Err(BlobError::Remote(RemoteError::Absent)) if head => {
                if name.is_in_container() && !self.has_container(name.container()).await? {
                    return Err(BlobError::NoSuchContainer);
                }
                Ok(None)
            }
            // Where there is no bucket for groups yet, nothing is in it.
            Err(BlobError::NoSuchContainer) if !name.is_in_container() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, of which the head is enough.
    pub async fn look(self: &Rc<Self>, name: &Name) -> Result<Option<Blob>, BlobError> {
        Ok(self.find(name, true).await?.map(|(blob, _)| blob))
    }

    fn blob(&self, name: &Name, place: Place, call: &Call) -> Result<Blob, BlobError> {
        let head = call.head();
        let size = match head.header("content-length").map(crate::codec::text::decimal) {
            Some(Some(size)) => size,
            _ => return Err(RemoteError::Malformed("an object without a length").into()),
        };
        let properties = Arc::new(wire::properties_of(head));
        let created_ms = wire::modified_ms(head);
        let content = Content::Remote(Object { place });
        Ok(Blob { name: name.clone(), size, created_ms, version: 0, properties, content })
    }

    /// A blob of which no more is known than a listing says.
    pub(super) fn listed(
        &self,
        name: Name,
        size: u64,
        created_ms: u64,
        etag: Box<str>,
    ) -> Result<Blob, BlobError> {
        let place = self.place(&name)?;
        let properties = Arc::new(Properties { etag, fields: Vec::new() });
        let content = Content::Remote(Object { place });
        Ok(Blob { name, size, created_ms, version: 0, properties, content })
    }

    /// Reads bytes `from..to` of what was found.
    pub(in crate::service::blob) fn read(
        self: &Rc<Self>,
        object: &Object,
        blob: &Blob,
        ahead: Ahead,
        from: u64,
        to: u64,
    ) -> Incoming {
        let is_whole = (from, to) == (0, blob.size);
        Incoming {
            remote: self.clone(),
            place: object.place.clone(),
            etag: blob.properties.etag.clone(),
            position: from,
            until: to,
            call: ahead.0.filter(|_| is_whole).map(|call| *call),
            resumed: 0,
        }
    }
}

impl Object {
    /// Where it is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

/// Bytes of an object on their way.
pub struct Incoming {
    remote: Rc<Remote>,
    place: Place,
    etag: Box<str>,
    position: u64,
    until: u64,
    call: Option<Call>,
    resumed: u32,
}

impl Incoming {
    /// The position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Waits for the next bytes; none at the end. May be dropped at any time: nothing that was taken in is lost to the
    /// next call, since it is given in the step in which it arrives.
    pub async fn next(&mut self) -> Result<Vec<u8>, BlobError> {
        while self.position < self.until {
            if self.call.is_none() {
                self.call = Some(self.begin().await?);
            }
            let call = self.call.as_mut().expect("just begun");
            let mut bytes = Vec::new();
            match call.read_body(|piece| bytes.extend_from_slice(piece)).await {
                Ok(BodyStep::Bytes(_)) if bytes.is_empty() => {}
                Ok(BodyStep::Bytes(_)) => {
                    self.position += bytes.len() as u64;
                    if self.position > self.until {
                        return Err(RemoteError::Malformed("more bytes than it said").into());
                    }
                    return Ok(bytes);
                }
                Ok(BodyStep::End) => self.resume(ClientError::Truncated)?,
                Err(error) => self.resume(error)?,
            }
        }
        // Reading the end gives the connection back.
        if let Some(mut call) = self.call.take() {
            let _ = call.read_body(|_| {}).await;
        }
        Ok(Vec::new())
    }

    fn resume(&mut self, error: ClientError) -> Result<(), BlobError> {
        self.call = None;
        if self.resumed == RESUMED_MAX || error.is_timeout() {
            return Err(self.remote.lost(error).into());
        }
        self.resumed += 1;
        Ok(())
    }

    async fn begin(&self) -> Result<Call, BlobError> {
        let range = format!("bytes={}-{}", self.position, self.until - 1);
        let ask = Ask::object("GET", &self.place).field("range", range);
        let ask = ask.field("if-match", format!("\"{}\"", self.etag));
        let call = match self.remote.ask(&ask, b"").await {
            // It is another object by now: what was promised cannot be had any more.
            Err(BlobError::Precondition | BlobError::NoSuchBlob | BlobError::NoSuchContainer) => {
                return Err(RemoteError::Malformed("the object was replaced while it was read").into());
            }
            other => other?,
        };
        let head = call.head();
        let is_right = match head.status().code() {
            206 => wire::etag_of(head).is_none_or(|etag| etag == self.etag),
            200 => self.position == 0,
            _ => return Err(refusal(call).await),
        };
        match head.body() {
            Some(BodyLength::Exact(len)) if is_right && len == self.until - self.position => Ok(call),
            Some(BodyLength::Chunked) if is_right => Ok(call),
            _ => Err(RemoteError::Malformed("it is not the range that was asked for").into()),
        }
    }
}

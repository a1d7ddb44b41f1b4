//! Streams as blobs: the container that nobody made.
//!
//! What the dialects keep as streams, and share, is found, listed and read in the container [`CONTAINER`], under the ids
//! of the streams. Nothing is copied: such a blob is a view of the stream's bytes from the first one that is there to how
//! far they were published when it was looked up. Invariant: a view never changes. It has the entity tag of exactly these
//! bytes, and whoever comes back with that tag finds the same view as long as its bytes are there, however far the stream
//! has grown. Lives on: any shard; its streams decide nothing here.

use super::find::Content;
use super::list::{Listed, Listing, Query, Start};
use super::{Blob, BlobError, Blobs, Container, Name, Properties, Tags};
use crate::net::http::is_value_byte;
use crate::runtime::shard;
use crate::service::stream::{self, Follower, Found, Id, Keepers, Streams, state_text};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// The name of the container: nobody makes or deletes it.
pub const CONTAINER: &str = "streams";

/// What every stream is to who does not know it.
const TYPE: &[u8] = b"application/octet-stream";

/// Streams, and whose of them are shown.
pub(super) struct Door {
    streams: Rc<Streams>,
    shared: Cell<Keepers>,
}

impl Blobs {
    /// Shows the streams that `shared` keep. Once, before anything is served.
    pub fn open_door(&self, streams: Rc<Streams>, shared: Keepers) {
        let door = Door { streams, shared: Cell::new(shared) };
        assert!(self.door.set(door).is_ok(), "a door is opened once");
    }

    /// Shows the streams of others from now on.
    pub fn share(&self, shared: Keepers) {
        if let Some(door) = self.door.get() {
            door.shared.set(shared);
        }
    }

    /// Follows a blob that is a stream from `from`, to the end of the stream; nothing for what does not grow.
    pub fn follow(&self, blob: &Blob, from: u64) -> Option<Follower> {
        let Content::Stream { tail, first } = &blob.content else { return None };
        Some(self.door.get()?.streams.follow(tail.clone(), first + from))
    }

    /// The door, if `container` is behind it and anything is shown.
    pub(super) fn door_to(&self, container: &str) -> Option<&Door> {
        self.door.get().filter(|door| container == CONTAINER && !door.shared.get().is_empty())
    }

    /// The container of streams, if it shows anything.
    pub(super) fn door_container(&self) -> Option<Container> {
        // As old as time: it was never made.
        self.door_to(CONTAINER).map(|_| Container { name: CONTAINER.into(), created_ms: 0 })
    }

    /// Whether blobs may come and go where `name` is.
    pub(super) fn demand_writable(&self, name: &Name) -> Result<(), BlobError> {
        let container = name.container();
        match self.container(container) {
            _ if !name.needs_container() => Ok(()),
            _ if container == CONTAINER => Err(BlobError::Reserved),
            None => Err(BlobError::NoSuchContainer),
            Some(_) => Ok(()),
        }
    }
}

impl Door {
    pub(super) fn streams(&self) -> &Rc<Streams> {
        &self.streams
    }

    /// The stream that `name` is, as it stands.
    pub(super) async fn find(&self, name: &Name) -> Result<Option<Blob>, BlobError> {
        let Some(id) = Id::new(name.key()).ok().filter(|id| self.shared.get().keep(id)) else {
            return Ok(None);
        };
        Ok(self.streams.find(&id).await?.map(view))
    }

    /// A page of streams. Folding jumps behind what is folded, so that a page costs as much as it has entries.
    pub(super) async fn list(&self, query: &Query) -> Result<Listing, BlobError> {
        let after = match &query.start {
            Start::First => None,
            Start::At(key) => Id::last_before(key),
            Start::After(key) if query.folds_to(key) => Some(Id::last_with(key)),
            Start::After(key) => Some(key.to_vec().into()),
        };
        let prefix = query.prefix.to_vec().into();
        // One entry more than the page has: the next one begins there.
        let mut wanted = stream::Query { prefix, after, state: None, limit: query.limit + 1 };
        let mut entries = Vec::new();
        loop {
            wanted.limit = query.limit + 1 - entries.len();
            let page = self.streams.list_of(wanted.clone(), self.shared.get()).await?;
            let has_more = page.has_more;
            let mut next = None;
            for found in page.streams {
                let id = found.id.clone();
                match query.fold(id.as_bytes()) {
                    Some(folded) => {
                        entries.push(Listed::Prefix(folded.into()));
                        next = Some(Id::last_with(folded));
                        break;
                    }
                    None => {
                        entries.push(Listed::Blob(view(found)));
                        next = has_more.then(|| id.as_bytes().to_vec().into());
                    }
                }
            }
            match next {
                Some(next) if entries.len() <= query.limit => wanted.after = Some(next),
                _ => break,
            }
        }
        let next = entries.drain(query.limit.min(entries.len())..).next();
        Ok(Listing { entries, next: next.map(|entry| entry.key().into()) })
    }
}

/// A stream as it stands.
fn view(found: Found) -> Blob {
    let Found { id, tail, metadata, created_ms } = found;
    // The state first: a stream that had ended then does not grow after.
    let state = tail.state();
    let end = tail.published();
    let name = Name::new(CONTAINER, id.as_bytes()).expect("an id is a key");
    let first = tail.first().min(end);
    let changed_ms = match tail.ended_ms() {
        // It changes while it is looked at.
        0 => shard::current().wall().unix_millis(),
        ended_ms => ended_ms,
    };
    let text = |value: String| value.into_bytes().into_boxed_slice();
    let mut fields: Vec<(Box<str>, Box<[u8]>)> = vec![
        ("content-type".into(), TYPE.into()),
        ("meta-stream-state".into(), state_text(state).as_bytes().into()),
        ("meta-stream-epoch".into(), text(tail.epoch().to_string())),
        ("meta-stream-first-offset".into(), text(first.to_string())),
        ("meta-stream-durable-offset".into(), text(tail.durable().min(end).to_string())),
    ];
    if !metadata.is_empty()
        && metadata.len() <= Properties::BYTES_MAX
        && metadata.iter().all(|byte| is_value_byte(*byte))
    {
        fields.push(("meta-stream-metadata".into(), metadata[..].into()));
    }
    let etag = Tag { uid: tail.uid(), epoch: tail.epoch(), first, end };
    Blob {
        name,
        size: end - first,
        created_ms: changed_ms.max(created_ms),
        version: tail.uid(),
        properties: Arc::new(Properties { etag: etag.text().into(), fields }),
        content: Content::Stream { tail, first },
    }
}

impl Blob {
    /// This blob as it was when it had one of `tags`; as it is, if it never had or is so no more.
    ///
    /// For who asks for one range after the other, with the tag of the first answer as a condition: of a stream that grows
    /// meanwhile they are ranges of the same thing.
    pub fn as_of(self, tags: Option<&Tags>) -> Blob {
        let (Content::Stream { tail, first }, Some(Tags::Of(tags))) = (&self.content, tags) else {
            return self;
        };
        let is_ours = |tag: &Tag| {
            (tag.uid, tag.first) == (tail.uid(), *first)
                && tag.end <= first + self.size
                && tail.admits(tag.epoch, tag.end)
        };
        let Some((etag, tag)) = tags.iter().find_map(|text| Some((text, Tag::parse(text).filter(is_ours)?)))
        else {
            return self;
        };
        let properties = Properties { etag: etag.clone(), ..Properties::clone(&self.properties) };
        Blob { size: tag.end - first, properties: Arc::new(properties), ..self }
    }
}

/// What tells a view from all others. The dashes tell clients that it is no digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tag {
    uid: u64,
    epoch: u64,
    first: u64,
    end: u64,
}

impl Tag {
    fn text(self) -> String {
        format!("stream-{:x}-{:x}-{:x}-{:x}", self.uid, self.epoch, self.first, self.end)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers =
            text.strip_prefix("stream-")?.split('-').map(|digits| u64::from_str_radix(digits, 16).ok());
        let mut next = || numbers.next()?;
        let tag = Tag { uid: next()?, epoch: next()?, first: next()?, end: next()? };
        (tag.text() == text).then_some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_was_written_and_no_other_way() {
        let tag = Tag { uid: 0xabc, epoch: 2, first: 0, end: u64::MAX };
        assert_eq!(tag.text(), "stream-abc-2-0-ffffffffffffffff");
        assert_eq!(Tag::parse(&tag.text()), Some(tag));
        for text in [
            "",
            "stream-",
            "stream-1-2-3",
            "stream-1-2-3-4-5",
            "stream-01-2-3-4",
            "stream-A-2-3-4",
            "1-2-3-4",
        ] {
            assert_eq!(Tag::parse(text), None, "{text}");
        }
    }
}

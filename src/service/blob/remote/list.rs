//! Pages of objects there.
//!
//! A page of ours begins at or behind a key, and says which one comes next; a page there begins behind a key. What is
//! wanted at a key itself is looked up, and what does not fit into one answer is followed by its continuation token.
//! Lives on: the connection's shard.

use super::ask::Ask;
use super::containers::read;
use super::{Remote, RemoteError, wire};
use crate::codec::text::{decimal, percent_encode};
use crate::codec::xml_in::Seen;
use crate::service::blob::{Blob, BlobError, Listed, Listing, Name, Query, Start};
use std::rc::Rc;

/// Most entries of one answer.
const PAGE_MAX: usize = 1000;

/// Where a listing looks: a bucket, what stands before all keys, and how a key becomes a name.
struct Shelf<'a> {
    bucket: String,
    before: Vec<u8>,
    name: &'a dyn Fn(&[u8]) -> Result<Name, BlobError>,
}

impl Remote {
    /// A page of a container's names.
    pub async fn list(self: &Rc<Self>, container: &str, query: &Query) -> Result<Listing, BlobError> {
        let name = |key: &[u8]| Ok(Name::new(container, key)?);
        let shelf = Shelf { bucket: self.bucket(container), before: Vec::new(), name: &name };
        if query.limit == 0 {
            return match self.has_container(container).await? {
                true => Ok(Listing::default()),
                false => Err(BlobError::NoSuchContainer),
            };
        }
        self.page(&shelf, query).await
    }

    /// The same of a group.
    pub async fn list_group(
        self: &Rc<Self>,
        space: u8,
        group: &str,
        query: &Query,
    ) -> Result<Listing, BlobError> {
        let name = |key: &[u8]| Ok(Name::of_group(space, group, key)?);
        let before = format!("{}/", percent_encode(group.as_bytes())).into_bytes();
        let shelf = Shelf { bucket: self.bucket(super::GROUPS), before, name: &name };
        match self.page(&shelf, query).await {
            Err(BlobError::NoSuchContainer) => Ok(Listing::default()),
            other => other,
        }
    }

    async fn page(self: &Rc<Self>, shelf: &Shelf<'_>, query: &Query) -> Result<Listing, BlobError> {
        let mut entries = Vec::new();
        let start = match &query.start {
            Start::First => None,
            Start::At(key) | Start::After(key) => {
                entries.extend(self.first(shelf, query, key).await?);
                Some(key)
            }
        };
        let skipped = match &query.start {
            Start::After(key) if query.folds_to(key) => Some(key.clone()),
            _ => None,
        };
        let mut token: Option<Vec<u8>> = None;
        loop {
            // One more than the page has: the next one begins there. And one that may be skipped.
            let wanted = query.limit + 1 - entries.len() + usize::from(skipped.is_some());
            let prefix = [&shelf.before[..], &query.prefix].concat();
            let mut ask = Ask::bucket("GET", &shelf.bucket)
                .query("list-type", "2")
                .query("encoding-type", "url")
                .query("max-keys", wanted.min(PAGE_MAX).to_string())
                .query("prefix", prefix);
            if !query.delimiter.is_empty() {
                ask = ask.query("delimiter", &*query.delimiter);
            }
            if let Some(start) = start {
                ask = ask.query("start-after", [&shelf.before[..], start].concat());
            }
            if let Some(token) = token.take() {
                ask = ask.query("continuation-token", token);
            }
            let document = self.document(&ask, b"").await?;
            let page = self.entries(shelf, &document, &mut token)?;
            let known = entries.last().map(|entry: &Listed| entry.key().to_vec());
            entries.extend(page.into_iter().filter(|entry| {
                // A fold is told on every page that it reaches into.
                skipped.as_deref() != Some(entry.key()) && known.as_deref() != Some(entry.key())
            }));
            if token.is_none() || entries.len() > query.limit {
                break;
            }
        }
        let next = entries.drain(query.limit.min(entries.len())..).next();
        Ok(Listing { entries, next: next.map(|entry| entry.key().into()) })
    }

    /// What a page that begins at or behind `key` has there: the key itself, or what it folds into. Stores do not agree
    /// whether they tell a fold that begins before the key where they are asked to begin.
    async fn first(
        self: &Rc<Self>,
        shelf: &Shelf<'_>,
        query: &Query,
        key: &[u8],
    ) -> Result<Option<Listed>, BlobError> {
        let is_at = matches!(query.start, Start::At(_));
        let folded = query.fold(key).filter(|folded| is_at || *folded != key);
        if !key.starts_with(&query.prefix) || !(is_at || folded.is_some()) {
            return Ok(None);
        }
        let name = (shelf.name)(key).ok().filter(|_| is_at);
        let found = match name {
            Some(name) => self.look(&name).await?,
            None => None,
        };
        match (found, folded) {
            (Some(blob), None) => Ok(Some(Listed::Blob(blob))),
            (Some(_), Some(folded)) => Ok(Some(Listed::Prefix(folded.into()))),
            (None, Some(folded)) => {
                let ask = Ask::bucket("GET", &shelf.bucket)
                    .query("list-type", "2")
                    .query("encoding-type", "url")
                    .query("max-keys", "1")
                    .query("prefix", [&shelf.before[..], folded].concat())
                    .query("start-after", [&shelf.before[..], key].concat());
                let behind = self.entries(shelf, &self.document(&ask, b"").await?, &mut None)?;
                Ok((!behind.is_empty()).then(|| Listed::Prefix(folded.into())))
            }
            (None, None) => Ok(None),
        }
    }

    /// The entries of a document, and the token of the next one.
    fn entries(
        &self,
        shelf: &Shelf<'_>,
        document: &[u8],
        token: &mut Option<Vec<u8>>,
    ) -> Result<Vec<Listed>, BlobError> {
        let mut entries: Vec<Listed> = Vec::new();
        let mut bad = None;
        let (mut key, mut changed_ms, mut etag, mut size) = (String::new(), 0, Box::default(), None);
        let (mut next, mut is_truncated) = (None, false);
        read(document, "ListBucketResult", |path, seen| match (path, seen) {
            (["IsTruncated"], Seen::Text(text)) => is_truncated = text.trim() == "true",
            (["NextContinuationToken"], Seen::Text(text)) => next = Some(text.as_bytes().to_vec()),
            (["Contents", "Key"], Seen::Text(text)) => key = text.to_owned(),
            (["Contents", "LastModified"], Seen::Text(text)) => changed_ms = wire::moment(text),
            (["Contents", "ETag"], Seen::Text(text)) => etag = wire::bare(text),
            (["Contents", "Size"], Seen::Text(text)) => size = decimal(text.trim().as_bytes()),
            (["Contents"], Seen::Close) => {
                let blob = self.entry(shelf, &key, size.take(), changed_ms, std::mem::take(&mut etag));
                match blob {
                    Ok(blob) => entries.push(Listed::Blob(blob)),
                    Err(error) => bad = Some(error),
                }
            }
            (["CommonPrefixes", "Prefix"], Seen::Text(text)) => match within(shelf, text) {
                Some(prefix) => entries.push(Listed::Prefix(prefix)),
                None => bad = Some(RemoteError::Malformed("a prefix that was not asked for").into()),
            },
            _ => {}
        })?;
        if let Some(error) = bad {
            return Err(error);
        }
        *token = next.filter(|_| is_truncated);
        // Keys and folds come apart.
        entries.sort_by(|one, other| one.key().cmp(other.key()));
        Ok(entries)
    }

    fn entry(
        &self,
        shelf: &Shelf<'_>,
        key: &str,
        size: Option<u64>,
        changed_ms: u64,
        etag: Box<str>,
    ) -> Result<Blob, BlobError> {
        let key = within(shelf, key).ok_or(RemoteError::Malformed("a key that was not asked for"))?;
        let size = size.ok_or(RemoteError::Malformed("an entry without a size"))?;
        self.listed((shelf.name)(&key)?, size, changed_ms, etag)
    }
}

/// A key or prefix as it was written, without what stands before all.
fn within(shelf: &Shelf<'_>, text: &str) -> Option<Box<[u8]>> {
    let bytes = wire::decoded(text)?;
    bytes.strip_prefix(&shelf.before[..]).map(Into::into)
}

//! Names that stand for parts of bodies: the record that commits a blob, or several things together, to the byte.
//!
//! | kind | | payload |
//! |---|---|---|
//! | 10 | Link | `version` u64, `created_ms` u64, `space` u8, `key` bytes, `attributes` bytes, parts |
//! | 11 | Links | u32 count, and as many of what Link has: all of them hold, or none |
//!
//! Parts are a u32 count and as many of them: `uid` u64, `from` u64, `len` u64, which is that many bytes of the body
//! with this uid from this offset on. Link stands in journals and in checkpoints, Links in journals alone: what a
//! checkpoint covers has happened. The names of a Links record are of one group, so they share its placement hash.
//! Invariant: what decodes has whole parts, none of them empty, and nothing else. Pure; runs anywhere.

use super::super::placement::Key;
use super::record::{ATTRIBUTES_MAX, Input, PAYLOAD_MAX, put_bytes};
use std::borrow::Cow;

/// The most parts of a link: as many as S3 composes.
pub const PARTS_MAX: usize = 10_000;

const PART_LEN: usize = 24;

/// The most names of a Links record.
pub const LINKS_MAX: usize = 1024;

/// Whether a Links record can say all of these.
pub fn fit_together<'a>(links: impl Iterator<Item = &'a LinkRecord<'a>>) -> bool {
    let of = |link: &LinkRecord<'_>| {
        LINK_LEN + link.key.len() + link.attributes.len() + link.parts.len() * PART_LEN
    };
    let (count, len) = links.fold((0, 4), |(count, len), link| (count + 1, len + of(link)));
    count <= LINKS_MAX && len <= PAYLOAD_MAX
}

/// What a link has beside key, attributes and parts.
const LINK_LEN: usize = 8 + 8 + 1 + 4 + 4 + 4;

const _: () = assert!(ATTRIBUTES_MAX + Key::BYTES_MAX + PARTS_MAX * PART_LEN + 64 < PAYLOAD_MAX);

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkRecord<'a> {
    /// Greater than that of everything the name stood for before.
    pub version: u64,
    /// When it was put, in milliseconds since 1970.
    pub created_ms: u64,
    /// The service's space.
    pub space: u8,
    /// The name.
    pub key: Cow<'a, [u8]>,
    /// What the service keeps beside it.
    pub attributes: Cow<'a, [u8]>,
    /// Its bytes, first to last.
    pub parts: Vec<PartAt>,
}

/// Some bytes of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartAt {
    /// The body.
    pub uid: u64,
    /// Its position of the first byte.
    pub from: u64,
    /// How many; not 0.
    pub len: u64,
}

pub(super) fn encode_link(link: &LinkRecord<'_>, out: &mut Vec<u8>) {
    assert!(link.parts.len() <= PARTS_MAX, "a link has at most {PARTS_MAX} parts");
    out.extend_from_slice(&link.version.to_le_bytes());
    out.extend_from_slice(&link.created_ms.to_le_bytes());
    out.push(link.space);
    put_bytes(out, &link.key);
    put_bytes(out, &link.attributes);
    out.extend_from_slice(&(link.parts.len() as u32).to_le_bytes());
    for PartAt { uid, from, len } in &link.parts {
        [uid, from, len].iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}

pub(super) fn encode_links(links: &[LinkRecord<'_>], out: &mut Vec<u8>) {
    assert!(links.len() <= LINKS_MAX, "a record has at most {LINKS_MAX} links");
    out.extend_from_slice(&(links.len() as u32).to_le_bytes());
    links.iter().for_each(|link| encode_link(link, out));
}

impl LinkRecord<'_> {
    /// With bytes of its own.
    pub fn into_owned(self) -> LinkRecord<'static> {
        LinkRecord {
            key: Cow::Owned(self.key.into_owned()),
            attributes: Cow::Owned(self.attributes.into_owned()),
            ..self
        }
    }
}

impl<'a> Input<'a> {
    pub(super) fn links(&mut self) -> Option<Vec<LinkRecord<'a>>> {
        let count = self.u32()? as usize;
        (count <= LINKS_MAX).then(|| (0..count).map(|_| self.link()).collect())?
    }

    pub(super) fn link(&mut self) -> Option<LinkRecord<'a>> {
        let (version, created_ms, space) = (self.u64()?, self.u64()?, self.u8()?);
        let key = self.bytes(Key::BYTES_MAX)?.into();
        let attributes = self.bytes(ATTRIBUTES_MAX)?.into();
        let count = self.u32()? as usize;
        if count > PARTS_MAX {
            return None;
        }
        let parts = (0..count).map(|_| self.part()).collect::<Option<Vec<_>>>()?;
        Some(LinkRecord { version, created_ms, space, key, attributes, parts })
    }

    fn part(&mut self) -> Option<PartAt> {
        let part = PartAt { uid: self.u64()?, from: self.u64()?, len: self.u64()? };
        (part.len > 0 && part.from.checked_add(part.len).is_some()).then_some(part)
    }
}

//! A name that stands for parts of bodies: the record that commits a blob, to the byte.
//!
//! | kind | | payload |
//! |---|---|---|
//! | 10 | Link | `version` u64, `created_ms` u64, `space` u8, `key` bytes, `attributes` bytes, parts |
//!
//! Parts are a u32 count and as many of them: `uid` u64, `from` u64, `len` u64, which is that many bytes of the body
//! with this uid from this offset on. The same record stands in journals and in checkpoints.
//! Invariant: what decodes has whole parts, none of them empty, and nothing else. Pure; runs anywhere.

use super::super::placement::Key;
use super::record::{ATTRIBUTES_MAX, Input, PAYLOAD_MAX, put_bytes};
use std::borrow::Cow;

/// The most parts of a link: as many as S3 composes.
pub const PARTS_MAX: usize = 10_000;

const PART_LEN: usize = 24;

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

impl<'a> Input<'a> {
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

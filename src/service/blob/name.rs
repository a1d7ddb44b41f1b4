//! What a blob is called: a container, and a key within.
//!
//! Invariant: a key is bytes, never a path; a container's name holds no NUL, which is what parts the two in the store.
//! Pure; runs anywhere.

use crate::service::owner::space;
use crate::storage::{COMPANION, GROUPED, Key, KeyRef, Link};
use std::fmt;
use std::sync::Arc;

/// The name of a blob.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The store's: [`space::BLOBS`], or one of groups, whose containers are not created and all there.
    space: u8,
    /// The container, a NUL, the key.
    bytes: Arc<[u8]>,
    container_len: u8,
}

/// Why there is no such name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadName {
    /// A container's name has 1 to 255 bytes without a NUL.
    Container,
    /// A key has at least one byte.
    EmptyKey,
    /// A key has at most [`Name::KEY_MAX`] bytes.
    LongKey,
}

impl Name {
    /// The longest key.
    pub const KEY_MAX: usize = 1024;

    /// The blob `key` in `container`.
    pub fn new(container: &str, key: &[u8]) -> Result<Self, BadName> {
        Self::within(space::BLOBS, container, key)
    }

    /// The blob `key` of a group: its container is there without being created, and has one owner.
    pub fn of_group(space: u8, group: &str, key: &[u8]) -> Result<Self, BadName> {
        assert!((GROUPED..COMPANION).contains(&space), "a space of groups");
        Self::within(space, group, key)
    }

    pub(super) fn within(space: u8, container: &str, key: &[u8]) -> Result<Self, BadName> {
        let Ok(container_len @ 1..) = u8::try_from(container.len()) else { return Err(BadName::Container) };
        if container.contains('\0') {
            return Err(BadName::Container);
        }
        match key.len() {
            0 => Err(BadName::EmptyKey),
            1..=Self::KEY_MAX => {
                Ok(Name { space, bytes: [container.as_bytes(), b"\0", key].concat().into(), container_len })
            }
            _ => Err(BadName::LongKey),
        }
    }

    /// The container's name.
    pub fn container(&self) -> &str {
        let container = &self.bytes[..usize::from(self.container_len)];
        std::str::from_utf8(container).expect("it was a str")
    }

    /// Its space in the store.
    pub(super) fn space(&self) -> u8 {
        self.space
    }

    /// Whether it is in a container that somebody creates, and not of a group.
    pub(super) fn is_in_container(&self) -> bool {
        self.needs_container()
    }

    /// Whether its container has to be created.
    pub(super) fn needs_container(&self) -> bool {
        self.space < GROUPED
    }

    /// The key within.
    pub fn key(&self) -> &[u8] {
        &self.bytes[usize::from(self.container_len) + 1..]
    }
}

/// For the store: names, and what belongs to them.
impl Name {
    pub(in crate::service) fn store_key(&self) -> Key {
        Key { space: self.space, bytes: self.bytes.clone() }
    }

    /// The name of something that belongs to this one, in a space of companions.
    pub(super) fn companion(&self, space: u8, own: &[u8]) -> Key {
        let len = u8::try_from(own.len() + 1).expect("companions' own names are short");
        Key::new(space, &[&*self.bytes, own, &[len]].concat())
    }

    /// The name of a blob whose link this is, in a container whose name has so many bytes.
    pub(super) fn of_link(link: &Link, container_len: usize) -> Self {
        let container_len = u8::try_from(container_len).expect("the container has a name");
        Name { space: link.key().space, bytes: link.key().bytes.into(), container_len }
    }

    /// The name in a key of the store, and what a companion has of its own.
    pub(in crate::service) fn of_key(key: KeyRef<'_>) -> Option<(Self, &[u8])> {
        let (bytes, own): (Arc<[u8]>, _) = match key.bytes.last() {
            Some(&own) if key.space >= COMPANION => {
                let (name, own) = key.bytes.split_at_checked(key.bytes.len().checked_sub(own.into())?)?;
                (Arc::from(name), own.split_last()?.1)
            }
            _ => (key.bytes.into(), &[][..]),
        };
        let container_len = u8::try_from(bytes.iter().position(|byte| *byte == 0)?).ok()?;
        std::str::from_utf8(&bytes[..container_len.into()]).ok()?;
        Some((Name { space: key.space % COMPANION, bytes, container_len }, own))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container(), self.key().escape_ascii())
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadName::Container => f.write_str("a container's name has 1 to 255 bytes"),
            BadName::EmptyKey => f.write_str("a key has at least one byte"),
            BadName::LongKey => write!(f, "a key has at most {} bytes", Name::KEY_MAX),
        }
    }
}

impl std::error::Error for BadName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_parts() {
        let name = Name::new("photos", b"a/../\0b\xff").unwrap();
        assert_eq!((name.container(), name.key()), ("photos", &b"a/../\0b\xff"[..]));
        assert_eq!(format!("{name:?}"), "photos/a/../\\x00b\\xff");
    }

    #[test]
    fn the_store_gives_it_back() {
        let name = Name::new("photos", b"a\0b").unwrap();
        assert_eq!(Name::of_key(name.store_key().as_ref()), Some((name.clone(), &b""[..])));
        let part = name.companion(space::PARTS, b"id\x00\x01");
        assert_eq!(Name::of_key(part.as_ref()), Some((name.clone(), &b"id\x00\x01"[..])));
        assert_eq!(part.hash(), name.store_key().hash(), "one owner");
        assert_eq!(Name::of_key(Key::new(space::BLOBS, b"no end").as_ref()), None);
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(Name::new("", b"k"), Err(BadName::Container));
        assert_eq!(Name::new("a\0b", b"k"), Err(BadName::Container));
        assert_eq!(Name::new(&"c".repeat(256), b"k"), Err(BadName::Container));
        assert_eq!(Name::new("c", b""), Err(BadName::EmptyKey));
        assert_eq!(Name::new("c", &[b'k'; 1025]), Err(BadName::LongKey));
        assert!(Name::new(&"c".repeat(255), &[b'k'; 1024]).is_ok());
    }
}

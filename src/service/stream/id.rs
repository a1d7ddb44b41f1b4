//! What a stream is called: opaque bytes, one to [`Id::LEN_MAX`] of them.
//!
//! Invariant: an id is never part of a path and never interpreted; two ids are the same stream exactly when their
//! bytes are. Lives on: any shard.

use crate::runtime::shard;
use crate::service::owner::space;
use crate::storage::{Key, KeyRef};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A stream's name. Copies share its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<[u8]>);

/// Bytes that cannot be an id, by their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadId(pub usize);

impl Id {
    /// The longest id.
    pub const LEN_MAX: usize = 1024;

    /// Takes any bytes of an acceptable number.
    pub fn new(bytes: &[u8]) -> Result<Self, BadId> {
        if (1..=Self::LEN_MAX).contains(&bytes.len()) {
            Ok(Id(bytes.into()))
        } else {
            Err(BadId(bytes.len()))
        }
    }

    /// An id that nobody has: the time for people, 64 random bits against everyone else's clock.
    pub fn generate() -> Self {
        let shard = shard::current();
        let text = format!("loom-{}-{:016x}", shard.wall().unix_millis(), shard.entropy().next());
        Id(text.into_bytes().into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For people: what is not UTF-8 shows as U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The last of all that begin with `prefix`, were there such a stream.
    pub fn last_with(prefix: &[u8]) -> Bytes {
        let mut last = vec![u8::MAX; Self::LEN_MAX.max(prefix.len())];
        last[..prefix.len()].copy_from_slice(prefix);
        last.into()
    }

    /// The last of all before `bytes`, were there such a stream; nothing when there can be none.
    pub fn last_before(bytes: &[u8]) -> Option<Bytes> {
        match bytes.split_last()? {
            (0, shorter) => Some(Bytes::copy_from_slice(shorter)),
            (last, shorter) => Some(Self::last_with(&[shorter, &[last - 1]].concat())),
        }
    }

    pub(super) fn key(&self) -> Key {
        Key { space: space::STREAMS, bytes: self.0.clone() }
    }

    /// The key, for who only looks.
    pub(super) fn key_ref(&self) -> KeyRef<'_> {
        KeyRef { space: space::STREAMS, bytes: &self.0 }
    }

    pub(super) fn of_key(key: KeyRef<'_>) -> Self {
        Id(key.bytes.into())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a stream ID has 1 to {} bytes; this one has {}", Id::LEN_MAX, self.0)
    }
}

impl std::error::Error for BadId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_of_an_acceptable_length_are_an_id() {
        assert_eq!(Id::new(b""), Err(BadId(0)));
        assert_eq!(Id::new(&[0; Id::LEN_MAX + 1]), Err(BadId(Id::LEN_MAX + 1)));
        for bytes in [&b"../../x"[..], b"a/b", b"\r\n\0", &[0xff; Id::LEN_MAX]] {
            assert_eq!(Id::new(bytes).expect("acceptable").as_bytes(), bytes);
        }
        assert_eq!(Id::of_key(Id::new(b"a\xff").unwrap().key().as_ref()), Id::new(b"a\xff").unwrap());
    }
    #[test]
    fn the_last_before_or_with_is_between_what_can_be() {
        let all = [&b"a"[..], b"a\0", b"a\0\xff", b"a\x01", b"a/", b"a/\xff\xff", b"a0", b"b"];
        for bytes in all {
            let before = Id::last_before(bytes).unwrap();
            let with = Id::last_with(bytes);
            for other in all {
                assert_eq!(*other <= *before, other < bytes, "{other:?} {bytes:?}");
                assert_eq!(
                    *other <= *with,
                    other <= bytes || other.starts_with(bytes),
                    "{other:?} {bytes:?}"
                );
            }
        }
        assert_eq!(Id::last_before(b""), None);
        assert_eq!(Id::last_before(b"\0").as_deref(), Some(&b""[..]));
    }
}

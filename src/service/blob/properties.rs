//! What is kept beside a blob's bytes: its entity tag, and fields that dialects name.
//!
//! Every dialect reads what every other one kept: standard headers stand under their name in lower case, user metadata
//! under `meta-` and its name, and what a dialect notes for its own use begins with `~`.
//! Invariant: decoding what was encoded gives it back, and nothing else decodes. Pure; runs anywhere.

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Properties {
    /// The entity tag without quotes, at most 255 bytes.
    pub etag: Box<str>,
    /// Names and values, in the order in which dialects gave them.
    pub fields: Vec<(Box<str>, Box<[u8]>)>,
}

impl Properties {
    /// The most bytes that the fields may have together, names included.
    pub const BYTES_MAX: usize = 64 * 1024;

    /// The value of the field `name`, if there is one.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// Bytes that the fields have together.
    pub fn len(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.etag.is_empty() && self.fields.is_empty()
    }

    /// As the store keeps it: a byte for the tag's length and the tag; then for each field a byte for the length of its
    /// name, the name, two for the length of its value, the value.
    pub(in crate::service) fn encode(&self) -> Box<[u8]> {
        assert!(self.etag.len() <= 255 && self.len() <= Self::BYTES_MAX, "looked at before");
        let mut out = Vec::with_capacity(1 + self.etag.len() + self.len() + 3 * self.fields.len());
        out.push(self.etag.len() as u8);
        out.extend_from_slice(self.etag.as_bytes());
        for (name, value) in &self.fields {
            out.push(u8::try_from(name.len()).expect("looked at before"));
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&u16::try_from(value.len()).expect("looked at before").to_le_bytes());
            out.extend_from_slice(value);
        }
        out.into()
    }

    /// Whether it can be kept: how long it is, if that is too long.
    pub(super) fn check(&self) -> Result<(), usize> {
        let fits = |(name, value): &(Box<str>, Box<[u8]>)| name.len() < 256 && value.len() < 1 << 16;
        let fits = self.etag.len() < 256 && self.len() <= Self::BYTES_MAX && self.fields.iter().all(fits);
        if fits { Ok(()) } else { Err(self.len()) }
    }

    /// Reads what [`Properties::encode`] wrote; `None` for anything else.
    pub(in crate::service) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut take = |len: usize| {
            let (taken, rest) = bytes.split_at_checked(len)?;
            bytes = rest;
            Some((taken, rest.is_empty()))
        };
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Box::from);
        let etag_len = take(1)?.0[0].into();
        let (etag, mut at_end) = take(etag_len)?;
        let etag = text(etag)?;
        let mut fields = Vec::new();
        while !at_end {
            let name_len = take(1)?.0[0].into();
            let name = text(take(name_len)?.0)?;
            let len = take(2)?.0;
            let value = take(u16::from_le_bytes([len[0], len[1]]).into())?;
            at_end = value.1;
            fields.push((name, value.0.into()));
        }
        Some(Properties { etag, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn properties() -> impl Strategy<Value = Properties> {
        let value = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Box::from);
        let fields = proptest::collection::vec(("[a-z~-]{0,20}".prop_map(Box::from), value), 0..6);
        (".{0,40}", fields).prop_map(|(etag, fields)| Properties { etag: etag.into(), fields })
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(properties in properties()) {
            let bytes = properties.encode();
            prop_assert_eq!(Properties::decode(&bytes), Some(properties.clone()));
            // An end between fields is an end; anywhere else it is none.
            for len in 0..bytes.len() {
                if let Some(less) = Properties::decode(&bytes[..len]) {
                    prop_assert!(properties.fields.starts_with(&less.fields));
                }
            }
        }

        #[test]
        fn anything_may_be_fed(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(properties) = Properties::decode(&bytes) {
                prop_assert_eq!(&*properties.encode(), &bytes[..]);
            }
        }
    }

    #[test]
    fn bounds_are_told() {
        let field = |name: usize, value: usize| ("n".repeat(name).into(), vec![0; value].into());
        let of = |fields| Properties { etag: "tag".into(), fields };
        assert_eq!(of(vec![field(255, 60_000)]).check(), Ok(()));
        assert_eq!(of(vec![field(1, 65_535), field(1, 0)]).check(), Err(65_537));
        assert_eq!(of(vec![field(256, 1)]).check(), Err(257));
        assert!(Properties { etag: "t".repeat(256).into(), fields: Vec::new() }.check().is_err());
    }
}

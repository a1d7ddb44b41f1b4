//! The pairs that may sign, and the signing keys that were derived from them.
//!
//! A signing key depends on the pair, the day and the region: four HMACs that every request of a day would repeat.
//! Invariant: bounded whatever days peers make up; the oldest goes. Lives on: the connection's shard.

use super::Denied;
use crate::config::Secret;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use std::cell::RefCell;

pub use crate::codec::sigv4::SigningKey;

/// Signing keys that are kept: those of today and yesterday for many pairs.
const DERIVED_MAX: usize = 64;

/// The pairs, and the region that they sign for.
pub struct Keys {
    region: Box<str>,
    pairs: Vec<(Box<str>, Secret)>,
    derived: RefCell<Vec<Derived>>,
}

struct Derived {
    pair: usize,
    day: [u8; 8],
    key: SigningKey,
}

/// One of the pairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair(usize);

impl Keys {
    /// Signs with `pairs` for `region`.
    pub fn new(region: &str, pairs: impl IntoIterator<Item = (Box<str>, Secret)>) -> Self {
        Keys { region: region.into(), pairs: pairs.into_iter().collect(), derived: RefCell::default() }
    }

    /// Whether anyone may do anything.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The region that signatures name.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The pair with this id.
    pub fn find(&self, id: &[u8]) -> Result<Pair, Denied> {
        let found = self.pairs.iter().position(|(known, _)| known.as_bytes() == id);
        found.map(Pair).ok_or(Denied::InvalidAccessKeyId)
    }

    /// The key of `pair` for `day` (`YYYYMMDD`).
    pub fn signing_key(&self, pair: Pair, day: [u8; 8]) -> SigningKey {
        let mut derived = self.derived.borrow_mut();
        if let Some(known) = derived.iter().find(|known| known.pair == pair.0 && known.day == day) {
            return known.key.clone();
        }
        if derived.len() == DERIVED_MAX {
            derived.remove(0);
        }
        let key = self.derive(pair, day);
        derived.push(Derived { pair: pair.0, day, key: key.clone() });
        key
    }

    fn derive(&self, pair: Pair, day: [u8; 8]) -> SigningKey {
        SigningKey::derive(self.pairs[pair.0].1.expose(), &day, &self.region)
    }

    /// The HMAC-SHA1 of `text` under the secret of `pair`.
    pub fn sign_v2(&self, pair: Pair, text: &[u8]) -> [u8; 20] {
        let secret = self.pairs[pair.0].1.expose();
        let mut mac = <Hmac<Sha1>>::new_from_slice(secret.as_bytes()).expect("any length is a key");
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_derived_once_and_for_who_is_known() {
        let keys = Keys::new("us-east-1", [("AKIDEXAMPLE".into(), Secret::new("secret"))]);
        let pair = keys.find(b"AKIDEXAMPLE").unwrap();
        assert_eq!(keys.find(b"AKIDEXAMPL"), Err(Denied::InvalidAccessKeyId));
        assert_eq!(keys.signing_key(pair, *b"20150830").sign(b""), keys.derive(pair, *b"20150830").sign(b""));
    }

    #[test]
    fn days_that_peers_make_up_do_not_pile_up() {
        let keys = Keys::new("r", [("a".into(), Secret::new("b"))]);
        let pair = keys.find(b"a").unwrap();
        for day in 0..1000 {
            let day: [u8; 8] = format!("{day:08}").into_bytes().try_into().unwrap();
            keys.signing_key(pair, day);
        }
        assert_eq!(keys.derived.borrow().len(), DERIVED_MAX);
        assert_ne!(
            keys.signing_key(pair, *b"00000001").sign(b"x"),
            keys.signing_key(pair, *b"00000002").sign(b"x")
        );
    }
}

//! Tokens and keys: comparable, never shown.
//!
//! Invariant: no `Debug`, `Display` or error message ever carries a secret's text.
//! Pure; runs on any thread.

use std::fmt;
use subtle::ConstantTimeEq;

/// A token, key or password.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the text into custody.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Compares with what a peer presented, in time that depends on the lengths alone.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// The text itself, for signing and for passing on to the store that issued it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// What stands where a secret would.
pub(crate) const REDACTED: &str = "(secret)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_only_the_very_same_bytes() {
        let secret = Secret::new("token1");
        assert!(secret.matches(b"token1"));
        for other in [&b"token2"[..], b"token", b"token11", b"", b"TOKEN1"] {
            assert!(!secret.matches(other));
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_text() {
        let shown = format!("{:?}", vec![Secret::new("token1"), Secret::new("")]);
        assert_eq!(shown, "[(secret), (secret)]");
    }
}

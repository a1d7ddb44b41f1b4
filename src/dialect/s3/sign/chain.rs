//! The chain of signatures that goes on through a body: each chunk signs itself and the signature before it.
//!
//! Invariant: a chain moves only over a signature that was right. Pure; runs on the connection's shard.

use super::keys::SigningKey;
use super::{Denied, equal};
use crate::codec::text::hex;
use sha2::{Digest, Sha256};

/// Where a chain stands.
#[derive(Clone, Debug)]
pub struct Chain {
    key: SigningKey,
    /// `timestamp\nscope`
    context: String,
    /// In hex.
    last: String,
}

impl Chain {
    /// Begins with the signature of the head.
    pub fn new(key: SigningKey, timestamp: &str, scope: &str, seed: String) -> Self {
        Chain { key, context: format!("{timestamp}\n{scope}"), last: seed }
    }

    /// A chunk whose data has the digest `data`.
    pub fn chunk(&mut self, data: &[u8; 32], signature: &[u8]) -> Result<(), Denied> {
        let empty = hex(&Sha256::digest(b""));
        self.step(
            &format!("AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{empty}\n{}", self.context, self.last, hex(data)),
            signature,
        )
    }

    /// The trailers, whose canonical form has the digest `data`.
    pub fn trailers(&mut self, data: &[u8; 32], signature: &[u8]) -> Result<(), Denied> {
        let text = format!("AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}", self.context, self.last, hex(data));
        self.step(&text, signature)
    }

    fn step(&mut self, text: &str, signature: &[u8]) -> Result<(), Denied> {
        let right = hex(&self.key.sign(text.as_bytes()));
        if !equal(right.as_bytes(), signature) {
            return Err(Denied::SignatureDoesNotMatch);
        }
        self.last = right;
        Ok(())
    }
}

/// Signs what [`Chain`] judges; for tests of bodies.
#[cfg(test)]
impl Chain {
    pub(crate) fn sign_chunk(&mut self, data: &[u8]) -> String {
        let (empty, data) = (hex(&Sha256::digest(b"")), hex(&Sha256::digest(data)));
        let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{empty}\n{data}", self.context, self.last);
        self.last = hex(&self.key.sign(text.as_bytes()));
        self.last.clone()
    }

    pub(crate) fn sign_trailers(&mut self, canonical: &[u8]) -> String {
        let data = hex(&Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{data}", self.context, self.last);
        self.last = hex(&self.key.sign(text.as_bytes()));
        self.last.clone()
    }
}

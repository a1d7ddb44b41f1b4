//! Bytes that a test can recognise: the content of a stream follows from its seed alone.

use sha2::{Digest, Sha256};

/// The first `len` bytes that `seed` stands for. A prefix of a longer one is the shorter one, and no
/// window of one seed looks like a window of another.
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut rng = Rng::new(seed);
    while out.len() < len {
        out.extend_from_slice(&rng.next().to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The SHA-256 of some bytes, in hex: two megabytes that differ make a poor failure message.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The MD5 of some bytes, in hex: what an entity tag of a blob is.
pub fn md5(bytes: &[u8]) -> String {
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number from the environment, in decimal or as `0x…`.
pub fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Where two byte strings part, told in a sentence.
pub fn difference(left: &[u8], right: &[u8]) -> String {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    format!("{} and {} bytes, equal up to byte {common}", left.len(), right.len())
}

/// A small seeded generator (splitmix64): good enough to scatter, and reproducible everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for `seed`; nearby seeds give unrelated sequences.
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed ^ 0x6d69_6c6c_706f_6e64);
        rng.next();
        rng
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

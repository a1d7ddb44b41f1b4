//! Whether a body is the right one: its length always, and its bytes as closely as was asked.
//!
//! | level | what is looked at | cost |
//! |---|---|---|
//! | length | how many bytes there are | none |
//! | crc32 | that, and a CRC-32 over all of them | some GB/s |
//! | full | every byte against those expected, or their SHA-256 | a comparison is cheap, SHA-256 is not |
//!
//! Where only a SHA-256 is known, `crc32` hashes whole bodies until one is right, and holds all others to the CRC-32
//! of that one. Where nothing is known, all bodies are held to the first. A body that fits one receive together with
//! its head is compared byte by byte at `crc32` too, where its bytes are known.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::tally::{Faults, Kind};

/// How closely bodies are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Level {
    /// Only their length
    Length,
    /// Their length and their CRC-32
    Crc32,
    /// Every byte, or their SHA-256
    Full,
}

/// What is known about the right body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing.
    Unknown,
    /// All of it.
    Bytes(Arc<[u8]>),
    /// Its SHA-256.
    Sha256([u8; 32]),
}

/// Judges the bodies of one thread.
#[derive(Clone, Debug)]
pub struct Judge {
    level: Level,
    length: Option<u64>,
    content: Content,
    crc: Option<u32>,
}

/// How far one body has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Its bytes so far.
    pub seen: u64,
    crc: crc32fast::Hasher,
    sha: Option<Sha256>,
    wrong_at: Option<u64>,
}

impl Judge {
    /// One that knows this. `length` is the expected one; known bytes bring their own.
    pub fn new(level: Level, length: Option<u64>, content: Content) -> Self {
        let (crc, known) = match &content {
            Content::Bytes(bytes) => (Some(crc32fast::hash(bytes)), Some(bytes.len() as u64)),
            _ => (None, None),
        };
        Self { level, length: length.or(known), content, crc }
    }

    /// What is checked, in words.
    pub fn describe(&self) -> String {
        let length =
            self.length.map_or("lengths as the heads say".into(), |length| format!("length {length}"));
        match (self.level, &self.content) {
            (Level::Length, _) => format!("{length}; no byte looked at"),
            (Level::Crc32, Content::Unknown) => format!("{length}; CRC-32 of each like the first"),
            (Level::Crc32, Content::Bytes(_)) => format!("{length}; CRC-32 of each like the known bytes"),
            (Level::Crc32, Content::Sha256(_)) => {
                format!("{length}; CRC-32 of each like that of one with the right SHA-256")
            }
            (Level::Full, Content::Sha256(_)) => format!("{length}; SHA-256 of each"),
            (Level::Full, _) => format!("{length}; every byte of each"),
        }
    }

    /// Whether only the number of bytes matters.
    pub fn only_counts(&self) -> bool {
        self.level == Level::Length
    }

    /// Whether a body that lies before us as a whole is right without further words.
    pub fn is_right(&self, body: &[u8]) -> bool {
        let fits = self.length.is_none_or(|length| length == body.len() as u64);
        fits && match (self.level, &self.content) {
            (Level::Length, _) => true,
            (_, Content::Bytes(bytes)) => **bytes == *body,
            (Level::Crc32, _) => self.crc == Some(crc32fast::hash(body)),
            (Level::Full, _) => false,
        }
    }

    /// A body begins.
    pub fn begin(&self) -> Progress {
        let hashes = match (self.level, &self.content) {
            (Level::Full, Content::Sha256(_)) => true,
            (Level::Crc32, Content::Sha256(_)) => self.crc.is_none(),
            _ => false,
        };
        Progress { sha: hashes.then(Sha256::new), ..Progress::default() }
    }

    /// More of it.
    pub fn feed(&self, progress: &mut Progress, bytes: &[u8]) {
        let from = progress.seen as usize;
        progress.seen += bytes.len() as u64;
        match (self.level, &self.content) {
            (Level::Length, _) => return,
            (Level::Full, Content::Bytes(known)) if progress.wrong_at.is_none() => {
                let expected = known.get(from..).unwrap_or_default();
                let expected = &expected[..expected.len().min(bytes.len())];
                if *expected != bytes[..expected.len()] {
                    let same = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                    progress.wrong_at = Some((from + same) as u64);
                }
            }
            (Level::Crc32, _) => progress.crc.update(bytes),
            _ => {}
        }
        if let Some(sha) = &mut progress.sha {
            sha.update(bytes);
        }
    }

    /// The body is at its end. `whose` says whose it is.
    pub fn end(&mut self, progress: &mut Progress, faults: &mut Faults, whose: impl FnOnce() -> String) {
        let seen = progress.seen;
        if let Some(length) = self.length.filter(|length| *length != seen) {
            faults.note(Kind::Length, || format!("{}: {seen} bytes instead of {length}", whose()));
            return;
        }
        let crc = std::mem::take(&mut progress.crc).finalize();
        let verdict = match (&self.content, progress.sha.take()) {
            (Content::Sha256(expected), Some(sha)) => match <[u8; 32]>::from(sha.finalize()) {
                got if got == *expected => Ok(()),
                got => Err(format!("SHA-256 {} instead of {}", hex(&got), hex(expected))),
            },
            _ => Ok(()),
        };
        let verdict = verdict.and_then(|()| match (self.level, self.crc, progress.wrong_at) {
            (Level::Full, _, Some(at)) => Err(format!("byte {at} is not the expected one")),
            (Level::Crc32, Some(expected), _) if crc != expected => {
                Err(format!("CRC-32 {crc:08x} instead of {expected:08x}"))
            }
            _ => Ok(()),
        });
        match verdict {
            Ok(()) if self.level == Level::Crc32 => self.crc = self.crc.or(Some(crc)),
            Ok(()) => {}
            Err(why) => faults.note(Kind::Bytes, || format!("{}: {why}", whose())),
        }
    }

    /// The length that an answer to HEAD tells.
    pub fn told(&self, told: Option<u64>, faults: &mut Faults, whose: impl FnOnce() -> String) {
        if let Some(length) = self.length.filter(|length| told != Some(*length)) {
            let told = told.map_or("no length".into(), |told| format!("Content-Length {told}"));
            faults.note(Kind::Length, || format!("{}: {told} instead of {length}", whose()));
        }
    }
}

/// 64 hexadecimal digits as they stand for 32 bytes.
pub fn sha256(text: &str) -> Result<[u8; 32], String> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
    let bytes = pairs.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or_else(|| "a SHA-256 has 64 hexadecimal digits".into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &[u8] = b"the right body";
    const WRONG: &[u8] = b"the wrong body";

    fn faults(judge: &mut Judge, body: &[u8], split: usize) -> Vec<(Kind, String)> {
        let (mut progress, mut faults) = (judge.begin(), Faults::default());
        judge.feed(&mut progress, &body[..split]);
        judge.feed(&mut progress, &body[split..]);
        judge.end(&mut progress, &mut faults, || "it".into());
        faults.iter().map(|(kind, _, words)| (kind, words.to_owned())).collect()
    }

    #[test]
    fn every_level_sees_what_it_looks_at() {
        let bytes = || Content::Bytes(RIGHT.into());
        let sha = || Content::Sha256(Sha256::digest(RIGHT).into());
        for content in [bytes(), sha(), Content::Unknown] {
            for level in [Level::Length, Level::Crc32, Level::Full] {
                let mut judge = Judge::new(level, Some(14), content.clone());
                for split in 0..RIGHT.len() {
                    assert_eq!(faults(&mut judge, RIGHT, split), [], "{level:?} {content:?}");
                    let wrong = faults(&mut judge, WRONG, split);
                    let sees = level == Level::Crc32 || level == Level::Full && content != Content::Unknown;
                    assert_eq!(
                        wrong.iter().any(|(kind, _)| *kind == Kind::Bytes),
                        sees,
                        "{level:?} {content:?}"
                    );
                }
                assert_eq!(faults(&mut judge, &RIGHT[1..], 0)[0].0, Kind::Length);
                assert_eq!(faults(&mut judge, &[RIGHT, b"x"].concat(), 3)[0].0, Kind::Length);
                assert!(judge.is_right(RIGHT) || level == Level::Full && content != bytes());
                assert!(level == Level::Length || !judge.is_right(WRONG));
                assert!(!judge.is_right(&RIGHT[1..]));
            }
        }
    }

    #[test]
    fn a_wrong_body_teaches_nothing() {
        let mut judge = Judge::new(Level::Crc32, None, Content::Sha256(Sha256::digest(RIGHT).into()));
        assert_eq!(faults(&mut judge, WRONG, 0).len(), 1);
        assert_eq!(faults(&mut judge, WRONG, 0).len(), 1);
        assert_eq!(faults(&mut judge, RIGHT, 0), []);
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let mut judge = Judge::new(Level::Full, None, Content::Bytes(RIGHT.into()));
        for split in 0..RIGHT.len() {
            assert_eq!(faults(&mut judge, WRONG, split)[0].1, "it: byte 4 is not the expected one");
        }
    }

    #[test]
    fn a_sha256_is_64_digits() {
        assert_eq!(sha256(&hex(&[0xab; 32])), Ok([0xab; 32]));
        for wrong in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert!(sha256(wrong).is_err(), "{wrong}");
        }
    }
}

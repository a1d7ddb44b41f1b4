//! Digests of bytes as they arrive.
//!
//! A small body is hashed where it is received. From a larger one pieces are gathered, and a worker hashes what has
//! gathered while the next ones come in: the shard never hashes for long, and hashing overlaps receiving.
//! Invariant: bytes are hashed in the order of [`Digests::update`], each once; no more than [`WAITING_MAX`] and one
//! receive of them wait. Lives on: the shard that receives.

use crate::runtime::notify::Notify;
use crate::runtime::{blocking, shard};
use crc_fast::CrcAlgorithm;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::rc::Rc;

/// Bodies up to this length are hashed on the shard.
const INLINE_MAX: usize = 64 << 10;
/// A worker gets no less than this unless it is the end.
const PIECE_MIN: usize = 256 << 10;
/// With this much waiting, [`Digests::ready`] waits.
const WAITING_MAX: usize = 512 << 10;
/// The room of what waits, which is never enlarged: doubled as it fills, it would have twice what is needed.
const ROOM: usize = WAITING_MAX + (256 << 10);

/// What can be computed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Algorithm {
    /// MD5, which entity tags are made of.
    Md5,
    /// SHA-1
    Sha1,
    /// SHA-256
    Sha256,
    /// CRC-32 of zip and Ethernet.
    Crc32,
    /// CRC-32 of Castagnoli.
    Crc32c,
    /// CRC-64 of NVMe.
    Crc64Nvme,
}

/// A set of digests over bytes that arrive piece by piece.
pub struct Digests {
    taken: usize,
    shared: Rc<Shared>,
}

/// What was computed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Digested(Vec<(Algorithm, Box<[u8]>)>);

impl Digested {
    /// The digest, most significant byte first; `None` if it was not wanted.
    pub fn of(&self, algorithm: Algorithm) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == algorithm).map(|(_, value)| &**value)
    }

    /// All that was wanted.
    pub fn iter(&self) -> impl Iterator<Item = (Algorithm, &[u8])> {
        self.0.iter().map(|(algorithm, value)| (*algorithm, &**value))
    }
}

impl Digests {
    /// Computes each of `wanted`.
    pub fn new(wanted: &[Algorithm]) -> Self {
        let hashes = Hashes(wanted.iter().map(|algorithm| Hash::new(*algorithm)).collect());
        let state = State { hashes: Some(hashes), waiting: Vec::new(), spare: Vec::new() };
        Digests { taken: 0, shared: Rc::new(Shared { state: RefCell::new(state), changed: Notify::new() }) }
    }

    /// Takes the next bytes. What waits is bounded if [`Digests::ready`] was awaited before.
    pub fn update(&mut self, bytes: &[u8]) {
        self.taken = self.taken.saturating_add(bytes.len());
        let mut state = self.shared.state.borrow_mut();
        if self.taken <= INLINE_MAX {
            state.hashes.as_mut().expect("no worker was asked").update(bytes);
            return;
        }
        let (len, room) = (state.waiting.len(), state.waiting.capacity());
        if room - len < bytes.len() {
            state.waiting.reserve_exact(ROOM.saturating_sub(len).max(bytes.len()));
        }
        state.waiting.extend_from_slice(bytes);
        if state.hashes.is_some() && state.waiting.len() >= PIECE_MIN {
            drop(state);
            self.shared.send_to_worker();
        }
    }

    /// Waits until there is room for what a receive brings.
    pub async fn ready(&mut self) {
        while self.shared.state.borrow().waiting.len() >= WAITING_MAX {
            self.shared.changed.wait().await;
        }
    }

    /// What all bytes give.
    pub async fn finish(self) -> Digested {
        let shared = &self.shared;
        while shared.is_out() {
            shared.changed.wait().await;
        }
        if shared.state.borrow().waiting.len() > INLINE_MAX {
            shared.send_to_worker();
        }
        while shared.is_out() {
            shared.changed.wait().await;
        }
        let state = &mut *shared.state.borrow_mut();
        let mut hashes = state.hashes.take().expect("no worker has them");
        hashes.update(&state.waiting);
        hashes.finish()
    }
}

struct Shared {
    state: RefCell<State>,
    changed: Notify,
}

struct State {
    /// `None` while a worker has them.
    hashes: Option<Hashes>,
    waiting: Vec<u8>,
    /// The buffer of the last worker.
    spare: Vec<u8>,
}

impl Shared {
    fn is_out(&self) -> bool {
        self.state.borrow().hashes.is_none()
    }

    /// Has a worker hash what waits, and what will wait by then if that is enough.
    fn send_to_worker(self: &Rc<Self>) {
        let Some(mut job) = self.take_job() else { return };
        let shared = self.clone();
        shard::spawn("digest", async move {
            loop {
                let (mut hashes, mut bytes) = job;
                let hashed = blocking::run(move || {
                    hashes.update(&bytes);
                    bytes.clear();
                    (hashes, bytes)
                });
                let (hashes, bytes) = hashed.await.expect("hashing does not panic");
                let enough = {
                    let mut state = shared.state.borrow_mut();
                    (state.hashes, state.spare) = (Some(hashes), bytes);
                    state.waiting.len() >= PIECE_MIN
                };
                // The next job first: whoever is woken finds the hashes out again, and room.
                let next = if enough { shared.take_job() } else { None };
                shared.changed.notify_all();
                match next {
                    Some(next) => job = next,
                    None => return,
                }
            }
        });
    }

    fn take_job(&self) -> Option<(Hashes, Vec<u8>)> {
        let state = &mut *self.state.borrow_mut();
        let hashes = state.hashes.take()?;
        Some((hashes, std::mem::replace(&mut state.waiting, std::mem::take(&mut state.spare))))
    }
}

struct Hashes(Vec<Hash>);

impl Hashes {
    fn update(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|hash| hash.update(bytes));
    }

    fn finish(self) -> Digested {
        Digested(self.0.into_iter().map(Hash::finish).collect())
    }
}

enum Hash {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Crc32(crc32fast::Hasher),
    Crc32c(crc_fast::Digest),
    Crc64Nvme(crc_fast::Digest),
}

impl Hash {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Hash::Md5(Md5::new()),
            Algorithm::Sha1 => Hash::Sha1(Sha1::new()),
            Algorithm::Sha256 => Hash::Sha256(Sha256::new()),
            Algorithm::Crc32 => Hash::Crc32(crc32fast::Hasher::new()),
            Algorithm::Crc32c => Hash::Crc32c(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Crc64Nvme => Hash::Crc64Nvme(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Md5(md5) => md5.update(bytes),
            Hash::Sha1(sha1) => sha1.update(bytes),
            Hash::Sha256(sha256) => sha256.update(bytes),
            Hash::Crc32(crc) => crc.update(bytes),
            Hash::Crc32c(crc) | Hash::Crc64Nvme(crc) => crc.update(bytes),
        }
    }

    fn finish(self) -> (Algorithm, Box<[u8]>) {
        match self {
            Hash::Md5(md5) => (Algorithm::Md5, md5.finalize()[..].into()),
            Hash::Sha1(sha1) => (Algorithm::Sha1, sha1.finalize()[..].into()),
            Hash::Sha256(sha256) => (Algorithm::Sha256, sha256.finalize()[..].into()),
            Hash::Crc32(crc) => (Algorithm::Crc32, crc.finalize().to_be_bytes()[..].into()),
            // A CRC of 32 bits stands in the lower half.
            Hash::Crc32c(crc) => (Algorithm::Crc32c, crc.finalize().to_be_bytes()[4..].into()),
            Hash::Crc64Nvme(crc) => (Algorithm::Crc64Nvme, crc.finalize().to_be_bytes()[..].into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::text::hex;
    use crate::runtime::sim::{SimDisk, World, seeds};

    const ALL: [Algorithm; 6] = [
        Algorithm::Md5,
        Algorithm::Sha1,
        Algorithm::Sha256,
        Algorithm::Crc32,
        Algorithm::Crc32c,
        Algorithm::Crc64Nvme,
    ];

    fn on_shard<T: 'static>(seed: u64, work: impl Future<Output = T> + 'static) -> T {
        World::new(seed, 1, SimDisk::new(seed)).block_on(0, work)
    }

    #[test]
    fn the_check_values_of_the_catalogues() {
        let digested = on_shard(1, async {
            let mut digests = Digests::new(&ALL);
            digests.update(b"12345");
            digests.update(b"");
            digests.update(b"6789");
            digests.finish().await
        });
        let shown: Vec<_> = digested.iter().map(|(_, value)| hex(value)).collect();
        assert_eq!(
            shown,
            [
                "25f9e794323b453885f5181f1b624d0b",
                "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
                "cbf43926",
                "e3069283",
                "ae8b14860a799888",
            ]
        );
        assert_eq!(digested.of(Algorithm::Sha1).map(<[u8]>::len), Some(20));
    }

    #[test]
    fn only_what_was_wanted_is_computed() {
        let digested = on_shard(1, async { Digests::new(&[Algorithm::Md5]).finish().await });
        assert_eq!(digested.of(Algorithm::Md5).map(hex).unwrap(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(digested.of(Algorithm::Sha256), None);
    }

    /// Whatever the pieces, the order in which workers get to it and who waits: all bytes count, once, in order.
    #[test]
    fn pieces_of_any_size_give_what_the_whole_gives() {
        let whole: Vec<u8> = (0..3_000_000_u32).map(|at| (at ^ (at >> 9)) as u8).collect();
        let mut hashes = Hashes(ALL.map(Hash::new).into());
        hashes.update(&whole);
        let expected = hashes.finish();
        for seed in seeds(8) {
            let whole = whole.clone();
            let digested = on_shard(seed, async move {
                let mut digests = Digests::new(&ALL);
                let mut rest = &whole[..];
                while !rest.is_empty() {
                    let bound = [1000, 70_000, 256 << 10][(seed % 3) as usize];
                    let len = 1 + shard::current().entropy().below(bound) as usize;
                    let (piece, behind) = rest.split_at(len.min(rest.len()));
                    digests.ready().await;
                    digests.update(piece);
                    let waiting = digests.shared.state.borrow().waiting.len();
                    assert!(waiting < WAITING_MAX + (256 << 10), "{waiting} bytes wait");
                    rest = behind;
                }
                digests.finish().await
            });
            assert_eq!(digested, expected, "seed {seed}");
        }
    }

    #[test]
    fn whoever_gives_up_leaves_a_worker_to_end_alone() {
        let world = World::new(1, 1, SimDisk::new(1));
        world.block_on(0, async {
            let mut digests = Digests::new(&[Algorithm::Md5]);
            digests.update(&vec![7; 600_000]);
            assert!(digests.shared.is_out(), "a worker has it");
        });
        world.run_until_idle();
    }
}

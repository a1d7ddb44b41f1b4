//! Writes streams, kills the daemon, starts it again and reads everything back, round after round.
//!
//! Invariant: a stream whose answer was complete is read back byte for byte after any number of kills.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    daemon::{Daemon, Scratch, Setup},
    http::ask,
};

/// Streams per round.
const STREAMS: u64 = 32;
/// Rounds after which the data directory is thrown away, so that a long soak does not fill the disk.
const ROUNDS_PER_DATA_DIR: u64 = 20;

/// Runs rounds until the time is up, at least two; one line tells each.
pub fn rounds(root: &Path, time: Duration) -> io::Result<()> {
    let (binary, scratch) = (root.join("target/release/millpond"), Scratch::new()?);
    let started = Instant::now();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = Random(since_epoch.as_nanos() as u64 | 1);
    println!("seed {:#x}", random.0);

    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0u64.. {
        if round % ROUNDS_PER_DATA_DIR == 0 {
            acknowledged.clear();
            _ = fs::remove_dir_all(scratch.data());
        }
        let daemon = Setup::new(&binary, &scratch.data()).start()?;
        for (id, seed) in &acknowledged {
            read_back(&daemon, id, *seed)?;
        }
        let read = acknowledged.len();
        if round > 0 && started.elapsed() >= time {
            println!("{} rounds, last one read back {read} streams", round + 1);
            return daemon.kill();
        }
        let written = write_until_killed(daemon, round, &mut random, !time.is_zero())?;
        println!("round {round}: read back {read} streams, then {} of {STREAMS} acknowledged", written.len());
        acknowledged.extend(written);
    }
    unreachable!("rounds are counted without end")
}

/// Posts streams from another thread. With `early`, the daemon dies at a random moment in between.
fn write_until_killed(
    daemon: Daemon,
    round: u64,
    random: &mut Random,
    early: bool,
) -> io::Result<Vec<(String, u64)>> {
    let seeds: Vec<u64> = (0..STREAMS).map(|_| random.next()).collect();
    let patience = Duration::from_millis(if early { random.next() % 2_000 } else { 60_000 });
    let address = daemon.loom().to_owned();
    let (done, finished) = sync_channel::<()>(1);
    let writer = thread::spawn(move || {
        let mut acknowledged = Vec::new();
        for (at, seed) in seeds.into_iter().enumerate() {
            let id = format!("soak-{round}-{at}");
            match ask(&address, &format!("POST /stream/{id}"), &body_of(seed)) {
                Ok((201, _)) => acknowledged.push((id, seed)),
                Ok((status, _)) => {
                    return Err(io::Error::other(format!("POST {id} was answered {status}")));
                }
                // The daemon is gone; what was answered before counts.
                Err(_) => break,
            }
        }
        drop(done);
        Ok(acknowledged)
    });
    _ = finished.recv_timeout(patience);
    daemon.kill()?;
    let acknowledged: Vec<(String, u64)> = writer.join().expect("the writer does not panic")?;
    if !early && acknowledged.len() as u64 != STREAMS {
        return Err(io::Error::other(format!("only {} of {STREAMS} streams were taken", acknowledged.len())));
    }
    Ok(acknowledged)
}

fn read_back(daemon: &Daemon, id: &str, seed: u64) -> io::Result<()> {
    let (status, body) = ask(daemon.loom(), &format!("GET /stream/{id}"), b"")?;
    let expected = body_of(seed);
    if status == 200 && body == expected {
        return Ok(());
    }
    let differs = body.iter().zip(&expected).position(|(got, wanted)| got != wanted);
    Err(io::Error::other(format!(
        "acknowledged stream {id} (seed {seed:#x}): status {status}, {} of {} bytes, first difference at {differs:?}",
        body.len(),
        expected.len()
    )))
}

/// The bytes of a stream, made from its seed: mostly small, sometimes up to 4 MiB.
fn body_of(seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let bits = random.next() % 23;
    let len = random.next() % (1 << bits).max(1);
    (0..len).map(|_| random.next() as u8).collect()
}

/// xorshift64*: enough to vary sizes and bytes from one printed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_makes_the_same_bytes_and_another_seed_others() {
        let bodies: Vec<Vec<u8>> = (1..200).map(body_of).collect();
        assert_eq!(bodies, (1..200).map(body_of).collect::<Vec<_>>());
        assert!(bodies.iter().any(|body| body.len() > 1 << 16) && bodies.iter().any(|body| body.len() < 100));
        assert!(bodies.iter().all(|body| body.len() < 4 << 20));
    }
}

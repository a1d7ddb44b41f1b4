//! SIGKILL at random points, again and again, while witnesses work; after every start they compare their books.
//!
//! A witness owns some names and writes down, before it asks for a change, what may be true if the daemon dies now.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::content::{Rng, number_from};
use super::http::request_bytes;
use super::{Answer, Conn, Daemon, End};

/// Changes what it owns while the daemon lives, and compares after it came back.
pub trait Witness: Send {
    /// Works until the flag is set and the daemon gone; an error is a wrong answer.
    fn work(&mut self, addr: &str, killed: &AtomicBool) -> Result<(), String>;

    /// Whether everything is one of the things that it may be.
    fn compare(&mut self, addr: &str) -> Result<(), String>;

    /// How many of its changes were acknowledged so far.
    fn acknowledged(&self) -> u64;
}

/// Why a witness stops.
pub enum Stop {
    /// The daemon is gone.
    Killed,
    /// It answers what it must not.
    Wrong(String),
}

/// Half of the kills that are asked for: here in one class of durability, half in the test of the other one.
/// `MILLPOND_CRASH_CYCLES` sets their number, 200 unless told.
fn cycles() -> u64 {
    number_from("MILLPOND_CRASH_CYCLES").unwrap_or(200).div_ceil(2)
}

/// The seed that `MILLPOND_SEED` tells, or this one.
pub fn seed_or(seed: u64) -> u64 {
    number_from("MILLPOND_SEED").unwrap_or(seed)
}

/// Kills the daemon again and again under the hands of witnesses; `address` is where they work. `restart` has a daemon
/// that was killed serve again. Cycle and seed are part of every failure.
#[allow(clippy::disallowed_methods, reason = "the moment of the kill is the test's input")]
pub fn again_and_again<W: Witness>(
    class: &str,
    seed: u64,
    daemon: &mut Daemon,
    address: fn(&Daemon) -> &str,
    witnesses: &mut [W],
    mut restart: impl FnMut(&mut Daemon, &mut Rng),
) {
    let (cycles, mut rng) = (cycles(), Rng::new(seed));
    for cycle in 0..cycles {
        let told = |why: String| panic!("{class}, cycle {cycle} of {cycles}, MILLPOND_SEED={seed:#x}: {why}");
        let killed = AtomicBool::new(false);
        let life = Duration::from_micros(rng.below(120_000));
        let addr = address(daemon).to_owned();
        std::thread::scope(|scope| {
            let (addr, killed) = (addr.as_str(), &killed);
            let at_work: Vec<_> =
                witnesses.iter_mut().map(|witness| scope.spawn(move || witness.work(addr, killed))).collect();
            // Not a wait for anything: the random moment at which everything ends.
            std::thread::sleep(life);
            killed.store(true, Ordering::SeqCst);
            daemon.kill9();
            for witness in at_work {
                witness.join().expect("a witness").unwrap_or_else(told);
            }
        });
        restart(daemon, &mut rng);
        for witness in &mut *witnesses {
            witness.compare(address(daemon)).unwrap_or_else(told);
        }
    }
    let made: u64 = witnesses.iter().map(|witness| witness.acknowledged()).sum();
    assert!(made >= cycles, "{made} acknowledged changes in {cycles} cycles prove little");
}

/// Changes one thing after the other with `change` until the daemon is killed or `change` has nothing left to do.
pub fn until_killed(
    killed: &AtomicBool,
    mut change: impl FnMut() -> Option<Result<(), Stop>>,
) -> Result<(), String> {
    while !killed.load(Ordering::SeqCst) {
        match change() {
            None => return Ok(()),
            Some(Ok(())) => {}
            // The flag was set before the kill, so trouble without it was not caused by it.
            Some(Err(Stop::Killed)) if killed.load(Ordering::SeqCst) => return Ok(()),
            Some(Err(Stop::Killed)) => {
                return Err("the daemon stopped answering before it was killed".into());
            }
            Some(Err(Stop::Wrong(why))) => return Err(why),
        }
    }
    Ok(())
}

/// A request on a connection of its own; a cut answer is that of a dead daemon.
pub fn ask(
    addr: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, Stop> {
    let mut conn = Conn::try_open(addr).map_err(|_| Stop::Killed)?;
    conn.try_send(request_bytes(method, target, headers, body)).map_err(|_| Stop::Killed)?;
    let answer = conn.try_answer_to(method).map_err(|_| Stop::Killed)?;
    if answer.end == End::Cut { Err(Stop::Killed) } else { Ok(answer) }
}

//! One measurement: threads that work, a window in which they are measured, and the books at its two ends.
//!
//! Invariant: all threads share one window. It opens when all are connected and warm, and closes by the clock or
//! when the last thread has done its share, whichever was asked for; afterwards nothing new is asked, but what was
//! asked is still waited for and checked.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use crate::{
    cli::Load,
    clock::{self, SECOND},
    cpu::{Books, Spent},
    poll,
    tally::Tally,
};

/// The part of one thread.
pub trait Lane {
    /// Works through the window and returns what it counted.
    fn run(self, window: Window, notes: &Notes) -> Tally;
}

/// When what counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// When work begins; what comes before `opens` is warm-up.
    pub start: u64,
    /// When counting begins.
    pub opens: u64,
    /// When it ends, unless the number of operations is what ends it.
    pub closes: Option<u64>,
    /// How long after the end an answer may come, and how long it may take before.
    pub patience: u64,
}

/// How a thread tells what it has come to.
pub struct Notes(SyncSender<Note>);

enum Note {
    Ready,
    Closed,
    Failed(String),
}

impl Notes {
    /// Says that this thread's window has closed.
    pub fn closed(&self) {
        // The other end goes only when the measurement was given up.
        _ = self.0.send(Note::Closed);
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All threads together.
    pub tally: Tally,
    /// Nanoseconds from the opening to the closing of the window.
    pub window: u64,
    /// What the servers spent in it, if there are any to look at.
    pub servers: Option<Spent>,
    /// Of each thread, which part of the window it was on a CPU.
    pub busy: Vec<f64>,
}

/// From this part of the window on, a thread was the limit itself.
pub const BUSY_MAX: f64 = 0.95;

impl Outcome {
    /// Whether one of our threads had no time left.
    pub fn was_the_limit(&self) -> bool {
        self.busy.iter().any(|busy| *busy > BUSY_MAX)
    }

    /// The window in seconds.
    pub fn seconds(&self) -> f64 {
        self.window as f64 / SECOND as f64
    }
}

/// Runs one lane per thread of the load; each is made on the thread that it then works on.
pub fn run<L: Lane>(
    load: &Load,
    makers: Vec<impl FnOnce() -> Result<L, String> + Send>,
) -> Result<Outcome, String> {
    let words = |why: io::Error| why.to_string();
    load.server_pid.iter().try_for_each(|pid| Books::of(*pid).map(drop)).map_err(words)?;
    poll::settle(load.core(0)).map_err(words)?;
    let (notes, heard) = sync_channel(2 * load.threads);
    thread::scope(|scope| {
        let mut starts = Vec::new();
        let workers: Vec<_> = (makers.into_iter().enumerate())
            .map(|(number, make)| {
                let (start, starting) = sync_channel(1);
                starts.push(start);
                let notes = Notes(notes.clone());
                scope.spawn(move || {
                    let made = poll::settle(load.core(number)).map_err(words).and_then(|()| make());
                    let lane = match made {
                        Ok(lane) => lane,
                        Err(why) => {
                            _ = notes.0.send(Note::Failed(why));
                            return None;
                        }
                    };
                    _ = notes.0.send(Note::Ready);
                    // No window comes when another thread could not begin.
                    let window: Window = starting.recv().ok()?;
                    Some(lane.run(window, &notes))
                })
            })
            .collect();
        drop(notes);
        all_say(&heard, load.threads, |note| matches!(note, Note::Ready))?;
        let window = load.window();
        for start in &starts {
            _ = start.send(window);
        }
        let closed = closed_until(&heard, window.opens);
        let before = books(load).map_err(words)?;
        all_say(&heard, load.threads - closed, |note| matches!(note, Note::Closed))?;
        let after = books(load).map_err(words)?;
        let tallies: Vec<Tally> = workers
            .into_iter()
            .filter_map(|worker| worker.join().expect("a worker does not panic"))
            .collect();
        Ok(together(&tallies, spent(&before, &after)))
    })
}

/// Waits until every thread has said it; what a thread failed with ends the measurement.
fn all_say(heard: &Receiver<Note>, threads: usize, expected: fn(&Note) -> bool) -> Result<(), String> {
    for _ in 0..threads {
        match heard.recv() {
            Ok(note) if expected(&note) => {}
            Ok(Note::Failed(why)) => return Err(why),
            Ok(_) | Err(_) => return Err("a thread left before its time".into()),
        }
    }
    Ok(())
}

/// Waits for a time, and counts the threads that lost all their connections before it.
fn closed_until(heard: &Receiver<Note>, time: u64) -> usize {
    let mut closed = 0;
    loop {
        let left = time.saturating_sub(clock::now());
        if left == 0 {
            return closed;
        }
        match heard.recv_timeout(Duration::from_nanos(left)) {
            Ok(_) => closed += 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return closed,
        }
    }
}

fn books(load: &Load) -> io::Result<Vec<Books>> {
    load.server_pid.iter().map(|pid| Books::of(*pid)).collect()
}

fn spent(before: &[Books], after: &[Books]) -> Option<Spent> {
    let each = before.iter().zip(after).map(|(before, after)| after.since(before));
    each.reduce(|all, one| Spent { nanos: all.nanos + one.nanos, exact: all.exact && one.exact })
}

fn together(tallies: &[Tally], servers: Option<Spent>) -> Outcome {
    let mut all = tallies[0].clone();
    tallies[1..].iter().for_each(|tally| all.add(tally));
    let length = |tally: &Tally| (tally.window.1 - tally.window.0).max(1);
    let busy = tallies.iter().map(|tally| tally.cpu as f64 / length(tally) as f64).collect();
    Outcome { window: length(&all), tally: all, servers, busy }
}

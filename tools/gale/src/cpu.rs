//! What a process spends on CPUs: the kernel's books about its threads.
//!
//! Invariant: time comes from the scheduler's own count (`schedstat`, nanoseconds) as long as every thread that was
//! there at the beginning is there at the end; else from the ticks of the whole process, which forget nobody.

use std::{collections::BTreeMap, fs, io};

use crate::clock::SECOND;

/// The books of one process at one time.
#[derive(Clone, Debug)]
pub struct Books {
    /// Nanoseconds by thread.
    threads: BTreeMap<u32, u64>,
    /// User and system time of all threads that ever lived.
    ticks: u64,
}

/// What was spent between two looks at the books.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spent {
    /// Nanoseconds on a CPU.
    pub nanos: u64,
    /// Whether the scheduler counted them; else they are ticks, and so coarse.
    pub exact: bool,
}

impl Books {
    /// Of this process, now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        let folder = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&folder).map_err(|why| named(&folder, &why))? {
            let folder = entry?.path();
            let tid = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
            // A thread that ends while we look is missing from the books, which shows in the end.
            let Ok(schedstat) = fs::read_to_string(folder.join("schedstat")) else { continue };
            let nanos = schedstat.split(' ').next().and_then(|first| first.parse().ok());
            let (Some(tid), Some(nanos)) = (tid, nanos) else { return Err(unreadable(pid, "schedstat")) };
            threads.insert(tid, nanos);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks = ticks(&stat).ok_or_else(|| unreadable(pid, "stat"))?;
        Ok(Self { threads, ticks })
    }

    /// What was spent since then.
    pub fn since(&self, before: &Self) -> Spent {
        let all_live = before.threads.keys().all(|tid| self.threads.contains_key(tid));
        if !all_live || self.threads.is_empty() {
            let per_second = rustix::param::clock_ticks_per_second();
            return Spent {
                nanos: self.ticks.saturating_sub(before.ticks) * (SECOND / per_second),
                exact: false,
            };
        }
        let spent = |(tid, nanos): (&u32, &u64)| nanos - before.threads.get(tid).unwrap_or(&0).min(nanos);
        Spent { nanos: self.threads.iter().map(spent).sum(), exact: true }
    }
}

/// The command name may hold spaces and parentheses, so fields are counted from the last one.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(number(11)? + number(12)?)
}

fn unreadable(pid: u32, what: &str) -> io::Error {
    io::Error::other(format!("/proc/{pid}: {what} is not as expected"))
}

fn named(path: &str, why: &io::Error) -> io::Error {
    io::Error::other(format!("{path}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(threads: &[(u32, u64)], ticks: u64) -> Books {
        Books { threads: threads.iter().copied().collect(), ticks }
    }

    #[test]
    fn threads_that_come_count_and_threads_that_go_turn_it_to_ticks() {
        let before = books(&[(1, 100), (2, 50)], 7);
        let more = books(&[(1, 150), (2, 50), (3, 9)], 9);
        assert_eq!(more.since(&before), Spent { nanos: 59, exact: true });
        let fewer = books(&[(1, 150)], 9);
        let tick = SECOND / rustix::param::clock_ticks_per_second();
        assert_eq!(fewer.since(&before), Spent { nanos: 2 * tick, exact: false });
    }

    #[test]
    fn ticks_are_found_whatever_the_process_is_called() {
        assert_eq!(ticks("7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1"), Some(42));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn our_own_books_move_when_we_work() {
        let before = Books::of(std::process::id()).expect("our books");
        let mut sum = 0u64;
        while Books::of(std::process::id()).expect("our books").since(&before).nanos < 2_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
    }
}

//! What it costs to find a name among few and among very many.
//!
//! Expected: no more for a million names than for a thousand, apart from the memory that is not in a cache then; no
//! allocation; the same for a name that is not there. Not measured: the way to the owner's shard, and the wait for
//! what is pending.

mod meter;

use meter::store::Bench;
use meter::{Tally, count, is_smoke};
use millpond::storage::{Key, LogId};
use std::hint::black_box;

fn main() {
    for names in [1_000, 100_000, 1_000_000] {
        find(count(names, names.min(1_000)));
        if is_smoke() {
            return;
        }
    }
}

fn find(names: usize) {
    let bench = Bench::new();
    for number in 0..names {
        bench.store.names().put(key(number), LogId(0), "".into()).expect("put");
        if number % 1_000 == 0 {
            bench.turn();
        }
    }
    bench.turn();
    assert_eq!(bench.store.names().count(), names);
    // Made before, so that what is counted is the search alone; so many that no cache holds what they lead to.
    let asked: Vec<Key> = (0..names.min(100_000)).map(|at| key(scattered(at, names))).collect();
    let absent: Vec<Key> = (0..names.min(100_000)).map(|at| key(names + scattered(at, names))).collect();
    let operations = count(1_000_000, 1_000);
    for (what, keys) in [("that is there", &asked), ("that is not", &absent)] {
        let tally = Tally::begin();
        let mut found = 0;
        for key in keys.iter().cycle().take(operations) {
            found += usize::from(black_box(bench.store.names().get(key)).expect("undamaged").entry.is_some());
        }
        let total = tally.end(operations);
        assert_eq!(total.allocations, 0, "a search allocates nothing");
        total.report(&format!("find a name {what} among {names}"), "");
        assert_eq!(
            found,
            if keys[0] == asked[0] { operations } else { 0 },
            "a fast wrong answer does not count"
        );
    }
}

/// As names of builds are: a common beginning, then what tells them apart.
fn key(number: usize) -> Key {
    Key::new(1, format!("build-{:08x}-linux-release", number.wrapping_mul(0x9e37_79b1) as u32).as_bytes())
}

/// Any order but the one of the names.
fn scattered(at: usize, names: usize) -> usize {
    (at * 611_953) % names
}

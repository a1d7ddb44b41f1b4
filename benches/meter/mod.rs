//! What every bench shares: timing a closure, counting what it allocates, and shards to run on.
//!
//! Invariant: what is printed was counted, and [`measure`] fails when its operation allocates after the warm-up, so
//! "no allocation per operation" is a fact. Without `--bench` (as `cargo test --benches` calls it), with `--test`,
//! or with `MILLPOND_BENCH_SMOKE=1`, everything runs a few times only and nothing is claimed about time.
//! Runs on: any thread; the counter of allocations is one for the whole process.

// Each bench is a crate of its own and uses its own part of this one.
#![allow(dead_code)]

pub mod shards;
pub mod store;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs `operation` in rounds and prints nanoseconds per operation; asserts that it does not allocate.
pub fn measure<T>(name: &str, mut operation: impl FnMut() -> T) {
    let (rounds, operations) = if is_smoke() { (2, 20) } else { (15, OPERATIONS) };
    for _ in 0..operations.min(WARM_UP) {
        black_box(operation());
    }
    let before = allocations();
    let mut ns_per_op = [0.0; ROUNDS_MAX];
    for ns in &mut ns_per_op[..rounds] {
        let start = Instant::now();
        for _ in 0..operations {
            black_box(operation());
        }
        *ns = start.elapsed().as_nanos() as f64 / f64::from(operations);
    }
    assert_eq!(allocations() - before, 0, "{name} allocates after its warm-up");
    let ns_per_op = &mut ns_per_op[..rounds];
    ns_per_op.sort_by(f64::total_cmp);
    let (min, max) = (ns_per_op[0], ns_per_op[ns_per_op.len() - 1]);
    let median = ns_per_op[ns_per_op.len() / 2];
    println!("{name}: median {median:.1} ns/op, min {min:.1}, max {max:.1}, 0 allocations/op{}", note());
}

/// Time and allocations of many operations that are done once, as a whole.
pub struct Tally {
    began: Instant,
    allocations: u64,
}

/// What a [`Tally`] came to.
pub struct Total {
    /// How many operations.
    pub count: usize,
    /// The time of all of them.
    pub elapsed: Duration,
    /// Allocations of the process meanwhile.
    pub allocations: u64,
}

impl Tally {
    /// From here on.
    pub fn begin() -> Self {
        let allocations = allocations();
        Tally { began: Instant::now(), allocations }
    }

    /// Until here there were `count` operations.
    pub fn end(self, count: usize) -> Total {
        Total { count, elapsed: self.began.elapsed(), allocations: allocations() - self.allocations }
    }
}

impl Total {
    /// Allocations of each.
    pub fn allocations_per_op(&self) -> f64 {
        self.allocations as f64 / self.count as f64
    }

    /// So many bytes in all that time, in GiB/s.
    pub fn rate(&self, bytes: u64) -> f64 {
        bytes as f64 / self.elapsed.as_secs_f64() / f64::from(1 << 30)
    }

    /// Prints what each cost, and what else is to be said.
    pub fn report(&self, name: &str, more: &str) {
        let ns = self.elapsed.as_nanos() as f64 / self.count as f64;
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        println!("{name}: {ns:.1} ns/op, {:.3} allocations/op{more}{}", self.allocations_per_op(), note());
    }
}

/// How long things took, each of them.
#[derive(Default)]
pub struct Delays(Vec<Duration>);

impl Delays {
    /// Room for `count` of them, so that adding one does not allocate.
    pub fn with_room(count: usize) -> Self {
        Delays(Vec::with_capacity(count))
    }

    /// Adds one.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Prints the usual ranks; the words and units are what `cargo x perf` reads.
    pub fn report(&mut self, name: &str, more: &str) {
        self.0.sort();
        let at = |share: f64| {
            let rank = (share * self.0.len() as f64).ceil() as usize;
            self.0[rank.clamp(1, self.0.len()) - 1].as_nanos() as f64 / 1e3
        };
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        println!(
            "{name}: p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.1} us, count {}{more}{}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            self.0.len(),
            note()
        );
    }
}

/// `measured` operations, or `smoke` when nothing is measured.
pub fn count(measured: usize, smoke: usize) -> usize {
    if is_smoke() { smoke } else { measured }
}

/// Whether this run only shows that the bench works.
pub fn is_smoke() -> bool {
    let wants_bench = std::env::args().any(|arg| arg == "--bench");
    let wants_test = std::env::args().any(|arg| arg == "--test");
    !wants_bench || wants_test || std::env::var_os("MILLPOND_BENCH_SMOKE").is_some_and(|value| value == "1")
}

fn note() -> &'static str {
    if is_smoke() { " (smoke: not a measurement)" } else { "" }
}

/// Allocations of the whole process so far.
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Bytes that the whole process has from the allocator, as glibc's spends them: 8 beside each piece, in steps of 16, at
/// least 32.
pub fn held() -> u64 {
    HELD.load(Ordering::Relaxed)
}

fn spent(len: usize) -> u64 {
    (len as u64 + 8).next_multiple_of(16).max(32)
}

/// The system's allocator, counting.
pub struct Counting;

// SAFETY: every call goes to `System` unchanged, which keeps the contract; counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises about `layout` are passed on as they are.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(spent(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promised for this function.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: `block` came from `alloc` or `realloc` above, hence from `System`.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(spent(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promised for this function.
        unsafe { System.dealloc(block, layout) }
    }

    // SAFETY: `block` came from `alloc` or `realloc` above, hence from `System`.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(spent(len), Ordering::Relaxed);
        HELD.fetch_sub(spent(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promised for this function.
        unsafe { System.realloc(block, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);

const OPERATIONS: u32 = 200_000;
const WARM_UP: u32 = 10_000;
const ROUNDS_MAX: usize = 15;

//! Times a closure and counts what it allocates; enough for a parser, no crate needed.
//!
//! Invariant: a bench that allocates after its warm-up fails, so "no allocation per operation" is a fact.
//! Runs on: one thread. Without `--bench` (as `cargo test --benches` calls it), with `--test`, or with
//! `MILLPOND_BENCH_SMOKE=1`, each closure runs a few times only and nothing is claimed about time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Runs `operation` in rounds and prints nanoseconds per operation; asserts that it does not allocate.
pub fn measure<T>(name: &str, mut operation: impl FnMut() -> T) {
    let (rounds, operations) = if is_smoke() { (2, 20) } else { (15, OPERATIONS) };
    for _ in 0..operations.min(WARM_UP) {
        black_box(operation());
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut ns_per_op = [0.0; ROUNDS_MAX];
    for ns in &mut ns_per_op[..rounds] {
        let start = Instant::now();
        for _ in 0..operations {
            black_box(operation());
        }
        *ns = start.elapsed().as_nanos() as f64 / f64::from(operations);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(allocations, 0, "{name} allocates after its warm-up");
    report(name, &mut ns_per_op[..rounds]);
}

fn report(name: &str, ns_per_op: &mut [f64]) {
    ns_per_op.sort_by(f64::total_cmp);
    let (min, max) = (ns_per_op[0], ns_per_op[ns_per_op.len() - 1]);
    let median = ns_per_op[ns_per_op.len() / 2];
    let note = if is_smoke() { " (smoke: not a measurement)" } else { "" };
    println!("{name}: median {median:.1} ns/op, min {min:.1}, max {max:.1}, 0 allocations/op{note}");
}

fn is_smoke() -> bool {
    let wants_bench = std::env::args().any(|arg| arg == "--bench");
    let wants_test = std::env::args().any(|arg| arg == "--test");
    !wants_bench || wants_test || std::env::var_os("MILLPOND_BENCH_SMOKE").is_some_and(|value| value == "1")
}

/// The system's allocator, counting.
pub struct Counting;

// SAFETY: every call goes to `System` unchanged, which keeps the contract; counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises about `layout` are passed on as they are.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised for this function.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: `block` came from `alloc` or `realloc` above, hence from `System`.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised for this function.
        unsafe { System.dealloc(block, layout) }
    }

    // SAFETY: `block` came from `alloc` or `realloc` above, hence from `System`.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised for this function.
        unsafe { System.realloc(block, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

const OPERATIONS: u32 = 200_000;
const WARM_UP: u32 = 10_000;
const ROUNDS_MAX: usize = 15;

//! What the daemon says about itself: counters, histograms, logs. Knows no other layer.
//!
//! Invariant: telling costs a shard a few plain stores. Each number has one writer, its shard; whoever wants
//! the sum reads all shards and adds up. Nothing here waits for a reader, a terminal or a disk.

pub mod counter;
pub mod histogram;
pub mod log;
pub mod metrics;

//! Shards and everything that touches the kernel.

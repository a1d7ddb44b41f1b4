//! What every black-box test shares: a started daemon, a raw HTTP client, and waiting with a deadline.
//!
//! Invariant: nothing here sleeps for luck. Whoever waits names the condition, and a deadline that passes
//! fails the test with the sentence of what did not happen.

// Each test file is a crate of its own and uses its own part of this one.
#![allow(dead_code, unused_imports)]

pub mod backend;
pub mod content;
pub mod crash;
pub mod daemon;
pub mod damage;
pub mod http;
pub mod ion;
pub mod loom;
pub mod micro;
pub mod moto;
pub mod node;
pub mod proc;
pub mod prometheus;
pub mod s3;
pub mod seccomp;
pub mod serpentine;
pub mod sidecar;
pub mod small_disk;
pub mod vblob;
pub mod wait;

pub use content::{bytes_of, sha256};
pub use daemon::{Daemon, Setup, Shared};
pub use http::{Answer, Conn, End, Live, get, head, request};
pub use loom::{Producer, error_of, fresh_id, json_of, post};
pub use wait::{PATIENCE, eventually};

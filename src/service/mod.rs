//! Meaning without syntax: no headers, no status codes.
//!
//! A service is one state per shard and the messages that these states send each other. Any shard takes any
//! request; the owner of a name, found by [`owner`], alone decides about it; bytes stay where they arrived.

pub mod app;
pub mod blob;
pub mod broker;
pub mod chain;
pub mod kept;
pub mod outflow;
pub mod output;
pub mod owner;
pub mod proxy;
pub mod pulse;
pub mod registry;
pub mod rpc;
pub mod stream;
mod warm;

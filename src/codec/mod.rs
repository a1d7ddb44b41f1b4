//! Pure functions over bytes and text: no I/O, no state; what is parsed here is tested by properties.
//!
//! Invariant: nothing in here knows a protocol, a socket or a file; equal input gives equal output.
//! Lives on: whichever shard calls.

pub mod json;
pub mod sigv4;
pub mod text;
pub mod time;
pub mod xml;
pub mod xml_in;

//! Meaning without syntax: no headers, no status codes.

pub mod stream;

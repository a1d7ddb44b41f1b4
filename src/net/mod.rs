//! Bytes and sockets; has never heard of a blob.

pub mod http;

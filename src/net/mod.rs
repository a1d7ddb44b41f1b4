//! Bytes and sockets; has never heard of a blob.
//!
//! A [`listener`] accepts on its shard and starts one task per connection; [`http`] turns the connection's bytes
//! into exchanges and hands each to a handler. Stored bytes pass through as [`crate::runtime::FileRange`]s: this
//! layer sends them without knowing what they are.

pub mod deadline;
pub mod frame;
pub mod http;
pub mod listener;
pub mod stream;
pub mod tls;
pub mod websocket;

//! millpond: live streams, blobs, process output and services from one daemon over one append-only store.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | shard | one core, its executor and everything that lives there; never blocks, never locks |
//! | home | the shard whose segments hold a thing's bytes |
//! | owner | the shard that alone decides over a name; found by hash |
//! | name | what a user calls a thing; exists once its record is in the owner's journal |
//! | run | a contiguous reservation in a bulk segment that one appender fills |
//! | extent | the address of immutable bytes: log, segment, generation, offset, length, and their checksums |
//! | body | bytes without a name of their own, which links share |
//! | link | a name that stands for parts of bodies; its record is what commits a blob |
//! | tail | a stream's bytes and how far they go: `first ≤ durable ≤ published ≤ reserved` |
//! | segment | one preallocated file; journal segments hold records, bulk segments raw bytes |
//! | dialect | the syntax of one protocol over the shared services |
//! | exchange | one request and its answer |
//!
//! # Layers, lowest first; each may use only those above it in this table
//!
//! Two exceptions, one each way: [`dialect`] reads [`config`], and never names [`storage`].
//!
//! | layer | holds |
//! |---|---|
//! | [`codec`] ⇎ [`observe`] | pure functions; counters and logs |
//! | [`runtime`] | shards, the ring, files, mappings: the only place that names glommio, io-uring or libc |
//! | [`net`] ⇎ [`storage`] | bytes and sockets; files and addresses; neither knows the other |
//! | [`service`] | meaning without syntax |
//! | [`dialect`] | syntax without state |
//! | [`config`], [`daemon`], [`cli`] | the program around it |

#![deny(unsafe_op_in_unsafe_fn)]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "module heads speak to those who read the code, private parts included"
)]
#![warn(missing_docs)]

pub mod cli;
pub mod codec;
pub mod config;
pub mod daemon;
pub mod dialect;
pub mod net;
pub mod observe;
pub mod runtime;
pub mod service;
pub mod storage;

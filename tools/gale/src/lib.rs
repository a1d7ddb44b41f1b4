//! gale: load for servers, and what they make of it.
//!
//! A mode is a protocol for one of the engines: [`rpc`] for requests and answers, [`flow`] for records that stream
//! from producers to readers. An engine
//! drives the connections of one thread around one epoll; [`run`] starts the threads, opens and closes the window in
//! which they are measured and looks at the books of the servers; [`report`] tells what came of it. Nothing here is
//! part of the daemon, and nothing of the daemon is part of this: it measures and checks from outside.

pub mod blob;
pub mod chance;
pub mod cli;
pub mod clock;
pub mod cpu;
pub mod flow;
pub mod held;
pub mod http;
pub mod nats;
pub mod net;
pub mod poll;
pub mod redis;
pub mod report;
pub mod rpc;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod stamp;
pub mod stream;
pub mod tally;
pub mod tcp;
pub mod topic;
pub mod units;
pub mod ws;

//! The HTTP/1.1 client behind `pipe`, `tail` and `stream`.
//!
//! Job: name a stream on a server, speak to it over one socket, and turn what comes back into values.
//! It does only what a producer or reader of streams needs: plain HTTP over TCP or a unix socket,
//! chunked bodies both ways, trailers. `place`, `answer`, `body`, `frame`, `state` and `outage` are
//! pure; `socket`, `look`, `patience` and `console` touch the world.
//!
//! Invariant: a body that did not end by its own framing is never reported as ended.
//!
//! Runs in: the short-lived command-line processes, on one thread; never inside the daemon, which is
//! why waiting and looking at the clock are fine here.

pub mod answer;
pub mod body;
pub mod console;
pub mod frame;
pub mod look;
pub mod outage;
pub mod patience;
pub mod place;
pub mod socket;
pub mod state;

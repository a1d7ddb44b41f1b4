//! The command line as a grammar, and what its words mean.
//!
//! Invariant: what contradicts itself is refused before anything is sent, with the words that would be accepted.

pub mod blob;
pub mod http;
pub mod peers;
pub mod stream;
pub mod topic;

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

use crate::{clock, run::Window, units};
pub use blob::BlobArgs;
pub use http::HttpArgs;
pub use peers::{NatsCommand, Nothing, RedisCommand, TcpCommand};
pub use stream::{AppendArgs, TailArgs};
pub use topic::TopicArgs;

/// Load for servers, and what they make of it.
#[derive(Debug, Parser)]
#[command(name = "gale", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The modes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Requests over kept-alive connections
    Http {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The requests.
        #[command(flatten)]
        args: Box<HttpArgs>,
    },
    /// Reads and writes of blobs over many keys
    Blob {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// What is read and written.
        #[command(flatten)]
        args: Box<BlobArgs>,
    },
    /// Records in streams
    #[command(subcommand)]
    Stream(StreamCommand),
    /// Records through topics, to websockets
    Topic {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// Producers and readers.
        #[command(flatten)]
        args: TopicArgs,
    },
    /// Bytes on sockets
    #[command(subcommand)]
    Tcp(TcpCommand),
    /// Records through a NATS server
    #[command(subcommand)]
    Nats(NatsCommand),
    /// Records through a Redis server
    #[command(subcommand)]
    Redis(RedisCommand),
    /// Servers that do next to nothing.
    #[command(flatten)]
    Nothing(Nothing),
    /// Answer every HTTP request with the same answer: what a server costs at least
    ServeHttp {
        /// Where and how long.
        #[command(flatten)]
        serve: Serve,
        /// Bytes of content in each answer
        #[arg(long, value_name = "SIZE", default_value = "12", value_parser = units::size)]
        body_size: u64,
        /// Send them in chunks
        #[arg(long)]
        chunked: bool,
    },
}

/// What is done with streams.
#[derive(Debug, Subcommand)]
pub enum StreamCommand {
    /// Producers that write as fast as they can, or at a rate
    Append {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// The producers.
        #[command(flatten)]
        args: AppendArgs,
    },
    /// Readers that follow producers
    Tail {
        /// The measurement.
        #[command(flatten)]
        load: Load,
        /// Both.
        #[command(flatten)]
        args: TailArgs,
    },
}

/// What all measurements share.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Measurement")]
pub struct Load {
    /// How long to measure; 5s unless --requests says when to end
    #[arg(long, value_name = "TIME", value_parser = units::period)]
    pub duration: Option<Duration>,
    /// How many operations to measure
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub requests: Option<u64>,
    /// How long to work before measuring
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::period)]
    pub warmup: Duration,
    /// How long an answer may take, and how long those under way at the end are waited for
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::period)]
    pub timeout: Duration,
    /// Threads that work
    #[arg(long, value_name = "N", default_value = "1", value_parser = threads)]
    pub threads: usize,
    /// The cores they are kept on, in turn: 1 or 0,2 or 1-3
    #[arg(long, value_name = "LIST", value_parser = cores)]
    pub cpu: Option<Cores>,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// A server whose CPU time is measured; may be repeated
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Congestion control of our sockets; "" leaves the host's
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    pub congestion: String,
    /// A name for this run in the files
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
    /// Write the result here as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Append the result here as a row, with a header if the file is new
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
}

/// The cores that threads are kept on.
#[derive(Clone, Debug)]
pub struct Cores(pub Vec<usize>);

impl Load {
    /// The core of a thread.
    pub fn core(&self, thread: usize) -> Option<usize> {
        self.cpu.as_ref().map(|Cores(cores)| cores[thread % cores.len()])
    }

    /// The same without an end but that of the work.
    pub fn until_done(&self) -> Self {
        Self { duration: None, requests: Some(u64::MAX), ..self.clone() }
    }

    /// A window that begins now.
    pub fn window(&self) -> Window {
        let nanos = |time: Duration| time.as_nanos() as u64;
        let start = clock::now();
        let opens = start + nanos(self.warmup);
        let duration = match (self.duration, self.requests) {
            (None, None) => Some(Duration::from_secs(5)),
            (duration, _) => duration,
        };
        let closes = duration.map(|duration| opens + nanos(duration).max(1));
        Window { start, opens, closes, patience: nanos(self.timeout) }
    }
}

/// What all servers share.
#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// Where to listen; the first line of output says where that is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: String,
    /// How long to serve; without it, until it is killed
    #[arg(long = "for", value_name = "TIME", value_parser = units::period)]
    pub lasts: Option<Duration>,
    /// Threads that work, each with a listener of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = threads)]
    pub threads: usize,
    /// The cores they are kept on, in turn
    #[arg(long, value_name = "LIST", value_parser = cores)]
    pub cpu: Option<Cores>,
    /// Where chance begins: what is sent depends on it
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Congestion control of our sockets; "" leaves the host's
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    pub congestion: String,
}

impl Serve {
    /// The core of a thread.
    pub fn core(&self, thread: usize) -> Option<usize> {
        self.cpu.as_ref().map(|Cores(cores)| cores[thread % cores.len()])
    }
}

/// `http://host:port/path` as address and path.
pub fn split_url(url: &str) -> Result<(String, String), String> {
    let refuse = || format!("{url:?}: write http://host:port/path");
    let rest = url.strip_prefix("http://").ok_or_else(refuse)?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (address, path) = rest.split_at(at);
    if address.is_empty() || path.contains([' ', '\r', '\n', '#']) {
        return Err(refuse());
    }
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { address.to_owned() } else { format!("{address}:80") };
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((address, format!("{slash}{path}")))
}

fn threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| (1..=256).contains(threads));
    threads.ok_or_else(|| "write a number of threads from 1 to 256".into())
}

fn cores(text: &str) -> Result<Cores, String> {
    units::cores(text).map(Cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn addresses_and_paths_come_apart() {
        let split = |url| split_url(url).map(|(address, path)| format!("{address} {path}"));
        for (url, parts) in [
            ("http://a:1/b?c=d", "a:1 /b?c=d"),
            ("http://a", "a:80 /"),
            ("http://[::1]:9/", "[::1]:9 /"),
            ("http://a:1?x", "a:1 /?x"),
        ] {
            assert_eq!(split(url).as_deref(), Ok(parts));
        }
        for wrong in ["a:1/b", "https://a/", "http://", "http:///x", "http://a/b c", "http://a/#b"] {
            assert!(split(wrong).is_err_and(|why| why.contains("http://host:port/path")), "{wrong}");
        }
    }
}

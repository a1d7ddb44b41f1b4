//! What the tests of gale share: gale itself as a process, its own servers, and servers that do what a test says.
//!
//! Invariant: no process and no thread of a test outlives it, and nothing waits without an end.

// Each test file is a crate of its own and uses its own part of this one.
#![allow(dead_code)]

pub mod loom;
pub mod nats;
pub mod store;
pub mod topics;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use serde_json::Value;

const GALE: &str = env!("CARGO_BIN_EXE_gale");
/// Longer than anything here takes, shorter than anybody waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a run of gale ended with.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub json: Value,
}

/// Runs gale with these words, which spaces part.
pub fn gale(words: &str) -> Ended {
    let folder = tempfile::tempdir().expect("a directory");
    let json = folder.path().join("result.json");
    let mut command = Command::new(GALE);
    command.args(words.split_whitespace());
    // Only a measurement knows the option; anything else is refused for what the test is about.
    if !words.is_empty() {
        command.arg("--json").arg(&json);
    }
    let output = command.stdin(Stdio::null()).output().expect("gale starts");
    let text = std::fs::read_to_string(&json).unwrap_or_else(|_| "null".into());
    Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        json: serde_json::from_str(&text).expect("JSON"),
    }
}

impl Ended {
    /// A measure.
    #[track_caller]
    pub fn measure(&self, name: &str) -> f64 {
        let value = self.json["measures"][name].as_f64();
        value.unwrap_or_else(|| panic!("no measure {name:?} in {self:#?}"))
    }

    /// How often this kind of fault was found.
    pub fn faults(&self, kind: &str) -> u64 {
        let faults = self.json["faults"].as_array().into_iter().flatten();
        faults.filter(|fault| fault["kind"] == kind).filter_map(|fault| fault["count"].as_u64()).sum()
    }

    /// Every check passed.
    #[track_caller]
    pub fn passed(self) -> Self {
        assert!(self.code == Some(0) && self.json["ok"] == true, "{self:#?}");
        self
    }

    /// A check failed with this kind of fault, and the words say this of it.
    #[track_caller]
    pub fn failed(self, kind: &str, words: &str) -> Self {
        assert!(self.code == Some(1) && self.faults(kind) > 0, "no fault {kind:?} in {self:#?}");
        assert!(self.json["ok"] == false && self.out.contains(words), "not {words:?} in {self:#?}");
        self
    }
}

/// One of gale's own servers.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// Starts it with these words.
    pub fn start(words: &str) -> Self {
        let mut command = Command::new(GALE);
        command.args(words.split_whitespace()).args(["--for", "60s"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("gale starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line of output");
        let address = line.trim().strip_prefix("listening on ").expect("the address").to_owned();
        Self { child, address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Serves connections on a port of its own, each on a thread of its own, as `serve` says; returns its address. The
/// threads end with their connections, and nobody new comes after the test.
pub fn peer(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.set_nodelay(true).expect("no delay");
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// An HTTP server whose answer to each request of a connection is what `answer` gives for its number; `None` ends
/// the connection.
pub fn http_peer(answer: impl Fn(u64) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    peer(move |mut stream| {
        let mut held = Vec::new();
        for number in 0.. {
            if request(&mut stream, &mut held).is_none() {
                return;
            }
            let Some(bytes) = answer(number) else { return };
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
    })
}

/// The next head without a body; what comes behind it stays in `held`.
pub fn request(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..at + 4).collect();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        let mut buffer = [0; 4096];
        let len = stream.read(&mut buffer).ok().filter(|len| *len > 0)?;
        held.extend_from_slice(&buffer[..len]);
    }
}

/// A right answer with this body.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

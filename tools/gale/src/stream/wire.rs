//! Streams of the daemon over HTTP: greetings, and the bodies on the way up and down.
//!
//! Invariant: a stream that was written has been acknowledged by the end of the answer and nothing else; one that was
//! read has ended by its own word and as `complete`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
};

use crate::{
    flow::{
        reader,
        wire::{Downstream, Finish, Upstream, Wrong},
    },
    http::{
        answer::{self, HEAD_MAX, Head, Step},
        chunked::Chunked,
    },
    net::{GREETING, Target, unblocked},
    tally::Kind,
};

/// Where streams are, and how they are called.
#[derive(Clone, Debug)]
pub struct Streams {
    /// The server.
    pub target: Target,
    /// Its name in requests.
    pub host: String,
    /// What streams are called before their number.
    pub name: String,
    /// What every request says beside.
    pub fields: String,
}

/// An answer's head, with its bytes and what came behind it.
pub struct Greeting {
    head: Head,
    bytes: Vec<u8>,
    behind: Vec<u8>,
}

impl Streams {
    /// Begins to write a stream, in the place of one that is called so. With a length its body has no chunks.
    pub fn produce(
        &self,
        stream: usize,
        length: Option<u64>,
    ) -> Result<(OwnedFd, Box<dyn Upstream>), String> {
        let framing = match length {
            Some(length) => format!("Content-Length: {length}"),
            None => "Transfer-Encoding: chunked".into(),
        };
        let path = format!("/stream/{}-{stream}?force=true", self.name);
        let (socket, greeting) = self.greet("POST", &path, &format!("{framing}\r\n"))?;
        greeting.expect(201, &path)?;
        if greeting.head.framing != answer::Framing::Chunked || !greeting.behind.is_empty() {
            return Err(format!("{path}: the answer to a body that is not sent yet has no open end"));
        }
        Ok((unblocked(socket)?, Box::new(Up { is_chunked: length.is_none(), answer: Chunked::default() })))
    }

    /// Reader `number` begins to read a stream.
    pub fn consume(&self, number: usize, stream: usize) -> Result<reader::Task, String> {
        let path = format!("/stream/{}-{stream}", self.name);
        let (socket, greeting) = self.greet("GET", &path, "")?;
        greeting.expect(200, &path)?;
        let rest = match greeting.head.framing {
            answer::Framing::Chunked => Rest::Chunked(Box::default()),
            answer::Framing::Length(left) => Rest::Length(left),
            answer::Framing::Close => return Err(format!("{path}: a body without framing")),
        };
        let state = answer::field(&greeting.bytes, STATE).map(str::to_owned);
        let (socket, wire) = (unblocked(socket)?, Box::new(Down { rest, state }));
        Ok(reader::Task { number, stream, socket, wire, early: greeting.behind })
    }

    /// What the head of a stream says under these names.
    pub fn standing<const N: usize>(&self, stream: usize, names: [&str; N]) -> Result<[String; N], String> {
        let path = format!("/stream/{}-{stream}", self.name);
        let (_, greeting) = self.greet("HEAD", &path, "")?;
        greeting.expect(200, &path)?;
        Ok(names.map(|name| answer::field(&greeting.bytes, name).unwrap_or("nothing").to_owned()))
    }

    /// A request for the head of a stream, to be sent again and again.
    pub fn question(&self, stream: usize) -> Vec<u8> {
        self.request("HEAD", &format!("/stream/{}-{stream}", self.name), "").into_bytes()
    }

    fn request(&self, method: &str, path: &str, fields: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{}{fields}\r\n", self.host, self.fields)
    }

    fn greet(&self, method: &str, path: &str, fields: &str) -> Result<(TcpStream, Greeting), String> {
        let mut socket = self.target.connect_blocking()?;
        let named = |why: std::io::Error| format!("{method} {path}: {why}");
        socket.set_read_timeout(Some(GREETING)).map_err(named)?;
        socket.write_all(self.request(method, path, fields).as_bytes()).map_err(named)?;
        let mut bytes = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let len = socket.read(&mut buffer).map_err(named)?;
            bytes.extend_from_slice(&buffer[..len]);
            match answer::head(&bytes, method == "HEAD") {
                Step::Head(head) => {
                    let behind = bytes.split_off(head.len);
                    return Ok((socket, Greeting { head, bytes, behind }));
                }
                Step::More if len > 0 && bytes.len() < HEAD_MAX => {}
                Step::More => return Err(format!("{method} {path}: the connection ended before the answer")),
                Step::Malformed(why) => return Err(format!("{method} {path}: {why}")),
            }
        }
    }
}

impl Greeting {
    fn expect(&self, status: u16, path: &str) -> Result<(), String> {
        if self.head.status == status {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&self.behind);
        Err(format!("{path}: {} {} instead of {status}: {}", self.head.status, self.head.reason, body.trim()))
    }
}

/// The field that says whether a stream is complete.
pub const STATE: &str = "X-Stream-State";

struct Up {
    is_chunked: bool,
    answer: Chunked,
}

impl Upstream for Up {
    fn begin(&mut self, out: &mut Vec<u8>, len: usize) {
        if self.is_chunked {
            out.extend_from_slice(format!("{len:x}\r\n").as_bytes());
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.is_chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Finish {
        if self.is_chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        Finish::Said
    }

    fn hear(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<(usize, bool), Wrong> {
        let mut at = 0;
        while at < input.len() {
            let piece = self.answer.step(&input[at..]).map_err(|why| (Kind::Malformed, why))?;
            at += piece.used;
            if piece.done {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }
}

struct Down {
    rest: Rest,
    /// As the head told it.
    state: Option<String>,
}

enum Rest {
    Chunked(Box<Chunked>),
    Length(u64),
}

impl Downstream for Down {
    fn hear(
        &mut self,
        input: &[u8],
        deliver: &mut dyn FnMut(&[u8]),
        _out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Wrong> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let done = match &mut self.rest {
                Rest::Chunked(chunked) => {
                    let piece = chunked.step(rest).map_err(|why| (Kind::Malformed, why))?;
                    deliver(&rest[piece.data]);
                    at += piece.used;
                    if piece.done {
                        self.state = chunked.trailer(STATE).map(str::to_owned);
                    }
                    piece.done
                }
                Rest::Length(left) => {
                    let len = (*left).min(rest.len() as u64) as usize;
                    deliver(&rest[..len]);
                    (at, *left) = (at + len, *left - len as u64);
                    *left == 0
                }
            };
            if done && at < input.len() {
                return Err((Kind::Surplus, format!("{} bytes behind the end", input.len() - at)));
            }
            if done && self.state.as_deref() != Some("complete") {
                let state = self.state.as_deref().unwrap_or("nothing");
                return Err((Kind::Refused, format!("the stream ended as {state:?}, not as complete")));
            }
            if done || at == input.len() {
                return Ok((at, done));
            }
        }
    }

    fn tells_its_end(&self) -> bool {
        true
    }
}

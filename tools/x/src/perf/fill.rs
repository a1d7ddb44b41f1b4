//! Puts very many small things into a daemon, as fast as it takes them.
//!
//! Requests go in batches over a few connections, each batch in one write; the answers are read whole and looked at.
//! Invariant: when this returns without an error, everything was answered with the status that it should have.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    ops::Range,
    thread,
};

use crate::http::{Head, PATIENCE};

const CONNECTIONS: u64 = 32;
/// Requests in one write.
const BATCH: u64 = 64;
/// Bytes of each thing.
pub const SIZE: usize = 100;

/// What is put.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Streams, whole and ended.
    Streams,
    /// Files of this container.
    Files(&'static str),
}

impl Kind {
    fn status(self) -> &'static [u16] {
        match self {
            Kind::Streams => &[201],
            Kind::Files(_) => &[200, 201],
        }
    }

    fn put(self, number: u64) -> String {
        let method = if matches!(self, Kind::Streams) { "POST" } else { "PUT" };
        format!("{method} {}", self.path(number))
    }

    /// The request that reads one.
    pub fn get(self, number: u64) -> String {
        format!("GET {}", self.path(number))
    }

    fn path(self, number: u64) -> String {
        match self {
            Kind::Streams => format!("/stream/build-{number:08}-linux-release"),
            Kind::Files(container) => format!("/{container}/{}", key(number)),
        }
    }
}

/// Names as people have them: a thousand in each folder.
fn key(number: u64) -> String {
    format!("2026/{:04}/picture-{:03}.jpg", number / 1000, number % 1000)
}

/// Puts the things with these numbers.
pub fn fill(address: &str, kind: Kind, numbers: Range<u64>) -> io::Result<()> {
    let share = (numbers.end - numbers.start).div_ceil(CONNECTIONS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let first = numbers.start + connection * share;
                let own = first..numbers.end.min(first + share);
                scope.spawn(move || put(address, kind, own))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("putting does not panic"))
    })
}

/// Creates a container.
pub fn create(address: &str, container: &str) -> io::Result<()> {
    let mut connection = Connection::open(address)?;
    connection
        .socket
        .write_all(format!("PUT /{container} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    connection.answer(&[200, 201]).map(drop)
}

fn put(address: &str, kind: Kind, numbers: Range<u64>) -> io::Result<()> {
    let mut connection = Connection::open(address)?;
    let body = [b'x'; SIZE];
    let mut at = numbers.start;
    let mut batch = Vec::new();
    while at < numbers.end {
        let end = numbers.end.min(at + BATCH);
        batch.clear();
        for number in at..end {
            write!(batch, "{} HTTP/1.1\r\nhost: x\r\ncontent-length: {SIZE}\r\n\r\n", kind.put(number))?;
            batch.extend_from_slice(&body);
        }
        connection.socket.write_all(&batch)?;
        for _ in at..end {
            connection.answer(kind.status())?;
        }
        at = end;
    }
    Ok(())
}

/// A connection and what was received on it and not looked at yet.
pub struct Connection {
    pub socket: TcpStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Connection {
    /// Opens one.
    pub fn open(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, buffer: Vec::new(), at: 0 })
    }

    /// Reads one answer to its end; its body.
    pub fn answer(&mut self, statuses: &[u16]) -> io::Result<Vec<u8>> {
        let head = loop {
            if let Some((head, len)) = Head::read(&self.buffer[self.at..]) {
                self.at += len;
                break head;
            }
            self.more()?;
        };
        if !statuses.contains(&head.status) {
            return Err(io::Error::other(format!("something was answered {}", head.status)));
        }
        if let Some(len) = head.number("content-length") {
            return self.take(len as usize);
        }
        if head.field("transfer-encoding") != Some("chunked") {
            return Ok(Vec::new());
        }
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let len = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
            match len.map_err(|_| io::Error::other(format!("{line:?} begins no chunk")))? {
                0 => break,
                len => {
                    body.extend(self.take(len)?);
                    self.line()?;
                }
            }
        }
        while !self.line()?.is_empty() {}
        Ok(body)
    }

    fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.at < len {
            self.more()?;
        }
        self.at += len;
        Ok(self.buffer[self.at - len..self.at].to_vec())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(len) = rest.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..len]).into_owned();
                self.at += len + 2;
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let mut piece = [0; 16 << 10];
        match self.socket.read(&mut piece)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
            len => {
                self.buffer.extend_from_slice(&piece[..len]);
                Ok(())
            }
        }
    }
}

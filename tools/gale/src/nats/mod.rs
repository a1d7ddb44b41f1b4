//! `gale nats`: records through a NATS server, in its own text protocol.
//!
//! Invariant: a subject has one producer, so that its readers know which record is next.

pub mod core;
pub mod jetstream;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use crate::{
    net::{GREETING, Target},
    tally::Kind,
};

/// A line of the server.
#[derive(PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// A message with so many bytes follows, and a line end.
    Message {
        /// Where it was published.
        subject: &'a str,
        /// How many bytes.
        len: usize,
    },
    /// It wants to hear from us.
    Ping,
    /// It has done everything before our `PING`.
    Pong,
    /// Nothing to do.
    Other,
    /// Something is wrong.
    Error(&'a str),
}

/// The line at the beginning of `input`, if it is all there, and its length.
pub fn line(input: &[u8]) -> Result<Option<(Line<'_>, usize)>, (Kind, String)> {
    const LINE_MAX: usize = 64 << 10;
    let malformed = |line: &[u8]| (Kind::Malformed, format!("a line \"{}\"", line.escape_ascii()));
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() < LINE_MAX { Ok(None) } else { Err(malformed(&input[..40])) };
    };
    let bytes = input[..end].trim_ascii_end();
    let text = std::str::from_utf8(bytes).map_err(|_| malformed(bytes))?;
    let mut words = text.split_ascii_whitespace();
    let line = match words.next() {
        Some("MSG") => {
            let subject = words.next().ok_or_else(|| malformed(bytes))?;
            let len = words.last().and_then(|len| len.parse().ok()).ok_or_else(|| malformed(bytes))?;
            Line::Message { subject, len }
        }
        Some("PING") => Line::Ping,
        Some("PONG") => Line::Pong,
        Some("-ERR") => Line::Error(text[4..].trim()),
        Some("+OK" | "INFO") => Line::Other,
        _ => return Err(malformed(bytes)),
    };
    Ok(Some((line, end + 1)))
}

/// How we introduce ourselves.
pub const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"gale\"}\r\n";

/// A connection that has introduced itself.
struct Greeted {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Greeted {
    /// Connects and subscribes to these subjects. When it returns the server knows of them.
    fn new(target: &Target, subjects: &[&str]) -> Result<Self, String> {
        let stream = target.connect_blocking()?;
        stream.set_read_timeout(Some(GREETING)).map_err(|why| why.to_string())?;
        let lines = BufReader::new(stream.try_clone().map_err(|why| why.to_string())?);
        let mut greeted = Self { stream, lines };
        let info = greeted.next()?;
        if !info.starts_with("INFO ") {
            return Err(format!("no NATS server: it begins with {info:?}"));
        }
        let mut words = String::from(CONNECT);
        for (number, subject) in subjects.iter().enumerate() {
            words += &format!("SUB {subject} {}\r\n", number + 1);
        }
        greeted.say(&(words + "PING\r\n"))?;
        match greeted.next()?.as_str() {
            "PONG" => Ok(greeted),
            other => Err(format!("the NATS server says {other:?}")),
        }
    }

    fn say(&mut self, words: &str) -> Result<(), String> {
        self.stream.write_all(words.as_bytes()).map_err(|why| format!("to the NATS server: {why}"))
    }

    fn next(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(|why| format!("from the NATS server: {why}"))?;
        Ok(line.trim_end().to_owned())
    }

    /// The connection for an engine. Nothing may have been sent that is not read.
    fn socket(self) -> Result<std::os::fd::OwnedFd, String> {
        match self.lines.buffer() {
            [] => crate::net::unblocked(self.stream),
            rest => Err(format!("the NATS server says \"{}\" unasked", rest.escape_ascii())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let read = |text: &'static str| line(text.as_bytes());
        for (text, expected) in [
            ("MSG a.b 1 12\r\n", Line::Message { subject: "a.b", len: 12 }),
            ("MSG a.b 1 reply.to 12\r\n", Line::Message { subject: "a.b", len: 12 }),
            ("PING\r\n", Line::Ping),
            ("PONG\r\n", Line::Pong),
            ("+OK\r\n", Line::Other),
            ("-ERR 'Slow Consumer'\r\n", Line::Error("'Slow Consumer'")),
        ] {
            assert_eq!(read(text), Ok(Some((expected, text.len()))));
            assert_eq!(read(&text[..text.len() - 1]), Ok(None));
        }
        for text in ["HELLO\r\n", "MSG\r\n", "MSG a 1 x\r\n", "\r\n"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}

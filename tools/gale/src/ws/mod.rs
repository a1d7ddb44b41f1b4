//! Websockets (RFC 6455) from the client's side: the handshake, and messages of frames.
//!
//! Invariant: what is taken for a message is one that the server may send, whole and in order; a ping is answered, a
//! close is answered and is a fault, for nobody here waits for one.

pub mod frame;
pub mod framed;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use crate::{
    chance::Chance,
    flow::wire::Wrong,
    http::answer::{self, HEAD_MAX, Step},
    net::{GREETING, Target},
    tally::Kind,
};
use frame::Opcode;

/// What the answer to a handshake is made of, beside the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Messages beyond this are refused.
const MESSAGE_MAX: usize = 64 << 20;
/// Seeds keys and masks apart from everything else.
const MASKS: u64 = 1 << 60;

/// What there is to know about a websocket between two frames.
#[derive(Debug)]
pub struct Socket {
    /// The message that has begun, in parts.
    part: Option<Vec<u8>>,
    masks: Chance,
}

impl Socket {
    fn new(masks: Chance) -> Self {
        Self { part: None, masks }
    }

    /// Gives every message in `input` to `take`, and puts what is to be said at the end of `out`. How many bytes are
    /// done with.
    pub fn hear(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]) -> Result<(), Wrong>,
    ) -> Result<usize, Wrong> {
        let malformed = |why: &str| (Kind::Malformed, why.to_owned());
        let mut used = 0;
        while let Some(frame) = frame::read(&input[used..]).map_err(|why| (Kind::Malformed, why))? {
            used += frame.len;
            match (frame.opcode, self.part.as_mut()) {
                (Opcode::Text | Opcode::Binary, None) if frame.is_last => take(frame.content)?,
                (Opcode::Text | Opcode::Binary, None) => self.part = Some(frame.content.to_vec()),
                (Opcode::Text | Opcode::Binary, Some(_)) => {
                    return Err(malformed("a message inside of another one"));
                }
                (Opcode::Continuation, None) => return Err(malformed("the rest of no message")),
                (Opcode::Continuation, Some(part)) => {
                    if part.len() + frame.content.len() > MESSAGE_MAX {
                        return Err((Kind::Malformed, format!("a message of more than {MESSAGE_MAX} bytes")));
                    }
                    part.extend_from_slice(frame.content);
                    if let Some(whole) = self.part.take_if(|_| frame.is_last) {
                        take(&whole)?;
                    }
                }
                (Opcode::Ping, _) => self.say(out, Opcode::Pong, frame.content),
                (Opcode::Pong, _) => {}
                (Opcode::Close, _) => {
                    self.say(out, Opcode::Close, frame.content);
                    return Err((
                        Kind::Closed,
                        format!("the server closed the websocket: {}", said(frame.content)),
                    ));
                }
            }
        }
        Ok(used)
    }

    /// Puts a frame at the end of `out`.
    fn say(&mut self, out: &mut Vec<u8>, opcode: Opcode, content: &[u8]) {
        let start = out.len();
        out.extend_from_slice(content);
        self.frame(out, start, opcode);
    }

    /// Makes a frame of what stands in `out` from `start` on.
    pub fn frame(&mut self, out: &mut Vec<u8>, start: usize, opcode: Opcode) {
        frame::write(out, start, opcode, (self.masks.number() as u32).to_ne_bytes());
    }
}

/// The code and the words of a close.
fn said(content: &[u8]) -> String {
    match content.split_first_chunk::<2>() {
        Some((code, words)) => format!("{} {:?}", u16::from_be_bytes(*code), String::from_utf8_lossy(words)),
        None => "without a code".into(),
    }
}

/// A connection that has become a websocket and still blocks, for greetings.
pub struct Opened {
    stream: TcpStream,
    socket: Socket,
    /// What came and is not done with.
    held: Vec<u8>,
}

/// Opens the websocket at `path`; `number` sets its chance apart from that of the others.
pub fn open(target: &Target, host: &str, path: &str, seed: u64, number: usize) -> Result<Opened, String> {
    let mut stream = target.connect_blocking()?;
    let mut masks = Chance::new(seed, MASKS + number as u64);
    let key = BASE64.encode(&masks.bytes(16));
    let named = |why: std::io::Error| format!("websocket {path}: {why}");
    stream.set_read_timeout(Some(GREETING)).map_err(named)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(named)?;
    let mut held = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let len = stream.read(&mut buffer).map_err(named)?;
        held.extend_from_slice(&buffer[..len]);
        match answer::head(&held, false) {
            Step::Head(head) => {
                let behind = held.split_off(head.len);
                agreed(&held, head.status, &key).map_err(|why| {
                    let body = String::from_utf8_lossy(&behind);
                    format!("websocket {path}: {why}: {} {}", head.reason, body.trim())
                })?;
                return Ok(Opened { stream, socket: Socket::new(masks), held: behind });
            }
            Step::More if len > 0 && held.len() < HEAD_MAX => {}
            Step::More => return Err(format!("websocket {path}: the connection ended before the answer")),
            Step::Malformed(why) => return Err(format!("websocket {path}: {why}")),
        }
    }
}

/// Whether the head agrees to a websocket, and to the one that was asked for.
fn agreed(head: &[u8], status: u16, key: &str) -> Result<(), String> {
    let is = |name: &str, value: &str| {
        answer::field(head, name).is_some_and(|field| field.eq_ignore_ascii_case(value))
    };
    if status != 101 {
        return Err(format!("status {status} instead of 101"));
    }
    if !is("Upgrade", "websocket") || !is("Connection", "upgrade") {
        return Err("the answer upgrades to something else".into());
    }
    if answer::field(head, "Sec-WebSocket-Extensions").is_some() {
        return Err("an extension that nobody offered".into());
    }
    let accept = accept(key);
    match answer::field(head, "Sec-WebSocket-Accept") {
        Some(told) if told == accept => Ok(()),
        told => Err(format!("Sec-WebSocket-Accept is {told:?} instead of {accept:?}")),
    }
}

/// What a server that understood answers to `key`.
fn accept(key: &str) -> String {
    BASE64.encode(&Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

impl Opened {
    /// Sends a message of bytes.
    pub fn send(&mut self, content: &[u8]) -> Result<(), String> {
        let mut out = Vec::new();
        self.socket.say(&mut out, Opcode::Binary, content);
        self.stream.write_all(&out).map_err(|why| format!("to the websocket: {why}"))
    }

    /// Gives the messages that come to `take`, until it says that this is enough.
    pub fn read_until(&mut self, mut take: impl FnMut(&[u8]) -> Result<bool, String>) -> Result<(), String> {
        loop {
            let (mut out, mut is_enough, mut failed) = (Vec::new(), false, None);
            let used = self.socket.hear(&self.held, &mut out, |message| {
                match take(message) {
                    Ok(enough) => is_enough |= enough,
                    Err(why) => failed = Some(why),
                }
                Ok(())
            });
            self.held.drain(..used.map_err(|(_, why)| why)?);
            self.stream.write_all(&out).map_err(|why| format!("to the websocket: {why}"))?;
            if let Some(why) = failed {
                return Err(why);
            }
            if is_enough {
                return Ok(());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).map_err(|why| format!("from the websocket: {why}"))? {
                0 => return Err("the websocket ended in its greeting".into()),
                len => self.held.extend_from_slice(&buffer[..len]),
            }
        }
    }

    /// The connection for an engine, what is known about it, and what came already.
    pub fn into_parts(self) -> Result<(std::os::fd::OwnedFd, Socket, Vec<u8>), String> {
        Ok((crate::net::unblocked(self.stream)?, self.socket, self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(bytes: &[u8], size: usize) -> (Vec<String>, Vec<u8>, Option<Kind>) {
        let (mut socket, mut held) = (Socket::new(Chance::new(1, 1)), Vec::new());
        let (mut messages, mut out) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            held.extend_from_slice(piece);
            let heard = socket.hear(&held, &mut out, |message| {
                messages.push(String::from_utf8_lossy(message).into_owned());
                Ok(())
            });
            match heard {
                Ok(used) => drop(held.drain(..used)),
                Err((kind, _)) => return (messages, out, Some(kind)),
            }
        }
        assert!(held.is_empty());
        (messages, out, None)
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let head = |accept: &str| {
            format!(
                "HTTP/1.1 101 X\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )
        };
        let judge = |head: String, status| agreed(head.as_bytes(), status, "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(judge(head("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), 101), Ok(()));
        assert!(
            judge(head("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), 200).is_err_and(|why| why.contains("status 200"))
        );
        assert!(judge(head("s3pPLMBiTxaQ9kYGzzhZRbK+xOO="), 101).is_err_and(|why| why.contains("Accept is")));
        let other = head("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").replace("WebSocket\r", "h2c\r");
        assert!(judge(other, 101).is_err_and(|why| why.contains("something else")));
    }

    #[test]
    fn messages_are_whole_whatever_their_frames_and_pieces() {
        let bytes = b"\x81\x05Hello\x01\x03Hel\x89\x02hi\x00\x01l\x80\x01o\x8a\x00\x82\x00";
        for size in 1..=bytes.len() {
            let (messages, out, wrong) = hear(bytes, size);
            assert_eq!(
                (messages.as_slice(), wrong),
                (&["Hello", "Hello", ""].map(String::from)[..], None),
                "{size}"
            );
            // A masked pong with what the ping said.
            let mask: Vec<u8> = out[2..6].to_vec();
            assert_eq!((out.len(), &out[..2]), (8, &b"\x8a\x82"[..]));
            assert_eq!([out[6] ^ mask[0], out[7] ^ mask[1]], *b"hi");
        }
    }

    #[test]
    fn what_does_not_follow_is_a_fault() {
        for (bytes, kind) in [
            (&b"\x80\x00"[..], Kind::Malformed),
            (b"\x01\x00\x81\x00", Kind::Malformed),
            (b"\x88\x05\x03\xf5bye", Kind::Closed),
            (b"\x88\x00", Kind::Closed),
        ] {
            let (_, out, wrong) = hear(bytes, 100);
            assert_eq!(wrong, Some(kind), "{bytes:?}");
            assert_eq!(out.first() == Some(&0x88), kind == Kind::Closed, "a close is answered");
        }
        assert_eq!(said(b"\x03\xf5bye"), "1013 \"bye\"");
    }
}

//! `gale serve-http`: the same answer to every request.
//!
//! Invariant: an answer is begun for each request that has come whole, in order, and never two for one. Requests
//! are looked at only as far as needed to know where they end; one equal to the last, byte by byte, not even that.

use std::{io::IoSlice, os::fd::OwnedFd, sync::Arc};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

use super::Service;
use crate::{
    http::{answer::HEAD_MAX, request::seeded_body},
    poll::{Interest, Ready},
};

/// The service; one value per thread.
#[derive(Clone)]
pub struct Http {
    head: Arc<[u8]>,
    /// The body with its framing.
    body: Arc<[u8]>,
    buffer: Vec<u8>,
    /// The last request without a body.
    known: Vec<u8>,
}

/// One connection.
#[derive(Default)]
pub struct Peer {
    held: Vec<u8>,
    /// Bytes of a request's body that are to come.
    body_left: u64,
    /// Answers without and with a body that are to be sent, in order: true is with.
    owed: std::collections::VecDeque<(bool, u32)>,
    /// How much of the first of them has gone.
    sent: usize,
}

const RECEIVE: usize = 256 << 10;
/// Answers that leave with one write.
const TOGETHER: usize = 128;

impl Http {
    /// Answers with `size` bytes that the seed gives.
    pub fn new(seed: u64, size: usize, chunked: bool) -> Self {
        let content = seeded_body(seed, size);
        let (framing, body) = match chunked {
            false => (format!("Content-Length: {size}"), content),
            true => ("Transfer-Encoding: chunked".into(), in_chunks(&content)),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: gale\r\nContent-Type: application/octet-stream\r\n{framing}\r\n\r\n"
        );
        Self {
            head: head.into_bytes().into(),
            body: body.into(),
            buffer: vec![0; RECEIVE],
            known: Vec::new(),
        }
    }

    /// Owes an answer for each request that ends in `input`; how much of it is done with.
    fn read(&mut self, peer: &mut Peer, input: &[u8]) -> Result<usize, Errno> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let body = peer.body_left.min(rest.len() as u64);
            peer.body_left -= body;
            at += body as usize;
            if peer.body_left > 0 || at == input.len() {
                return Ok(at);
            }
            let rest = &input[at..];
            if !self.known.is_empty() && rest.starts_with(&self.known) {
                at += self.known.len();
                peer.owe(true);
                continue;
            }
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut fields);
            match request.parse(rest) {
                Ok(httparse::Status::Complete(len)) => {
                    let length =
                        |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-length");
                    let length = request.headers.iter().find(length);
                    let length = length.map(|field| std::str::from_utf8(field.value).unwrap_or("").parse());
                    peer.body_left = length.transpose().map_err(|_| Errno::PROTO)?.unwrap_or(0);
                    let has_body = request.method != Some("HEAD");
                    peer.owe(has_body);
                    if has_body && peer.body_left == 0 {
                        self.known.clear();
                        self.known.extend_from_slice(&rest[..len]);
                    }
                    at += len;
                }
                Ok(httparse::Status::Partial) if rest.len() < HEAD_MAX => return Ok(at),
                _ => return Err(Errno::PROTO),
            }
        }
    }

    fn answer(&self, socket: &OwnedFd, peer: &mut Peer) -> Result<Interest, Errno> {
        while let Some((has_body, count)) = peer.owed.front_mut() {
            let body: &[u8] = if *has_body { &self.body } else { &[] };
            let len = self.head.len() + body.len();
            let mut parts = [IoSlice::new(&[]); 2 * TOGETHER];
            let together = (*count as usize).min(TOGETHER).min((1 << 20) / len + 1);
            let head_at = peer.sent.min(self.head.len());
            let body_at = peer.sent.saturating_sub(self.head.len());
            for (number, pair) in parts.chunks_exact_mut(2).take(together).enumerate() {
                let first = number == 0;
                pair[0] = IoSlice::new(if first { &self.head[head_at..] } else { &self.head });
                pair[1] = IoSlice::new(if first { &body[body_at..] } else { body });
            }
            let wrote = match rustix::io::writev(socket, &parts[..2 * together]) {
                Ok(wrote) => wrote,
                Err(Errno::AGAIN) => return Ok(Interest::ReadWrite),
                Err(Errno::INTR) => continue,
                Err(why) => return Err(why),
            };
            let done = peer.sent + wrote;
            *count -= (done / len) as u32;
            peer.sent = done % len;
            if *count == 0 {
                peer.owed.pop_front();
            }
        }
        Ok(Interest::Read)
    }
}

impl Service for Http {
    type Peer = Peer;

    fn welcome(&mut self) -> Peer {
        Peer::default()
    }

    fn serve(&mut self, socket: &OwnedFd, peer: &mut Peer, ready: Ready) -> Result<Interest, Errno> {
        if ready.read {
            let len = match recv(socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((len, _)) => len,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(why) => return Err(why),
            };
            let mut buffer = std::mem::take(&mut self.buffer);
            let done = if peer.held.is_empty() {
                self.read(peer, &buffer[..len])
                    .inspect(|used| peer.held.extend_from_slice(&buffer[*used..len]))
            } else {
                let mut held = std::mem::take(&mut peer.held);
                held.extend_from_slice(&buffer[..len]);
                let used = self.read(peer, &held);
                peer.held = held;
                used.inspect(|used| drop(peer.held.drain(..*used)))
            };
            std::mem::swap(&mut self.buffer, &mut buffer);
            done?;
        }
        self.answer(socket, peer)
    }
}

impl Peer {
    fn owe(&mut self, has_body: bool) {
        match self.owed.back_mut() {
            Some((same, count)) if *same == has_body => *count += 1,
            _ => self.owed.push_back((has_body, 1)),
        }
    }
}

/// In chunks of different sizes.
fn in_chunks(content: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut rest = content;
    let mut size = 1;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.len().min(size));
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
        (rest, size) = (after, (size * 2 + 1).min(64 << 10));
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

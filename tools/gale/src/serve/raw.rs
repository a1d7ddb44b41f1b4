//! `gale serve-echo`, `serve-sink` and `serve-source`: bytes back, bytes in, bytes out.
//!
//! Invariant: what is echoed is what came, in order; a source sends the same records on every connection but for
//! their times.

use std::{os::fd::OwnedFd, sync::Arc};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use super::Service;
use crate::{
    clock,
    poll::{Interest, Ready},
    stamp::{Stamp, Stamps},
};

const RECEIVE: usize = 256 << 10;
/// What an echo may owe before it takes no more.
const OWED_MAX: usize = 4 << 20;

/// Sends everything back.
#[derive(Clone)]
pub struct Echo(Vec<u8>);

/// Takes everything.
#[derive(Clone)]
pub struct Sink(Vec<u8>);

/// Sends records without end.
#[derive(Clone)]
pub struct Source {
    stamps: Arc<Stamps>,
    group: usize,
}

/// What a connection is owed.
#[derive(Default)]
pub struct Owed {
    bytes: Vec<u8>,
    sent: usize,
    made: u64,
}

impl Owed {
    fn send(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        while self.sent < self.bytes.len() {
            match send(socket, &self.bytes[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(why) => return Err(why),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(true)
    }
}

/// What came, if anything did; an error when the peer has ended.
fn receive<'b>(socket: &OwnedFd, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    match recv(socket, &mut *buffer, RecvFlags::empty()) {
        Ok((0, _)) => Err(Errno::PIPE),
        Ok((len, _)) => Ok(&buffer[..len]),
        Err(Errno::AGAIN | Errno::INTR) => Ok(&[]),
        Err(why) => Err(why),
    }
}

impl Echo {
    /// One thread's.
    pub fn new() -> Self {
        Self(vec![0; RECEIVE])
    }
}

impl Default for Echo {
    fn default() -> Self {
        Self::new()
    }
}

impl Service for Echo {
    type Peer = Owed;

    fn welcome(&mut self) -> Owed {
        Owed::default()
    }

    fn serve(&mut self, socket: &OwnedFd, owed: &mut Owed, ready: Ready) -> Result<Interest, Errno> {
        // Whoever does not take what is owed is not read from, until he does.
        if ready.read && owed.bytes.len() - owed.sent < OWED_MAX {
            owed.bytes.extend_from_slice(receive(socket, &mut self.0)?);
        }
        Ok(match owed.send(socket)? {
            true => Interest::Read,
            false if owed.bytes.len() - owed.sent < OWED_MAX => Interest::ReadWrite,
            false => Interest::Write,
        })
    }
}

impl Sink {
    /// One thread's.
    pub fn new() -> Self {
        Self(vec![0; RECEIVE])
    }
}

impl Default for Sink {
    fn default() -> Self {
        Self::new()
    }
}

impl Service for Sink {
    type Peer = ();

    fn welcome(&mut self) {}

    fn serve(&mut self, socket: &OwnedFd, _peer: &mut (), _ready: Ready) -> Result<Interest, Errno> {
        receive(socket, &mut self.0).map(|_| Interest::Read)
    }
}

impl Source {
    /// Sends `group` records with each write.
    pub fn new(stamps: Stamps, group: usize) -> Self {
        Self { stamps: Arc::new(stamps), group }
    }
}

impl Service for Source {
    type Peer = Owed;

    fn welcome(&mut self) -> Owed {
        Owed::default()
    }

    fn first_interest(&self) -> Interest {
        Interest::ReadWrite
    }

    fn serve(&mut self, socket: &OwnedFd, owed: &mut Owed, ready: Ready) -> Result<Interest, Errno> {
        if ready.read {
            // It has nothing to say but that it goes.
            receive(socket, &mut [0; 64])?;
        }
        if owed.bytes.is_empty() {
            let due = clock::now();
            for sequence in owed.made..owed.made + self.group as u64 {
                self.stamps.write(&mut owed.bytes, Stamp { sequence, due, late: 0, producer: 0 });
            }
            owed.made += self.group as u64;
        }
        owed.send(socket).map(|_| Interest::ReadWrite)
    }
}

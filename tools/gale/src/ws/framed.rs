//! A protocol of bytes inside the messages of a websocket.
//!
//! Invariant: where messages begin and end means nothing to the protocol inside; each write is one message.

use super::{Socket, frame::Opcode};
use crate::{
    flow::wire::{Downstream, Finish, Upstream, Wrong},
    held::Held,
};

/// What a producer speaks, in binary messages.
pub struct FramedUp<U> {
    inner: U,
    socket: Socket,
    held: Held,
    /// Where the message begins that is being written.
    start: usize,
}

impl<U> FramedUp<U> {
    /// Inside of this websocket.
    pub fn new(inner: U, socket: Socket) -> Self {
        Self { inner, socket, held: Held::default(), start: 0 }
    }
}

impl<U: Upstream> Upstream for FramedUp<U> {
    fn begin(&mut self, out: &mut Vec<u8>, len: usize) {
        self.start = out.len();
        self.inner.begin(out, len);
    }

    fn before_record(&mut self, out: &mut Vec<u8>) {
        self.inner.before_record(out);
    }

    fn after_record(&mut self, out: &mut Vec<u8>) {
        self.inner.after_record(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.inner.end(out);
        self.socket.frame(out, self.start, Opcode::Binary);
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Finish {
        let start = out.len();
        let finish = self.inner.finish(out);
        self.socket.frame(out, start, Opcode::Binary);
        finish
    }

    fn hear(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Wrong> {
        let Self { inner, socket, held, .. } = self;
        let (mut said, mut is_acknowledged) = (Vec::new(), false);
        let used = socket.hear(input, out, |message| {
            is_acknowledged |= inside(held, message, |input| inner.hear(input, &mut said))?;
            Ok(())
        })?;
        say(socket, &said, out);
        Ok((used, is_acknowledged))
    }
}

/// What a reader speaks, in binary messages.
pub struct FramedDown<D> {
    inner: D,
    socket: Socket,
    held: Held,
}

impl<D> FramedDown<D> {
    /// Inside of this websocket.
    pub fn new(inner: D, socket: Socket) -> Self {
        Self { inner, socket, held: Held::default() }
    }
}

impl<D: Downstream> Downstream for FramedDown<D> {
    fn hear(
        &mut self,
        input: &[u8],
        deliver: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Wrong> {
        let Self { inner, socket, held } = self;
        let (mut said, mut has_ended) = (Vec::new(), false);
        let used = socket.hear(input, out, |message| {
            has_ended |= inside(held, message, |input| inner.hear(input, deliver, &mut said))?;
            Ok(())
        })?;
        say(socket, &said, out);
        Ok((used, has_ended))
    }

    fn tells_its_end(&self) -> bool {
        self.inner.tells_its_end()
    }
}

fn inside(
    held: &mut Held,
    message: &[u8],
    hear: impl FnOnce(&[u8]) -> Result<(usize, bool), Wrong>,
) -> Result<bool, Wrong> {
    held.take(message, |input| match hear(input) {
        Ok((used, over)) => (used, Ok(over)),
        Err(wrong) => (input.len(), Err(wrong)),
    })
}

fn say(socket: &mut Socket, said: &[u8], out: &mut Vec<u8>) {
    if !said.is_empty() {
        socket.say(out, Opcode::Binary, said);
    }
}

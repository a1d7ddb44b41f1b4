//! Nchan, the publish and subscribe module of nginx, as `perf/peers/nginx-nchan.conf` has it: a record is a POST to
//! `/pub/NAME`, and comes to the readers of `/sub/NAME` as it is.
//!
//! Invariant: a message is one record.

use crate::{
    flow::wire::{Downstream, Wrong},
    tally::Kind,
    ws::Socket,
};

/// Where to publish.
pub fn publish(topic: usize) -> String {
    format!("/pub/{}", super::name(topic))
}

/// Where to subscribe.
pub fn subscribe(topic: usize) -> String {
    format!("/sub/{}", super::name(topic))
}

/// What one reader knows.
pub struct Down {
    socket: Socket,
    size: usize,
}

impl Down {
    /// One that expects records of `size` bytes.
    pub fn new(socket: Socket, size: usize) -> Self {
        Self { socket, size }
    }
}

impl Downstream for Down {
    fn hear(
        &mut self,
        input: &[u8],
        deliver: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Wrong> {
        let Self { socket, size } = self;
        let used = socket.hear(input, out, |message| match message.len() == *size {
            true => {
                deliver(message);
                Ok(())
            }
            false => Err((Kind::Length, format!("a message of {} bytes instead of {size}", message.len()))),
        })?;
        Ok((used, false))
    }

    fn tells_its_end(&self) -> bool {
        false
    }
}

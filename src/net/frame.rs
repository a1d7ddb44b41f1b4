//! What connections begin with that speak no HTTP, and frames on them.
//!
//! | bytes | direction | meaning |
//! |---|---|---|
//! | 13 | to us | [`MAGIC`], without an end of its own |
//! | 1 | to us | the kind of connection |
//!
//! Invariant: a beginning that can no longer become a preamble is refused at its first wrong byte, and nothing behind the
//! preamble is looked at or taken from the socket. Lives on: the connection's shard; [`Preamble`] is pure.

use crate::runtime::ring::poll;
use crate::runtime::ring::socket::Socket;
use crate::runtime::{Moment, timer};
use std::rc::Rc;

/// What proves that a peer means us: nothing that a browser can be made to send begins like this.
pub const MAGIC: &[u8; 13] = b"danger noodle";
/// The bytes of a whole preamble.
pub const PREAMBLE: usize = MAGIC.len() + 1;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preamble {
    /// The beginning of a preamble; more must come.
    Unfinished,
    /// A preamble that asks for this kind.
    Kind(u8),
    /// Anything else.
    Foreign,
}

impl Preamble {
    /// Looks at the first bytes of a connection; those behind [`PREAMBLE`] are not looked at.
    pub fn parse(bytes: &[u8]) -> Self {
        let compared = bytes.len().min(MAGIC.len());
        if bytes[..compared] != MAGIC[..compared] {
            return Preamble::Foreign;
        }
        bytes.get(MAGIC.len()).map_or(Preamble::Unfinished, |kind| Preamble::Kind(*kind))
    }
}

/// Why a connection is closed without a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It does not begin like ours.
    Foreign,
    /// It ended before it said anything whole.
    Ended,
    /// It took too long.
    Late,
}

/// The kind that a connection asks for by `deadline`.
pub async fn hello(socket: &Rc<Socket>, deadline: Moment) -> Result<u8, Refused> {
    timer::until(deadline, read(socket)).await.unwrap_or(Err(Refused::Late))
}

async fn read(socket: &Rc<Socket>) -> Result<u8, Refused> {
    let mut bytes = [0; PREAMBLE];
    let mut len = 0;
    loop {
        match socket.receive_now(&mut bytes[len..]) {
            Ok(Some(0)) | Err(_) => return Err(Refused::Ended),
            Ok(Some(more)) => len += more,
            Ok(None) => {
                poll::readable(socket).await;
                continue;
            }
        }
        match Preamble::parse(&bytes[..len]) {
            Preamble::Unfinished => {}
            Preamble::Kind(kind) => return Ok(kind),
            Preamble::Foreign => return Err(Refused::Foreign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_preamble_is_the_magic_and_a_kind() {
        for kind in [0, 1, 65, 255] {
            let bytes = [&MAGIC[..], &[kind], b"PRI * HTTP/2.0"].concat();
            for end in 0..PREAMBLE {
                assert_eq!(Preamble::parse(&bytes[..end]), Preamble::Unfinished, "{end}");
            }
            for end in PREAMBLE..bytes.len() {
                assert_eq!(Preamble::parse(&bytes[..end]), Preamble::Kind(kind));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_wrong_at_once() {
        let hello = b"\x16\x03\x01\x02\x00";
        for bytes in
            [&b"G"[..], b"GET / HTTP/1.1\r\n", hello, b"Danger noodle\0", b"danger\0", b"danger noodl\0\0"]
        {
            assert_eq!(Preamble::parse(bytes), Preamble::Foreign, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        /// Catches a byte that is not compared, and one more that is.
        #[test]
        fn one_wrong_byte_of_the_magic_is_foreign_and_no_other_matters(
            at in 0..MAGIC.len(), flip in 1u8.., kind: u8, rest: Vec<u8>,
        ) {
            let mut bytes = [&MAGIC[..], &[kind], &rest].concat();
            prop_assert_eq!(Preamble::parse(&bytes), Preamble::Kind(kind));
            bytes[at] ^= flip;
            prop_assert_eq!(Preamble::parse(&bytes), Preamble::Foreign);
            prop_assert_eq!(Preamble::parse(&bytes[..at]), Preamble::Unfinished);
            prop_assert_eq!(Preamble::parse(&bytes[..=at]), Preamble::Foreign);
        }
    }
}

//! The head of a frame (RFC 6455 section 5.2), read and written.
//!
//! Invariant: a head that came out of here is one that the peer may send: no reserved bit, a known opcode, the
//! shortest form of its length, masked exactly when it comes from a client, and control frames whole and short.
//! Pure; runs on any shard.

use super::Failure;

/// The longest head.
pub const HEAD_MAX: usize = 14;
/// The longest payload of a control frame.
pub const CONTROL_MAX: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that has begun.
    Continuation,
    /// A message of UTF-8.
    Text,
    /// A message of bytes.
    Binary,
    /// The last frame.
    Close,
    /// To be answered with a pong.
    Ping,
    /// The answer to a ping, or a sign of life.
    Pong,
}

impl Opcode {
    const fn of(nibble: u8) -> Option<Opcode> {
        Some(match nibble {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    const fn nibble(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    /// Whether frames of this kind may stand between those of a message.
    pub const fn is_control(self) -> bool {
        self.nibble() >= 8
    }
}

/// Which end of the connection one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Masks what it sends.
    Client,
    /// Does not.
    Server,
}

/// A frame without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Whether the message ends with it.
    pub is_last: bool,
    /// What it is.
    pub opcode: Opcode,
    /// The mask over its payload.
    pub mask: Option<[u8; 4]>,
    /// Bytes of its payload.
    pub len: u64,
}

/// Reads a head from the start of `input`, sent to `role`; with it, how many bytes it took. `None` is not enough yet.
pub fn parse(input: &[u8], role: Role) -> Result<Option<(FrameHead, usize)>, Failure> {
    let &[first, ref rest @ ..] = input else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Failure::protocol("a reserved bit is set; no extension was agreed on"));
    }
    let opcode = Opcode::of(first & 0x0f).ok_or(Failure::protocol("a reserved opcode"))?;
    let is_last = first & 0x80 != 0;
    if opcode.is_control() && !is_last {
        return Err(Failure::protocol("a control frame comes whole"));
    }
    let &[second, ref rest @ ..] = rest else { return Ok(None) };
    let is_masked = second & 0x80 != 0;
    match (role, is_masked) {
        (Role::Server, false) => return Err(Failure::protocol("a client masks its frames")),
        (Role::Client, true) => return Err(Failure::protocol("a server does not mask its frames")),
        _ => {}
    }
    let short = second & 0x7f;
    if opcode.is_control() && usize::from(short) > CONTROL_MAX {
        return Err(Failure::protocol("a control frame has at most 125 bytes"));
    }
    let Some((len, rest)) = parse_len(short, rest)? else { return Ok(None) };
    let (mask, rest) = match (is_masked, rest) {
        (false, rest) => (None, rest),
        (true, [a, b, c, d, rest @ ..]) => (Some([*a, *b, *c, *d]), rest),
        (true, _) => return Ok(None),
    };
    Ok(Some((FrameHead { is_last, opcode, mask, len }, input.len() - rest.len())))
}

fn parse_len(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Failure> {
    let (len, least, rest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), 126, rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((len, rest)) => (u64::from_be_bytes(*len), 1 << 16, rest),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, rest),
    };
    if len < least {
        return Err(Failure::protocol("a length is not in its shortest form"));
    }
    if len >> 63 != 0 {
        return Err(Failure::protocol("a length has 63 bits at most"));
    }
    Ok(Some((len, rest)))
}

/// Appends a head to `out`.
pub fn write_head(out: &mut Vec<u8>, head: &FrameHead) {
    debug_assert!(!head.opcode.is_control() || (head.is_last && head.len <= CONTROL_MAX as u64));
    out.push(if head.is_last { 0x80 } else { 0 } | head.opcode.nibble());
    let masked = if head.mask.is_some() { 0x80 } else { 0 };
    match head.len {
        len @ 0..126 => out.push(masked | len as u8),
        len @ 126..0x1_0000 => {
            out.push(masked | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(masked | 127);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    if let Some(mask) = head.mask {
        out.extend_from_slice(&mask);
    }
}

/// Appends a whole frame to `out`, masked if there is a mask.
pub fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    write_head(out, &FrameHead { is_last: true, opcode, mask, len: payload.len() as u64 });
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        super::mask::apply(mask, 0, &mut out[start..]);
    }
}

/// Appends a close frame; no code, no payload. What of `reason` does not fit is left out.
pub fn write_close(out: &mut Vec<u8>, code: Option<super::CloseCode>, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = Vec::with_capacity(2 + reason.len());
    if let Some(code) = code {
        payload.extend_from_slice(&code.number().to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(CONTROL_MAX - 2)]);
    }
    write(out, Opcode::Close, &payload, mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failing(input: &[u8]) -> &'static str {
        parse(input, Role::Client).expect_err("not a head").reason
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let text = FrameHead { is_last: true, opcode: Opcode::Text, mask: None, len: 5 };
        assert_eq!(parse(b"\x81\x05Hello", Role::Client), Ok(Some((text, 2))));
        let masked = FrameHead { mask: Some([0x37, 0xfa, 0x21, 0x3d]), ..text };
        assert_eq!(parse(b"\x81\x85\x37\xfa\x21\x3d\x7f", Role::Server), Ok(Some((masked, 6))));
        let long = FrameHead { opcode: Opcode::Binary, len: 65536, ..text };
        assert_eq!(parse(b"\x82\x7f\0\0\0\0\0\x01\0\0", Role::Client), Ok(Some((long, 10))));
    }

    #[test]
    fn what_no_peer_may_send() {
        assert!(failing(b"\xc1").contains("reserved bit"));
        assert!(failing(b"\x83").contains("opcode"));
        assert!(failing(b"\x8b").contains("opcode"));
        assert!(failing(b"\x09").contains("whole"));
        assert!(failing(b"\x89\x7e").contains("125"));
        assert!(failing(b"\x82\x7e\x00\x7d").contains("shortest"));
        assert!(failing(b"\x82\x7f\0\0\0\0\0\0\xff\xff").contains("shortest"));
        assert!(failing(b"\x82\x7f\x80\0\0\0\0\0\0\0").contains("63"));
        assert!(failing(b"\x81\x80").contains("server"));
        assert!(parse(b"\x81\x00", Role::Server).expect_err("not masked").reason.contains("client"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_never_from_less(
            opcode in prop_oneof![Just(Opcode::Text), Just(Opcode::Binary), Just(Opcode::Continuation)],
            is_last: bool,
            mask: Option<[u8; 4]>,
            len in prop_oneof![0u64..130, 65530u64..65540, any::<u64>().prop_map(|len| len >> 1)],
        ) {
            let head = FrameHead { is_last, opcode, mask, len };
            let role = if mask.is_some() { Role::Server } else { Role::Client };
            let mut written = Vec::new();
            write_head(&mut written, &head);
            prop_assert!(written.len() <= HEAD_MAX);
            prop_assert_eq!(parse(&written, role), Ok(Some((head, written.len()))));
            for cut in 0..written.len() {
                prop_assert_eq!(parse(&written[..cut], role), Ok(None));
            }
        }
    }
}

//! Frames of a websocket (RFC 6455 section 5) as a client sends and gets them.
//!
//! Invariant: what comes out of [`read`] is what a server may send a client without extensions: no reserved bit, a
//! known opcode, no mask, the shortest form of the length, control frames whole and short.

/// Frames beyond this are refused.
pub const FRAME_MAX: u64 = 64 << 20;
/// The longest head that a client writes.
const HEAD_MAX: usize = 14;
/// The longest content of a control frame.
const CONTROL_MAX: u64 = 125;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// More of the message that has begun.
    Continuation = 0,
    /// A message of text.
    Text = 1,
    /// A message of bytes.
    Binary = 2,
    /// The last frame.
    Close = 8,
    /// To be answered.
    Ping = 9,
    /// An answer, or a sign of life.
    Pong = 10,
}

/// A frame that lies here whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What it is.
    pub opcode: Opcode,
    /// Whether the message ends with it.
    pub is_last: bool,
    /// What it carries.
    pub content: &'a [u8],
    /// Its bytes with its head.
    pub len: usize,
}

/// The frame at the beginning of `input`, if it is all there.
pub fn read(input: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let &[first, second, ref rest @ ..] = input else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err("a frame with a reserved bit, and no extension was agreed on".into());
    }
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => return Err(format!("a frame with the reserved opcode {other}")),
    };
    let is_last = first & 0x80 != 0;
    if second & 0x80 != 0 {
        return Err("a masked frame from a server".into());
    }
    let (len, least, rest) = match second {
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
        return Err(format!("a length of {len} that is not in its shortest form"));
    }
    if opcode as u8 >= 8 && (!is_last || len > CONTROL_MAX) {
        return Err("a control frame that is long or in parts".into());
    }
    if len > FRAME_MAX {
        return Err(format!("a frame of {len} bytes, more than {FRAME_MAX}"));
    }
    let head = input.len() - rest.len();
    let content = rest.get(..len as usize);
    Ok(content.map(|content| Frame { opcode, is_last, content, len: head + content.len() }))
}

/// Makes a whole masked frame of what stands in `out` from `start` on.
pub fn write(out: &mut Vec<u8>, start: usize, opcode: Opcode, mask: [u8; 4]) {
    let len = out.len() - start;
    for (byte, mask) in out[start..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let mut head = Vec::with_capacity(HEAD_MAX);
    head.push(0x80 | opcode as u8);
    match len {
        0..126 => head.push(0x80 | len as u8),
        126..0x1_0000 => {
            head.push(0x80 | 126);
            head.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    head.extend_from_slice(&mask);
    out.splice(start..start, head);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        let text = Frame { opcode: Opcode::Text, is_last: true, content: b"Hello", len: 7 };
        assert_eq!(read(b"\x81\x05Hello\x00"), Ok(Some(text)));
        let part = Frame { opcode: Opcode::Text, is_last: false, content: b"Hel", len: 5 };
        assert_eq!(read(b"\x01\x03Hel"), Ok(Some(part)));
        let mut out = b"beforeHello".to_vec();
        write(&mut out, 6, Opcode::Text, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(out, b"before\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }

    #[test]
    fn every_length_is_read_back_and_never_from_less() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let mut out = vec![7; len];
            write(&mut out, 0, Opcode::Binary, [0; 4]);
            // A server says the same without the mask.
            let head = out.len() - len;
            out[1] &= 0x7f;
            out.drain(head - 4..head);
            let frame =
                Frame { opcode: Opcode::Binary, is_last: true, content: &vec![7; len], len: out.len() };
            assert_eq!(read(&out), Ok(Some(frame)), "{len}");
            for cut in (0..out.len()).rev().take(20).chain(0..20.min(out.len())) {
                assert_eq!(read(&out[..cut]), Ok(None), "{cut} of {len}");
            }
        }
    }

    #[test]
    fn what_no_server_may_send() {
        for (bytes, words) in [
            (&b"\xc1\x00"[..], "reserved bit"),
            (b"\x83\x00", "opcode 3"),
            (b"\x81\x80", "masked"),
            (b"\x82\x7e\x00\x7d", "shortest"),
            (b"\x82\x7f\0\0\0\0\0\0\xff\xff", "shortest"),
            (b"\x09\x00", "control"),
            (b"\x89\x7e\x00\x7e", "control"),
            (b"\x82\x7f\x7f\0\0\0\0\0\0\0", "bytes, more than"),
        ] {
            assert!(read(bytes).is_err_and(|why| why.contains(words)), "{words}");
        }
    }
}

//! The chunked coding of HTTP/1.1, piece by piece.
//!
//! Invariant: whatever the splits of the input, the same bytes come out, and what breaks the grammar is refused.

use std::ops::Range;

/// Trailer fields beyond this are refused.
const TRAILERS_MAX: usize = 64 << 10;

/// Where in a body we are.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    place: Place,
    /// Trailer fields as they came, with their line ends.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeEnd { value: u64 },
    Data { left: u64 },
    DataCr,
    DataEnd,
    Trailers,
    Done,
}

impl Default for Place {
    fn default() -> Self {
        Place::Size { value: 0, digits: 0 }
    }
}

/// One step into the input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Bytes that are done with.
    pub used: usize,
    /// Which of them are content.
    pub data: Range<usize>,
    /// Whether the body has ended.
    pub done: bool,
}

impl Chunked {
    /// Goes up to the end of the next piece of content, of the body, or of the input.
    pub fn step(&mut self, input: &[u8]) -> Result<Piece, String> {
        let mut at = 0;
        while at < input.len() && self.place != Place::Done {
            if let Place::Data { left } = self.place {
                let len = left.min((input.len() - at) as u64);
                self.place = if len == left { Place::DataCr } else { Place::Data { left: left - len } };
                let data = at..at + len as usize;
                return Ok(Piece { used: data.end, data, done: false });
            }
            self.place = self.next(input[at])?;
            at += 1;
        }
        Ok(Piece { used: at, data: at..at, done: self.place == Place::Done })
    }

    /// The trailer field of this name, if the body has ended with one.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.trailers).ok()?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn next(&mut self, byte: u8) -> Result<Place, String> {
        let wrong = |what: &str| Err(format!("chunked body: {what}, got {:?}", byte as char));
        Ok(match (self.place, byte) {
            (Place::Size { digits: 1.., value }, b'\r') => Place::SizeEnd { value },
            (Place::Size { digits: 1.., value }, b';' | b' ' | b'\t') => Place::Extension { value },
            (Place::Size { digits: 16.., .. }, _) => return wrong("a size below 2^64 was expected"),
            (Place::Size { value, digits }, byte) => match (byte as char).to_digit(16) {
                Some(digit) => Place::Size { value: value << 4 | u64::from(digit), digits: digits + 1 },
                None => return wrong("a size was expected"),
            },
            (Place::Extension { value }, b'\r') => Place::SizeEnd { value },
            (Place::Extension { .. }, b'\n') => return wrong("a line end without CR is none"),
            (Place::Extension { value }, _) => Place::Extension { value },
            (Place::SizeEnd { value: 0 }, b'\n') => Place::Trailers,
            (Place::SizeEnd { value }, b'\n') => Place::Data { left: value },
            (Place::DataCr, b'\r') => Place::DataEnd,
            (Place::DataEnd, b'\n') => Place::default(),
            (Place::SizeEnd { .. } | Place::DataEnd, _) => return wrong("LF was expected"),
            (Place::DataCr, _) => return wrong("the end of a chunk was expected"),
            (Place::Trailers, byte) => {
                self.trailers.push(byte);
                let is_last = self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n");
                if self.trailers.len() > TRAILERS_MAX {
                    return wrong("the end of the trailers was expected");
                }
                if is_last { Place::Done } else { Place::Trailers }
            }
            (Place::Data { .. } | Place::Done, _) => unreachable!("no single byte is taken there"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] =
        b"5\r\nhello\r\n00A;x=\"y\"\r\n, chunked!\r\n0\r\nX-State: done\r\nx-next:15\r\n\r\nbehind";

    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, Chunked), String> {
        let (mut chunked, mut content, mut used) = (Chunked::default(), Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let step = chunked.step(rest)?;
                content.extend_from_slice(&rest[step.data]);
                (rest, used) = (&rest[step.used..], used + step.used);
                if step.done {
                    return Ok((content, used, chunked));
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
        Err("not at the end".into())
    }

    #[test]
    fn every_split_gives_the_same() {
        for split in 0..BODY.len() {
            let (content, used, chunked) = read(&[&BODY[..split], &BODY[split..]]).expect("a good body");
            assert_eq!((content.as_slice(), used), (&b"hello, chunked!"[..], BODY.len() - 6), "{split}");
            assert_eq!(chunked.trailer("X-STATE"), Some("done"));
            assert_eq!(chunked.trailer("X-Next"), Some("15"));
            assert_eq!(chunked.trailer("X-Other"), None);
        }
        let bytes: Vec<&[u8]> = BODY.chunks(1).collect();
        assert_eq!(read(&bytes).map(|(content, ..)| content), Ok(b"hello, chunked!".to_vec()));
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for wrong in [
            &b"\r\n"[..],
            b"g\r\n",
            b"5\nhello",
            b"5\r\nhellox",
            b"5\r\nhello\rx",
            b"5;a\nhello",
            b"11111111111111111\r\n",
        ] {
            assert!(
                read(&[wrong]).is_err_and(|why| why.starts_with("chunked body")),
                "{}",
                wrong.escape_ascii()
            );
        }
        assert_eq!(read(&[b"5\r\nhello\r\n"]).err().as_deref(), Some("not at the end"));
    }
}

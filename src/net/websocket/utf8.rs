//! Text that comes in pieces: whether it is UTF-8, as soon as one can know.
//!
//! Invariant: of a character that is cut by the end of a piece, at most three bytes are kept. Pure; runs on any
//! shard.

/// What has been seen of a text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    begun: [u8; 4],
    begun_len: usize,
}

/// No further byte can make this UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl Utf8 {
    /// The next piece.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.begun_len > 0
            && let Some((byte, rest)) = piece.split_first()
        {
            self.begun[self.begun_len] = *byte;
            self.begun_len += 1;
            piece = rest;
            match incomplete(&self.begun[..self.begun_len])? {
                0 => self.begun_len = 0,
                // A character has four bytes at most, so it is complete or wrong before there is no room.
                len => debug_assert!(len == self.begun_len && len < 4),
            }
        }
        let len = incomplete(piece)?;
        if len > 0 {
            self.begun[..len].copy_from_slice(&piece[piece.len() - len..]);
            self.begun_len = len;
        }
        Ok(())
    }

    /// Whether the text may end here: no character has begun that did not end.
    pub fn is_whole(&self) -> bool {
        self.begun_len == 0
    }
}

/// How many bytes at the end are a character that has only begun.
fn incomplete(bytes: &[u8]) -> Result<usize, NotUtf8> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(0),
        Err(error) if error.error_len().is_none() => Ok(bytes.len() - error.valid_up_to()),
        Err(_) => Err(NotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(pieces: &[&[u8]]) -> Result<bool, NotUtf8> {
        let mut text = Utf8::default();
        for piece in pieces {
            text.push(piece)?;
        }
        Ok(text.is_whole())
    }

    #[test]
    fn what_cannot_become_text_is_known_at_once() {
        assert_eq!(judge(&[b"\xce", b"\xba"]), Ok(true));
        assert_eq!(judge(&[b"\xf0\x9f", b"\x92"]), Ok(false));
        assert_eq!(judge(&[b"\xf4", b"\x90"]), Err(NotUtf8), "beyond U+10FFFF");
        assert_eq!(judge(&[b"\xed", b"\xa0"]), Err(NotUtf8), "a surrogate");
        assert_eq!(judge(&[b"\xc0"]), Err(NotUtf8), "no character begins so");
        assert_eq!(judge(&[b"a\x80"]), Err(NotUtf8));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..12), at in 0usize..12) {
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(judge(&[first, second]), judge(&[&bytes]));
        }

        #[test]
        fn text_is_text_byte_by_byte(text in ".{0,12}") {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(judge(&pieces), Ok(true));
        }
    }
}

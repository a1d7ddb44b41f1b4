//! Bytes that came and cannot be understood without more.
//!
//! Invariant: nothing is copied as long as everything that comes is understood at once.

/// The bytes of one connection that wait for more.
#[derive(Clone, Debug, Default)]
pub struct Held(Vec<u8>);

impl Held {
    /// Gives `input` to `hear`, behind what it did not use the last time, and keeps what it does not use now.
    /// `hear` says how many bytes it used, and something for us to pass on.
    pub fn take<T>(&mut self, input: &[u8], hear: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        if self.0.is_empty() {
            let (used, heard) = hear(input);
            self.0.extend_from_slice(&input[used..]);
            return heard;
        }
        self.0.extend_from_slice(input);
        let (used, heard) = hear(&self.0);
        self.0.drain(..used);
        heard
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        let text = b"one\ntwo\n\nthree";
        for size in 1..=text.len() {
            let (mut held, mut lines) = (Held::default(), Vec::new());
            for piece in text.chunks(size) {
                held.take(piece, |input| {
                    let end = input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    lines.extend_from_slice(&input[..end]);
                    (end, ())
                });
            }
            assert_eq!((lines.as_slice(), held.len()), (&b"one\ntwo\n\n"[..], 5), "pieces of {size}");
        }
    }
}

//! Base64 with the standard alphabet and padding: what keys of handshakes and contents in JSON are written in.
//!
//! Invariant: what is understood is the one text that the same bytes are written as.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Stands for no digit: a bit that no group of four has.
const NONE: u32 = 1 << 24;
/// What each digit means at each place of its group.
const DIGITS: [[u32; 256]; 4] = digits();

const fn digits() -> [[u32; 256]; 4] {
    let (mut digits, mut place) = ([[NONE; 256]; 4], 0);
    while place < 4 {
        let mut digit = 0;
        while digit < ALPHABET.len() {
            digits[place][ALPHABET[digit] as usize] = (digit as u32) << (18 - 6 * place);
            digit += 1;
        }
        place += 1;
    }
    digits
}

/// `bytes` as text.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |at: usize| u32::from(*three.get(at).unwrap_or(&0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= three.len() { char::from(ALPHABET[value]) } else { '=' });
        }
    }
    text
}

/// Puts the bytes that `text` stands for at the end of `out`; whether it stands for any.
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let (fours, rest) = text.as_chunks::<4>();
    let (Some((last, fours)), []) = (fours.split_last(), rest) else { return text.is_empty() };
    let start = out.len();
    out.resize(start + fours.len() * 3, 0);
    let mut all = 0;
    // Checked once for all of them: this is what a load generator does most.
    for (four, three) in fours.iter().zip(out[start..].as_chunks_mut::<3>().0) {
        let bits = group(*four);
        all |= bits;
        let [_, bytes @ ..] = bits.to_be_bytes();
        *three = bytes;
    }
    let len = match last {
        [_, _, b'=', b'='] => 1,
        [_, _, _, b'='] => 2,
        _ => 3,
    };
    let mut last = *last;
    last[len + 1..].fill(ALPHABET[0]);
    let bits = group(last);
    let [_, bytes @ ..] = bits.to_be_bytes();
    out.extend_from_slice(&bytes[..len]);
    // What the padding cuts off is nothing.
    (all | bits) & NONE == 0 && bytes[len..].iter().all(|byte| *byte == 0)
}

fn group(four: [u8; 4]) -> u32 {
    let at = |place: usize| DIGITS[place][usize::from(four[place])];
    at(0) | at(1) | at(2) | at(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    #[test]
    fn the_examples_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn bytes_come_back_and_nothing_else_does() {
        let mut chance = Chance::new(5, 0);
        for len in 0..100 {
            let bytes = chance.bytes(len);
            let mut out = b"before".to_vec();
            assert!(decode(encode(&bytes).as_bytes(), &mut out));
            assert_eq!(out, [b"before", bytes.as_slice()].concat());
        }
        for wrong in
            ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Z*9v", "Zm9v\n", "Zm9v Zm9"]
        {
            assert!(!decode(wrong.as_bytes(), &mut Vec::new()), "{wrong}");
        }
    }
}

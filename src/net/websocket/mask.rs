//! The mask that clients lay over what they send (RFC 6455 section 5.3).
//!
//! It hides nothing; it keeps a script in a browser from choosing the bytes on the wire. Eight bytes are done at
//! a time, which the compiler turns into vectors. Pure; runs on any shard.

/// Lays `key` over `bytes`, whose first one stands at `position` of its frame's payload; twice is not at all.
pub fn apply(key: [u8; 4], position: u64, bytes: &mut [u8]) {
    let mut turned = key;
    turned.rotate_left((position % 4) as usize);
    let [a, b, c, d] = turned;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_rfc() {
        let mut bytes = *b"Hello";
        apply([0x37, 0xfa, 0x21, 0x3d], 0, &mut bytes);
        assert_eq!(bytes, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    proptest! {
        #[test]
        fn it_is_what_it_is_byte_by_byte_wherever_it_is_cut(
            key: [u8; 4], bytes in proptest::collection::vec(any::<u8>(), 0..70), cut in 0usize..70
        ) {
            let expected: Vec<u8> = bytes.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
            let cut = cut.min(bytes.len());
            let mut masked = bytes;
            let (first, second) = masked.split_at_mut(cut);
            apply(key, 0, first);
            apply(key, cut as u64, second);
            prop_assert_eq!(masked, expected);
        }
    }
}

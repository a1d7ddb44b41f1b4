//! Chance with a seed: numbers, bytes and choices among keys.
//!
//! Invariant: the same seed gives the same numbers, on every machine and for ever: bytes that one run wrote are
//! checked by another that knows the seed.

/// A stream of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The one with this seed; `part` sets apart streams that share it.
    pub fn new(seed: u64, part: u64) -> Self {
        let mut chance = Self(seed ^ mix(part.wrapping_add(1)));
        chance.number();
        chance
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One of `0..bound`, all as likely as each other; the bias is below `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// One of [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// The finisher of splitmix64: every bit of the input matters to every bit of the output.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Keys from 0 on of which few are asked for often: key `k` about as often as `1 / (k + 1)^exponent`.
///
/// The method is that of Gray et al., Quickly generating billion-record synthetic databases, 1994.
#[derive(Clone, Debug)]
pub struct Zipf {
    keys: f64,
    alpha: f64,
    eta: f64,
    zeta: f64,
    second: f64,
}

impl Zipf {
    /// Over `keys` keys; `exponent` lies between 0 and 1, both excluded. Takes time in proportion to `keys`.
    pub fn new(keys: u64, exponent: f64) -> Self {
        let zeta = |keys: u64| (1..=keys).map(|key| (key as f64).powf(-exponent)).sum::<f64>();
        let (all, two, n) = (zeta(keys), zeta(keys.min(2)), keys as f64);
        Self {
            keys: n,
            alpha: 1.0 / (1.0 - exponent),
            eta: (1.0 - (2.0 / n).powf(1.0 - exponent)) / (1.0 - two / all),
            zeta: all,
            second: 1.0 + 0.5f64.powf(exponent),
        }
    }

    /// One of the keys.
    pub fn choose(&self, chance: &mut Chance) -> u64 {
        let unit = chance.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 || self.keys < 2.0 {
            return 0;
        }
        if scaled < self.second || self.keys < 3.0 {
            return 1;
        }
        let key = self.keys * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (key as u64).min(self.keys as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_another_does_not() {
        let bytes = |seed, part| Chance::new(seed, part).bytes(1001);
        assert_eq!(bytes(7, 0), bytes(7, 0));
        assert_ne!(bytes(7, 0), bytes(7, 1));
        assert_ne!(bytes(7, 0), bytes(8, 0));
        assert_eq!(bytes(7, 0)[..10], Chance::new(7, 0).bytes(10));
    }

    #[test]
    fn uniform_keys_are_even_and_zipf_keys_are_not() {
        let mut chance = Chance::new(3, 0);
        let (mut even, mut steep) = ([0u32; 100], [0u32; 100]);
        let zipf = Zipf::new(100, 0.99);
        for _ in 0..100_000 {
            even[chance.below(100) as usize] += 1;
            steep[zipf.choose(&mut chance) as usize] += 1;
        }
        assert!(even.iter().all(|count| (800..1200).contains(count)), "{even:?}");
        // One in about 5.4 is the first of a hundred, and half as many the second.
        assert!((17_000..21_000).contains(&steep[0]) && (8_000..11_000).contains(&steep[1]), "{steep:?}");
        assert!(steep[99] > 20 && steep[99] < steep[1] / 20, "{steep:?}");
    }

    #[test]
    fn few_keys_are_no_special_case() {
        let mut chance = Chance::new(3, 0);
        for keys in 1..5 {
            let zipf = Zipf::new(keys, 0.99);
            let seen: std::collections::BTreeSet<u64> =
                (0..10_000).map(|_| zipf.choose(&mut chance)).collect();
            assert_eq!(seen, (0..keys).collect());
        }
    }
}

//! Requests ready to send: built once, with the keys put in as they are chosen.
//!
//! Invariant: what goes out depends on the seed, the thread and the number of the request alone.

use std::sync::Arc;

use crate::chance::{Chance, Zipf};

/// Where a key goes.
pub const KEY: &str = "{key}";
/// Bodies up to this are copied behind their heads, so that many requests go out in one write.
pub const COPIED_MAX: usize = 16 << 10;
/// Seeds the body apart from the keys.
const BODY: u64 = u64::MAX;

/// The requests of one thread.
#[derive(Clone)]
pub struct Requests {
    /// The head, cut where keys go; a small body is part of the last piece.
    pieces: Vec<Vec<u8>>,
    keys: Keys,
    /// A body too large to copy.
    pub body_apart: Arc<[u8]>,
    /// How many bytes of body are part of the pieces.
    pub body_copied: u64,
    /// Whether they ask for heads alone.
    pub is_head: bool,
    method: String,
}

/// How keys are chosen.
#[derive(Clone, Debug)]
pub enum Keys {
    /// There is one, 0.
    One,
    /// Out of so many, each as often as the others.
    Uniform(u64, Chance),
    /// Out of so many, low ones more often.
    Zipf(u64, Arc<Zipf>, Chance),
    /// One after the other, each once, and then from the beginning: how many, the next one, and the step.
    Sequence(u64, u64, u64),
}

impl Keys {
    /// The next one.
    pub fn choose(&mut self) -> u64 {
        match self {
            Keys::One => 0,
            Keys::Uniform(keys, chance) => chance.below(*keys),
            Keys::Zipf(_, zipf, chance) => zipf.choose(chance),
            Keys::Sequence(keys, next, step) => {
                let key = *next % *keys;
                *next += *step;
                key
            }
        }
    }

    /// The share of one thread.
    pub fn lane(mut self, seed: u64, lane: usize, lanes: usize) -> Self {
        match &mut self {
            Keys::One => {}
            Keys::Uniform(_, chance) | Keys::Zipf(_, _, chance) => *chance = Chance::new(seed, lane as u64),
            Keys::Sequence(_, next, step) => (*next, *step) = (lane as u64, lanes as u64),
        }
        self
    }

    fn describe(&self) -> String {
        match self {
            Keys::One => "one key".into(),
            Keys::Uniform(keys, _) => format!("{keys} keys, uniform"),
            Keys::Zipf(keys, ..) => format!("{keys} keys, zipf"),
            Keys::Sequence(keys, ..) => format!("{keys} keys, in sequence"),
        }
    }
}

impl Requests {
    /// `head` is the whole head with its empty line; keys go where it says `{key}`.
    pub fn new(method: &str, head: &str, body: Vec<u8>, keys: Keys) -> Self {
        let mut pieces: Vec<Vec<u8>> = head.split(KEY).map(|piece| piece.as_bytes().to_vec()).collect();
        let is_small = body.len() <= COPIED_MAX;
        let (copied, apart) = if is_small { (body, Vec::new()) } else { (Vec::new(), body) };
        if let Some(last) = pieces.last_mut() {
            last.extend_from_slice(&copied);
        }
        Self {
            pieces,
            keys,
            body_copied: copied.len() as u64,
            body_apart: apart.into(),
            is_head: method == "HEAD",
            method: method.into(),
        }
    }

    /// The share of one thread.
    pub fn lane(mut self, seed: u64, lane: usize, lanes: usize) -> Self {
        self.keys = self.keys.lane(seed, lane, lanes);
        self
    }

    /// Puts the next one at the end of `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) {
        let Some((first, rest)) = self.pieces.split_first() else { return };
        out.extend_from_slice(first);
        if rest.is_empty() {
            return;
        }
        let mut digits = [0; 20];
        let key = decimal(self.keys.choose(), &mut digits);
        for piece in rest {
            out.extend_from_slice(key);
            out.extend_from_slice(piece);
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        let body = self.body_copied + self.body_apart.len() as u64;
        format!("{} with {body} bytes, {}", self.method, self.keys.describe())
    }
}

/// The body that a seed gives to a request, or to the answers of our own server.
pub fn seeded_body(seed: u64, len: usize) -> Vec<u8> {
    Chance::new(seed, BODY).bytes(len)
}

/// The digits of a number.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(requests: &mut Requests, count: usize) -> Vec<String> {
        let one = |requests: &mut Requests| {
            let mut out = Vec::new();
            requests.next(&mut out);
            String::from_utf8(out).expect("text")
        };
        (0..count).map(|_| one(requests)).collect()
    }

    #[test]
    fn keys_go_where_the_head_says_and_nowhere_in_the_body() {
        let keys = Keys::Sequence(3, 0, 1);
        let requests = Requests::new("PUT", "PUT /{key} X\r\nY: {key}\r\n\r\n", b"{key}".to_vec(), keys);
        let mut all = requests.clone().lane(1, 0, 1);
        assert_eq!(
            texts(&mut all, 4),
            [0, 1, 2, 0].map(|key| format!("PUT /{key} X\r\nY: {key}\r\n\r\n{{key}}"))
        );
        let mut second = requests.lane(1, 1, 2);
        assert_eq!(texts(&mut second, 2)[1], "PUT /0 X\r\nY: 0\r\n\r\n{key}");
    }

    #[test]
    fn a_seed_repeats_the_choice() {
        let keys = Keys::Uniform(1_000, Chance::new(0, 0));
        let texts = |seed, lane| {
            texts(&mut Requests::new("GET", "{key}", Vec::new(), keys.clone()).lane(seed, lane, 2), 20)
        };
        assert_eq!(texts(1, 0), texts(1, 0));
        assert_ne!(texts(1, 0), texts(1, 1));
        assert_ne!(texts(1, 0), texts(2, 0));
    }

    #[test]
    fn numbers_have_their_digits() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}

//! The broker of micro: a record is a POST, and comes to readers as the `Body` of a JSON object, in base64.
//!
//! Invariant: an object is read by the grammar of JSON unless it begins, byte by byte, like one that was; then what
//! stands between that and its last two bytes, and is base64, is its body.

use data_encoding::BASE64;
use serde_json::Value;

use crate::{
    flow::wire::{Downstream, Wrong},
    tally::Kind,
    ws::Socket,
};

/// What stands before the body.
const BODY: &[u8] = b"\"Body\":\"";

/// Where to publish.
pub fn publish(topic: usize) -> String {
    subscribe(topic)
}

/// Where to subscribe.
pub fn subscribe(topic: usize) -> String {
    format!("/broker?topic={}", super::name(topic))
}

/// What one reader knows.
pub struct Down {
    socket: Socket,
    objects: Objects,
}

impl Down {
    /// One that expects records of `size` bytes.
    pub fn new(socket: Socket, size: usize) -> Self {
        Self { socket, objects: Objects { size, known: Vec::new(), record: Vec::new() } }
    }
}

impl Downstream for Down {
    fn hear(
        &mut self,
        input: &[u8],
        deliver: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Wrong> {
        let Self { socket, objects } = self;
        let used = socket.hear(input, out, |message| {
            deliver(objects.record(message)?);
            Ok(())
        })?;
        Ok((used, false))
    }

    fn tells_its_end(&self) -> bool {
        false
    }
}

struct Objects {
    size: usize,
    /// How the last object began that was read whole, up to its body.
    known: Vec<u8>,
    record: Vec<u8>,
}

impl Objects {
    /// The record in an object.
    fn record(&mut self, object: &[u8]) -> Result<&[u8], Wrong> {
        self.record.clear();
        let body = match object.strip_prefix(self.known.as_slice()) {
            Some(rest) if !self.known.is_empty() => rest.strip_suffix(b"\"}"),
            _ => None,
        };
        // Digits stand for themselves in JSON; with anything else the grammar has to be asked.
        if !body.is_some_and(|body| decode(body, &mut self.record)) && !self.learn(object)? {
            return Err((Kind::Malformed, format!("a Body that is not base64: {}", shown(object))));
        }
        let (len, size) = (self.record.len(), self.size);
        match len == size {
            true => Ok(&self.record),
            false => Err((Kind::Length, format!("a message of {len} bytes instead of {size}"))),
        }
    }

    /// Reads an object by the grammar, and learns how such objects begin; whether its body is base64.
    fn learn(&mut self, object: &[u8]) -> Result<bool, Wrong> {
        self.record.clear();
        let no_message = || (Kind::Malformed, format!("no message of a broker: {}", shown(object)));
        let value: Value = serde_json::from_slice(object).map_err(|_| no_message())?;
        let (Some(_), Some(body)) = (value["Header"].as_object(), value["Body"].as_str()) else {
            return Err(no_message());
        };
        let body = body.as_bytes();
        let begins = object.len().saturating_sub(2 + body.len());
        if object[..begins].ends_with(BODY) && object[begins..].starts_with(body) && object.ends_with(b"\"}")
        {
            self.known = object[..begins].to_vec();
        }
        Ok(decode(body, &mut self.record))
    }
}

/// Puts what `text` stands for at the end of `out`; whether it stands for anything.
fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(len_max) = BASE64.decode_len(text.len()) else { return false };
    let begins = out.len();
    out.resize(begins + len_max, 0);
    let decoded = BASE64.decode_mut(text, &mut out[begins..]);
    out.truncate(begins + decoded.as_ref().copied().unwrap_or(0));
    decoded.is_ok()
}

fn shown(object: &[u8]) -> String {
    let some = &object[..object.len().min(100)];
    format!("\"{}\"", some.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> Objects {
        Objects { size: 5, known: Vec::new(), record: Vec::new() }
    }

    #[test]
    fn bodies_come_out_however_the_object_is_written() {
        let mut objects = objects();
        for text in [
            r#"{"Header":{"A":"b"},"Body":"aGVsbG8="}"#,
            r#"{"Header":{"A":"b"},"Body":"aGVsbG8="}"#,
            r#"{"Body":"aGVsbG8=","Header":{}}"#,
            r#"{ "Header" : {} , "Body" : "aGVsbG8=" }"#,
            r#"{"Header":{},"Body":"\u0061GVsbG8="}"#,
        ] {
            assert_eq!(objects.record(text.as_bytes()), Ok(&b"hello"[..]), "{text}");
        }
        assert_eq!(objects.known, br#"{"Header":{"A":"b"},"Body":""#);
    }

    #[test]
    fn what_is_no_message_is_found_before_and_after_one_is_known() {
        let right = r#"{"Header":{},"Body":"aGVsbG8="}"#;
        for (wrong, kind) in [
            (r#"{"Header":{},"Body":"aGVsbG8"}"#, Kind::Malformed),
            (r#"{"Header":{},"Body":"aGVsbA=="}"#, Kind::Length),
            (r#"{"Header":{},"Body":"aGVsbG8=""#, Kind::Malformed),
            (r#"{"Header":{},"Body":"aGVsbG8=","X":""}"#, Kind::Malformed),
            (r#"{"Header":[],"Body":"aGVsbG8="}"#, Kind::Malformed),
            ("hello", Kind::Malformed),
        ] {
            let mut objects = objects();
            let fault = |objects: &mut Objects| {
                objects.record(wrong.as_bytes()).map(<[u8]>::len).map_err(|(kind, _)| kind)
            };
            let first = fault(&mut objects);
            assert!(objects.record(right.as_bytes()).is_ok());
            // A further key is nothing that a reader would mind.
            let expected = if wrong.contains("\"X\"") { Ok(5) } else { Err(kind) };
            assert_eq!((first, fault(&mut objects)), (expected, expected), "{wrong}");
        }
    }
}

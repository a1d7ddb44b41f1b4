//! What servers of services are sent and what they answer: JSON-RPC, or protobuf in frames.
//!
//! Invariant: requests are to the byte what clients in Go send; a result is passed on as it came. A frame is its length
//! in four bytes, most significant first, and so many bytes. Pure; runs on any shard.

use super::CallError;
use crate::codec::json::{check, push_string};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// JSON-RPC.
    Json,
    /// Protobuf.
    Proto,
}

impl Framing {
    /// The type of both bodies.
    pub const fn content_type(self) -> &'static str {
        match self {
            Framing::Json => "application/json",
            Framing::Proto => "application/octet-stream",
        }
    }

    /// The body of a call.
    pub fn request(self, method: &str, payload: &[u8]) -> Vec<u8> {
        match self {
            Framing::Json => {
                let mut out = String::from("{\"method\":");
                push_string(&mut out, method);
                out.push_str(",\"params\":[");
                let mut out = out.into_bytes();
                out.extend_from_slice(payload);
                out.extend_from_slice(b"],\"id\":0}\n");
                out
            }
            Framing::Proto => {
                let mut header = Vec::with_capacity(method.len() + 16);
                push_text(&mut header, 1, method);
                header.push(SEQUENCE);
                header.extend_from_slice(&0u64.to_le_bytes());
                let mut out = Vec::with_capacity(header.len() + payload.len() + 8);
                push_frame(&mut out, &header);
                push_frame(&mut out, payload);
                out
            }
        }
    }

    /// The result in an answer, or the error that it is.
    pub fn answer(self, body: &[u8]) -> Result<Vec<u8>, CallError> {
        match self {
            Framing::Json => json_answer(body),
            Framing::Proto => proto_answer(body),
        }
    }
}

#[derive(Deserialize)]
struct JsonAnswer<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct JsonError {
    message: String,
}

fn json_answer(body: &[u8]) -> Result<Vec<u8>, CallError> {
    check(body.trim_ascii_end()).map_err(|error| CallError::Codec(error.to_string()))?;
    let answer: JsonAnswer<'_> =
        serde_json::from_slice(body).map_err(|error| CallError::Codec(error.to_string()))?;
    let Some(error) = answer.error else {
        return Ok(answer.result.map_or(b"null".to_vec(), |result| result.get().as_bytes().to_vec()));
    };
    if let Ok(text) = serde_json::from_str::<String>(error.get()) {
        return Err(CallError::Backend(if text.is_empty() { "unspecified error".into() } else { text }));
    }
    // As JSON-RPC 2.0 has it.
    match serde_json::from_str::<JsonError>(error.get()) {
        Ok(error) => Err(CallError::Backend(error.message)),
        Err(_) => Err(CallError::Codec(format!("invalid error {}", error.get()))),
    }
}

/// Field 2, eight bytes.
const SEQUENCE: u8 = 2 << 3 | 1;

fn proto_answer(body: &[u8]) -> Result<Vec<u8>, CallError> {
    let short = || CallError::Codec("unexpected EOF".into());
    let (header, rest) = take_frame(body).ok_or_else(short)?;
    let error = text_of(header, 3).ok_or_else(|| CallError::Codec("proto: illegal header".into()))?;
    let (payload, _) = take_frame(rest).ok_or_else(short)?;
    match error {
        Some(text) if !text.is_empty() => Err(CallError::Backend(text)),
        _ => Ok(payload.to_vec()),
    }
}

fn push_frame(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

fn push_text(out: &mut Vec<u8>, field: u8, text: &str) {
    out.push(field << 3 | 2);
    let mut len = text.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(text.as_bytes());
}

/// The last text under `wanted` in a message, if there is one; `None` when it is no message.
fn text_of(mut message: &[u8], wanted: u64) -> Option<Option<String>> {
    let mut found = None;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match key & 7 {
            0 => drop(take_varint(&mut message)?),
            1 => message = message.get(8..)?,
            2 => {
                let len = usize::try_from(take_varint(&mut message)?).ok()?;
                let (text, rest) = message.split_at_checked(len)?;
                message = rest;
                if key >> 3 == wanted {
                    found = Some(String::from_utf8_lossy(text).into_owned());
                }
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_json_call_is_what_go_sends() {
        assert_eq!(
            Framing::Json.request("Example.Call", br#"{"z":1}"#),
            b"{\"method\":\"Example.Call\",\"params\":[{\"z\":1}],\"id\":0}\n"
        );
    }

    #[test]
    fn a_result_comes_as_it_was_written() {
        for (body, result) in [
            (r#"{"id":0,"result":{"b": 1, "a":1.0},"error":null}"#, r#"{"b": 1, "a":1.0}"#),
            (r#"{"jsonrpc":"2.0","result":[1,2]}"#, "[1,2]"),
            (r#"{"id":0,"result":null,"error":null}"#, "null"),
            (r#"{"id":0}"#, "null"),
        ] {
            assert_eq!(Framing::Json.answer(body.as_bytes()).unwrap(), result.as_bytes(), "{body}");
        }
    }

    #[test]
    fn errors_come_as_text_or_with_a_message() {
        let error = |body: &str| Framing::Json.answer(body.as_bytes()).expect_err(body);
        assert_eq!(error(r#"{"error":"it \"broke\""}"#), CallError::Backend("it \"broke\"".into()));
        assert_eq!(error(r#"{"error":""}"#), CallError::Backend("unspecified error".into()));
        assert_eq!(
            error(r#"{"error":{"code":-32601,"message":"no method"}}"#),
            CallError::Backend("no method".into())
        );
        assert!(matches!(error(r#"{"error":7}"#), CallError::Codec(_)));
        assert_eq!(
            error("Unsupported"),
            CallError::Codec("invalid character 'U' looking for beginning of value".into())
        );
    }

    #[test]
    fn protobuf_goes_in_two_frames() {
        let request = Framing::Proto.request("E.C", b"\x0a\x01x");
        assert_eq!(request, b"\0\0\0\x0e\x0a\x03E.C\x11\0\0\0\0\0\0\0\0\0\0\0\x03\x0a\x01x");
        let answer = [b"\0\0\0\x0e", &request[4..18], b"\0\0\0\x01y"].concat();
        assert_eq!(Framing::Proto.answer(&answer).unwrap(), b"y");
        let mut header = Vec::new();
        push_text(&mut header, 3, &"e".repeat(200));
        let mut answer = Vec::new();
        push_frame(&mut answer, &header);
        push_frame(&mut answer, b"");
        assert_eq!(Framing::Proto.answer(&answer), Err(CallError::Backend("e".repeat(200))));
        for cut in 0..answer.len() {
            assert!(matches!(Framing::Proto.answer(&answer[..cut]), Err(CallError::Codec(_))), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_breaks_anything(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Framing::Json.answer(&body);
            let _ = Framing::Proto.answer(&body);
        }
    }
}

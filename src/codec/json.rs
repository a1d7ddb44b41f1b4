//! JSON with the texts of Go's `encoding/json`: what is wrong with it, and strings as they are written there.
//!
//! Clients of programs in Go compare these texts and bytes, so here they are what they are there. Values themselves are
//! read by serde_json. Invariant: what [`check`] accepts is exactly what RFC 8259 does, up to [`DEPTH_MAX`].
//! Lives on: whichever shard calls.

use std::fmt;

/// How deep values may be nested, as serde_json has it.
pub const DEPTH_MAX: usize = 127;

/// What is wrong with a text, in Go's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadJson {
    /// It stops before the value does.
    End,
    /// A byte that does not belong where it stands.
    Byte(u8, &'static str),
    /// Nested beyond [`DEPTH_MAX`].
    Depth,
}

impl fmt::Display for BadJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            BadJson::End => f.write_str("unexpected end of JSON input"),
            BadJson::Byte(b'\'', place) => write!(f, r"invalid character '\'' {place}"),
            BadJson::Byte(b'"', place) => write!(f, "invalid character '\"' {place}"),
            BadJson::Byte(byte, place) => {
                write!(f, "invalid character '{}' {place}", char::from(byte).escape_debug())
            }
            BadJson::Depth => f.write_str("exceeded max depth"),
        }
    }
}

impl std::error::Error for BadJson {}

/// Whether `text` is one JSON value.
pub fn check(text: &[u8]) -> Result<(), BadJson> {
    let mut scan = Scan { text, at: 0 };
    scan.value(0)?;
    match scan.next_token() {
        None => Ok(()),
        Some(byte) => Err(BadJson::Byte(byte, "after top-level value")),
    }
}

/// JSON without the space between its parts; `text` is what [`check`] accepts.
pub fn compact(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => continue,
            b'"' if !is_escaped => in_string = !in_string,
            _ => {}
        }
        is_escaped = in_string && *byte == b'\\' && !is_escaped;
        out.push(*byte);
    }
    out
}

/// Appends `text` as a JSON string, with what HTML would take for its own escaped.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Result<u8, BadJson> {
        let byte = self.peek().ok_or(BadJson::End)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte that is no space; not taken.
    fn next_token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.peek()
    }

    fn token(&mut self) -> Result<u8, BadJson> {
        self.next_token().ok_or(BadJson::End)?;
        self.take()
    }

    fn value(&mut self, depth: usize) -> Result<(), BadJson> {
        match self.token()? {
            b'{' | b'[' if depth == DEPTH_MAX => Err(BadJson::Depth),
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' => match self.take()? {
                byte @ b'0'..=b'9' => self.number(byte),
                byte => Err(BadJson::Byte(byte, "in numeric literal")),
            },
            byte @ b'0'..=b'9' => self.number(byte),
            byte => Err(BadJson::Byte(byte, "looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), BadJson> {
        let mut is_first = true;
        loop {
            match self.token()? {
                b'"' => self.string()?,
                b'}' if is_first => return Ok(()),
                byte => return Err(BadJson::Byte(byte, "looking for beginning of object key string")),
            }
            match self.token()? {
                b':' => self.value(depth)?,
                byte => return Err(BadJson::Byte(byte, "after object key")),
            }
            is_first = false;
            match self.token()? {
                b',' => {}
                b'}' => return Ok(()),
                byte => return Err(BadJson::Byte(byte, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), BadJson> {
        if self.next_token() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            match self.token()? {
                b',' => {}
                b']' => return Ok(()),
                byte => return Err(BadJson::Byte(byte, "after array element")),
            }
        }
    }

    fn string(&mut self) -> Result<(), BadJson> {
        loop {
            match self.take()? {
                b'"' => return Ok(()),
                b'\\' => match self.take()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.take()?;
                            if !digit.is_ascii_hexdigit() {
                                return Err(BadJson::Byte(digit, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    byte => return Err(BadJson::Byte(byte, "in string escape code")),
                },
                byte @ 0..0x20 => return Err(BadJson::Byte(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), BadJson> {
        for (at, expected) in word.bytes().enumerate().skip(1) {
            let byte = self.take()?;
            if byte != expected {
                let place = match (word, at) {
                    ("true", 1) => "in literal true (expecting 'r')",
                    ("true", 2) => "in literal true (expecting 'u')",
                    ("true", _) => "in literal true (expecting 'e')",
                    ("false", 1) => "in literal false (expecting 'a')",
                    ("false", 2) => "in literal false (expecting 'l')",
                    ("false", 3) => "in literal false (expecting 's')",
                    ("false", _) => "in literal false (expecting 'e')",
                    (_, 1) => "in literal null (expecting 'u')",
                    _ => "in literal null (expecting 'l')",
                };
                return Err(BadJson::Byte(byte, place));
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Result<(), BadJson> {
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, place: &'static str) -> Result<(), BadJson> {
        match self.take()? {
            b'0'..=b'9' => Ok(()),
            byte => Err(BadJson::Byte(byte, place)),
        }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(text: &str) -> String {
        check(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn mistakes_are_told_as_go_tells_them() {
        for (text, told) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("Service not found", "invalid character 'S' looking for beginning of value"),
            ("{a}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{}x", "invalid character 'x' after top-level value"),
            ("'a'", r"invalid character '\'' looking for beginning of value"),
            ("nul ", "invalid character ' ' in literal null (expecting 'l')"),
            ("\"\n\"", r"invalid character '\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ] {
            assert_eq!(wrong(text), told, "{text}");
        }
    }

    #[test]
    fn strings_are_written_as_go_writes_them() {
        let mut out = String::new();
        push_string(&mut out, "<a> & \"b\"\\\n\u{8}\u{2028}é");
        assert_eq!(out, "\"\\u003ca\\u003e \\u0026 \\\"b\\\"\\\\\\n\\u0008\\u2028é\"");
    }

    #[test]
    fn space_goes_and_what_stands_in_strings_stays() {
        assert_eq!(
            compact(b" { \"a b\" : [ 1 ,\n\"\\\\\" , \"\\\" \" ] } "),
            b"{\"a b\":[1,\"\\\\\",\"\\\" \"]}"
        );
    }

    proptest! {
        #[test]
        fn it_accepts_what_another_reader_does(text in r#"[\[\]{}:,"0-9.eE+\-a truefalsn\\]{0,12}"#) {
            let other = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(check(text.as_bytes()).is_ok(), other, "{}", text);
        }

        #[test]
        fn a_written_string_is_read_again(text in ".{0,20}") {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert!(check(out.as_bytes()).is_ok());
            prop_assert_eq!(serde_json::from_str::<String>(&out).expect("a string"), text);
        }
    }
}

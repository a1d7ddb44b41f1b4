//! Framed output as others want to read it.
//!
//! | view | one piece of it |
//! |---|---|
//! | raw | the bytes of both streams, in the order in which they came |
//! | docker | the stream as a byte, three zeros, a length of four bytes, and the bytes: docker's multiplexed stream |
//! | cri | `2006-01-02T15:04:05.000000000Z stdout F text`, a line for each; `P` where it goes on in the next one |
//! | json | `{"log":"text\n","stream":"stdout","time":"…"}`, a line for each, and a last one about the end |
//!
//! A line without an end is cut after [`LINE_MAX`] bytes, as docker and containerd do. Invariant: what is held back is one
//! unfinished line of each stream, at most. Pure.

use super::frame::{END, Event, Header, Malformed, Reader, Source, Word};
use crate::codec::time::Rfc3339;
use std::io::Write;

/// The longest piece of a line.
pub const LINE_MAX: usize = 16 * 1024;

/// The form of a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Bytes alone.
    Raw,
    /// Docker's multiplexed stream.
    Docker,
    /// Lines as kubelet reads them.
    Cri,
    /// Lines as docker's json-file has them.
    Json,
}

/// Turns frames into a form.
pub struct View {
    form: Form,
    only: Option<Source>,
    reader: Reader,
    lines: [Line; 2],
    has_ended: bool,
}

/// A line that is not whole yet.
#[derive(Default)]
struct Line {
    text: Vec<u8>,
    at_ns: u64,
    /// Whether its beginning is out already.
    is_continued: bool,
}

impl Form {
    /// As a request names it.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"raw" => Some(Form::Raw),
            b"docker" => Some(Form::Docker),
            b"cri" => Some(Form::Cri),
            b"json" => Some(Form::Json),
            _ => None,
        }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Raw => "application/octet-stream",
            Form::Docker => "application/vnd.docker.multiplexed-stream",
            Form::Cri => "text/plain; charset=utf-8",
            Form::Json => "application/x-ndjson",
        }
    }
}

impl View {
    /// Of both streams, or of `only` one.
    pub fn new(form: Form, only: Option<Source>) -> Self {
        View { form, only, reader: Reader::default(), lines: Default::default(), has_ended: false }
    }

    /// Looks at more of the frames, and adds to `out` what can be told.
    pub fn take(&mut self, framed: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let View { form, only, reader, lines, has_ended } = self;
        let is_wanted = |source: Source| only.is_none_or(|only| only == source);
        reader.take(framed, |event| match (*form, event) {
            (_, Event::Bytes(header, _) | Event::Over(header)) if !is_wanted(header.source) => {}
            (Form::Raw, Event::Bytes(_, part)) => out.extend_from_slice(part),
            (Form::Docker, Event::Bytes(header, part)) => {
                out.extend([header.source as u8, 0, 0, 0]);
                out.extend((part.len() as u32).to_be_bytes());
                out.extend_from_slice(part);
            }
            (Form::Cri | Form::Json, Event::Bytes(header, part)) => {
                line_of(lines, header.source).take(*form, header, part, out);
            }
            (Form::Cri | Form::Json, Event::Over(header)) if header.flags & END != 0 => {
                line_of(lines, header.source).end(*form, header.source, out);
            }
            (Form::Json, Event::Said(header, word)) => {
                *has_ended |= matches!(word, Word::End(..));
                say(header.at_ns, word, out);
            }
            _ => {}
        })
    }

    /// What was held back, once nothing follows. `is_over` when nothing ever will.
    pub fn finish(mut self, is_over: bool, out: &mut Vec<u8>) {
        for source in [Source::Stdout, Source::Stderr] {
            line_of(&mut self.lines, source).end(self.form, source, out);
        }
        if self.form == Form::Json && is_over && !self.has_ended {
            out.extend_from_slice(b"{\"end\":{\"reason\":\"interrupted\"}}\n");
        }
    }
}

fn line_of(lines: &mut [Line; 2], source: Source) -> &mut Line {
    &mut lines[usize::from(source == Source::Stderr)]
}

impl Line {
    fn take(&mut self, form: Form, header: Header, part: &[u8], out: &mut Vec<u8>) {
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, is_whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            loop {
                if self.text.is_empty() {
                    self.at_ns = header.at_ns;
                }
                let (now, later) = text.split_at(text.len().min(LINE_MAX - self.text.len()));
                self.text.extend_from_slice(now);
                text = later;
                if self.text.len() < LINE_MAX || text.is_empty() {
                    break;
                }
                self.give(form, header.source, false, out);
            }
            if is_whole {
                self.give(form, header.source, true, out);
            }
        }
    }

    /// Gives what there is of it: the rest, with its line end, or not.
    fn give(&mut self, form: Form, source: Source, is_whole: bool, out: &mut Vec<u8>) {
        match form {
            Form::Cri => {
                let tag = if is_whole { "F" } else { "P" };
                put(out, format_args!("{} {} {tag} ", Nanos(self.at_ns), source.name()));
                out.extend_from_slice(&self.text);
                out.push(b'\n');
            }
            _ => {
                let mut log = String::from_utf8_lossy(&self.text).into_owned();
                log.push_str(if is_whole { "\n" } else { "" });
                let log = serde_json::Value::from(log);
                let (stream, time) = (source.name(), Nanos(self.at_ns));
                put(out, format_args!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n"));
            }
        }
        self.text.clear();
        self.is_continued = !is_whole;
    }

    /// There is no line end to come.
    fn end(&mut self, form: Form, source: Source, out: &mut Vec<u8>) {
        if self.text.is_empty() && !(self.is_continued && form == Form::Cri) {
            return;
        }
        // To kubelet a line is over when it is whole, whether its writer ended it or not.
        self.give(form, source, form == Form::Cri, out);
        self.is_continued = false;
    }
}

fn say(at_ns: u64, word: Word, out: &mut Vec<u8>) {
    let time = Nanos(at_ns);
    match word {
        Word::SoFar(_) => {}
        Word::Gap(bytes) => put(out, format_args!("{{\"gap\":{bytes},\"time\":\"{time}\"}}\n")),
        Word::End(totals, reason) => put(
            out,
            format_args!(
                "{{\"end\":{{\"reason\":\"{}\",\"stdout\":{},\"stderr\":{},\"dropped\":{}}},\"time\":\"{time}\"}}\n",
                reason.name(),
                totals.stdout,
                totals.stderr,
                totals.left_out
            ),
        ),
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes all");
}

/// `2006-01-02T15:04:05.000000000Z`.
struct Nanos(u64);

impl std::fmt::Display for Nanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = Rfc3339::at_ms(self.0 / 1_000_000);
        write!(f, "{}{:06}Z", millis.as_str().trim_end_matches('Z'), self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Reason, Totals};
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-01T00:00:00.123456789Z
    const AT: u64 = 1_767_225_600_123_456_789;

    fn data(source: Source, flags: u8, bytes: &[u8]) -> Vec<u8> {
        let header = Header { source, flags, at_ns: AT, len: bytes.len() as u32 };
        [&header.encode()[..], bytes].concat()
    }

    fn framed() -> Vec<u8> {
        [
            Word::SoFar(Totals::default()).frame(AT),
            data(Source::Stdout, 0, b"one\ntw"),
            data(Source::Stderr, 0, b"err\xff\n"),
            vec![0; 9],
            data(Source::Stdout, 0, b"o\nthree"),
            data(Source::Stderr, END, b""),
            data(Source::Stdout, END, b""),
            Word::End(Totals { stdout: 13, stderr: 5, left_out: 0 }, Reason::Closed).frame(AT),
        ]
        .concat()
    }

    fn seen(form: Form, only: Option<Source>, framed: &[u8], step: usize, is_over: bool) -> Vec<u8> {
        let (mut view, mut out) = (View::new(form, only), Vec::new());
        for part in framed.chunks(step) {
            view.take(part, &mut out).expect("frames");
        }
        view.finish(is_over, &mut out);
        out
    }

    #[test]
    fn raw_and_docker_have_every_byte() {
        assert_eq!(seen(Form::Raw, None, &framed(), 1000, true), b"one\ntwerr\xff\no\nthree");
        assert_eq!(seen(Form::Raw, Some(Source::Stderr), &framed(), 3, true), b"err\xff\n");
        assert_eq!(
            seen(Form::Docker, None, &framed(), 1000, true),
            b"\x01\0\0\0\0\0\0\x06one\ntw\x02\0\0\0\0\0\0\x05err\xff\n\x01\0\0\0\0\0\0\x07o\nthree"
        );
    }

    #[test]
    fn cri_has_a_line_for_each() {
        let time = "2026-01-01T00:00:00.123456789Z";
        let lines = format!(
            "{time} stdout F one\n{time} stderr F err\u{1}\n{time} stdout F two\n{time} stdout F three\n"
        );
        let expected: Vec<u8> = lines.bytes().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
        for step in [1, 7, 1000] {
            let seen = seen(Form::Cri, None, &framed(), step, true);
            assert_eq!(seen, expected, "{}", seen.escape_ascii());
        }
    }

    #[test]
    fn json_has_lines_and_the_end() {
        let lines = String::from_utf8(seen(Form::Json, None, &framed(), 11, true)).expect("text");
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let logs: Vec<_> =
            lines[..4].iter().map(|line| (line["stream"].as_str(), line["log"].as_str())).collect();
        let expected =
            [("stdout", "one\n"), ("stderr", "err\u{fffd}\n"), ("stdout", "two\n"), ("stdout", "three")];
        assert_eq!(logs, expected.map(|(stream, log)| (Some(stream), Some(log))));
        let end = &lines[4]["end"];
        assert_eq!(
            (end["reason"].as_str(), end["stdout"].as_u64(), end["stderr"].as_u64()),
            (Some("closed"), Some(13), Some(5))
        );
        let cut = data(Source::Stdout, 0, b"one\n");
        let seen = |is_over| String::from_utf8(seen(Form::Json, None, &cut, 5, is_over)).expect("text");
        assert!(seen(true).ends_with("{\"end\":{\"reason\":\"interrupted\"}}\n"));
        assert_eq!(seen(false).lines().count(), 1);
    }

    /// Catches a line that is held without bound, and a piece of one that looks whole.
    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let long = vec![b'x'; LINE_MAX];
        let framed = [data(Source::Stdout, 0, &long), data(Source::Stdout, 0, b"y\nz\n")].concat();
        let seen = String::from_utf8(seen(Form::Cri, None, &framed, 1000, true)).expect("text");
        let tags: Vec<(&str, usize)> = seen
            .lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ');
                (parts.nth(2).expect("a tag"), parts.next().expect("text").len())
            })
            .collect();
        assert_eq!(tags, [("P", LINE_MAX), ("F", 1), ("F", 1)]);
    }

    proptest! {
        /// The lines of a stream, put together again, are its bytes, however its frames and the input are cut.
        #[test]
        fn lines_are_the_bytes(
            parts in proptest::collection::vec("[a\n]{0,20}", 0..10),
            step in 1..50usize,
        ) {
            let framed: Vec<u8> = parts.iter().flat_map(|part| data(Source::Stdout, 0, part.as_bytes())).collect();
            let text: String = parts.concat();
            let json = String::from_utf8(seen(Form::Json, None, &framed, step, false)).expect("text");
            let logs: Vec<String> = json
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["log"].as_str().expect("text").to_owned())
                .collect();
            prop_assert_eq!(logs.concat(), text.clone());
            prop_assert!(logs.iter().all(|log| log.trim_end_matches('\n').lines().count() <= 1));
            let cri = String::from_utf8(seen(Form::Cri, None, &framed, step, false)).expect("text");
            prop_assert_eq!(cri.lines().count(), text.lines().count());
        }
    }
}

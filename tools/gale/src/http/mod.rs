//! `gale http`: requests over kept-alive connections, and every answer looked at.
//!
//! Invariant: an answer is counted as right only if its status, its framing and its body passed the checks; a head
//! that is equal to the last one byte by byte means the same, so it is not parsed again.

pub mod answer;
pub mod chunked;
pub mod judge;
pub mod request;

use std::{ops::RangeInclusive, os::fd::OwnedFd};

use crate::{
    cli::{HttpArgs, Load},
    net::Target,
    report::Report,
    rpc::{self, Heard, Protocol},
    tally::{Faults, Kind},
};
use answer::{Framing, Head, Step};
use chunked::Chunked;
use judge::{Judge, Progress};
use request::Requests;

/// Runs the mode.
pub fn run(load: &Load, args: &HttpArgs, plan: &Http) -> Result<Report, String> {
    let outcome = rpc::run(load, plan, args.pattern(), |plan, lane| plan.lane(load, lane))?;
    let mut report = Report::new("http", &args.url, load, outcome);
    report.say("connections", args.connections);
    report.say("pipeline", args.pipeline);
    report.say("rate", args.rate.map_or("as fast as answered".into(), |rate| format!("{rate}/s")));
    report.say("request", plan.requests.describe());
    report.checked = format!("status {}; {}", plan.statuses_text, plan.judge.describe());
    Ok(report)
}

/// What is asked and what is expected.
#[derive(Clone)]
pub struct Http {
    /// Where.
    pub target: Target,
    /// What.
    pub requests: Requests,
    /// Which statuses are right.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// The same in words.
    pub statuses_text: String,
    /// Which bodies are right.
    pub judge: Judge,
    /// Whether bodies of which only the length matters are dropped in the kernel.
    pub discards: bool,
    known: Known,
}

/// The last head that was right, and what follows it.
#[derive(Clone, Default)]
struct Known {
    head: Vec<u8>,
    body: usize,
}

/// Bodies above this are not waited for as a whole.
const WHOLE_MAX: u64 = 64 << 10;

/// One connection.
pub struct Link {
    number: usize,
    answers: u64,
    body: Option<Body>,
}

struct Body {
    rest: Rest,
    progress: Progress,
    keeps_alive: bool,
    /// Whether its status was the right one; the body of another is not judged.
    is_expected: bool,
}

enum Rest {
    Length(u64),
    Chunked(Box<Chunked>),
    Close,
}

impl Http {
    /// What a thread has of its own.
    fn lane(mut self, load: &Load, lane: usize) -> Self {
        self.requests = self.requests.lane(load.seed, lane, load.threads);
        self
    }

    /// From its parts.
    pub fn new(
        target: Target,
        requests: Requests,
        (statuses, statuses_text): (Vec<RangeInclusive<u16>>, String),
        judge: Judge,
        discards: bool,
    ) -> Self {
        Self { target, requests, statuses, statuses_text, judge, discards, known: Known::default() }
    }

    /// As many answers as lie here whole and begin with the head we know.
    fn hear_known(&self, link: &mut Link, input: &[u8], heard: &mut Heard) {
        let Known { head, body } = &self.known;
        let len = head.len() + body;
        while let Some(answer) = input.get(heard.used..heard.used + len) {
            if head.is_empty() || !answer.starts_with(head) || !self.judge.is_right(&answer[head.len()..]) {
                return;
            }
            heard.used += len;
            heard.answers += 1;
            heard.payload += *body as u64 + self.requests.body_copied;
            link.answers += 1;
        }
    }

    fn begin(&mut self, link: &mut Link, head: Head, bytes: &[u8], faults: &mut Faults) {
        if (100..200).contains(&head.status) && head.status != 101 {
            return;
        }
        let is_expected = self.statuses.iter().any(|range| range.contains(&head.status));
        let whose = || format!("answer {} of connection {}", link.answers, link.number);
        if !is_expected {
            faults
                .note(Kind::Status(head.status), || format!("{}: {} {}", whose(), head.status, head.reason));
        } else if self.requests.is_head {
            self.judge.told(head.length, faults, whose);
        }
        if let Framing::Length(length @ 0..=WHOLE_MAX) = head.framing
            && is_expected
            && head.keeps_alive
            && !self.requests.is_head
        {
            self.known.head.clear();
            self.known.head.extend_from_slice(bytes);
            self.known.body = length as usize;
        }
        let rest = match head.framing {
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Box::default()),
            Framing::Close => Rest::Close,
        };
        let keeps_alive = head.keeps_alive;
        link.body = Some(Body { rest, progress: self.judge.begin(), keeps_alive, is_expected });
    }

    /// Takes what belongs to the body; whether that was its end.
    fn feed(&self, body: &mut Body, input: &[u8], heard: &mut Heard) -> Result<bool, String> {
        let rest = &input[heard.used..];
        let (used, data, done) = match &mut body.rest {
            Rest::Length(left) => {
                let len = (*left).min(rest.len() as u64) as usize;
                *left -= len as u64;
                (len, 0..len, *left == 0)
            }
            Rest::Chunked(chunked) => {
                let piece = chunked.step(rest)?;
                (piece.used, piece.data, piece.done)
            }
            Rest::Close => (rest.len(), 0..rest.len(), false),
        };
        heard.used += used;
        heard.payload += data.len() as u64;
        if body.is_expected && !data.is_empty() {
            self.judge.feed(&mut body.progress, &rest[data]);
        }
        Ok(done)
    }

    fn end(&mut self, link: &mut Link, mut body: Body, heard: &mut Heard, faults: &mut Faults) {
        if body.is_expected && !self.requests.is_head {
            let whose = || format!("answer {} of connection {}", link.answers, link.number);
            self.judge.end(&mut body.progress, faults, whose);
        }
        link.answers += 1;
        heard.answers += 1;
        heard.payload += self.requests.body_copied;
        heard.over |= !body.keeps_alive;
    }
}

impl Protocol for Http {
    type Link = Link;

    fn connect(&mut self, number: usize) -> Result<(OwnedFd, Link), String> {
        Ok((self.target.connect()?, Link { number, answers: 0, body: None }))
    }

    fn ask(&mut self, _link: &mut Link, out: &mut Vec<u8>) {
        self.requests.next(out);
    }

    fn body(&self, _link: &Link) -> &[u8] {
        &self.requests.body_apart
    }

    fn hear(&mut self, link: &mut Link, input: &[u8], faults: &mut Faults) -> Heard {
        let mut heard = Heard::default();
        while !heard.over {
            let step = match link.body.take() {
                Some(mut body) => match self.feed(&mut body, input, &mut heard) {
                    Ok(true) => {
                        self.end(link, body, &mut heard, faults);
                        continue;
                    }
                    Ok(false) if heard.used == input.len() => {
                        link.body = Some(body);
                        return heard;
                    }
                    Ok(false) => {
                        link.body = Some(body);
                        continue;
                    }
                    Err(why) => Step::Malformed(why),
                },
                None => {
                    self.hear_known(link, input, &mut heard);
                    if heard.used == input.len() {
                        return heard;
                    }
                    answer::head(&input[heard.used..], self.requests.is_head)
                }
            };
            match step {
                Step::More => return heard,
                Step::Head(head) => {
                    let bytes = &input[heard.used..heard.used + head.len];
                    heard.used += head.len;
                    self.begin(link, head, bytes, faults);
                }
                Step::Malformed(why) => {
                    let Link { number, answers, .. } = link;
                    faults
                        .note(Kind::Malformed, || format!("answer {answers} of connection {number}: {why}"));
                    heard.over = true;
                }
            }
        }
        heard
    }

    fn droppable(&self, link: &Link) -> u64 {
        match link.body.as_ref().map(|body| &body.rest) {
            Some(Rest::Length(left)) if self.discards && self.judge.only_counts() => *left,
            _ => 0,
        }
    }

    fn dropped(&mut self, link: &mut Link, bytes: u64, faults: &mut Faults) -> Heard {
        let mut heard = Heard { payload: bytes, ..Heard::default() };
        if let Some(mut body) = link.body.take() {
            body.progress.seen += bytes;
            match &mut body.rest {
                Rest::Length(left) if *left > bytes => *left -= bytes,
                _ => {
                    self.end(link, body, &mut heard, faults);
                    return heard;
                }
            }
            link.body = Some(body);
        }
        heard
    }

    fn ended(&mut self, link: &mut Link, faults: &mut Faults) -> Heard {
        let mut heard = Heard::default();
        match link.body.take() {
            Some(body) if matches!(body.rest, Rest::Close) => self.end(link, body, &mut heard, faults),
            // What is missing is noted where the requests under way are known.
            _ => {}
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::{judge::*, *};
    use crate::cli::{Args, Command};
    use clap::Parser;

    fn http(words: &str) -> Http {
        let line = format!("gale http http://127.0.0.1:1/x --connections 1 {words}");
        let args = Args::try_parse_from(line.split(' ').filter(|word| !word.is_empty())).expect("good words");
        let Command::Http { load, args } = args.command else { panic!("http") };
        args.plan(&load).expect("a plan")
    }

    /// The answers and faults in what comes in these pieces; the connection ends behind them if `ends`.
    fn hear(http: &mut Http, pieces: &[&[u8]], ends: bool) -> (u32, Vec<String>) {
        let (mut link, mut faults) = (Link { number: 0, answers: 0, body: None }, Faults::default());
        let (mut held, mut answers) = (Vec::new(), 0);
        for piece in pieces {
            held.extend_from_slice(piece);
            let heard = http.hear(&mut link, &held, &mut faults);
            held.drain(..heard.used);
            answers += heard.answers;
        }
        if ends {
            answers += http.ended(&mut link, &mut faults).answers;
        }
        (answers, faults.iter().map(|(kind, count, _)| format!("{count} {kind}")).collect())
    }

    const ANSWERS: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello";

    #[test]
    fn answers_are_understood_at_every_split() {
        for words in ["", "--check crc32", "--expect-length 5", "--expect-status 200"] {
            for split in 0..ANSWERS.len() {
                let heard = hear(&mut http(words), &[&ANSWERS[..split], &ANSWERS[split..]], false);
                assert_eq!(heard, (4, vec![]), "{words:?} split at {split}");
            }
            let bytes: Vec<&[u8]> = ANSWERS.chunks(1).collect();
            assert_eq!(hear(&mut http(words), &bytes, false), (4, vec![]));
        }
    }

    #[test]
    fn a_wrong_answer_among_right_ones_is_found_at_every_split() {
        let right = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..];
        for (wrong, words, fault) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO"[..], "--check crc32", "1 bytes"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", "--expect-length 5", "1 length"),
            (b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\n\r\nhello", "--expect-status 200", "1 status 206"),
            (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "", "1 status 500"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n0\r\n\r\n",
                "--expect-length 5",
                "1 length",
            ),
        ] {
            let all = [right, right, wrong, right].concat();
            for split in 0..all.len() {
                let heard = hear(&mut http(words), &[&all[..split], &all[split..]], false);
                assert_eq!(heard, (4, vec![fault.to_owned()]), "{words} split at {split}");
            }
        }
    }

    #[test]
    fn the_end_of_a_connection_ends_only_a_body_that_says_so() {
        let until_close = b"HTTP/1.1 200 OK\r\n\r\nhello";
        assert_eq!(hear(&mut http("--expect-length 5"), &[until_close], true), (1, vec![]));
        assert_eq!(hear(&mut http("--expect-length 6"), &[until_close], true), (1, vec!["1 length".into()]));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello";
        assert_eq!(hear(&mut http(""), &[cut], true), (0, vec![]));
    }

    #[test]
    fn an_answer_to_head_has_a_length_and_no_body() {
        let answers =
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
        assert_eq!(hear(&mut http("--method HEAD"), &[answers], false), (2, vec![]));
        let (count, faults) = hear(&mut http("--method HEAD --expect-length 5"), &[answers], false);
        assert_eq!((count, faults), (2, vec!["1 length".to_owned()]));
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        let (count, faults) = hear(&mut http(""), &[b"SSH-2.0-x\r\n"], false);
        assert_eq!((count, faults), (0, vec!["1 malformed".to_owned()]));
        let level = http("--check crc32").judge;
        assert!(!level.only_counts() && Judge::new(Level::Length, None, Content::Unknown).only_counts());
    }
}

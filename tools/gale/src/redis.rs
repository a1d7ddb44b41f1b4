//! `gale redis`: records into the streams of a Redis server, in its own protocol and nothing more of it than XADD
//! needs.
//!
//! Invariant: a record counts when the server has answered with an id above those before it, and in the end the server
//! has as many records as it has answered.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    cli::{Load, peers::XaddArgs},
    net::Target,
    report::{Report, Words},
    rpc::{self, Heard, Pattern, Protocol},
    stamp::{Stamp, Stamps},
    tally::{Faults, Kind},
};

/// What is to be done.
pub struct Plan {
    xadd: Xadd,
    pattern: Pattern,
}

impl XaddArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Plan, String> {
        if self.name.is_empty() || self.name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("--name {:?}: write a name without spaces", self.name));
        }
        let stamps = Stamps::new(load.seed, self.record_size as usize)?;
        let xadd = Xadd {
            target: Target::new(&self.address, &load.congestion)?,
            name: self.name.clone(),
            stamps: Arc::new(stamps),
            answered: Arc::default(),
        };
        Ok(Plan { xadd, pattern: self.spread.pattern(load, self.producers, self.pipeline)? })
    }
}

/// Runs the mode.
pub fn run(load: &Load, args: &XaddArgs, plan: &Plan) -> Result<Report, String> {
    let Plan { xadd, pattern } = plan;
    let mut console = Console::open(&xadd.target)?;
    for producer in 0..args.producers {
        console.ask(&["DEL", &xadd.stream(producer as usize)])?;
    }
    let setting =
        |console: &mut Console, name| console.ask(&["CONFIG", "GET", name]).map(|both| both.join(" "));
    let server = [setting(&mut console, "appendonly")?, setting(&mut console, "appendfsync")?].join(", ");
    let mut outcome = rpc::run(load, xadd, *pattern, |xadd, _| xadd)?;
    let mut kept = 0;
    for producer in 0..args.producers {
        let count = console.ask(&["XLEN", &xadd.stream(producer as usize)])?.concat();
        kept += count.parse::<u64>().map_err(|_| format!("XLEN: {count:?} is no number"))?;
    }
    let answered = xadd.answered.load(Ordering::Relaxed);
    if kept != answered && outcome.tally.faults.total() == 0 {
        outcome
            .tally
            .faults
            .note(Kind::Gap, || format!("{answered} records were answered, and XLEN tells {kept}"));
    }
    let mut report = Report::new("redis xadd", &args.address, load, outcome);
    report.say("producers", args.producers);
    report.say("pipeline", args.pipeline);
    report.say("record", format!("{} B", args.record_size));
    report.say("server", server);
    report.words = Words {
        operations: "records, answered with their ids",
        latency: "from sending a record to its answer",
    };
    report.checked = "every id above the one before it; as many records kept as answered, by XLEN".into();
    Ok(report)
}

#[derive(Clone)]
struct Xadd {
    target: Target,
    name: String,
    stamps: Arc<Stamps>,
    answered: Arc<AtomicU64>,
}

/// A producer's connection.
struct Link {
    number: usize,
    /// What comes before every record.
    head: Vec<u8>,
    made: u64,
    /// The last id.
    last: (u64, u64),
}

impl Xadd {
    fn stream(&self, producer: usize) -> String {
        format!("{}-{producer}", self.name)
    }
}

impl Protocol for Xadd {
    type Link = Link;

    fn connect(&mut self, number: usize) -> Result<(OwnedFd, Link), String> {
        let (name, size) = (self.stream(number), self.stamps.size());
        let head =
            format!("*5\r\n$4\r\nXADD\r\n${}\r\n{name}\r\n$1\r\n*\r\n$1\r\nr\r\n${size}\r\n", name.len());
        Ok((self.target.connect()?, Link { number, head: head.into_bytes(), made: 0, last: (0, 0) }))
    }

    fn ask(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        let stamp = Stamp { sequence: link.made, due: 0, late: 0, producer: link.number as u32 };
        link.made += 1;
        out.extend_from_slice(&link.head);
        self.stamps.write(out, stamp);
        out.extend_from_slice(b"\r\n");
    }

    fn hear(&mut self, link: &mut Link, input: &[u8], faults: &mut Faults) -> Heard {
        let mut heard = Heard::default();
        let number = link.number;
        while let Some(reply) = reply(&input[heard.used..]) {
            match reply {
                Ok((Reply::Text(id), used)) => {
                    let text = String::from_utf8_lossy(id);
                    match text.split_once('-').and_then(|(ms, n)| Some((ms.parse().ok()?, n.parse().ok()?))) {
                        Some(id) if id > link.last => link.last = id,
                        Some(_) => faults.note(Kind::Duplicate, || {
                            format!("producer {number}: id {text} after {}-{}", link.last.0, link.last.1)
                        }),
                        None => faults.note(Kind::Malformed, || format!("producer {number}: id {text:?}")),
                    }
                    heard.payload += self.stamps.size() as u64;
                    heard.used += used;
                }
                Ok((Reply::Error(why), used)) => {
                    let why = String::from_utf8_lossy(why);
                    faults.note(Kind::Refused, || format!("producer {number}: {why}"));
                    heard.used += used;
                }
                Err(why) => {
                    faults.note(Kind::Malformed, || format!("producer {number}: {why}"));
                    heard.over = true;
                    break;
                }
            }
            heard.answers += 1;
        }
        self.answered.fetch_add(u64::from(heard.answers), Ordering::Relaxed);
        heard
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Reply<'a> {
    Text(&'a [u8]),
    Error(&'a [u8]),
}

/// The reply at the beginning of `input`, if it is all there, and its length.
fn reply(input: &[u8]) -> Option<Result<(Reply<'_>, usize), String>> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let line = input[..end].trim_ascii_end();
    match line.split_first() {
        Some((b'-', why)) => Some(Ok((Reply::Error(why), end + 1))),
        Some((b'$', len)) => {
            let len = std::str::from_utf8(len).ok().and_then(|len| len.parse::<usize>().ok());
            let Some(len) = len.filter(|len| *len < 1 << 20) else {
                return Some(Err(format!("a text of length \"{}\"", line.escape_ascii())));
            };
            let text = input.get(end + 1..end + 1 + len + 2)?;
            Some(Ok((Reply::Text(&text[..len]), end + 1 + len + 2)))
        }
        _ => Some(Err(format!("a reply that begins \"{}\"", line.escape_ascii()))),
    }
}

/// A connection for single questions, which waits for each answer.
struct Console {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Console {
    fn open(target: &Target) -> Result<Self, String> {
        let stream = target.connect_blocking()?;
        stream.set_read_timeout(Some(crate::net::GREETING)).map_err(|why| why.to_string())?;
        let lines = BufReader::new(stream.try_clone().map_err(|why| why.to_string())?);
        Ok(Self { stream, lines })
    }

    /// The values of the answer, one if it is no list.
    fn ask(&mut self, words: &[&str]) -> Result<Vec<String>, String> {
        let named = |why: &dyn std::fmt::Display| format!("redis {}: {why}", words.join(" "));
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
        self.stream.write_all(request.as_bytes()).map_err(|why| named(&why))?;
        let mut values = Vec::new();
        let mut left = 1;
        while left > 0 {
            let mut line = String::new();
            self.lines.read_line(&mut line).map_err(|why| named(&why))?;
            let line = line.trim_end();
            left -= 1;
            match line.split_at_checked(1) {
                Some(("*", count)) => left += count.parse::<usize>().map_err(|why| named(&why))?,
                Some(("$", _)) => {
                    let mut text = String::new();
                    self.lines.read_line(&mut text).map_err(|why| named(&why))?;
                    values.push(text.trim_end().to_owned());
                }
                Some((":" | "+", value)) => values.push(value.to_owned()),
                _ => return Err(named(&format!("{line:?}"))),
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_whole_or_not_at_all() {
        let text = b"$15\r\n1700000000000-1\r\n-ERR no\r\n";
        let first = &text[..22];
        for len in 0..first.len() {
            assert_eq!(reply(&first[..len]), None, "{len} bytes");
        }
        assert_eq!(reply(text), Some(Ok((Reply::Text(b"1700000000000-1"), 22))));
        assert_eq!(reply(&text[22..]), Some(Ok((Reply::Error(b"ERR no"), 9))));
        assert!(matches!(reply(b"+OK\r\n"), Some(Err(_))));
        assert!(matches!(reply(b"$-1\r\n"), Some(Err(_))));
    }
}

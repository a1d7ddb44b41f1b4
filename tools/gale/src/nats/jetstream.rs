//! `gale nats jetstream`: records into a JetStream, each acknowledged to an inbox of its producer.
//!
//! Invariant: a record counts when it was acknowledged without an error, in the order of sending, and in the end the
//! stream has as many messages as were acknowledged.

use std::{
    io::Read,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};

use super::{Greeted, Line, line};
use crate::{
    cli::{
        Load,
        peers::{JetstreamArgs, Storage},
    },
    http::request::decimal,
    net::Target,
    report::{Report, Words},
    rpc::{self, Heard, Pattern, Protocol},
    stamp::{Stamp, Stamps},
    tally::{Faults, Kind},
};

/// The name of the stream. What is called so is deleted before.
const STREAM: &str = "GALE";
const SUBJECT: &str = "galejs";

/// What is to be done.
pub struct Plan {
    publish: Publish,
    pattern: Pattern,
}

impl JetstreamArgs {
    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Plan, String> {
        let publish = Publish {
            target: Target::new(&self.address, &load.congestion)?,
            stamps: Arc::new(Stamps::new(load.seed, self.record_size as usize)?),
            answered: Arc::default(),
        };
        Ok(Plan { publish, pattern: self.spread.pattern(load, self.producers, self.window)? })
    }
}

/// Runs the mode.
pub fn run(load: &Load, args: &JetstreamArgs, plan: &Plan) -> Result<Report, String> {
    let Plan { publish, pattern } = plan;
    let storage = match args.storage {
        Storage::File => "file",
        Storage::Memory => "memory",
    };
    let mut console = Console::open(&publish.target)?;
    // Whether there was one does not matter.
    _ = console.ask("DELETE", &json!(null))?;
    let subjects = [format!("{SUBJECT}.*")];
    let made = console.ask("CREATE", &json!({"name": STREAM, "subjects": subjects, "storage": storage}))?;
    if let Some(error) = made.get("error") {
        return Err(format!("the server makes no stream: {error}"));
    }
    let mut outcome = rpc::run(load, publish, *pattern, |publish, _| publish)?;
    let info = console.ask("INFO", &json!(null))?;
    let (kept, answered) = (info["state"]["messages"].as_u64(), publish.answered.load(Ordering::Relaxed));
    if kept != Some(answered) && outcome.tally.faults.total() == 0 {
        let kept = kept.map_or("nothing".into(), |kept| kept.to_string());
        outcome.tally.faults.note(Kind::Gap, || {
            format!("{answered} records were acknowledged, and the stream says it has {kept}")
        });
    }
    let mut report = Report::new("nats jetstream", &args.address, load, outcome);
    report.say("producers", args.producers);
    report.say("window", args.window);
    report.say("record", format!("{} B", args.record_size));
    report.say("storage", storage);
    report.words = Words {
        operations: "records, acknowledged by the stream",
        latency: "from sending a record to its acknowledgement",
    };
    report.checked = "every acknowledgement in order; as many messages kept as acknowledged".into();
    Ok(report)
}

#[derive(Clone)]
struct Publish {
    target: Target,
    stamps: Arc<Stamps>,
    answered: Arc<AtomicU64>,
}

/// A producer's connection.
struct Link {
    number: usize,
    /// `PUB`, the subject and the inbox up to the number of the record.
    head: Vec<u8>,
    /// What follows the number.
    size: Vec<u8>,
    made: u64,
    acknowledged: u64,
}

impl Protocol for Publish {
    type Link = Link;

    fn connect(&mut self, number: usize) -> Result<(OwnedFd, Link), String> {
        // An inbox is ours alone: what was asked on an earlier connection is not answered on this one.
        let unique = crate::clock::now();
        let inbox = format!("_INBOX.gale{unique}.{number}");
        let socket = Greeted::new(&self.target, &[&format!("{inbox}.*")])?.socket()?;
        let head = format!("PUB {SUBJECT}.{number} {inbox}.").into_bytes();
        let size = format!(" {}\r\n", self.stamps.size()).into_bytes();
        Ok((socket, Link { number, head, size, made: 0, acknowledged: 0 }))
    }

    fn ask(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        let stamp = Stamp { sequence: link.made, due: 0, late: 0, producer: link.number as u32 };
        out.extend_from_slice(&link.head);
        out.extend_from_slice(decimal(link.made, &mut [0; 20]));
        out.extend_from_slice(&link.size);
        self.stamps.write(out, stamp);
        out.extend_from_slice(b"\r\n");
        link.made += 1;
    }

    fn hear(&mut self, link: &mut Link, input: &[u8], faults: &mut Faults) -> Heard {
        let mut heard = Heard::default();
        loop {
            match message(&input[heard.used..]) {
                Ok(None) => break,
                Ok(Some((None, used))) => heard.used += used,
                Ok(Some((Some((subject, content)), used))) => {
                    heard.used += used;
                    heard.answers += 1;
                    heard.payload += self.stamps.size() as u64;
                    judge(link, subject, content, faults);
                }
                Err((kind, why)) => {
                    faults.note(kind, || format!("producer {}: {why}", link.number));
                    heard.over = true;
                    break;
                }
            }
        }
        self.answered.fetch_add(u64::from(heard.answers), Ordering::Relaxed);
        heard
    }
}

/// A message with its subject and content, or another line, and the length of either.
type Whole<'a> = Option<(Option<(&'a str, &'a [u8])>, usize)>;

fn message(input: &[u8]) -> Result<Whole<'_>, (Kind, String)> {
    let Some((line, used)) = line(input)? else { return Ok(None) };
    match line {
        Line::Message { subject, len } => {
            let content = input.get(used..used + len + 2);
            Ok(content.map(|content| (Some((subject, &content[..len])), used + len + 2)))
        }
        Line::Error(why) => Err((Kind::Refused, why.into())),
        // The server asks whether we live every two minutes, and ends us when we miss two of them.
        Line::Ping | Line::Pong | Line::Other => Ok(Some((None, used))),
    }
}

/// An acknowledgement is short and always alike: `{"stream":"GALE","seq":7}`.
fn judge(link: &mut Link, subject: &str, content: &[u8], faults: &mut Faults) {
    let (number, expected) = (link.number, link.acknowledged);
    link.acknowledged += 1;
    let told = subject.rsplit_once('.').and_then(|(_, told)| told.parse::<u64>().ok());
    if told != Some(expected) {
        let kind = if told.is_some_and(|told| told < expected) { Kind::Duplicate } else { Kind::Gap };
        faults.note(kind, || format!("producer {number}: {subject} where number {expected} was next"));
    }
    let is_right =
        content.starts_with(b"{\"stream\":\"GALE\"") && !content.windows(9).any(|w| w == b"duplicate");
    if !is_right {
        faults.note(Kind::Refused, || format!("producer {number}: {}", String::from_utf8_lossy(content)));
    }
}

/// A connection for single questions about the stream.
struct Console(Greeted);

const ANSWERS: &str = "_INBOX.galeconsole";

impl Console {
    fn open(target: &Target) -> Result<Self, String> {
        Greeted::new(target, &[ANSWERS]).map(Self)
    }

    fn ask(&mut self, what: &str, with: &Value) -> Result<Value, String> {
        let with = if with.is_null() { String::new() } else { with.to_string() };
        self.0.say(&format!("PUB $JS.API.STREAM.{what}.{STREAM} {ANSWERS} {}\r\n{with}\r\n", with.len()))?;
        loop {
            let text = self.0.next()? + "\n";
            match line(text.as_bytes()) {
                Ok(Some((Line::Message { len, .. }, _))) => {
                    let mut content = vec![0; len + 2];
                    self.0
                        .lines
                        .read_exact(&mut content)
                        .map_err(|why| format!("from the NATS server: {why}"))?;
                    if len == 0 {
                        return Err("the NATS server has no JetStream: start it with -js".into());
                    }
                    return serde_json::from_slice(&content[..len]).map_err(|why| why.to_string());
                }
                Ok(Some((Line::Ping, _))) => self.0.say("PONG\r\n")?,
                Ok(Some((Line::Error(why), _))) => return Err(format!("the NATS server says {why}")),
                Ok(_) => {}
                Err((_, why)) => return Err(format!("from the NATS server: {why}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(subject: &str, content: &str) -> Vec<Kind> {
        let (head, size) = (Vec::new(), Vec::new());
        let mut link = Link { number: 0, head, size, made: 9, acknowledged: 7 };
        let mut faults = Faults::default();
        judge(&mut link, subject, content.as_bytes(), &mut faults);
        faults.iter().map(|(kind, ..)| kind).collect()
    }

    #[test]
    fn an_acknowledgement_is_in_order_and_of_our_stream() {
        let right = r#"{"stream":"GALE","seq":70}"#;
        assert_eq!(faults("_INBOX.x.0.7", right), []);
        assert_eq!(faults("_INBOX.x.0.6", right), [Kind::Duplicate]);
        assert_eq!(faults("_INBOX.x.0.8", right), [Kind::Gap]);
        assert_eq!(faults("_INBOX.x.0.7", r#"{"error":{"code":503}}"#), [Kind::Refused]);
        assert_eq!(faults("_INBOX.x.0.7", r#"{"stream":"GALE","seq":7,"duplicate":true}"#), [Kind::Refused]);
    }

    #[test]
    fn a_message_comes_whole_or_not_at_all() {
        let text = b"MSG _INBOX.x.0.7 1 5\r\nhello\r\nPING\r\n";
        for len in 0..29 {
            assert_eq!(message(&text[..len]), Ok(None), "{len} bytes");
        }
        assert_eq!(message(text), Ok(Some((Some(("_INBOX.x.0.7", &b"hello"[..])), 29))));
        assert_eq!(message(&text[29..]), Ok(Some((None, 6))));
    }
}

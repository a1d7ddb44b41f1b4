//! The words of `gale http`.
//!
//! Invariant: what contradicts itself is refused before anything is sent, with the words that would be accepted.

use std::{fs, ops::RangeInclusive, path::PathBuf, sync::Arc};

use clap::{Parser, ValueEnum};

use super::{Load, split_url};
use crate::{
    chance::{Chance, Zipf},
    http::{
        Http,
        judge::{self, Content, Judge, Level},
        request::{Keys, Requests, seeded_body},
    },
    net::Target,
    rpc::Pattern,
    units,
};

/// The requests of `gale http`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Requests")]
pub struct HttpArgs {
    /// http://host:port/path, where {key} stands for a key
    pub url: String,
    /// Connections of all threads together
    #[arg(long, value_name = "N", default_value = "64", value_parser = units::count)]
    pub connections: u64,
    /// Requests under way on each connection
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub pipeline: u32,
    /// Requests a second, each measured from the time it was due; without it, as fast as answers come
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub rate: Option<u64>,
    /// How many keys there are
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub keys: Option<u64>,
    /// How keys are chosen
    #[arg(long, value_enum, default_value = "uniform")]
    pub key_order: KeyOrder,
    /// The exponent for zipf, between 0 and 1
    #[arg(long, value_name = "X", default_value = "0.99")]
    pub zipf_exponent: f64,
    /// The method
    #[arg(long, value_enum, default_value = "GET", ignore_case = true)]
    pub method: Method,
    /// A body of so many seeded bytes
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub body_size: Option<u64>,
    /// The body
    #[arg(long, value_name = "FILE", conflicts_with = "body_size")]
    pub body_file: Option<PathBuf>,
    /// A field of the head, 'Name: value'; may be repeated
    #[arg(long, value_name = "FIELD")]
    pub header: Vec<String>,
    /// Statuses that are right: 200 or 2xx or 200-204; may be repeated [default: 2xx]
    #[arg(long, value_name = "STATUS", value_parser = statuses)]
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// The length of every body
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub expect_length: Option<u64>,
    /// The SHA-256 of every body
    #[arg(long, value_name = "HEX", group = "content", value_parser = judge::sha256)]
    pub expect_sha256: Option<[u8; 32]>,
    /// The bytes of every body
    #[arg(long, value_name = "FILE", group = "content")]
    pub expect_body: Option<PathBuf>,
    /// Every body is what --body-size with the same --seed sends
    #[arg(long, value_name = "SIZE", group = "content", value_parser = units::size)]
    pub expect_seeded: Option<u64>,
    /// How closely bodies are looked at [default: crc32 if their content is known, else length]
    #[arg(long, value_enum)]
    pub check: Option<Level>,
    /// Let the kernel drop bodies of which only the length matters
    #[arg(long)]
    pub discard: bool,
}

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum KeyOrder {
    /// Each as often as the others
    Uniform,
    /// Low ones more often
    Zipf,
    /// One after the other
    Sequence,
}

/// The methods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

impl KeyOrder {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KeyOrder::Uniform => "uniform",
            KeyOrder::Zipf => "zipf",
            KeyOrder::Sequence => "in sequence",
        }
    }
}

impl Method {
    fn text(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

/// The requests alone, as another mode words them.
#[derive(Debug, Parser)]
struct Alone {
    #[command(flatten)]
    args: HttpArgs,
}

impl HttpArgs {
    /// What these words mean.
    pub fn of(words: &[&str]) -> Result<Self, String> {
        let alone = Alone::try_parse_from(["gale"].iter().chain(words));
        alone.map(|alone| alone.args).map_err(|why| why.to_string())
    }

    /// How requests are spread over time and connections.
    pub fn pattern(&self) -> Pattern {
        Pattern { connections: self.connections, depth: self.pipeline, rate: self.rate }
    }

    /// What is to be done, or what is wrong with it.
    pub fn plan(&self, load: &Load) -> Result<Http, String> {
        let (address, path) = split_url(&self.url)?;
        let target = Target::new(&address, &load.congestion)?;
        if self.connections < load.threads as u64 {
            return Err(format!("{} connections are too few for {} threads", self.connections, load.threads));
        }
        let judge = self.judge(load)?;
        if self.discard && !judge.only_counts() {
            return Err("--discard goes only with --check length".into());
        }
        Ok(Http::new(target, self.requests(load, &address, &path)?, self.statuses(), judge, self.discard))
    }

    fn requests(&self, load: &Load, address: &str, path: &str) -> Result<Requests, String> {
        let body = match (self.body_size, &self.body_file) {
            (Some(size), _) => seeded_body(load.seed, size as usize),
            (_, Some(file)) => fs::read(file).map_err(|why| format!("{}: {why}", file.display()))?,
            _ => Vec::new(),
        };
        let method = self.method.text();
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !self.has_header("host")? {
            head += &format!("Host: {address}\r\n");
        }
        if !body.is_empty() || matches!(self.method, Method::Put | Method::Post) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        self.header.iter().for_each(|field| head += &format!("{}\r\n", field.trim()));
        head += "\r\n";
        Ok(Requests::new(method, &head, body, self.keys(&head)?))
    }

    fn has_header(&self, wanted: &str) -> Result<bool, String> {
        let mut found = false;
        for field in &self.header {
            let name = field.split_once(':').map(|(name, _)| name.trim()).filter(|name| !name.is_empty());
            let Some(name) = name.filter(|_| !field.contains(['\r', '\n'])) else {
                return Err(format!("--header {field:?}: write 'Name: value'"));
            };
            found |= name.eq_ignore_ascii_case(wanted);
            if name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(format!("--header {field:?}: the framing is ours, --body-size says how long"));
            }
        }
        Ok(found)
    }

    fn keys(&self, head: &str) -> Result<Keys, String> {
        let has_place = head.contains(crate::http::request::KEY);
        let Some(keys) = self.keys else {
            return if has_place { Err("{key} needs --keys N".into()) } else { Ok(Keys::One) };
        };
        if !has_place {
            return Err("--keys needs {key} in the URL or in a --header".into());
        }
        // Each thread gets its own chance and its own place in the sequence.
        let chance = Chance::new(0, 0);
        Ok(match self.key_order {
            KeyOrder::Uniform => Keys::Uniform(keys, chance),
            KeyOrder::Sequence => Keys::Sequence(keys, 0, 1),
            KeyOrder::Zipf if 0.0 < self.zipf_exponent && self.zipf_exponent < 1.0 => {
                Keys::Zipf(keys, Arc::new(Zipf::new(keys, self.zipf_exponent)), chance)
            }
            KeyOrder::Zipf => return Err("--zipf-exponent lies between 0 and 1, both excluded".into()),
        })
    }

    fn statuses(&self) -> (Vec<RangeInclusive<u16>>, String) {
        if self.expect_status.is_empty() {
            return (vec![200..=299], "2xx".into());
        }
        let text = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let words: Vec<String> = self.expect_status.iter().map(text).collect();
        (self.expect_status.clone(), words.join(" or "))
    }

    fn judge(&self, load: &Load) -> Result<Judge, String> {
        let content = match (self.expect_sha256, &self.expect_body, self.expect_seeded) {
            (Some(sha), ..) => Content::Sha256(sha),
            (_, Some(file), _) => {
                Content::Bytes(fs::read(file).map_err(|why| format!("{}: {why}", file.display()))?.into())
            }
            (.., Some(size)) => Content::Bytes(seeded_body(load.seed, size as usize).into()),
            _ => Content::Unknown,
        };
        let is_known = content != Content::Unknown;
        let level = self.check.unwrap_or(if is_known { Level::Crc32 } else { Level::Length });
        match level {
            Level::Full if !is_known => {
                Err("--check full needs --expect-body, --expect-seeded or --expect-sha256".into())
            }
            Level::Crc32 if !is_known && self.keys.is_some() => {
                Err("--check crc32 over many keys needs to know the one body of all: --expect-body, \
                     --expect-seeded or --expect-sha256"
                    .into())
            }
            level => Ok(Judge::new(level, self.expect_length, content)),
        }
    }
}

fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let code = |text: &str| text.parse::<u16>().ok().filter(|code| (100..600).contains(code));
    let range = match text.split_once('-') {
        Some((first, last)) => code(first).zip(code(last)).map(|(first, last)| first..=last),
        None => match text.strip_suffix("xx") {
            Some(class) => code(&format!("{class}00")).map(|first| first..=first + 99),
            None => code(text).map(|code| code..=code),
        },
    };
    range.filter(|range| !range.is_empty()).ok_or_else(|| "write a status such as 200, 2xx or 200-204".into())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Args, Command},
        *,
    };
    #[test]
    fn statuses_are_codes_classes_and_ranges() {
        assert_eq!(
            (statuses("204"), statuses("3xx"), statuses("200-204")),
            (Ok(204..=204), Ok(300..=399), Ok(200..=204))
        );
        for wrong in ["", "xx", "99", "600", "6xx", "204-200", "2x4"] {
            assert!(statuses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_what_would_do() {
        let plan = |words: &str| {
            let line = format!("gale http http://127.0.0.1:1/{words}");
            let args = Args::try_parse_from(line.split(' ')).map_err(|why| why.to_string())?;
            let Command::Http { load, args } = args.command else { panic!("http") };
            args.plan(&load).map(drop)
        };
        assert_eq!(plan("x{key} --keys 5 --key-order zipf"), Ok(()));
        for (words, hint) in [
            ("x{key}", "--keys N"),
            ("x --keys 5", "{key}"),
            ("x --check full", "--expect-sha256"),
            ("x{key} --keys 2 --check crc32", "--expect-body"),
            ("x --header a", "'Name: value'"),
            ("x --header content-length:3", "--body-size"),
            ("x --connections 1 --threads 2", "too few"),
            ("x --discard --check crc32", "--check length"),
            ("x{key} --keys 5 --key-order zipf --zipf-exponent 1", "between 0 and 1"),
            ("x --expect-seeded 1 --expect-body /x", "cannot be used"),
            ("x --pipeline 0", "1..=65536"),
        ] {
            assert!(plan(words).is_err_and(|why| why.contains(hint)), "{words}: {:?}", plan(words));
        }
    }
}

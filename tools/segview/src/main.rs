//! `segview FILE`: what is in a segment file, record by record, or run by run.
//!
//! Reads the file as it is, while a daemon uses it or not; only the runs of a bulk segment need the data directory, and
//! nobody serving it. Invariant: changes nothing. Exit code 0, or 1 with a sentence.

mod bulk;
mod fields;
mod records;

use clap::Parser;
use millpond::storage::header::{HEADER, Header, Kind, noted_len, whole_copies};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Print a segment of a millpond data directory: journal and checkpoint files record by record, bulk files run by run.
#[derive(Debug, Parser)]
#[command(name = "segview", version, max_term_width = 100)]
pub struct Args {
    /// The segment file: .mpj, .mpc or .mpb
    file: PathBuf,
    /// Begin at this position in the file
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Only records of this kind, such as name, mark or "sync mark"; may be repeated
    #[arg(long)]
    kind: Vec<String>,
    /// Only what is about this name
    #[arg(long)]
    key: Option<String>,
    /// The space of that name
    #[arg(long, default_value_t = 1)]
    space: u8,
    /// The data directory of a bulk segment: tells the runs in it
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = Out { to: BufWriter::new(io::stdout().lock()), json: args.json };
    match view(&args, &mut out).and_then(|()| out.to.flush().map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("segview: {why}");
            ExitCode::FAILURE
        }
    }
}

fn view(args: &Args, out: &mut Out<impl Write>) -> Result<(), String> {
    let refused = |error: io::Error| format!("{}: {error}", args.file.display());
    let file = File::open(&args.file).map_err(refused)?;
    let mut page = Vec::new();
    (&file).take(HEADER).read_to_end(&mut page).map_err(refused)?;
    let kinds = [Kind::Journal, Kind::Checkpoint, Kind::Bulk];
    let Some(header) = kinds.into_iter().find_map(|kind| Header::decode(kind, &page)) else {
        return Err(format!(
            "{}: no segment, or both copies of its header are damaged; `millpond verify` tells which",
            args.file.display()
        ));
    };
    let len = file.metadata().map_err(refused)?.len();
    out.line(0, "header", about(&header, &page, len))?;
    match header.kind {
        Kind::Bulk => bulk::view(args, &header, len, out),
        Kind::Journal | Kind::Checkpoint => {
            let mut content = Vec::new();
            (&file).read_to_end(&mut content).map_err(refused)?;
            records::view(args, &header, &content, out)
        }
    }
}

fn about(header: &Header, page: &[u8], len: u64) -> Vec<(&'static str, Value)> {
    let whole = whole_copies(header, page).iter().filter(|whole| **whole).count();
    let kind = match header.kind {
        Kind::Journal => "journal",
        Kind::Bulk => "bulk",
        Kind::Checkpoint => "checkpoint",
    };
    vec![
        ("of", json!(kind)),
        ("log", json!(header.log.0)),
        ("number", json!(header.number)),
        ("generation", json!(format!("{:08x}", header.generation))),
        ("copies", json!(whole)),
        ("len", json!(len)),
        ("made", json!(noted_len(page))),
    ]
}

/// Where lines go.
pub struct Out<W> {
    to: W,
    json: bool,
}

impl<W: Write> Out<W> {
    /// One line about what is at `offset`.
    fn line(&mut self, offset: u64, what: &str, fields: Vec<(&'static str, Value)>) -> Result<(), String> {
        let written = if self.json {
            let mut object = serde_json::Map::new();
            object.insert("offset".into(), offset.into());
            object.insert("kind".into(), what.into());
            object.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
            writeln!(self.to, "{}", Value::Object(object))
        } else {
            let shown = fields.iter().filter(|(_, value)| !value.is_null());
            let shown: String = shown.map(|(name, value)| format!(" {name}={value}")).collect();
            writeln!(self.to, "{offset:>10} {what:<9}{shown}")
        };
        written.map_err(|error| error.to_string())
    }
}

//! `millpond verify`: is a data directory that no daemon uses as it was written?
//!
//! Invariant: changes no byte of it. Exit code 0: whole; 1: something is damaged; 2: it could not be checked.
//! Runs on the main thread.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::args::VerifyArgs;
use crate::daemon;
use crate::runtime::file::os::ReadOnlyDisk;
use crate::storage::OpenError;
use crate::storage::inspect::damage::{Damage, Lost, Name, What};
use crate::storage::inspect::{Inspection, Totals};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Something is damaged.
const DAMAGED: u8 = 1;
/// The directory could not be checked.
const UNCHECKED: u8 = 2;

/// Reads everything and says what is not as it was written.
pub fn run(args: VerifyArgs) -> ExitCode {
    let mut inspection = match Inspection::open(&ReadOnlyDisk, &args.data_dir) {
        Ok(inspection) => inspection,
        Err(error) => {
            eprintln!("millpond verify: {}", explain(&error));
            return ExitCode::from(UNCHECKED);
        }
    };
    let totals = inspection.totals();
    let bar = bar(totals.bytes);
    inspection.check_windows(|read| bar.set_position(read));
    bar.finish_and_clear();
    let text = if args.json { in_json(&inspection, totals) } else { in_lines(&inspection, totals) };
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        eprintln!("millpond verify: the report cannot be written: {error}");
        return ExitCode::from(UNCHECKED);
    }
    match inspection.damage().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DAMAGED),
    }
}

fn explain(error: &OpenError) -> String {
    match error {
        OpenError::Locked(dir) => format!("{}; end that process first", daemon::in_use(dir)),
        other => other.to_string(),
    }
}

/// Shown on a terminal only.
fn bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    let bar = ProgressBar::new(bytes);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn in_lines(inspection: &Inspection, totals: Totals) -> String {
    let mut text: String = inspection.damage().iter().map(|damage| format!("{damage}\n")).collect();
    for (file, at) in inspection.torn() {
        text.push_str(&format!(
            "{}:{at}: a torn tail from here on, as a crash leaves it; no damage\n",
            file.display()
        ));
    }
    let Totals { streams, links, records, windows, bytes } = totals;
    let verdict = match inspection.damage().len() {
        0 => "whole".to_owned(),
        1 => "1 place is damaged".to_owned(),
        count => format!("{count} places are damaged"),
    };
    if inspection.is_unreadable() {
        return format!("{text}{verdict}, and nothing else could be read\n");
    }
    text.push_str(&format!(
        "{streams} streams, {links} links, {records} records, {windows} windows, {bytes} bytes: {verdict}\n"
    ));
    text
}

/// `{"whole":false,"streams":1,"links":0,…,"damage":[{"file":"…","offset":1,"what":"…","lost":"…",…},…],"torn":[…]}`
fn in_json(inspection: &Inspection, totals: Totals) -> String {
    let torn = inspection.torn();
    let torn: Vec<Value> =
        torn.iter().map(|(file, at)| json!({ "file": file.display().to_string(), "offset": at })).collect();
    let damage = inspection.damage();
    let report = json!({
        "whole": damage.is_empty(),
        "readable": !inspection.is_unreadable(),
        "format": inspection.format(),
        "streams": totals.streams,
        "links": totals.links,
        "records": totals.records,
        "windows": totals.windows,
        "bytes": totals.bytes,
        "damage": damage.iter().map(one_in_json).collect::<Vec<_>>(),
        "torn": torn,
    });
    format!("{report}\n")
}

fn one_in_json(damage: &Damage) -> Value {
    let (name, from, to, cost) = match &damage.lost {
        Lost::Nothing(_) => (None, None, None, "nothing"),
        Lost::Latest(name) => (Some(name), None, None, "name"),
        Lost::Bytes { name, from, to } => (Some(name), Some(*from), *to, "bytes"),
        Lost::Linked(names) => (names.first(), None, None, "bytes"),
        Lost::Unknown(_) => (None, None, None, "unknown"),
    };
    let (record, seq, count) = match &damage.what {
        What::Records { kind, seq, count, .. } => (*kind, Some(*seq), Some(*count)),
        What::Mended { kind, seq } => (Some(*kind), Some(*seq), Some(1)),
        _ => (None, None, None),
    };
    let text = |name: &Name| name.key.as_ref().map(|key| key.bytes.escape_ascii().to_string());
    json!({
        "file": damage.file.display().to_string(),
        "offset": damage.at,
        "kind": damage.what.word(),
        "what": damage.what.to_string(),
        "record": record,
        "seq": seq,
        "records": count,
        "cost": cost,
        "lost": damage.lost.to_string(),
        "name": name.and_then(text),
        "space": name.and_then(|name| Some(name.key.as_ref()?.space)),
        "key_hash": name.map(|name| format!("{:016x}", name.key_hash)),
        "from": from,
        "to": to,
    })
}

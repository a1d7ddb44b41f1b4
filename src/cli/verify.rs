//! `millpond verify`: is a data directory that no daemon uses as it was written?
//!
//! Invariant: changes no byte of it, unless `--repair` asks for that. Exit code 0: whole, or whole now; 1: something is
//! damaged; 2: it could not be checked or repaired.
//! Runs on the main thread.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::args::VerifyArgs;
use crate::daemon;
use crate::runtime::Disk;
use crate::runtime::file::os::{OsDisk, ReadOnlyDisk};
use crate::storage::OpenError;
use crate::storage::inspect::damage::{Damage, Lost, Name, What};
use crate::storage::inspect::repair::{Refused, Repaired};
use crate::storage::inspect::{Inspection, Totals};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Something is damaged.
const DAMAGED: u8 = 1;
/// The directory could not be checked.
const UNCHECKED: u8 = 2;

/// Reads everything and says what is not as it was written; with `--repair`, takes that away.
pub fn run(args: VerifyArgs) -> ExitCode {
    match check(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DAMAGED),
        Err(why) => {
            eprintln!("millpond verify: {why}");
            ExitCode::from(UNCHECKED)
        }
    }
}

/// Whether the directory is whole now.
fn check(args: &VerifyArgs) -> Result<bool, String> {
    let disk: &dyn Disk = if args.repair { &OsDisk } else { &ReadOnlyDisk };
    let mut inspection = Inspection::open(disk, &args.data_dir).map_err(|error| explain(&error))?;
    let totals = inspection.totals();
    let bar = bar(totals.bytes);
    inspection.check_windows(|read| bar.set_position(read));
    bar.finish_and_clear();
    let mut report = if args.json { in_json(&inspection, totals) } else { in_lines(&inspection, totals) };
    if args.repair {
        match inspection.repair(disk, |read| bar.set_position(read)) {
            Ok(repaired) => tell(&mut report, args.json, &inspection, &repaired),
            Err(refused) => {
                print(&report)?;
                return Err(refusal(&refused));
            }
        }
    }
    print(&report)?;
    Ok(inspection.damage().is_empty())
}

fn print(text: &str) -> Result<(), String> {
    let text = format!("{}\n", text.trim_end());
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("the report cannot be written: {error}"))
}

fn refusal(refused: &Refused) -> String {
    match refused {
        Refused::BothCopies => {
            "cannot be repaired: both copies of a file are damaged on which everything else \
                                depends; put one of them back, from a copy of the directory"
                .to_owned()
        }
        Refused::Open(error) => {
            format!("the repair was not finished, and can be begun again: {}", explain(error))
        }
    }
}

/// Adds to a report what was done about it.
fn tell(report: &mut String, json: bool, after: &Inspection, repaired: &Repaired) {
    let quarantine = repaired.quarantine.as_ref().map(|path| path.display().to_string());
    if json {
        let Ok(Value::Object(mut fields)) = serde_json::from_str(report) else { return };
        fields.insert("whole".to_owned(), after.damage().is_empty().into());
        let names: Vec<Value> = repaired.names.iter().map(|name| name.to_string().into()).collect();
        let files: Vec<String> = repaired.files.iter().map(|file| file.display().to_string()).collect();
        let repair = json!({ "quarantine": quarantine, "names": names, "files": files });
        fields.insert("repair".to_owned(), repair);
        *report = Value::Object(fields).to_string();
        return;
    }
    let Some(quarantine) = quarantine else { return report.push_str("there is nothing to repair\n") };
    for name in &repaired.names {
        report.push_str(&format!("taken away: {name}\n"));
    }
    for damage in after.damage() {
        report.push_str(&format!("still damaged: {damage}\n"));
    }
    let (names, files) = (repaired.names.len(), repaired.files.len());
    let verdict = if after.damage().is_empty() { "whole now" } else { "not whole yet" };
    report.push_str(&format!("{verdict}; {names} names and {files} files are in {quarantine}\n"));
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
        Lost::Group(name) => (Some(name), None, None, "group"),
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

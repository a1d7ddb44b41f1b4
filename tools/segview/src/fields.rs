//! A record's fields, each with its name and value.
//!
//! Invariant: names and attributes are text with escapes, so that a line stays a line. Pure.

use millpond::codec::time::Rfc3339;
use millpond::storage::End;
use millpond::storage::journal::link::{LinkRecord, PartAt};
use millpond::storage::journal::record::{Mark, Record};
use millpond::storage::journal::snapshot::{Runs, Snapshot};
use serde_json::{Value, json};

/// Attributes are shown up to here.
const SHOWN_MAX: usize = 120;

/// What a record says.
pub fn of_record(record: &Record<'_>) -> Vec<(&'static str, Value)> {
    match record {
        Record::Boot { shards } => vec![("shards", json!(shards))],
        Record::Name { uid, epoch, created_ms, home, space, key, attributes } => vec![
            ("uid", hex(*uid)),
            ("epoch", json!(epoch)),
            ("created", json!(Rfc3339::at_ms(*created_ms).as_str())),
            ("home", json!(home.0)),
            ("space", json!(space)),
            ("key", text(key)),
            ("attributes", short(attributes)),
        ],
        Record::Delete { version, space, key } => {
            vec![("version", hex(*version)), ("space", json!(space)), ("key", text(key))]
        }
        Record::Mark(mark) | Record::Moved(mark) => of_mark(mark),
        Record::Epoch { uid, epoch, cut } => {
            vec![("uid", hex(*uid)), ("epoch", json!(epoch)), ("cut", json!(cut))]
        }
        Record::Trim { uid, first } => vec![("uid", hex(*uid)), ("first", json!(first))],
        Record::Ended { uid, epoch, at_ms } => {
            let at = json!(Rfc3339::at_ms(*at_ms).as_str());
            vec![("uid", hex(*uid)), ("epoch", json!(epoch)), ("at", at)]
        }
        Record::SyncMark => Vec::new(),
        Record::Abort { from, to } => vec![("from", json!(from)), ("to", json!(to))],
        Record::Link(link) => of_link(link),
        Record::Links(links) => {
            let of = |link: &LinkRecord<'_>| {
                of_link(link).into_iter().map(|(name, value)| (name.to_owned(), value))
            };
            vec![("links", links.iter().map(|link| Value::Object(of(link).collect())).collect())]
        }
        Record::Stream(snapshot) => of_snapshot(snapshot),
        Record::Runs { uid, runs } => vec![("uid", hex(*uid)), ("runs", of_runs(runs))],
    }
}

fn of_link(link: &LinkRecord<'_>) -> Vec<(&'static str, Value)> {
    vec![
        ("version", hex(link.version)),
        ("created", json!(Rfc3339::at_ms(link.created_ms).as_str())),
        ("space", json!(link.space)),
        ("key", text(&link.key)),
        ("attributes", short(&link.attributes)),
        ("parts", of_parts(&link.parts)),
    ]
}

fn of_parts(parts: &[PartAt]) -> Value {
    let of = |part: &PartAt| json!({ "uid": hex(part.uid), "from": part.from, "len": part.len });
    parts.iter().map(of).collect()
}

fn of_mark(mark: &Mark<'_>) -> Vec<(&'static str, Value)> {
    vec![
        ("uid", hex(mark.uid)),
        ("epoch", json!(mark.epoch)),
        ("start", json!(mark.start)),
        ("total", json!(mark.total)),
        ("end", of_end(mark.end)),
        ("log", json!(mark.log.0)),
        ("segment", json!(mark.segment)),
        ("at", json!(mark.offset)),
        ("len", json!(mark.len)),
        ("windows", json!(mark.crcs.len())),
    ]
}

fn of_snapshot(snapshot: &Snapshot<'_>) -> Vec<(&'static str, Value)> {
    vec![
        ("uid", hex(snapshot.uid)),
        ("first_epoch", json!(snapshot.first_epoch)),
        ("epoch", json!(snapshot.epoch)),
        ("created", json!(Rfc3339::at_ms(snapshot.created_ms).as_str())),
        ("start", json!(snapshot.start)),
        ("total", json!(snapshot.total)),
        ("end", of_end(snapshot.end)),
        ("home", json!(snapshot.home.0)),
        ("space", json!(snapshot.space)),
        ("key", text(&snapshot.key)),
        ("attributes", short(&snapshot.attributes)),
        ("more", json!(snapshot.more)),
        ("runs", of_runs(&snapshot.runs)),
    ]
}

fn of_runs(runs: &Runs<'_>) -> Value {
    let each = runs.iter().map(|run| {
        json!({
            "epoch": run.epoch, "start": run.start, "log": run.log.0, "segment": run.segment,
            "at": run.offset, "len": run.len,
        })
    });
    each.collect()
}

fn of_end(end: Option<End>) -> Value {
    match end {
        None => Value::Null,
        Some(End::Complete) => json!("complete"),
        Some(End::Interrupted) => json!("interrupted"),
    }
}

/// A stream's number or a version: three numbers in one, which decimal would hide.
pub fn hex(number: u64) -> Value {
    json!(format!("{number:x}"))
}

/// Bytes of any kind.
pub fn text(bytes: &[u8]) -> Value {
    json!(bytes.escape_ascii().to_string())
}

fn short(bytes: &[u8]) -> Value {
    match bytes.len() {
        0 => Value::Null,
        len if len <= SHOWN_MAX => text(bytes),
        len => json!(format!("{}... ({len} bytes)", bytes[..SHOWN_MAX].escape_ascii())),
    }
}

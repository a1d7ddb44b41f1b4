//! A bulk file: whose runs lie in it, and what lies between them.
//!
//! The file itself does not tell; the data directory does, through the look that recovery takes at it.

use crate::fields::{hex, text};
use crate::{Args, Out};
use millpond::runtime::file::os::ReadOnlyDisk;
use millpond::storage::header::{HEADER, Header};
use millpond::storage::inspect::Inspection;
use serde_json::json;
use std::io::Write;

/// One line per run and per stretch without one.
pub fn view(args: &Args, header: &Header, len: u64, out: &mut Out<impl Write>) -> Result<(), String> {
    let Some(dir) = &args.data_dir else {
        return Err("whose runs lie in a bulk segment, its data directory tells: give --data-dir".into());
    };
    let inspection = Inspection::open(&ReadOnlyDisk, dir).map_err(|error| error.to_string())?;
    let is_here = |log, number| (log, number) == (header.log, header.number);
    let mut runs: Vec<_> = inspection.runs().filter(|run| is_here(run.log, run.segment)).collect();
    runs.sort_by_key(|run| run.offset);
    let used = inspection.handed_out(header.log, header.number).unwrap_or(HEADER).min(len);
    let key = args.key.as_ref().map(|key| key.as_bytes());
    let mut at = HEADER;
    for run in &runs {
        if run.offset > at && key.is_none() && at >= args.from {
            out.line(at, "dead", vec![("len", json!(run.offset - at))])?;
        }
        at = run.offset + run.len;
        let name = run.name();
        let is_wanted = key.is_none_or(|key| {
            name.key.as_ref().is_some_and(|name| (name.space, &*name.bytes) == (args.space, key))
        });
        if !is_wanted || run.offset < args.from {
            continue;
        }
        let fields = vec![
            ("len", json!(run.len)),
            ("space", json!(name.key.as_ref().map(|key| key.space))),
            ("key", json!(name.key.as_ref().map(|key| text(&key.bytes)))),
            ("uid", hex(run.uid())),
            ("epoch", json!(run.epoch)),
            ("start", json!(run.start)),
            ("state", json!(format!("{:?}", run.state()).to_lowercase())),
        ];
        out.line(run.offset, "run", fields)?;
    }
    if key.is_none() {
        if used > at {
            out.line(at, "dead", vec![("len", json!(used - at))])?;
        }
        let free = used.max(at);
        if len > free {
            out.line(free, "free", vec![("len", json!(len - free))])?;
        }
    }
    Ok(())
}

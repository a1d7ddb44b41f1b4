//! A journal or checkpoint file: its records, and what is not one.
//!
//! Reads by the scan that recovery reads by. What one file tells about itself is all there is to go by: that records
//! are missing in front of it, another one would have to say.

use crate::fields::{hex, of_record};
use crate::{Args, Out};
use millpond::storage::header::{HEADER, Header};
use millpond::storage::journal::record::{self, kind_name};
use millpond::storage::journal::scan::{Expect, Found, scan, survey};
use millpond::storage::placement_hash;
use serde_json::json;
use std::io::Write;

/// One line per record.
pub fn view(args: &Args, header: &Header, content: &[u8], out: &mut Out<impl Write>) -> Result<(), String> {
    let wanted = Wanted::of(args);
    let first = survey(content, header.generation);
    let expect = Expect {
        generation: header.generation,
        first_seq: first.first_seq.unwrap_or(1),
        boot: 0,
        synced_seq: first.settled_seq,
        next_seq: None,
    };
    for found in scan(content, expect) {
        match found {
            Found::Record { at, header, record, mended } => {
                let at = HEADER + at as u64;
                if wanted.is_wanted(at, Some(&header)) {
                    let mut fields = vec![
                        ("seq", json!(header.seq)),
                        ("synced", json!(header.synced_seq)),
                        ("boot", json!(header.boot)),
                        ("hash", if header.key_hash == 0 { json!(null) } else { hex(header.key_hash) }),
                    ];
                    fields.extend(of_record(&record));
                    fields.extend(mended.then_some(("mended", json!(true))));
                    out.line(at, kind_name(header.kind), fields)?;
                }
            }
            Found::Damaged { at, from_seq, to_seq, header } => {
                let at = HEADER + at as u64;
                // Whose it was is not known then, so it may be what is looked for.
                if header.is_none_or(|header| wanted.is_wanted(at, Some(&header))) && at >= args.from {
                    let was = header.map(|header| kind_name(header.kind));
                    let of = header.map(|header| hex(header.key_hash));
                    let fields = vec![
                        ("seq", json!(from_seq)),
                        ("until", json!(to_seq)),
                        ("was", json!(was)),
                        ("hash", json!(of)),
                    ];
                    out.line(at, "DAMAGED", fields)?;
                }
            }
            Found::Tail { valid_len, next_seq, torn, .. } => {
                let fields = vec![("next", json!(next_seq)), ("torn", json!(torn))];
                out.line(HEADER + valid_len as u64, "end", fields)?;
            }
        }
    }
    Ok(())
}

/// What was asked for.
struct Wanted<'a> {
    from: u64,
    kinds: &'a [String],
    key_hash: Option<u64>,
}

impl<'a> Wanted<'a> {
    fn of(args: &'a Args) -> Self {
        let key_hash = args.key.as_ref().map(|key| placement_hash(args.space, key.as_bytes()));
        Wanted { from: args.from, kinds: &args.kind, key_hash }
    }

    fn is_wanted(&self, at: u64, header: Option<&record::Header>) -> bool {
        at >= self.from
            && header.is_none_or(|header| {
                (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == kind_name(header.kind)))
                    && self.key_hash.is_none_or(|key_hash| key_hash == header.key_hash)
            })
    }
}

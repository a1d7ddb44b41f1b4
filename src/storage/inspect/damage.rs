//! What is damaged, and what is lost by it, in a sentence each.
//!
//! Invariant: a sentence is one line of text, whatever bytes a name has. Pure values.

use super::super::placement::Key;
use std::fmt;
use std::path::PathBuf;

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file or directory, from the data directory.
    pub file: PathBuf,
    /// The position in it, if it is at one.
    pub at: Option<u64>,
    /// What is damaged.
    pub what: What,
    /// What that costs.
    pub lost: Lost,
}

/// What is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A copy of `FORMAT` is damaged or missing.
    Format {
        /// There is no such file.
        missing: bool,
    },
    /// `FORMAT` counts fewer starts than records tell of.
    Stale {
        /// What it counts.
        known: u32,
        /// What was found.
        found: u32,
    },
    /// A copy of the checkpoint's manifest is damaged or missing.
    Manifest {
        /// There is no such file.
        missing: bool,
    },
    /// Copies of a segment's header.
    Header {
        /// How many of the two.
        copies: usize,
    },
    /// A segment of another data directory, or of another place in this one.
    Foreign,
    /// A file is shorter than it was made.
    CutShort {
        /// How long it was made, if that is known.
        made: Option<u64>,
    },
    /// There was a journal and there is none.
    NoJournal,
    /// A file is gone.
    Missing,
    /// Records do not read.
    Records {
        /// What the first one was, if its header is whole.
        kind: Option<&'static str>,
        /// The first one's sequence.
        seq: u64,
        /// How many.
        count: u64,
        /// A file that is gone, in which they may have been.
        missing: Option<PathBuf>,
    },
    /// One bit of a record's header is wrong.
    Mended {
        /// What it is.
        kind: &'static str,
        /// Its sequence.
        seq: u64,
    },
    /// Bytes of a stream do not match their checksum.
    Window {
        /// How many bytes the checksum is of.
        len: u64,
        /// Why they could not be read at all.
        unreadable: Option<String>,
    },
    /// What the records of a stream say does not fit together.
    Stream,
    /// There is a stream whose name is in none of the records that read.
    Nameless,
    /// A name stands for bytes that are not there, because a record of those is lost, or a file.
    Bodiless,
}

/// What is lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Nothing, and why.
    Nothing(&'static str),
    /// What a name stands for: it answers with an error until it is replaced or deleted.
    Latest(Name),
    /// What the names of a group stand for, of which this is one: all of them answer with an error until a repair.
    Group(Name),
    /// Bytes of a stream.
    Bytes {
        /// The stream's name.
        name: Name,
        /// Its first lost byte.
        from: u64,
        /// The byte behind the last, if that is known.
        to: Option<u64>,
    },
    /// Some of the bytes that these names stand for; perhaps none, when nothing stands for bytes any more.
    Linked(Vec<Name>),
    /// Something that nothing tells.
    Unknown(&'static str),
}

impl Lost {
    /// By a record about this name.
    pub(super) fn latest(name: Name) -> Self {
        match name.key.as_ref().and_then(|key| key.as_ref().group()) {
            Some(_) => Lost::Group(name),
            None => Lost::Latest(name),
        }
    }
}

/// So many names are told of bytes that several share.
const NAMES_SHOWN: usize = 8;

/// A name, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// Its placement hash.
    pub key_hash: u64,
    /// The name itself.
    pub key: Option<Key>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(at) = self.at {
            write!(f, ":{at}")?;
        }
        write!(f, ": {}; lost: {}", self.what, self.lost)
    }
}

impl What {
    /// A word for each.
    pub fn word(&self) -> &'static str {
        match self {
            What::Format { .. } => "format",
            What::Stale { .. } => "stale-format",
            What::Manifest { .. } => "manifest",
            What::Header { .. } => "header",
            What::Foreign => "foreign",
            What::CutShort { .. } => "cut-short",
            What::NoJournal => "no-journal",
            What::Missing => "missing",
            What::Records { .. } => "record",
            What::Mended { .. } => "record-header",
            What::Window { .. } => "window",
            What::Stream => "stream",
            What::Nameless => "nameless",
            What::Bodiless => "bodiless",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Format { missing: false } => f.write_str("this copy of the format description is damaged"),
            What::Format { missing: true } => f.write_str("this copy of the format description is missing"),
            What::Stale { known, found } => {
                write!(f, "counts {known} starts, and there are records of start {found}")
            }
            What::Manifest { missing: false } => {
                f.write_str("this copy of the checkpoint's manifest is damaged")
            }
            What::Manifest { missing: true } => {
                f.write_str("this copy of the checkpoint's manifest is missing")
            }
            What::Header { copies: 1 } => f.write_str("one of the two copies of the header is damaged"),
            What::Header { .. } => f.write_str("both copies of the header are damaged"),
            What::Foreign => {
                f.write_str("belongs to another data directory, or to another place in this one")
            }
            What::CutShort { made: Some(made) } => write!(f, "cut short here, made with {made} bytes"),
            What::CutShort { made: None } => f.write_str("cut short here"),
            What::NoJournal => f.write_str("there was a journal and there is none"),
            What::Missing => f.write_str("missing"),
            What::Records { kind, seq, count, missing } => {
                match (kind, count) {
                    (Some(kind), 1) => write!(f, "{kind} record {seq} is damaged")?,
                    (Some(kind), _) => write!(f, "{count} records from {kind} record {seq} on are damaged")?,
                    (None, 1) => write!(f, "record {seq} does not read")?,
                    (None, _) => write!(f, "{count} records from {seq} on do not read")?,
                }
                match missing {
                    Some(missing) => write!(f, " ({} is not there)", missing.display()),
                    None => Ok(()),
                }
            }
            What::Mended { kind, seq } => write!(f, "the header of {kind} record {seq} is damaged"),
            What::Window { len, unreadable: None } => {
                write!(f, "window of {len} bytes does not match its checksum")
            }
            What::Window { len, unreadable: Some(why) } => {
                write!(f, "window of {len} bytes cannot be read ({why})")
            }
            What::Stream => f.write_str("records do not fit together"),
            What::Nameless => f.write_str("there is a stream whose name is lost"),
            What::Bodiless => f.write_str("what says where its bytes are is lost"),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Nothing(why) => write!(f, "nothing, {why}"),
            Lost::Latest(name) => write!(f, "what {name} stands for, until it is replaced or deleted"),
            Lost::Group(name) => match name.key.as_ref().and_then(|key| key.as_ref().group()) {
                Some(group) => write!(
                    f,
                    "what the names of the group \"{}\" stand for, until a repair",
                    group.escape_ascii()
                ),
                None => write!(
                    f,
                    "what the names of the group with hash {:#018x} stand for, until a repair",
                    name.key_hash
                ),
            },
            Lost::Bytes { name, from, to: Some(to) } => write!(f, "bytes {from} to {to} of {name}"),
            Lost::Bytes { name, from, to: None } => {
                write!(f, "the bytes of {name} from {from} on, if there were any")
            }
            Lost::Linked(names) => match &names[..] {
                [] => f.write_str("nothing, no name stands for these bytes"),
                [first, rest @ ..] => {
                    write!(f, "some of the bytes of {first}")?;
                    rest.iter().take(NAMES_SHOWN - 1).try_for_each(|name| write!(f, ", {name}"))?;
                    match rest.len().saturating_sub(NAMES_SHOWN - 1) {
                        0 => Ok(()),
                        more => write!(f, " and {more} more"),
                    }
                }
            },
            Lost::Unknown(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "\"{}\"", key.bytes.escape_ascii()),
            None => write!(f, "the name with hash {:#018x}", self.key_hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line_whatever_a_name_is() {
        let key = Key::new(1, b"a\n\x1b[2J\"\xff");
        let name = Name { key_hash: key.hash(), key: Some(key) };
        let lost = Lost::Bytes { name, from: 7, to: Some(9) };
        let what = What::Window { len: 2, unreadable: None };
        let damage = Damage { file: "bulk-0/00000000.mpb".into(), at: Some(4103), what, lost };
        assert_eq!(
            damage.to_string(),
            r#"bulk-0/00000000.mpb:4103: window of 2 bytes does not match its checksum; lost: bytes 7 to 9 of "a\n\x1b[2J\"\xff""#
        );
    }
}

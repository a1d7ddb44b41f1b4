//! The typed configuration: every key, its default, and where its value came from.
//!
//! A value comes from the first of flag, environment, file and default that names its key; lists are
//! replaced, never joined. All mistakes are reported together, each with its place.
//!
//! | file | holds |
//! |---|---|
//! | `sections` | the keys, their types and defaults: the one list that everything else is derived from |
//! | `schema` | how such a list becomes a reader |
//! | `sources` | file, environment, flags |
//! | `check` | rules between values |
//! | `diagnostic` | mistakes and their wording |
//! | `units`, `listen`, `choice`, `secret` | the types of values |
//!
//! Invariant: a [`Config`] that [`Config::load`] returns satisfies every rule; nobody checks again.
//! Runs on the main thread, at start and on SIGHUP.

mod check;
mod choice;
mod diagnostic;
mod listen;
mod schema;
mod secret;
mod sections;
mod sources;
mod units;

use std::collections::BTreeMap;

pub use choice::{Driver, Durability, Handler, Interrupted, LogFormat, LogLevel, Output, Share, VblobAuth};
pub use diagnostic::{Diagnostic, Diagnostics, Origin, Warning};
pub use listen::{Listen, ListenError, Wanted};
pub use secret::Secret;
pub use sections::{
    AccessKey, Admin, Blob, Config, Doors, Ion, IonModule, Kind, Limits, Loom, Micro, Net, Proxy, Remote,
    RemoteS3, Retention, S3, Serpentine, Service, Tls, Vblob,
};
pub use sources::Sources;
pub use units::{ByteSize, Period, UnitError};

use schema::{Node, Reader};

/// A configuration that satisfies every rule, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Warning>,
}

/// What a [`Config`] was read from, so that later conflicts can name places and a reload can repeat it.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    sources: Sources,
    origins: BTreeMap<String, Origin>,
}

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, with its sections.
    pub key: String,
    /// Whether a running daemon can take the new value; otherwise it needs a restart.
    pub reloadable: bool,
}

impl Config {
    /// Reads every source and checks every rule.
    pub fn load(sources: &Sources) -> Result<Loaded, Diagnostics> {
        let (file, unreadable) = match sources.file().map(sources::File::open).transpose() {
            Ok(file) => (file, None),
            Err(diagnostic) => (None, Some(diagnostic)),
        };
        let known = Self::keys();
        let mut reader = Reader::new(sources, file.as_ref(), &known);
        reader.found.extend(unreadable.map(|diagnostic| *diagnostic));
        let item = file.as_ref().map(|file| file.document.as_item());
        let mut config = Self::default().read(&mut reader, "", item);
        check::all(&mut config, &mut reader);

        let Reader { origins, found, .. } = reader;
        if let Some(diagnostics) = Diagnostics::of(found) {
            return Err(diagnostics);
        }
        config.provenance = Provenance { sources: sources.clone(), origins };
        Ok(Loaded { config, warnings: warnings(sources, &known) })
    }

    /// Reads the same sources again: the file as it is now, environment and flags as they were.
    pub fn reload(&self) -> Result<Loaded, Diagnostics> {
        Self::load(&self.provenance.sources)
    }

    /// Where the value of a key came from, such as `loom.listen` or `ion.module[0].listen`.
    pub fn origin(&self, key: &str) -> Origin {
        self.provenance.origins.get(key).cloned().unwrap_or_default()
    }

    /// Every key whose value differs, in the order of the file.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut keys = Vec::new();
        Node::changes(self, new, "", &mut keys);
        keys.into_iter().map(|key| Change { reloadable: is_reloadable(&key), key }).collect()
    }

    /// Every key that differs from its default, with the place that set it.
    pub fn settings(&self) -> Vec<(String, Origin)> {
        let changed = Self::default().changes(self);
        changed.into_iter().map(|change| (change.key.clone(), self.origin(&change.key))).collect()
    }

    /// Every key that a variable can set.
    fn keys() -> Vec<String> {
        let mut keys = Vec::new();
        <Self as Node>::keys("", &mut keys);
        keys
    }
}

/// Certificates, tokens, ion modules, the log level and retention apply to what comes next; everything
/// else is woven into sockets, files and threads that already exist.
fn is_reloadable(key: &str) -> bool {
    let mut parts = key.split('.');
    key == "log_level"
        || key == "ion.module"
        || parts.any(|part| matches!(part, "tls" | "tokens" | "retention"))
}

fn warnings(sources: &Sources, known: &[String]) -> Vec<Warning> {
    let known: Vec<String> = known.iter().filter_map(|key| sources::variable_of(key)).collect();
    let unknown = sources.variables().filter(|name| !known.iter().any(|known| known == name));
    unknown
        .filter_map(|name| {
            let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(name, known))?;
            Some(Warning::UnknownVariable { name: name.to_owned(), nearest: nearest.clone() })
        })
        .collect()
}

//! The typed configuration: every key, its default, and where its value came from.
//!
//! A value comes from the first of flag, environment, file and default that names its key; lists are
//! replaced, never joined. All mistakes are reported together, each with its place.
//!
//! | file | holds |
//! |---|---|
//! | `sections` | the keys, their types and defaults: the one list that everything else is derived from |
//! | `schema`, `value` | how such a list becomes a reader; how a leaf is read |
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
mod remote;
mod schema;
mod secret;
mod sections;
mod sources;
mod units;
mod value;

use std::collections::BTreeMap;

pub use choice::{Driver, Durability, Handler, Interrupted, LogFormat, LogLevel, Output, Share, VblobAuth};
pub use diagnostic::{Diagnostic, Diagnostics, Origin, Warning};
pub use listen::{Listen, ListenError, Wanted};
pub use remote::RemotePlace;
pub use secret::Secret;
pub use sections::{
    AccessKey, Admin, Blob, Config, Doors, Ion, IonModule, Kind, Limits, Loom, Micro, Net, Proxy, Remote,
    RemoteS3, Retention, S3, Serpentine, SerpentineListener, Service, Tls, Vblob,
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
        config.ion.module.extend(sources.modules().iter().cloned());
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
        keys.into_iter().map(|key| Change { reloadable: self.is_reloadable(new, &key), key }).collect()
    }

    /// Certificates, tokens, accounts, ion modules, the log level, retention, limits on streams and blobs, what other dialects
    /// may read and what readers of an interrupted stream get apply to what comes next; everything else is woven into sockets, files and threads that already
    /// exist. Turning TLS on or off changes what a bound listener speaks, so only certificates that replace
    /// others count.
    fn is_reloadable(&self, new: &Self, key: &str) -> bool {
        match key.split('.').collect::<Vec<_>>()[..] {
            ["log_level"]
            | ["loom", "interrupted" | "quota" | "max_streams" | "max_stream_bytes"]
            | ["vblob", "auth" | "key_id" | "secret_id" | "quota" | "object_limit"]
            | ["s3", "quota" | "region" | "domains"]
            | ["doors", "share"]
            | ["serpentine", "quota"]
            | ["ion", "module" | "meta_limit" | "location_prefix" | "quota"]
            | [_, "tokens"]
            | [_, "retention", _] => true,
            [section, "tls", _] => [self, new].iter().all(|config| config.has_tls(section)),
            ["micro", "tls_cert_file" | "tls_key_file" | "tls_client_ca_file"] => {
                self.micro.enable_tls && new.micro.enable_tls
            }
            // The listener was opened for those who sign, or for anyone on loopback.
            ["s3", "access_keys"] => self.s3.access_keys.is_empty() == new.s3.access_keys.is_empty(),
            _ => false,
        }
    }

    fn has_tls(&self, section: &str) -> bool {
        self.tls(section).is_some()
    }

    /// The certificates of a section's listeners, in whichever form they are named; `None` where it speaks no TLS.
    pub fn tls(&self, section: &str) -> Option<Tls> {
        let micro = &self.micro;
        let tls = match section {
            "loom" => &self.loom.tls,
            "vblob" => &self.vblob.tls,
            "s3" => &self.s3.tls,
            "ion" => &self.ion.tls,
            "micro" if self.has_flat_tls() => &Tls {
                cert_file: micro.tls_cert_file.clone(),
                key_file: micro.tls_key_file.clone(),
                client_ca_file: micro.tls_client_ca_file.clone(),
            },
            "micro" => &micro.tls,
            _ => return None,
        };
        tls.is_set().then(|| tls.clone())
    }

    /// The key that names one of the files of [`Config::tls`].
    pub fn tls_key(&self, section: &str, field: &str) -> String {
        let joint = if section == "micro" && self.has_flat_tls() { '_' } else { '.' };
        format!("{section}.tls{joint}{field}")
    }

    /// Whether micro's certificates are named by the flags of its sidecar.
    fn has_flat_tls(&self) -> bool {
        self.micro.enable_tls && !self.micro.tls.is_set()
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

#[cfg(test)]
mod tests;

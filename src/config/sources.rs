//! Where values come from: a file, the environment, flags.
//!
//! Invariant: environment and flags are captured once, at start; only the file is read again by a
//! reload, so a reload sees what an operator can have changed and nothing else.
//! Runs on the main thread.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml_edit::Document;

use super::diagnostic::Diagnostic;
use super::sections::IonModule;

/// What a configuration is read from.
#[derive(Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    env: BTreeMap<OsString, OsString>,
    flags: BTreeMap<String, Flag>,
    modules: Vec<IonModule>,
}

impl Sources {
    /// A file, if there is one, and no environment and no flags yet.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Adds environment variables; those without our prefix are kept for keys that name a variable.
    #[must_use]
    pub fn with_env(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env.extend(vars);
        self
    }

    /// Adds the occurrences of one flag, which sets `key`; several mean a list.
    #[must_use]
    pub fn with_flag(mut self, name: &str, key: &str, values: &[String]) -> Self {
        if !values.is_empty() {
            self.flags.insert(key.to_owned(), Flag { name: name.to_owned(), text: values.join(",") });
        }
        self
    }

    /// Adds a module of ion to those of the file.
    #[must_use]
    pub fn with_module(mut self, module: IonModule) -> Self {
        self.modules.push(module);
        self
    }

    pub(super) fn modules(&self) -> &[IonModule] {
        &self.modules
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn flag(&self, key: &str) -> Option<&Flag> {
        self.flags.get(key)
    }

    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The names of all variables that claim to be ours.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.env.keys().filter_map(|name| name.to_str()).filter(|name| name.starts_with(PREFIX))
    }
}

impl fmt::Debug for Sources {
    /// Names only: the values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("variables", &self.variables().collect::<Vec<_>>())
            .field("flags", &self.flags.values().map(|flag| &flag.name).collect::<Vec<_>>())
            .finish()
    }
}

/// What the command line says about one key.
#[derive(Clone)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) text: String,
}

/// The variable that sets `key`, such as `MILLPOND_LOOM_LISTEN` for `loom.listen`.
///
/// `micro.tls.*` has none: the names belong to the flat keys `micro.tls_cert_file` and its siblings,
/// which are older.
pub(super) fn variable_of(key: &str) -> Option<String> {
    (!key.starts_with("micro.tls.")).then(|| format!("{PREFIX}{}", key.replace('.', "_").to_uppercase()))
}

const PREFIX: &str = "MILLPOND_";

/// A parsed file and the way from a byte back to its line.
pub(super) struct File {
    pub(super) path: Arc<Path>,
    pub(super) document: Document<String>,
}

impl File {
    /// Reads and parses; the error names the line where there is one.
    pub(super) fn open(path: &Path) -> Result<Self, Box<Diagnostic>> {
        let refuse = |line: Option<usize>, problem: String| {
            Box::new(Diagnostic::File {
                place: line.map_or(path.display().to_string(), |line| format!("{}:{line}", path.display())),
                problem,
            })
        };
        let bytes = std::fs::read(path).map_err(|error| refuse(None, format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = line_at(error.as_bytes(), error.utf8_error().valid_up_to());
            refuse(Some(line), "not UTF-8 text; accepted: TOML".to_owned())
        })?;
        match Document::parse(text.clone()) {
            Ok(document) => Ok(Self { path: path.into(), document }),
            // Only the parser's message: its long form quotes the line, which may hold a secret.
            Err(error) => {
                let line = error.span().map(|span| line_at(text.as_bytes(), span.start));
                Err(refuse(line, format!("not valid TOML: {}", error.message().replace('\n', ", "))))
            }
        }
    }

    /// The line, counted from 1, that holds this byte.
    pub(super) fn line(&self, offset: usize) -> usize {
        line_at(self.document.raw().as_bytes(), offset)
    }
}

fn line_at(text: &[u8], offset: usize) -> usize {
    1 + text[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

//! What is wrong with a configuration, and where.
//!
//! Invariant: each line names the place, the key, the value and what would be accepted; a secret's
//! text is in none of them.
//! Built on the main thread; printed by whoever asked for the configuration.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// A line of the configuration file, counted from 1.
    File(Arc<Path>, usize),
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnostic {
    /// The file cannot be read, is not text or is not TOML.
    File {
        /// The file, with the line where it is known: `millpond.toml:3`.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A key that does not exist.
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key, with its sections.
        key: String,
        /// A key that may have been meant.
        suggestion: Option<String>,
        /// The keys that this table takes.
        accepted: String,
    },
    /// A value that its key does not take, alone or beside another value.
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key, with its sections.
        key: String,
        /// The value as written; `None` where there is none to show.
        value: Option<String>,
        /// What is wrong with it.
        problem: String,
        /// What would be right.
        accepted: String,
    },
}

impl Diagnostic {
    /// Where it stands among others: by kind of place, then by line.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::File { .. } => (0, 0),
            Self::UnknownKey { origin, .. } | Self::Value { origin, .. } => match origin {
                Origin::File(_, line) => (1, *line),
                Origin::Env(_) => (2, 0),
                Origin::Flag(_) => (3, 0),
                Origin::Default => (4, 0),
            },
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { place, problem } => write!(f, "{place}: {problem}"),
            Self::UnknownKey { origin, key, suggestion, accepted } => {
                write!(f, "{origin}: {key}: unknown key")?;
                if let Some(suggestion) = suggestion {
                    write!(f, ", did you mean {suggestion}?")?;
                }
                write!(f, "; accepted: {accepted}")
            }
            Self::Value { origin, key, value, problem, accepted } => {
                write!(f, "{origin}: {key}")?;
                if let Some(value) = value {
                    write!(f, " = {value}")?;
                }
                write!(f, ": {problem}; accepted: {accepted}")
            }
        }
    }
}

/// Every mistake that was found: the file's by line, then those of variables, flags and defaults;
/// never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// The process exit code of a bad configuration, as in `sysexits.h`.
    pub const EXIT_CODE: u8 = 78;

    /// Keeps a list that has something to say.
    pub fn of(mut found: Vec<Diagnostic>) -> Option<Self> {
        // Stable: what one line has wrong stays in the order it was found.
        found.sort_by_key(Diagnostic::rank);
        (!found.is_empty()).then_some(Self(found))
    }

    /// The mistakes, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}

impl fmt::Display for Diagnostics {
    /// One mistake per line, without a newline after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Something that is allowed but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A variable with our prefix that no key answers to.
    UnknownVariable {
        /// Its name.
        name: String,
        /// The variable whose name is nearest.
        nearest: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable { name, nearest } => {
                write!(f, "environment {name}: no key has this name, the nearest is {nearest}; ignored")
            }
        }
    }
}

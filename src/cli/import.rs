//! `millpond check-config --import-vblob FILE` and `--import-loom FILE`: the configuration of another server as ours.
//!
//! Invariant: every key of the file is either translated or named in a comment with the reason; nothing is guessed and
//! nothing gets lost without a word. What is printed is a whole configuration file. Writes nothing but that.
//! Runs on the main thread.

mod loom;
mod vblob;
mod yaml;

use crate::config::Diagnostics;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Prints what vblob's `config.json` is here.
pub fn vblob(file: &Path) -> ExitCode {
    print(file, "config.json of vblob", vblob::translate)
}

/// Prints what loom's YAML is here.
pub fn loom(file: &Path) -> ExitCode {
    print(file, "the YAML of loom", loom::translate)
}

fn print(file: &Path, what: &str, translate: fn(&str) -> Result<Translation, String>) -> ExitCode {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    match text.and_then(|text| translate(&text)) {
        Ok(translation) => {
            let page = translation.page(what);
            match std::io::stdout().lock().write_all(page.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("{}: not {what}: {error}", file.display());
            ExitCode::from(Diagnostics::EXIT_CODE)
        }
    }
}

/// What became of a file.
#[derive(Default)]
struct Translation {
    /// Lines for the top of the file.
    top: String,
    /// Lines for the section of the dialect.
    section: String,
    /// Keys that say nothing here, and why.
    left: String,
    name: &'static str,
}

impl Translation {
    fn of(name: &'static str) -> Self {
        Translation { name, ..Self::default() }
    }

    fn set(&mut self, key: &str, value: impl Into<toml_edit::Value>) -> &mut Self {
        line(&mut self.section, key, value);
        self
    }

    fn set_top(&mut self, key: &str, value: impl Into<toml_edit::Value>) {
        line(&mut self.top, key, value);
    }

    /// A remark in the section.
    fn note(&mut self, text: impl Display) {
        let _ = writeln!(self.section, "# {text}");
    }

    /// A key without a counterpart. Its value is not shown: it may be a secret.
    fn leave(&mut self, key: &str, why: &str) {
        let _ = writeln!(self.left, "#   {}: {why}", key.escape_debug());
    }

    fn page(&self, what: &str) -> String {
        let Translation { top, section, left, name } = self;
        let mut page = format!("# From {what}.\n{top}\n[{name}]\n{section}");
        if !left.is_empty() {
            let _ = write!(page, "\n# Without a counterpart:\n{left}");
        }
        page
    }
}

fn line(out: &mut String, key: &str, value: impl Into<toml_edit::Value>) {
    let _ = writeln!(out, "{key} = {}", value.into());
}

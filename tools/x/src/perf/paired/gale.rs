//! One run of the load generator, and what it measured.
//!
//! Invariant: gale's own verdict is ours: what it found wrong is an error, with its words.

use std::{
    fs, io,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Gale, LOAD_CORE, MEASURES};

/// Worked before measuring.
const WARM_UP: &str = "300ms";

/// What a round gave, by the names in [`MEASURES`].
#[derive(Clone, Debug, Default)]
pub struct Measures(Vec<(&'static str, &'static str, f64)>);

impl Gale<'_> {
    /// Runs it with these words, separated by spaces.
    pub fn run(&self, words: &str) -> io::Result<Measures> {
        let result = self.scratch.join("gale.json");
        let mut command = Command::new(self.binary);
        command.args(words.split_whitespace()).args(["--cpu", &LOAD_CORE.to_string(), "--json"]).arg(&result);
        // What counts its work ends by itself.
        if !words.contains("--bytes") && !words.contains("--requests") {
            command.args(["--duration", &format!("{}s", self.seconds), "--warmup", WARM_UP]);
        }
        for pid in self.pids {
            command.args(["--server-pid", &pid.to_string()]);
        }
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(io::Error::other(format!(
                "`gale {words}`: {}",
                String::from_utf8_lossy(&said).trim()
            )));
        }
        let text = fs::read(&result)?;
        fs::remove_file(&result)?;
        Measures::read(&text).ok_or_else(|| io::Error::other(format!("`gale {words}` wrote no measures")))
    }
}

impl Measures {
    fn read(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let measures = value.get("measures")?;
        let found = MEASURES
            .iter()
            .filter_map(|(name, unit)| Some((*name, *unit, measures.get(key(name))?.as_f64()?)));
        Some(Self(found.collect()))
    }

    /// The same, with this measure in the place of gale's: for what something else measured.
    pub fn with(mut self, name: &'static str, unit: &'static str, value: f64) -> Self {
        self.0.retain(|(measure, ..)| *measure != name);
        self.0.push((name, unit, value));
        self
    }

    /// The value of this name; not a number, which keeps no limit, if the load does not measure it.
    pub fn of(&self, name: &str) -> f64 {
        self.0.iter().find(|(measure, ..)| *measure == name).map_or(f64::NAN, |(.., value)| *value)
    }

    /// In short, while a run goes on.
    pub fn line(&self) -> String {
        let shown = ["operations/s", "payload/s", "server CPU per operation", "p99"]
            .map(|name| (name, self.of(name)));
        let shown = shown.iter().filter(|(_, value)| value.is_finite());
        shown.map(|(name, value)| format!("{name} {value:.1}")).collect::<Vec<_>>().join(", ")
    }

    /// All: name, unit, value.
    pub fn list(&self) -> Vec<(&'static str, &'static str, f64)> {
        self.0.clone()
    }
}

/// As gale's JSON has it.
fn key(name: &str) -> String {
    name.to_lowercase().replace("/s", "_per_s").replace("p99.9", "p999").replace(' ', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gale_measured_is_found_by_the_names_that_people_read() {
        let json =
            br#"{"measures": {"operations_per_s": 5.5, "p999": 7, "server_cpu_per_gib": 0.25, "else": 1}}"#;
        let measures = Measures::read(json).expect("measures");
        assert_eq!(
            measures.list(),
            [("operations/s", "1/s", 5.5), ("server CPU per GiB", "s", 0.25), ("p99.9", "us", 7.0)]
        );
        assert!(measures.of("p50").is_nan() && Measures::read(b"{}").is_none());
    }
}

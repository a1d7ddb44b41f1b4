//! What a measurement leaves behind: a table for people, JSON for programs, a row for a collection of runs.
//!
//! Invariant: all three tell the same numbers, and the row has the same columns whatever the mode.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::{
    cli::Load,
    clock::SECOND,
    run::{BUSY_MAX, Outcome},
};

/// One measurement and what it was.
pub struct Report {
    mode: &'static str,
    target: String,
    label: String,
    seed: u64,
    settings: Vec<(&'static str, String)>,
    /// What answers were checked for, in words.
    pub checked: String,
    /// What an operation is, and what latency measures.
    pub words: Words,
    /// What came of it.
    pub outcome: Outcome,
    /// Further measures: name, unit, value.
    pub extras: Vec<(&'static str, &'static str, f64)>,
    /// Further distributions, in nanoseconds.
    pub distributions: Vec<(&'static str, Histogram<u64>)>,
    /// What a reader of the numbers must know.
    pub warnings: Vec<String>,
}

/// What a mode calls things.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The operations, in the plural.
    pub operations: &'static str,
    /// What the latency is.
    pub latency: &'static str,
}

impl Words {
    /// Records that readers get.
    pub fn of_deliveries() -> Self {
        Self {
            operations: "deliveries, one record to one reader",
            latency: "from the time a record was due to the receive that brings its end",
        }
    }
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Report {
    /// One without settings of its own yet.
    pub fn new(mode: &'static str, target: &str, load: &Load, outcome: Outcome) -> Self {
        let mut report = Self {
            mode,
            target: target.into(),
            label: load.label.clone(),
            seed: load.seed,
            settings: Vec::new(),
            checked: String::new(),
            words: Words { operations: "requests", latency: "latency" },
            outcome,
            extras: Vec::new(),
            distributions: Vec::new(),
            warnings: Vec::new(),
        };
        let cores = load
            .cpu
            .as_ref()
            .map_or("any".into(), |cores| cores.0.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        report.say("threads", load.threads);
        report.say("cores", cores);
        report.say("warm-up", format!("{} s", load.warmup.as_secs_f64()));
        report.warn_of_limits();
        report
    }

    /// Says what it was instead.
    pub fn rename(&mut self, mode: &'static str, target: &str) {
        (self.mode, self.target) = (mode, target.into());
    }

    /// Adds a setting.
    pub fn say(&mut self, name: &'static str, value: impl ToString) {
        self.settings.push((name, value.to_string()));
    }

    /// Whether every check passed.
    pub fn is_right(&self) -> bool {
        self.outcome.tally.faults.total() == 0
    }

    fn warn_of_limits(&mut self) {
        let tally = &self.outcome.tally;
        let mut warnings = Vec::new();
        if self.outcome.was_the_limit() {
            let most = self.outcome.busy.iter().copied().fold(0.0, f64::max);
            warnings.push(format!(
                "gale was the limit: a thread was {:.0} % busy, above {:.0} %",
                100.0 * most,
                100.0 * BUSY_MAX
            ));
        }
        if tally.unsent > 0 {
            warnings.push(format!(
                "{} operations fell due and were not sent in the window: every connection was waiting. They count \
                 in the latency with what they had waited at its end",
                tally.unsent
            ));
        }
        if self.outcome.servers.is_some_and(|spent| !spent.exact) {
            warnings
                .push("threads of the server ended meanwhile: its CPU time is counted in clock ticks".into());
        }
        if tally.operations == 0 {
            warnings.push("nothing was finished within the window".into());
        }
        self.warnings.extend(warnings);
    }

    /// All measures in order: name, unit, value.
    fn measures(&self) -> Vec<(String, &'static str, f64)> {
        let tally = &self.outcome.tally;
        let seconds = self.outcome.seconds();
        let operations = tally.operations as f64;
        let mut all = vec![
            ("window".to_owned(), "s", seconds),
            ("operations".to_owned(), "", operations),
            ("operations/s".to_owned(), "1/s", operations / seconds),
            ("payload/s".to_owned(), "B/s", tally.payload as f64 / seconds),
            ("in/s".to_owned(), "B/s", tally.bytes_in as f64 / seconds),
            ("out/s".to_owned(), "B/s", tally.bytes_out as f64 / seconds),
        ];
        all.extend(quantiles("", &tally.latency));
        all.push(("late p99".to_owned(), "us", micros(tally.late.value_at_quantile(0.99))));
        all.push(("unsent".to_owned(), "", tally.unsent as f64));
        all.push(("reconnects".to_owned(), "", tally.reconnects as f64));
        all.push(("errors".to_owned(), "", tally.faults.total() as f64));
        let gib = tally.payload as f64 / f64::from(1 << 30);
        let mut spent = |whose: &str, nanos: f64| {
            all.push((format!("{whose} CPU"), "cores", nanos / (seconds * SECOND as f64)));
            all.push((format!("{whose} CPU per operation"), "us", nanos / 1e3 / operations));
            all.push((format!("{whose} CPU per GiB"), "s", nanos / SECOND as f64 / gib));
        };
        if let Some(servers) = self.outcome.servers {
            spent("server", servers.nanos as f64);
        }
        spent("gale", tally.cpu as f64);
        all.push((
            "gale busiest thread".to_owned(),
            "%",
            100.0 * self.outcome.busy.iter().copied().fold(0.0, f64::max),
        ));
        for (name, histogram) in &self.distributions {
            all.extend(quantiles(name, histogram));
        }
        all.extend(self.extras.iter().map(|(name, unit, value)| ((*name).to_owned(), *unit, *value)));
        // Nothing divided by nothing is no measure.
        all.retain(|(_, _, value)| value.is_finite());
        all
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{} {}\n", self.mode, self.target);
        let settings: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        _ = writeln!(text, "  {}", settings.join("; "));
        _ = writeln!(text, "  operations are {}; latency is {}", self.words.operations, self.words.latency);
        _ = writeln!(text, "  checked: {}", self.checked);
        for (name, unit, value) in self.measures() {
            let (value, unit) = readable(value, unit);
            _ = writeln!(text, "{name:>28}  {value:>14} {unit}");
        }
        for (kind, count, words) in self.outcome.tally.faults.iter() {
            _ = writeln!(text, "ERROR {kind}: {count} times; the first: {words}");
        }
        self.warnings.iter().for_each(|warning| _ = writeln!(text, "WARNING {warning}"));
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let measures: Map<String, Value> =
            self.measures().into_iter().map(|(name, _, value)| (key(&name), json!(value))).collect();
        let faults: Vec<Value> = self
            .outcome
            .tally
            .faults
            .iter()
            .map(|(kind, count, words)| json!({"kind": kind.to_string(), "count": count, "first": words}))
            .collect();
        let settings: Map<String, Value> =
            self.settings.iter().map(|(name, value)| (key(name), json!(value))).collect();
        json!({
            "mode": self.mode,
            "target": self.target,
            "label": self.label,
            "seed": self.seed,
            "settings": settings,
            "checked": self.checked,
            "ok": self.is_right(),
            "measures": measures,
            "faults": faults,
            "gale_was_the_limit": self.outcome.was_the_limit(),
            "warnings": self.warnings,
        })
    }

    /// For a collection: the header and the row.
    fn row(&self) -> (String, String) {
        const COLUMNS: [&str; 23] = [
            "window",
            "operations",
            "operations/s",
            "payload/s",
            "in/s",
            "out/s",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "mean",
            "late p99",
            "unsent",
            "reconnects",
            "errors",
            "server CPU",
            "server CPU per operation",
            "server CPU per GiB",
            "gale CPU",
            "gale CPU per operation",
            "gale CPU per GiB",
            "gale busiest thread",
        ];
        let measures = self.measures();
        let mut header: Vec<String> =
            ["label", "mode", "target", "seed", "settings"].map(String::from).to_vec();
        let settings: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut row = vec![
            self.label.clone(),
            self.mode.into(),
            self.target.clone(),
            self.seed.to_string(),
            settings.join("; "),
        ];
        for column in COLUMNS {
            header.push(key(column));
            let found = measures.iter().find(|(name, ..)| *name == column);
            row.push(found.map_or(String::new(), |(_, _, value)| value.to_string()));
        }
        let others = measures.iter().filter(|(name, ..)| !COLUMNS.contains(&name.as_str()));
        let others: Vec<String> = others.map(|(name, _, value)| format!("{}={value}", key(name))).collect();
        header.extend(["extras".to_owned(), "warnings".to_owned()]);
        row.extend([others.join("; "), self.warnings.join("; ")]);
        let line =
            |cells: Vec<String>| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\n";
        (line(header), line(row))
    }

    /// Writes the files that were asked for.
    pub fn keep(&self, load: &Load) -> Result<(), String> {
        let named = |path: &Path| {
            let path = path.display().to_string();
            move |why: std::io::Error| format!("{path}: {why}")
        };
        if let Some(path) = &load.json {
            let text = serde_json::to_string_pretty(&self.json()).map_err(|why| why.to_string())?;
            fs::write(path, text + "\n").map_err(named(path))?;
        }
        if let Some(path) = &load.csv {
            let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(named(path))?;
            let is_new = file.metadata().map_err(named(path))?.len() == 0;
            let (header, row) = self.row();
            let text = if is_new { header + &row } else { row };
            file.write_all(text.as_bytes()).map_err(named(path))?;
        }
        Ok(())
    }
}

fn quantiles(of: &str, histogram: &Histogram<u64>) -> Vec<(String, &'static str, f64)> {
    let name = |what: &str| if of.is_empty() { what.to_owned() } else { format!("{of} {what}") };
    if histogram.is_empty() {
        return Vec::new();
    }
    let at =
        |(what, quantile): (&str, f64)| (name(what), "us", micros(histogram.value_at_quantile(quantile)));
    let mut all: Vec<_> = QUANTILES.map(at).to_vec();
    all.push((name("max"), "us", micros(histogram.max())));
    all.push((name("mean"), "us", histogram.mean() / 1e3));
    all
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// `operations/s` as a name in a program: `operations_per_s`.
fn key(name: &str) -> String {
    let key = name.to_lowercase().replace("/s", "_per_s").replace("p99.9", "p999");
    key.replace([' ', '-'], "_")
}

/// With digits that matter, and grouped.
fn readable(value: f64, unit: &'static str) -> (String, &'static str) {
    let (value, unit) = match unit {
        "B/s" => (value / f64::from(1 << 20), "MiB/s"),
        unit => (value, unit),
    };
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size >= 1_000.0 => 0,
        size if size >= 10.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at) % 3 == 0 && digit.is_ascii_digit() && &whole[..at] != "-" {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push('.');
        grouped += fraction;
    }
    (grouped, unit)
}

/// A cell as RFC 4180 has it.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read_aloud() {
        let read = |value, unit| {
            let (value, unit) = readable(value, unit);
            format!("{value} {unit}")
        };
        assert_eq!(read(1_234_567.8, "1/s"), "1,234,568 1/s");
        assert_eq!(read(12.34, "us"), "12.3 us");
        assert_eq!(read(0.0123, "us"), "0.012 us");
        assert_eq!(read(5.0, ""), "5 ");
        assert_eq!(read(f64::from(3 << 20), "B/s"), "3 MiB/s");
    }

    #[test]
    fn names_become_keys_and_cells_keep_their_commas() {
        assert_eq!(key("server CPU per GiB"), "server_cpu_per_gib");
        assert_eq!((key("operations/s"), key("p99.9")), ("operations_per_s".into(), "p999".into()));
        assert_eq!((quoted("a,\"b\""), quoted("a b")), ("\"a,\"\"b\"\"\"".into(), "a b".into()));
    }
}

//! What a run leaves behind: `README.md` for people, `raw.csv` of every round, `summary.md` over all of them, and
//! `ratios.svg` where there are ratios.
//!
//! Invariant: the summary is computed from the rows that are kept, so anyone can compute it again.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    machine::{self, Machine},
    plot,
};

/// Everything about one run.
pub struct Record {
    name: &'static str,
    title: &'static str,
    purpose: String,
    checked: Vec<String>,
    remarks: Vec<String>,
    rows: Vec<Row>,
    limits: Vec<Limit>,
}

struct Row {
    case: String,
    round: u32,
    measure: &'static str,
    unit: &'static str,
    value: f64,
}

/// Something that the run must keep.
struct Limit {
    what: String,
    value: f64,
    bound: Bound,
    unit: &'static str,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// Where it lies.
    pub fn value(self) -> f64 {
        match self {
            Self::AtLeast(value) | Self::AtMost(value) => value,
        }
    }

    /// Nothing that is not a number is kept.
    fn is_kept(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::AtLeast(_) => "at least",
            Self::AtMost(_) => "at most",
        }
    }
}

impl Record {
    /// An empty one.
    pub fn new(name: &'static str, title: &'static str, purpose: impl Into<String>) -> Self {
        Self {
            name,
            title,
            purpose: purpose.into(),
            checked: Vec::new(),
            remarks: Vec::new(),
            rows: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Says what was checked, and held.
    pub fn checked(&mut self, what: impl Into<String>) {
        self.checked.push(what.into());
    }

    /// Says something that a reader of the numbers must know.
    pub fn remark(&mut self, what: impl Into<String>) {
        self.remarks.push(what.into());
    }

    /// Adds what one round gave, and shows it.
    pub fn round(&mut self, case: &str, round: u32, measures: &[(&'static str, &'static str, f64)]) {
        let shown: Vec<String> = measures
            .iter()
            .map(|(measure, unit, value)| format!("{measure} {} {unit}", number(*value)))
            .collect();
        println!("{case}, round {round}: {}", shown.join(", "));
        self.add(case, round, measures);
    }

    /// Adds what one round gave.
    pub fn add(&mut self, case: &str, round: u32, measures: &[(&'static str, &'static str, f64)]) {
        let rows = measures.iter().map(|(measure, unit, value)| Row {
            case: case.to_owned(),
            round,
            measure,
            unit,
            value: *value,
        });
        self.rows.extend(rows);
    }

    /// The cases so far, in the order of their first round.
    pub fn cases(&self) -> Vec<String> {
        distinct(self.rows.iter().map(|row| row.case.as_str())).into_iter().map(str::to_owned).collect()
    }

    /// Holds the largest value of a measure over all rounds of the cases that begin so against a limit.
    pub fn largest_at_most(&mut self, cases: &str, measure: &str, at_most: f64) {
        self.hold("largest", cases, measure, Bound::AtMost(at_most), |values| values.last().copied());
    }

    /// Holds the median of a measure over all rounds of the cases that begin so against a limit.
    pub fn median_at_most(&mut self, cases: &str, measure: &str, at_most: f64) {
        self.hold_median(cases, measure, Bound::AtMost(at_most));
    }

    /// The same against any limit.
    pub fn hold_median(&mut self, cases: &str, measure: &str, bound: Bound) {
        self.hold("median", cases, measure, bound, |values| Some(median(values)));
    }

    /// Holds a value that is in no row.
    pub fn hold_value(&mut self, what: String, value: f64, bound: Bound, unit: &'static str) {
        self.limits.push(Limit { what, value, bound, unit });
    }

    fn hold(&mut self, kind: &str, cases: &str, measure: &str, bound: Bound, of: fn(&[f64]) -> Option<f64>) {
        let rows = || self.rows.iter().filter(|row| row.case.starts_with(cases) && row.measure == measure);
        let value = of(&sorted(rows().map(|row| row.value))).expect("the measure was taken");
        let unit = rows().next().map_or("", |row| row.unit);
        self.hold_value(limit_name(kind, cases, measure), value, bound, unit);
    }

    /// Writes the files; an error when a limit was missed.
    pub fn keep(&self, root: &Path, record: bool, command: &str, machine: &Machine) -> io::Result<()> {
        let date = machine::today();
        let folder: PathBuf =
            root.join(if record { "perf/runs" } else { "target/perf" }).join(format!("{date}-{}", self.name));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("README.md"), self.readme(&date, command, &machine.describe()?))?;
        fs::write(folder.join("raw.csv"), self.raw())?;
        fs::write(folder.join("summary.md"), self.summary())?;
        if let Some(picture) = self.picture() {
            fs::write(folder.join("ratios.svg"), picture)?;
        }
        println!("kept in {}", folder.strip_prefix(root).unwrap_or(&folder).display());
        let missed = self.missed();
        match missed.is_empty() {
            true => Ok(()),
            false => Err(io::Error::other(format!("limits missed: {}", missed.join("; ")))),
        }
    }

    fn missed(&self) -> Vec<String> {
        let missed = self.limits.iter().filter(|limit| !limit.bound.is_kept(limit.value));
        missed
            .map(|limit| {
                let Limit { what, value, bound, unit } = limit;
                let side = if matches!(bound, Bound::AtMost(_)) { "above" } else { "below" };
                format!("{what} is {} {unit}, {side} {}", number(*value), number(bound.value()))
            })
            .collect()
    }

    /// All ratios as a picture, if there are any.
    fn picture(&self) -> Option<String> {
        let ratios = || self.rows.iter().filter(|row| row.unit == RATIO);
        let mut rows = Vec::new();
        for case in distinct(ratios().map(|row| row.case.as_str())) {
            let of_case = || ratios().filter(|row| row.case == case);
            for measure in distinct(of_case().map(|row| row.measure)) {
                let ratios = sorted(of_case().filter(|row| row.measure == measure).map(|row| row.value));
                let name = limit_name("median", case, measure);
                let goal =
                    self.limits.iter().find(|limit| limit.what == name).map(|limit| limit.bound.value());
                rows.push(plot::Row {
                    label: format!("{case}: {measure}"),
                    median: median(&ratios),
                    ratios,
                    goal,
                });
            }
        }
        (!rows.is_empty()).then(|| plot::svg(&format!("{}: ratios of pairs", self.title), &rows))
    }

    fn readme(&self, date: &str, command: &str, machine: &[(&str, String)]) -> String {
        let mut page = format!("# {}, {date}\n\n{}\n\n", self.title, self.purpose);
        page.push_str("| | |\n|---|---|\n");
        for (name, value) in machine {
            _ = writeln!(page, "| {name} | {value} |");
        }
        _ = writeln!(page, "| command | `{command}` |");
        section(&mut page, "How it was done", &self.remarks, "");
        section(&mut page, "What was checked", &self.checked, "Nothing but the limits.");
        page.push_str("\n## Result\n\nAll rounds: [raw.csv](raw.csv). Medians: [summary.md](summary.md).\n");
        if self.rows.iter().any(|row| row.unit == RATIO) {
            page.push_str(
                "\n![Ratios of all pairs; a triangle is what the median has to reach](ratios.svg)\n",
            );
        }
        if !self.limits.is_empty() {
            page.push_str("\n| limit | value | must be | |\n|---|---:|---:|---|\n");
        }
        for Limit { what, value, bound, unit } in &self.limits {
            let verdict = if bound.is_kept(*value) { "kept" } else { "missed" };
            let (value, limit) = (number(*value), number(bound.value()));
            _ = writeln!(page, "| {what} | {value} {unit} | {} {limit} {unit} | {verdict} |", bound.words());
        }
        section(&mut page, "Where it lost", &self.missed(), "No limit was missed.");
        page
    }

    fn raw(&self) -> String {
        let mut text = String::from("case,round,measure,unit,value\n");
        for row in &self.rows {
            let (case, measure) = (field(&row.case), field(row.measure));
            _ = writeln!(text, "{case},{},{measure},{},{}", row.round, row.unit, row.value);
        }
        text
    }

    fn summary(&self) -> String {
        let mut page = format!("# {}: medians\n", self.title);
        for case in distinct(self.rows.iter().map(|row| row.case.as_str())) {
            _ = writeln!(page, "\n## {case}\n\n| measure | unit | rounds | median | min | max |");
            page.push_str("|---|---|---:|---:|---:|---:|\n");
            let rows = || self.rows.iter().filter(|row| row.case == case);
            for measure in distinct(rows().map(|row| row.measure)) {
                let of_measure = || rows().filter(|row| row.measure == measure);
                let values = sorted(of_measure().map(|row| row.value));
                let unit = of_measure().next().map_or("", |row| row.unit);
                let (least, most) = (values[0], values[values.len() - 1]);
                let [middle, least, most] = [median(&values), least, most].map(number);
                _ = writeln!(page, "| {measure} | {unit} | {} | {middle} | {least} | {most} |", values.len());
            }
        }
        page
    }
}

/// The unit of what a picture is made of.
pub const RATIO: &str = "ratio";

fn limit_name(kind: &str, cases: &str, measure: &str) -> String {
    if cases.is_empty() { format!("{kind} {measure}") } else { format!("{cases}: {kind} {measure}") }
}

fn section(page: &mut String, title: &str, lines: &[String], otherwise: &str) {
    if lines.is_empty() && otherwise.is_empty() {
        return;
    }
    _ = writeln!(page, "\n## {title}\n");
    for line in lines {
        _ = writeln!(page, "- {line}");
    }
    if lines.is_empty() {
        _ = writeln!(page, "{otherwise}");
    }
}

/// In the order of their first appearance.
fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for word in words {
        if !found.contains(&word) {
            found.push(word);
        }
    }
    found
}

/// In the order of their size.
pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of sorted values; the mean of the middle two where there are two.
pub fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// With as many places as the size deserves.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A field of a CSV file, RFC 4180: in quotes where it has to be.
fn field(text: &str) -> String {
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record::new("test", "A test", "Shows how.");
        for (round, value) in [3.0, 1.0, 8.0, 2.5].into_iter().enumerate() {
            record.round("case a", round as u32, &[("delay", "ms", value)]);
        }
        record.round("case b", 0, &[("delay", "ms", 20.0)]);
        record
    }

    #[test]
    fn the_summary_has_median_least_and_most_of_each_case() {
        let page = record().summary();
        assert!(page.contains("| delay | ms | 4 | 2.75 | 1 | 8 |"), "{page}");
        assert!(page.contains("| delay | ms | 1 | 20 | 20 | 20 |"), "{page}");
        assert!(record().raw().contains("case a,3,delay,ms,2.5\n"));
    }

    #[test]
    fn a_missed_limit_is_named_and_a_kept_one_is_not() {
        let mut record = record();
        record.largest_at_most("case a", "delay", 8.0);
        assert!(record.missed().is_empty());
        record.median_at_most("case", "delay", 2.9);
        assert_eq!(record.missed(), ["case: median delay is 3 ms, above 2.90"]);
        let page = record.readme("2026-01-02", "cargo x", &[("kernel", "6".into())]);
        assert!(page.contains("| case: median delay | 3 ms | at most 2.90 ms | missed |"), "{page}");
        assert!(page.contains("| case a: largest delay | 8 ms | at most 8 ms | kept |"), "{page}");
    }

    #[test]
    fn what_is_no_number_keeps_no_limit() {
        for bound in [Bound::AtLeast(1.0), Bound::AtMost(1.0)] {
            assert!(bound.is_kept(1.0) && !bound.is_kept(f64::NAN));
        }
        assert!(!Bound::AtLeast(1.0).is_kept(0.5) && !Bound::AtMost(1.0).is_kept(1.5));
    }

    #[test]
    fn ratios_make_a_picture_and_other_measures_do_not() {
        let mut record = record();
        assert_eq!(record.picture(), None);
        record.round("case c", 0, &[("delay", RATIO, 0.5)]);
        record.hold_median("case c", "delay", Bound::AtMost(0.8));
        assert!(record.picture().is_some_and(|picture| picture.contains("goal 0.8")));
        assert!(record.readme("2026-01-02", "cargo x", &[]).contains("ratios.svg"));
    }

    #[test]
    fn a_field_with_a_comma_is_quoted() {
        assert_eq!(field("pairs at 1000/s"), "pairs at 1000/s");
        assert_eq!(field("pairs, \"one\" paused"), "\"pairs, \"\"one\"\" paused\"");
    }
}

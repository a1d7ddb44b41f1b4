//! Reads a page in the Prometheus text format 0.0.4, and refuses whatever a scraper might.

use std::collections::{BTreeMap, BTreeSet};

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    /// Type by family.
    pub types: BTreeMap<String, String>,
    /// Families with a help text.
    pub helps: BTreeSet<String>,
    /// Every sample: name, labels, value.
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Page {
    /// Parses strictly; a page that breaks a rule of the format fails the test.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        Self::try_parse(text).unwrap_or_else(|why| panic!("/metrics: {why}"))
    }

    fn try_parse(text: &str) -> Result<Self, String> {
        if !text.ends_with('\n') {
            return Err("the last line has no line feed".to_owned());
        }
        let mut page = Self::default();
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (family, help) = rest.split_once(' ').ok_or_else(|| format!("no help text: {line}"))?;
                if help.trim().is_empty() || !page.helps.insert(family.to_owned()) {
                    return Err(format!("help missing or twice: {line}"));
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (family, kind) = rest.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
                if !matches!(kind, "counter" | "gauge" | "histogram" | "summary" | "untyped") {
                    return Err(format!("unknown type: {line}"));
                }
                if page.samples.iter().any(|(name, ..)| family_of(name, &page.types) == family) {
                    return Err(format!("a type behind its samples: {line}"));
                }
                if page.types.insert(family.to_owned(), kind.to_owned()).is_some() {
                    return Err(format!("a type twice: {line}"));
                }
            } else if !line.starts_with('#') && !line.is_empty() {
                let (name, labels, value) = sample(line)?;
                if !seen.insert((name.clone(), labels.clone())) {
                    return Err(format!("a sample twice: {line}"));
                }
                let family = family_of(&name, &page.types);
                if !page.types.contains_key(&family) || !page.helps.contains(&family) {
                    return Err(format!("a sample without type and help: {line}"));
                }
                page.samples.push((name, labels, value));
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    /// The sum of a metric over all its labels; a metric that is not there fails the test.
    #[track_caller]
    pub fn sum(&self, name: &str) -> f64 {
        self.sum_where(name, &[])
    }

    /// The sum of a metric over the samples with these labels.
    #[track_caller]
    pub fn sum_where(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let named: Vec<_> = self.samples.iter().filter(|(other, ..)| other == name).collect();
        assert!(!named.is_empty(), "/metrics has no {name}");
        let fits = |have: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| have.get(*label).map(String::as_str) == Some(value))
        };
        named.iter().filter(|(_, have, _)| fits(have)).map(|(.., value)| value).sum()
    }

    /// Buckets grow, end in `+Inf`, and agree with the count.
    fn check_histograms(&self) -> Result<(), String> {
        for family in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(family, _)| family) {
            let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
            for (_, labels, value) in
                self.samples.iter().filter(|(name, ..)| *name == format!("{family}_bucket"))
            {
                let mut labels = labels.clone();
                let edge = labels.remove("le").ok_or_else(|| format!("{family}: a bucket without le"))?;
                let edge = number(&edge).ok_or_else(|| format!("{family}: le=\"{edge}\""))?;
                series.entry(labels).or_default().push((edge, *value));
            }
            for (labels, buckets) in series {
                if !buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
                    return Err(format!("{family}{labels:?}: buckets do not grow"));
                }
                let count = self
                    .samples
                    .iter()
                    .find(|(name, have, _)| *name == format!("{family}_count") && *have == labels);
                let count = count.ok_or_else(|| format!("{family}{labels:?}: no count"))?.2;
                if buckets.last() != Some(&(f64::INFINITY, count)) {
                    return Err(format!("{family}{labels:?}: the last bucket is not +Inf with the count"));
                }
                if !self
                    .samples
                    .iter()
                    .any(|(name, have, _)| *name == format!("{family}_sum") && *have == labels)
                {
                    return Err(format!("{family}{labels:?}: no sum"));
                }
            }
        }
        Ok(())
    }
}

/// The family a sample belongs to: a histogram's samples carry a suffix.
fn family_of(name: &str, types: &BTreeMap<String, String>) -> String {
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some(family) = name.strip_suffix(suffix)
            && matches!(types.get(family).map(String::as_str), Some("histogram" | "summary"))
        {
            return family.to_owned();
        }
    }
    name.to_owned()
}

type Sample = (String, BTreeMap<String, String>, f64);

fn sample(line: &str) -> Result<Sample, String> {
    let wrong = |what: &str| format!("{what}: {line}");
    let name_len =
        line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len());
    let (name, mut rest) = line.split_at(name_len);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong("not a metric name"));
    }
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or_else(|| wrong("not a label"))?;
            let first = |c: char| c.is_ascii_alphabetic() || c == '_';
            if !label.starts_with(first) || !label.chars().all(|c| first(c) || c.is_ascii_digit()) {
                return Err(wrong("not a label name"));
            }
            let (value, after) = label_value(after).ok_or_else(|| wrong("not a label value"))?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(wrong("a label twice"));
            }
            rest = match after.strip_prefix(',') {
                Some(after) => after,
                None if after.starts_with('}') => after,
                None => return Err(wrong("neither a comma nor a brace behind a label")),
            };
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').and_then(number).ok_or_else(|| wrong("not a value"))?;
    Ok((name.to_owned(), labels, value))
}

fn label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        text if text.contains(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))) => None,
        text => text.parse().ok(),
    }
}

//! The little YAML that a flat file of settings has: keys with one value or a list of them.
//!
//! Invariant: what is not of this kind is refused with its line, never read as something else. A whole YAML reader
//! would be a hundred times this, for files with ten lines. Pure.

/// What stands behind a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Nothing, or `~`, or `null`.
    Null,
    /// One value, without its quotes.
    One(String),
    /// `- a` lines, or `[a, b]`.
    List(Vec<String>),
}

/// Keys and values in the order of the file.
pub fn parse(text: &str) -> Result<Vec<(String, Value)>, String> {
    let mut found: Vec<(String, Value)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = |what: &str| format!("line {}: {what}", index + 1);
        let line = without_comment(line);
        if line.is_empty() || line == "---" {
            continue;
        }
        let item = line.trim_start();
        if let Some(item) = item.strip_prefix("- ") {
            let Some((_, value @ (Value::Null | Value::List(_)))) = found.last_mut() else {
                return Err(at("an item of no list"));
            };
            let item = scalar(item).ok_or_else(|| at("an item that is not one plain value"))?;
            match value {
                Value::List(items) => items.push(item),
                value => *value = Value::List(vec![item]),
            }
            continue;
        }
        if item.len() != line.len() {
            return Err(at("a key within a key"));
        }
        let (key, value) = match line.split_once(": ") {
            Some(pair) => pair,
            None => (line.strip_suffix(':').ok_or_else(|| at("neither `key: value` nor `- item`"))?, ""),
        };
        let key = scalar(key.trim_end()).ok_or_else(|| at("a key that is not a plain word"))?;
        if found.iter().any(|(known, _)| *known == key) {
            return Err(at("a key that was there before"));
        }
        found.push((
            key,
            value_of(value.trim()).ok_or_else(|| at("a value that is neither plain nor a list"))?,
        ));
    }
    Ok(found)
}

/// The line up to a `#` at its start or behind a space, unless it is quoted.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, char) in line.char_indices() {
        match (quote, char) {
            (None, '#') if before.is_whitespace() => return line[..at].trim_end(),
            // A quote inside a word is an apostrophe.
            (None, '\'' | '"') if !before.is_alphanumeric() => quote = Some(char),
            (Some(open), char) if open == char => quote = None,
            _ => {}
        }
        before = char;
    }
    line.trim_end()
}

fn value_of(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" => return Some(Value::Null),
        _ => {}
    }
    let Some(list) = text.strip_prefix('[') else { return scalar(text).map(Value::One) };
    let list = list.strip_suffix(']')?;
    if list.trim().is_empty() {
        return Some(Value::List(Vec::new()));
    }
    list.split(',').map(|item| scalar(item.trim())).collect::<Option<_>>().map(Value::List)
}

/// A plain or quoted value; nothing for all that YAML gives a meaning of its own.
fn scalar(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('\'') {
        let inner = inner.strip_suffix('\'')?;
        let plain = inner.replace("''", "");
        return (!plain.contains('\'')).then(|| inner.replace("''", "'"));
    }
    if let Some(inner) = text.strip_prefix('"') {
        let inner = inner.strip_suffix('"')?;
        return (!inner.contains(['"', '\\'])).then(|| inner.to_owned());
    }
    let special =
        text.starts_with(['&', '*', '!', '|', '>', '{', '}', '[', ']', '%', '@', '`', '?', '"', '\'', ',']);
    (!text.is_empty() && !special && !text.contains(": ") && !text.ends_with(':')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flat_files_are_read() {
        let text = "---\n# first\na: 1 # one\nb: 'it''s # here'\nc:\n  - x\n  - \"y z\"\nd: [p, 'q']\ne: ~\nf:\ng: a#b\nh: []\n'i j': http://k:1\n";
        let one = |text: &str| Value::One(text.into());
        let list = |items: &[&str]| Value::List(items.iter().map(|item| (*item).into()).collect());
        let expected = [
            ("a", one("1")),
            ("b", one("it's # here")),
            ("c", list(&["x", "y z"])),
            ("d", list(&["p", "q"])),
            ("e", Value::Null),
            ("f", Value::Null),
            ("g", one("a#b")),
            ("h", list(&[])),
            ("i j", one("http://k:1")),
        ];
        assert_eq!(parse(text).unwrap(), expected.map(|(key, value)| (key.to_owned(), value)));
    }

    #[test]
    fn everything_else_is_refused_with_its_line() {
        for bad in [
            "a:\n  b: 1",
            "- a",
            "a: 1\n- b",
            "a: &x 1",
            "a: |\n  b",
            "a: {b: 1}",
            "a",
            "a: [b",
            "a: 'b",
            "a: \"b\\n\"",
            "a: 1\na: 2",
            "a: [[b]]",
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.starts_with("line "), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in any::<String>(), near in "[a: '\"#\\[\\],\\n-]{0,40}") {
            let _ = parse(&text);
            let _ = parse(&near);
        }
    }
}

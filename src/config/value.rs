//! Leaves: how a scalar, an optional one, a list or a map of them is read from a file or a text.
//!
//! Invariant: a value is refused with what is wrong and what would be right; one with
//! [`Scalar::SECRET`] is never part of the message.
//! Pure but for host names, which [`Listen`] looks up; runs while the configuration is read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use toml_edit::Item;

use super::choice::{
    Driver, Durability, Handler, Interrupted, LogFormat, LogLevel, Output, Share, VblobAuth,
};
use super::listen::Listen;
use super::secret::{REDACTED, Secret};
use super::sections::Kind;
use super::units::{ByteSize, Period};

/// What is wrong with one value, before anyone knows its key.
pub(super) struct Fault {
    pub(super) span: Option<Range<usize>>,
    pub(super) value: Option<String>,
    pub(super) problem: String,
    pub(super) accepted: String,
}

impl Fault {
    pub(super) fn new(value: Option<String>, problem: String, accepted: String) -> Self {
        Self { span: None, value, problem, accepted }
    }

    pub(super) fn secret(problem: &str, accepted: String) -> Self {
        Self::new(Some(REDACTED.to_owned()), problem.to_owned(), accepted)
    }

    pub(super) fn at(self, item: &Item) -> Self {
        Self { span: item.span(), ..self }
    }
}

/// A value, or everything that is wrong with it.
pub(super) type Checked<T> = Result<T, Vec<Fault>>;

/// A leaf: one scalar, an optional one, a list or a map of them.
pub(super) trait Value: Sized + PartialEq {
    /// Reads the form that a file has.
    fn from_item(item: &Item) -> Checked<Self>;

    /// Reads the form that variables and flags have.
    fn from_text(text: &str) -> Checked<Self>;

    /// What would be right.
    fn accepted() -> String;

    /// What a record gets when the key is not there; `None` where it must be.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Scalar> Value for T {
    fn from_item(item: &Item) -> Checked<Self> {
        let text = match (T::FORM, item) {
            (Form::Text, item) if item.is_str() => item.as_str().map(str::to_owned),
            (Form::Integer, item) => item.as_integer().map(|number| number.to_string()),
            (Form::Boolean, item) => item.as_bool().map(|yes| yes.to_string()),
            _ => None,
        };
        let Some(text) = text else {
            let problem = format!("expected {}, found {}", T::FORM.name(), article(item.type_name()));
            return Err(vec![Fault::new(Some(shown::<T>(item)), problem, T::accepted()).at(item)]);
        };
        T::parse(&text).map_err(|problem| {
            vec![Fault::new(Some(shown::<T>(item)), problem, <T as Scalar>::accepted()).at(item)]
        })
    }

    fn from_text(text: &str) -> Checked<Self> {
        T::parse(text).map_err(|problem| {
            let value = if T::SECRET { REDACTED.to_owned() } else { format!("{text:?}") };
            vec![Fault::new(Some(value), problem, <T as Scalar>::accepted())]
        })
    }

    fn accepted() -> String {
        <T as Scalar>::accepted()
    }
}

/// An empty text means that the key is not set.
impl<T: Scalar> Value for Option<T> {
    fn from_item(item: &Item) -> Checked<Self> {
        if item.as_str() == Some("") { Ok(None) } else { T::from_item(item).map(Some) }
    }

    fn from_text(text: &str) -> Checked<Self> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn accepted() -> String {
        <T as Scalar>::accepted()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Scalar> Value for Vec<T> {
    fn from_item(item: &Item) -> Checked<Self> {
        if T::ONE_IS_A_LIST && !item.is_array() {
            return T::from_item(item).map(|one| vec![one]);
        }
        let Some(array) = item.as_array() else {
            let problem = format!("expected a list, found {}", article(item.type_name()));
            return Err(vec![Fault::new(Some(shown::<T>(item)), problem, Self::accepted()).at(item)]);
        };
        gather(array.iter().map(|value| T::from_item(&spanned(value))))
    }

    fn from_text(text: &str) -> Checked<Self> {
        gather(split_list(text).map(T::from_text))
    }

    fn accepted() -> String {
        match T::ONE_IS_A_LIST {
            true => format!("{}, or a list of them", <T as Scalar>::accepted()),
            false => format!("a list of: {}", <T as Scalar>::accepted()),
        }
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<T: Scalar> Value for BTreeMap<String, T> {
    fn from_item(item: &Item) -> Checked<Self> {
        let Some(table) = item.as_table_like() else {
            let problem = format!("expected a table, found {}", article(item.type_name()));
            return Err(vec![Fault::new(Some(shown::<T>(item)), problem, Self::accepted()).at(item)]);
        };
        gather(table.iter().map(|(name, item)| Ok((name.to_owned(), T::from_item(item)?))))
    }

    fn from_text(text: &str) -> Checked<Self> {
        gather(split_list(text).map(|part| match part.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), T::from_text(value)?)),
            _ => {
                let problem = "not name=value".to_owned();
                let accepted = "name=value pairs, separated by commas".to_owned();
                Err(vec![Fault::new(Some(format!("{part:?}")), problem, accepted)])
            }
        }))
    }

    fn accepted() -> String {
        format!("a table of names, each with {}", <T as Scalar>::accepted())
    }
}

/// How a scalar is written in a file.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text,
    Integer,
    Boolean,
}

impl Form {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
        }
    }
}

/// A value without parts.
pub(super) trait Scalar: Sized + PartialEq {
    const FORM: Form = Form::Text;
    /// Never to be shown.
    const SECRET: bool = false;
    /// A key with a list of these also takes a single one.
    const ONE_IS_A_LIST: bool = false;

    /// What would be right.
    fn accepted() -> String;

    /// Parses the text; the error says what is wrong with it.
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! choices {
    ($($name:ident),+) => {
        $(
            impl Scalar for $name {
                fn accepted() -> String {
                    $name::WORDS.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
                }

                fn parse(text: &str) -> Result<Self, String> {
                    $name::from_word(text).ok_or_else(|| match nearest(text, $name::WORDS.iter().copied()) {
                        Some(word) => format!("unknown word, did you mean {word:?}?"),
                        None => "unknown word".to_owned(),
                    })
                }
            }
        )+
    };
}

choices!(Driver, Durability, Handler, Interrupted, LogFormat, LogLevel, Output, Share, VblobAuth);

macro_rules! integers {
    ($($name:ident up to $max:expr),+) => {
        $(
            impl Scalar for $name {
                const FORM: Form = Form::Integer;

                fn accepted() -> String {
                    format!("a whole number from 0 to {}", $max)
                }

                fn parse(text: &str) -> Result<Self, String> {
                    let digits = text.strip_prefix('-').unwrap_or(text);
                    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                        return Err("not a whole number".to_owned());
                    }
                    let number: Option<$name> = text.parse().ok();
                    number.filter(|number| *number <= $max).ok_or_else(|| "out of range".to_owned())
                }
            }
        )+
    };
}

// TOML's integers are signed, and a variable shall take no more than a file does.
// Only `shards` is as small as this; no machine we run on has more cores.
integers!(u16 up to 1024, u32 up to u32::MAX, u64 up to i64::MAX as u64);

impl Scalar for bool {
    const FORM: Form = Form::Boolean;

    fn accepted() -> String {
        "true or false".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not a boolean".to_owned())
    }
}

impl Scalar for String {
    fn accepted() -> String {
        "a string".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Scalar for PathBuf {
    fn accepted() -> String {
        "a path".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("the path is empty".to_owned()),
            text if text.contains('\0') => Err("the path holds a zero byte".to_owned()),
            text => Ok(Self::from(text)),
        }
    }
}

impl Scalar for Secret {
    const SECRET: bool = true;

    fn accepted() -> String {
        "a string that is not empty".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("empty".to_owned()) } else { Ok(Self::new(text)) }
    }
}

impl Scalar for ByteSize {
    fn accepted() -> String {
        Self::ACCEPTED.to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: super::UnitError| error.to_string())
    }
}

impl Scalar for Period {
    fn accepted() -> String {
        Self::ACCEPTED.to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: super::UnitError| error.to_string())
    }
}

impl Scalar for Listen {
    const ONE_IS_A_LIST: bool = true;

    fn accepted() -> String {
        Self::ACCEPTED.to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }
}

impl Scalar for Kind {
    const FORM: Form = Form::Integer;

    fn accepted() -> String {
        Self::KNOWN.map(|kind| kind.0.to_string()).join(", ")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let kind = text.parse().ok().map(Self);
        kind.filter(|kind| Self::KNOWN.contains(kind)).ok_or_else(|| "no such kind".to_owned())
    }
}

/// Parts between commas, without the spaces around them; an empty text has none.
pub(super) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let parts = if text.trim().is_empty() { None } else { Some(text.split(',').map(str::trim)) };
    parts.into_iter().flatten()
}

/// All values, or all mistakes.
pub(super) fn gather<T, C: FromIterator<T>>(parts: impl Iterator<Item = Checked<T>>) -> Checked<C> {
    let mut faults = Vec::new();
    let values: Vec<T> =
        parts.filter_map(|part| part.map_err(|mut found| faults.append(&mut found)).ok()).collect();
    if faults.is_empty() { Ok(values.into_iter().collect()) } else { Err(faults) }
}

/// An array's value as an item; a clone keeps its span.
pub(super) fn spanned(value: &toml_edit::Value) -> Item {
    Item::Value(value.clone())
}

/// A value as its file has it, on one line and not too long.
fn shown<T: Scalar>(item: &Item) -> String {
    if T::SECRET {
        return REDACTED.to_owned();
    }
    let text = match item {
        item if item.is_str() => format!("{:?}", item.as_str().unwrap_or_default()),
        // Without the blanks and comments around it.
        Item::Value(value) => value.clone().decorated("", "").to_string(),
        item => item.to_string(),
    };
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

const SHOWN_CHARS_MAX: usize = 80;

pub(super) fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The word that a typing mistake or two lead away from.
pub(super) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let mistakes_max = (text.chars().count() / 3).max(1);
    let distance = |word: &&str| strsim::damerau_levenshtein(text, word);
    words.min_by_key(distance).filter(|word| distance(word) <= mistakes_max)
}

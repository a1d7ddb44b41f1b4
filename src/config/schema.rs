//! How a declaration of keys becomes a reader of files, variables and flags.
//!
//! A *section* is a table with defaults, a *record* an element of an array of tables, a *value* a leaf.
//! Invariant: every source of a key is checked, also those that a stronger one overrides, and reading
//! goes on after a mistake, so that one run shows all of them.
//! Runs on the main thread, while the configuration is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml_edit::{Item, TableLike};

use super::diagnostic::{Diagnostic, Origin};
use super::sources::{File, Sources, variable_of};
use super::value::{Checked, Fault, Value, article, gather, nearest, spanned, split_list};

/// Declares a table of the file: its keys, their types and their defaults.
macro_rules! section {
    (
        $(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $ty:ty = $default:expr;)+ }
        $(beside { $(#[$extra_doc:meta])* $extra:ident: $extra_ty:ty })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[$doc])* pub $field: $ty,)+
            $($(#[$extra_doc])* pub $extra: $extra_ty,)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ $($extra: <$extra_ty>::default(),)? }
            }
        }

        impl $crate::config::schema::Node for $name {
            fn read(
                self,
                reader: &mut $crate::config::schema::Reader<'_>,
                key: &str,
                item: Option<&toml_edit::Item>,
            ) -> Self {
                let table = reader.table(key, item, &[$(stringify!($field)),+]);
                Self {
                    $($field: $crate::config::schema::Node::read(
                        self.$field,
                        reader,
                        &$crate::config::schema::join(key, stringify!($field)),
                        table.and_then(|table| table.get(stringify!($field))),
                    ),)+
                    $($extra: self.$extra,)?
                }
            }

            fn keys(key: &str, found: &mut Vec<String>) {
                $(<$ty as $crate::config::schema::Node>::keys(
                    &$crate::config::schema::join(key, stringify!($field)),
                    found,
                );)+
            }

            fn changes(&self, new: &Self, key: &str, found: &mut Vec<String>) {
                $($crate::config::schema::Node::changes(
                    &self.$field,
                    &new.$field,
                    &$crate::config::schema::join(key, stringify!($field)),
                    found,
                );)+
            }
        }
    };
}
pub(super) use section;

/// Declares an element of an array of tables. A key without `Option` or `Vec` is required.
macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $ty:ty;)+ } $(text $text:path)?) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$doc])* pub $field: $ty),+ }

        impl $crate::config::schema::Record for $name {
            const FROM_TEXT: Option<$crate::config::schema::ParseText<Self>> =
                $crate::config::schema::first_or_none!($($text)?);

            fn read(
                reader: &mut $crate::config::schema::Reader<'_>,
                key: &str,
                item: &toml_edit::Item,
            ) -> Option<Self> {
                let table = reader.table(key, Some(item), &[$(stringify!($field)),+])?;
                // Every field is read before the first missing one ends the record.
                $(let $field = reader.required::<$ty>(key, stringify!($field), item, table);)+
                Some(Self { $($field: $field?),+ })
            }
        }

        impl $crate::config::schema::Node for Vec<$name> {
            fn read(
                self,
                reader: &mut $crate::config::schema::Reader<'_>,
                key: &str,
                item: Option<&toml_edit::Item>,
            ) -> Self {
                reader.records(key, item).unwrap_or(self)
            }

            fn keys(key: &str, found: &mut Vec<String>) {
                if <$name as $crate::config::schema::Record>::FROM_TEXT.is_some() {
                    found.push(key.to_owned());
                }
            }

            fn changes(&self, new: &Self, key: &str, found: &mut Vec<String>) {
                if self != new {
                    found.push(key.to_owned());
                }
            }
        }
    };
}
pub(super) use record;

macro_rules! first_or_none {
    () => {
        None
    };
    ($some:path) => {
        Some($some)
    };
}
pub(super) use first_or_none;

/// Something with a key: a section, a list of records or a value.
pub(super) trait Node: Sized {
    /// Reads it from every source; `self` is the default.
    fn read(self, reader: &mut Reader<'_>, key: &str, item: Option<&Item>) -> Self;

    /// Names every key at or below `key` that a variable can set.
    fn keys(key: &str, found: &mut Vec<String>);

    /// Names every key at or below `key` whose value differs.
    fn changes(&self, new: &Self, key: &str, found: &mut Vec<String>);
}

impl<T: Value> Node for T {
    fn read(self, reader: &mut Reader<'_>, key: &str, item: Option<&Item>) -> Self {
        reader.value(key, item).unwrap_or(self)
    }

    fn keys(key: &str, found: &mut Vec<String>) {
        found.push(key.to_owned());
    }

    fn changes(&self, new: &Self, key: &str, found: &mut Vec<String>) {
        if self != new {
            found.push(key.to_owned());
        }
    }
}

/// Reads the short form of a record; the error says what would be right.
pub(super) type ParseText<T> = fn(&str) -> Result<T, String>;

/// An element of an array of tables.
pub(super) trait Record: Sized {
    /// How one element is written in a variable, where there is a way.
    const FROM_TEXT: Option<ParseText<Self>>;

    /// Reads it from its table; `None` after a mistake was noted.
    fn read(reader: &mut Reader<'_>, key: &str, item: &Item) -> Option<Self>;
}

/// `loom` and `listen` are `loom.listen`; the root has no name.
pub(super) fn join(key: &str, field: &str) -> String {
    if key.is_empty() { field.to_owned() } else { format!("{key}.{field}") }
}

/// Goes through the declared keys, collecting values' origins and mistakes.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    file: Option<&'a File>,
    /// Every key that a variable can set; also what suggestions are drawn from.
    known: &'a [String],
    pub(super) origins: BTreeMap<String, Origin>,
    pub(super) found: Vec<Diagnostic>,
    /// Keys that carry a default only because what was written is wrong.
    pub(super) failed: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources, file: Option<&'a File>, known: &'a [String]) -> Self {
        Self { sources, file, known, origins: BTreeMap::new(), found: Vec::new(), failed: BTreeSet::new() }
    }

    /// The table behind a section, after naming the keys in it that do not exist.
    pub(super) fn table<'i>(
        &mut self,
        key: &str,
        item: Option<&'i Item>,
        fields: &[&str],
    ) -> Option<&'i dyn TableLike> {
        let item = item?;
        let Some(table) = item.as_table_like() else {
            let problem = format!("expected a table, found {}", article(item.type_name()));
            let accepted = format!("a table with the keys {}", fields.join(", "));
            self.refuse(self.origin_of(item.span()), key, None, problem, accepted);
            return None;
        };
        for (name, item) in table.iter().filter(|(name, _)| !fields.contains(name)) {
            let span = table.key(name).and_then(|key| key.span()).or_else(|| item.span());
            self.found.push(Diagnostic::UnknownKey {
                origin: self.origin_of(span),
                key: join(key, name),
                suggestion: suggestion(key, name, fields, self.known),
                accepted: fields.join(", "),
            });
        }
        Some(table)
    }

    /// A value from the strongest source that has the key; every source is checked.
    fn value<T: Value>(&mut self, key: &str, item: Option<&Item>) -> Option<T> {
        let from_file = item.map(|item| (self.origin_of(item.span()), T::from_item(item)));
        let from_text = self
            .texts(key)
            .into_iter()
            .map(|(origin, text)| (origin, text.and_then(|text| T::from_text(&text))));
        let mut strongest = None;
        for (origin, read) in from_file.into_iter().chain(from_text) {
            strongest = self.keep(key, origin, read).or(strongest);
        }
        strongest
    }

    /// A list of records, from the file or, where they have a short form, from a variable.
    pub(super) fn records<T: Record>(&mut self, key: &str, item: Option<&Item>) -> Option<Vec<T>> {
        let mut strongest = None;
        if let Some(item) = item {
            let origin = self.origin_of(item.span());
            let items = elements(item).map_err(|()| {
                let problem = format!("expected a list of tables, found {}", article(item.type_name()));
                vec![Fault::new(None, problem, format!("[[{key}]]")).at(item)]
            });
            if let Some(items) = self.keep(key, origin, items) {
                let records = items.iter().enumerate();
                let read = records.map(|(index, item)| {
                    let key = format!("{key}[{index}]");
                    let record = T::read(self, &key, item);
                    if record.is_none() {
                        self.failed.insert(key);
                    }
                    record
                });
                strongest = Some(read.collect::<Vec<_>>().into_iter().flatten().collect());
            }
        }
        let Some(parse) = T::FROM_TEXT else { return strongest };
        for (origin, text) in self.texts(key) {
            let read = text.and_then(|text| {
                let parse =
                    |part| parse(part).map_err(|accepted| Fault::secret("not of this form", accepted));
                gather(split_list(&text).map(|part| parse(part).map_err(|fault| vec![fault])))
            });
            strongest = self.keep(key, origin, read).or(strongest);
        }
        strongest
    }

    /// One key of a record.
    pub(super) fn required<T: Value>(
        &mut self,
        record: &str,
        field: &str,
        within: &Item,
        table: &dyn TableLike,
    ) -> Option<T> {
        let key = join(record, field);
        match table.get(field) {
            Some(item) => {
                let origin = self.origin_of(item.span());
                self.keep(&key, origin, T::from_item(item))
            }
            None => T::absent().or_else(|| {
                let origin = self.origin_of(within.span());
                self.refuse(origin, &key, None, "the key is missing".to_owned(), T::accepted());
                None
            }),
        }
    }

    /// The texts that variable and flag have for a key, weakest first.
    fn texts(&self, key: &str) -> Vec<(Origin, Checked<String>)> {
        let variable = variable_of(key).and_then(|name| Some((self.sources.variable(&name)?, name)));
        let variable = variable.map(|(text, name)| {
            let text = text
                .to_str()
                .map(str::to_owned)
                .ok_or_else(|| vec![Fault::new(None, "not UTF-8 text".to_owned(), "UTF-8 text".to_owned())]);
            (Origin::Env(name), text)
        });
        let flag = self.sources.flag(key);
        let flag = flag.map(|flag| (Origin::Flag(flag.name.clone()), Ok(flag.text.clone())));
        variable.into_iter().chain(flag).collect()
    }

    /// Notes the origin of what was read, or the mistakes in it.
    fn keep<T>(&mut self, key: &str, origin: Origin, read: Checked<T>) -> Option<T> {
        match read {
            Ok(value) => {
                self.origins.insert(key.to_owned(), origin);
                Some(value)
            }
            Err(faults) => {
                for fault in faults {
                    let origin =
                        if fault.span.is_some() { self.origin_of(fault.span) } else { origin.clone() };
                    self.refuse(origin, key, fault.value, fault.problem, fault.accepted);
                }
                None
            }
        }
    }

    /// The text of a variable that a value names; `None` when it is unset, empty or not UTF-8.
    pub(super) fn variable(&self, name: &str) -> Option<&'a str> {
        self.sources.variable(name).and_then(|text| text.to_str()).filter(|text| !text.is_empty())
    }

    fn refuse(
        &mut self,
        origin: Origin,
        key: &str,
        value: Option<String>,
        problem: String,
        accepted: String,
    ) {
        self.failed.insert(key.to_owned());
        self.found.push(Diagnostic::Value { origin, key: key.to_owned(), value, problem, accepted });
    }

    fn origin_of(&self, span: Option<Range<usize>>) -> Origin {
        match self.file {
            Some(file) => Origin::File(file.path.clone(), span.map_or(1, |span| file.line(span.start))),
            None => Origin::Default,
        }
    }
}

/// The elements of `[[key]]` or of `key = [{…}]`.
fn elements(item: &Item) -> Result<Vec<Item>, ()> {
    match item {
        Item::ArrayOfTables(tables) => Ok(tables.iter().map(|table| Item::Table(table.clone())).collect()),
        item => Ok(item.as_array().ok_or(())?.iter().map(spanned).collect()),
    }
}

/// What may have been meant by a key that does not exist: a neighbour with almost that name, or the
/// same name elsewhere, as happens to top-level keys written below the first `[table]`.
fn suggestion(section: &str, name: &str, fields: &[&str], known: &[String]) -> Option<String> {
    if let Some(field) = nearest(name, fields.iter().copied()) {
        return Some(join(section, field));
    }
    if let Some(key) = known.iter().find(|key| *key == name) {
        return Some(format!("{key} above the first [table]"));
    }
    let mut elsewhere = known.iter().filter(|key| key.rsplit('.').next() == Some(name));
    // Several sections have a `listen`; guessing one of them would be no help.
    elsewhere.next().filter(|_| elsewhere.next().is_none()).cloned()
}

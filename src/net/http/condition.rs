//! Conditional requests (RFC 9110 section 13): the four fields as values, judged against what is there.
//!
//! Entity tags may come quoted, weak, bare, as a list or as `*`. A tag is text without quotes from here on; our own are
//! all strong, so that weak ones count for If-None-Match alone. A date that nobody can read is as if it were not there.
//! Invariant: the order of judging is that of RFC 9110 section 13.2.2, whatever the order of the fields.
//! Lives on: the connection's shard.

use super::{RequestHead, trim};
use crate::codec::time::parse_http_date;
use std::borrow::Cow;

/// What a request asks to hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    /// `If-Match`
    pub matches: Option<Tags>,
    /// `If-None-Match`
    pub matches_none: Option<Tags>,
    /// `If-Modified-Since`, in seconds since 1970.
    pub modified_since: Option<u64>,
    /// `If-Unmodified-Since`, in seconds since 1970.
    pub unmodified_since: Option<u64>,
}

/// What `If-Match` and `If-None-Match` name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tags {
    /// `*`: whatever is there.
    Any,
    /// One of these, without quotes; perhaps none that could be there.
    Of(Vec<Box<str>>),
}

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing<'a> {
    /// Its entity tag without quotes; a strong one.
    pub etag: &'a str,
    /// When it was last changed, in milliseconds since 1970.
    pub modified_ms: u64,
}

/// What to do about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// What it asks for.
    Proceed,
    /// 304: the peer has it already.
    NotModified,
    /// 412.
    Failed,
}

impl Conditions {
    /// The conditions of a request.
    pub fn of(head: &RequestHead) -> Self {
        Self::prefixed(head, "")
    }

    /// The conditions in fields whose names begin with `prefix`, as those on the source of a copy do.
    pub fn prefixed(head: &RequestHead, prefix: &str) -> Self {
        let field = |name: &'static str| match prefix {
            "" => Cow::Borrowed(name),
            prefix => Cow::Owned(format!("{prefix}{name}")),
        };
        let tags = |name, weak| parse_tags(head.headers(&field(name)), weak);
        let date = |name| parse_date(head.headers(&field(name)));
        Conditions {
            matches: tags("if-match", Weak::MatchesNothing),
            matches_none: tags("if-none-match", Weak::Matches),
            modified_since: date("if-modified-since"),
            unmodified_since: date("if-unmodified-since"),
        }
    }

    /// Whether anything is asked at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Judges for what is there. A GET or HEAD, which only `reads`, is told that it has the thing already where another
    /// method fails. A date that is still to come says nothing: whoever sent it has a wrong clock.
    pub fn judge(&self, there: Option<Standing<'_>>, reads: bool, now_seconds: u64) -> Verdict {
        let modified = there.map(|there| there.modified_ms / 1000);
        if let Some(tags) = &self.matches {
            if !there.is_some_and(|there| tags.include(there.etag)) {
                return Verdict::Failed;
            }
        } else if let (Some(date), Some(modified)) = (self.unmodified_since, modified)
            && modified > date
        {
            return Verdict::Failed;
        }
        if let Some(tags) = &self.matches_none {
            if there.is_some_and(|there| tags.include(there.etag)) {
                return if reads { Verdict::NotModified } else { Verdict::Failed };
            }
        } else if let (Some(date), Some(modified), true) = (self.modified_since, modified, reads)
            && modified <= date
            && date <= now_seconds
        {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }
}

/// Whether `Range` is to be heard: there is no `If-Range`, or it names exactly what is there.
pub fn range_applies(head: &RequestHead, there: Standing<'_>) -> bool {
    let Some(field) = head.header("if-range") else { return true };
    if field.starts_with(b"W/") {
        return false;
    }
    match parse_http_date(field) {
        Some(date) => date == there.modified_ms / 1000,
        None => parse_tags([field].into_iter(), Weak::MatchesNothing)
            .is_some_and(|tags| tags != Tags::Any && tags.include(there.etag)),
    }
}

impl Tags {
    /// Whether `etag` is one of them.
    pub fn include(&self, etag: &str) -> bool {
        match self {
            Tags::Any => true,
            Tags::Of(tags) => tags.iter().any(|tag| **tag == *etag),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Weak {
    Matches,
    MatchesNothing,
}

/// The tags of all fields together; `None` without a field.
fn parse_tags<'a>(fields: impl Iterator<Item = &'a [u8]>, weak: Weak) -> Option<Tags> {
    let mut tags = None;
    for field in fields {
        let found = tags.get_or_insert_with(Vec::new);
        let mut rest = field;
        while let Some((tag, is_weak, behind)) = next_tag(rest) {
            rest = behind;
            if tag == b"*" && !is_weak {
                return Some(Tags::Any);
            }
            // Our tags are text: other bytes cannot name one.
            if let (Ok(tag), false) = (std::str::from_utf8(tag), is_weak && weak == Weak::MatchesNothing) {
                found.push(tag.into());
            }
        }
    }
    tags.map(Tags::Of)
}

/// The first tag, whether it is weak, and what follows behind its comma; `None` at the end.
fn next_tag(list: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = &list[start..];
    let (is_weak, opaque) = list.strip_prefix(b"W/").map_or((false, list), |opaque| (true, opaque));
    if let Some(quoted) = opaque.strip_prefix(b"\"")
        && let Some(end) = memchr::memchr(b'"', quoted)
    {
        let (tag, behind) = (&quoted[..end], &quoted[end + 1..]);
        let next = memchr::memchr(b',', behind).unwrap_or(behind.len());
        // `"*"` is a tag like any other, and none of ours.
        let tag = if tag == b"*" { &opaque[..end + 2] } else { tag };
        return Some((tag, is_weak, &behind[next..]));
    }
    let end = memchr::memchr(b',', opaque).unwrap_or(opaque.len());
    Some((trim(&opaque[..end]), is_weak, &opaque[end..]))
}

/// The date of the only field.
fn parse_date<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
    let date = parse_http_date(fields.next()?)?;
    fields.next().is_none().then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};
    use proptest::prelude::*;

    const THEN: u64 = 784_111_777;
    const THEN_TEXT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        fields.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(text.len()));
        head
    }

    fn of(tags: &[&str]) -> Option<Tags> {
        Some(Tags::Of(tags.iter().map(|tag| (*tag).into()).collect()))
    }

    fn there() -> Option<Standing<'static>> {
        Some(Standing { etag: "abc", modified_ms: THEN * 1000 + 999 })
    }

    fn judged(fields: &[(&str, &str)], reads: bool) -> Verdict {
        Conditions::of(&head(fields)).judge(there(), reads, THEN + 1000)
    }

    #[test]
    fn tags_are_read_in_every_form() {
        for (value, tags) in [
            (r#""abc""#, of(&["abc"])),
            ("abc", of(&["abc"])),
            (r#""a,b" , c,,W/"d""#, of(&["a,b", "c", "d"])),
            ("*", Some(Tags::Any)),
            (r#""a", *"#, Some(Tags::Any)),
            (r#""*""#, of(&[r#""*""#])),
            (r#""abc"#, of(&[r#""abc"#])),
            (r#""""#, of(&[""])),
            (r#""a"junk, b"#, of(&["a", "b"])),
            (",", of(&[])),
        ] {
            assert_eq!(Conditions::of(&head(&[("If-None-Match", value)])).matches_none, tags, "{value}");
        }
        let two = head(&[("if-match", "\"a\""), ("If-Match", "b")]);
        assert_eq!(Conditions::of(&two).matches, of(&["a", "b"]));
        assert_eq!(Conditions::of(&head(&[("If-Match", r#"W/"a", "b""#)])).matches, of(&["b"]));
        assert!(Conditions::of(&head(&[])).is_empty());
    }

    #[test]
    fn a_prefix_leads_to_other_fields() {
        let head = head(&[("x-amz-copy-source-if-match", "a"), ("if-none-match", "*")]);
        let conditions = Conditions::prefixed(&head, "x-amz-copy-source-");
        assert_eq!(conditions, Conditions { matches: of(&["a"]), ..Conditions::default() });
    }

    #[test]
    fn each_condition_holds_or_not() {
        use Verdict::{Failed, NotModified, Proceed};
        for (name, value, verdict) in [
            ("If-Match", "\"abc\"", Proceed),
            ("If-Match", "abc", Proceed),
            ("If-Match", "*", Proceed),
            ("If-Match", "\"x\", \"abc\"", Proceed),
            ("If-Match", "W/\"abc\"", Failed),
            ("If-Match", "\"ABC\"", Failed),
            ("If-None-Match", "\"abc\"", NotModified),
            ("If-None-Match", "W/\"abc\"", NotModified),
            ("If-None-Match", "*", NotModified),
            ("If-None-Match", "\"x\"", Proceed),
            ("If-Modified-Since", BEFORE, Proceed),
            ("If-Modified-Since", THEN_TEXT, NotModified),
            ("If-Modified-Since", LATER, NotModified),
            ("If-Modified-Since", "Fri, 31 Dec 9999 23:59:59 GMT", Proceed),
            ("If-Modified-Since", "yesterday", Proceed),
            ("If-Unmodified-Since", BEFORE, Failed),
            ("If-Unmodified-Since", THEN_TEXT, Proceed),
            ("If-Unmodified-Since", LATER, Proceed),
            ("If-Unmodified-Since", "yesterday", Proceed),
        ] {
            assert_eq!(judged(&[(name, value)], true), verdict, "{name}: {value}");
            let written = match (verdict, name) {
                (NotModified, "If-None-Match") => Failed,
                (NotModified, _) => Proceed,
                (other, _) => other,
            };
            assert_eq!(judged(&[(name, value)], false), written, "{name}: {value} of a PUT");
        }
    }

    #[test]
    fn tags_hide_dates_and_failing_comes_first() {
        use Verdict::{Failed, NotModified, Proceed};
        for (fields, verdict) in [
            ([("If-Match", "abc"), ("If-Unmodified-Since", BEFORE)], Proceed),
            ([("If-None-Match", "x"), ("If-Modified-Since", LATER)], Proceed),
            ([("If-None-Match", "abc"), ("If-Match", "x")], Failed),
            ([("If-None-Match", "abc"), ("If-Match", "abc")], NotModified),
            ([("If-None-Match", "abc"), ("If-Unmodified-Since", BEFORE)], Failed),
            ([("If-Modified-Since", LATER), ("If-Match", "abc")], NotModified),
            ([("If-Modified-Since", LATER), ("If-Modified-Since", LATER)], Proceed),
        ] {
            assert_eq!(judged(&fields, true), verdict, "{fields:?}");
        }
    }

    #[test]
    fn of_nothing_only_tags_can_fail() {
        let judged = |name, value| Conditions::of(&head(&[(name, value)])).judge(None, false, THEN);
        assert_eq!(judged("If-Match", "*"), Verdict::Failed);
        assert_eq!(judged("If-None-Match", "*"), Verdict::Proceed);
        assert_eq!(judged("If-Unmodified-Since", BEFORE), Verdict::Proceed);
    }

    #[test]
    fn a_range_applies_to_exactly_what_it_was_asked_of() {
        let there = there().unwrap();
        for (field, applies) in [
            ("\"abc\"", true),
            ("abc", true),
            (THEN_TEXT, true),
            ("W/\"abc\"", false),
            ("\"x\"", false),
            ("*", false),
            (LATER, false),
            ("yesterday", false),
        ] {
            assert_eq!(range_applies(&head(&[("If-Range", field)]), there), applies, "{field}");
        }
        assert!(range_applies(&head(&[]), there));
    }

    proptest! {
        /// A tag that is quoted, in whatever company, is found.
        #[test]
        fn a_quoted_tag_is_found(tag in "[!#-~]{1,20}", other in "[a-z,\"/W ]{0,12}") {
            let other = if other.matches('"').count() % 2 == 1 { format!("{other}\"") } else { other };
            let tags = parse_tags([format!("\"{tag}\",{other}").as_bytes()].into_iter(), Weak::Matches).unwrap();
            prop_assert!(tags.include(&tag) || tag == "*");
        }

        #[test]
        fn any_field_is_judged(value in any::<Vec<u8>>()) {
            let _ = parse_tags([&value[..]].into_iter(), Weak::Matches);
            let _ = parse_date([&value[..]].into_iter());
        }
    }
}

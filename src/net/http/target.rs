//! Request targets: which of the four forms one has, and how a dialect takes path and query apart.
//!
//! Invariant: `/` and `&` are found before any percent-decoding, so an escaped one never splits.
//! Lives on: the connection's shard.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::{Method, Reason};
use crate::codec::text::{BadPercent, hex_value, percent_decode};

/// A target taken apart as far as routing needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form<'a> {
    /// From an absolute URI; replaces Host.
    pub authority: Option<&'a str>,
    /// `*`, or a path with its query; the path may be empty behind an authority.
    pub path_and_query: &'a str,
}

/// Sorts a target into its form (RFC 9112 section 3.2) and refuses what no URI could be.
pub(super) fn classify(method: Method, target: &str) -> Result<Form<'_>, Reason> {
    if method == Method::Connect {
        return Err(Reason::Connect);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Reason::TargetByte);
    }
    let form = match absolute(target) {
        Some(form) => form?,
        None => Form { authority: None, path_and_query: origin_or_asterisk(method, target)? },
    };
    // Cutting a fragment off would answer for another name than the sender wrote. Behind the '?' a '#' is
    // kept as data instead: there it is a forgotten escape inside a value.
    if split_query(form.path_and_query).0.contains('#') {
        return Err(Reason::TargetFragment);
    }
    Ok(form)
}

/// The parts of a raw path between its slashes, not yet decoded: `/a//b/` gives `a`, ``, `b`, ``.
pub fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// Decodes one path segment; `+` stays `+`.
pub fn percent_decode_segment(segment: &str) -> Result<Cow<'_, [u8]>, BadPercent> {
    percent_decode(segment.as_bytes())
}

/// A raw target's path and what stands behind its first `?`.
pub fn split_query(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

/// Keys and values of a query, decoded; `+` is a space. A key without `=` has no value.
///
/// A `%` without two hex digits stays as it is: browsers and form parsers agree on that for queries.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Option<Cow<'_, [u8]>>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((key, value)) => (form_decode(key), Some(form_decode(value))),
        None => (form_decode(pair), None),
    })
}

/// What a query says about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param<'a> {
    /// The key is not there.
    Absent,
    /// `?key`
    Bare,
    /// `?key=value`, also with an empty value.
    Value(Cow<'a, [u8]>),
}

impl<'a> Param<'a> {
    /// The first mention of `key` in `query`.
    pub fn find(query: Option<&'a str>, key: &str) -> Param<'a> {
        let found = query.and_then(|query| query_pairs(query).find(|(name, _)| **name == *key.as_bytes()));
        match found {
            None => Param::Absent,
            Some((_, None)) => Param::Bare,
            Some((_, Some(value))) => Param::Value(value),
        }
    }

    /// Whether the key is there, with a value or without.
    pub fn is_present(&self) -> bool {
        !matches!(self, Param::Absent)
    }

    /// The value, if there is one.
    pub fn value(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Param::Value(value) => Some(value),
            Param::Absent | Param::Bare => None,
        }
    }
}

/// `host[:port]` as Host and absolute targets hold it; neither empty nor with user information.
pub(super) fn is_authority(text: &[u8]) -> bool {
    if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        return is_ipv6(&rest[..end]) && is_port_suffix(&rest[end + 1..]);
    }
    let host_end = memchr::memchr(b':', text).unwrap_or(text.len());
    is_host_name(&text[..host_end]) && is_port_suffix(&text[host_end..])
}

fn absolute(target: &str) -> Option<Result<Form<'_>, Reason>> {
    let rest = strip_scheme(target, "http://").or_else(|| strip_scheme(target, "https://"))?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(authority_end);
    if !is_authority(authority.as_bytes()) {
        return Some(Err(Reason::TargetAuthority));
    }
    Some(Ok(Form { authority: Some(authority), path_and_query }))
}

fn strip_scheme<'a>(target: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = target.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn origin_or_asterisk(method: Method, target: &str) -> Result<&str, Reason> {
    let fits = target.starts_with('/') || (target == "*" && method == Method::Options);
    if fits { Ok(target) } else { Err(Reason::TargetForm) }
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Nothing, or a colon and at most a port; RFC 3986 lets the digits be absent.
fn is_port_suffix(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((b':', digits)) => digits.is_empty() || is_port(digits),
        Some(_) => false,
    }
}

fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0, |port, digit| 10 * port + u32::from(digit - b'0')) <= 0xffff
}

/// A registered name without commas: a list of hosts would name a different one to each reader.
fn is_host_name(text: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte);
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) if hex_value(*high).and(hex_value(*low)).is_some() => tail,
            _ if plain(byte) => tail,
            _ => return false,
        };
    }
    !text.is_empty()
}

fn form_decode(text: &str) -> Cow<'_, [u8]> {
    let text = text.as_bytes();
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = form_byte(rest) {
        decoded.push(byte);
        rest = tail;
    }
    Cow::Owned(decoded)
}

fn form_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, tail @ ..] = text
        && let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low))
    {
        return Some(((high << 4) | low, tail));
    }
    let (&byte, tail) = text.split_first()?;
    Some((if byte == b'+' { b' ' } else { byte }, tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(target: &str) -> Result<(Option<&str>, &str), Reason> {
        classify(Method::Get, target).map(|form| (form.authority, form.path_and_query))
    }

    #[test]
    fn origin_form() {
        for target in ["/", "//a//b", "/a?b=c?d#e", "/%zz", "/a:b@c\"<>\\^`{|}"] {
            assert_eq!(form(target), Ok((None, target)));
        }
    }

    #[test]
    fn absolute_form() {
        assert_eq!(form("http://a.example:80/b?c"), Ok((Some("a.example:80"), "/b?c")));
        assert_eq!(form("HTTPS://[::1]:8443"), Ok((Some("[::1]:8443"), "")));
        assert_eq!(form("http://a?b"), Ok((Some("a"), "?b")));
    }

    #[test]
    fn absolute_form_with_a_bad_authority() {
        for target in ["http://", "http:///a", "http://u@a/", "http://a:b/", "https://[::1/", "http://a,b/"] {
            assert_eq!(form(target), Err(Reason::TargetAuthority), "{target}");
        }
    }

    #[test]
    fn asterisk_belongs_to_options() {
        assert_eq!(classify(Method::Options, "*").unwrap().path_and_query, "*");
        assert_eq!(form("*"), Err(Reason::TargetForm));
        assert_eq!(classify(Method::Options, "*a"), Err(Reason::TargetForm));
    }

    #[test]
    fn other_forms_and_bytes_are_refused() {
        for target in ["", "a", "a.example:443", "ftp://a/", "http:/a", "?a", "#"] {
            assert_eq!(form(target), Err(Reason::TargetForm), "{target}");
        }
        for target in ["/ü", "/a\tb", "/a b", "/\x7f", "http://\u{e9}/"] {
            assert_eq!(form(target), Err(Reason::TargetByte), "{target}");
        }
        assert_eq!(form("/a#b"), Err(Reason::TargetFragment));
        assert_eq!(form("http://a#b"), Err(Reason::TargetFragment));
        assert_eq!(classify(Method::Connect, "a.example:443"), Err(Reason::Connect));
    }

    #[test]
    fn authorities() {
        for good in ["a", "A-1._~x:0", "127.0.0.1:65535", "[::1]", "[::ffff:1.2.3.4]:80", "a:", "b%41"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:65536", "a:000080", "a:8x", "a b", "a,b", "u@a", "a/b", "[::1", "[g]", "[::1]x",
            "%4", "a:1:2",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn segments_split_before_decoding() {
        assert_eq!(segments("/a%2Fb//c/").collect::<Vec<_>>(), ["a%2Fb", "", "c", ""]);
        assert_eq!(segments("/").collect::<Vec<_>>(), [""]);
        assert_eq!(percent_decode_segment("a%2Fb+c").unwrap().as_ref(), b"a/b+c");
        assert_eq!(percent_decode_segment("a%2"), Err(BadPercent { offset: 1 }));
    }

    #[test]
    fn query_pairs_decode_keys_and_values() {
        let pairs: Vec<_> = query_pairs("a=1+2&&%61%26=%3D=&notail&x=%zz").collect();
        let shown: Vec<_> = pairs.iter().map(|(key, value)| (key.as_ref(), value.as_deref())).collect();
        let expected: [(&[u8], Option<&[u8]>); 4] =
            [(b"a", Some(b"1 2")), (b"a&", Some(b"==")), (b"notail", None), (b"x", Some(b"%zz"))];
        assert_eq!(shown, expected);
    }

    #[test]
    fn presence_differs_from_value() {
        let query = Some("notail&offset=5&empty=&offset=6");
        assert_eq!(Param::find(query, "notail"), Param::Bare);
        assert_eq!(Param::find(query, "offset"), Param::Value(Cow::Borrowed(b"5")));
        assert_eq!(Param::find(query, "empty").value().as_deref(), Some(&b""[..]));
        assert!(!Param::find(query, "Notail").is_present());
        assert_eq!(Param::find(None, "notail"), Param::Absent);
    }

    proptest! {
        #[test]
        fn any_target_is_judged(target in any::<String>()) {
            if let Ok(form) = classify(Method::Get, &target) {
                prop_assert!(target.ends_with(form.path_and_query));
                let (path, query) = split_query(form.path_and_query);
                prop_assert!(segments(path).all(|segment| !segment.contains('/')));
                let _ = query.map(|query| query_pairs(query).count());
            }
        }

        #[test]
        fn encoded_pairs_come_back(key in ".+", value in any::<Vec<u8>>()) {
            use crate::codec::text::percent_encode;
            let query = format!("x&{}={}", percent_encode(key.as_bytes()), percent_encode(&value));
            prop_assume!(key != "x");
            prop_assert_eq!(Param::find(Some(&query), &key), Param::Value(Cow::Owned(value)));
        }
    }
}

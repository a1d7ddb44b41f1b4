//! Which names containers and files may have.
//!
//! Invariant: a container's name is usable as a host name's part: lower-case letters, digits, dots and dashes, and
//! nothing that looks like an address. Keys are any bytes. Pure; runs on the connection's shard.

use super::answer::Refusal;
use super::route::Resource;
use crate::codec::text::percent_decode;
use crate::service::blob::{BadName, Name};
use std::borrow::Cow;

/// What a request is about.
#[derive(Clone, Debug)]
pub enum Place {
    /// No name is in it.
    Server,
    /// This container.
    Container(String),
    /// This file.
    File(Name),
}

impl Place {
    /// What `resource` names, decoded once.
    pub fn of(resource: &Resource) -> Result<Self, Refusal> {
        match resource {
            Resource::Containers | Resource::Bind | Resource::Unbind => Ok(Place::Server),
            Resource::Container(name) => Ok(Place::Container(container(&decoded(name.as_bytes())?)?)),
            Resource::File(name, key) => Ok(Place::File(file(name.as_bytes(), key.as_bytes())?)),
        }
    }
}

/// The file `key` in `container`, both still escaped.
pub fn file(container: &[u8], key: &[u8]) -> Result<Name, Refusal> {
    let container = self::container(&decoded(container)?)?;
    Name::new(&container, &decoded(key)?).map_err(|bad| match bad {
        BadName::Container => Refusal::InvalidContainerName,
        BadName::EmptyKey => Refusal::InvalidUri("a file has a name".into()),
        BadName::LongKey => Refusal::KeyTooLong,
    })
}

fn decoded(text: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    percent_decode(text).map_err(|bad| Refusal::InvalidUri(bad.to_string()))
}

fn container(name: &[u8]) -> Result<String, Refusal> {
    let name = std::str::from_utf8(name).ok().filter(|name| is_container_name(name));
    name.map(str::to_owned).ok_or(Refusal::InvalidContainerName)
}

/// What names hold, for who tried another one.
pub const CONTAINER_NAMES: &str = "A container's name has 3 to 63 lower-case letters, digits, dots and dashes, begins \
    with a letter or digit, ends without a dash, has no dot beside a dash or another dot, and no IPv4 address in it";

fn is_container_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| is_plain(byte) || matches!(byte, b'.' | b'-'))
        && name.bytes().next().is_some_and(is_plain)
        && !name.ends_with('-')
        && !["..", "-.", ".-"].iter().any(|pair| name.contains(pair))
        && !holds_address(name)
}

/// Four numbers with dots between them, whatever stands before or behind.
fn holds_address(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name.split('.').collect();
    parts.windows(4).any(|four| {
        four[0].ends_with(|last: char| last.is_ascii_digit())
            && is_number(four[1])
            && is_number(four[2])
            && four[3].starts_with(|first: char| first.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names_that_are_taken() {
        for name in
            ["abc", "a-b", "a.b", "0a0", "1.2.3", "1.2.3.a", "a.b-c.d", "a--b", "abc.", &"a".repeat(63)]
        {
            assert!(is_container_name(name), "{name}");
        }
    }

    #[test]
    fn container_names_that_are_refused() {
        let long = "a".repeat(64);
        for name in [
            "",
            "ab",
            &long,
            "Abc",
            "a_b",
            "a b",
            "a$b",
            "a;b",
            "a/b",
            "a\\b",
            ".abc",
            "-abc",
            "abc-",
            "a..b",
            "a-.b",
            "a.-b",
            "1.2.3.4",
            "x1.2.3.4y",
            "a.1.22.333.4",
            "äbc",
            "a\0b",
        ] {
            assert!(!is_container_name(name), "{name}");
        }
    }

    #[test]
    fn names_are_decoded_once() {
        let named = file(b"%61bc", b"a%252Fb+c%2F").unwrap();
        assert_eq!((named.container(), named.key()), ("abc", &b"a%2Fb+c/"[..]));
        assert!(matches!(file(b"abc", b"%zz"), Err(Refusal::InvalidUri(_))));
        assert!(matches!(file(b"abc", "k".repeat(1025).as_bytes()), Err(Refusal::KeyTooLong)));
        assert!(file(b"abc", "%6B".repeat(1024).as_bytes()).is_ok());
        assert!(matches!(file(b"ABC", b"k"), Err(Refusal::InvalidContainerName)));
    }
}

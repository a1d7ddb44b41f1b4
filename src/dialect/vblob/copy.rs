//! `PUT /:container/:key` with `x-blb-copy-from`: the file is what another one is, or has other metadata.
//!
//! Lives on: the connection's shard.

use super::answer::{self, Halt, NAMESPACE, Refusal};
use super::put::expect;
use super::route::COPY_FROM;
use super::{Vblob, fields, name, when};
use crate::codec::time::Rfc3339;
use crate::codec::xml::Xml;
use crate::net::http::RequestHead;
use crate::net::http::condition::Conditions;
use crate::net::http::exchange::Exchange;
use crate::service::blob::{Name, Properties};

/// Has `to` be what the source is.
pub async fn copy(vblob: &Vblob, exchange: &mut Exchange, to: Name) -> Result<(), Halt> {
    let from = source(exchange.head())?;
    let metadata = Metadata::of(exchange.head())?;
    if from == to && metadata == Metadata::Copied {
        return Err(Refusal::NotImplemented("A copy onto itself must replace the metadata").into());
    }
    let blob = vblob.find(&from).await?;
    let conditions = Conditions::of(exchange.head());
    expect(vblob, &to, &conditions).await?;
    let properties = match metadata {
        Metadata::Copied => Properties::clone(&blob.properties),
        Metadata::Replaced => Properties {
            etag: blob.properties.etag.clone(),
            fields: fields::of_bytes(&blob.properties).chain(fields::of_request(exchange.head())).collect(),
        },
    };
    let stored = vblob.driver.file_copy(&blob, to, properties, when(conditions)).await?;
    let mut xml = Xml::in_namespace("FileCopy", NAMESPACE);
    xml.element("LastModified", Rfc3339::at_ms(stored.created_ms).as_str())
        .element("ETag", format!("\"{}\"", stored.etag.as_ref().unwrap_or(&blob.properties.etag)));
    Ok(answer::xml(exchange, xml).await?)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Metadata {
    Copied,
    Replaced,
}

impl Metadata {
    fn of(head: &RequestHead) -> Result<Self, Refusal> {
        match head.header("x-blb-metadata-copy-or-replace") {
            None => Ok(Metadata::Copied),
            Some(word) if word.eq_ignore_ascii_case(b"copy") => Ok(Metadata::Copied),
            Some(word) if word.eq_ignore_ascii_case(b"replace") => Ok(Metadata::Replaced),
            Some(_) => {
                Err(Refusal::NotImplemented("x-blb-metadata-copy-or-replace is neither COPY nor REPLACE"))
            }
        }
    }
}

fn source(head: &RequestHead) -> Result<Name, Refusal> {
    let text = head.header(COPY_FROM).expect("it is a copy");
    let text = text.strip_prefix(b"/").unwrap_or(text);
    let slash = memchr::memchr(b'/', text)
        .ok_or_else(|| Refusal::InvalidArgument(format!("{COPY_FROM} is not /container/key")))?;
    name::file(&text[..slash], &text[slash + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn head(fields: &str) -> RequestHead {
        let text = format!("PUT /c/k HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(text.len()));
        head
    }

    #[test]
    fn the_source_is_decoded_and_its_first_slash_optional() {
        for text in ["/abc/a/b%20c", "abc/a/b%20c", "/abc/a%2Fb c"] {
            let name = source(&head(&format!("X-Blb-Copy-From: {text}\r\n"))).unwrap();
            assert_eq!((name.container(), name.key()), ("abc", &b"a/b c"[..]), "{text}");
        }
        for text in ["/abc", "abc", "", "/", "/abc/", "/abc/%zz", "/ABC/k", "//k"] {
            assert!(source(&head(&format!("x-blb-copy-from: {text}\r\n"))).is_err(), "{text}");
        }
    }

    #[test]
    fn metadata_is_copied_unless_it_is_replaced() {
        for (field, expected) in [
            ("", Some(Metadata::Copied)),
            ("x-blb-metadata-copy-or-replace: COPY\r\n", Some(Metadata::Copied)),
            ("x-blb-metadata-copy-or-replace: Replace\r\n", Some(Metadata::Replaced)),
            ("x-blb-metadata-copy-or-replace: MERGE\r\n", None),
        ] {
            assert_eq!(Metadata::of(&head(field)).ok(), expected, "{field}");
        }
    }
}

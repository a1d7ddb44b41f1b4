//! `GET` and `HEAD /:container[?marker][&prefix][&delimiter][&max-keys]`: a page of files in the order of their keys.
//!
//! `marker` is the first key that the page may have, so that the next page begins with `marker` the `NextMarker` of
//! this one. Lives on: the connection's shard.

use super::Vblob;
use super::answer::{self, Halt, NAMESPACE, Refusal};
use crate::codec::text::decimal;
use crate::codec::time::Rfc3339;
use crate::codec::xml::Xml;
use crate::net::http::exchange::{Exchange, Framing};
use crate::net::http::target::Param;
use crate::net::http::{Method, RequestHead, Status};
use crate::service::blob::{Listed, Listing, Query, Start};

/// Most entries on a page, and how many there are unless asked otherwise.
const KEYS_MAX: usize = 1000;

/// Lists a container, or tells that it is there.
pub async fn list(vblob: &Vblob, exchange: &mut Exchange, container: &str) -> Result<(), Halt> {
    let query = query(exchange.head())?;
    if exchange.head().method() == Method::Head {
        vblob.driver.demand_container(container).await?;
        // How long the page would be is not known without making it.
        exchange.begin(Status::OK, Framing::Live).header("Content-Type", "application/xml").finish();
        return Ok(exchange.finish(&[]).await?);
    }
    let listing = vblob.driver.file_list(container, query.clone()).await?;
    Ok(answer::xml(exchange, page(container, &query, &listing)).await?)
}

fn query(head: &RequestHead) -> Result<Query, Refusal> {
    // A parameter without a value is as none.
    let find = |key| Param::find(head.query(), key).value().filter(|value| !value.is_empty());
    let delimiter = find("delimiter").unwrap_or_default();
    if !is_one_character(&delimiter) {
        return Err(Refusal::InvalidArgument("delimiter has more than one character".into()));
    }
    let start = find("marker").map_or(Start::First, |marker| Start::At(marker.into_owned().into()));
    Ok(Query {
        prefix: find("prefix").unwrap_or_default().into_owned().into(),
        delimiter: delimiter.into_owned().into(),
        start,
        limit: find("max-keys").map_or(Ok(KEYS_MAX), |text| limit(&text))?,
    })
}

fn is_one_character(text: &[u8]) -> bool {
    match std::str::from_utf8(text) {
        Ok(text) => text.chars().nth(1).is_none(),
        Err(_) => text.len() <= 1,
    }
}

fn limit(text: &[u8]) -> Result<usize, Refusal> {
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::InvalidArgument("max-keys is not a decimal number".into()));
    }
    // More than any number we know is more than a page has.
    Ok(decimal(text).map_or(KEYS_MAX, |limit| limit.min(KEYS_MAX as u64) as usize))
}

fn page(container: &str, query: &Query, listing: &Listing) -> Xml {
    let marker: &[u8] = match &query.start {
        Start::First => b"",
        Start::At(marker) | Start::After(marker) => marker,
    };
    let mut xml = Xml::in_namespace("FileList", NAMESPACE);
    xml.element("Name", container).element("Prefix", &query.prefix).element("Marker", marker);
    xml.number("MaxKeys", query.limit as u64);
    if !query.delimiter.is_empty() {
        xml.element("Delimiter", &query.delimiter);
    }
    xml.element("IsTruncated", if listing.next.is_some() { "true" } else { "false" });
    if let Some(next) = &listing.next {
        xml.element("NextMarker", next);
    }
    for entry in &listing.entries {
        let Listed::Blob(blob) = entry else { continue };
        xml.open("Contents")
            .element("Key", blob.name.key())
            .element("LastModified", Rfc3339::at_ms(blob.created_ms).as_str())
            .quoted("ETag", blob.properties.etag.as_bytes())
            .number("Size", blob.size)
            .element("StorageClass", "STANDARD")
            .close();
    }
    for entry in &listing.entries {
        let Listed::Prefix(prefix) = entry else { continue };
        xml.open("CommonPrefixes").element("Prefix", prefix).close();
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn asked(text: &str) -> Result<Query, Refusal> {
        let text = format!("GET /c{text} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(text.len()));
        query(&head)
    }

    #[test]
    fn parameters_without_a_value_are_as_none() {
        let plain = Query { limit: KEYS_MAX, ..Query::default() };
        for text in ["", "?", "?marker=&prefix&delimiter=&max-keys=", "?other=1"] {
            assert_eq!(asked(text).unwrap(), plain, "{text}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = asked("?marker=a+%2B%ff&prefix=%2F&delimiter=%C3%A9&max-keys=007").unwrap();
        assert_eq!(query.start, Start::At(b"a +\xff"[..].into()));
        assert_eq!((&*query.prefix, &*query.delimiter, query.limit), (&b"/"[..], "é".as_bytes(), 7));
    }

    #[test]
    fn a_page_is_bounded_and_odd_parameters_are_refused() {
        assert_eq!(asked("?max-keys=1001").unwrap().limit, 1000);
        assert_eq!(asked("?max-keys=99999999999999999999999").unwrap().limit, 1000);
        assert_eq!(asked("?max-keys=0").unwrap().limit, 0);
        for text in ["?max-keys=abc", "?max-keys=-1", "?max-keys=1.5", "?delimiter=ab", "?delimiter=%ff%ff"] {
            assert!(matches!(asked(text), Err(Refusal::InvalidArgument(_))), "{text}");
        }
    }

    #[test]
    fn a_page_in_xml() {
        let query = Query { prefix: b"a"[..].into(), delimiter: b"/"[..].into(), ..Query::default() };
        let listing = Listing {
            entries: vec![Listed::Prefix(b"a/"[..].into()), Listed::Prefix(b"a<b/"[..].into())],
            next: Some(b"ac"[..].into()),
        };
        let text = String::from_utf8(page("abc", &query, &listing).finish()).unwrap();
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<FileList xmlns=\"https://github.com/vmware-bdc/vblob/\">\
             <Name>abc</Name><Prefix>a</Prefix><Marker></Marker><MaxKeys>0</MaxKeys><Delimiter>/</Delimiter>\
             <IsTruncated>true</IsTruncated><NextMarker>ac</NextMarker><CommonPrefixes>\
             <Prefix>a/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>a&lt;b/</Prefix></CommonPrefixes></FileList>"
        );
    }
}

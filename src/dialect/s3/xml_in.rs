//! The three documents that requests bring: what to delete, what to compose, and where a bucket should be.
//!
//! Elements are known by their local names, whatever the namespace; those that nobody knows are passed over.
//! Invariant: bounded in entries, in depth and by the length of the document; a document type is refused, so no
//! entity is ever expanded. Pure; runs on the connection's shard.

use super::fault::{Code, Fault};
use super::payload::checksum::Algorithm;
use crate::codec::text::decimal;
use crate::codec::xml_in::{BadXml, Seen, walk};

/// Keys that one request deletes.
pub const KEYS_MAX: usize = 1000;
/// Parts that one upload has.
pub const PARTS_MAX: usize = 10_000;
/// The longest document that names keys: a thousand of them, each escaped at length.
pub const DELETE_BYTES_MAX: usize = 8 << 20;
/// The longest document that names parts.
pub const COMPLETE_BYTES_MAX: usize = 4 << 20;

/// What `POST ?delete` asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delete {
    /// Only errors are told.
    pub quiet: bool,
    /// What goes.
    pub objects: Vec<Doomed>,
}

/// One object to delete.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Doomed {
    /// Its key.
    pub key: Box<str>,
    /// The version that is meant.
    pub version: Option<Box<str>>,
    /// The entity tag that it must have, as it was sent.
    pub etag: Option<Box<str>>,
    /// It must have a size or a date: conditions that are not built.
    pub has_other_conditions: bool,
}

/// A part that an upload is completed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// Its number as it was sent.
    pub number: u64,
    /// Its entity tag without quotes.
    pub etag: Box<str>,
    /// The checksum that it must have.
    pub checksum: Option<(Algorithm, Box<str>)>,
}

/// Reads `<Delete>`.
pub fn delete(document: &[u8]) -> Result<Delete, Fault> {
    let mut found = Delete::default();
    let mut key: Option<Box<str>> = None;
    let mut current = Doomed::default();
    walk::<Fault>(document, "Delete", |path, seen| {
        match (path, seen) {
            (["Quiet"], Seen::Text(text)) => found.quiet = text.trim().eq_ignore_ascii_case("true"),
            (["Object"], Seen::Open) => (current, key) = (Doomed::default(), None),
            (["Object", "Key"], Seen::Text(text)) => key = Some(text.into()),
            (["Object", "VersionId"], Seen::Text(text)) => current.version = Some(text.trim().into()),
            (["Object", "ETag"], Seen::Text(text)) => current.etag = Some(text.trim().into()),
            (["Object", "Size" | "LastModifiedTime"], Seen::Open) => current.has_other_conditions = true,
            (["Object"], Seen::Close) => {
                current.key = key.take().ok_or(malformed("an Object has no Key"))?;
                if found.objects.len() == KEYS_MAX {
                    return Err(malformed("there are more than 1000 objects"));
                }
                found.objects.push(std::mem::take(&mut current));
            }
            _ => {}
        }
        Ok(())
    })?;
    if found.objects.is_empty() { Err(malformed("there is no Object")) } else { Ok(found) }
}

/// Reads `<CompleteMultipartUpload>`.
pub fn complete(document: &[u8]) -> Result<Vec<Named>, Fault> {
    let mut found = Vec::new();
    let (mut number, mut etag, mut checksum) = (None, None, None);
    walk::<Fault>(document, "CompleteMultipartUpload", |path, seen| {
        match (path, seen) {
            (["Part"], Seen::Open) => (number, etag, checksum) = (None, None, None),
            (["Part", "PartNumber"], Seen::Text(text)) => {
                let value = decimal(text.trim().as_bytes());
                number = Some(value.ok_or(malformed("a PartNumber is not a number"))?);
            }
            (["Part", "ETag"], Seen::Text(text)) => etag = Some(text.trim().trim_matches('"').into()),
            (["Part", name], Seen::Text(text)) => {
                if let Some(algorithm) = Algorithm::ALL.into_iter().find(|known| known.element() == *name) {
                    checksum = Some((algorithm, text.trim().into()));
                }
            }
            (["Part"], Seen::Close) => match (number.take(), etag.take()) {
                _ if found.len() == PARTS_MAX => return Err(malformed("there are more than 10000 parts")),
                (Some(number), Some(etag)) => found.push(Named { number, etag, checksum: checksum.take() }),
                _ => return Err(malformed("a Part needs PartNumber and ETag")),
            },
            _ => {}
        }
        Ok(())
    })?;
    if found.is_empty() { Err(malformed("there is no Part")) } else { Ok(found) }
}

/// Reads `<CreateBucketConfiguration>`: the region that it names, if it does.
pub fn location(document: &[u8]) -> Result<Option<Box<str>>, Fault> {
    let mut found = None;
    walk::<Fault>(document, "CreateBucketConfiguration", |path, seen| {
        if let (["LocationConstraint"], Seen::Text(text)) = (path, seen) {
            found = Some(text.trim()).filter(|text| !text.is_empty()).map(Into::into);
        }
        Ok(())
    })?;
    Ok(found)
}

impl From<BadXml> for Fault {
    fn from(BadXml(sentence): BadXml) -> Self {
        malformed(sentence)
    }
}

fn malformed(sentence: &'static str) -> Fault {
    Fault::new(
        Code::MalformedXML,
        format!(
            "The XML you provided was not well-formed or did not validate against our published schema: {sentence}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_deletion() {
        let document = r#"<?xml version="1.0" encoding="UTF-8"?>
            <Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Object><Key>a &amp; b&#x9;&#233;</Key></Object>
              <Object><VersionId>null</VersionId><Key> spaced </Key><ETag>"x"</ETag><Unknown><Key>no</Key></Unknown></Object>
              <Object><Key><![CDATA[<c>]]></Key></Object>
              <Quiet>true</Quiet><!-- said all -->
            </Delete>"#;
        let found = delete(document.as_bytes()).unwrap();
        assert!(found.quiet);
        let keys: Vec<&str> = found.objects.iter().map(|object| &*object.key).collect();
        assert_eq!(keys, ["a & b\t\u{e9}", " spaced ", "<c>"]);
        assert_eq!(found.objects[1].version.as_deref(), Some("null"));
        assert_eq!(found.objects[1].etag.as_deref(), Some("\"x\""));
        assert_eq!((&found.objects[2].version, found.objects[2].has_other_conditions), (&None, false));
        let sized = delete(b"<Delete><Object><Key>a</Key><Size>1</Size></Object></Delete>").unwrap();
        assert!(sized.objects[0].has_other_conditions);
    }

    #[test]
    fn a_completion() {
        let document = b"<s:CompleteMultipartUpload xmlns:s='x'><s:Part><s:ETag>&quot;ab&quot;</s:ETag>\
            <s:PartNumber> 2 </s:PartNumber><s:ChecksumCRC32>y/Q5Jg==</s:ChecksumCRC32></s:Part>\
            <s:Part><s:PartNumber>10001</s:PartNumber><s:ETag>cd</s:ETag></s:Part></s:CompleteMultipartUpload>";
        let first =
            Named { number: 2, etag: "ab".into(), checksum: Some((Algorithm::Crc32, "y/Q5Jg==".into())) };
        let second = Named { number: 10_001, etag: "cd".into(), checksum: None };
        assert_eq!(complete(document), Ok(vec![first, second]));
    }

    #[test]
    fn a_location() {
        let of = |text: &str| {
            location(format!("<CreateBucketConfiguration>{text}</CreateBucketConfiguration>").as_bytes())
        };
        assert_eq!(of("<LocationConstraint>eu</LocationConstraint>"), Ok(Some("eu".into())));
        assert_eq!(of("<LocationConstraint/>"), Ok(None));
        assert_eq!(of(""), Ok(None));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = format!("<Delete>{}", "<a>".repeat(100_000));
        let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1001));
        for document in [
            "",
            "x",
            "<Delete>",
            "<Delete></Delete>",
            "<Delete/><Delete/>",
            "<Delete><Object></Object></Delete>",
            "<Delete><Object><Key>a</Key></Delete></Object>",
            "<Other><Object><Key>a</Key></Object></Other>",
            "<Delete><Object><Key>&lol;</Key></Object></Delete>",
            "<Delete><Object><Key>&#xD800;</Key></Object></Delete>",
            "<Delete><Object><Key>&#0;</Key></Object></Delete>",
            "<!DOCTYPE a [<!ENTITY lol \"lol\">]><Delete><Object><Key>&lol;</Key></Object></Delete>",
            "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><Delete><Object><Key>a</Key></Object></Delete>",
            "<Delete><Object><Key>a</Key></Object></Delete>x",
            "x<Delete><Object><Key>a</Key></Object></Delete>",
            "<Delete><Object><Key>a</Key></Object>",
            &deep,
            &many,
        ] {
            let shown = &document[..document.len().min(80)];
            assert_eq!(
                delete(document.as_bytes()).map_err(|fault| fault.code),
                Err(Code::MalformedXML),
                "{shown}"
            );
        }
        assert!(delete(b"<Delete><Object><Key>\xff</Key></Object></Delete>").is_err());
        let part = |inner: &str| {
            complete(
                format!("<CompleteMultipartUpload><Part>{inner}</Part></CompleteMultipartUpload>").as_bytes(),
            )
        };
        assert!(part("<PartNumber>1</PartNumber>").is_err());
        assert!(part("<ETag>a</ETag>").is_err());
        assert!(part("<PartNumber>-1</PartNumber><ETag>a</ETag>").is_err());
        let parts = "<Part><PartNumber>1</PartNumber><ETag>a</ETag></Part>".repeat(10_001);
        assert!(
            complete(format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").as_bytes())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(text in "[<>/&;#x!\\[\\]?a-dDeleteObjectKey\" ]{0,120}") {
            let _ = delete(text.as_bytes());
            let _ = complete(format!("<CompleteMultipartUpload>{text}").as_bytes());
        }

        #[test]
        fn keys_come_back(keys in proptest::collection::vec("[^\u{0}\r]{1,20}", 1..10)) {
            let mut document = crate::codec::xml::Xml::new("Delete");
            for key in &keys {
                document.open("Object").element("Key", key).close();
            }
            let found: Vec<String> =
                delete(&document.finish()).unwrap().objects.into_iter().map(|object| object.key.into()).collect();
            prop_assert_eq!(found, keys);
        }
    }
}

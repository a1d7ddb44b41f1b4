//! One read or write, as the requests that it takes: one, or for an upload in parts one to begin it, one for each part, and
//! one that puts them together.
//!
//! Invariant: the next request of an operation depends on the answers to all before it; bytes in, a verdict out.

use std::{fmt::Write, ops::Range};

use super::sign::escaped;
use crate::tally::Kind;

/// What is under way on a connection.
#[derive(Clone, Debug)]
pub struct Operation {
    path: String,
    /// The bytes of the blob.
    place: Range<usize>,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Read,
    Write,
    /// Asks for an upload, in parts of so many bytes.
    Begin(usize),
    Part(Upload),
    Complete(Upload),
}

#[derive(Clone, Debug)]
struct Upload {
    id: String,
    size: usize,
    /// Entity tags of the parts that are there.
    tags: Vec<String>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The path, escaped.
    pub path: String,
    /// The query, escaped and sorted.
    pub query: String,
    /// The body, in the pool.
    pub body: Range<usize>,
    /// A body that is not.
    pub text: Vec<u8>,
}

impl Request {
    /// How long its body is.
    pub fn len(&self) -> usize {
        self.body.len() + self.text.len()
    }
}

/// What an answer means for its operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It has another request.
    GoesOn,
    /// It failed.
    Wrong(Kind, String),
}

impl Operation {
    /// Reads these bytes.
    pub fn read(path: String, place: Range<usize>) -> Self {
        Self { path, place, step: Step::Read }
    }

    /// Writes these bytes, in parts if there are more than fit one.
    pub fn write(path: String, place: Range<usize>, parts: Option<u64>) -> Self {
        let step = match parts.map(|size| size as usize) {
            Some(size) if place.len() > size => Step::Begin(size),
            _ => Step::Write,
        };
        Self { path, place, step }
    }

    /// What is to be asked now.
    pub fn request(&self) -> Request {
        let (mut text, none) = (Vec::new(), 0..0);
        let (method, query, body) = match &self.step {
            Step::Read => ("GET", String::new(), none),
            Step::Write => ("PUT", String::new(), self.place.clone()),
            Step::Begin(_) => ("POST", "uploads=".into(), none),
            Step::Part(upload) => {
                let query =
                    format!("partNumber={}&uploadId={}", upload.tags.len() + 1, escaped(&upload.id, false));
                ("PUT", query, self.part(upload))
            }
            Step::Complete(upload) => {
                text = upload.list().into_bytes();
                ("POST", format!("uploadId={}", escaped(&upload.id, false)), none)
            }
        };
        Request { method, path: self.path.clone(), query, body, text }
    }

    /// The bytes that the answer has to have.
    pub fn expects(&self) -> Option<Range<usize>> {
        matches!(self.step, Step::Read).then(|| self.place.clone())
    }

    /// The bytes of the blob in the current request.
    pub fn body(&self) -> Option<Range<usize>> {
        match &self.step {
            Step::Write => Some(self.place.clone()),
            Step::Part(upload) => Some(self.part(upload)),
            _ => None,
        }
    }

    /// Takes an answer that is no content.
    pub fn answered(&mut self, status: u16, tag: Option<&str>, text: &[u8]) -> Verdict {
        let text = String::from_utf8_lossy(text);
        if !(200..300).contains(&status) || matches!(self.step, Step::Read) {
            return Verdict::Wrong(Kind::Status(status), text.trim().to_owned());
        }
        let refused = |why: &str| Verdict::Wrong(Kind::Refused, format!("{why}: {}", text.trim()));
        let step = std::mem::replace(&mut self.step, Step::Write);
        self.step = match step {
            Step::Begin(size) => match between(&text, "<UploadId>", "</UploadId>") {
                Some(id) => Step::Part(Upload { id: id.to_owned(), size, tags: Vec::new() }),
                None => return refused("no UploadId"),
            },
            Step::Part(mut upload) => {
                let Some(tag) = tag else { return refused("a part without an entity tag") };
                upload.tags.push(tag.to_owned());
                match self.part(&upload).is_empty() {
                    true => Step::Complete(upload),
                    false => Step::Part(upload),
                }
            }
            // An error may come behind a head that says 200: putting together may take long.
            Step::Complete(_) if !text.contains("<CompleteMultipartUploadResult") => {
                return refused("the parts were not put together");
            }
            Step::Complete(_) | Step::Write | Step::Read => return Verdict::Done,
        };
        Verdict::GoesOn
    }

    /// In words.
    pub fn describe(&self) -> String {
        let what = match &self.step {
            Step::Read => "GET".into(),
            Step::Write => "PUT".into(),
            Step::Begin(_) => "the beginning of the upload".into(),
            Step::Part(upload) => format!("part {} of the upload", upload.tags.len() + 1),
            Step::Complete(_) => "the end of the upload".into(),
        };
        format!("{what} {}", self.path)
    }

    /// The next part, empty behind the last one.
    fn part(&self, upload: &Upload) -> Range<usize> {
        let Range { start, end } = self.place;
        let from = (start + upload.tags.len() * upload.size).min(end);
        from..(from + upload.size).min(end)
    }
}

impl Upload {
    fn list(&self) -> String {
        let mut text = String::from("<CompleteMultipartUpload>");
        for (index, tag) in self.tags.iter().enumerate() {
            let tag = tag.replace('"', "&quot;");
            _ = write!(text, "<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", index + 1);
        }
        text + "</CompleteMultipartUpload>"
    }
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(behind).map(|(found, _)| found).filter(|found| !found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: &[u8] =
        b"<?xml?><InitiateMultipartUploadResult><UploadId>a/b+</UploadId></InitiateMultipartUploadResult>";

    #[test]
    fn what_fits_one_part_is_one_request() {
        let mut write = Operation::write("/c/1".into(), 5..105, Some(100));
        let request = write.request();
        assert_eq!((request.method, request.query.as_str(), request.body), ("PUT", "", 5..105));
        assert_eq!(write.answered(200, None, b""), Verdict::Done);
    }

    #[test]
    fn parts_follow_each_other_and_are_put_together() {
        let mut write = Operation::write("/c/1".into(), 5..105, Some(40));
        assert_eq!(
            (write.request().method, write.request().query.as_str(), write.request().len()),
            ("POST", "uploads=", 0)
        );
        assert_eq!(write.answered(200, None, BEGUN), Verdict::GoesOn);
        for (number, place) in [(1, 5..45), (2, 45..85), (3, 85..105)] {
            let request = write.request();
            assert_eq!((request.method, request.body.clone()), ("PUT", place.clone()));
            assert_eq!(request.query, format!("partNumber={number}&uploadId=a%2Fb%2B"));
            assert_eq!(write.body(), Some(place));
            assert_eq!(write.answered(200, Some(&format!("\"t{number}\"")), b""), Verdict::GoesOn);
        }
        let request = write.request();
        assert_eq!((request.method, request.query.as_str()), ("POST", "uploadId=a%2Fb%2B"));
        let text = String::from_utf8(request.text).expect("text");
        assert!(
            text.contains("<Part><PartNumber>3</PartNumber><ETag>&quot;t3&quot;</ETag></Part>"),
            "{text}"
        );
        assert_eq!(write.answered(200, None, b"<CompleteMultipartUploadResult/>"), Verdict::Done);
    }

    #[test]
    fn a_failure_at_any_step_is_told() {
        let kind = |verdict: Verdict| match verdict {
            Verdict::Wrong(kind, _) => Some(kind),
            _ => None,
        };
        let begun = || {
            let mut write = Operation::write("/c/1".into(), 0..80, Some(40));
            write.answered(200, None, BEGUN);
            write
        };
        assert_eq!(
            kind(Operation::write("/c/1".into(), 0..80, Some(40)).answered(200, None, b"<x/>")),
            Some(Kind::Refused)
        );
        assert_eq!(kind(begun().answered(200, None, b"")), Some(Kind::Refused));
        assert_eq!(kind(begun().answered(503, None, b"busy")), Some(Kind::Status(503)));
        let mut all = begun();
        all.answered(200, Some("a"), b"");
        all.answered(200, Some("b"), b"");
        assert_eq!(kind(all.answered(200, None, b"<Error>InternalError</Error>")), Some(Kind::Refused));
        assert_eq!(
            kind(Operation::read("/c/1".into(), 0..5).answered(404, None, b"")),
            Some(Kind::Status(404))
        );
        // A part of a read is none of it.
        assert_eq!(
            kind(Operation::read("/c/1".into(), 0..5).answered(206, None, b"ab")),
            Some(Kind::Status(206))
        );
    }
}

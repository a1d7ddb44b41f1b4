//! Containers and files of tests, and the codes of refusals.

use super::http::{Answer, End, request};
use super::loom::fresh_id;

/// Makes a container that no other test of this process uses.
#[track_caller]
pub fn fresh_container(addr: &str, what: &str) -> String {
    let name = fresh_id(what);
    request(addr, "PUT", &format!("/{name}"), &[], b"").expect(200);
    name
}

/// Stores a file, also an empty one.
#[track_caller]
pub fn put(addr: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let zero = [headers, &[("Content-Length", "0")]].concat();
    request(addr, "PUT", target, if body.is_empty() { &zero } else { headers }, body)
}

/// The code of a refusal. Its XML is exact, so nothing else can be in it.
#[track_caller]
pub fn code_of(answer: &Answer) -> String {
    assert_eq!(answer.header("content-type"), Some("application/xml"), "{answer:?}");
    assert_eq!(answer.end, End::Length, "{answer:?}");
    let inner = answer
        .text()
        .strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>")
        .and_then(|rest| rest.strip_suffix("</Message></Error>"))
        .unwrap_or_else(|| panic!("not an error in XML: {}", answer.text()));
    let (code, message) = inner.split_once("</Code><Message>").expect("a code, then a message");
    assert!(!message.is_empty() && !message.contains('<'), "{message}");
    code.to_owned()
}

/// Refused with this status and code.
#[track_caller]
pub fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, code_of(answer).as_str()), (status, code), "{answer:?}");
}

/// What stands in each `<name>…</name>`, in order.
pub fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(open.as_str()).skip(1).map(|rest| rest.split(close.as_str()).next().expect("closed")).collect()
}

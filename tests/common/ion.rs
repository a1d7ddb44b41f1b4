//! Modules of tests, and the shape of refusals.

use super::daemon::Daemon;
use super::http::{Answer, Conn, End, request};
use super::loom::json_of;

/// Two modules of one chain on the shared port: `parent` and `child`, with their names as secrets.
pub const PAIR: &str = "[[ion.module]]\nname = \"parent\"\nevent_id = \"e-1\"\nparent_event_id = \"e-0\"\n\
     correlation_id = \"c\"\nsecret = \"parent\"\n\
     [[ion.module]]\nname = \"child\"\nevent_id = \"e-2\"\nparent_event_id = \"e-1\"\n\
     correlation_id = \"c\"\nsecret = \"child\"\n";

/// A module of its own chain for a test: its name is its secret and its event.
pub fn module(name: &str, lines: &str) -> String {
    format!(
        "[[ion.module]]\nname = \"{name}\"\nevent_id = \"{name}\"\nparent_event_id = \"parent-of-{name}\"\n\
         correlation_id = \"chain-of-{name}\"\nsecret = \"{name}\"\n{lines}\n"
    )
}

/// A request of the module with this secret.
#[track_caller]
pub fn ask(addr: &str, secret: &str, method: &str, target: &str, body: &[u8]) -> Answer {
    ask_with(addr, secret, method, target, &[], body)
}

/// The same with further fields.
#[track_caller]
pub fn ask_with(
    addr: &str,
    secret: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let secret = [("secret", secret)];
    let zero = [("Content-Length", "0")];
    let needs_length = body.is_empty() && method == "PUT";
    let headers = [&secret[..], headers, if needs_length { &zero } else { &[] }].concat();
    request(addr, method, target, &headers, body)
}

/// Refused with this status, in the one shape that there is; the message.
#[track_caller]
pub fn refused(answer: &Answer, status: u16) -> String {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (status, Some("application/json")),
        "{answer:?}"
    );
    assert_eq!(answer.end, End::Length, "{answer:?}");
    assert!(answer.text().ends_with("}\n"), "{answer:?}");
    let json = json_of(answer);
    assert_eq!(json["statusCode"], status, "{json}");
    assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
    let message = json["message"].as_str().expect("a message").to_owned();
    assert!(!message.is_empty());
    message
}

/// A request to the admin listener.
#[track_caller]
pub fn admin(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let len = body.len();
    let mut conn = Conn::open(daemon.admin());
    conn.send(format!("{method} {path} HTTP/1.1\r\n{fields}Content-Length: {len}\r\n\r\n{body}"));
    conn.answer_to(method)
}

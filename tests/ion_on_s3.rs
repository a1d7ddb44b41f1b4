//! Ion with its blobs in a store elsewhere: what holds over our own segments holds over a real S3 server, which may also die
//! in the middle of a transfer.
//!
//! The tests of `ion_facts.rs` run here once more, against moto.

#![allow(clippy::disallowed_types, reason = "a toy server on threads of the test tells it what it heard")]

#[path = "ion_facts.rs"]
mod facts;

use facts::common;

use common::backend::{Asked, Backend, Does};
use common::ion::{PAIR, ask, ask_with, refused};
use common::moto::{Moto, remote};
use common::{Conn, Daemon, Setup, bytes_of, eventually, get, sha256};
use std::sync::{Arc, Mutex};

fn over(section: &str) -> Daemon {
    let setup = Setup::default().ion(&format!("blob_provider = \"s3\"\n{PAIR}"));
    setup.further(section).awaiting_readiness().start()
}

#[test]
fn a_remote_that_dies_in_mid_transfer_breaks_the_answer_and_refuses_the_next() {
    let Some(mut moto) = Moto::start() else { return };
    let daemon = over(&moto.section(""));
    let bytes = bytes_of(3, 48 << 20);
    ask(daemon.ion(), "parent", "PUT", "/self/blob?res=large", &bytes).expect(200);
    let whole = ask(daemon.ion(), "child", "GET", "/parent/blob?res=large", b"").expect(200);
    assert_eq!(sha256(&whole.body), sha256(&bytes));
    let mut reader = Conn::open(daemon.ion());
    reader.send("GET /self/blob?res=large HTTP/1.1\r\nHost: a\r\nsecret: parent\r\n\r\n");
    let head = reader.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("50331648")));
    let mut writer = Conn::open(daemon.ion());
    writer.send(format!(
        "PUT /self/blob?res=half HTTP/1.1\r\nHost: a\r\nsecret: parent\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    ));
    writer.send(&bytes[..8 << 20]);
    moto.die();
    // It may have answered before it was sent everything, and closed on the rest.
    let _ = writer.try_send(&bytes[8 << 20..]);
    refused(&writer.answer_to("PUT"), 502);
    assert!(reader.rest().len() < bytes.len(), "a part of it, and then the end of the connection");
    for (method, target) in
        [("GET", "/self/blob?res=large"), ("PUT", "/self/blob?res=a"), ("GET", "/self/blobs")]
    {
        refused(&ask(daemon.ion(), "parent", method, target, b"x"), 502);
    }
    // What is kept here does not mind.
    ask(daemon.ion(), "parent", "PUT", "/self/meta", b"{}").expect(200);
    moto.come_back();
    refused(&ask(daemon.ion(), "parent", "GET", "/self/blob?res=large", b""), 404);
    for (name, body) in [("small", &b"x"[..]), ("large", &bytes[..1 << 20])] {
        ask(daemon.ion(), "parent", "PUT", &format!("/self/blob?res={name}"), body).expect(200);
        assert_eq!(ask(daemon.ion(), "parent", "GET", &format!("/self/blob?res={name}"), b"").body, body);
    }
    eventually("readiness says so", || {
        get(daemon.admin(), "/readyz").text().contains("remote.s3: ready").then_some(())
    });
}

#[test]
fn the_remote_hears_nothing_but_what_is_its_own() {
    let heard: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let hears = heard.clone();
    let backend = Backend::start(move |asked| {
        hears.lock().unwrap().push(asked.clone());
        Does::Raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into())
    });
    let daemon = Setup::default()
        .ion(&format!("blob_provider = \"s3\"\n{PAIR}"))
        .further(&remote(&format!("http://{}", backend.addr()), ""))
        .start();
    eventually("it is asked", || (!heard.lock().unwrap().is_empty()).then_some(()));
    let page = get(daemon.admin(), "/readyz");
    eventually("it is told", || {
        let page = get(daemon.admin(), "/readyz");
        (page.status == 503 && page.text().contains("[-] remote.s3: it does not let us in")).then_some(())
    });
    assert_eq!(page.status, 503);
    let fields = [("request-id", "r"), ("X-Forwarded-For", "f"), ("Cookie", "c")];
    refused(&ask_with(daemon.ion(), "parent", "GET", "/self/blob?res=a", &fields, b""), 503);
    for asked in heard.lock().unwrap().iter() {
        for (name, value) in &asked.fields {
            let name = name.to_ascii_lowercase();
            let known = ["host", "authorization", "content-length", "x-amz-date", "x-amz-content-sha256"];
            assert!(known.contains(&name.as_str()), "{name}: {value}");
            assert!(!value.contains("wJalrXUtnFEMI"), "{name}: the secret itself");
        }
    }
}

#[test]
fn of_a_remote_blob_only_what_is_known_goes_along() {
    let heard: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let hears = heard.clone();
    let backend = Backend::start(move |asked| {
        hears.lock().unwrap().push(asked.clone());
        Does::Raw("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx".into())
    });
    let daemon = over(&remote(&format!("http://{}", backend.addr()), ""));
    let fields = [("request-id", "r"), ("X-Forwarded-For", "f"), ("Cookie", "c"), ("Content-Type", "a/b")];
    ask_with(daemon.ion(), "parent", "PUT", "/self/blob?res=a", &fields, b"x").expect(200);
    let fields = [("request-id", "r"), ("Range", "bytes=0-0"), ("secret-2", "s")];
    ask_with(daemon.ion(), "parent", "GET", "/self/blob?res=a", &fields, b"");
    let heard = heard.lock().unwrap();
    assert!(heard.iter().any(|asked| asked.line.starts_with("PUT /millpond-ion/e-1/a ")), "{heard:?}");
    let known = [
        "host",
        "authorization",
        "content-length",
        "content-type",
        "range",
        "if-match",
        "x-amz-date",
        "x-amz-content-sha256",
        "x-amz-checksum-mode",
    ];
    for (name, value) in heard.iter().flat_map(|asked| &asked.fields) {
        assert!(known.contains(&name.to_ascii_lowercase().as_str()), "{name}: {value}");
        assert_ne!(value, "parent", "{name}");
    }
}

#[test]
fn what_needs_blobs_that_are_here_says_so() {
    let Some(moto) = Moto::start() else { return };
    let daemon = over(&moto.section(""));
    refused(&ask(daemon.ion(), "parent", "PUT", "/self/blob?res=a&stage", b"x"), 501);
    refused(&ask(daemon.ion(), "parent", "POST", "/self/commit", b"{\"blobs\":[\"a\"]}"), 501);
    ask(daemon.ion(), "parent", "POST", "/self/commit", b"{\"document\":{}}").expect(201);
}

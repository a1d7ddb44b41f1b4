//! Vblob over a store elsewhere: what holds over our own segments holds over a real S3 server, which may also not be
//! there, die, and come back.
//!
//! The tests of `vblob_files.rs` and `vblob_containers.rs` run here once more, against moto.

#![allow(clippy::duplicate_mod, reason = "each of the two files brings along what all tests share")]

#[path = "vblob_containers.rs"]
mod containers;
#[path = "vblob_files.rs"]
mod files;

use files::common;

use common::moto::Moto;
use common::vblob::{code_of, fresh_container, put, refused};
use common::{Conn, Setup, bytes_of, eventually, get, head, request};

fn over(moto: &Moto) -> Setup {
    Setup::default().vblob("").s3("").further("[blob]\ndriver = \"s3\"").further(&moto.section(""))
}

#[test]
fn the_remote_dies_and_comes_back() {
    let Some(mut moto) = Moto::start() else { return };
    let daemon = over(&moto).start();
    let ready = || get(daemon.admin(), "/readyz");
    eventually("the driver is ready", || ready().text().contains("[+] remote.s3: ready").then_some(()));
    let container = fresh_container(daemon.vblob(), "dying");
    let target = format!("/{container}/a");
    put(daemon.vblob(), &target, &[], b"one").expect(200);
    moto.die();
    refused(&get(daemon.vblob(), &target), 502, "BadGateway");
    refused(&put(daemon.vblob(), &target, &[], b"two"), 502, "BadGateway");
    refused(&get(daemon.vblob(), "/"), 502, "BadGateway");
    let page = ready();
    assert!(page.status == 200 && page.text().contains("[!] remote.s3: lost"), "{page:?}");
    moto.come_back();
    refused(&get(daemon.vblob(), &target), 404, "NoSuchContainer");
    request(daemon.vblob(), "PUT", &format!("/{container}"), &[], b"").expect(200);
    put(daemon.vblob(), &target, &[], b"three").expect(200);
    assert_eq!(get(daemon.vblob(), &target).expect(200).body, b"three");
    assert!(ready().text().contains("[+] remote.s3: ready"));
}

#[test]
fn until_the_remote_answers_requests_are_503_and_readiness_names_it() {
    let Some(mut moto) = Moto::start() else { return };
    moto.die();
    let daemon = over(&moto).start();
    let page = get(daemon.admin(), "/readyz");
    assert!(page.status == 503 && page.text().contains("[-] remote.s3: "), "{page:?}");
    refused(&get(daemon.vblob(), "/"), 503, "ServiceUnavailable");
    refused(&put(daemon.vblob(), "/abc/a", &[], b"x"), 503, "ServiceUnavailable");
    moto.come_back();
    eventually("it is ready", || (get(daemon.admin(), "/readyz").status == 200).then_some(()));
    get(daemon.vblob(), "/").expect(200);
}

#[test]
fn a_body_of_unknown_length_becomes_one_object_or_none() {
    let Some(moto) = Moto::start() else { return };
    let daemon = over(&moto).awaiting_readiness().start();
    let container = fresh_container(daemon.vblob(), "unknown");
    let bytes = bytes_of(7, 20 << 20);
    let mut conn = Conn::open(daemon.vblob());
    let field = "Transfer-Encoding: chunked";
    conn.send(format!("PUT /{container}/whole HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    for chunk in bytes.chunks(1 << 20) {
        conn.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    conn.send("0\r\n\r\n");
    let stored = conn.answer_to("PUT").expect(200);
    let whole = get(daemon.vblob(), &format!("/{container}/whole")).expect(200);
    assert!(whole.body == bytes, "{} bytes came back", whole.body.len());
    assert_eq!(stored.header("etag"), whole.header("etag"), "the tag is that of the store");
    let mut conn = Conn::open(daemon.vblob());
    conn.send(format!("PUT /{container}/half HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    for chunk in bytes.chunks(1 << 20).take(10) {
        conn.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    drop(conn);
    refused(&get(daemon.vblob(), &format!("/{container}/half")), 404, "NoSuchFile");
    let uploads = format!("/{container}?uploads");
    eventually("the upload is taken back", || {
        (!get(daemon.s3(), &uploads).expect(200).text().contains("<Upload>")).then_some(())
    });
    assert!(head(daemon.vblob(), &format!("/{container}/half")).status == 404);
}

#[test]
fn what_a_remote_cannot_do_is_said() {
    let Some(moto) = Moto::start() else { return };
    let daemon = over(&moto).awaiting_readiness().start();
    let container = fresh_container(daemon.vblob(), "cannot");
    let answer = put(daemon.vblob(), &format!("/{container}/%ff"), &[], b"x");
    assert_eq!((answer.status, code_of(&answer)), (400, "InvalidRequest".to_owned()));
}

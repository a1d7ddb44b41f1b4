//! `millpond stream`: status, message and body of the answer come out as they come in.

mod fake_loom;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use fake_loom::{Client, Fake};

#[test]
fn stream_prints_status_and_body() {
    let fake = Fake::start();
    let url = fake.url();
    let (mut client, mut stdin) = Client::start(&["stream", &url, "a b", "--force"]);
    let mut post = fake.exchange();
    assert_eq!(post.asks(), "POST /stream/a%20b?force=true");
    assert!(post.has_line("X-Stream-Metadata: {}") && post.has_line("Connection: keep-alive"));
    stdin.write_all(b"one").expect("the client reads");
    assert_eq!(post.read_chunk().expect("a chunk"), b"one");
    post.created(0, 1);
    client.await_stdout(b"201 Created\n");
    drop(stdin);
    assert!(post.read_to_end().is_empty());
    post.end();
    client.outcome().expect(0, "");

    let (client, _stdin) = Client::start(&["stream", &url, "a"]);
    fake.exchange().refuse("409 Conflict", "", "{\"error\":\"taken\"}");
    let outcome = client.outcome();
    outcome.expect(1, "");
    assert_eq!(outcome.stdout, b"409 Conflict\n{\"error\":\"taken\"}");
}

#[test]
fn stream_whose_answer_breaks_off_is_an_error() {
    let fake = Fake::start();
    let url = fake.url();
    let (client, stdin) = Client::start(&["stream", &url, "a"]);
    let mut post = fake.exchange();
    post.created(0, 1);
    drop(stdin);
    assert!(post.read_to_end().is_empty());
    post.close();
    client.outcome().expect(1, "closed the connection");
}

#[test]
fn a_unix_socket_serves_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("loom.sock");
    let listener = UnixListener::bind(&path).expect("a free name");
    let (client, stdin) = Client::start(&["stream", &format!("unix:{}", path.display()), "a"]);
    let (mut peer, _) = listener.accept().expect("the client");
    drop(stdin);
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n0\r\n\r\n") {
        peer.read_exact(&mut byte).expect("the client is there");
        request.push(byte[0]);
    }
    assert!(request.starts_with(b"POST /stream/a HTTP/1.1\r\nHost: localhost\r\n"));
    peer.write_all(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .expect("the client reads");
    let outcome = client.outcome();
    outcome.expect(0, "");
    assert_eq!(outcome.stdout, b"201 Created\n");
}

#[test]
fn without_arguments_it_shows_its_usage_and_exits_1() {
    for args in [&["stream"][..], &["stream", "http://127.0.0.1:9"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("millpond can be started");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Usage: millpond stream"), "{said}");
    }
}

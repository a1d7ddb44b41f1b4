//! The HTTP client of the daemon: bodies of every framing, connections that are kept and given up, and who is to
//! blame for what. Each test runs a shard in this process against a peer that follows a script.

use millpond::net::http::client::{Call, Client, ClientError, Endpoint, Options};
use millpond::net::http::exchange::BodyStep;
use millpond::net::http::framing::BodyLength;
use millpond::net::http::request::Request;
use millpond::net::http::{Reason, Status};
use millpond::runtime::driver;
use millpond::runtime::file::os::OsDisk;
use millpond::runtime::timer;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const BIG: usize = 5 << 20;

fn on_a_shard<T: Send + 'static, F: Future<Output = T> + 'static>(
    test: impl Fn() -> F + Clone + Send + 'static,
) -> T {
    let (done, result) = sync_channel(1);
    let running = driver::start(1, Arc::new(OsDisk), move |_, _| {
        let (test, done) = (test.clone(), done.clone());
        Box::pin(async move {
            let value = test().await;
            let _ = done.send(value);
        })
    });
    let running = running.expect("shards start here");
    let value = result.recv_timeout(PATIENCE).expect("the test on the shard ends without a panic");
    assert!(running.join(), "the shard ends in order");
    value
}

/// A connection as the peer sees it.
struct Wire {
    /// Which connection this is, from zero.
    number: usize,
    reader: BufReader<TcpStream>,
}

impl Wire {
    /// The next request head, or `None` at the end.
    fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    fn body(&mut self, len: usize) -> Vec<u8> {
        let mut body = vec![0; len];
        self.reader.read_exact(&mut body).expect("a body");
        body
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }
}

/// Serves each connection by `script`, on a thread of its own; threads end with their connections.
fn peer(script: impl Fn(Wire) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let accepted = Arc::new(AtomicUsize::new(0));
    let (count, script) = (accepted.clone(), Arc::new(script));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let script = script.clone();
            std::thread::spawn(move || script(Wire { number, reader: BufReader::new(stream) }));
        }
    });
    (address, accepted)
}

fn client(change: impl FnOnce(&mut Options)) -> Rc<Client> {
    let mut options = Options::default();
    change(&mut options);
    Client::new(options)
}

fn request(method: &str) -> Request {
    Request::new(method, "/a?b", "peer").expect("a request")
}

async fn text(call: &mut Call) -> Vec<u8> {
    call.read_whole(64 << 20).await.expect("a body").expect("a short body")
}

/// Bytes that differ from place to place.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

#[test]
fn bodies_come_whole_by_length_by_chunks_and_by_the_end() {
    let (address, accepted) = peer(|mut wire| {
        while let Some(head) = wire.head() {
            let body = content(BIG);
            match head.split(' ').nth(1) {
                Some("/length") => wire.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n")),
                Some("/chunks") => {
                    wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for piece in body.chunks(70_001) {
                        wire.say([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
                    }
                    wire.say("0\r\nX-Trailer: seen\r\n\r\n");
                    continue;
                }
                _ => {
                    wire.say("HTTP/1.1 200 OK\r\n\r\n");
                    return wire.say(body);
                }
            }
            wire.say(body);
        }
    });
    on_a_shard(move || async move {
        let client = client(|_| {});
        for target in ["/length", "/chunks", "/end"] {
            let get = Request::new("GET", target, "peer").expect("a request");
            let mut call = client.call(&Endpoint::Tcp(address), &get, b"").await.expect("an answer");
            assert!(text(&mut call).await == content(BIG), "{target}");
        }
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 1, "one connection carried them all");
}

#[test]
fn bodies_go_out_by_length_and_by_chunks() {
    let (address, _) = peer(|mut wire| {
        while let Some(head) = wire.head() {
            let body = if head.contains("Content-Length") {
                wire.body(BIG)
            } else {
                let mut body = Vec::new();
                loop {
                    let mut line = String::new();
                    wire.reader.read_line(&mut line).expect("a chunk head");
                    let len = usize::from_str_radix(line.trim_end(), 16).expect("a size");
                    let chunk = wire.body(len + 2);
                    if len == 0 {
                        break body;
                    }
                    body.extend_from_slice(&chunk[..len]);
                }
            };
            let verdict = if body == content(BIG) { "same" } else { "else" };
            wire.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{verdict}"));
        }
    });
    on_a_shard(move || async move {
        let client = client(|_| {});
        let body = content(BIG);
        for length in [BodyLength::Exact(BIG as u64), BodyLength::Chunked] {
            let put = request("PUT").body(length);
            let mut call = client.begin(&Endpoint::Tcp(address), &put).await.expect("a connection");
            for piece in body.chunks(99_999) {
                call.send(piece).await.expect("sent");
            }
            assert_eq!(call.answer().await.expect("an answer").status(), Status::OK);
            assert_eq!(text(&mut call).await, b"same");
        }
    });
}

#[test]
fn a_connection_that_was_given_up_costs_a_repeatable_request_nothing() {
    // The first connection answers once, reads a second request and closes; later ones answer all.
    let (address, accepted) = peer(|mut wire| {
        let mut answers = if wire.number == 0 { 1 } else { usize::MAX };
        while wire.head().is_some() && answers > 0 {
            answers -= 1;
            wire.say("HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    on_a_shard(move || async move {
        let client = client(|_| {});
        for _ in 0..3 {
            client.call(&Endpoint::Tcp(address), &request("GET"), b"").await.expect("an answer");
        }
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let (address, accepted) = peer(move |mut wire| {
        for answers in 0.. {
            if wire.head().is_none() {
                return;
            }
            counted.fetch_add(1, Ordering::SeqCst);
            if answers == 1 {
                return;
            }
            wire.say("HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    on_a_shard(move || async move {
        let client = client(|_| {});
        let endpoint = Endpoint::Tcp(address);
        client.call(&endpoint, &request("POST"), b"").await.expect("an answer");
        let second = client.call(&endpoint, &request("POST"), b"").await;
        assert!(matches!(second, Err(ClientError::Closed | ClientError::Broken(_))), "{:?}", second.err());
    });
    assert_eq!((done.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst)), (2, 1));
}

#[test]
fn a_connection_that_closed_while_it_was_idle_is_not_used() {
    let (address, accepted) = peer(|mut wire| {
        wire.head();
        wire.say("HTTP/1.1 204 No Content\r\n\r\n");
    });
    on_a_shard(move || async move {
        let client = client(|_| {});
        for _ in 0..3 {
            // Not repeatable: it must not have been sent on a dead connection.
            client.call(&Endpoint::Tcp(address), &request("POST"), b"").await.expect("an answer");
            timer::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
}

#[test]
fn an_offered_body_is_sent_when_it_is_wanted() {
    let (address, _) = peer(|mut wire| {
        while let Some(head) = wire.head() {
            assert!(head.contains("Expect: 100-continue\r\n"));
            match head.split(' ').nth(1) {
                Some("/no") => {
                    wire.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
                    return;
                }
                Some("/mute") => {}
                _ => wire.say("HTTP/1.1 100 Continue\r\n\r\n"),
            }
            let body = wire.body(5);
            wire.say([&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..], &body].concat());
        }
    });
    on_a_shard(move || async move {
        let client = client(|options| options.continue_timeout = Duration::from_millis(50));
        for (target, status, said) in [("/yes", 200, "12345"), ("/mute", 200, "12345"), ("/no", 403, "no")] {
            let put = Request::new("PUT", target, "peer").expect("a request");
            let put = put.body(BodyLength::Exact(5)).expect_continue();
            let mut call = client.begin(&Endpoint::Tcp(address), &put).await.expect("a connection");
            assert_eq!(call.is_refused(), status == 403, "{target}");
            call.send(b"12345").await.expect("sent, or dropped because it is not wanted");
            assert_eq!(call.answer().await.expect("an answer").status().code(), status, "{target}");
            assert_eq!(text(&mut call).await, said.as_bytes(), "{target}");
        }
    });
}

#[test]
fn an_offer_on_a_connection_that_was_given_up_is_made_again() {
    let (address, accepted) = peer(|mut wire| {
        wire.head();
        if wire.number == 0 {
            wire.say("HTTP/1.1 204 No Content\r\n\r\n");
            wire.head();
            return;
        }
        wire.say("HTTP/1.1 100 Continue\r\n\r\n");
        wire.body(3);
        wire.say("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    });
    on_a_shard(move || async move {
        let (client, endpoint) = (client(|_| {}), Endpoint::Tcp(address));
        client.call(&endpoint, &request("GET"), b"").await.expect("an answer");
        let post = request("POST").body(BodyLength::Exact(3)).expect_continue();
        let mut call = client.begin(&endpoint, &post).await.expect("another connection");
        call.send(b"abc").await.expect("sent");
        assert_eq!(call.answer().await.expect("an answer").status(), Status::CREATED);
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[test]
fn an_answer_before_the_end_of_the_body_is_heard() {
    let (address, _) = peer(|mut wire| {
        wire.head();
        wire.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        // Takes nothing more until the client has gone.
        let mut one = [0];
        while wire.reader.get_mut().peek(&mut one).is_ok_and(|len| len > 0) {
            std::thread::yield_now();
        }
    });
    on_a_shard(move || async move {
        let client = client(|_| {});
        let put = request("PUT").body(BodyLength::Exact(1 << 30));
        let mut call = client.begin(&Endpoint::Tcp(address), &put).await.expect("a connection");
        while !call.is_refused() {
            call.send(&[0; 64 * 1024]).await.expect("sent, or not wanted any more");
        }
        assert_eq!(call.answer().await.expect("an answer").status(), Status::CONTENT_TOO_LARGE);
        assert_eq!(text(&mut call).await, b"big");
    });
}

#[test]
fn who_is_to_blame_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a free port");
    let (address, _) = peer(|mut wire| {
        let head = wire.head().expect("a request");
        match head.split(' ').nth(1).unwrap_or_default() {
            "/garbage" => wire.say("SSH-2.0-OpenSSH_9\r\n\r\n"),
            "/short" => wire.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"),
            "/chunk" => wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            "/twice" => wire.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            "/closed" => {}
            // Says nothing, or not all of it, until the client goes.
            target => {
                if target == "/stalled" {
                    wire.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
                }
                wire.head();
            }
        }
    });
    on_a_shard(move || async move {
        let client = client(|options| {
            options.head_timeout = Duration::from_millis(100);
            options.progress_timeout = Duration::from_millis(100);
        });
        let fails = async |target: &str| -> ClientError {
            let get = Request::new("GET", target, "peer").expect("a request");
            match client.call(&Endpoint::Tcp(address), &get, b"").await {
                Err(error) => error,
                Ok(mut call) => call.read_whole(100).await.expect_err("the body fails"),
            }
        };
        assert!(matches!(fails("/garbage").await, ClientError::NotHttp(Reason::StatusLine)));
        assert!(matches!(fails("/short").await, ClientError::Truncated));
        assert!(matches!(fails("/chunk").await, ClientError::NotHttp(Reason::ChunkSize)));
        assert!(matches!(fails("/twice").await, ClientError::NotHttp(Reason::LengthRepeated)));
        assert!(matches!(fails("/closed").await, ClientError::Closed));
        assert!(matches!(fails("/mute").await, ClientError::HeadTimeout));
        assert!(matches!(fails("/stalled").await, ClientError::Stalled));
        let call = async |endpoint: Endpoint| {
            client.call(&endpoint, &request("GET"), b"").await.err().expect("nobody is there")
        };
        assert!(matches!(call(Endpoint::Tcp(closed)).await, ClientError::Connect(_)));
        assert!(matches!(call(Endpoint::Unix("/nowhere/at/all".into())).await, ClientError::Connect(_)));
        assert!(matches!(call(Endpoint::new("nowhere.invalid", 80)).await, ClientError::Resolve(_)));
    });
}

#[test]
fn connections_are_bounded_kept_and_let_go() {
    let (address, accepted) = peer(|mut wire| {
        while wire.head().is_some() {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
        }
    });
    on_a_shard(move || async move {
        let client = client(|options| {
            options.connections_max = 1;
            options.waiting_max = 1;
            options.idle_timeout = Duration::from_millis(100);
            options.connect_timeout = Duration::from_millis(200);
        });
        let endpoint = Endpoint::new("localhost", address.port());
        let mut held = client.call(&endpoint, &request("GET"), b"").await.expect("an answer");
        // The body of the first is unread: its connection is in use.
        let waits = client.call(&endpoint, &request("GET"), b"").await;
        assert!(matches!(waits, Err(ClientError::ConnectTimeout)), "{:?}", waits.err());
        assert!(matches!(held.read_body(|_| {}).await, Ok(BodyStep::Bytes(1))));
        assert!(matches!(held.read_body(|_| {}).await, Ok(BodyStep::End)));
        let mut next = client.call(&endpoint, &request("GET"), b"").await.expect("the same connection");
        assert_eq!(text(&mut next).await, b"x");
        assert_eq!(client.idle(&endpoint), 1);
        timer::sleep(Duration::from_millis(400)).await;
        assert_eq!(client.idle(&endpoint), 0, "it was kept for its time");
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn a_unix_socket_is_called_like_any_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("peer");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 1024];
        let len = stream.read(&mut head).expect("a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("an answer");
        String::from_utf8(head[..len].to_vec()).expect("text")
    });
    on_a_shard(move || {
        let path = path.clone();
        async move {
            let (client, endpoint) = (client(|_| {}), Endpoint::Unix(path));
            let mut call = client.call(&endpoint, &request("GET"), b"").await.expect("an answer");
            assert_eq!(text(&mut call).await, b"ok");
        }
    });
    assert_eq!(server.join().expect("the server"), "GET /a?b HTTP/1.1\r\nHost: peer\r\n\r\n");
}

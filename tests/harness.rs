//! The instruments of the other tests, tested themselves: a client that misreads an answer proves nothing.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;

use common::http::Trouble;
use common::prometheus::Page;
use common::{Answer, Conn, End, Live, bytes_of, sha256};

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n\
    5\r\nhello\r\nA\r\n, harness!\r\n0\r\nX-State: done\r\nX-Next: 15\r\n\r\n";

/// What the client makes of these bytes; the peer sends them in two pieces and ends the connection.
fn read(answer: &[u8], split: usize) -> Result<Answer, Trouble> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address").to_string();
    std::thread::scope(|scope| {
        let read = scope.spawn(move || {
            let mut conn = Conn::open(&addr);
            conn.send("x");
            conn.try_answer_to("GET")
        });
        let (mut peer, _) = listener.accept().expect("the client");
        peer.read_exact(&mut [0]).expect("what the client sends");
        peer.set_nodelay(true).expect("nodelay");
        peer.write_all(&answer[..split]).expect("the first piece");
        peer.write_all(&answer[split..]).expect("the second piece");
        drop(peer);
        read.join().expect("the client")
    })
}

#[test]
fn a_chunked_answer_is_read_the_same_at_every_split() {
    for split in 0..=CHUNKED.len() {
        let answer = read(CHUNKED, split).unwrap_or_else(|trouble| panic!("split at {split}: {trouble:?}"));
        assert_eq!((answer.status, answer.text(), answer.end), (200, "hello, harness!", End::LastChunk));
        assert_eq!(
            (answer.header("x-a"), answer.trailer("x-state"), answer.trailer("x-next")),
            (Some("b"), Some("done"), Some("15"))
        );
    }
}

#[test]
fn an_answer_that_stops_early_is_cut_at_every_byte() {
    let head = common::http::find(CHUNKED, b"\r\n\r\n").expect("a head") + 4;
    for len in head..CHUNKED.len() {
        let answer = read(&CHUNKED[..len], 0).unwrap_or_else(|trouble| panic!("{len} bytes: {trouble:?}"));
        assert_eq!(answer.end, End::Cut, "{len} bytes");
        assert!(b"hello, harness!".starts_with(&answer.body[..]));
    }
    assert_eq!(read(b"", 0).unwrap_err(), Trouble::Ended);
    assert!(matches!(read(&CHUNKED[..20], 0).unwrap_err(), Trouble::Malformed(_)));
}

#[test]
fn the_end_of_a_body_is_told_apart() {
    for (bytes, body, end) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..], &b"hi"[..], End::Length),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", b"hi", End::Cut),
        (b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi", End::Close),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", End::Bodyless),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", End::Bodyless),
    ] {
        let answer = read(bytes, 0).expect("an answer");
        assert_eq!((answer.body.as_slice(), answer.end), (body, end));
    }
}

#[test]
fn wrong_framing_is_noticed() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        assert!(matches!(read(bytes, 0), Err(Trouble::Malformed(_))), "{}", bytes.escape_ascii());
    }
}

#[test]
#[should_panic(expected = "the answer ended before")]
fn waiting_for_what_never_comes_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address").to_string();
    let peer = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("the client");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte).expect("the request");
            request.push(byte[0]);
        }
        peer.write_all(CHUNKED).expect("the answer");
    });
    let mut live = Live::get(&addr, "/");
    peer.join().expect("the peer");
    live.wait_for(b"something else");
}

#[test]
fn a_page_of_metrics_is_read_and_a_wrong_one_refused() {
    let page = Page::parse(
        "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\n\"} 2\na_total{x=\"2\"} 3\n\
         # HELP h_seconds How long.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"0.1\"} 1\n\
         h_seconds_bucket{le=\"+Inf\"} 2\nh_seconds_sum 0.5\nh_seconds_count 2\n",
    );
    assert_eq!((page.sum("a_total"), page.sum_where("a_total", &[("x", "2")])), (5.0, 3.0));
    assert_eq!(page.sum("h_seconds_count"), 2.0);
    for wrong in [
        "a 1\n",
        "# HELP a x\n# TYPE a counter\na 1",
        "# HELP a x\n# TYPE a counter\na 1\na 1\n",
        "# HELP a x\n# TYPE a kounter\na 1\n",
        "# HELP a x\n# TYPE a counter\na{b=1} 1\n",
        "# HELP a x\n# TYPE a counter\na{b=\"1\"c=\"2\"} 1\n",
        "# HELP a x\n# TYPE a counter\na one\n",
        "# HELP a x\na 1\n",
        "# TYPE a counter\na 1\n",
        "# HELP a x\n# TYPE a counter\n# TYPE a counter\na 1\n",
        "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
        "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 1\nh_count 2\n",
    ] {
        let read = std::panic::catch_unwind(|| Page::parse(wrong));
        assert!(read.is_err(), "{wrong}");
    }
}

#[test]
fn content_follows_from_its_seed_and_has_prefixes() {
    let long = bytes_of(7, 1_000);
    for len in [0, 1, 7, 8, 9, 999] {
        assert_eq!(bytes_of(7, len), long[..len]);
    }
    assert_ne!(bytes_of(8, 1_000), long);
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

//! micro: what is passed on to a node as it is: websockets, and the fields of a request.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::sync_channel;

use common::backend::{Backend, Does};
use common::micro::{Socket, service};
use common::{Daemon, Setup, get, request};
use tungstenite::Message;

fn daemon() -> Daemon {
    Setup::default().micro("handler = \"proxy\"\nnamespace = \"ns\"").start()
}

/// A node that speaks websocket, not by our code, and says back what it hears.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if !message.is_close() && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_websocket_passes_through_to_the_node() {
    let daemon = daemon();
    request(daemon.micro(), "POST", "/registry", &[], service("ns.echo", "echo-1", echo()).as_bytes())
        .expect(200);
    let mut socket = Socket::open(daemon.micro(), "/echo/anything?a=b");
    let mut other = Socket::open(daemon.micro(), "/echo");
    for text in ["one", "two"] {
        socket.send(text);
        other.send(&format!("{text} other"));
        assert_eq!((socket.text(), other.text()), (text.to_owned(), format!("{text} other")));
    }
    // More than sockets and pipes hold, both ways at once.
    let large = "x".repeat(3 << 20);
    socket.send_message(Message::text(large.clone()));
    assert!(socket.text() == large);
    socket.close();
    // A service that speaks none answers as it does, and nobody is switched.
    let plain = Backend::answering("1");
    plain.register(daemon.micro(), "ns.plain");
    assert_eq!(Socket::try_open(daemon.micro(), "/plain", &[]).err(), Some(200));
    assert_eq!(Socket::try_open(daemon.micro(), "/nobody", &[]).err(), Some(404));
    other.send("still there");
    assert_eq!(other.text(), "still there");
}

#[test]
fn fields_of_the_connection_stay_and_traces_go_on() {
    let daemon = daemon();
    let (sender, asked) = sync_channel(16);
    let node = Backend::start(move |request| {
        let _ = sender.send(request.clone());
        Does::Raw(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nok"
                .into(),
        )
    });
    node.register(daemon.micro(), "ns.web");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fields = [
        ("traceparent", trace),
        ("tracestate", "a=1"),
        ("Connection", "X-Mine"),
        ("X-Mine", "1"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic eA=="),
        ("X-Forwarded-For", "10.0.0.1"),
    ];
    let answer = request(daemon.micro(), "GET", "/web/page?q=1", &fields, b"").expect(200);
    assert_eq!((answer.text(), answer.header("x-kept")), ("ok", Some("2")));
    assert_eq!((answer.header("x-hop"), answer.header("keep-alive")), (None, None));
    let request = asked.recv().expect("asked");
    assert_eq!(request.line, "GET /web/page?q=1 HTTP/1.1");
    assert_eq!((request.field("traceparent"), request.field("tracestate")), (Some(trace), Some("a=1")));
    assert_eq!(request.field("x-forwarded-for"), Some("10.0.0.1, 127.0.0.1"));
    for gone in ["connection", "x-mine", "te", "proxy-authorization"] {
        assert_eq!(request.field(gone), None, "{gone}");
    }
    get(daemon.micro(), "/").expect(404);
}

#[test]
fn a_node_that_switches_unasked_is_a_bad_gateway() {
    let daemon = daemon();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
        }
    });
    request(daemon.micro(), "POST", "/registry", &[], service("ns.odd", "odd-1", port).as_bytes())
        .expect(200);
    get(daemon.micro(), "/odd/").expect(502);
}

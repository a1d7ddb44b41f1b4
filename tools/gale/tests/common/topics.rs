//! A small server of topics over websockets that does wrong what a test wants it to do wrong.
//!
//! Invariant: one thread has all subscriptions, and connections tell it; a publisher is answered when its message is
//! with that thread. The websockets are tungstenite's, so that gale's are held to somebody else's reading.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use tungstenite::{
    Message, WebSocket,
    handshake::server::{Request, Response},
    protocol::{
        Role,
        frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use super::{loom::Mangle, peer, request};

/// What it speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tongue {
    Micro,
    Nchan,
    Nats,
}

/// Serves topics; returns its address. Every fifth message is preceded by a ping, and every third comes in two frames.
pub fn topics(tongue: Tongue, mangle: Mangle) -> String {
    let (tell, told) = sync_channel(1024);
    thread::spawn(move || broker(&told, tongue, mangle));
    peer(move |stream| {
        let mut first = [0; 4];
        let is_post = stream.peek(&mut first).is_ok() && &first == b"POST";
        _ = if is_post { publish(stream, &tell) } else { listen(stream, tongue, &tell) };
    })
}

enum Tell {
    Subscribe(String, Box<WebSocket<TcpStream>>),
    Publish(String, Vec<u8>),
}

fn broker(told: &Receiver<Tell>, tongue: Tongue, mangle: Mangle) {
    let mut subscribers: HashMap<String, Vec<Box<WebSocket<TcpStream>>>> = HashMap::new();
    let mut numbers: HashMap<String, u64> = HashMap::new();
    while let Ok(tell) = told.recv() {
        match tell {
            Tell::Subscribe(topic, socket) => subscribers.entry(topic).or_default().push(socket),
            Tell::Publish(topic, content) => {
                let number = numbers.entry(topic.clone()).or_default();
                let size = content.len();
                for content in mangle(*number, content).chunks(size) {
                    let message = worded(tongue, &topic, content);
                    for socket in subscribers.get_mut(&topic).into_iter().flatten() {
                        _ = send(socket, tongue, *number, &message);
                    }
                }
                *number += 1;
            }
        }
    }
}

fn worded(tongue: Tongue, topic: &str, content: &[u8]) -> Vec<u8> {
    match tongue {
        Tongue::Nchan => content.to_vec(),
        Tongue::Nats => {
            let line = format!("MSG {topic} 1 {}\r\n", content.len());
            [line.as_bytes(), content, b"\r\n"].concat()
        }
        Tongue::Micro => {
            let body = data_encoding::BASE64.encode(content);
            format!("{{\"Header\":{{\"Content-Length\":\"{}\"}},\"Body\":\"{body}\"}}", content.len())
                .into_bytes()
        }
    }
}

fn send(socket: &mut WebSocket<TcpStream>, tongue: Tongue, number: u64, message: &[u8]) -> Option<()> {
    let kind = if tongue == Tongue::Micro { Data::Text } else { Data::Binary };
    if number.is_multiple_of(5) {
        socket.send(Message::Ping("are you there?".into())).ok()?;
    }
    let mut part = |bytes: &[u8], kind, is_last| {
        socket.send(Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(kind), is_last))).ok()
    };
    if !number.is_multiple_of(3) {
        return part(message, kind, true);
    }
    let (first, second) = message.split_at(message.len() / 2);
    part(first, kind, false)?;
    part(second, Data::Continue, true)
}

/// Takes records as requests.
fn publish(mut stream: TcpStream, tell: &SyncSender<Tell>) -> Option<()> {
    let mut held = Vec::new();
    loop {
        let head = request(&mut stream, &mut held)?;
        let len: usize = head.split("Content-Length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        while held.len() < len {
            let mut buffer = [0; 4096];
            let more = stream.read(&mut buffer).ok().filter(|more| *more > 0)?;
            held.extend_from_slice(&buffer[..more]);
        }
        tell.send(Tell::Publish(topic_of(head.split(' ').nth(1)?), held.drain(..len).collect())).ok()?;
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok").ok()?;
    }
}

/// Takes a subscriber, or whoever speaks NATS. A subscriber is known before it hears that it is one.
fn listen(stream: TcpStream, tongue: Tongue, tell: &SyncSender<Tell>) -> Option<()> {
    let told = stream.try_clone().ok()?;
    let subscribe = |topic: String, stream: TcpStream| {
        let socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        tell.send(Tell::Subscribe(topic, Box::new(socket))).ok()
    };
    #[allow(clippy::result_large_err, reason = "it is tungstenite's")]
    let note = |request: &Request, response: Response| {
        if tongue != Tongue::Nats {
            _ = told.try_clone().ok().and_then(|told| subscribe(topic_of(&request.uri().to_string()), told));
        }
        Ok(response)
    };
    let mut socket = tungstenite::accept_hdr(stream, note).ok()?;
    if tongue != Tongue::Nats {
        return Some(());
    }
    socket.send(Message::binary(b"INFO {\"server_id\":\"test\"}\r\n".to_vec())).ok()?;
    let mut held = Vec::new();
    loop {
        held.extend_from_slice(&socket.read().ok()?.into_data());
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&held[..end]).into_owned();
            let mut used = end + 1;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["SUB", subject, _] => subscribe(subject.to_owned(), told.try_clone().ok()?)?,
                ["PUB", subject, len] => {
                    let len: usize = len.parse().ok()?;
                    let Some(content) = held.get(used..used + len) else { break };
                    tell.send(Tell::Publish(subject.into(), content.to_vec())).ok()?;
                    used += len + 2;
                }
                ["PING"] => {
                    // Nobody else writes to it before this is said: what is published comes later.
                    socket.send(Message::binary(b"PONG\r\n".to_vec())).ok()?;
                }
                _ => {}
            }
            held.drain(..used.min(held.len()));
        }
    }
}

/// The last word of a path or of its query.
fn topic_of(path: &str) -> String {
    path.rsplit(['/', '=']).next().unwrap_or_default().to_owned()
}

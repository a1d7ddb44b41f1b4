//! A small server of streams that does wrong what a test wants it to do wrong.
//!
//! Invariant: one thread has all streams, and connections ask it; what it keeps of a record is what `mangle` makes
//! of it.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use gale::http::chunked::Chunked;

use super::{peer, request};

/// What is done with a record, given its number: nothing is left out, and twice is twice.
pub type Mangle = fn(u64, Vec<u8>) -> Vec<u8>;

/// What the server does wrong beside that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sin {
    None,
    /// It never ends the answer to a producer.
    Silence,
    /// It says that streams end interrupted.
    Interrupted,
    /// It ends the answer to a producer with the connection instead of a last chunk.
    Cut,
    /// It calls nothing durable.
    Volatile,
    /// It ends the answer to a producer that still writes.
    Haste,
}

/// Serves streams of records of `size` bytes; returns its address.
pub fn loom(size: usize, mangle: Mangle, sin: Sin) -> String {
    let (ask, asked) = sync_channel(1024);
    thread::spawn(move || keep(&asked));
    peer(move |mut stream| {
        let mut held = Vec::new();
        while let Some(head) = request(&mut stream, &mut held) {
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let id = path.split('?').next().unwrap_or_default().to_owned();
            let kept = match method {
                "POST" => write(&mut stream, &mut held, &head, &ask, (id, size), mangle, sin),
                "GET" => read(&mut stream, &ask, id, sin),
                _ => standing(&mut stream, &ask, id, sin),
            };
            if kept.is_none() {
                return;
            }
        }
    })
}

enum Ask {
    Begin(String),
    Append(String, Vec<u8>),
    End(String),
    Read(String, SyncSender<Option<Vec<u8>>>),
    Standing(String, SyncSender<(usize, bool)>),
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    readers: Vec<SyncSender<Option<Vec<u8>>>>,
    is_complete: bool,
}

fn keep(asked: &Receiver<Ask>) {
    let mut streams: HashMap<String, Kept> = HashMap::new();
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Begin(id) => drop(streams.insert(id, Kept::default())),
            Ask::Append(id, bytes) => {
                let kept = streams.entry(id).or_default();
                kept.readers.retain(|reader| reader.send(Some(bytes.clone())).is_ok());
                kept.bytes.extend_from_slice(&bytes);
            }
            Ask::End(id) => {
                let kept = streams.entry(id).or_default();
                kept.is_complete = true;
                kept.readers.drain(..).for_each(|reader| _ = reader.send(None));
            }
            Ask::Read(id, reader) => {
                let kept = streams.entry(id).or_default();
                _ = reader.send(Some(kept.bytes.clone()));
                if kept.is_complete {
                    _ = reader.send(None);
                } else {
                    kept.readers.push(reader);
                }
            }
            Ask::Standing(id, told) => {
                let kept = streams.entry(id).or_default();
                _ = told.send((kept.bytes.len(), kept.is_complete));
            }
        }
    }
}

fn write(
    stream: &mut TcpStream,
    held: &mut Vec<u8>,
    head: &str,
    ask: &SyncSender<Ask>,
    (id, size): (String, usize),
    mangle: Mangle,
    sin: Sin,
) -> Option<()> {
    ask.send(Ask::Begin(id.clone())).ok()?;
    stream.write_all(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    let (mut chunked, mut part, mut number, mut content_len) = (Chunked::default(), Vec::new(), 0, 0);
    loop {
        let (used, data, done) = match length {
            Some(length) => {
                let len = held.len().min(length - content_len);
                (len, 0..len, content_len + len == length)
            }
            None => {
                chunked.step(held).map(|piece| (piece.used, piece.data, piece.done)).expect("good chunks")
            }
        };
        content_len += data.len();
        part.extend_from_slice(&held[data]);
        held.drain(..used);
        let mut bytes = Vec::new();
        for record in part.chunks_exact(size) {
            bytes.extend_from_slice(&mangle(number, record.to_vec()));
            number += 1;
        }
        part.drain(..part.len() / size * size);
        ask.send(Ask::Append(id.clone(), bytes)).ok()?;
        if sin == Sin::Haste && number > 0 {
            stream.write_all(b"0\r\n\r\n").ok()?;
        }
        if done {
            break;
        }
        if held.is_empty() {
            let mut buffer = [0; 65536];
            let len = stream.read(&mut buffer).ok().filter(|len| *len > 0)?;
            held.extend_from_slice(&buffer[..len]);
        }
    }
    ask.send(Ask::End(id)).ok()?;
    match sin {
        Sin::Silence => stream.read(&mut [0; 16]).ok().filter(|len| *len > 0).map(drop),
        Sin::Cut => None,
        _ => stream.write_all(b"0\r\n\r\n").ok(),
    }
}

fn read(stream: &mut TcpStream, ask: &SyncSender<Ask>, id: String, sin: Sin) -> Option<()> {
    let (reader, bytes) = sync_channel(4096);
    ask.send(Ask::Read(id, reader)).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
    while let Some(bytes) = bytes.recv().ok()? {
        if !bytes.is_empty() {
            let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
            stream.write_all(&chunk).ok()?;
        }
    }
    let state = if sin == Sin::Interrupted { "interrupted" } else { "complete" };
    stream.write_all(format!("0\r\nX-Stream-State: {state}\r\n\r\n").as_bytes()).ok()
}

fn standing(stream: &mut TcpStream, ask: &SyncSender<Ask>, id: String, sin: Sin) -> Option<()> {
    let (told, standing) = sync_channel(1);
    ask.send(Ask::Standing(id, told)).ok()?;
    let (len, is_complete) = standing.recv().ok()?;
    let state = if is_complete { "complete" } else { "open" };
    let durable = if sin == Sin::Volatile { 0 } else { len };
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Stream-State: {state}\r\nStream-Next-Offset: {len}\r\nStream-Durable-Offset: {durable}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()
}

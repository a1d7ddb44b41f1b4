//! A small store of blobs that does wrong what a test wants it to do wrong.
//!
//! Invariant: one thread has all blobs, and connections ask it; a digest that a request names is held against its body.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use sha2::{Digest, Sha256};

use super::{peer, request};

/// What the store does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sin {
    #[default]
    None,
    /// It changes a byte of what it keeps under key 5.
    Changes,
    /// It forgets the last byte of key 5.
    Cuts,
    /// It forgets key 5.
    Forgets,
    /// It says 503 to writes of key 5 after the first 25 of all keys.
    Refuses,
    /// It puts parts together without the last one.
    LosesPart,
    /// It says that it could not put parts together, behind a head that says 200.
    FailsLate,
}

/// Serves blobs; returns its address. What is signed has to name who signs and the right digest.
pub fn store(sin: Sin) -> String {
    let (ask, asked) = sync_channel(1024);
    thread::spawn(move || keep(&asked, sin));
    peer(move |stream| _ = serve(stream, &ask))
}

struct Ask {
    method: String,
    target: String,
    body: Vec<u8>,
    answer: SyncSender<(u16, Vec<u8>)>,
}

fn keep(asked: &Receiver<Ask>, sin: Sin) {
    let mut store = Store { sin, ..Store::default() };
    while let Ok(ask) = asked.recv() {
        _ = ask.answer.send(store.answer(&ask.method, &ask.target, ask.body));
    }
}

#[derive(Default)]
struct Store {
    sin: Sin,
    blobs: HashMap<String, Vec<u8>>,
    uploads: HashMap<String, BTreeMap<u32, Vec<u8>>>,
    begun: u64,
    written: u64,
}

impl Store {
    fn answer(&mut self, method: &str, target: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, v)| v)
        };
        let is_fifth = path.ends_with("00000005");
        match (method, query.is_empty()) {
            ("GET", _) => match self.blobs.get(path) {
                Some(_) if is_fifth && self.sin == Sin::Forgets => (404, b"gone".to_vec()),
                Some(blob) => (200, blob.clone()),
                None => (404, b"no such key".to_vec()),
            },
            ("PUT", true) => {
                if is_fifth && self.sin == Sin::Refuses && self.written > 25 {
                    return (503, b"busy".to_vec());
                }
                self.put(path, body);
                (200, Vec::new())
            }
            ("POST", _) if query == "uploads=" => {
                self.begun += 1;
                let id = format!("up/{}", self.begun);
                self.uploads.insert(id.clone(), BTreeMap::new());
                (200, format!("<R><UploadId>{id}</UploadId></R>").into_bytes())
            }
            ("PUT", false) => {
                let id = value("uploadId").unwrap_or_default().replace("%2F", "/");
                let number = value("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
                let Some(parts) = self.uploads.get_mut(&id) else { return (404, b"no upload".to_vec()) };
                parts.insert(number, body);
                (200, Vec::new())
            }
            ("POST", _) => {
                let id = value("uploadId").unwrap_or_default().replace("%2F", "/");
                let Some(mut parts) = self.uploads.remove(&id) else { return (404, b"no upload".to_vec()) };
                let named = String::from_utf8_lossy(&body).matches("<ETag>&quot;tag&quot;</ETag>").count();
                if named != parts.len() || self.sin == Sin::FailsLate {
                    return (200, b"<Error><Code>InternalError</Code></Error>".to_vec());
                }
                if self.sin == Sin::LosesPart {
                    parts.pop_last();
                }
                self.put(path, parts.into_values().flatten().collect());
                (200, b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>".to_vec())
            }
            _ => (405, Vec::new()),
        }
    }

    fn put(&mut self, path: &str, mut body: Vec<u8>) {
        self.written += 1;
        let is_fifth = path.ends_with("00000005");
        match self.sin {
            Sin::Changes if is_fifth => body[7] ^= 1,
            Sin::Cuts if is_fifth => _ = body.pop(),
            _ => {}
        }
        self.blobs.insert(path.to_owned(), body);
    }
}

fn serve(mut stream: TcpStream, ask: &SyncSender<Ask>) -> Option<()> {
    let mut held = Vec::new();
    loop {
        let head = request(&mut stream, &mut held)?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let len: usize = field("Content-Length:").map_or(Some(0), |len| len.parse().ok())?;
        while held.len() < len {
            let mut buffer = [0; 65536];
            let more = stream.read(&mut buffer).ok().filter(|more| *more > 0)?;
            held.extend_from_slice(&buffer[..more]);
        }
        let body: Vec<u8> = held.drain(..len).collect();
        let (status, content) = match wrong_signature(&field, &body) {
            true => (403, b"not signed".to_vec()),
            false => {
                let (answer, answered) = sync_channel(1);
                let mut words = head.split(' ').map(str::to_owned);
                ask.send(Ask { method: words.next()?, target: words.next()?, body, answer }).ok()?;
                answered.recv().ok()?
            }
        };
        let closes = field("Connection:") == Some("close");
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} X\r\nETag: \"tag\"\r\n{connection}Content-Length: {}\r\n\r\n",
            content.len()
        );
        stream.write_all(&[head.as_bytes(), &content].concat()).ok()?;
        if closes {
            return Some(());
        }
    }
}

fn wrong_signature<'a>(field: &impl Fn(&str) -> Option<&'a str>, body: &[u8]) -> bool {
    let Some(authorization) = field("Authorization:") else { return false };
    let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let named = field("x-amz-content-sha256:");
    let is_named = named == Some("UNSIGNED-PAYLOAD") || named == Some(&digest);
    !(is_named
        && authorization.starts_with("AWS4-HMAC-SHA256 Credential=someone/")
        && field("x-amz-date:").is_some())
}

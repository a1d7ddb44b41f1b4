//! A small NATS server that does wrong what a test wants it to do wrong.
//!
//! Invariant: one thread has all subscriptions, and connections tell it; a message to a JetStream is answered by the
//! connection that brought it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::{loom::Mangle, peer};

/// What is answered to the message of this number, instead of an acknowledgement.
pub type Answer = fn(u64) -> Option<String>;

/// The right answer.
pub fn acknowledged(number: u64) -> Option<String> {
    Some(format!("{{\"stream\":\"GALE\",\"seq\":{}}}", number + 1))
}

/// Serves plain subjects, and one JetStream with its requests; returns its address.
pub fn nats(mangle: Mangle, answer: Answer) -> String {
    let (tell, told) = sync_channel(1024);
    let kept = Arc::new(AtomicU64::new(0));
    thread::spawn(move || broker(&told, mangle));
    peer(move |stream| _ = serve(stream, &tell, &kept, answer))
}

enum Tell {
    Subscribe(String, String, TcpStream),
    Publish(String, Vec<u8>),
}

fn broker(told: &Receiver<Tell>, mangle: Mangle) {
    let mut subscriptions: Vec<(String, String, TcpStream)> = Vec::new();
    let mut numbers = std::collections::HashMap::new();
    while let Ok(tell) = told.recv() {
        match tell {
            Tell::Subscribe(subject, sid, stream) => subscriptions.push((subject, sid, stream)),
            Tell::Publish(subject, content) => {
                let number = numbers.entry(subject.clone()).or_insert(0);
                let size = content.len();
                let mangled = mangle(*number, content);
                *number += 1;
                for (wanted, sid, stream) in
                    subscriptions.iter_mut().filter(|(wanted, ..)| *wanted == subject)
                {
                    for content in mangled.chunks(size) {
                        _ = message(stream, wanted, sid, content);
                    }
                }
            }
        }
    }
}

fn message(stream: &mut TcpStream, subject: &str, sid: &str, content: &[u8]) -> Option<()> {
    let line = format!("MSG {subject} {sid} {}\r\n", content.len());
    stream.write_all(&[line.as_bytes(), content, b"\r\n"].concat()).ok()
}

fn serve(mut stream: TcpStream, tell: &SyncSender<Tell>, kept: &AtomicU64, answer: Answer) -> Option<()> {
    stream.write_all(b"INFO {\"server_id\":\"test\"}\r\n").ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut published = 0;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).ok().filter(|len| *len > 0)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["CONNECT", ..] | ["PONG"] => {}
            ["PING"] => stream.write_all(b"PONG\r\n").ok()?,
            ["SUB", subject, sid] => {
                tell.send(Tell::Subscribe(subject.into(), sid.into(), stream.try_clone().ok()?)).ok()?;
            }
            ["PUB", subject, .., len] => {
                let mut content = vec![0; len.parse::<usize>().ok()? + 2];
                lines.read_exact(&mut content).ok()?;
                content.truncate(content.len() - 2);
                let Some(reply) = words.get(2).filter(|_| words.len() == 4) else {
                    tell.send(Tell::Publish(subject.into(), content)).ok()?;
                    continue;
                };
                let text = match subject {
                    "$JS.API.STREAM.INFO.GALE" => {
                        Some(format!("{{\"state\":{{\"messages\":{}}}}}", kept.load(Ordering::Relaxed)))
                    }
                    api if api.starts_with("$JS.API.") => Some("{}".into()),
                    _ => {
                        published += 1;
                        let text = answer(published - 1);
                        kept.fetch_add(u64::from(text.is_some()), Ordering::Relaxed);
                        text
                    }
                };
                if let Some(text) = text {
                    message(&mut stream, reply, "1", text.as_bytes())?;
                }
            }
            _ => stream.write_all(b"-ERR 'Unknown Protocol Operation'\r\n").ok()?,
        }
    }
}

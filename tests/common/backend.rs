//! Toy services: servers that behave as those of go-micro do, or worse, on threads of the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::http::request;
use super::micro::service;
use super::wait::PATIENCE;

/// What a service was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request line.
    pub line: String,
    /// Fields, as they came.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The first field called so.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// What a service does.
#[derive(Clone, Debug)]
pub enum Does {
    /// 200 with this body, and goes on.
    Says(String),
    /// The same, and closes without a word about it, as go-micro does after mistakes.
    SaysAndCloses(String),
    /// This head and body as they are, and closes.
    Raw(String),
    /// Nothing; closes.
    Closes,
    /// Nothing, for ever.
    Hangs,
}

/// A running service, until it is dropped.
pub struct Backend {
    addr: String,
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Backend {
    /// Starts one that does what `does` says.
    pub fn start(does: impl Fn(&Asked) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound").to_string();
        let (stop, connections, requests) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let backend = Backend {
            addr,
            stop: stop.clone(),
            connections: connections.clone(),
            requests: requests.clone(),
        };
        let does = Arc::new(does);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let (does, requests) = (does.clone(), requests.clone());
                std::thread::spawn(move || serve(stream, &*does, &requests));
            }
        });
        backend
    }

    /// One that answers every call with `result`.
    pub fn answering(result: &str) -> Self {
        let body = format!("{{\"id\":0,\"result\":{result},\"error\":null}}");
        Self::start(move |_| Does::Says(body.clone()))
    }

    /// Where it is.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
    }

    /// How many connections it took.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many requests it was asked.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Registers it at the daemon as a node of `name`.
    #[track_caller]
    pub fn register(&self, micro: &str, name: &str) {
        let body = service(name, &format!("{name}-{}", self.port()), self.port());
        request(micro, "POST", "/registry", &[], body.as_bytes()).expect(200);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Gone is what refuses: a connection that is still let in would be reset, and perhaps with a request in it.
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&self.addr).is_ok() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn serve(stream: TcpStream, does: &dyn Fn(&Asked) -> Does, requests: &AtomicUsize) {
    let mut out = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        requests.fetch_add(1, Ordering::SeqCst);
        let (body, closes) = match does(&asked) {
            Does::Says(body) => (body, false),
            Does::SaysAndCloses(body) => (body, true),
            Does::Raw(text) => {
                let _ = out.write_all(text.as_bytes());
                return;
            }
            Does::Closes => return,
            Does::Hangs => loop {
                std::thread::park();
            },
        };
        // As go-micro's servers do: the fields of the request come back.
        let mut head = String::from("HTTP/1.1 200 OK\r\n");
        for (name, value) in
            asked.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"))
        {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        if out.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
        if closes {
            let _ = out.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// The next request; none at the end of the connection.
pub fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut asked = Asked { line: line.trim_end().to_owned(), fields: Vec::new(), body: Vec::new() };
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok().filter(|len| *len > 0)?;
        let Some((name, value)) = field.trim_end().split_once(": ") else { break };
        asked.fields.push((name.to_owned(), value.to_owned()));
    }
    let len = asked.field("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    asked.body = vec![0; len];
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

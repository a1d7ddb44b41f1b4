//! A raw HTTP/1.1 client: it sends the bytes that it is told to, and reads answers strictly.
//!
//! Invariant: an answer that is framed wrongly fails the test here, whatever the test was looking for.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::wait::PATIENCE;

/// One GET on a connection of its own.
#[track_caller]
pub fn get(addr: &str, target: &str) -> Answer {
    request(addr, "GET", target, &[], b"")
}

/// One HEAD on a connection of its own.
#[track_caller]
pub fn head(addr: &str, target: &str) -> Answer {
    request(addr, "HEAD", target, &[], b"")
}

/// One request on a connection of its own. A body is sent with its length.
#[track_caller]
pub fn request(addr: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut conn = Conn::open(addr);
    conn.send(request_bytes(method, target, headers, body));
    conn.answer_to(method)
}

/// The bytes of a request; a body comes with its length.
pub fn request_bytes(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{method} {target} HTTP/1.1\r\nHost: millpond.test\r\n").into_bytes();
    for (name, value) in headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || method == "POST" {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There was none to come: a HEAD, a 1xx, 204 or 304.
    Bodyless,
    /// By its length.
    Length,
    /// By the last chunk.
    LastChunk,
    /// By the end of the connection, as the head had said.
    Close,
    /// Before its framing said so: the connection ended, or was reset.
    Cut,
}

/// An answer, or as much of it as came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The words behind the status code.
    pub reason: String,
    /// The fields in order; names as sent.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The trailer fields in order.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// How it ended.
    pub end: End,
}

impl Answer {
    /// The value of a header; a field that is there twice fails the test.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_bytes(name).map(|value| std::str::from_utf8(value).expect("a header in UTF-8"))
    }

    /// The raw value of a header; a field that is there twice fails the test.
    #[track_caller]
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        single(&self.headers, name)
    }

    /// The value of a trailer field.
    #[track_caller]
    pub fn trailer(&self, name: &str) -> Option<&str> {
        single(&self.trailers, name).map(|value| std::str::from_utf8(value).expect("a trailer in UTF-8"))
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Whether the head says that the connection ends after this answer.
    pub fn closes(&self) -> bool {
        let said = |word: &str| {
            self.headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
                .any(|(_, value)| value.eq_ignore_ascii_case(word.as_bytes()))
        };
        said("close") || (self.version == "HTTP/1.0" && !said("keep-alive"))
    }

    /// The same answer, if its status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The same answer, if its framing was kept to the end.
    #[track_caller]
    pub fn whole(self) -> Self {
        assert_ne!(self.end, End::Cut, "the answer ended early: {self:?}");
        self
    }
}

#[track_caller]
fn single<'a>(fields: &'a [(String, Vec<u8>)], wanted: &str) -> Option<&'a [u8]> {
    let mut found = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let first = found.next();
    assert!(found.next().is_none(), "{wanted} is there more than once: {fields:?}");
    first.map(|(_, value)| value.as_slice())
}

/// Why an answer could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection ended before the head was complete.
    Ended,
    /// Nothing came in time.
    Late,
    /// What came is not HTTP.
    Malformed(String),
}

enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection to the daemon.
pub struct Conn {
    wire: Wire,
    unread: Vec<u8>,
    over: bool,
    /// How long reading waits for the next byte.
    pub patience: Duration,
}

impl Conn {
    /// Connects to `host:port` or `unix:/path`.
    #[track_caller]
    pub fn open(addr: &str) -> Self {
        Self::try_open(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    /// Connects, or says why not.
    pub fn try_open(addr: &str) -> io::Result<Self> {
        let wire = match addr.strip_prefix("unix:") {
            Some(path) => Wire::Unix(UnixStream::connect(path)?),
            None => {
                let stream = TcpStream::connect(addr)?;
                stream.set_nodelay(true)?;
                Wire::Tcp(stream)
            }
        };
        let conn = Self { wire, unread: Vec::new(), over: false, patience: PATIENCE };
        // A peer that takes nothing in for this long fails the test instead of hanging it.
        match &conn.wire {
            Wire::Tcp(stream) => stream.set_write_timeout(Some(PATIENCE))?,
            Wire::Unix(stream) => stream.set_write_timeout(Some(PATIENCE))?,
        }
        Ok(conn)
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("the daemon does not take the bytes: {error}"));
    }

    /// Sends bytes as they are, or says why not.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.wire {
            Wire::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Wire::Unix(stream) => stream.write_all(bytes.as_ref()),
        }
    }

    /// Ends the sending half, if the daemon has not ended the connection by itself meanwhile.
    pub fn half_close(&mut self) {
        let ended = match &self.wire {
            Wire::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Wire::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        match ended {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            ended => ended.expect("the sending half of an open connection can be ended"),
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let Wire::Tcp(stream) = &self.wire else { panic!("only TCP knows resets") };
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("SO_LINGER is settable");
    }

    /// Shrinks what the kernel holds for a reader that does not read.
    pub fn small_receive_buffer(&self, bytes: usize) {
        let Wire::Tcp(stream) = &self.wire else { panic!("only TCP has a window") };
        rustix::net::sockopt::set_socket_recv_buffer_size(stream, bytes).expect("SO_RCVBUF is settable");
    }

    /// The head of the next answer; its body is left unread.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        self.try_head()
            .unwrap_or_else(|trouble| panic!("no head of an answer: {trouble:?}, {}", self.leftover()))
    }

    /// The next answer with its body.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// The next answer with its body, which a HEAD has not.
    #[track_caller]
    pub fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer_to(method)
            .unwrap_or_else(|trouble| panic!("no answer: {trouble:?}, {}", self.leftover()))
    }

    /// The next answer with its body, or what went wrong.
    pub fn try_answer_to(&mut self, method: &str) -> Result<Answer, Trouble> {
        let answer = self.try_head()?;
        self.try_body(answer, method)
    }

    /// The body that belongs to a head, or what went wrong.
    pub fn try_body(&mut self, mut answer: Answer, method: &str) -> Result<Answer, Trouble> {
        let mut framing = Framing::of(&answer, method)?;
        while !framing.advance(&mut self.unread, &mut answer)? {
            match self.fill(self.patience)? {
                true => {}
                false => {
                    framing.close(&mut answer);
                    break;
                }
            }
        }
        Ok(answer)
    }

    /// The head of the next answer, or what went wrong.
    pub fn try_head(&mut self) -> Result<Answer, Trouble> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..at + 4).collect();
                return parse_head(&head[..at + 2]);
            }
            if !self.fill(self.patience)? {
                return match self.unread.is_empty() {
                    true => Err(Trouble::Ended),
                    false => Err(Trouble::Malformed("the connection ended inside a head".to_owned())),
                };
            }
        }
    }

    /// Whether nothing comes, not even the end, for this long. This is the one place where time itself is
    /// the condition.
    pub fn is_silent_for(&mut self, while_: Duration) -> bool {
        self.unread.is_empty() && !self.over && self.fill(while_) == Err(Trouble::Late)
    }

    /// Everything up to the end of the connection; a connection that stays open fails the test.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill(self.patience).unwrap_or_else(|trouble| {
            panic!("the daemon did not end the connection: {trouble:?}, {}", self.leftover())
        }) {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the connection ends without another byte.
    #[track_caller]
    pub fn ends(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// What was read and not yet taken.
    pub fn leftover(&self) -> String {
        format!("unread: {:?}", self.unread.escape_ascii().to_string())
    }

    /// Reads once; false at the end of the connection, however it came.
    fn fill(&mut self, patience: Duration) -> Result<bool, Trouble> {
        if self.over {
            return Ok(false);
        }
        let mut buffer = [0; 64 << 10];
        let patience = patience.max(Duration::from_millis(1));
        let read = match &mut self.wire {
            Wire::Tcp(stream) => {
                stream.set_read_timeout(Some(patience)).and_then(|()| stream.read(&mut buffer))
            }
            Wire::Unix(stream) => {
                stream.set_read_timeout(Some(patience)).and_then(|()| stream.read(&mut buffer))
            }
        };
        match read {
            Ok(0) => self.over = true,
            Ok(len) => self.unread.extend_from_slice(&buffer[..len]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Trouble::Late);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.over = true,
        }
        Ok(!self.over)
    }
}

/// An answer that is read while it comes.
pub struct Live {
    conn: Conn,
    framing: Framing,
    answer: Answer,
    done: bool,
}

impl Live {
    /// Sends a GET and reads the head of its answer.
    #[track_caller]
    pub fn get(addr: &str, target: &str) -> Self {
        Self::with(Conn::open(addr), &request_bytes("GET", target, &[], b""))
    }

    /// Sends a request on a connection and reads the head of its answer.
    #[track_caller]
    pub fn with(mut conn: Conn, request: &[u8]) -> Self {
        conn.send(request);
        Self::of(conn).unwrap_or_else(|trouble| panic!("no head of an answer: {trouble:?}"))
    }

    /// Sends a GET and reads the head of its answer, or says what went wrong.
    pub fn try_get(addr: &str, target: &str) -> Result<Self, Trouble> {
        let mut conn = Conn::try_open(addr).map_err(|_| Trouble::Ended)?;
        conn.try_send(request_bytes("GET", target, &[], b"")).map_err(|_| Trouble::Ended)?;
        Self::of(conn)
    }

    fn of(mut conn: Conn) -> Result<Self, Trouble> {
        let answer = conn.try_head()?;
        let framing = Framing::of(&answer, "GET")?;
        let mut live = Self { conn, framing, answer, done: false };
        live.done = live.framing.advance(&mut live.conn.unread, &mut live.answer)?;
        Ok(live)
    }

    /// The head, and what came of the body.
    pub fn so_far(&self) -> &Answer {
        &self.answer
    }

    /// What came of the body.
    pub fn seen(&self) -> &[u8] {
        &self.answer.body
    }

    /// Reads until the body is long enough; its end before that fails the test.
    #[track_caller]
    pub fn wait_len(&mut self, len: usize) -> &mut Self {
        self.until(&format!("the reader sees {len} bytes"), |seen| seen.len() >= len)
    }

    /// Reads until the body ends with these bytes.
    #[track_caller]
    pub fn wait_for(&mut self, tail: &[u8]) -> &mut Self {
        self.until(&format!("the reader sees {:?}", tail.escape_ascii().to_string()), |seen| {
            seen.ends_with(tail)
        })
    }

    /// Reads until the body is as asked; its end before that fails the test.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is: impl FnMut(&[u8]) -> bool) -> &mut Self {
        let deadline = Instant::now() + PATIENCE;
        while !is(&self.answer.body) {
            assert!(!self.done, "the answer ended before {what}; it ends with {:?}", self.last_seen());
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(trouble) = self.step(left) {
                panic!(
                    "within {PATIENCE:?} it did not happen that {what}: {trouble:?}; so far {:?}",
                    self.last_seen()
                );
            }
        }
        self
    }

    fn last_seen(&self) -> String {
        self.answer.body[self.answer.body.len().saturating_sub(400)..].escape_ascii().to_string()
    }

    /// Whether nothing comes, not even the end, for this long.
    pub fn is_silent_for(&mut self, while_: Duration) -> bool {
        !self.done && self.conn.is_silent_for(while_)
    }

    /// Reads to the end.
    #[track_caller]
    pub fn finish(self) -> Answer {
        self.try_finish().unwrap_or_else(|trouble| panic!("the answer does not end: {trouble:?}"))
    }

    /// Reads to the end, or says what went wrong.
    pub fn try_finish(mut self) -> Result<Answer, Trouble> {
        while !self.done {
            self.step(PATIENCE)?;
        }
        Ok(self.answer)
    }

    /// Reads once; what came is in [`Live::seen`]. False when the answer has ended.
    pub fn step(&mut self, patience: Duration) -> Result<bool, Trouble> {
        if !self.done {
            match self.conn.fill(patience)? {
                true => self.done = self.framing.advance(&mut self.conn.unread, &mut self.answer)?,
                false => {
                    self.framing.close(&mut self.answer);
                    self.done = true;
                }
            }
        }
        Ok(!self.done)
    }

    /// Takes the connection of an answer that has ended.
    #[track_caller]
    pub fn into_conn(self) -> Conn {
        assert!(self.done, "the answer has not ended");
        self.conn
    }

    /// Leaves with a reset.
    pub fn reset(self) {
        self.conn.reset();
    }
}

/// Where in the framing of a body the reader stands.
enum Framing {
    Bodyless,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    Trailers,
    UntilClose,
}

impl Framing {
    fn of(answer: &Answer, method: &str) -> Result<Self, Trouble> {
        let field = |wanted: &str| {
            let values: Vec<&[u8]> = answer
                .headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.as_slice())
                .collect();
            match values[..] {
                [] => Ok(None),
                [one] => Ok(Some(one)),
                _ => Err(Trouble::Malformed(format!("{wanted} is there more than once"))),
            }
        };
        let (length, coding) = (field("content-length")?, field("transfer-encoding")?);
        if length.is_some() && coding.is_some() {
            return Err(Trouble::Malformed("both Content-Length and Transfer-Encoding".to_owned()));
        }
        if matches!(answer.status, 100..200 | 204) && (length.is_some() || coding.is_some()) {
            return Err(Trouble::Malformed(format!("a {} that announces a body", answer.status)));
        }
        if method == "HEAD" || matches!(answer.status, 100..200 | 204 | 304) {
            return Ok(Self::Bodyless);
        }
        if let Some(length) = length {
            let text =
                std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            return match text.and_then(|text| text.parse().ok()) {
                Some(length) => Ok(Self::Length(length)),
                None => Err(Trouble::Malformed("Content-Length is no number".to_owned())),
            };
        }
        match coding {
            None => Ok(Self::UntilClose),
            Some(b"chunked") if answer.version == "HTTP/1.1" => Ok(Self::ChunkSize),
            Some(other) => {
                Err(Trouble::Malformed(format!("Transfer-Encoding {:?}", other.escape_ascii().to_string())))
            }
        }
    }

    /// Moves what is readable into the answer; true once the body has ended.
    fn advance(&mut self, unread: &mut Vec<u8>, answer: &mut Answer) -> Result<bool, Trouble> {
        loop {
            match self {
                Self::Bodyless => {
                    answer.end = End::Bodyless;
                    return Ok(true);
                }
                Self::Length(left) => {
                    take(left, unread, &mut answer.body);
                    if *left > 0 {
                        return Ok(false);
                    }
                    answer.end = End::Length;
                    return Ok(true);
                }
                Self::UntilClose => {
                    answer.body.append(unread);
                    return Ok(false);
                }
                Self::ChunkSize => {
                    let Some(line) = take_line(unread) else { return Ok(false) };
                    let text = std::str::from_utf8(&line).unwrap_or("?");
                    let size = u64::from_str_radix(text, 16).map_err(|_| {
                        Trouble::Malformed(format!("chunk size {:?}", line.escape_ascii().to_string()))
                    })?;
                    *self = match size {
                        0 => Self::Trailers,
                        size => Self::ChunkData(size),
                    };
                }
                Self::ChunkData(left) => {
                    take(left, unread, &mut answer.body);
                    if *left > 0 || unread.len() < 2 {
                        return Ok(false);
                    }
                    if !unread.starts_with(b"\r\n") {
                        return Err(Trouble::Malformed("a chunk longer than its size".to_owned()));
                    }
                    unread.drain(..2);
                    *self = Self::ChunkSize;
                }
                Self::Trailers => {
                    let Some(line) = take_line(unread) else { return Ok(false) };
                    if line.is_empty() {
                        answer.end = End::LastChunk;
                        return Ok(true);
                    }
                    answer.trailers.push(parse_field(&line)?);
                }
            }
        }
    }

    /// The connection ended.
    fn close(&self, answer: &mut Answer) {
        answer.end = match self {
            Self::UntilClose => End::Close,
            _ => End::Cut,
        };
    }
}

fn take(left: &mut u64, unread: &mut Vec<u8>, body: &mut Vec<u8>) {
    let len = unread.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    body.extend(unread.drain(..len));
    *left -= len as u64;
}

fn take_line(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let at = find(unread, b"\r\n")?;
    let line = unread.drain(..at + 2).take(at).collect();
    Some(line)
}

/// Parses a head whose every line still has its CRLF.
fn parse_head(head: &[u8]) -> Result<Answer, Trouble> {
    let malformed = |what: &str| Trouble::Malformed(format!("{what}: {:?}", head.escape_ascii().to_string()));
    let mut rest = head.to_vec();
    let status_line = take_line(&mut rest).ok_or_else(|| malformed("no status line"))?;
    let status_line = String::from_utf8(status_line).map_err(|_| malformed("status line"))?;
    let mut words = status_line.splitn(3, ' ');
    let version = words.next().unwrap_or_default().to_owned();
    let status = words.next().filter(|code| code.len() == 3).and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(|| malformed("no status code"))?;
    let reason = words.next().ok_or_else(|| malformed("no space behind the status code"))?.to_owned();
    if !matches!(version.as_str(), "HTTP/1.1" | "HTTP/1.0") {
        return Err(malformed("version"));
    }
    let mut headers = Vec::new();
    while let Some(line) = take_line(&mut rest) {
        headers.push(parse_field(&line)?);
    }
    Ok(Answer { version, status, reason, headers, body: Vec::new(), trailers: Vec::new(), end: End::Cut })
}

fn parse_field(line: &[u8]) -> Result<(String, Vec<u8>), Trouble> {
    let malformed = || Trouble::Malformed(format!("field {:?}", line.escape_ascii().to_string()));
    let colon = line.iter().position(|&byte| byte == b':').ok_or_else(malformed)?;
    let name = std::str::from_utf8(&line[..colon]).map_err(|_| malformed())?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) || line.contains(&b'\r') || line.contains(&b'\n') {
        return Err(malformed());
    }
    Ok((name.to_owned(), line[colon + 1..].trim_ascii().to_vec()))
}

/// Where `needle` first stands in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

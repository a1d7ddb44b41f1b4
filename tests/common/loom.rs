//! Producers and small helpers for the loom routes.

use std::sync::atomic::{AtomicU32, Ordering};

use super::http::{Answer, Conn, End, Trouble, request};

/// An id that no other test of this process uses, readable in a failure.
pub fn fresh_id(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Stores a whole stream; the answer is complete, so the stream is.
#[track_caller]
pub fn post(addr: &str, id: &str, body: &[u8]) -> Answer {
    request(addr, "POST", &format!("/stream/{id}"), &[], body).whole()
}

/// The body of an answer as JSON, of which its headers must speak.
#[track_caller]
pub fn json_of(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    assert_eq!(answer.end, End::Length, "JSON comes with its length: {answer:?}");
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("not JSON ({error}): {answer:?}"))
}

/// The sentence of a refusal in JSON: the client is told what is wrong.
#[track_caller]
pub fn error_of(answer: &Answer) -> String {
    let json = json_of(answer);
    let sentence = json.get("error").or_else(|| json.get("message")).and_then(|text| text.as_str());
    sentence.unwrap_or_else(|| panic!("a refusal without a sentence: {answer:?}")).to_owned()
}

/// A request whose body is still going on, sent in chunks.
pub struct Producer {
    conn: Conn,
    /// The head of the answer, if the daemon sent one before the body ended.
    pub head: Answer,
}

impl Producer {
    /// Begins a stream; returns once the 201 is there.
    #[track_caller]
    pub fn begin(addr: &str, id: &str) -> Self {
        let producer = Self::begin_at(addr, &format!("/stream/{id}"), &[]);
        assert_eq!(producer.head.status, 201, "{:?}", producer.head);
        producer
    }

    /// Begins a chunked POST; returns once the head of the answer is there, which must not wait for a body.
    #[track_caller]
    pub fn begin_at(addr: &str, target: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_begin(addr, target, headers)
            .unwrap_or_else(|trouble| panic!("no head of an answer: {trouble:?}"))
    }

    /// Begins a chunked POST, or says what went wrong.
    pub fn try_begin(addr: &str, target: &str, headers: &[(&str, &str)]) -> Result<Self, Trouble> {
        let mut text =
            format!("POST {target} HTTP/1.1\r\nHost: millpond.test\r\nTransfer-Encoding: chunked\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut conn = Conn::try_open(addr).map_err(|_| Trouble::Ended)?;
        conn.try_send(text).map_err(|_| Trouble::Ended)?;
        let head = conn.try_head()?;
        Ok(Self { conn, head })
    }

    /// Sends one chunk.
    #[track_caller]
    pub fn chunk(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_chunk(bytes.as_ref())
            .unwrap_or_else(|error| panic!("the daemon does not take a chunk: {error}"));
        self
    }

    /// Sends one chunk, or says why not.
    pub fn try_chunk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.conn.try_send(framed)
    }

    /// Ends the body and reads the end of the answer, which is the promise that everything is stored.
    #[track_caller]
    pub fn finish(self) -> Answer {
        self.try_finish().unwrap_or_else(|trouble| panic!("the answer does not end: {trouble:?}"))
    }

    /// Ends the body and reads the end of the answer, or says what went wrong.
    pub fn try_finish(mut self) -> Result<Answer, Trouble> {
        self.conn.try_send(b"0\r\n\r\n").map_err(|_| Trouble::Ended)?;
        self.try_rest()
    }

    /// Reads the end of the answer, whatever the daemon thinks ended it.
    pub fn try_rest(mut self) -> Result<Answer, Trouble> {
        self.conn.try_body(self.head, "POST")
    }

    /// The connection, to do what producers should not.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Vanishes with a reset.
    pub fn reset(self) {
        self.conn.reset();
    }

    /// Vanishes with an ordinary end of the connection in the middle of the body.
    pub fn hang_up(self) {
        drop(self.conn);
    }
}

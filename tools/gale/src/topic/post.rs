//! A producer whose records are POSTs, one behind the other on one connection.
//!
//! Invariant: a record is acknowledged when its own request was answered with 2xx, and they are answered in order.

use crate::{
    flow::wire::{Finish, Upstream, Wrong},
    http::answer::{self, Framing, Step},
    tally::Kind,
};

/// What one producer knows.
pub struct Post {
    /// What comes before every record.
    head: Vec<u8>,
    asked: u64,
    answered: u64,
    /// Bytes of the current answer's body that have not come.
    body: u64,
    is_finished: bool,
}

impl Post {
    /// To this path, with records of `size` bytes.
    pub fn new(path: &str, host: &str, size: usize) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {size}\r\n\r\n"
        );
        Self { head: head.into_bytes(), asked: 0, answered: 0, body: 0, is_finished: false }
    }
}

impl Upstream for Post {
    fn before_record(&mut self, out: &mut Vec<u8>) {
        self.asked += 1;
        out.extend_from_slice(&self.head);
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Finish {
        self.is_finished = true;
        match self.is_settled() {
            true => Finish::Settled,
            false => Finish::Said,
        }
    }

    fn hear(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<(usize, bool), Wrong> {
        let mut at = 0;
        loop {
            let len = self.body.min((input.len() - at) as u64);
            (at, self.body) = (at + len as usize, self.body - len);
            if self.body > 0 || at == input.len() {
                return Ok((at, self.is_finished && self.is_settled()));
            }
            match answer::head(&input[at..], false) {
                Step::More => return Ok((at, false)),
                Step::Malformed(why) => return Err((Kind::Malformed, why)),
                Step::Head(head) => {
                    at += head.len;
                    self.begin(&head)?;
                }
            }
        }
    }
}

impl Post {
    fn is_settled(&self) -> bool {
        self.answered == self.asked && self.body == 0
    }

    fn begin(&mut self, head: &answer::Head) -> Result<(), Wrong> {
        if !(200..300).contains(&head.status) {
            return Err((Kind::Status(head.status), format!("{} to record {}", head.reason, self.answered)));
        }
        if self.answered == self.asked {
            return Err((Kind::Surplus, "an answer that nobody asked for".into()));
        }
        let Framing::Length(len) = head.framing else {
            return Err((Kind::Malformed, "an answer without a length".into()));
        };
        if !head.keeps_alive {
            return Err((Kind::Closed, "the server wants the connection to end".into()));
        }
        (self.body, self.answered) = (len, self.answered + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Held;

    /// What becomes of two records whose answers come in these pieces.
    fn answered(text: &[u8], size: usize) -> Result<bool, Kind> {
        let (mut post, mut out, mut held) = (Post::new("/p", "h", 3), Vec::new(), Held::default());
        for record in [b"abc", b"def"] {
            post.before_record(&mut out);
            out.extend_from_slice(record);
        }
        assert!(out.ends_with(b"Content-Length: 3\r\n\r\ndef"));
        assert_eq!(post.finish(&mut out), Finish::Said);
        let mut is_acknowledged = false;
        for piece in text.chunks(size) {
            assert!(!is_acknowledged);
            is_acknowledged = held.take(piece, |input| match post.hear(input, &mut Vec::new()) {
                Ok((used, done)) => (used, Ok(done)),
                Err((kind, _)) => (input.len(), Err(kind)),
            })?;
        }
        Ok(is_acknowledged)
    }

    #[test]
    fn all_is_acknowledged_with_the_end_of_the_last_answer() {
        let text =
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 202 A\r\nContent-Length: 4\r\n\r\nbody";
        for size in 1..=text.len() {
            assert_eq!(answered(text, size), Ok(true), "{size}");
            assert_eq!(answered(&text[..text.len() - 1], size), Ok(false), "{size}");
        }
    }

    #[test]
    fn who_is_answered_before_the_end_has_nothing_to_wait_for() {
        let mut post = Post::new("/p", "h", 3);
        post.before_record(&mut Vec::new());
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(post.hear(text, &mut Vec::new()), Ok((text.len(), false)));
        assert_eq!(post.finish(&mut Vec::new()), Finish::Settled);
    }

    #[test]
    fn what_is_no_acknowledgement_is_told_apart() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for (text, kind) in [
            (ok.replace("200", "503"), Kind::Status(503)),
            (ok.repeat(3), Kind::Surplus),
            (ok.replace("Content-Length: 0", "Transfer-Encoding: chunked"), Kind::Malformed),
            (ok.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"), Kind::Closed),
            ("HELLO\r\n\r\n".into(), Kind::Malformed),
        ] {
            assert_eq!(answered(text.as_bytes(), 1000), Err(kind));
        }
    }
}

//! A daemon of our own on ports of its choice, and just enough HTTP to talk to it.
//!
//! Invariant: a daemon that this process started is gone when its value is.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon.
pub struct Daemon {
    child: Child,
    loom: String,
}

impl Daemon {
    /// Starts the binary over this data directory and waits until it serves.
    pub fn start(binary: &Path, data_dir: &Path) -> io::Result<Self> {
        let mut child = Command::new(binary)
            .args(["serve", "--log-level", "warn", "--ready-fd", "1"])
            .args(["--loom-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("it is piped");
        let mut daemon = Self { child, loom: String::new() };
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        let address = ready.split_once("\"loom\":\"").and_then(|(_, rest)| rest.split_once('"'));
        match address {
            Some((address, _)) => daemon.loom = address.to_owned(),
            None => return Err(io::Error::other(format!("the ready line is {ready:?}"))),
        }
        Ok(daemon)
    }

    /// Ends it as an out-of-memory killer would.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Where its loom listener is.
    pub fn loom(&self) -> &str {
        &self.loom
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Sends one request on a connection of its own; gives the status and the body, whole or an error.
pub fn ask(address: &str, head: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let length =
        if head.starts_with("POST") { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    write!(socket, "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}\r\n")?;
    socket.write_all(body)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    read_answer(&answer).ok_or_else(|| io::Error::other(format!("{head}: the answer is cut or malformed")))
}

fn read_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase(), &answer[end + 4..]);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    match field("content-length") {
        Some(length) => (body.len() == length.parse().ok()?).then(|| (status, body.to_vec())),
        None if field("transfer-encoding") == Some("chunked") => Some((status, unchunk(body)?)),
        None => body.is_empty().then_some((status, Vec::new())),
    }
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        body = &body[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers_are_read_and_cut_ones_are_not() {
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let chunked =
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(read_answer(length), Some((200, b"abc".to_vec())));
        assert_eq!(read_answer(chunked), Some((201, b"abc".to_vec())));
        assert_eq!(read_answer(&length[..length.len() - 1]), None);
        assert_eq!(read_answer(&chunked[..chunked.len() - 5]), None);
    }
}

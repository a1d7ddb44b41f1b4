//! Just enough HTTP/1.1 to ask a daemon of our own, one request per connection.
//!
//! Invariant: an answer is whole, or an error.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// How long a socket may stay silent.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The start of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    /// Names in lower case.
    fields: Vec<(String, String)>,
}

/// Sends one request; gives the status and the body.
pub fn ask(address: &str, request: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let length = match request.starts_with("POST") {
        true => format!("content-length: {}\r\n", body.len()),
        false => String::new(),
    };
    let mut socket = send(address, request, &length)?;
    socket.write_all(body)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    read_answer(&answer).ok_or_else(|| io::Error::other(format!("{request}: the answer is cut or malformed")))
}

/// Asks what a `GET` of this path would begin with.
pub fn head(address: &str, path: &str) -> io::Result<Head> {
    let mut answer = Vec::new();
    send(address, &format!("HEAD {path}"), "")?.read_to_end(&mut answer)?;
    match Head::read(&answer) {
        Some((head, len)) if len == answer.len() => Ok(head),
        _ => Err(io::Error::other(format!("HEAD {path}: the answer is no head alone"))),
    }
}

/// Hands a body of known length to `each`, piece by piece as it comes.
pub fn get_whole(address: &str, path: &str, mut each: impl FnMut(&[u8])) -> io::Result<Head> {
    let mut socket = send(address, &format!("GET {path}"), "")?;
    let (mut buffer, mut filled) = (vec![0; 1 << 18], 0);
    let (head, begun) = loop {
        if let Some(found) = Head::read(&buffer[..filled]) {
            break found;
        }
        filled += read_some(&mut socket, &mut buffer[filled..])?;
    };
    let mut left: u64 = head
        .number("content-length")
        .ok_or_else(|| io::Error::other(format!("GET {path}: {} has no Content-Length", head.status)))?;
    let mut piece = begun..filled;
    loop {
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| io::Error::other(format!("GET {path}: more bytes than announced")))?;
        each(&buffer[piece]);
        if left == 0 {
            return Ok(head);
        }
        piece = 0..read_some(&mut socket, &mut buffer)?;
    }
}

impl Head {
    /// The head at the start of these bytes and its length, once it is whole.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = text.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<Option<_>>()?;
        Some((Self { status, fields }, end + 4))
    }

    /// The value of a field, by its name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// The value of a field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}

fn send(address: &str, request: &str, fields: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    write!(socket, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n")?;
    Ok(socket)
}

fn read_some(socket: &mut TcpStream, space: &mut [u8]) -> io::Result<usize> {
    match socket.read(space)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut")),
        len => Ok(len),
    }
}

fn read_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (head, len) = Head::read(answer)?;
    let body = &answer[len..];
    match head.field("content-length") {
        Some(length) => (body.len() == length.parse::<usize>().ok()?).then(|| (head.status, body.to_vec())),
        None if head.field("transfer-encoding") == Some("chunked") => Some((head.status, unchunk(body)?)),
        None => body.is_empty().then_some((head.status, Vec::new())),
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

    #[test]
    fn a_head_is_found_once_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nStream-Epoch: 7\r\n\r\nbody";
        let len = answer.len() - 4;
        assert!((0..len).all(|cut| Head::read(&answer[..cut]).is_none()));
        let (head, found) = Head::read(answer).expect("it is whole");
        assert_eq!((found, head.status, head.number("stream-epoch")), (len, 200, Some(7)));
        assert_eq!(head.field("stream-closed"), None);
    }
}

//! A client of the framed socket, and backends to stand behind it.
//!
//! Invariant: nothing here waits for ever; a read that brings nothing for long fails its test.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// What a connection begins with, up to its kind.
pub const MAGIC: &[u8] = b"danger noodle";

/// Longer than anything here should take.
pub const LONG: Duration = Duration::from_secs(20);

/// Connects, and says what it wants.
#[track_caller]
pub fn ask(addr: &str, kind: u8) -> TcpStream {
    let mut stream = connect(addr);
    stream.write_all(&[MAGIC, &[kind]].concat()).expect("the preamble can be sent");
    stream
}

/// Connects.
#[track_caller]
pub fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the daemon accepts");
    stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
    stream.set_write_timeout(Some(LONG)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Everything until the end; an error instead of it is returned as one.
pub fn rest(mut stream: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// The next `len` bytes.
#[track_caller]
pub fn exactly(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("so many bytes come");
    bytes
}

/// Whether the connection ends, by an end or a reset, without a byte.
#[track_caller]
pub fn ends_silently(stream: TcpStream) -> bool {
    match rest(stream) {
        Ok(bytes) => bytes.is_empty(),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Ends a connection as a process that crashes with unread bytes does.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option can be set");
    drop(stream);
}

/// A unix socket that answers every connection by `serve`, in a thread each, as long as the test process lives.
#[track_caller]
pub fn backend(path: &Path, serve: impl Fn(UnixStream) + Clone + Send + 'static) {
    let listener = UnixListener::bind(path).expect("the backend can listen");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.expect("the backend accepts"), serve.clone());
            stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
            std::thread::spawn(move || serve(stream));
        }
    });
}

/// Sends back what comes, and the end of it.
pub fn echo(mut stream: UnixStream) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(len) = stream.read(&mut bytes) {
        if len == 0 || stream.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

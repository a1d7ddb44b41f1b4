//! A websocket client that is not ours, and what registrations look like.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use super::wait::PATIENCE;

/// A websocket.
pub struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// Opens one; anything but a 101 fails the test.
    #[track_caller]
    pub fn open(addr: &str, target: &str) -> Self {
        Self::try_open(addr, target, &[])
            .unwrap_or_else(|status| panic!("no websocket at {target}: {status}"))
    }

    /// Opens one, or tells the status of the refusal.
    #[track_caller]
    pub fn try_open(addr: &str, target: &str, fields: &[(&'static str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(addr).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut request = format!("ws://{addr}{target}").into_client_request().expect("a request");
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().expect("a field's value"));
        }
        match tungstenite::client::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
            Err(other) => panic!("the handshake failed: {other}"),
        }
    }

    /// The next text message.
    #[track_caller]
    pub fn text(&mut self) -> String {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return text.to_string(),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no text message: {other:?}"),
            }
        }
    }

    /// The next text message as JSON.
    #[track_caller]
    pub fn json(&mut self) -> serde_json::Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// The body of the next message of a topic.
    #[track_caller]
    pub fn body(&mut self) -> String {
        let message = self.json();
        let body = message["Body"].as_str().expect("a body");
        let body = data_encoding::BASE64.decode(body.as_bytes()).expect("base64 with padding");
        String::from_utf8(body).expect("text")
    }

    /// Sends a text message.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("the daemon takes messages");
    }

    /// Sends a message as it is.
    #[track_caller]
    pub fn send_message(&mut self, message: Message) {
        self.0.send(message).expect("the daemon takes messages");
    }

    /// Whether nothing comes for this long.
    #[track_caller]
    pub fn is_silent_for(&mut self, while_: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(while_)).expect("a timeout");
        let silent = matches!(
            self.0.read(),
            Err(Error::Io(error)) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        );
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silent
    }

    /// Reads until the daemon closes; the code that it gives.
    #[track_caller]
    pub fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.map(|frame| u16::from(frame.code)),
                Ok(_) => {}
                Err(error) => panic!("it ended without a close: {error}"),
            }
        }
    }

    /// Closes and waits for the daemon to say so, too.
    #[track_caller]
    pub fn close(mut self) {
        let frame = tungstenite::protocol::CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.0.close(Some(frame)).expect("a close can be sent");
        assert_eq!(self.close_code(), Some(1000), "the daemon gives the code back");
    }

    /// The connection below.
    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }
}

/// A service with one node, as clients in Go send it.
pub fn service(name: &str, id: &str, port: u16) -> String {
    format!(r#"{{"Name":"{name}","Nodes":[{{"Port":{port},"Address":"127.0.0.1","Id":"{id}"}}]}}"#)
}

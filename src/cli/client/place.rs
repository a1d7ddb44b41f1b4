//! Where a stream lives: the server's address, the path below it, and the head of a request.
//!
//! Invariant: nothing a user passes (an id, a token, metadata) can end a header line early or leave
//! its path segment.
//!
//! Runs in: the command-line clients. Pure.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What the `User-Agent` header says.
const AGENT: &str = concat!("millpond/", env!("CARGO_PKG_VERSION"));

/// Bytes that RFC 3986 leaves unescaped in a path segment whatever the server's taste.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One stream on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whom to connect to.
    pub peer: Peer,
    /// Path of the stream, percent-encoded, without a query.
    path: String,
    authorization: Option<String>,
}

/// Whom to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A host name or address, without brackets, and a port.
    Tcp {
        /// Name or address as the resolver wants it.
        host: String,
        /// Port, 80 when the URL names none.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// Why a URL, an id, a token or metadata cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misnamed {
    /// The URL starts with `https`.
    Tls,
    /// The URL starts with something that is neither `http://` nor `unix:`.
    Scheme(String),
    /// The URL has no host or no socket path.
    NoHost,
    /// The port is not a number from 1 to 65535.
    Port(String),
    /// The URL carries `user:password@`.
    UserInfo,
    /// The URL carries a query or a fragment.
    Query(char),
    /// The URL has a byte that may not stand in a request line.
    Byte(char),
    /// The id is empty.
    EmptyId,
    /// The token is empty or has a byte that may not stand in a header.
    Token,
    /// The metadata is not JSON.
    Metadata(String),
}

impl Place {
    /// Reads `http://host[:port][/base]`, `http+unix://%2Frun%2Fsocket[/base]` or `unix:/run/socket`.
    pub fn new(url: &str, id: &str, token: Option<&str>) -> Result<Self, Misnamed> {
        if id.is_empty() {
            return Err(Misnamed::EmptyId);
        }
        if let Some(odd) = url.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(Misnamed::Byte(odd));
        }
        let (peer, base) = peer(url)?;
        let path = format!("{}/stream/{}", base.trim_end_matches('/'), utf8_percent_encode(id, &ESCAPED));
        let authorization = match token {
            None => None,
            Some(token) if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) => {
                Some(format!("Authorization: Bearer {token}\r\n"))
            }
            Some(_) => return Err(Misnamed::Token),
        };
        Ok(Self { peer, path, authorization })
    }

    /// The head of a request for this stream; `query` comes without its `?`, `extra` as whole header lines.
    #[must_use]
    pub fn request(&self, method: &str, query: &str, extra: &str) -> Vec<u8> {
        let mark = if query.is_empty() { "" } else { "?" };
        let authorization = self.authorization.as_deref().unwrap_or_default();
        format!(
            "{method} {path}{mark}{query} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{authorization}{extra}\r\n",
            path = self.path,
            host = self.peer.host_header(),
            agent = AGENT,
        )
        .into_bytes()
    }
}

impl Peer {
    fn host_header(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => f.write_str(&self.host_header()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn peer(url: &str) -> Result<(Peer, &str), Misnamed> {
    if let Some(path) = url.strip_prefix("unix:") {
        // One or three slashes, as with `file:`; the socket's path is the whole rest.
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() { Err(Misnamed::NoHost) } else { Ok((Peer::Unix(path.into()), "")) };
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Misnamed::Scheme(url.to_owned()));
    };
    if let Some(odd) = rest.chars().find(|c| matches!(c, '?' | '#')) {
        return Err(Misnamed::Query(odd));
    }
    let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(Misnamed::UserInfo);
    }
    match scheme.to_ascii_lowercase().as_str() {
        "http" => tcp(authority).map(|peer| (peer, base)),
        "http+unix" => {
            let path = percent_decode_str(authority).decode_utf8_lossy().into_owned();
            if path.is_empty() { Err(Misnamed::NoHost) } else { Ok((Peer::Unix(path.into()), base)) }
        }
        "https" => Err(Misnamed::Tls),
        _ => Err(Misnamed::Scheme(url.to_owned())),
    }
}

fn tcp(authority: &str) -> Result<Peer, Misnamed> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(Misnamed::NoHost)?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(Misnamed::NoHost);
    }
    let port = match port {
        None => 80,
        // `parse` alone would take "+80".
        Some(text) => match text.parse() {
            Ok(port) if port != 0 && text.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err(Misnamed::Port(text.to_owned())),
        },
    };
    Ok(Peer::Tcp { host: host.to_owned(), port })
}

/// Metadata as one header line.
///
/// JSON allows line breaks and tabs between its tokens, a header does not: they become spaces. Inside
/// a string JSON itself forbids them, so no value changes; DEL, which it allows there, is escaped.
pub fn metadata_line(json: &str) -> Result<String, Misnamed> {
    serde_json::from_str::<serde::de::IgnoredAny>(json).map_err(|e| Misnamed::Metadata(e.to_string()))?;
    let value = json.trim().replace(['\r', '\n', '\t'], " ").replace('\x7f', "\\u007f");
    Ok(format!("X-Stream-Metadata: {value}\r\n"))
}

impl fmt::Display for Misnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ACCEPTED: &str = "http://host[:port][/base], unix:/path or http+unix://%2Fpath";
        match self {
            Self::Tls => write!(
                f,
                "https is not spoken here; give an http:// or unix: URL, or put a TLS proxy on this side"
            ),
            Self::Scheme(url) => write!(f, "{url:?} is not a server URL; accepted: {ACCEPTED}"),
            Self::NoHost => write!(f, "the URL names no host; accepted: {ACCEPTED}"),
            Self::Port(text) => write!(f, "port {text:?} is not a number from 1 to 65535"),
            Self::UserInfo => write!(f, "the URL carries a user; pass a bearer token with --token instead"),
            Self::Query(mark) => write!(f, "the URL has a {mark:?}; only a base path may follow the host"),
            Self::Byte(odd) => {
                write!(f, "the URL has the character {odd:?}; percent-encode it; accepted: {ACCEPTED}")
            }
            Self::EmptyId => write!(f, "the stream's id is empty; it needs at least one character"),
            Self::Token => write!(f, "the token is empty or has a blank, control or non-ASCII character"),
            Self::Metadata(why) => write!(f, "--metadata is not JSON: {why}"),
        }
    }
}

impl std::error::Error for Misnamed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(url: &str, id: &str) -> String {
        String::from_utf8(Place::new(url, id, None).expect(url).request("GET", "", "")).expect("ascii")
    }

    #[test]
    fn urls_give_peer_host_and_path() {
        for (url, peer, path, host) in [
            ("http://h", "h:80", "/stream/a", "h:80"),
            ("http://h:3060/", "h:3060", "/stream/a", "h:3060"),
            ("HTTP://h:1/base/x/", "h:1", "/base/x/stream/a", "h:1"),
            ("http://[::1]:9", "[::1]:9", "/stream/a", "[::1]:9"),
            ("unix:/run/a b?".trim_end_matches(" b?"), "unix:/run/a", "/stream/a", "localhost"),
            ("unix:///run/a", "unix:/run/a", "/stream/a", "localhost"),
            ("http+unix://%2Frun%2Fa/b", "unix:/run/a", "/b/stream/a", "localhost"),
        ] {
            let place = Place::new(url, "a", None).expect(url);
            assert_eq!(place.peer.to_string(), peer, "{url}");
            let head = head(url, "a");
            assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n")), "{head}");
            assert!(head.ends_with("\r\n\r\n"));
        }
    }

    #[test]
    fn an_id_stays_one_path_segment() {
        let head = head("http://h", "a/b?c#d é\r\nX: y%");
        assert!(
            head.starts_with("GET /stream/a%2Fb%3Fc%23d%20%C3%A9%0D%0AX%3A%20y%25 HTTP/1.1\r\n"),
            "{head}"
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (url, why) in [
            ("https://h", Misnamed::Tls),
            ("ftp://h", Misnamed::Scheme("ftp://h".into())),
            ("h:3060", Misnamed::Scheme("h:3060".into())),
            ("http://", Misnamed::NoHost),
            ("http://:80", Misnamed::NoHost),
            ("unix:", Misnamed::NoHost),
            ("http+unix:///x", Misnamed::NoHost),
            ("http://h:0", Misnamed::Port("0".into())),
            ("http://h:+80", Misnamed::Port("+80".into())),
            ("http://h:70000", Misnamed::Port("70000".into())),
            ("http://u@h", Misnamed::UserInfo),
            ("http://h/?x", Misnamed::Query('?')),
            ("http://h/#x", Misnamed::Query('#')),
            ("http://h/\r\nX: y", Misnamed::Byte('\r')),
        ] {
            assert_eq!(Place::new(url, "a", None), Err(why), "{url}");
        }
        assert_eq!(Place::new("http://h", "", None), Err(Misnamed::EmptyId));
        for token in ["", "a b", "a\r\nX: y", "é"] {
            assert_eq!(Place::new("http://h", "a", Some(token)), Err(Misnamed::Token));
        }
    }

    #[test]
    fn a_token_and_extra_lines_are_in_the_head() {
        let place = Place::new("http://h", "a", Some("t")).expect("valid");
        let head = String::from_utf8(place.request("POST", "force=true", "A: b\r\n")).expect("ascii");
        assert!(head.starts_with("POST /stream/a?force=true HTTP/1.1\r\n"));
        assert!(head.ends_with("\r\nAuthorization: Bearer t\r\nA: b\r\n\r\n"));
    }

    #[test]
    fn metadata_is_one_line_and_keeps_its_value() {
        let line = metadata_line("{\n\t\"a\": \"x \\n \x7f é\"\r\n}\n").expect("json");
        assert_eq!(line, "X-Stream-Metadata: {  \"a\": \"x \\n \\u007f é\"  }\r\n");
        for bad in ["", "{not json", "{}\r\nX: y", "\"\n\""] {
            assert!(matches!(metadata_line(bad), Err(Misnamed::Metadata(_))), "{bad:?}");
        }
    }
}

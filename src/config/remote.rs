//! Where a store elsewhere is, as a URL says it.
//!
//! Pure; runs on any thread.

use super::RemoteS3;

/// A host and how to speak to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemotePlace {
    /// By TLS.
    pub tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What the field `Host` says.
    pub authority: String,
}

impl RemoteS3 {
    /// What the endpoint says; `None` when it is none.
    pub fn place(&self) -> Option<RemotePlace> {
        parse(self.endpoint.as_deref()?)
    }
}

/// `http[s]://host[:port][/]`
fn parse(url: &str) -> Option<RemotePlace> {
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host.parse::<std::net::Ipv6Addr>().ok()?.to_string(), port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            (Some(authority[..end].to_owned()).filter(|host| host.bytes().all(plain))?, &authority[end..])
        }
    };
    let usual = if tls { 443 } else { 80 };
    let port = match port {
        "" => usual,
        text => text.strip_prefix(':')?.parse().ok().filter(|port| *port > 0)?,
    };
    (!host.is_empty()).then(|| RemotePlace { tls, host, port, authority: authority.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_perhaps_a_port() {
        let of = |url| parse(url).map(|place| (place.tls, place.host, place.port, place.authority));
        let some = |tls, host: &str, port, authority: &str| Some((tls, host.into(), port, authority.into()));
        assert_eq!(of("http://h"), some(false, "h", 80, "h"));
        assert_eq!(of("https://s3.example.net/"), some(true, "s3.example.net", 443, "s3.example.net"));
        assert_eq!(of("http://127.0.0.1:9000"), some(false, "127.0.0.1", 9000, "127.0.0.1:9000"));
        assert_eq!(of("http://[::1]:9000"), some(false, "::1", 9000, "[::1]:9000"));
        for url in [
            "",
            "ftp://x",
            "http://",
            "http:///x",
            "http://h/path",
            "http://h:0",
            "http://h:x",
            "http://a b",
            "h",
        ] {
            assert_eq!(of(url), None, "{url}");
        }
    }
}

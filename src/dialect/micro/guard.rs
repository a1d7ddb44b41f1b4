//! Who may: bearer tokens, and from which pages browsers may come.
//!
//! Invariant: without a token that we know nothing is done where tokens are set; what a page of a foreign origin wants
//! changed, or opens as a websocket, is refused unless the origin is in `cors`. Programs send no origin, so this is
//! about browsers alone. Pure; runs on the connection's shard.

use super::Settings;
use super::answer::Reply;
use crate::net::http::target::Param;
use crate::net::http::{Method, RequestHead, Status};
use crate::net::websocket::handshake;

/// What browsers are told about other origins.
#[derive(Debug)]
pub struct Cors {
    fields: Vec<(&'static str, String)>,
}

const METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE";
const HEADERS: &str = "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization";

impl Cors {
    /// Nothing, where no foreign origin is allowed.
    pub fn of(settings: &Settings, head: &RequestHead) -> Self {
        let mut fields = Vec::new();
        if !settings.cors.is_empty() {
            if let Some(origin) = head.header("origin").and_then(|origin| std::str::from_utf8(origin).ok())
                && is_listed(settings, origin)
            {
                fields.push(("Access-Control-Allow-Origin", origin.to_owned()));
                fields.push(("Vary", "Origin".to_owned()));
            }
            fields.push(("Access-Control-Allow-Methods", METHODS.to_owned()));
            fields.push(("Access-Control-Allow-Headers", HEADERS.to_owned()));
            fields.push(("Access-Control-Allow-Credentials", "true".to_owned()));
        }
        Cors { fields }
    }

    /// Fields for every answer.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.fields.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether a browser asks what it may do; the fields are the answer.
    pub fn is_preflight(&self, head: &RequestHead) -> bool {
        !self.fields.is_empty() && head.method() == Method::Options
    }
}

/// The refusal, if there is one.
pub fn judge(settings: &Settings, head: &RequestHead) -> Option<Reply> {
    if !may(settings, head) {
        let refusal = Reply::text(Status::UNAUTHORIZED, "a bearer token is needed that is known here");
        return Some(refusal.with("WWW-Authenticate", "Bearer realm=\"micro\""));
    }
    let matters =
        handshake::is_wanted(head) || !matches!(head.method(), Method::Get | Method::Head | Method::Options);
    let is_foreign = |origin: &[u8]| {
        std::str::from_utf8(origin)
            .map_or(true, |origin| !is_own(origin, head.host()) && !is_listed(settings, origin))
    };
    if matters && head.headers("origin").any(is_foreign) {
        return Some(Reply::text(Status::FORBIDDEN, "this origin is not in micro.cors"));
    }
    None
}

/// Without tokens everyone may.
fn may(settings: &Settings, head: &RequestHead) -> bool {
    let field = head.header("authorization").and_then(|field| {
        let (scheme, token) = field.split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    });
    let param = Param::find(head.query(), "access_token").value();
    let Some(presented) = field.or(param.as_deref()) else { return settings.tokens.is_empty() };
    // No early end: how long this takes must not tell which token came close.
    let known = settings.tokens.iter().fold(false, |known, token| known | token.matches(presented));
    known || settings.tokens.is_empty()
}

fn is_own(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn is_listed(settings: &Settings, origin: &str) -> bool {
    settings.cors.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::net::http::{HeadLimits, Step};

    fn head(method: &str, fields: &str) -> RequestHead {
        let mut head = RequestHead::new();
        let text = format!("{method} /broker?topic=a HTTP/1.1\r\nHost: here:8081\r\n{fields}\r\n");
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)), "{text}");
        head
    }

    fn status(settings: &Settings, method: &str, fields: &str) -> Option<u16> {
        judge(settings, &head(method, fields)).map(|reply| match reply {
            Reply::Whole { status, .. } => status.code(),
            Reply::Said => unreachable!("a refusal is said later"),
        })
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let closed = Settings::default();
        let open = Settings { cors: vec!["https://app.example".into()], ..closed.clone() };
        let any = Settings { cors: vec!["*".into()], ..closed.clone() };
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        for (method, fields, of_closed, of_open) in [
            ("POST", "", None, None),
            ("POST", "Origin: http://here:8081\r\n", None, None),
            ("POST", "Origin: https://app.example\r\n", Some(403), None),
            ("POST", "Origin: http://evil.example\r\n", Some(403), Some(403)),
            ("POST", "Origin: null\r\n", Some(403), Some(403)),
            ("GET", "Origin: http://evil.example\r\n", None, None),
            ("GET", &format!("Origin: http://evil.example\r\n{upgrade}"), Some(403), Some(403)),
            ("GET", &format!("Origin: https://app.example\r\n{upgrade}"), Some(403), None),
            ("DELETE", "Origin: http://here\r\n", Some(403), Some(403)),
        ] {
            assert_eq!(status(&closed, method, fields), of_closed, "{method} {fields}");
            assert_eq!(status(&open, method, fields), of_open, "{method} {fields}");
            assert_eq!(status(&any, method, fields), None, "{method} {fields}");
        }
    }

    #[test]
    fn a_token_is_one_that_is_known() {
        let settings =
            Settings { tokens: vec![Secret::new("one"), Secret::new("two")], ..Settings::default() };
        for (fields, refused) in [
            ("", Some(401)),
            ("Authorization: Bearer two\r\n", None),
            ("Authorization: bearer one\r\n", None),
            ("Authorization: Bearer on\r\n", Some(401)),
            ("Authorization: Basic one\r\n", Some(401)),
        ] {
            assert_eq!(status(&settings, "GET", fields), refused, "{fields}");
        }
    }
}

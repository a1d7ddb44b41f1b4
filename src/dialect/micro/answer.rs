//! Answers in the shapes of Go's standard library, which clients of this dialect know.
//!
//! Invariant: a text is `text/plain; charset=utf-8` with its line end, an empty answer has no type, and JSON has its
//! length. Lives on: the connection's shard.

use super::BODY_MAX;
use super::guard::Cors;
use crate::net::http::Status;
use crate::net::http::exchange::{BodyError, BodyStep, Exchange, Framing, Gone};

/// What is to be said.
#[derive(Debug)]
pub enum Reply {
    /// A whole answer.
    Whole {
        /// Its status.
        status: Status,
        /// Its type; none without a body.
        content_type: Option<String>,
        /// Further fields.
        fields: Vec<(&'static str, String)>,
        /// Its body.
        body: Vec<u8>,
    },
    /// It has been said.
    Said,
}

/// The type of JSON.
pub const JSON: &str = "application/json";

impl Reply {
    /// 200 without a body.
    pub fn empty() -> Self {
        Reply::bare(Status::OK)
    }

    /// A sentence for people and for programs that compare it.
    pub fn text(status: Status, text: &str) -> Self {
        Reply::Whole {
            status,
            content_type: Some("text/plain; charset=utf-8".into()),
            fields: vec![("X-Content-Type-Options", "nosniff".into())],
            body: format!("{text}\n").into_bytes(),
        }
    }

    /// A status and nothing else.
    pub fn bare(status: Status) -> Self {
        Reply::Whole { status, content_type: None, fields: Vec::new(), body: Vec::new() }
    }

    /// A body of any type.
    pub fn typed(status: Status, content_type: &str, body: Vec<u8>) -> Self {
        Reply::Whole { status, content_type: Some(content_type.into()), fields: Vec::new(), body }
    }

    /// JSON.
    pub fn json(status: Status, body: impl Into<Vec<u8>>) -> Self {
        Reply::typed(status, JSON, body.into())
    }

    /// 404.
    pub fn no_such_page() -> Self {
        Reply::text(Status::NOT_FOUND, "404 page not found")
    }

    /// 405 with the methods that would do.
    pub fn method_not_allowed(allowed: &'static str) -> Self {
        Reply::text(Status::METHOD_NOT_ALLOWED, "Method not allowed").with("Allow", allowed)
    }

    /// 301 to the same path in its shortest form.
    pub fn moved(mut to: String, query: Option<&str>) -> Self {
        if let Some(query) = query {
            to.push('?');
            to.push_str(query);
        }
        let Reply::Whole { fields, .. } = Reply::empty().with("Location", to) else {
            unreachable!("just made")
        };
        Reply::Whole { status: Status::MOVED_PERMANENTLY, content_type: None, fields, body: Vec::new() }
    }

    /// One field more.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Reply::Whole { fields, .. } = &mut self {
            fields.push((name, value.into()));
        }
        self
    }

    /// Says it.
    pub async fn write(self, exchange: &mut Exchange, cors: &Cors) -> Result<(), Gone> {
        let Reply::Whole { status, content_type, fields, body } = self else { return Ok(()) };
        let framing = match status.has_body() {
            true => Framing::Length(body.len() as u64),
            false => Framing::Empty,
        };
        let mut head = exchange.begin(status, framing);
        if let Some(content_type) = content_type {
            head = head.header("Content-Type", content_type);
        }
        for (name, value) in fields.iter().map(|(name, value)| (*name, value.as_str())).chain(cors.fields()) {
            head = head.header(name, value);
        }
        head.finish();
        exchange.send(&body).await?;
        exchange.finish(&[]).await
    }
}

/// The whole body of a request, or why it is not taken.
pub async fn body(exchange: &mut Exchange) -> Result<Result<Vec<u8>, Reply>, Gone> {
    let mut body = Vec::new();
    loop {
        match exchange.read_body(|piece| body.extend_from_slice(piece)).await {
            Ok(BodyStep::End) => return Ok(Ok(body)),
            Ok(BodyStep::Bytes(_)) if body.len() <= BODY_MAX => {}
            Ok(BodyStep::Bytes(_)) => {
                let text = format!("the body is larger than {BODY_MAX} bytes");
                return Ok(Err(Reply::text(Status::CONTENT_TOO_LARGE, &text)));
            }
            Err(BodyError::Gone) => return Err(Gone),
            Err(BodyError::Refused(refusal)) => {
                return Ok(Err(Reply::text(refusal.status, &refusal.reason.to_string())));
            }
        }
    }
}

/// Whether a path begins with a segment that is not a service's.
pub fn is_reserved(path: &str) -> bool {
    let first = path.split('/').find(|segment| !segment.is_empty());
    first.is_some_and(|first| ["registry", "rpc", "broker", "health", "stats"].contains(&first))
}

/// The shortest form of a path, if it is another one: no empty segment, no `.` and no `..`.
pub fn cleaned(path: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let mut clean = format!("/{}", kept.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (path.starts_with('/') && clean != path).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_their_shortest_form() {
        for (path, clean) in [
            ("/", None),
            ("/a/b", None),
            ("/a/", None),
            ("*", None),
            ("//a//b", Some("/a/b")),
            ("/a/../../b/./", Some("/b/")),
            ("//evil.example/x", Some("/evil.example/x")),
        ] {
            assert_eq!(cleaned(path).as_deref(), clean, "{path}");
        }
    }
}

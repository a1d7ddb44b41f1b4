//! One request to the store: signed, sent, tried again where that does no harm, and its refusal understood.
//!
//! Lives on: the connection's shard.

use super::{Place, Remote, RemoteError, State};
use crate::codec::sigv4::{self, ALGORITHM, SigningKey, UNSIGNED};
use crate::codec::text::{hex, percent_encode};
use crate::codec::time::Rfc3339;
use crate::codec::xml_in::{BadXml, Seen, walk};
use crate::net::http::client::{Call, ClientError};
use crate::net::http::request::Request;
use crate::net::http::{BodyLength, Status};
use crate::runtime::{shard, timer};
use crate::service::blob::BlobError;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How often something is tried that may be repeated, and how long after the first time.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// The longest document that tells an error.
const ERROR_MAX: usize = 64 << 10;

/// A request to be signed.
pub(super) struct Ask {
    method: &'static str,
    /// In its canonical form.
    path: String,
    query: Vec<(&'static str, Vec<u8>)>,
    fields: Vec<(String, Vec<u8>)>,
    is_repeatable: bool,
}

/// What is known of a body before it comes.
#[derive(Clone, Copy)]
pub(super) enum Body<'b> {
    /// All of it.
    Whole(&'b [u8]),
    /// How long it is; it follows.
    Follows(u64),
}

impl Ask {
    /// About the store.
    pub fn root(method: &'static str) -> Self {
        Ask::at(method, "/".to_owned())
    }

    /// About a bucket.
    pub fn bucket(method: &'static str, bucket: &str) -> Self {
        Ask::at(method, format!("/{}", percent_encode(bucket.as_bytes())))
    }

    /// About an object.
    pub fn object(method: &'static str, place: &Place) -> Self {
        Ask::at(method, path_of(place))
    }

    fn at(method: &'static str, path: String) -> Self {
        Ask { method, path, query: Vec::new(), fields: Vec::new(), is_repeatable: method != "POST" }
    }

    /// With a parameter.
    pub fn query(mut self, key: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// With a field; its name is in lower case.
    pub fn field(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// With fields.
    pub fn fields(mut self, fields: Vec<(String, Vec<u8>)>) -> Self {
        self.fields.extend(fields);
        self
    }

    /// Says whether twice is once.
    pub fn repeatable(mut self, is_repeatable: bool) -> Self {
        self.is_repeatable = is_repeatable;
        self
    }

    fn sign(&self, remote: &Remote, body: Body<'_>) -> Result<Request, ClientError> {
        let payload = match body {
            Body::Whole(bytes) => hex(&Sha256::digest(bytes)),
            Body::Follows(_) => UNSIGNED.to_owned(),
        };
        let moment = Rfc3339::at_ms(shard::current().wall().unix_millis());
        let timestamp = format!("{}Z", moment.as_str()[..19].replace(['-', ':'], ""));
        let settings = &remote.settings;
        let scope = format!("{}/{}/s3/aws4_request", &timestamp[..8], settings.region);
        let mut query = String::new();
        sigv4::query(self.query.iter().map(|(key, value)| (key, value)), &mut query);
        let mut fields = self.fields.clone();
        fields.push(("x-amz-content-sha256".into(), payload.clone().into()));
        fields.push(("x-amz-date".into(), timestamp.clone().into()));
        let mut signed: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        signed.push(("host", settings.authority.as_bytes()));
        signed.sort();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut canonical = format!("{}\n{}\n{query}\n", self.method, self.path).into_bytes();
        for (name, value) in &signed {
            canonical.extend_from_slice(name.as_bytes());
            canonical.push(b':');
            sigv4::field([*value].into_iter(), &mut canonical);
            canonical.push(b'\n');
        }
        canonical.extend_from_slice(format!("\n{names}\n{payload}").as_bytes());
        let text = sigv4::text_to_sign(&timestamp, &scope, &canonical);
        let signature = hex(&remote.signing_key(&timestamp).sign(text.as_bytes()));
        let id = &settings.key_id;
        let authorization =
            format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
        let target = if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) };
        let mut request = Request::new(self.method, &target, &settings.authority)?;
        for (name, value) in &fields {
            request = request.header(name, value)?;
        }
        let request = request.header("authorization", authorization)?.repeatable(self.is_repeatable);
        Ok(match body {
            Body::Whole([]) if matches!(self.method, "GET" | "HEAD" | "DELETE") => request,
            Body::Whole(bytes) => request.body(BodyLength::Exact(bytes.len() as u64)),
            Body::Follows(len) => request.body(BodyLength::Exact(len)).expect_continue(),
        })
    }
}

/// The path of an object, percent-encoded as signatures have it.
pub(super) fn path_of(place: &Place) -> String {
    let mut path = format!("/{}/", percent_encode(place.bucket.as_bytes()));
    for (index, segment) in place.key.split(|byte| *byte == b'/').enumerate() {
        if index > 0 {
            path.push('/');
        }
        path.push_str(&percent_encode(segment).to_string());
    }
    path
}

impl Remote {
    fn signing_key(&self, timestamp: &str) -> SigningKey {
        let day: [u8; 8] = timestamp.as_bytes()[..8].try_into().expect("eight digits");
        let mut known = self.key.borrow_mut();
        match &*known {
            Some((of, key)) if *of == day => key.clone(),
            _ => {
                let key = SigningKey::derive(&self.settings.secret, &day, &self.settings.region);
                *known = Some((day, key.clone()));
                key
            }
        }
    }

    /// Asks, with a body that is in memory; what comes back is a success, or a refusal that is understood.
    pub(super) async fn ask(&self, ask: &Ask, body: &[u8]) -> Result<Call, BlobError> {
        self.demand_ready()?;
        let call = self.ask_anyhow(ask, body).await?;
        match call.head().status().code() {
            200..=299 => Ok(call),
            _ => Err(refusal(call).await),
        }
    }

    /// The same whether or not the store is ready, with whatever it answers.
    pub(super) async fn ask_anyhow(&self, ask: &Ask, body: &[u8]) -> Result<Call, RemoteError> {
        let mut attempt = 1;
        loop {
            let request = ask.sign(self, Body::Whole(body))?;
            let outcome = self.client.call(&self.endpoint, &request, body).await;
            let again = attempt < ATTEMPTS;
            match outcome {
                Ok(call) if again && ask.is_repeatable && is_passing(call.head().status()) => {}
                Ok(call) => {
                    self.readiness.note(true);
                    return Ok(call);
                }
                Err(error) if again && (ask.is_repeatable || error.is_before_sending()) && passes(&error) => {
                }
                Err(error) => return Err(self.lost(error)),
            }
            // 50, 100, 200 ms: a store that restarts is worth the wait, and a client waits longer for less.
            timer::sleep(PAUSE * 2u32.pow(attempt - 1)).await;
            attempt += 1;
        }
    }

    /// Begins to ask with a body that follows. The store has said that it wants it, or has answered already.
    pub(super) async fn begin(&self, ask: &Ask, len: u64) -> Result<Call, BlobError> {
        self.demand_ready()?;
        let request = ask.sign(self, Body::Follows(len)).map_err(RemoteError::from)?;
        let begun = self.client.begin(&self.endpoint, &request).await;
        Ok(begun.map_err(|error| self.lost(error))?)
    }

    /// The answer to what was begun, if it is a success.
    pub(super) async fn end(&self, mut call: Call) -> Result<Call, BlobError> {
        let status = call.answer().await.map_err(|error| self.lost(error))?.status();
        self.readiness.note(true);
        match status.code() {
            200..=299 => Ok(call),
            _ => Err(refusal(call).await),
        }
    }

    /// Notes that the store could not be reached.
    pub(super) fn lost(&self, error: ClientError) -> RemoteError {
        if !matches!(error, ClientError::Busy | ClientError::Request(_)) {
            self.readiness.note(false);
        }
        tracing::debug!(remote = %self.settings.authority, %error, "remote store");
        error.into()
    }

    /// How the store does.
    pub(super) async fn probe(&self) -> State {
        let ask = Ask::root("GET").query("max-buckets", "1");
        match self.ask_anyhow(&ask, b"").await {
            Ok(call) => match call.head().status().code() {
                200..=299 => State::Ready,
                401 | 403 => State::Denied,
                _ => State::Unreached,
            },
            Err(_) => State::Unreached,
        }
    }
}

/// What a moment later may be another answer.
fn is_passing(status: Status) -> bool {
    matches!(status.code(), 429 | 500 | 502 | 503 | 504)
}

/// What a moment later may not be an error.
fn passes(error: &ClientError) -> bool {
    !matches!(error, ClientError::Request(_) | ClientError::Busy | ClientError::NotHttp(_))
        && !error.is_timeout()
}

/// What a refusal means.
pub(super) async fn refusal(mut call: Call) -> BlobError {
    let status = call.head().status().code();
    let document = call.read_whole(ERROR_MAX).await.ok().flatten().unwrap_or_default();
    understood(status, &code_of(&document))
}

/// The code in a document that tells an error; empty for any other one.
pub(super) fn code_of(document: &[u8]) -> String {
    let mut code = String::new();
    let read = walk::<BadXml>(document, "Error", |path, seen| {
        if let (["Code"], Seen::Text(text)) = (path, seen) {
            code = text.trim().to_owned();
        }
        Ok(())
    });
    if read.is_ok() { code } else { String::new() }
}

/// What a status and a code mean here.
fn understood(status: u16, code: &str) -> BlobError {
    match (status, code) {
        (_, "NoSuchBucket") => BlobError::NoSuchContainer,
        (_, "NoSuchKey") => BlobError::NoSuchBlob,
        (_, "NoSuchUpload") => BlobError::NoSuchUpload,
        (_, "BucketNotEmpty") => BlobError::ContainerNotEmpty,
        (404, "") => RemoteError::Absent.into(),
        (412, _) => BlobError::Precondition,
        (_, "MetadataTooLarge") => BlobError::PropertiesTooLong(METADATA_MAX + 1),
        (429 | 503, _) => RemoteError::Busy.into(),
        (504, _) => RemoteError::Timeout.into(),
        // Nothing that a client can put right: our keys, our clock, our signature, or the store itself.
        (401 | 403, _) => RemoteError::Refused(status, code.into()).into(),
        (400..=499, _) => RemoteError::Rejected(format!("{status} {code}").into()).into(),
        _ => RemoteError::Refused(status, code.into()).into(),
    }
}

/// User metadata that S3 takes.
const METADATA_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_understood() {
        let document = b"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>x</Message></Error>";
        assert_eq!(understood(404, &code_of(document)), BlobError::NoSuchContainer);
        assert_eq!(understood(404, &code_of(b"<html>")), RemoteError::Absent.into());
        assert_eq!(understood(403, "AccessDenied"), RemoteError::Refused(403, "AccessDenied".into()).into());
        assert_eq!(understood(503, "SlowDown"), RemoteError::Busy.into());
        assert_eq!(understood(412, ""), BlobError::Precondition);
        assert_eq!(understood(301, ""), RemoteError::Refused(301, "".into()).into());
    }

    #[test]
    fn paths_have_one_form() {
        let place = |key: &[u8]| Place { bucket: "b".into(), key: key.to_vec() };
        for (key, path) in
            [(&b"a/b c"[..], "/b/a/b%20c"), (b"/", "/b//"), ("\u{e9}+".as_bytes(), "/b/%C3%A9%2B")]
        {
            assert_eq!(path_of(&place(key)), path);
            let mut canonical = String::new();
            sigv4::path(path, &mut canonical);
            assert_eq!(canonical, path, "it is canonical");
        }
    }
}

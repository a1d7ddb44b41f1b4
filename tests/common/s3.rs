//! Requests of S3, plain or signed by a signer of our own, and what to look for in the documents that answer them.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::http::{Answer, Conn, request_bytes};

/// The pair that signs.
pub const ID: &str = "AKIDEXAMPLE";
/// Its secret.
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// The host that requests name: none that a bucket could stand before.
pub const HOST: &str = "millpond.test";

/// `[s3]` with the pair.
pub fn with_keys() -> String {
    format!("access_keys = [{{ id = \"{ID}\", secret = \"{SECRET}\" }}]")
}

/// A code and a status.
#[track_caller]
pub fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, text_of(answer, "Code")), (status, code.to_owned()), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/xml"), "{answer:?}");
    let id = answer.header("x-amz-request-id").expect("an id");
    assert_eq!(text_of(answer, "RequestId"), id);
}

/// The text of the first element of that name; empty when there is none.
pub fn text_of(answer: &Answer, element: &str) -> String {
    texts_of(answer, element).into_iter().next().unwrap_or_default()
}

/// The texts of all elements of that name, in order.
pub fn texts_of(answer: &Answer, element: &str) -> Vec<String> {
    let text = answer.text();
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let inner = |rest: &str| rest.split_once(&close).expect("it is closed").0.replace("&quot;", "\"");
    text.split(&open).skip(1).map(inner).collect()
}

/// Now, as signatures write it.
pub fn timestamp() -> String {
    timestamp_at(0)
}

/// Seconds from now, as signatures write it.
pub fn timestamp_at(from_now: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let text = millpond::codec::time::Rfc3339::at_ms(now.saturating_add_signed(from_now) * 1000);
    format!("{}Z", text.as_str()[..19].replace(['-', ':'], ""))
}

/// Signs requests and bodies of one moment.
pub struct Signer {
    /// When.
    pub timestamp: String,
    key: Vec<u8>,
    /// The last signature of the chain.
    pub last: String,
}

impl Signer {
    /// Signs with `secret` at `timestamp`.
    pub fn new(secret: &str, timestamp: String) -> Self {
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [&timestamp[..8], "us-east-1", "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        Self { timestamp, key, last: String::new() }
    }

    fn scope(&self) -> String {
        format!("{}/us-east-1/s3/aws4_request", &self.timestamp[..8])
    }

    fn sign(&mut self, text: &str) -> String {
        self.last = hex(&hmac(&self.key, text.as_bytes()));
        self.last.clone()
    }

    /// The fields that sign a request. The target is in its canonical form but for the order of parameters.
    pub fn fields(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        payload: &str,
    ) -> Vec<(String, String)> {
        let mut signed: Vec<(String, String)> =
            headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect();
        signed.push(("host".into(), HOST.into()));
        signed.push(("x-amz-date".into(), self.timestamp.clone()));
        signed.push(("x-amz-content-sha256".into(), payload.into()));
        signed.sort();
        let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let fields: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let signature = self.signature(method, target, &fields, &names, payload);
        let scope = self.scope();
        vec![
            ("x-amz-date".into(), self.timestamp.clone()),
            ("x-amz-content-sha256".into(), payload.into()),
            (
                "Authorization".into(),
                format!(
                    "AWS4-HMAC-SHA256 Credential={ID}/{scope}, SignedHeaders={names}, Signature={signature}"
                ),
            ),
        ]
    }

    /// The target of a presigned request.
    pub fn presigned(&mut self, method: &str, target: &str, expires: u64) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let credential = format!("{ID}/{}", self.scope()).replace('/', "%2F");
        let mut query = query.to_owned();
        for (key, value) in [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &self.timestamp),
            ("X-Amz-Expires", &expires.to_string()),
            ("X-Amz-SignedHeaders", "host"),
        ] {
            query.push_str(&format!("{}{key}={value}", if query.is_empty() { "" } else { "&" }));
        }
        let target = format!("{path}?{query}");
        let signature =
            self.signature(method, &target, &format!("host:{HOST}\n"), "host", "UNSIGNED-PAYLOAD");
        format!("{target}&X-Amz-Signature={signature}")
    }

    fn signature(&mut self, method: &str, target: &str, fields: &str, names: &str, payload: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut pairs: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
            .collect();
        pairs.sort();
        let canonical = format!("{method}\n{path}\n{}\n{fields}\n{names}\n{payload}", pairs.join("&"));
        let text = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.timestamp,
            self.scope(),
            hex(&Sha256::digest(canonical))
        );
        self.sign(&text)
    }

    /// A signed chunk, behind the signature before it.
    pub fn chunk(&mut self, data: &[u8]) -> Vec<u8> {
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{}\n{}",
            self.timestamp,
            self.scope(),
            self.last,
            hex(&Sha256::digest(b"")),
            hex(&Sha256::digest(data))
        );
        let signature = self.sign(&text);
        let mut out = format!("{:x};chunk-signature={signature}\r\n", data.len()).into_bytes();
        out.extend_from_slice(data);
        out.extend_from_slice(if data.is_empty() { b"" } else { b"\r\n" });
        out
    }

    /// A trailer and its signature.
    pub fn trailer(&mut self, trailer: &str) -> String {
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{}",
            self.timestamp,
            self.scope(),
            self.last,
            hex(&Sha256::digest(format!("{trailer}\n")))
        );
        let signature = self.sign(&text);
        format!("{trailer}\r\nx-amz-trailer-signature:{signature}\r\n\r\n")
    }
}

/// A signed request on a connection of its own.
#[track_caller]
pub fn signed(addr: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut signer = Signer::new(SECRET, timestamp());
    let fields = signer.fields(method, target, headers, &hex(&Sha256::digest(body)));
    send(addr, method, target, headers, &fields, body)
}

/// A request with fields that were computed.
#[track_caller]
pub fn send(
    addr: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    more: &[(String, String)],
    body: &[u8],
) -> Answer {
    let more = more.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut all: Vec<(&str, &str)> = headers.iter().copied().chain(more).collect();
    // Requests without a body say so where it matters.
    if body.is_empty() && method == "PUT" {
        all.push(("Content-Length", "0"));
    }
    let mut conn = Conn::open(addr);
    conn.send(request_bytes(method, target, &all, body));
    conn.answer_to(method)
}

/// An unsigned request on a connection of its own.
#[track_caller]
pub fn plain(addr: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    send(addr, method, target, headers, &[], body)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256>>::new_from_slice(key).expect("any length is a key");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}
